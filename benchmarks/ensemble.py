"""Time many models side by side: against the original's loop, against bare matrix products, and as the work grows.

Prints tables and writes ensemble.json. Sides that are compared run in turn in one process; medians count.
"""
import json
import os
import statistics
import warnings
from datetime import datetime, timezone

import torch
from speed import HERE, NOTEBOOK, notebook_style, timed
from tabulate import tabulate

from mnist_ce.data import batches, mnist, mnist_sample
from mnist_ce.ensemble import evaluate_many, fit_many
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.model import init_linear
from mnist_ce.report import environment
from mnist_ce.training import fit, train_linear_epoch


def in_turn(sides, rounds):
    """The median seconds of each side, called in turn after one warm-up each."""
    for side in sides.values():
        side()
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def bare_products(matrix, slopes, data, validate):
    """Nothing but the matrix products of an epoch: forward and gradient in batches of 256, then forward on all again."""

    def run():
        for xb, _ in batches(data, 256):
            matrix @ xb.T
            slopes[:, : len(xb)] @ xb
        if validate:
            for xb, _ in batches(data, 1024):
                matrix @ xb.T

    return run


def against_the_notebook(train, models=300):
    """Per model and epoch, training and validation: the original's loop, `fit_many`, and the bare products."""
    rows = {}
    for loss, slow_loss in NOTEBOOK.items():
        c = loss.columns or 2
        weights, bias = init_linear(784, c, range(models), [0.01] * models, "cpu")
        slopes = torch.randn(c * models, 256, generator=torch.Generator().manual_seed(0))
        matrix, rates = weights.view(c * models, 784), torch.full((models, 1), 1e-3)
        sides = dict(
            notebook=notebook_style(slow_loss, c, train, epochs=1),
            fit_many=lambda: fit_many(loss, train, train, range(models), epochs=1, shuffle=False, device="cpu", progress=False),
            shuffled=lambda: fit_many(loss, train, train, range(models), epochs=1, device="cpu", progress=False),
            training=lambda: train_linear_epoch(weights, bias, rates, loss.value_and_grad, batches(train, 256)),
            validation=lambda: evaluate_many(loss, weights, bias, train),
            start=lambda: init_linear(784, c, range(models), [0.01] * models, "cpu"),
            products=bare_products(matrix, slopes, train, validate=True),
        )
        seconds = in_turn(sides, rounds=5)
        # every run starts its models once, not once an epoch; training and validation are the epoch itself
        epoch = seconds["training"] + seconds["validation"]
        seconds |= dict(times_faster=seconds["notebook"] / (epoch / models), share_of_products=seconds["products"] / epoch)
        rows[loss.__name__] = seconds
    return rows


def one_fit(train):
    """One `fit` of ten epochs in order against the notebook's loop and against one bare pass per epoch."""
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
        seconds = in_turn(sides, rounds=7)
        rows[loss.__name__] = dict(seconds, times_faster=seconds["notebook"] / seconds["fit"], of_floor=seconds["fit"] / seconds["floor"])
    return rows


def as_work_grows():
    """Milliseconds per model and epoch of cross entropy, for a number of models and of digits."""
    table = {}
    for digits in (7, 3), range(5), range(10):
        train, valid = mnist(classes=digits)
        for models in 1, 10, 100, 1000:
            run = lambda: fit_many(cross_entropy_loss, train, valid, range(models), epochs=1, device="cpu", progress=False)
            once = [timed(run) for _ in range(3 if models < 1000 else 1)]
            table[f"{len(digits)} digits, {models} models"] = 1e3 * statistics.median(once) / models
    return table


def main():
    """Run all, print the tables, write the JSON."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # fastai's
    train, _ = mnist_sample()
    results = dict(per_model_and_epoch_300=against_the_notebook(train), one_fit=one_fit(train), as_work_grows=as_work_grows())
    print("300 models, one epoch of training and validation, ms per model; the notebook's loop trains one model\n")
    many = results["per_model_and_epoch_300"]
    parts = ("training", "validation", "products")
    rows = [
        [name, f"{1e3 * r['notebook']:.0f}", *[f"{1e3 * r[part] / 300:.3f}" for part in parts], f"{r['times_faster']:.0f}", f"{r['share_of_products']:.0%}"]
        for name, r in many.items()
    ]
    print(tabulate(rows, ["loss", "notebook", *parts, "times faster", "share of products"], disable_numparse=True))
    print(f"\nmean over the losses: {statistics.mean(r['times_faster'] for r in many.values()):.0f} times faster\n")
    rows = [[name, *[f"{1e3 * r[k]:.1f}" for k in ("notebook", "fit", "floor")], f"{r['times_faster']:.1f}", f"{r['of_floor']:.1f}"] for name, r in results["one_fit"].items()]
    print(tabulate(rows, ["one fit, ms", "notebook", "fit", "bare products", "times faster", "times the products"], disable_numparse=True))
    cells = results["as_work_grows"]
    rows = [[f"{m} models", *[f"{cells[f'{d} digits, {m} models']:.2f}" for d in (2, 5, 10)]] for m in (1, 10, 100, 1000)]
    print("\n" + tabulate(rows, ["ms per model and epoch", "2 digits", "5 digits", "10 digits"], disable_numparse=True))
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = dict(made=made, cores=os.cpu_count(), environment=environment(torch.device("cpu")), results=results)
    (HERE / "ensemble.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
