"""What the figures draw, as numbers, and what the page says."""

import html
import re

import pytest
import torch

from mnist_ce.original import (
    EXPERIMENTS, FAULTS, OUTCOMES, band, effect, factorial, inside, outcome, reproduce,
)  # fmt: skip
from mnist_ce.plots import autopsy_page, draw_mosaic, draw_reproductions, plot_curves, plot_sweep
from mnist_ce.results import Run, Runs, new_figure, of_shares, summarize


def made_up(accuracy, **coords):
    """`Runs` of which nothing matters but accuracy [epochs, S] and coordinates."""
    accuracy = torch.tensor(accuracy, dtype=torch.double)
    s = accuracy.shape[1]
    coords = dict(loss=["a"] * s, seed=list(range(s)), data_seed=[0] * s) | coords
    nothing = torch.full((s,), -1)
    return Runs(dict(accuracy=accuracy), coords, nothing, torch.zeros_like(accuracy), [], (0, 1))


def drawn(figure):
    """{label: (xs, ys)} of the lines of a figure's first axis."""
    lines = figure.axes[0].lines
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


NAN = float("nan")
ACCURACY = [[0.5, 0.7, 0.6], [0.8, 0.9, NAN]]  # two epochs, three models, of which one broke


@pytest.mark.parametrize(
    "give", [lambda runs: runs, lambda runs: runs.accuracy], ids=["runs", "tensor"]
)
def test_epochs_run_along_x_and_a_broken_model_is_counted_not_drawn(give):
    lines = drawn(plot_curves({"mine": give(made_up(ACCURACY))}))
    assert list(lines) == ["mine (n = 3, 1 broke)"]
    xs, ys = lines["mine (n = 3, 1 broke)"]
    assert xs == [1, 2] and ys == pytest.approx([0.6, 0.85])


def test_the_band_goes_from_worst_to_best():
    (band,) = plot_curves({"mine": made_up(ACCURACY)}).axes[0].collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6).tolist()}
    assert corners == {(1, 0.5), (1, 0.7), (2, 0.8), (2, 0.9)}


def test_runs_are_drawn_by_loss_and_a_run_as_a_line():
    runs = made_up([[0.1, 0.3, 0.5, 0.7]], loss=["a", "a", "b", "b"])
    lines = drawn(plot_curves(runs))
    assert [ys for _, ys in lines.values()] == [[pytest.approx(0.2)], [pytest.approx(0.6)]]
    assert drawn(plot_curves({"one": Run(runs.where(seed=2))}))["one (n = 1)"] == ([1], [0.5])


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0)], ids=str)
def test_curves_of_another_shape_are_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"mine must be \[epochs, S\], as runs.accuracy is"):
        plot_curves({"mine": torch.zeros(shape)})


def test_runs_in_a_list_have_no_names_to_draw():
    with pytest.raises(TypeError, match=r"got list: write plot_curves\(dict\(one=run, other=run\)\)$"):
        plot_curves([torch.zeros(2, 3)])


def test_a_sweep_is_drawn_by_rate_in_order_and_whole():
    coords = dict(lr=[1.0, 1.0, 0.1, 0.1, 10.0], seed=[0, 1, 0, 1, 0])  # Ctrl-C during rate 10
    figure = plot_sweep(made_up([[0.9, 0.8, 0.5, 0.7, 0.3]], **coords))
    xs, ys = drawn(figure)["a (n = 2)"]
    assert xs == [0.1, 1.0] and ys == pytest.approx([0.6, 0.85])
    assert figure.axes[0].get_xscale() == "log"


@pytest.fixture(scope="module")
def autopsy():
    names = "cross_entropy", "softmax"
    runs = {name: reproduce(name, range(3), progress=False) for name in names}
    return runs, factorial(range(2), epochs=2, progress=False)


def test_the_page_holds_the_numbers_and_nothing_to_fetch(autopsy):
    runs, combinations = autopsy
    page = autopsy_page(*autopsy)
    assert page.count("data:image/png") == 2 and "http" not in page
    true = summarize(runs["softmax"].last("true_accuracy"))
    effects = [effect(combinations, "true_accuracy", name) for name in FAULTS]
    for told in f"{true:.4f}", "0.5112 to 0.5112", "3 of 3", "no model left", *effects:
        text = told if isinstance(told, str) else f"{told:+.4f}"
        assert f"<td>{text}" in page, text
    every = page[page.index("Every combination") : page.index("Where this comes from")]
    assert every.count("<tr>") == 1 + 128
    reported = combinations.where(combination="1011111").last("reported")
    assert f"<td>{summarize(reported):.4f}" in every
    for name, (mended, faulty) in FAULTS.items():
        assert name in page and str(mended) in page and str(faulty) in page
    assert str(combinations.record["versions"]["torch"]) in page


def test_the_figures_of_the_autopsy_draw_truth_beside_report(autopsy):
    runs, combinations = autopsy
    figure = new_figure()
    first, second = figure.subplots(1, 2)
    draw_reproductions([first, second], runs)
    assert first.get_ylabel() == "accuracy" and first.get_title() == "cross entropy, rate 1\n3 seeds"
    assert [text.get_text() for text in first.texts] == ["no model left"] and not second.texts
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "reported, 99% of the seeds", "true accuracy, mean", "published",
    ]  # fmt: skip
    assert all(text.get_fontsize() >= 10 for text in legend.get_texts()), "10 points, shown as 12"
    true, published = second.lines
    assert list(true.get_ydata()) == runs["softmax"].true_accuracy.mean(1).tolist()
    assert list(published.get_ydata()) == list(EXPERIMENTS["softmax"].accuracy)


ON_THE_LEFT, BELOW = ("sign", "formula", "lr"), ("batches", "metric", "init_std", "validation")
LABELS = dict(
    sign="minus lost", formula="log of softmax", lr="rate 1.0", batches="sorted batches",
    metric="column 0, batch means", init_std="weights 1.0 wide", validation="training images",
)  # fmt: skip


def mosaic(runs, **options):
    """What `draw_mosaic` draws: {combination, as its dots tell it: (letter, color, framed)}, words."""
    from matplotlib.colors import to_hex

    axis = new_figure().subplots()
    draw_mosaic(axis, runs, **options)
    words = {text.get_text(): text.get_position() for text in axis.texts}
    letters = {text.get_position(): text.get_text() for text in axis.texts if len(text.get_text()) == 1}
    dots = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line.get_fillstyle() == "full"
        for line in axis.lines
    }
    tiles = {}
    for tile in axis.patches:
        x, y = round(tile.get_x() + tile.get_width() / 2, 6), round(tile.get_y() + tile.get_height() / 2, 6)
        if y > 0.25:  # of the legend
            continue
        on = {name: dots[words[LABELS[name]][0], y] for name in ON_THE_LEFT}
        on |= {name: dots[x, words[LABELS[name]][1]] for name in BELOW}
        key = "".join(str(int(on[name])) for name in FAULTS)
        assert key not in tiles
        tiles[key] = letters[x, y], to_hex(tile.get_facecolor()), tile.get_linewidth() > 1
    return tiles, [*words]


def test_each_combination_is_a_tile_where_its_dots_say(autopsy):
    _, combinations = autopsy
    parts = combinations.by("combination")
    kinds = {key: outcome(part) for key, part in parts.items()}
    tiles, words = mosaic(combinations)
    assert tiles.keys() == kinds.keys() and len(tiles) == 128
    letters = dict(zip(OUTCOMES, "TUSNF"))
    assert {key: letter for key, (letter, *_) in tiles.items()} == {key: letters[kind] for key, kind in kinds.items()}
    assert len({color for _, color, _ in tiles.values()}) == len({*kinds.values()}) > 2
    assert not any(framed for *_, framed in tiles.values())
    for kind in OUTCOMES:
        count = [*kinds.values()].count(kind)
        assert (f"{kind}: {count}" in words) == bool(count)


def test_a_mosaic_of_some_combinations_with_one_framed():
    kinds = {"1011111": "freezes", "0000000": "trains", "0011110": "only seems to"}
    tiles, _ = mosaic(kinds, marked="0000000")
    assert {key: (letter, framed) for key, (letter, _, framed) in tiles.items()} == {
        "1011111": ("F", False), "0000000": ("T", True), "0011110": ("S", False),
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"1011111": "melts"}, {"101": "trains"}, {"1011112": "trains"}], ids=str)
def test_a_mosaic_of_what_is_no_combination_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"draw_mosaic: '{[*wrong][0]}' with outcome '{[*wrong.values()][0]}'"):
        mosaic(wrong)


def test_the_pictures_of_the_page_say_what_they_show(autopsy):
    runs, combinations = autopsy
    curves, tiles = re.findall(r'<img alt="([^"]+)" src="data:', autopsy_page(runs, combinations))
    assert "cross entropy, rate 1, softmax alone, rate 1" in curves
    kinds = [outcome(part) for part in combinations.by("combination").values()]
    told = [f"{name}: {kinds.count(name)}" for name in OUTCOMES if name in kinds]
    assert html.unescape(tiles) == f"What becomes of 128 combinations of seven faults. {', '.join(told)}"


def tables_of(page):
    """The tables of a page: for each the rows as {header: text}."""
    tables = []
    for text in re.findall(r"<table>(.*?)</table>", page, re.S):
        lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in text.split("<tr>")[1:]]
        headers, *rows = [[html.unescape(cell).strip() for cell in line] for line in lines]
        tables.append([dict(zip(headers, row, strict=True)) for row in rows])
    return tables


def test_each_column_of_the_page_holds_what_its_header_says(autopsy):
    runs, combinations = autopsy
    published, outcomes, effects, every, made = tables_of(autopsy_page(*autopsy))
    for row, (name, run) in zip(published, runs.items(), strict=True):
        low, high = band(run.reported)[:, -1].tolist()
        broken = int((run.nonfinite >= 0).sum())
        true = run.last("true_accuracy")
        assert row == {
            "experiment": name, "published, last epoch": f"{EXPERIMENTS[name].accuracy[-1]:.4f}",
            "99% of seeds": f"{low:.4f} to {high:.4f}", "points inside": f"{int(inside(name, run).sum())} of 10",
            "non-finite": f"{broken} of 3",
            "true accuracy": "no model left" if broken else f"{summarize(true):.4f}",
        }  # fmt: skip
    parts = combinations.by("combination").values()
    kinds = [outcome(part) for part in parts]
    assert {row["outcome for most seeds"]: row["combinations"] for row in outcomes} == {
        name: str(kinds.count(name)) for name in OUTCOMES
    }
    assert effects == [
        {"fault": name, "on the reported accuracy": f"{effect(combinations, 'reported', name):+.4f}",
         "on the true accuracy": f"{effect(combinations, 'true_accuracy', name):+.4f}"}
        for name in FAULTS
    ]  # fmt: skip
    differ = 0
    for row, part, kind in zip(every, parts, kinds, strict=True):
        reported, true = (f"{of_shares(summarize(part.last(name))):.4f}" for name in ("reported", "true_accuracy"))
        assert (row["reported"], row["true"], row["outcome"]) == (reported, true, kind)
        settings = {name: part.coords[name][0] for name in FAULTS}
        told = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in settings.items()}
        assert {name: row[name] for name in FAULTS} == told
        differ += reported != true
    assert differ > 32
    by = {row["made"]: row["by"] for row in made}
    assert by["device"] == combinations.record["device"] and by["command"] == combinations.record["command"]
