"""fastai's Learner with our losses: the same steps as `fit`, and all that fastai does with a loss."""
import pytest
import torch

from mnist_ce.data import mnist
from mnist_ce.learner import LearnerLoss, dataloaders, learner
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.model import assert_close
from mnist_ce.training import fit

pytest.importorskip("fastai", reason="fastai is a development tool")
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning"),
              pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::ResourceWarning"),
              pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]  # fmt: skip


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_learner_takes_the_steps_of_fit(sample, loss, shuffle):
    learn = learner(loss, *sample, seed=3, data_seed=4, shuffle=shuffle)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    run = fit(loss, *sample, epochs=1, seed=3, data_seed=4, shuffle=shuffle, progress=False)
    assert_close(learn.model[1].weight.T, run.weights, terms=784)
    assert_close(learn.model[1].bias, run.bias, terms=784)
    assert learn.recorder.values[-1][2] == pytest.approx(run.history[-1].accuracy, abs=1e-6)


def test_labels_keep_their_order(sample):
    dls = dataloaders(*sample, shuffle=False)
    assert list(dls.vocab) == ["7", "3"]
    xb, yb = dls.one_batch()
    assert torch.equal(xb.cpu().flatten(1), sample[0].x[:256]) and torch.equal(yb.cpu(), sample[0].y[:256, 0])
    assert sum(len(yb) for _, yb in dls.train) == len(sample[0]), "the last short batch is kept"


def test_predictions_are_probabilities_and_labels(sample, loss):
    learn = learner(loss, *sample)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        share = learn.recorder.values[-1][2]
        probabilities, targets, answers, single = learn.get_preds(with_decoded=True, with_loss=True)
    assert probabilities.min() >= 0 and probabilities.max() <= 1
    assert probabilities.shape[1] == (loss.columns or 2) and single.shape == answers.shape == (2038,)
    assert (answers == targets).double().mean().item() == pytest.approx(share, abs=1e-6)
    assert torch.equal(targets.cpu(), sample[1].y[:, 0])


def test_top_losses_are_the_highest(sample):
    from fastai.vision.all import ClassificationInterpretation

    learn = learner(cross_entropy_loss, *sample)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        found = ClassificationInterpretation.from_learner(learn)
        losses, rows = found.top_losses(5)
        images, _, targets, _, _ = found[rows]
    assert losses.tolist() == sorted(losses.tolist(), reverse=True) and losses[0] > 1
    assert torch.equal(images.cpu().flatten(1), sample[1].x[rows]) and torch.equal(targets.cpu(), sample[1].y[rows, 0])
    assert found.confusion_matrix().sum() == 2038


def test_fastais_cross_entropy_is_ours():
    from fastai.losses import CrossEntropyLossFlat

    z, y = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) * 10, torch.arange(64) % 10
    assert_close(CrossEntropyLossFlat()(z, y), LearnerLoss(cross_entropy_loss)(z, y), terms=64)


def test_what_makes_no_sense_is_named(sample):
    with pytest.raises(ValueError, match="mnist_loss scores one column"):
        learner(mnist_loss, *mnist())
    with pytest.raises(TypeError, match="valid must be Digits"):
        dataloaders(sample[0], [1])
    with pytest.raises(ValueError, match="batch_size=0"):
        dataloaders(*sample, batch_size=0)
