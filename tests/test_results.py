"""What users read: summaries, tables, runs by their coordinates, records; by value."""
import json
import math

import numpy as np
import pytest
import torch

from mnist_ce import results
from mnist_ce.results import (
    Runs, Summary, Table, components, crossed, join_runs, make_record, paired, summarize, write_json,
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


def test_summary_by_hand():
    result = summarize([1, 2, 3])
    assert (result.n, result.mean, result.sd) == (3, 2, 1)
    assert result.high - result.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t, 2 degrees
    assert math.isnan(summarize([1]).sd) and math.isnan(summarize([1, float("nan")]).mean)
    assert str(summarize([1])) == "1.0000, n = 1"
    assert f"{Summary(3, 0.5, 0.1, 0.4, 0.6):+.2f}" == "+0.50 (+0.40 to +0.60)"


def test_components_by_hand():
    # orders 0 and 2, seeds 0 and 4, nothing else: mean squares 2 * 2 and 2 * 8
    assert components([[0, 4], [2, 6]]) == pytest.approx((2**0.5, 8**0.5, 0))
    with pytest.raises(ValueError, match=r"at least 2 orders by 2 seeds is needed, got \(1, 3\)"):
        components([[1, 2, 3]])


def test_the_interval_over_orders_and_seeds_by_hand():
    """Mean squares 4, 16 and 0 over a 2 by 2 table: a variance of 5, 20² / (4² + 16²) degrees."""
    from scipy.stats import t

    found = crossed([[0, 4], [2, 6]])
    margin = t.ppf(0.975, 400 / 272) * 5**0.5
    assert (found.mean, found.n) == (3, 4) and found.high - 3 == pytest.approx(margin)


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
    with pytest.raises(AttributeError, match="no 'f1'; scores: accuracy"):
        runs.f1
    with pytest.raises(ValueError, match="there are no runs"):
        join_runs([])


def test_pairs_meet_by_seed_and_order_and_have_a_sign():
    one, other = made_up("a"), made_up("b", 0.1)
    shuffled = other[[0, 2, 4]], other[[1, 3, 5]]
    difference = paired(one, join_runs(list(shuffled)))
    assert difference.mean == pytest.approx(0.1) and difference.sd == pytest.approx(0, abs=1e-12)
    assert paired(other, one).mean == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="not been trained from the same seeds and orders"):
        paired(one, made_up("b", seeds=(5, 7)))


def test_a_run_is_read_as_numbers_and_prints_as_a_table():
    run = made_up()[1]
    assert run.accuracy.tolist() == [0.5, pytest.approx(0.806)] and run.coords["seed"] == 6
    assert run.history[-1].accuracy == pytest.approx(0.806) and run.history[-1].seconds == 0.25
    lines = str(run.history).splitlines()
    assert lines[0].split() == ["epoch", "accuracy", "seconds"]
    assert lines[-1].split() == ["2", "0.8060", "0.2500"]
    assert "<td>0.8060" in run._repr_html_() and repr(run).startswith("Run(a model of a, 2 epochs")
    assert "tensor" not in repr(made_up()) and "1 went non-finite" in repr(made_up())
    assert "0.8060" in str(run.history[1:]) and "0.5000" not in str(run.history[1:])


def test_runs_as_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = made_up().frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 12
    row = frame[(frame.seed == 6) & (frame.data_seed == 2) & (frame.epoch == 2)]
    assert row.accuracy.item() == pytest.approx(0.826) and row.loss.item() == "a"


def test_runs_draw_epochs_and_leave_broken_models_out():
    runs = made_up()
    runs.scores["accuracy"][1, 0] = torch.nan
    (axis,) = runs.plot().axes
    (line,) = axis.lines
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata()[1] == pytest.approx(np.mean([0.806, 0.815, 0.816, 0.825, 0.826]))
    assert line.get_label() == "a (n = 6, 1 broke)"


def test_tables_keep_their_columns():
    table = Table([("x", 0.5, 3)], ["name", "share", "n"])
    assert str(table).splitlines()[2].split() == ["x", "0.5000", "3"]
    assert str(Table([], ["name"])).split()[0] == "name"


def reject(token):
    raise AssertionError(f"{token} is no JSON")


def test_json_is_strict_and_says_where_it_comes_from(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "_revision", lambda: "abc-dirty")
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
    assert "made with uncommitted changes (abc-dirty)" in capsys.readouterr().err
    monkeypatch.setattr(results, "_revision", lambda: "abc")
    write_json(path, dict(record=make_record({})))
    assert capsys.readouterr().err == ""


def test_a_machine_without_git(monkeypatch):
    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    results._revision.cache_clear()
    monkeypatch.setattr(results.subprocess, "run", no_git)
    assert results._revision() is None
    results._revision.cache_clear()
