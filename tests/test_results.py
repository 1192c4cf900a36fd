"""What users read: summaries, tables, runs by their coordinates, records; by value."""
import base64
import copy
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections import namedtuple
from datetime import datetime, timedelta, timezone

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
    make_record, new_figure, paired, paired_error, summarize, write_json,
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
    assert repr(both) == f"Runs(12 models of a, b, 2 epochs, accuracy {summarize(both.last())}, 2 went non-finite)"
    both.scores["accuracy"][1, 1:] = torch.nan
    assert "accuracy 0.8050, n = 1, 2 went" in repr(both)
    both.scores["accuracy"][1] = torch.nan
    assert repr(both[:5]) == "Runs(5 models of a, 2 epochs, accuracy NaN)"
    both.nonfinite[0] = 0
    assert repr(both[:1]).endswith("NaN, 1 went non-finite)"), "a first step counts"
    both.scores["loss"] = both.scores.pop("accuracy")
    assert repr(both[1:5]) == "Runs(4 models of a, 2 epochs)"
    before = Runs(dict(accuracy=torch.zeros(0, 1)), {}, torch.tensor([-1]), torch.zeros(0, 1), [], (7, 3))
    assert repr(before) == "Runs(1 models of , 0 epochs)" and before.record == {} == before.settings
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
    git("add", ".")
    git("commit", "-qm", "all")
    git("tag", "-a", "v1", "-m", "v1")
    assert revision() == git("rev-parse", "HEAD") != ""
    index = tmp_path / ".git" / "index"
    os.utime(folder / "results.py", (0, 0))
    before = index.stat()
    assert revision() == git("rev-parse", "HEAD") and index.stat() == before, "a lock could stay behind"
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
