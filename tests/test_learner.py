"""fastai's Learner with anybody's loss: the steps of `fit`, and all that fastai does with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_ce.data import Digits
from mnist_ce.learner import LearnerLoss, dataloaders, learner
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import mlp
from mnist_ce.results import assert_close
from mnist_ce.scores import as_loss
from mnist_ce.training import fit

pytest.importorskip("fastai", reason="fastai is a development tool")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def book_loss(preds, targets):
    """The book's mnist_loss, as chapter 4 has it."""
    preds = preds.sigmoid()
    return torch.where(targets == 1, 1 - preds, preds).mean()


def squared(preds, targets):
    """A loss of probabilities."""
    return ((preds - targets.view(-1, 1)) ** 2).mean()


def focal(preds, targets):
    """A loss with a value for each example."""
    nll = F.cross_entropy(preds, targets, reduction="none")
    return (1 - (-nll).exp()) ** 2 * nll


def flat(name):
    """A loss of fastai's, made when the test runs."""

    def make():
        import fastai.losses

        return getattr(fastai.losses, name)()

    return make


STRANGERS = {
    "book_loss": lambda: book_loss,
    "F.cross_entropy": lambda: F.cross_entropy,
    "smoothed": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "summed": lambda: nn.CrossEntropyLoss(reduction="sum"),
    "weighted": lambda: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
    "BCE": lambda: nn.BCEWithLogitsLoss(),
    "focal": lambda: focal,
    "CrossEntropyLossFlat": flat("CrossEntropyLossFlat"),
    "BCEWithLogitsLossFlat": flat("BCEWithLogitsLossFlat"),
    "FocalLossFlat": flat("FocalLossFlat"),
}
SMALL_RATE = {"summed": 1 / 256}


def trained(learn, epochs=1):
    """What the Learner recorded last: [train_loss, valid_loss, metrics …], seconds left out."""
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs)
    return learn.recorder.values[-1]


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_losses_take_the_steps_of_fit(sample, name):
    loss, lr = STRANGERS[name](), SMALL_RATE.get(name, 1.0)
    train, valid = sample[0][::4], sample[1]
    learn = learner(loss, train, valid, seed=3, lr=lr)
    recorded = trained(learn)
    run = fit(STRANGERS[name](), train, valid, epochs=1, seed=3, lr=lr, progress=False)
    assert_close(learn.model[1].weight.T, run.weights, terms=784)
    assert recorded[2] == pytest.approx(run.history[-1].accuracy, abs=1e-6)
    assert recorded[2] > 0.9
    probabilities, _, answers = learn.get_preds(with_decoded=True)
    assert 0 <= probabilities.min() and probabilities.max() <= 1
    assert (answers == valid.y[:, 0]).double().mean().item() == pytest.approx(recorded[2], abs=1e-6)


@pytest.mark.parametrize("shuffle", [True, False])
def test_order_and_start_are_those_of_fit(sample, shuffle):
    settings = dict(seed=3, data_seed=4, shuffle=shuffle, batch_size=100, init_std=0.1)
    train, valid = sample[0][::4], sample[1]
    learn = learner(cross_entropy_loss, train, valid, **settings)
    trained(learn)
    run = fit(cross_entropy_loss, train, valid, epochs=1, **settings, progress=False)
    assert_close(learn.model[1].weight.T, run.weights, terms=784)
    assert_close(learn.model[1].bias, run.bias, terms=784)


def test_the_last_short_batch_is_kept(sample):
    dls = dataloaders(*sample)
    assert sum(len(yb) for _, yb in dls.train) == len(sample[0])
    assert sum(len(yb) for _, yb in dls.valid) == len(sample[1])


def test_predictions_are_probabilities_and_labels(sample, loss):
    learn = learner(loss, *sample)
    share = trained(learn)[2]
    with learn.no_bar(), learn.no_logging():
        probabilities, targets, answers, single = learn.get_preds(with_decoded=True, with_loss=True)
    assert probabilities.min() >= 0 and probabilities.max() <= 1
    assert probabilities.shape[1] == (loss.columns or 2)
    assert single.shape == answers.shape == (2038,)
    assert (answers == targets).double().mean().item() == pytest.approx(share, abs=1e-6)
    assert torch.equal(targets.cpu(), sample[1].y[:, 0])


def test_top_losses_are_the_highest(sample):
    from fastai.vision.all import ClassificationInterpretation

    learn = learner(F.cross_entropy, *sample)
    trained(learn)
    with learn.no_bar(), learn.no_logging():
        found = ClassificationInterpretation.from_learner(learn)
        losses, rows = found.top_losses(5)
        images, _, targets, _, _ = found[rows]
    assert losses.tolist() == sorted(losses.tolist(), reverse=True) and losses[0] > 1
    assert torch.equal(images.cpu().flatten(1), sample[1].x[rows])
    assert torch.equal(targets.cpu(), sample[1].y[rows, 0])
    assert found.confusion_matrix().sum() == 2038


def test_arguments_go_to_fastais_learner(sample):
    from fastai.vision.all import Adam, Callback

    class Count(Callback):
        steps = 0

        def after_batch(self):
            self.steps += self.training

    count, share = Count(), lambda preds, targets: (preds.argmax(1) == targets).float().mean()
    own = dict(cbs=count, metrics=[share, share], wd=0.25, opt_func=Adam)
    learn = learner(cross_entropy_loss, sample[0][::8], sample[1], **own)
    recorded = trained(learn)
    assert count.steps == -(-len(sample[0][::8]) // 256)
    assert len(recorded) == 4 and recorded[2] == recorded[3], "our metric is replaced"
    assert learn.wd == 0.25 and learn.opt_func is Adam
    assert learn.lr == 0.001, "the rate of 1.0 is that of plain descent"
    with pytest.raises(TypeError, match="loss_func"):
        learner(cross_entropy_loss, *sample, loss_func=F.cross_entropy)


def test_own_metrics_by_name_are_of_all_images_and_not_of_batches(sample):
    def f1(preds, targets):  # the images stand class by class: no mean of batches is it
        says_3, is_3 = preds.argmax(1) == 1, targets == 1
        return 2 * (says_3 & is_3).float().sum() / (says_3.sum() + is_3.sum())

    learn = learner(cross_entropy_loss, *sample, metrics=dict(f1=f1))
    *_, found = trained(learn)
    expected = fit(cross_entropy_loss, *sample, epochs=1, progress=False, metrics=dict(f1=f1)).history[-1].f1
    assert learn.recorder.metric_names[3] == "f1" and found == pytest.approx(expected, abs=1e-3) and found > 0.97


class Sigmoid(nn.Module):
    """One column of probabilities from pictures."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 1)

    def forward(self, x):
        assert x.shape[1:] == (1, 28, 28)
        return self.layer(x.flatten(1)).sigmoid()


def test_a_model_of_ones_own_trains_as_in_fastai(sample):
    from fastai.vision.all import Adam

    learn = learner(F.cross_entropy, *sample, model=mlp(2, torch.Generator().manual_seed(0)))
    assert learn.opt_func is Adam and learn.lr == 0.001
    assert trained(learn)[2] > 0.95
    assert learner(F.cross_entropy, *sample, model=learn.model, lr=0.5).lr == 0.5


def test_probabilities_are_read_as_such(sample):
    model = Sigmoid()
    learn = learner(squared, *sample, model=model, lr=0.01)
    share = trained(learn, 2)[2]
    with torch.no_grad():
        p = model(sample[1].x.view(-1, 1, 28, 28).to(next(model.parameters()).device)).cpu()
    truth = ((p > 0.5) == sample[1].y).double().mean().item()
    assert share == pytest.approx(truth, abs=1e-6) and share > 0.95


def test_a_loss_that_rises_is_warned_of(sample):
    with pytest.warns(UserWarning, match="Is a minus missing"):
        learner(lambda preds, targets: -F.cross_entropy(preds, targets), *sample)


def test_small_pictures_and_names_as_classes():
    x = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    data = Digits.of(x, ["cat", "dog"] * 20)
    valid = Digits.of(1 - x, ["cat", "dog"] * 20)
    dls = dataloaders(data, valid, batch_size=8, shuffle=False)
    xb, _ = dls.one_batch()
    assert xb.shape == (8, 1, 4, 4) and list(dls.vocab) == ["cat", "dog"]


def test_a_loss_that_sums_goes_on_summing():
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    summed = LearnerLoss(as_loss(nn.CrossEntropyLoss(reduction="sum"), 2))
    assert_close(summed(logits, labels), F.cross_entropy(logits, labels, reduction="sum"), terms=2)


def test_what_makes_no_sense_is_named(sample):
    with pytest.raises(TypeError, match="valid must be Digits"):
        dataloaders(sample[0], [1])
    with pytest.raises(ValueError, match="batch_size=0"):
        dataloaders(*sample, batch_size=0)
    with pytest.raises(ValueError, match="lr=-1"):
        learner(cross_entropy_loss, *sample, lr=-1)
    with pytest.raises(ValueError, match="2 columns are needed"):
        learner(cross_entropy_loss, *sample, model=mlp(10, torch.Generator().manual_seed(0)))
    odd = Digits(torch.rand(4, 6), torch.tensor([[0], [1], [0], [1]]), (0, 1))
    with pytest.raises(ValueError, match="6 pixels: no square"):
        dataloaders(odd, Digits(odd.x + 1, odd.y, odd.classes))
    rows = nn.GRU(28, 8, batch_first=True)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.out = rows, nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.rows(x)[0][:, -1])

    with pytest.raises(
        ValueError, match=r"takes \[n, 28, 28\]: write nn.Sequential\(nn.Flatten\(1, 2"
    ):
        learner(cross_entropy_loss, *sample, model=Reader())


def test_fastais_tensors_stay_with_fastai(sample):
    from fastai.losses import CrossEntropyLossFlat

    run = fit(CrossEntropyLossFlat(), *sample, epochs=1, progress=False)
    assert type(run.accuracy) is torch.Tensor and type(run.train_loss) is torch.Tensor
