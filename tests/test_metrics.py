"""Metrics count each image once, and refuse what they cannot count."""
import math
import re
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_ce.data import Digits
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.metrics import (
    BatchMeans, Pooled, Whole, accuracy, as_metric, binary_accuracy, confusion_matrix, evaluate,
    expected_calibration_error, input_shape, measure, true_accuracy,
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
    with pytest.raises(kind, match=f"^{metric.__name__}: .*{words}"):
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
    assert binary_accuracy(torch.zeros(3, 1), torch.tensor([0, 0, 1])) == torch.tensor(2 / 3), "0 answers label 0"


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


def test_labels_that_never_occur_have_rows_and_columns_of_zeros():
    z = torch.tensor([[5.0, 0, 0, 0], [0, 5, 0, 0], [5, 0, 0, 0]])
    assert confusion_matrix(z, torch.tensor([0, 0, 1])).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
    assert confusion_matrix(z[:, :1], torch.tensor([1, 1, 1])).tolist() == [[0, 0], [1, 2]], "one column is label 1's"


def test_confusion_is_what_counting_one_by_one_gives(sample):
    valid = sample[1]
    z = valid.x @ torch.randn(784, 2, generator=torch.Generator().manual_seed(0))
    counts = Counter(zip(valid.y.view(-1).tolist(), z.argmax(1).tolist()))
    found = confusion_matrix(z, valid.y)
    assert found.tolist() == [[counts[row, column] for column in (0, 1)] for row in (0, 1)]
    assert found[0, 1] != found[1, 0] and found.diagonal().sum() / len(z) == pytest.approx(accuracy(z, valid.y).item())


def test_the_nll_is_that_of_the_probabilities_whatever_the_scores(sample):
    valid = sample[1]
    weights = 0.1 * torch.randn(784, 2, generator=torch.Generator().manual_seed(0))
    z, y = valid.x @ weights, valid.y.view(-1)
    expected = F.cross_entropy(z, y).item()
    ends = {nn.NLLLoss(): lambda x: (x @ weights).log_softmax(1),
            nn.BCELoss(): lambda x: (x @ weights).softmax(1)[:, 1:],
            nn.BCEWithLogitsLoss(): lambda x: (x @ weights) @ torch.tensor([[-1.0], [1.0]])}  # fmt: skip
    for loss, model in ends.items():
        found = evaluate(loss, model, valid)
        assert found.loss == pytest.approx(found.nll, rel=1e-5) == pytest.approx(expected, rel=1e-5)
        assert found.accuracy == pytest.approx((z.argmax(1) == y).double().mean().item())
    model = lambda x: x @ weights
    found = evaluate(softmax_loss, model, valid)
    assert found.loss == pytest.approx(1 - z.softmax(1).gather(1, valid.y).mean().item(), rel=1e-5)
    assert found.nll == pytest.approx(expected, rel=1e-5)


def test_evaluation_refuses_what_does_not_fit(sample):
    valid = sample[1]
    with pytest.raises(ValueError, match="no images"):
        evaluate(mnist_loss, lambda x: x[:, :1], valid[:0])
    with pytest.raises(ValueError, match="returns a tuple: let it return the scores alone"):
        evaluate(cross_entropy_loss, lambda x: (x[:, :2], x), valid)
    with pytest.raises(ValueError, match="the model gives 1 column, cross_entropy_loss takes 2 for 2 classes"):
        evaluate(cross_entropy_loss, lambda x: x[:, :1], valid)
    with pytest.raises(ValueError, match="evaluate: the scores contain NaN"):
        evaluate(cross_entropy_loss, lambda x: x[:, :2] * torch.where(x.sum(1, keepdim=True) > 100, torch.nan, 1), valid)


def test_a_model_that_takes_no_images_is_told_each_way_that_was_tried(sample):
    def wants_colors(x):
        if x.ndim == 2:
            raise RuntimeError("wants 3 channels\nand more")
        return x if x.ndim == 3 else (x, x)

    with pytest.raises(ValueError) as refused:
        evaluate(cross_entropy_loss, wants_colors, sample[1])
    assert str(refused.value).splitlines() == [
        "the model must give [n, 1] or [n, 2]: 2 columns are needed for classes (7, 3)",
        "  for images [5, 1, 28, 28] it returns a tuple: let it return the scores alone",
        "  for images [5, 28, 28] it gives [5, 28, 28]",
    ]
    for out, cure in (lambda x: x[:, 0], "gives [5]: leave out squeeze() or flatten()"), (
        lambda x: None, "returns nothing: end forward in `return scores`"
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(f"\n  for images [5, 784] it {cure}")):
            evaluate(cross_entropy_loss, out, sample[1])
    with pytest.raises(ValueError, match=r"\n  for images \[5, 784\] it raises .* got Float and Double: write model.float\(\)$"):
        evaluate(cross_entropy_loss, torch.nn.Linear(784, 2).double(), sample[1])
    narrow = Digits(torch.rand(4, 6), torch.tensor([[0], [1], [2], [2]]), (1, 2, 3))
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)\n  for images \[4, 6\] it gives \[4, 2\]: end it in a layer of 3, such as nn.Linear\(…, 3\)$"):
        evaluate(cross_entropy_loss, lambda x: x[:, :2], narrow)
    with pytest.raises(ValueError) as refused:
        evaluate(cross_entropy_loss, lambda x: 1 / len("x" * 999)[x], narrow)
    assert max(map(len, str(refused.value).splitlines())) <= 162


@pytest.mark.parametrize("ndim, shape", [(2, (784,)), (4, (1, 28, 28)), (3, (28, 28))])
def test_the_shape_that_a_model_takes_is_found(sample, ndim, shape):
    def model(x):
        assert x.ndim == ndim
        return x.flatten(1)[:, :2]

    found, scores = input_shape(model, sample[1])
    assert found == shape and torch.equal(scores, sample[1].x[:5, :2])


def test_a_module_is_evaluated_in_eval_mode_and_put_back(sample):
    module = torch.nn.Sequential(torch.nn.Linear(784, 2), torch.nn.Dropout(0.5))
    first, second = (evaluate(cross_entropy_loss, module, sample[1]) for _ in range(2))
    assert first == second and module.training and module[1].training
    module[1].eval()
    with pytest.raises(ValueError, match="there are no images"):
        evaluate(cross_entropy_loss, module, sample[1][:0])
    with pytest.raises(TypeError):
        evaluate("no loss", module, sample[1])
    assert module.training and module[0].training and not module[1].training, "each part as it was, after an error too"


def test_evaluation_remembers_no_gradients(sample):
    layer, seen = nn.Linear(784, 2), []
    evaluate(cross_entropy_loss, lambda x: seen.append(layer(x)) or seen[-1], sample[1][:20])
    assert seen and not any(scores.requires_grad for scores in seen)


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


def test_the_accuracy_of_probabilities_of_one_column_turns_at_a_half():
    metric = true_accuracy("probabilities")
    metric.update(torch.tensor([[[0.4], [0.6], [0.9]]]), torch.tensor([0, 1, 0]))
    assert metric.compute().tolist() == [2 / 3] and metric.images == 0


def test_a_metric_of_all_scores_sees_them_in_order_and_a_broken_model_has_none():
    given = []

    def third(preds, targets):
        given.append((preds.view(-1).tolist(), targets.view(-1).tolist(), targets.shape))
        return 1 / 3

    metric = Whole("third", third, (-1, 1))
    for _ in range(2):
        metric.update(torch.tensor([[[1.0], [2.0]], [[3.0], [torch.nan]]]), torch.tensor([0, 1]))
        metric.update(torch.tensor([[[5.0]], [[6.0]]]), torch.tensor([1]))
        sound, broken = metric.compute().tolist()
        assert sound == 1 / 3 and math.isnan(broken)
    assert given == [([1.0, 2.0, 5.0], [0, 1, 1], (3, 1))] * 2


class Counting:
    """A metric that remembers what it was called on."""

    def __init__(self):
        self.calls = []

    def __call__(self, preds, targets):
        self.calls.append(preds)
        return (preds.argmax(1) == targets).float().mean()


def test_a_metric_is_tried_out_on_right_and_wrong_answers():
    counting = Counting()
    assert as_metric("own", counting, columns=2).function is counting and not counting.calls
    told = []

    def tell(preds, targets):
        told.append((preds, targets))
        return 1.0 * bool((preds.argmax(1) == targets.view(-1)).all() if preds.shape[1] > 1 else True)

    for columns, kind, high, low in (4, "logits", 4, -4), (2, "probabilities", 1, 0), (1, "probabilities", 1, 0):
        told.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            as_metric("told", tell, columns, kind)
        (right, t), (wrong, same) = told[:2]
        assert torch.equal(t, same) and right.shape == wrong.shape == (len(t), columns)
        assert set(t.tolist()) == set(range(max(columns, 2))), "each label occurs"
        one_hot = t.view(-1, 1) == (torch.arange(columns) if columns > 1 else 1)
        torch.testing.assert_close(right, torch.where(one_hot, high, low) * 1.0, rtol=0, atol=0.05)
        torch.testing.assert_close(wrong, torch.where(one_hot, low, high) * 1.0 if columns < 4 else -right, rtol=0, atol=0.05)
        assert [len(targets.shape) for _, targets in told] == [1, 1, 2, 2]
    told.clear()
    as_metric("told", tell, columns=12)
    assert {preds.shape[1] for preds, _ in told} == {12} and told[0][0].unique().tolist() == [-4, 4]


def test_a_metric_may_refuse_one_form_of_targets():
    def strict(ndim, preds, targets):
        assert targets.ndim == ndim
        return (preds.argmax(1) == targets.view(-1)).float().mean()

    for ndim, form in (1, (-1,)), (2, (-1, 1)):
        assert as_metric("strict", partial(strict, ndim), columns=3).form == form


def test_a_metric_that_cannot_tell_right_from_wrong_is_warned_of():
    with pytest.warns(UserWarning, match=r"'same' gives right answers and wrong ones the same value: .* \[N, 2\]") as said:
        found = as_metric("same", lambda preds, targets: 0.5, columns=2)
    assert found.form == (-1,) and found.value(torch.zeros(1, 2), torch.zeros(1)) == 0.5 and len(said) == 1
    with pytest.warns(UserWarning, match="'nan' gives right answers"):
        as_metric("nan", lambda preds, targets: math.nan, columns=2)
    with pytest.warns(UserWarning, match="'half' gives right answers"):
        as_metric("half", lambda preds, targets: math.nan if preds[0, 0] > 0 else 1.0, columns=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_metric("fine", lambda preds, targets: 1e-5 * (preds.argmax(1) == targets.view(-1)).float().mean(), columns=2)


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


    even = torch.zeros(1, 2, dtype=torch.double)  # 0.5 to the last bit, the upper edge of a bin
    for bins in 2, 4:
        z, t = torch.cat([even, at(0.61)]), torch.tensor([1, 1])
        assert expected_calibration_error(z, t, bins=bins) == pytest.approx((0.5 + 0.39) / 2)


@pytest.mark.parametrize("columns, scale", [(1, 2), (2, 2), (5, 2), (10, 0.5)])
@pytest.mark.parametrize("bins", [None, 4])
def test_calibration_is_what_a_loop_over_the_bins_gives(columns, scale, bins):
    generator = torch.Generator().manual_seed(columns)
    z = scale * torch.randn(500, columns, generator=generator)
    t = torch.randint(max(columns, 2), (500,), generator=generator)
    p = (torch.cat([-z, z], 1) / 2 if columns == 1 else z).double().softmax(1).numpy()
    sure, right = p.max(1), p.argmax(1) == t.numpy()
    m, expected = bins or 15, 0.0
    for k in range(m):
        inside = (k / m < sure) & (sure <= (k + 1) / m)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    found = expected_calibration_error(z, t, *[bins] * (bins is not None))
    assert found == pytest.approx(expected, abs=1e-6) and expected > 0.01
