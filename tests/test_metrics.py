"""Metrics count each image once, and refuse what they cannot count."""
import math

import pytest
import torch

from mnist_ce.data import Digits
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.metrics import accuracy, binary_accuracy, confusion_matrix, evaluate, expected_calibration_error, summarize
from mnist_ce.model import init_params, linear1


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
    z = torch.eye(3)[[0, 2, 2, 1]]
    assert accuracy(z, t) == accuracy(z, t.unsqueeze(1)) == 0.5
    assert confusion_matrix(z, t).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert binary_accuracy(torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1, 1, 1])) == torch.tensor(2 / 3)


def test_evaluation_is_pooled(sample, device):
    train = sample[0].to(device)
    generator = torch.Generator().manual_seed(0)
    for loss, columns in (mnist_loss, 1), (cross_entropy_loss, 2):
        weights = init_params((784, columns), std=0.1, generator=generator).detach().to(device)
        model = lambda xb: linear1(xb, weights, torch.zeros(columns, device=device))
        metric = binary_accuracy if columns == 1 else accuracy
        for batch_size in 100, 4096:
            scores = evaluate(loss, model, train, batch_size)
            logits = model(train.x)
            assert scores.accuracy == pytest.approx(metric(logits, train.y).item(), abs=2 / len(train))
            assert scores.loss == pytest.approx(loss(logits, train.y).item(), rel=1e-5)
            z = torch.cat([torch.zeros_like(logits), logits], 1) if columns == 1 else logits
            assert scores.nll == pytest.approx(cross_entropy_loss(z, train.y).item(), rel=1e-5)


def test_evaluation_refuses_what_does_not_fit(sample):
    valid = sample[1]
    with pytest.raises(ValueError, match="no images"):
        evaluate(mnist_loss, lambda x: x[:, :1], valid[:0])
    with pytest.raises(ValueError, match=r"logits \[2038, 3\] do not fit"):
        evaluate(cross_entropy_loss, lambda x: x[:, :3], valid)
    with pytest.raises(ValueError, match="contain nan"):
        evaluate(mnist_loss, lambda x: x[:, :1] * float("nan"), valid)


def test_calibration_by_hand():
    half_sure = torch.tensor([[math.log(3.0), 0.0]]).repeat(4, 1)  # 0.75 for label 0
    assert expected_calibration_error(half_sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-7)
    assert expected_calibration_error(half_sure, torch.tensor([1, 1, 1, 1])) == pytest.approx(0.75)
    assert expected_calibration_error(torch.tensor([[math.log(3.0)]]), torch.tensor([1])) == pytest.approx(0.25)


def test_summary_by_hand():
    result = summarize([1, 2, 3])
    assert (result.n, result.mean, result.sd) == (3, 2, 1)
    assert result.high - result.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t of 2 degrees of freedom
    assert math.isnan(summarize([1]).sd) and math.isnan(summarize([1, float("nan")]).mean)


def test_toy_digits_refuse_bad_tensors():
    x, y = torch.zeros(3, 4), torch.tensor([[0], [1], [1]])
    assert Digits(x, y, (7, 3)).index.tolist() == [0, 1, 2]
    for kind, arguments in [
        (TypeError, (x.double(), y, (7, 3))),
        (TypeError, (x, y.float(), (7, 3))),
        (ValueError, (x, y.squeeze(1), (7, 3))),
        (ValueError, (x, y[:2], (7, 3))),
        (ValueError, (x, y + 1, (7, 3))),
        (ValueError, (x, y - 1, (7, 3))),
        (ValueError, (x, y, (3, 3))),
    ]:
        with pytest.raises(kind, match="Digits: "):
            Digits(*arguments)
