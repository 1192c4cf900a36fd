"""Losses and metrics on inputs of every dtype, layout and size, against plain float64 arithmetic.

Each experiment takes a count and gives dict(tried, clear, silent, wrong, hang, lost): cases tried;
input that makes no sense and was refused with the documented error; another number than float64
gives, or nonsense accepted; another error; hang and lost stay 0. The rest agreed.
"""

import math
import random
import sys
import time

import torch
from tally import counts

from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss, softmax_loss
from mnist_ce.metrics import (
    accuracy, binary_accuracy, confusion_matrix, expected_calibration_error,
)  # fmt: skip

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
INTS += [torch.uint16, torch.uint32, torch.uint64]
SPOILED = ["nan", "+inf", "-inf alone", "target", "no rows", "dtype", "targets", "shape"]


def softmax(z):
    largest = max(z)
    exponentials = [math.exp(v - largest) for v in z]
    return [e / sum(exponentials) for e in exponentials]


def log_softmax(z):
    largest = max(z)
    return [v - largest - math.log(sum(math.exp(w - largest) for w in z)) for v in z]


def sigmoid(v):
    return 1 / (1 + math.exp(-v)) if v > -700 else 0.0


def of_mnist(z, t):
    wrong = sigmoid(z[0] if t == 0 else -z[0])
    return wrong, [(1 - 2 * t) * wrong * (1 - wrong)]


def of_softmax(z, t):
    p = softmax(z)
    return sum(p[:t] + p[t + 1 :]), [p[t] * (v - (k == t)) for k, v in enumerate(p)]


def of_nll(z, t):
    return -z[t], [-1.0 * (k == t) for k in range(len(z))]


def of_cross_entropy(z, t):
    return -log_softmax(z)[t], [p - (k == t) for k, p in enumerate(softmax(z))]


LOSSES = {mnist_loss: of_mnist, softmax_loss: of_softmax, nll_loss: of_nll,
          cross_entropy_loss: of_cross_entropy}  # fmt: skip


def laid_out(x, rng):
    """The same values: in order, by columns, every other row of a larger tensor, a parameter."""
    kind = rng.randrange(4)
    if kind == 1:
        return x.T.contiguous().T
    if kind == 2:
        return torch.stack([x, x.flip(0)], 1).flatten(0, 1)[::2]
    return torch.nn.Parameter(x) if kind == 3 and x.is_floating_point() else x


def batch(columns, rng, logs=False):
    """Scores [n, C] and targets of random size, dtype, layout, with ties, zeros and -inf."""
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    dtype, n = rng.choice(FLOATS), rng.choice([1, 2, 3, 8, 30])
    scale = rng.choice([0.0, 1e-3, 1.0, 1.0, 10.0, 100.0, 1e4])
    z = scale * torch.randn(n, columns, generator=generator, dtype=torch.float64)
    if rng.random() < 0.2:
        z = (z / max(scale, 1)).round()  # ties
    if rng.random() < 0.1:
        z = z.sign() * 60000  # finite in float16, their gap is not
    if logs:
        z = z.log_softmax(1)
    z = z.to(dtype).nan_to_num(posinf=60000, neginf=-60000)
    if columns > 1 and rng.random() < 0.1:
        z[rng.randrange(n), rng.randrange(columns)] = -math.inf
    labels = torch.randint(max(columns, 2), (n,), generator=generator)
    t = labels.to(rng.choice(INTS))
    t = t.view(-1, 1) if rng.random() < 0.5 else t
    return z, t, labels.tolist()


def spoiled(z, t, how, rng):
    """The same with one thing wrong."""
    z, t = z.clone(), t.clone()
    n, c = z.shape
    place = rng.randrange(n), rng.randrange(c)
    if how == "nan":
        z[place] = math.nan
    elif how == "+inf":
        z[place] = math.inf
    elif how == "-inf alone":
        z = z.expand(n, c).clone() if c > 1 else z
        z[place[0]] = -math.inf if c > 1 else math.nan
    elif how == "target":
        bad = [max(c, 2), 100] + ([-1] if t.dtype.is_signed else [])
        t.view(-1)[place[0]] = rng.choice(bad)
    elif how == "no rows":
        z, t = z[:0], t[:0]
    elif how == "dtype":
        z = rng.choice([z.nan_to_num().long(), z.to(torch.complex64), z.to(torch.float8_e5m2)])
    elif how == "targets":
        t = rng.choice([t.float(), t.bool(), t.to(torch.complex64), t.tolist()])
    else:
        z = rng.choice([z.unsqueeze(0), z[:, 0], torch.cat([z, z])])
    return z, t


def near(found, expected, eps, terms):
    if math.isinf(expected) or math.isnan(expected):
        return found == expected
    return abs(found - expected) <= 4 * terms * eps * max(1.0, abs(expected))


def one_loss(loss, rng, told):
    """Whether a case agrees: each value, mean, sum, the gradient by autograd and by hand."""
    columns = loss.columns or rng.choice([2, 3, 10])
    z, t, labels = batch(columns, rng, loss is nll_loss)
    rows = z.double().tolist()
    expected = [LOSSES[loss](row, label) for row, label in zip(rows, labels)]
    values, slopes = [v for v, _ in expected], [g for _, g in expected]
    watched = laid_out(z, rng).detach().requires_grad_()
    each = loss(watched, t, "none")
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    eps, n = torch.finfo(wide).eps, len(labels)
    assert each.dtype == wide and each.shape == (n,), (each.dtype, each.shape)
    assert all(near(a, b, eps, columns) for a, b in zip(each.tolist(), values)), "each"
    total = loss(watched, t, "sum")
    for found, right in (total, sum(values)), (loss(watched, t), sum(values) / n):
        assert near(found.item(), right, eps, columns * n), "mean"
    (by_autograd,) = torch.autograd.grad(total, watched)
    found = [by_autograd]
    if loss.slopes is not None:
        found.append(loss.value_and_slopes(z.unsqueeze(0), torch.tensor(labels))[1][0] * n)
    for gradient in found:
        assert gradient.dtype == z.dtype, "dtype of the gradient"
        pairs = zip(gradient.double().flatten().tolist(), sum(slopes, []))
        assert all(near(a, b, torch.finfo(z.dtype).eps, columns * 2) for a, b in pairs), "gradient"


def of_calibration(rows, labels, bins):
    """Guo's formula, and how near the nearest probability is to the edge of a bin."""
    answers = []
    for z, t in zip(rows, labels):
        p = softmax(z)
        answers.append((max(p), z.index(max(z)) == t))
    error, edge = 0.0, min(abs(p * bins - round(p * bins)) for p, _ in answers)
    for k in range(bins):
        inside = [(p, right) for p, right in answers if k / bins < p <= (k + 1) / bins]
        error += abs(sum(right - p for p, right in inside)) / len(rows)
    return error, edge


def one_metric(metric, rng, told):
    columns = 1 if metric is binary_accuracy else rng.choice([2, 3, 10])
    if metric in (confusion_matrix, expected_calibration_error):
        columns = rng.choice([1, columns])
    z, t, labels = batch(columns, rng)
    rows = [[0.0, *row] if columns == 1 else row for row in z.double().tolist()]
    answers = [row.index(max(row)) for row in rows]
    share = sum(a == t for a, t in zip(answers, labels)) / len(labels)
    given = laid_out(z, rng)
    if metric is confusion_matrix:
        c = max(columns, 2)
        table = [[0] * c for _ in range(c)]
        for a, label in zip(answers, labels):
            table[label][a] += 1
        assert metric(given, t).tolist() == table
    elif metric is expected_calibration_error:
        bins = rng.choice([1, 4, 15])
        expected, edge = of_calibration(rows, labels, bins)
        found = metric(given, t, bins)
        assert edge < 1e-9 or abs(found - expected) < 1e-9, (found, expected)
    else:
        found = metric(given, t)
        assert found.dtype == torch.float32 and near(found.item(), share, 1e-7, 1), (found, share)


def cases(function, one, count, seed=0, told=None):
    """`count` cases of a loss or a metric, one in four with something wrong in it."""
    result, rng = counts(), random.Random(seed)
    while result["tried"] < count:
        result["tried"] += 1
        note = None
        try:
            if rng.random() < 0.25:
                columns = getattr(function, "columns", None) or rng.choice([2, 10])
                columns = 1 if function is binary_accuracy else columns
                z, t, _ = batch(columns, rng, function is nll_loss)
                how = rng.choice(SPOILED)
                note = "silent", f"{how} accepted"
                function(*spoiled(z, t, how, rng))
            else:
                one(function, rng, told)
                note = None
        except AssertionError as error:
            note = "silent", f"not what float64 gives: {error}"
        except (TypeError, ValueError) as error:
            fine = note is not None and function.__name__ in str(error)
            note = ("clear", "") if fine else ("wrong", f"{type(error).__name__}: {error}")
        except Exception as error:
            note = "wrong", f"{type(error).__name__}: {error}"
        if note is not None:
            result[note[0]] += 1
            if told is not None and note[0] != "clear":
                told.append(f"{function.__name__}: {note[1]}")
    return result


def loss_cases(loss):
    return lambda count, seed=0, told=None: cases(loss, one_loss, count, seed, told)


def metric_cases(metric):
    return lambda count, seed=0, told=None: cases(metric, one_metric, count, seed, told)


METRICS = [accuracy, binary_accuracy, confusion_matrix, expected_calibration_error]
EXPERIMENTS = {loss.__name__: loss_cases(loss) for loss in LOSSES}
EXPERIMENTS |= {metric.__name__: metric_cases(metric) for metric in METRICS}

if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for experiment in sys.argv[2:] or EXPERIMENTS:
        said, start = [], time.perf_counter()
        result = EXPERIMENTS[experiment](number, told=said)
        print(f"{experiment:27}", result, f"{time.perf_counter() - start:.0f} s")
        for line in sorted(set(said), key=said.count, reverse=True)[:5]:
            print(f"    {said.count(line)} x {line[:300]}")
