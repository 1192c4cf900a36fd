"""What users read: summaries, tables, runs by their coordinates, records; by value."""
import base64
import copy
import io
import json
import math
import os
import pickle
import platform
import re
import subprocess
import sys
import time
from collections import namedtuple
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import matplotlib
import matplotlib.colors
import matplotlib.figure
import numpy as np
import pytest
import torch
from conftest import named
from PIL import Image
from scipy.stats import t as student
from torch import nn

import mnist_ce
from mnist_ce import results
from mnist_ce.data import Digits
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.model import Linears, Network
from mnist_ce.results import (
    Run, Runs, Summary, Table, assert_close, components, crossed, draw_band, join_runs, look,
    make_record, new_figure, paired, paired_error, progress_bar, summarize, write_json,
)  # fmt: skip


def made_up(loss="a", shift=0.0, orders=(0, 1, 2), seeds=(5, 6)):
    """Runs whose last accuracy is 0.8 + order / 100 + seed / 1000 + shift."""
    grid = [(order, seed) for order in orders for seed in seeds]
    last = [0.8 + order / 100 + seed / 1000 + shift for order, seed in grid]
    coords = dict(loss=[loss] * len(grid), data_seed=[o for o, _ in grid], seed=[s for _, s in grid])
    return Runs(
        dict(accuracy=torch.tensor([[0.5] * len(grid), last], dtype=torch.double)), coords,
        torch.tensor([-1] * (len(grid) - 1) + [7]), torch.full((2, len(grid)), 0.25), [], (7, 3),
    )  # fmt: skip


def with_models(seeds=(0, 1, 2, 3, 4), columns=2, sizes=(2, 3), loss=cross_entropy_loss):
    """Runs of linear models of 4 pixels in blocks of these sizes; weights and bias hold the seed."""
    blocks, rest = [], list(seeds)
    for size in sizes:
        own, rest = torch.tensor(rest[:size]), rest[size:]
        weights = torch.stack([own.view(-1, 1).expand(-1, 4) + 10.0 * c for c in range(columns)])
        blocks.append(Linears(weights, own.expand(columns, -1) + 0.5, loss, torch.ones(size)))
    s = len(seeds)
    scores = dict(accuracy=torch.rand(2, s, dtype=torch.double), nll=torch.rand(2, s, dtype=torch.double))
    coords = dict(loss=["a"] * s, data_seed=[0] * s, seed=list(seeds))
    return Runs(scores, coords, torch.full((s,), -1), torch.rand(2, s), blocks, (7, 3), dict(settings=dict(lr=1)))


def test_assert_close_allows_the_rounding_of_so_many_terms_and_no_more():
    expected, eps = torch.tensor([1.0, -2.0], dtype=torch.double), torch.finfo(torch.double).eps
    for terms in 1, 5:
        allowed = 4 * terms * eps * 2
        assert_close(expected + 0.9 * allowed, expected, *[terms] * (terms > 1))
        with pytest.raises(AssertionError):
            assert_close(expected + 1.2 * allowed, expected, *[terms] * (terms > 1))
    assert_close(expected.float() * (1 + 1e-7), expected, terms=1), "of the less precise"
    assert_close(expected, expected.float().requires_grad_())
    assert_close(torch.zeros(0), torch.zeros(0))
    for other in torch.tensor([1.0, math.nan]), torch.tensor([1.0]), torch.tensor([[1.0, -2.0]]):
        with pytest.raises(AssertionError):
            assert_close(other, expected)


def test_summary_by_hand():
    result = summarize([1, 2, 3])
    assert (result.n, result.mean, result.sd) == (3, 2, 1)
    assert result.high - result.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t, 2 degrees
    assert math.isnan(summarize([1]).sd) and math.isnan(summarize([1, float("nan")]).mean)
    assert str(summarize([1])) == "1.0000, n = 1"
    assert f"{Summary(3, 0.5, 0.1, 0.4, 0.6):+.2f}" == "+0.50 (+0.40 to +0.60)"
    assert f"{Summary(2, 0.5, 0.1, 0.4, 0.6):.1f}" == "0.5 (0.4 to 0.6)"
    assert f"{Summary(3, 0.5, 0.1, 0.4, 0.6)}" == "0.5000 (0.4000 to 0.6000), n = 3"
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    assert math.isnan(summarize([1]).low) and math.isnan(summarize([1]).high)
    with pytest.raises(ValueError, match="summarize: there are no values"):
        summarize([])


def test_a_summary_is_students_interval():
    values = np.random.default_rng(0).normal(3, 2, 7)
    found = summarize(torch.tensor(values))
    low, high = student.interval(0.95, 6, values.mean(), values.std(ddof=1) / 7**0.5)
    assert found == pytest.approx((7, values.mean(), values.std(ddof=1), low, high))


def test_components_by_hand():
    # orders 0 and 2, seeds 0 and 4, nothing else: mean squares 2 * 2 and 2 * 8
    assert components([[0, 4], [2, 6]]) == pytest.approx((2**0.5, 8**0.5, 0))
    with pytest.raises(ValueError, match=r"at least 2 orders by 2 seeds is needed, got \(1, 3\)"):
        components([[1, 2, 3]])
    for wrong in [[1], [2]], [1, 2], [[[1, 2]] * 2] * 2:
        with pytest.raises(ValueError, match="at least 2 orders by 2 seeds"):
            crossed(wrong)


def by_effects(table):
    """Mean squares of orders, seeds and rest of a table, one value at a time."""
    o, s = len(table), len(table[0])
    mean = sum(map(sum, table)) / (o * s)
    of_order = [sum(row) / s - mean for row in table]
    of_seed = [sum(row[k] for row in table) / o - mean for k in range(s)]
    rest = sum((table[i][k] - mean - of_order[i] - of_seed[k]) ** 2 for i in range(o) for k in range(s))
    squares = s * sum(x**2 for x in of_order) / (o - 1), o * sum(x**2 for x in of_seed) / (s - 1)
    return *squares, rest / ((o - 1) * (s - 1))


@pytest.mark.parametrize("orders, seeds, scales", [(3, 5, (2, 1)), (6, 2, (0.3, 4)), (4, 4, (0, 0))])
def test_components_and_interval_of_a_table_of_unequal_sides(orders, seeds, scales):
    generator = np.random.default_rng(5)
    table = generator.normal(0, 1, (orders, seeds)) + scales[0] * generator.normal(0, 1, (orders, 1))
    table = table + scales[1] * generator.normal(0, 1, (1, seeds)) + 3
    a, b, rest = by_effects(table.tolist())
    parts = [max(part, 0) ** 0.5 for part in ((a - rest) / seeds, (b - rest) / orders, rest)]
    assert components(table.tolist()) == pytest.approx(parts)
    found, n = crossed(torch.tensor(table)), orders * seeds
    if a + b - rest < max(a, b):  # never narrower than orders or seeds alone would have it
        square, df = max((a, orders - 1), (b, seeds - 1))
    else:
        square, degrees = a + b - rest, (orders - 1, seeds - 1, (orders - 1) * (seeds - 1))
        df = square**2 / sum(x**2 / d for x, d in zip((a, b, rest), degrees))
    interval = student.interval(0.95, df, table.mean(), (square / n) ** 0.5)
    assert found == pytest.approx((n, table.mean(), table.std(ddof=1), *interval))


def test_orders_or_seeds_that_differ_less_than_the_rest_do_not_narrow_the_interval():
    """Rest alone: mean squares 0, 0 and 1; the interval has the width of an error of 0."""
    found = crossed([[1, -1], [-1, 1]])
    assert (found.mean, found.low, found.high) == (0, 0, 0) and found.sd == pytest.approx((4 / 3) ** 0.5)
    assert components([[1, -1], [-1, 1]]) == (0, 0, 2)
    lifted = crossed([[3, 1, 2], [1, 3, 2], [2, 2, 2.3]])
    a, b, rest = by_effects([[3, 1, 2], [1, 3, 2], [2, 2, 2.3]])
    assert a + b < rest, "so the larger of the two counts, with its own degrees of freedom"
    margin = student.ppf(0.975, 2) * (max(a, b) / 9) ** 0.5
    assert lifted.high - lifted.mean == pytest.approx(margin)
    same = crossed([[2, 2], [2, 2]])
    assert same == (4, 2, 0, 2, 2)


def test_the_interval_over_orders_and_seeds_by_hand():
    """Mean squares 4, 16 and 0 over a 2 by 2 table: a variance of 5, 20² / (4² + 16²) degrees."""
    from scipy.stats import t

    found = crossed([[0, 4], [2, 6]])
    margin = t.ppf(0.975, 400 / 272) * 5**0.5
    assert (found.mean, found.n) == (3, 4) and found.high - 3 == pytest.approx(margin)


def test_the_error_of_other_images_by_hand():
    one = torch.tensor([[True, False, True, False], [True, True, False, False]])
    other = torch.tensor([[True, True, True, False]])
    # differences by image: 0, 0.5, 0.5, 0; their standard deviation over the square root of 4
    assert paired_error(one, other) == pytest.approx(np.std([0, 0.5, 0.5, 0], ddof=1) / 2)
    assert paired_error(one[0], other[0]) == pytest.approx(np.std([0, 1, 0, 0], ddof=1) / 2)


def test_the_interval_covers_new_orders_and_seeds():
    """95% intervals of 400 made-up tables hold the truth about 95 times in 100."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        o, s = generator.normal(0, 2, (10, 1)), generator.normal(0, 1, (1, 30))
        found = crossed(5 + o + s + generator.normal(0, 1, (10, 30)))
        hits += found.low < 5 < found.high
    assert 0.92 < hits / 400 < 0.98


def test_runs_are_selected_by_coordinate():
    runs = join_runs([made_up("a"), made_up("b", 0.1)])
    assert len(runs) == 12 and runs.accuracy.shape == (2, 12)
    assert runs.where(loss="b", seed=6, data_seed=1).last().item() == pytest.approx(0.916)
    assert runs[3].coords == dict(loss="a", data_seed=1, seed=6) and runs[-1].nonfinite == 7
    assert runs[2:4].seeds == [5, 6] and runs[[0, 11]].coords["loss"] == ["a", "b"]
    assert runs[torch.tensor([True] + [False] * 11)].last().item() == pytest.approx(0.805)
    table = made_up().table_of()
    assert table.shape == (3, 2) and table[2, 0] == pytest.approx(0.825)
    for wrong, words in (12, "there are 12 runs"), (torch.ones(3, dtype=torch.bool), r"must be \[12\]"):
        with pytest.raises((IndexError, ValueError), match=words):
            runs[wrong]
    with pytest.raises(KeyError, match="no coordinate 'rate'; there are loss"):
        runs.where(rate=1)
    with pytest.raises(KeyError, match="no run has seed=9; there are 5, 6"):
        runs.where(seed=9)
    with pytest.raises(TypeError, match=r"runs\['a'\]: write runs.where\(loss=…"):
        runs["a"]
    with pytest.raises(ValueError, match=r"must be \[12\], got \[\]"):
        runs[True]
    with pytest.raises(IndexError, match=r"runs\[-13\]"):
        runs[-13]
    assert runs[-12].coords["seed"] == runs[np.int64(0)].coords["seed"] == 5 and isinstance(runs[0], Run)
    with pytest.raises(AttributeError, match="Runs has no 'f1'; scores: accuracy$"):
        runs.f1
    with pytest.raises(AttributeError, match="Run has no|Runs has no 'f1'"):
        runs[0].f1
    with pytest.raises(ValueError, match=r"3 runs are no table of 2 orders by 2 seeds"):
        made_up(orders=(0, 1))[:3].table_of()
    with pytest.raises(ValueError, match="12 runs are no table"):
        runs.table_of()


def test_runs_are_joined_in_their_order_if_they_are_alike():
    one, other = with_models(), with_models((7, 8), sizes=(2,))
    both = join_runs([one, other])
    assert both.seeds == [0, 1, 2, 3, 4, 7, 8] and both.record is one.record and both.classes == (7, 3)
    for name in "accuracy", "nll", "seconds":
        assert torch.equal(getattr(both, name), torch.cat([getattr(one, name), getattr(other, name)], 1))
    assert both.nonfinite.shape == (7,) and both.weights[:, 0, 0].tolist() == both.seeds
    with pytest.raises(ValueError, match="there are no runs"):
        join_runs([])
    renamed, shorter, classes = with_models(), with_models(), with_models()
    renamed.scores["f1"] = renamed.scores.pop("nll")
    shorter.scores = {name: values[:1] for name, values in shorter.scores.items()}
    shorter.seconds, classes.classes = shorter.seconds[:1], (3, 7)
    for wrong in renamed, shorter, classes:
        with pytest.raises(ValueError, match="the runs differ in classes, scores or number of epochs"):
            join_runs([one, wrong])


def test_runs_are_equal_to_themselves_alone():
    runs = made_up()
    assert runs == runs != made_up() and {runs: 1}[runs] == 1


def test_models_are_selected_with_their_runs():
    runs = with_models()
    assert runs.weights.shape == (5, 4, 2) and runs.bias.shape == (5, 2)
    assert runs.weights[3].tolist() == [[3, 13]] * 4 and runs.bias[:, 1].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    for rows in [1, 2], [0, 4], [3], [0, 1, 2, 3, 4]:
        some = runs[rows]
        assert some.seeds == some.weights[:, 0, 0].tolist() == rows and len(some) == len(rows)
        assert torch.equal(some.accuracy, runs.accuracy[:, rows]) and torch.equal(some.seconds, runs.seconds[:, rows])
        assert sum(map(len, some.models)) == len(rows)
    assert runs[1:4].seeds == [1, 2, 3] and runs[::2].bias[:, 0].tolist() == [0.5, 2.5, 4.5]
    assert runs[runs.nonfinite < 0].settings == dict(lr=1) and runs[4].settings == dict(lr=1)
    assert runs[4].weights.tolist() == [[4, 14]] * 4 and runs[4].bias.tolist() == [4.5, 4.5]
    with pytest.raises(ValueError, match="runs are selected in their own order: sort the positions"):
        runs[[1, 0]]
    assert made_up()[[1, 0]].seeds == [6, 5], "without models any order will do"
    wide = with_models((5, 6), columns=3, sizes=(2,))
    with pytest.raises(ValueError, match=r"the models' weights differ in shape: select one loss with .where\("):
        join_runs([runs, wide]).weights


def test_a_module_has_no_weights_of_ours():
    module = nn.Linear(4, 2)
    runs = with_models((0,), sizes=(1,))
    assert isinstance(runs[0].model, nn.Linear) and runs[0].model.weight.tolist() == [[0] * 4, [10] * 4]
    runs.models = [Network(module, cross_entropy_loss, (4,))]
    assert runs[0].model is module and runs[0].weights is None and runs[0].bias is None
    with pytest.raises(AttributeError, match="these runs trained a module: .models has it, not .bias"):
        runs.bias


def test_answers_are_logits_and_classes_of_images():
    runs = with_models((0, 1, 2), sizes=(1, 2))
    x = torch.tensor([[0.0, 1, 0, 0], [0.2, 0.2, 0, 0]])
    expected = torch.stack([x @ w + b for w, b in zip(runs.weights, runs.bias)])
    data = Digits(x, torch.tensor([[1], [0]]), (7, 3))
    pixels = (x * 255).to(torch.uint8)
    for images in x, x.view(2, 2, 2), x.view(2, 1, 2, 2), x.numpy(), data:
        torch.testing.assert_close(runs.answers(images), expected)
    torch.testing.assert_close(runs.answers(pixels), runs.answers(pixels.float() / 255))
    assert not runs.answers(x).requires_grad
    assert runs.predict(x).tolist() == [[3, 3]] * 3
    torch.testing.assert_close(runs.predict_proba(x), expected.softmax(2))
    assert runs[1].predict(x).tolist() == [3, 3] and torch.equal(runs[1].predict_proba(x), runs.predict_proba(x)[1])
    assert runs.right(data).tolist() == [[True, False]] * 3
    for wrong, told in (x[0], r"float32 \[4\]"), (x.long(), r"int64 \[2, 4\]"):
        with pytest.raises(ValueError, match=rf"images must be float \[N, F\] or \[N, 28, 28\], got torch.{told}"):
            runs.answers(wrong)


def test_a_broken_model_answers_nothing_rightly():
    runs = with_models((0, 1), columns=1, sizes=(2,), loss=mnist_loss)
    runs.models[0].bias[0, 1] = torch.nan
    x = torch.ones(2, 4)
    data = Digits(x, torch.tensor([[1], [0]]), (7, 3))
    assert runs.right(data).tolist() == [[True, False], [False, False]]
    assert runs[0].predict(x).tolist() == [3, 3]
    with pytest.raises(ValueError, match="some logits have no finite largest: the images hold NaN, or the training of"):
        runs.predict(x)


def test_a_summary_of_runs_covers_what_they_vary():
    runs = made_up()
    last = runs.last()
    assert runs.summary() == crossed(last.view(3, 2)) and runs.summary("accuracy") == runs.summary()
    assert made_up(orders=(0,)).summary() == summarize([0.805, 0.806])
    by_order = summarize([0.805, 0.815, 0.825])
    one_seed = made_up(seeds=(5,)).summary()
    assert one_seed == pytest.approx((3, by_order.mean, by_order.sd, by_order.low, by_order.high))
    for broken in 5, [4, 5]:  # a hole, and an order without any
        runs = made_up()
        runs.scores["accuracy"][1, broken] = torch.nan
        kept = last[~runs.last().isnan()]
        means = summarize([part.nanmean() for part in runs.last().view(3, 2) if not part.isnan().all()])
        expected = len(kept), means.mean, kept.std().item(), means.low, means.high
        assert runs.summary() == pytest.approx(expected)
    unfinished = made_up()[:5]
    means = summarize([0.8055, 0.8155, 0.825])
    expected = 5, means.mean, unfinished.last().std().item(), means.low, means.high
    assert unfinished.summary() == pytest.approx(expected)
    runs.scores["accuracy"][1] = torch.nan
    assert runs.summary().n == 0 and all(map(math.isnan, runs.summary()[1:]))
    del unfinished.coords["data_seed"]
    assert unfinished.summary() == summarize(unfinished.last())


def test_the_interval_of_a_share_stays_within_0_and_1_and_no_other_does():
    runs = made_up(orders=(0,))
    runs.scores["accuracy"][1] = torch.tensor([0.98, 0.96], dtype=torch.double)
    runs.scores["train_loss"] = runs.scores["accuracy"].clone()
    loss = runs.summary("train_loss")
    assert loss == summarize([0.98, 0.96]) and loss.high == pytest.approx(0.97 + 0.127062, abs=1e-6)
    assert runs.summary() == loss._replace(high=1.0) and runs.summary().low == pytest.approx(0.842938, abs=1e-6)
    assert "accuracy 0.9700 (0.8429 to 1.0000), n = 2" in repr(runs) and "0.8429 to 1.0000" in str(runs)
    other = made_up(orders=(0,))
    other.scores["accuracy"][1] = torch.tensor([0.96, 0.98], dtype=torch.double)
    difference = paired(other, runs)
    assert difference == pytest.approx(summarize([0.02, -0.02])) and difference.low < 0 < difference.high, "a difference is no share"
    runs.scores["accuracy"][1] = torch.tensor([0.02, 0.04], dtype=torch.double)
    assert runs.summary().low == 0 and runs[1].runs.summary().mean == 0.04 and math.isnan(runs[1].runs.summary().low)


def test_pairs_meet_by_seed_and_order_and_have_a_sign():
    one, other = made_up("a"), made_up("b", 0.1)
    shuffled = other[[0, 2, 4]], other[[1, 3, 5]]
    difference = paired(one, join_runs(list(shuffled)))
    assert difference.mean == pytest.approx(0.1) and difference.sd == pytest.approx(0, abs=1e-12)
    assert paired(other, one).mean == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="not been trained from the same seeds and orders"):
        paired(one, made_up("b", seeds=(5, 7)))
    for runs, shift in (one, 0), (other, 0.3):
        runs.scores["nll"] = torch.stack([runs.accuracy[0], runs.accuracy[1] * (2 + shift)])
    assert paired(one, other, "nll").mean == pytest.approx(other.last("nll").mean() - one.last("nll").mean())
    found = (other.last("nll") - one.last("nll")).view(3, 2)
    assert paired(one, other, "nll") == pytest.approx(crossed(found))


def test_a_run_is_read_as_numbers_and_prints_as_a_table():
    run = made_up()[1]
    assert run.accuracy.tolist() == [0.5, pytest.approx(0.806)] and run.coords["seed"] == 6
    assert run.history[-1].accuracy == pytest.approx(0.806) and run.history[-1].seconds == 0.25
    lines = str(run.history).splitlines()
    assert lines[0].split() == ["epoch", "accuracy", "seconds"]
    assert lines[-1].split() == ["2", "0.8060", "0.2500"]
    assert "<td>0.8060" in run._repr_html_() and repr(run).startswith("Run(a model of a, 2 epochs")
    both = join_runs([made_up("a"), made_up("b")])
    assert repr(both) == "Runs(12 models of a, b, 2 epochs, 2 went non-finite)", "no mean over losses"
    alone = both.where(loss="a")
    assert repr(alone) == f"Runs(6 models of a, 2 epochs, accuracy {summarize(alone.last())}, 1 went non-finite)"
    both.scores["accuracy"][1, 1:] = torch.nan
    assert "accuracy 0.8050, n = 1, 1 went" in repr(both.where(loss="a"))
    both.scores["accuracy"][1] = torch.nan
    assert repr(both[:5]) == "Runs(5 models of a, 2 epochs, accuracy NaN)"
    both.nonfinite[0] = 0
    assert repr(both[:1]).endswith("NaN, 1 went non-finite)"), "a first step counts"
    both.scores["loss"] = both.scores.pop("accuracy")
    assert repr(both[1:5]) == "Runs(4 models of a, 2 epochs)"
    before = Runs(dict(accuracy=torch.zeros(0, 1)), {}, torch.tensor([-1]), torch.zeros(0, 1), [], (7, 3))
    assert repr(before) == "Runs(1 models, 0 epochs)" and before.record == {} == before.settings
    assert repr(Run(join_runs([made_up()[:1]]))).startswith("Run(a model of a, 2 epochs, accuracy 0.8050, n = 1)")
    assert run.nonfinite == -1 and run.settings == {} and run.classes == (7, 3)
    assert "0.8060" in str(run.history[1:]) and "0.5000" not in str(run.history[1:])


def test_runs_as_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = made_up().frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 12
    row = frame[(frame.seed == 6) & (frame.data_seed == 2) & (frame.epoch == 2)]
    assert row.accuracy.item() == pytest.approx(0.826) and row.loss.item() == "a"
    assert list(frame) == ["loss", "data_seed", "seed", "epoch", "accuracy"]
    assert frame.epoch.tolist() == [1] * 6 + [2] * 6 and frame.accuracy[:6].tolist() == [0.5] * 6
    pandas.testing.assert_frame_equal(made_up()[1].frame(), made_up()[1:2].frame())


def band(axis):
    """The lower and the upper edge of the one band on an axis, by x."""
    (filled,) = axis.collections
    points = filled.get_paths()[0].vertices
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in set(points[:, 0])}


def test_runs_draw_epochs_and_leave_broken_models_out():
    runs = made_up()
    runs.scores["accuracy"][1, 0] = torch.nan
    (axis,) = runs.plot().axes
    (line,) = axis.lines
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata()[1] == pytest.approx(np.mean([0.806, 0.815, 0.816, 0.825, 0.826]))
    assert line.get_label() == "a (n = 6, 1 broke)" and line.get_marker() == look("a")["marker"]
    assert band(axis) == {1: (0.5, 0.5), 2: pytest.approx((0.806, 0.826))}
    assert axis.get_xlabel() == "epoch" and axis.get_ylabel() == "accuracy"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [line.get_label()]
    both = join_runs([made_up("a"), made_up("b", 0.1)])
    both.scores["train_loss"] = both.scores["accuracy"] + 1
    (axis,) = both.plot("train_loss").axes
    assert axis.get_ylabel() == "train loss"
    assert [line.get_label() for line in axis.lines] == ["a (n = 6)", "b (n = 6)"]
    assert axis.lines[1].get_ydata() == pytest.approx([1.5, 1.9155])
    del both.coords["loss"]
    assert [line.get_label() for line in both.plot().axes[0].lines] == [" (n = 12)"]
    assert made_up()[1].plot().axes[0].lines[0].get_ydata() == pytest.approx([0.5, 0.806])
    with pytest.raises(ValueError, match="^there is no score 'f1'; there are accuracy, train_loss$"):
        both.plot("f1")


def test_a_run_draws_its_losses_its_accuracy_and_each_metric_of_ones_own():
    run = made_up()[1]
    half = run.accuracy.view(-1, 1) / 2
    run.runs.scores |= dict(train_loss=half, valid_loss=half * 2, nll=half, f1=half.clone())
    run.runs.scores["f1"][0] = math.inf
    figure = run.plot()
    lines = [{line.get_label(): line.get_ydata().tolist() for line in axis.lines} for axis in figure.axes]
    assert [*map(list, lines)] == [["train loss", "valid loss"], ["accuracy"], ["f1"]]
    assert lines[0]["valid loss"] == pytest.approx([0.5, 0.806]) and lines[1]["accuracy"] == pytest.approx([0.5, 0.806])
    assert math.isnan(lines[2]["f1"][0]) and lines[2]["f1"][1] == pytest.approx(0.403)
    assert [axis.get_title() for axis in figure.axes] == ["", "", "not finite in 1 of 2 epochs"]
    assert figure.alt == "loss and accuracy and f1 by epoch: after epoch 2 the accuracy is 0.8060, the f1 is 0.4030"
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "validation accuracy", "f1"]

    first = Run(Runs({"accuracy": torch.ones(1, 1)}, {}, torch.tensor([-1]), torch.ones(1, 1), [], (7, 3)))
    (axis,) = first.plot().axes
    assert all(tick == int(tick) for tick in axis.get_xticks()) and axis.lines[0].get_marker() != "None", "one epoch is a point"
    close = made_up()[1]
    close.runs.scores = {name: torch.tensor([[0.9800], [0.9805]]) for name in ("train_loss", "accuracy")}
    of_loss, of_accuracy = (axis.get_ylim() for axis in close.plot().axes)
    assert of_accuracy == pytest.approx((0.97025, 0.99025)), "one image of 2,038 is no mountain"
    assert of_loss[1] - of_loss[0] < 0.001
    broken = made_up()[1]
    broken.runs.scores = {name: torch.full((2, 1), math.nan) for name in ("train_loss", "accuracy")}
    assert {axis.get_title() for axis in broken.plot().axes} == {"not finite in 2 of 2 epochs"}
    before = Run(Runs(dict(accuracy=torch.zeros(0, 1)), {}, torch.tensor([-1]), torch.zeros(0, 1), [], (7, 3)))
    assert before.plot().texts[0].get_text() == "accuracy by epoch: no epoch was finished"


class Sure:
    """A block of one model that gives these logits whatever it sees."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits)

    def answers(self, x):
        return self.logits.unsqueeze(0)


def sure(logits, classes=(7, 3)):
    return Run(Runs({}, dict(loss=["a"]), torch.tensor([-1]), torch.ones(1, 1), [Sure(logits)], classes))


def test_mistakes_come_surest_first_with_answer_class_and_probability():
    logits = [[2.0, 0], [0, 1], [9, 0], [0, 3], [0, 1], [0, 2]]  # answers 7 3 7 3 3 3, of classes 3 7 3 3 7 8
    data = Digits(torch.arange(6.0).view(6, 1).expand(6, 64) / 10, torch.tensor([[1], [0], [1], [1], [0], [0]]), (7, 3))
    figure = sure(logits).show_mistakes(data)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [
        "7? it is a 3\nover 99.9%", "7? it is a 3\n88.1%", "3? it is a 7\n88.1%",
        "3? it is a 7\n73.1%", "3? it is a 7\n73.1%",
    ]  # fmt: skip
    assert [axis.get_xlabel() for axis in shown] == ["row 2", "row 0", "row 5", "row 1", "row 4"]
    assert [axis.images[0].get_array().shape for axis in shown] == [(8, 8)] * 5
    assert shown[0].images[0].get_array()[0, 0] == pytest.approx(0.2)
    assert figure.alt.startswith("5 of 5 mistakes in 6 images, surest first: 7? it is a 3, over 99.9%; 7? it is")
    two = sure(logits).show_mistakes(data, n=2)
    assert len(two.axes) == 2 and two.alt.startswith("2 of 5 mistakes in 6 images")
    none = sure([[0.0, 1]] * 6).show_mistakes(Digits(data.x, torch.ones(6, 1).long(), (7, 3)))
    assert none.texts[0].get_text() == "no mistakes: all of 6 images are answered rightly" and not none.axes

    turned = Digits(data.x, 1 - data.y, (3, 7))  # the same images, their classes told in another order
    assert sure(logits).show_mistakes(turned).alt == figure.alt
    words = Digits(data.x, torch.zeros(6, 1).long(), ("$8^$",))
    (axis,) = sure([[0, 9.0]] * 6, ("$8^$", "eight")).show_mistakes(words, 1).axes
    assert axis.get_title().startswith("eight? it is a $8^$") and not axis.title.get_parse_math(), "it is no formula"
    words.__dict__["classes"] = (8,)
    assert sure([[0, 1.0]] * 6, (8, 3)).show_mistakes(words, 1).axes[0].get_title() == "3? it is an 8\n73.1%"


def test_mistakes_that_cannot_be_shown_are_refused_with_the_reason():
    data = Digits(torch.zeros(2, 64), torch.tensor([[0], [1]]), (7, 3))
    run = sure([[0.0, 1]] * 2)
    with pytest.raises(ValueError, match=r"^the images are of the classes \(7, 5\), the model knows \(7, 3\): it .* 5$"):
        run.show_mistakes(Digits(data.x, data.y, (7, 5)))
    with pytest.raises(ValueError, match="^show_mistakes draws square images, and these rows hold 65 numbers$"):
        run.show_mistakes(Digits(torch.zeros(2, 65), data.y, (7, 3)))
    with pytest.raises(TypeError, match="^show_mistakes needs Digits, got Tensor: write Digits.of"):
        run.show_mistakes(data.x)
    for n in 0, True, 1.5, "3":
        with pytest.raises(ValueError, match=rf"^n={re.escape(repr(n))} must be an int of at least 1$"):
            run.show_mistakes(data, n)
    with pytest.raises(ValueError, match="^some logits have no finite largest"):
        sure([[math.nan, 1]] * 2).show_mistakes(data)


def test_a_band_ends_where_all_models_broke():
    axis = new_figure(4, 3).subplots()
    values = torch.tensor([[1.0, 2], [3, torch.nan], [torch.nan, torch.nan]], dtype=torch.double)
    draw_band(axis, [10, 20, 30], values, "x")
    assert band(axis) == {10: (1, 2), 20: (3, 3)} and axis.lines[0].get_ydata()[:2].tolist() == [1.5, 3]
    assert axis.lines[0].get_label() == "x (n = 2, 2 broke)"
    (filled,) = axis.collections
    assert filled.get_alpha() == 0.2 and filled.get_linewidth() == 0
    assert tuple(filled.get_facecolor()[0][:3]) == matplotlib.colors.to_rgb(axis.lines[0].get_color())
    with pytest.raises(ValueError, match=r"x: values must be \[2, S\], got \[3, 2\]"):
        draw_band(axis, [1, 2], values, "x")
    with pytest.raises(ValueError, match=r"x: values must be \[3, S\], got \[3, 2, 1\]"):
        draw_band(axis, [1, 2, 3], values.unsqueeze(2), "x")


def test_a_figure_shows_itself_and_says_what_it_shows():
    formatters = pytest.importorskip("IPython.core.formatters", reason="Jupyter is a development tool")
    figure = new_figure(6, 3, "two lines that cross")
    assert figure.get_layout_engine() is not None
    for _ in range(2):  # pyplot, once imported, has a formatter of its own for figures
        shown, told = formatters.DisplayFormatter().format(figure)
        assert told["image/png"] == dict(alt="two lines that cross", width=600)
        picture = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
        assert picture.size == (1200, 600), "200 dots for each inch"
        import matplotlib.pyplot  # noqa: F401
    points = matplotlib.rcParams["font.size"] * figure.dpi / 200
    assert points == 12, "text of 12 points, at 200 dots an inch"


def test_each_loss_has_a_look_of_its_own_in_color_and_in_gray():
    names = ["mnist_loss", "softmax_loss", "cross_entropy_loss", "log_of_softmax"]
    looks = [look(name) for name in names] + [look("another", k) for k in range(4)]
    for kind in "color", "marker":
        assert len({one[kind] for one in looks}) == 8
    assert len({(one["marker"], one["linestyle"]) for one in looks}) == 8
    assert look("mnist_loss", 3) == look("mnist_loss") and look("another", 4) == look("another", 0)


def test_tables_keep_their_columns():
    table = Table([("x", 0.5, 3)], ["name", "share", "n"])
    assert str(table).splitlines()[2].split() == ["x", "0.5000", "3"]
    assert str(Table([], ["name"])).split()[0] == "name"
    assert str(Table([("0.10", 1)], ["a", "b"])).splitlines()[2].split() == ["0.10", "1"], "text stays as it is"
    point = namedtuple("Point", ["x", "y"])
    points = Table([point(1, 2.0), point(3, 4.0)])
    assert str(points).split()[:2] == ["x", "y"] and points[0] == (1, 2) and str(points[1:]).split()[-2:] == ["3", "4.0000"]
    assert table[:1].headers == table.headers and isinstance(table[:1], Table) and Table() == [] == Table([])
    assert str(Table()) == "" and "<th>name" in table._repr_html_() and "<td>0.5000" in table._repr_html_()


def test_a_wide_table_stands_in_blocks_of_80_columns():
    names = ["name", *"abcdefgh"]
    rows = [(f"row {k}", *(f"value {k}{name}" for name in names[1:])) for k in range(2)]
    blocks = str(Table(rows, names)).split("\n\n")
    assert [block.splitlines()[0].split() for block in blocks] == [["name", *"abcdefg"], ["name", "h"]]
    assert [block.splitlines()[3].split("  ")[0] for block in blocks] == ["row 1", "row 1"]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80
    assert "value 1h" in blocks[1] and "<th>h" in Table(rows, names)._repr_html_()
    long = Table([("a" * 50, "word " * 40)], ["name", "told"])
    assert max(map(len, str(long).splitlines())) <= 80 and str(long).count("word") == 40
    wide = [f"a long name {k}" for k in range(9)]
    assert max(map(len, str(Table([range(9)], wide)).splitlines())) <= 80
    assert str(Table([("word " * 40,)], ["told"])).count("word") == 40
    assert repr(Table(rows, names)) == str(Table(rows, names)) and repr(Table()) == "Table without rows"
    ten = Table([(k,) for k in range(10)], ["k"])
    assert ten.cut(10) is ten and str(ten.cut(4)).split()[2:] == ["0", "1", "…", "6", "more", "8", "9"]


def test_small_values_show_themselves_in_a_short_line():
    assert repr(summarize([0.5, 0.25])) == "Summary(0.375 (-1.213 to 1.963), n = 2, sd 0.1768)"
    assert repr(summarize([0.5])) == "Summary(0.5, n = 1, sd nan)"
    assert repr(components([[0.5, 0.75], [0.5, 0.75]])) == "Components(orders 0, seeds 0.1768, rest 0)"


def lines_of(table):
    return [re.split("  +", line.strip()) for line in str(table).splitlines()]


def test_runs_show_a_row_for_each_loss_and_rate_and_what_failed():
    both = join_runs([made_up("a"), made_up("b", 0.1)])
    both.coords["lr"] = [1.0] * 6 + [0.1] * 6
    lines = str(both).split("\n\n")
    header, _, *rows = lines_of(lines[1])
    assert lines[0] == "Runs(12 models of a, b, 2 epochs, 2 went non-finite)"
    assert header == ["loss", "lr", "n", "accuracy", "sd", "95% interval", "failed"]
    a, b = both.where(loss="a").summary(), both.where(loss="b").summary()
    assert rows == [
        ["a", "1", "6", "0.8155", f"{a.sd:.4f}", f"{a.low:.4f} to {a.high:.4f}", "1 of 6"],
        ["b", "0.1", "6", "0.9155", f"{b.sd:.4f}", f"{b.low:.4f} to {b.high:.4f}", "1 of 6"],
    ]
    both.scores["accuracy"][1, :6] = torch.nan
    both.nonfinite[6:] = -1
    assert lines_of(both)[-2:] == [["a", "1", "0", "no model left", "1 of 6"], [*rows[1][:-1], "none"]]
    assert repr(both)[:6] == "Runs(1" and "\n" not in repr(both)
    shown = both._repr_html_()
    assert "<td>0.9155" in shown and "accuracy 0." not in shown and "<td>none" in shown

    both.coords["loss"] = ["<script>"] * 12
    assert "<script>" not in both._repr_html_() and both._repr_html_().count("&lt;script&gt;") == 3
    both.coords["loss"] = [f"a loss of quite some length {k}" for k in range(12)]
    assert max(map(len, str(both).splitlines())) <= 80 and "and 9 more, 2 epochs" in repr(both)
    both.record = dict(interrupted=True)
    assert repr(both).endswith(", interrupted)")


def test_many_kinds_of_runs_are_shown_by_each_of_their_settings():
    rates = [float(k + 1) for k in range(30)] * 2
    scores = torch.tensor([[0.0] * 60, [0.5] * 30 + [0.7] * 30], dtype=torch.double)
    runs = Runs(
        dict(reported=scores, true_accuracy=scores / 2), dict(loss=["a"] * 30 + ["b"] * 30, lr=rates, seed=[0] * 60),
        torch.tensor([3] + [-1] * 59), torch.ones(2, 60), [], (7, 3),
    )  # fmt: skip
    _, _, header, _, *rows = lines_of(runs)
    assert header == ["setting", "n", "reported", "true accuracy", "failed"] and len(rows) == 2 + 30
    assert rows[:3] == [
        ["loss a", "30", "0.5000", "0.2500", "1 of 30"], ["loss b", "30", "0.7000", "0.3500", "none"],
        ["lr 1", "2", "0.6000", "0.3000", "1 of 2"],
    ]  # fmt: skip
    runs.coords["lr"] = [float(k + 1) for k in range(60)]
    assert lines_of(runs)[-2][0] == "lr 38" and lines_of(runs)[-1] == ["… 22 more"]
    assert runs.plot().axes[0].get_ylabel() == "reported", "without an accuracy it is what comes first"


def test_a_run_shows_its_line_and_its_epochs_the_first_and_the_last_of_many():
    run = made_up()[1]
    assert str(run) == f"{run!r}\n\n{run.history}"
    assert run._repr_html_().startswith("<div>Run(a model of a, 2 epochs, accuracy 0.8060, n = 1)</div><table>")
    long = Run(Runs(dict(accuracy=torch.rand(100, 1)), {}, torch.tensor([-1]), torch.ones(100, 1), [], (7, 3)))
    epochs = [line[0] for line in lines_of(long)[4:]]
    assert epochs[18:22] == ["19", "20", "… 60 more", "81"] and epochs[-1] == "100" and len(epochs) == 41
    assert "<td>50" not in long._repr_html_() and len(long.history) == 100


def test_a_terminal_shows_tables_alone_and_lines_inside_a_list():
    pretty = pytest.importorskip("IPython.lib.pretty", reason="IPython is a development tool").pretty
    runs = made_up()
    for one in runs, runs[0]:
        assert pretty(one) == str(one) != repr(one)
        assert re.fullmatch(rf"\[{re.escape(repr(one))},\s+1\]", pretty([one, 1]))
    assert pretty(runs[0].history) == str(runs[0].history)


NOTHING = Runs(dict(accuracy=torch.zeros(2, 0)), dict(loss=[], seed=[]), torch.zeros(0), torch.zeros(2, 0), [], (7, 3))
NO_EPOCHS = Runs(dict(accuracy=torch.zeros(0, 3)), dict(loss=["a"] * 3), -torch.ones(3), torch.zeros(0, 3), [], (7, 3))
NO_SCORES = Runs({}, dict(loss=["a"] * 3), -torch.ones(3), torch.zeros(2, 3), [], (7, 3))


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: Runs.__new__(Runs), "<mnist_ce.results.Runs object at"),
        (lambda: Run.__new__(Run), "<mnist_ce.results.Run object at"),
        (lambda: Table([(1, 2), (3,)], ["a"]), "a"),
        (lambda: Table([3], ["a"]), "<mnist_ce.results.Table object at"),
        (lambda: NOTHING, "Runs(0 models, 2 epochs, accuracy NaN)"),
        (lambda: NO_EPOCHS, "Runs(3 models of a, 0 epochs)"),
        (lambda: NO_EPOCHS[0], "Run(a model of a, 0 epochs)"),
        (lambda: NO_SCORES, "Runs(3 models of a, 2 epochs)"),
        (lambda: pickle.loads(pickle.dumps(made_up()))[1], "Run(a model of a, 2 epochs, accuracy 0.8060"),
        (lambda: join_runs([made_up()])[:2]._select([]), "Runs(0 models, 2 epochs, accuracy NaN)"),
    ],
)
def test_what_shows_itself_never_raises(make, told):
    one = make()
    assert repr(one).startswith(told)
    assert one._repr_html_() is None or "<table>" in one._repr_html_()
    if told[0] == "R":
        assert str(one).startswith(told) and max(map(len, str(one).splitlines())) <= 80


def test_nan_and_infinity_all_over_are_shown_without_a_warning():
    runs = made_up()
    for value in math.nan, math.inf:
        runs.scores = dict(train_loss=torch.full((2, 6), value, dtype=torch.double))
        assert lines_of(runs)[-1] == ["a", "0", "no model left", "1 of 6"]
        assert "no model left" in runs._repr_html_() and str(value) in str(runs[0])
    runs.scores = dict(accuracy=torch.full((2, 6), math.inf, dtype=torch.double))
    assert repr(runs) == "Runs(6 models of a, 2 epochs, accuracy NaN, 1 went non-finite)"


def test_a_hundred_thousand_runs_show_themselves_at_once():
    s = 100_000
    coords = dict(loss=["a"] * s, seed=[k % 1000 for k in range(s)], data_seed=[k // 1000 for k in range(s)])
    runs = Runs(dict(accuracy=torch.full((2, s), 0.5)), coords, torch.full((s,), -1), torch.ones(2, s), [], (7, 3))
    start = time.perf_counter()
    assert lines_of(runs)[-1] == ["a", "100000", "0.5000", "0.0000", "0.5000 to 0.5000", "none"]
    assert time.perf_counter() - start < 5, "it takes 0.3 s on a quiet machine"


class Shown:
    """A stand-in for a notebook's output: what `display` was told, and each of its updates."""

    def __init__(self):
        self.told = []

    def display(self, data, display_id, **how):
        assert display_id and how == dict(raw=True, metadata=dict(mnist_ce="bar")) and not self.told
        return self.update(data, **how)

    def update(self, data, raw, metadata):
        self.told.append(data["text/plain"])
        return self


@pytest.fixture
def notebook(monkeypatch):
    IPython = pytest.importorskip("IPython", reason="IPython is a development tool")
    shown = Shown()
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", shown.display)
    return shown


def test_a_bar_of_a_notebook_ends_as_one_line(notebook, capsys):
    with progress_bar(total=3, desc="mine", unit="epoch", leave=False) as bar:
        for k in range(3):
            bar.set_postfix(dict(accuracy=f"0.{k}"), refresh=False)
            bar.update()
    assert notebook.told[0].startswith("mine:   0%|") and max(map(len, notebook.told)) < 80
    assert re.fullmatch(r"mine: 3 epochs in \d\.\d s, accuracy 0.2", notebook.told[-1])
    bar.close()
    assert len(notebook.told) == len({*notebook.told}) and capsys.readouterr() == ("", "")


def test_a_bar_that_is_stopped_says_how_far_it_came_and_one_that_is_off_nothing(notebook, capsys):
    with pytest.raises(KeyboardInterrupt), progress_bar(total=3, unit="model") as bar:
        bar.update()
        raise KeyboardInterrupt
    assert re.fullmatch(r"1 of 3 models in \d\.\d s", notebook.told[-1])
    notebook.told.clear()
    with progress_bar(total=1, unit="model", disable=True) as bar:
        bar.update()
    assert notebook.told == [] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ipython", [True, False])
def test_a_bar_of_a_terminal_is_that_of_tqdm(monkeypatch, capsys, ipython):
    if ipython:  # its shell in a terminal has no kernel
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    else:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with progress_bar(total=1, unit="model") as bar:
        bar.update()
    assert "100%|" in capsys.readouterr().err and type(bar).__module__.startswith("tqdm")


TRAINED = """
from mnist_ce.all import *
train, valid = mnist_sample()
few = train[::50], valid[::20]
---
fit(cross_entropy_loss, *few, epochs=2)
---
runs = fit_many(cross_entropy_loss, *few, seeds=range(60), epochs=2)
---
runs = compare([cross_entropy_loss, mnist_loss], *few, seeds=range(2), orders=range(2), epochs=2)
---
few[0]
"""


def test_a_notebook_keeps_one_line_of_each_bar():
    nbformat = pytest.importorskip("nbformat", reason="Jupyter is a development tool")
    nbclient = pytest.importorskip("nbclient", reason="Jupyter is a development tool")
    cells = [nbformat.v4.new_code_cell(source) for source in TRAINED.split("---")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    env = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(mnist_ce.__file__)))
    nbclient.NotebookClient(notebook, kernel_name="python3").execute(env=env)
    kept = [[*cell.outputs] for cell in notebook.cells]
    assert "widgets" not in notebook.metadata and kept[0] == []
    lines = [outputs[0].data["text/plain"] for outputs in kept[1:-1]]
    told = [re.sub(r"\d+\.\d+", "#", line) for line in lines]
    assert told == [
        "cross_entropy_loss: 2 epochs in # s, loss #, accuracy #", "cross_entropy_loss: 2 epochs in # s",
        "2 losses: 8 models in # s",
    ]  # fmt: skip
    assert [len(outputs) for outputs in kept[1:]] == [2, 1, 1, 1], "the run itself, and the images"
    assert "<table>" in kept[1][1].data["text/html"] and "<img" in kept[-1][0].data["text/html"]


def reject(token):
    raise AssertionError(f"{token} is no JSON")


def test_json_is_strict_and_says_where_it_comes_from(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "_revision", lambda: dict(git="abc-dirty"))
    record = make_record(dict(lr=np.float64(0.5), seeds=range(2)))
    assert record["git"] == "abc-dirty" and record["settings"]["lr"] == 0.5
    path = tmp_path / "run.json"
    runs = made_up()
    runs.record, runs.scores["accuracy"][0, 0] = record, torch.nan
    write_json(path, runs.raw())
    found = json.loads(path.read_text(), parse_constant=reject)
    assert found["accuracy"][0] == [None, pytest.approx(0.805)] and found["seed"] == [5, 6] * 3
    assert found["nonfinite"] == [-1] * 5 + [7] and found["record"]["settings"]["seeds"] == [0, 1]
    assert found["seconds"][0] == [0.25, 0.25]
    assert capsys.readouterr() == ("", f"{path}: made with uncommitted changes (abc-dirty)\n")
    monkeypatch.setattr(results, "_revision", lambda: dict(git="abc"))
    write_json(path, dict(record=make_record({})))
    assert capsys.readouterr().err == ""
    write_json(path, dict(git="abc-dirty"))
    assert "(abc-dirty)" in capsys.readouterr().err, "a record alone as well"


@pytest.mark.parametrize(
    "value, plain",
    [
        (dict(a=(1, 2)), dict(a=[1, 2])), ({1: "x", None: True}, {"1": "x", "None": True}),
        ([math.inf, -math.inf, math.nan, 0.5], [None, None, None, 0.5]), (range(3), [0, 1, 2]),
        (torch.tensor([1, 2]), [1, 2]), (torch.tensor(1.5), 1.5), (np.array([[True]]), [[True]]),
        (np.float32(0.5), 0.5), (np.int64(3), 3), (np.array([math.nan]), [None]), ("ü", "ü"),
        (cross_entropy_loss.each, str(cross_entropy_loss.each)), (torch.device("cpu"), "cpu"), (None, None),
    ],
    ids=named,
)  # fmt: skip
def test_everything_has_its_form_in_json(tmp_path, value, plain):
    write_json(tmp_path / "x.json", dict(value=value))
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=reject) == dict(value=plain)
    assert text == json.dumps(dict(value=plain), indent=1) + "\n"


def test_a_record_says_what_made_a_result(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/folder/mnist-ce", "compare", "--seeds", "3"])
    record = make_record(dict(lr=1))
    assert record["command"] == "mnist-ce compare --seeds 3" and record["settings"] == dict(lr=1)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record["made"])
    assert timedelta(0) <= age < timedelta(minutes=1) and record["made"].endswith("+00:00") and "." not in record["made"]
    assert record["versions"] == dict(
        python=platform.python_version(), mnist_ce=mnist_ce.__version__, torch=torch.__version__, numpy=np.__version__
    )
    assert record["device"].startswith("CPU (") and (platform.processor() or platform.machine()) in record["device"]
    assert record["threads"] == torch.get_num_threads() and record["cores"] == os.cpu_count()


def test_the_revision_is_that_of_the_clone(tmp_path, monkeypatch):
    folder = tmp_path / "mnist_ce"
    folder.mkdir()
    (folder / "results.py").write_text("1")
    monkeypatch.setattr(results, "__file__", str(folder / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()  # fmt: skip

    def revision():
        results._revision.cache_clear()
        return results._revision()["git"]

    assert revision() is None and "not a git repository" in results._revision()["no_git"]
    git("init", "-q")
    git("commit", "--allow-empty", "-qm", "empty")
    assert revision() is None and "did not match any file" in results._revision()["no_git"]
    (tmp_path / "study.json").write_text("{}")
    git("add", ".")
    git("commit", "-qm", "all")
    git("tag", "-a", "v1", "-m", "v1")
    assert revision() == git("rev-parse", "HEAD") != ""
    index = tmp_path / ".git" / "index"
    os.utime(folder / "results.py", (0, 0))
    before = index.stat()
    assert revision() == git("rev-parse", "HEAD") and index.stat() == before, "a lock could stay behind"
    (tmp_path / "study.json").write_text("[]")
    assert revision() == git("rev-parse", "HEAD"), "the last study's result changes no code"
    (folder / "results.py").write_text("2")
    assert revision() == git("rev-parse", "HEAD") + "-dirty"
    git("commit", "-qam", "more")
    assert revision() == git("rev-parse", "HEAD")
    results._revision.cache_clear()


@pytest.mark.parametrize(
    "script, words",
    [
        (None, "git is not installed"),
        ("#!/bin/sh\necho broken >&2; exit 3", "broken"),
        ("#!/bin/sh\nexit 3", "git ended with 3"),
        ("no script", "git failed: [Errno 8]"),
    ],
)
def test_a_git_that_is_missing_or_fails_is_named_in_the_record(tmp_path, monkeypatch, script, words):
    if script:
        (tmp_path / "git").write_text(script)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    results._revision.cache_clear()
    record = make_record({})
    results._revision.cache_clear()
    assert record["git"] is None and record["no_git"].startswith(words)


def test_two_orders_are_already_several():
    runs = made_up(orders=(0, 1), seeds=(5, 6, 7))
    assert runs.summary() == results.crossed(runs.table_of())


def test_a_run_can_be_copied():
    run = with_models()[3]
    again = copy.copy(run)
    assert again.accuracy.tolist() == run.accuracy.tolist() and again.coords == run.coords


def test_a_band_counts_the_models_that_broke():
    values = torch.tensor([[0.9, 0.8, 0.7], [0.9, torch.nan, torch.nan], [0.9, torch.nan, torch.nan]])
    figure = matplotlib.figure.Figure()
    axis = figure.add_subplot()
    results.draw_band(axis, range(3), values.double(), "a")
    (label,) = [line.get_label() for line in axis.lines]
    assert "n = 3, 2 broke" in label
    values = torch.tensor([[0.9, torch.nan], [0.9, torch.nan], [0.9, torch.nan]])
    results.draw_band(axis, range(3), values.double(), "b")
    assert "n = 2, 1 broke" in axis.lines[-1].get_label()
