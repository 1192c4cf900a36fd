"""Anybody's loss is read by experiment: form of targets, columns, reduction, direction, kind."""
import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import named
from torch import nn

from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss, softmax_loss
from mnist_ce.results import assert_close
from mnist_ce.scores import Loss, as_loss, class_logits


def book(predictions, targets):
    predictions = predictions.sigmoid()
    return torch.where(targets == 1, 1 - predictions, predictions).mean()


def focal(preds, targets):
    log_p = preds.log_softmax(1).gather(1, targets.view(-1, 1)).squeeze(1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def squeezing(preds, targets):
    return F.cross_entropy(preds, targets.squeeze())


def original(preds, targets):
    return F.nll_loss(preds.softmax(1).log(), torch.squeeze(targets))


def flat_bce(preds, targets):
    return F.binary_cross_entropy_with_logits(preds.squeeze(), targets.float().squeeze())


def first_column(preds, targets):
    return F.binary_cross_entropy_with_logits(preds[:, 0], targets.float().view(-1))


def brier(preds, targets):
    return F.mse_loss(preds.softmax(1), targets)


def hinge(preds, targets):
    return (1 - preds * targets).clamp(min=0).mean()


def nll_of_probabilities(p, targets):
    return -torch.log(p[range(len(p)), targets]).mean()


class Callable:
    def __call__(self, preds, targets):
        return F.cross_entropy(preds, targets)


WEIGHTS = torch.tensor([1.0, 3.0])
# loss, columns (None: one per class), kind of scores, reduction, for two classes
STRANGERS = [
    (book, 1, "logits", "mean"),
    (F.cross_entropy, None, "logits", "mean"),
    (nn.CrossEntropyLoss(label_smoothing=0.1), None, "logits", "mean"),
    (nn.CrossEntropyLoss(reduction="sum"), None, "logits", "sum"),
    (nn.CrossEntropyLoss(reduction="none"), None, "logits", "mean"),
    (nn.CrossEntropyLoss(weight=WEIGHTS), None, "logits", None),
    (functools.partial(F.cross_entropy, reduction="sum"), None, "logits", "sum"),
    (functools.partial(cross_entropy_loss, reduction="sum"), None, "logits", "sum"),
    (functools.partial(mnist_loss), 1, "logits", "mean"),
    (functools.partial(nll_loss), None, "log-probabilities", "mean"),
    (focal, None, "logits", "mean"),
    (squeezing, None, "logits", "mean"),
    (original, None, "logits", "mean"),
    (flat_bce, 1, "logits", "mean"),
    (brier, None, "logits", "mean"),
    (hinge, 1, "logits", "mean"),
    (Callable(), None, "logits", "mean"),
    (nn.BCEWithLogitsLoss(), 1, "logits", "mean"),
    (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0])), 1, "logits", "mean"),
    (nn.SoftMarginLoss(), 1, "logits", "mean"),
    (nn.MultiMarginLoss(), None, "logits", "mean"),
    (nn.MSELoss(), None, "logits", "mean"),
    (nn.BCELoss(), 1, "probabilities", "mean"),
    (nll_of_probabilities, None, "probabilities", "mean"),
    (F.nll_loss, None, "log-probabilities", "mean"),
    (nn.KLDivLoss(reduction="batchmean"), None, "log-probabilities", "mean"),
]


@pytest.mark.parametrize("loss, columns, kind, reduction", STRANGERS, ids=named)
def test_a_strangers_loss_is_read(loss, columns, kind, reduction, device):
    if isinstance(loss, nn.Module):
        loss = loss.to(device)
    found = as_loss(loss, 2, device=device)
    assert (found.columns, found.scores, found.reduction) == (columns, kind, reduction)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(reduction="sum"), focal, squeezing], ids=named)
@pytest.mark.parametrize("classes", [2, 3, 10, 200])
def test_what_is_read_is_the_same_loss(loss, classes):
    z = 3 * torch.randn(5, classes, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5) % classes
    found = as_loss(loss, classes)
    mean = focal(z, y) if loss is focal else F.cross_entropy(z, y)
    assert_close(found(z, y), mean, terms=classes)
    assert_close(found(z, y.view(-1, 1), "sum"), 5 * mean, terms=classes)
    assert_close(found(z, y, "none").mean(), mean, terms=classes)
    # many models at once, each with its own scores
    crowd = torch.stack([z, -z])
    values, slopes = found.value_and_slopes(crowd, y)
    assert_close(values, torch.stack([found(z, y), found(-z, y)]), terms=classes)
    alone = z.clone().requires_grad_()
    loss(alone, y).backward()  # the gradient of a sum where it is a sum
    assert_close(slopes[0], alone.grad, terms=classes)


def test_a_wrapper_is_itself_and_not_the_loss_inside():
    @functools.wraps(cross_entropy_loss)
    def negated(preds, targets, reduction="mean"):
        return -cross_entropy_loss(preds, targets, reduction)

    with pytest.warns(UserWarning, match="cross_entropy_loss rises as the right answer's score rises"):
        found = as_loss(negated, 2)
    z, y = torch.tensor([[1.0, -1.0]]), torch.tensor([0])
    assert_close(found(z, y), -cross_entropy_loss(z, y))
    assert found.value_and_slopes(z.unsqueeze(0), y)[1][0, 0, 0] > 0


@pytest.mark.parametrize(
    "loss, words",
    [
        (lambda z, y: z.softmax(1).gather(1, y.view(-1, 1)).mean(), "rises as the right answer's"),
        (lambda z, y: F.nll_loss(z.log_softmax(0), y.view(-1)), "mixes examples"),
        (lambda z, y: torch.where(y == 0, z.sum() * 0, F.cross_entropy(z, y, reduction="none")).mean(),
         "no gradient for label 0"),
        (nn.CrossEntropyLoss(weight=torch.tensor([0.0, 3.0])), "no gradient for label 0"),
    ],
    ids=["reversed", "softmax over the batch", "dead label", "weight 0"],
)  # fmt: skip
def test_what_trains_badly_is_warned_of(loss, words):
    with pytest.warns(UserWarning, match=words):
        as_loss(loss, 2)


@pytest.mark.parametrize(
    "loss, classes, error, words",
    [
        ("mse", 2, TypeError, "must be a function of .*, got 'mse'"),
        (nn.CrossEntropyLoss, 2, TypeError, r"write CrossEntropyLoss\(\), with brackets"),
        (lambda z, y: F.cross_entropy(z, y).item(), 2, ValueError, "returns float, not a tensor"),
        (lambda z, y: F.cross_entropy(z.detach(), y), 2, ValueError, "carries no gradient"),
        (lambda z, y: (z**2).mean(), 2, ValueError, "can be read in no way for 2 classes"),
        (lambda z, y: None, 2, ValueError, "<lambda>: it returns NoneType, not a tensor: end it in `return loss`$"),
        (lambda z: z, 2, ValueError, "can be read in no way: it raises TypeError: .* takes 1 positional argument"),
        (lambda z, y: F.cross_entropy(zz, y), 2, ValueError, "no way: it raises NameError: name 'zz' is not defined$"),  # noqa: F821
        (lambda z, y: (F.cross_entropy(z, y), z), 2, ValueError, "returns tuple, not a tensor: return the loss alone$"),
        ("cross_entropy", 2, TypeError, "got 'cross_entropy': write F.cross_entropy$"),
        (torch.tensor(1.0), 2, TypeError, "write the function itself$"),
        ([F.cross_entropy], 2, TypeError, r"for several write compare\(losses, train, valid\)$"),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), 2, ValueError, "all 2 classes .*: give it a weight for each class of the data$"),
        (mnist_loss, 10, ValueError, "mnist_loss scores one column, which tells 2 classes apart, not 10"),
        (first_column, 10, ValueError, "first_column scores one column, which tells 2 classes apart"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_what_was_tried(loss, classes, error, words):
    with pytest.raises(error, match=words):
        as_loss(loss, classes)


def test_columns_of_the_model_decide():
    assert as_loss(nn.MSELoss(), 2, columns=1).scores == "probabilities"
    with pytest.raises(ValueError, match="the model gives 2 columns, mnist_loss takes 1"):
        as_loss(mnist_loss, 2, columns=2)
    cure = r"end it in nn.Linear\(…, 2\), or take F.binary_cross_entropy_with_logits"
    with pytest.raises(ValueError, match=f"^cross_entropy takes a column .*, and the model gives 1: {cure}$"):
        as_loss(F.cross_entropy, 2, columns=1)


def test_random_states_and_the_callers_tensors_stay_as_they_were():
    weight = WEIGHTS.clone()
    state = torch.get_rng_state()
    as_loss(lambda z, y: F.cross_entropy(F.dropout(z, 0.0) + 0 * torch.rand(()), y, weight), 2)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(weight, WEIGHTS)
    module = nn.CrossEntropyLoss()
    as_loss(module, 2)
    assert module.reduction == "mean"


def test_a_compiled_loss_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile warns about itself
        assert as_loss(torch.compile(focal, backend="eager"), 2).reduction == "mean"


def test_class_weights_have_no_loss_for_each_example():
    found = as_loss(nn.CrossEntropyLoss(weight=WEIGHTS), 2)
    z, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert_close(found(z, y), nn.CrossEntropyLoss(weight=WEIGHTS)(z, y))
    with pytest.raises(ValueError, match="class weights"):
        found(z, y, "none")


def test_scores_of_each_kind_give_the_same_probabilities():
    z = torch.tensor([[1.0], [-2.0]])
    both = torch.cat([torch.zeros(2, 1), z], 1)
    kinds = [(z, "logits"), (both, "logits"), (both.log_softmax(1), "log-probabilities"),
             (z.sigmoid(), "probabilities"), (both.softmax(1), "probabilities")]  # fmt: skip
    for scores, kind in kinds:
        assert_close(class_logits(scores, kind).softmax(1), both.softmax(1), terms=4)


def test_a_loss_sent_to_another_process_keeps_what_its_scores_mean():
    import pickle

    for loss in mnist_loss, softmax_loss, nll_loss:
        sent = pickle.loads(pickle.dumps(loss))
        assert isinstance(sent, Loss)
        assert (sent.name, sent.columns, sent.scores) == (loss.name, loss.columns, loss.scores)
