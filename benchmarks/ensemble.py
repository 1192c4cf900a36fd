"""Time many models side by side: against the original's loop, bare products, and as work grows.

Prints tables and writes ensemble.json. Sides that are compared run in turn in one process; medians
count.
"""

import statistics
from collections.abc import Callable

import torch
from speed import HERE, NOTEBOOK, notebook_style, quietly, timed
from torch import Tensor

from mnist_ce.data import Digits, batches, mnist, mnist_sample
from mnist_ce.ensemble import fit_many
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.metrics import measure, standard_metrics
from mnist_ce.model import Linears
from mnist_ce.results import Table, make_record, write_json
from mnist_ce.training import fit


def in_turn(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each side, called in turn after one warm-up each."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def bare_products(
    matrix: Tensor, slopes: Tensor, data: Digits, validate: bool
) -> Callable[[], None]:
    """The matrix products of an epoch alone: forward and gradient, then forward on all again."""

    def run() -> None:
        for xb, _ in batches(data, 256):
            matrix @ xb.T
            slopes[:, : len(xb)] @ xb
        if validate:
            for xb, _ in batches(data, 1024):
                matrix @ xb.T

    return run


def against_the_notebook(train: Digits, models: int = 300, rounds: int = 5) -> dict[str, dict]:
    """An epoch, training and validation: the original's loop, `fit_many`, the bare products."""
    rows = {}
    for loss, slow_loss in NOTEBOOK.items():
        c = loss.columns or 2
        drawn = loss, 784, c, range(models), [0.01] * models, [1e-3] * models
        linears, settings = Linears.drawn(*drawn), dict(epochs=1, device="cpu", progress=False)
        slopes = torch.randn(c * models, 256, generator=torch.Generator().manual_seed(0))
        matrix, metrics = linears.weights.view(c * models, 784).clone(), standard_metrics(loss)
        crowd = lambda **more: fit_many(loss, train, train, range(models), **settings, **more)
        sides = dict(
            notebook=notebook_style(slow_loss, c, train, epochs=1),
            fit_many=lambda: crowd(shuffle=False),
            shuffled=crowd,
            training=lambda: [linears.step(xb, yb) for xb, yb in batches(train, 256)],
            validation=lambda: measure(linears, train, metrics, 256),  # in batches, as fit_many
            start=lambda: Linears.drawn(*drawn),
            products=bare_products(matrix, slopes, train, validate=True),
        )
        seconds = in_turn(sides, rounds)
        # Models are drawn once a run, not once an epoch: training and validation are the epoch.
        epoch = seconds["training"] + seconds["validation"]
        seconds["times_faster"] = seconds["notebook"] / (epoch / models)
        seconds["share_of_products"] = seconds["products"] / epoch
        rows[loss.__name__] = seconds
    return rows


def one_fit(train: Digits, rounds: int = 7) -> dict[str, dict]:
    """One `fit` of ten epochs in order, the notebook's loop, and one bare pass per epoch."""
    rows = {}
    for loss, slow_loss in NOTEBOOK.items():
        c = loss.columns or 2
        matrix = torch.randn(c, 784, generator=torch.Generator().manual_seed(0))
        floor = bare_products(matrix, torch.randn(c, 256), train, validate=False)
        sides = dict(
            notebook=notebook_style(slow_loss, c, train),
            fit=lambda: fit(loss, train, train, shuffle=False, device="cpu", progress=False),
            floor=lambda: [floor() for _ in range(10)],
        )
        seconds = in_turn(sides, rounds)
        seconds["times_faster"] = seconds["notebook"] / seconds["fit"]
        seconds["of_floor"] = seconds["fit"] / seconds["floor"]
        rows[loss.__name__] = seconds
    return rows


def as_work_grows(counts: tuple[int, ...] = (1, 10, 100, 1000)) -> dict[str, float]:
    """Milliseconds per model and epoch of cross entropy, for a number of models and of digits."""
    table = {}
    for digits in (7, 3), tuple(range(5)), tuple(range(10)):
        train, valid = mnist(classes=digits)
        for models in counts:
            settings = dict(seeds=range(models), epochs=1, device="cpu", progress=False)
            run = lambda: fit_many(cross_entropy_loss, train, valid, **settings)
            once = [timed(run) for _ in range(3 if models < 1000 else 1)]
            table[f"{len(digits)} digits, {models} models"] = 1e3 * statistics.median(once) / models
    return table


def main() -> None:
    """Run all, print the tables, write the JSON."""
    quietly()
    train, _ = mnist_sample()
    many, one, cells = against_the_notebook(train), one_fit(train), as_work_grows()
    print(
        "300 models, one epoch of training and validation; the notebook's loop trains one model\n"
    )
    parts = ("training", "validation", "products")
    headers = ["ms per model", "notebook", *parts, "times faster", "share of products"]
    rows = [
        [name, f"{1e3 * r['notebook']:.0f}", *[f"{1e3 * r[part] / 300:.3f}" for part in parts],
         f"{r['times_faster']:.0f}", f"{r['share_of_products']:.0%}"]
        for name, r in many.items()
    ]  # fmt: skip
    print(Table(rows, headers))
    faster = statistics.mean(r["times_faster"] for r in many.values())
    print(f"\nmean over the losses: {faster:.0f} times faster\n")
    headers = ["one fit, ms", "notebook", "fit", "products", "times faster", "times the products"]
    rows = [
        [name, *[f"{1e3 * r[k]:.1f}" for k in ("notebook", "fit", "floor")],
         f"{r['times_faster']:.1f}", f"{r['of_floor']:.1f}"]
        for name, r in one.items()
    ]  # fmt: skip
    print(Table(rows, headers))
    rows = [
        [f"{m} models", *[f"{cells[f'{d} digits, {m} models']:.2f}" for d in (2, 5, 10)]]
        for m in (1, 10, 100, 1000)
    ]
    print(f"\n{Table(rows, ['ms per model and epoch', '2 digits', '5 digits', '10 digits'])}")
    results = dict(per_model_and_epoch_300=many, one_fit=one, as_work_grows=cells)
    settings = dict(models=300, rounds=dict(many=5, one_fit=7, as_work_grows=3))
    write_json(HERE / "ensemble.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
