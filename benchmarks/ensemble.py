"""Time many models side by side: against the original's loop, bare products, and as work grows.

Prints tables and writes ensemble.json. Sides that are compared run in turn in one process; medians
count.
"""

import statistics
from collections.abc import Callable

import torch
from speed import HERE, NOTEBOOK, notebook_style, quietly, timed

from mnist_ce.data import Digits, batches, mnist, mnist_sample
from mnist_ce.ensemble import fit_many
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.results import Table, make_record, write_json
from mnist_ce.training import fit, one_thread


def in_turn(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each side, called in turn after one warm-up each."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def against_the_notebook(train: Digits, models: int = 300, rounds: int = 5) -> dict[str, dict]:
    """An epoch, training and validation: the original's loop for one model, `fit_many` for 300."""
    rows = {}
    for loss, slow_loss in NOTEBOOK.items():
        settings = dict(epochs=3, shuffle=False, device="cpu", progress=False)
        sides = dict(
            notebook=notebook_style(slow_loss, loss.columns or 2, train, epochs=1),
            fit_many=lambda: fit_many(loss, train, train, range(models), **settings),
        )
        seconds = in_turn(sides, rounds)
        seconds["of_one"] = seconds["fit_many"] / models / settings["epochs"]
        seconds["times_faster"] = seconds["notebook"] / seconds["of_one"]
        rows[loss.__name__] = seconds
    return rows


def one_fit(train: Digits, valid: Digits, rounds: int = 15) -> dict[str, dict]:
    """One `fit` of ten epochs, and the bare matrix products of the same batches."""
    rows = {}
    for loss in NOTEBOOK:

        def products() -> None:
            weights, slopes = (
                torch.zeros(loss.columns or 2, 784),
                torch.zeros(loss.columns or 2, 256),
            )
            order = torch.Generator().manual_seed(0)
            for _ in range(10):
                for xb, _ in batches(train, 256, order):
                    weights @ xb.T
                    slopes[:, : len(xb)] @ xb
                for xb, _ in batches(valid, 1024):
                    weights @ xb.T

        def in_one_thread() -> None:
            with one_thread():
                products()

        sides = dict(
            fit=lambda: fit(loss, train, valid, device="cpu", progress=False),
            products=products,
            products_in_one_thread=in_one_thread,
        )
        seconds = in_turn(sides, rounds)
        for side in "products", "products_in_one_thread":
            seconds[f"times_{side}"] = seconds["fit"] / seconds[side]
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
    train, valid = mnist_sample()
    many, one, cells = against_the_notebook(train), one_fit(train, valid), as_work_grows()
    print(
        "300 models, one epoch of training and validation; the notebook's loop trains one model\n"
    )
    rows = [
        [name, *[f"{1e3 * r[part]:.3g}" for part in ("notebook", "of_one")],
         f"{r['times_faster']:.0f}"]
        for name, r in many.items()
    ]  # fmt: skip
    print(Table(rows, ["ms per model", "notebook", "fit_many", "times faster"]))
    faster = statistics.mean(r["times_faster"] for r in many.values())
    print(f"\nmean over the losses: {faster:.0f} times faster\n")
    sides = "fit", "products", "products_in_one_thread"
    rows = [
        [name, *[f"{1e3 * r[side]:.1f}" for side in sides],
         *[f"{r[f'times_{side}']:.2f}" for side in sides[1:]]]
        for name, r in one.items()
    ]  # fmt: skip
    headers = ["one fit, ms", "fit", "products", "in one thread", "fit / products", "/ one thread"]
    print(Table(rows, headers))
    rows = [
        [f"{m} models", *[f"{cells[f'{d} digits, {m} models']:.2f}" for d in (2, 5, 10)]]
        for m in (1, 10, 100, 1000)
    ]
    print(f"\n{Table(rows, ['ms per model and epoch', '2 digits', '5 digits', '10 digits'])}")
    results = dict(per_model_and_epoch_300=many, one_fit=one, as_work_grows=cells)
    settings = dict(models=300, rounds=dict(many=5, one_fit=15, as_work_grows=3))
    write_json(HERE / "ensemble.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
