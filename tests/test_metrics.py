"""Metrics count each image once, and refuse what they cannot count."""
import math

import pytest
import torch

from mnist_ce.data import Digits
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.metrics import (
    BatchMeans, Pooled, accuracy, as_metric, binary_accuracy, confusion_matrix, evaluate, expected_calibration_error,
    measure, true_accuracy,
)  # fmt: skip
from mnist_ce.model import Linears, init_params, linear1


@pytest.mark.parametrize("metric, columns", [(binary_accuracy, 1), (accuracy, 2), (confusion_matrix, 2), (expected_calibration_error, 2)])
@pytest.mark.parametrize(
    "kind, spoil, words",
    [
        (ValueError, lambda z, t: (z[:, 0], t.unsqueeze(1)), r"must be \[N, C\]"),
        (ValueError, lambda z, t: (z, t[:2]), r"targets must be \[3\] or \[3, 1\]"),
        (ValueError, lambda z, t: (z, t + 2), "out of range"),
        (TypeError, lambda z, t: (z, t.float()), "int tensor"),
        (ValueError, lambda z, t: (z * float("nan"), t), "contain nan"),
    ],
)
def test_bad_input(metric, columns, kind, spoil, words):
    with pytest.raises(kind, match=words):
        metric(*spoil(torch.ones(3, columns), torch.tensor([0, 1, 1])))


def test_columns_are_not_mixed_up():
    with pytest.raises(ValueError, match="with 1 column"):
        binary_accuracy(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="2 or more columns"):
        accuracy(torch.zeros(3, 1), torch.tensor([0, 1, 1]))


def test_accuracy_and_confusion_by_hand():
    t = torch.tensor([0, 1, 2, 2])
    z = torch.eye(3)[[0, 2, 2, 0]]
    assert accuracy(z, t) == accuracy(z, t.unsqueeze(1)) == 0.5
    assert confusion_matrix(z, t).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 1]], "rows are labels"
    assert binary_accuracy(torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1, 1, 1])) == torch.tensor(2 / 3)


def test_evaluation_is_pooled(sample, device):
    train = sample[0].to(device)
    generator = torch.Generator().manual_seed(0)
    for loss, columns in (mnist_loss, 1), (cross_entropy_loss, 2):
        weights = init_params((784, columns), std=0.1, generator=generator).detach().to(device)
        model = lambda xb: linear1(xb, weights, torch.zeros(columns, device=device))
        metric = binary_accuracy if columns == 1 else accuracy
        scores = evaluate(loss, model, train)
        logits = model(train.x)
        assert scores.accuracy == pytest.approx(metric(logits, train.y).item(), abs=2 / len(train))
        assert scores.loss == pytest.approx(loss(logits, train.y).item(), rel=1e-5)
        z = torch.cat([torch.zeros_like(logits), logits], 1) if columns == 1 else logits
        assert scores.nll == pytest.approx(cross_entropy_loss(z, train.y).item(), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 17, 26])
def test_confusion_counts_narrow_ints(classes):
    t = torch.arange(classes).to(torch.uint8)
    assert torch.equal(confusion_matrix(torch.eye(classes), t), torch.eye(classes, dtype=torch.long))


def test_evaluation_refuses_what_does_not_fit(sample):
    valid = sample[1]
    with pytest.raises(ValueError, match="no images"):
        evaluate(mnist_loss, lambda x: x[:, :1], valid[:0])
    with pytest.raises(ValueError, match="returns a tuple: let it return the scores alone"):
        evaluate(cross_entropy_loss, lambda x: (x[:, :2], x), valid)


def test_a_module_is_evaluated_in_eval_mode_and_put_back(sample):
    module = torch.nn.Sequential(torch.nn.Linear(784, 2), torch.nn.Dropout(0.5))
    first, second = (evaluate(cross_entropy_loss, module, sample[1]) for _ in range(2))
    assert first == second and module.training and module[1].training


class Fixed:
    """Two models' scores, one column: the second is the first with its sign turned."""

    def logits(self, x):
        return torch.stack([x[:, :1], -x[:, :1]])


def toy():
    x = torch.tensor([[2.0], [2.0], [-2.0], [2.0], [2.0]])
    return Digits(x, torch.tensor([[1], [1], [1], [0], [0]]), (7, 3))


def test_pooled_and_batch_means_differ_by_the_short_batch():
    right = lambda scores, labels: ((scores > 0).view(-1) == labels).float()
    found = measure(Fixed(), toy(), dict(pooled=Pooled(right), means=BatchMeans(right)), batch_size=4)
    assert found["pooled"].tolist() == [2 / 5, 3 / 5] and found["means"].tolist() == [0.25, 0.75]


def test_a_metric_starts_anew_once_computed():
    metric = true_accuracy()
    for _ in range(2):
        assert measure(Fixed(), toy(), dict(a=metric))["a"].tolist() == [2 / 5, 3 / 5]


def test_broken_models_have_no_accuracy():
    weights = torch.ones(2, 3, 1)
    weights[0, 1], weights[1, 2] = torch.nan, torch.inf
    models = Linears(weights, torch.zeros(2, 3), cross_entropy_loss, torch.ones(3))
    accuracy = measure(models, toy(), dict(a=true_accuracy()))["a"]
    assert accuracy.isnan().tolist() == [False, True, True]


def f1(preds, targets):
    answers, t = preds.argmax(1), targets.view(-1)
    hits = ((answers == 1) & (t == 1)).sum()
    return 2 * hits / ((answers == 1).sum() + (t == 1).sum())


@pytest.mark.parametrize(
    "function, form",
    [
        (f1, (-1,)),
        (lambda p, t: (p.argmax(1) == t).float().mean(), (-1,)),
        (lambda p, t: (p.argmax(1, keepdim=True) == t).float().mean(), (-1, 1)),
        (lambda p, t: float((p.argmax(1).numpy() != t.numpy()).mean()), (-1,)),
    ],
)
def test_the_form_of_targets_that_a_metric_wants_is_found(function, form):
    assert as_metric("own", function, columns=2).form == form


def test_metrics_that_cannot_be_called():
    with pytest.raises(TypeError, match="the metric 'f1' must be a function of .*, got 'f1'"):
        as_metric("f1", "f1", columns=2)
    with pytest.raises(ValueError, match=r"the metric 'own' failed on \[7, 2\]: TypeError"):
        as_metric("own", lambda preds: 1.0, columns=2)
    with pytest.raises(ValueError, match="the metric 'all' failed"):
        as_metric("all", lambda p, t: p.argmax(1) == t, columns=2)


def test_calibration_by_hand():
    half_sure = torch.tensor([[math.log(3.0), 0.0]]).repeat(4, 1)  # 0.75 for label 0
    assert expected_calibration_error(half_sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-7)
    assert expected_calibration_error(half_sure, torch.tensor([1, 1, 1, 1])) == pytest.approx(0.75)
    assert expected_calibration_error(torch.tensor([[math.log(3.0)]]), torch.tensor([1])) == pytest.approx(0.25)


def test_calibration_counts_an_edge_in_the_bin_below():
    sure = torch.tensor([[0.0, 200.0]])  # a probability of 1 belongs to the last bin
    assert expected_calibration_error(sure, torch.tensor([1])) == 0
    at = lambda p: torch.tensor([[math.log(1 - p), math.log(p)]], dtype=torch.double)
    # 0.6 is the upper edge of a bin of five, 0.61 is in the next: apart, their errors do not cancel
    z, t = torch.cat([at(0.6 - 1e-12), at(0.61)]), torch.tensor([1, 0])
    assert expected_calibration_error(z, t, bins=5) == pytest.approx((0.4 + 0.61) / 2)
    assert expected_calibration_error(z, t, bins=1) == pytest.approx((0.61 - 0.4) / 2)
