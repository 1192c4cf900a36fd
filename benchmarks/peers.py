"""Time many models side by side against JAX and against the bare products: a table, and peers.json.

python benchmarks/peers.py PYTHON, where PYTHON has JAX: `make bench-peers` makes such an
environment. Both sides train the same models on the same batches and measure loss and accuracy on
the same images after each epoch, and both end at the same weights. They take turns; each ratio is
the median over the turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from speed import HERE, timed
from torch import Tensor

from mnist_ce.data import Digits, batches, mnist_sample
from mnist_ce.ensemble import fit_many, in_threads
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.model import Linears
from mnist_ce.results import Table, assert_close, make_record, write_json

MODELS, EPOCHS, ROUNDS = 300, 10, 9


def bare_products(train: Digits, valid: Digits, columns: int, workers: int) -> None:
    """The matrix products of the same epochs alone: in threads of ours, or (0) of torch's."""
    parts = max(1, workers)
    count = MODELS * columns // parts
    weights, slopes = torch.zeros(count, 784), torch.zeros(count, 256)

    def run() -> None:
        order = torch.Generator().manual_seed(0)
        for _ in range(EPOCHS):
            for xb, _ in batches(train, 256, order):
                weights @ xb.T
                slopes[:, : len(xb)] @ xb
            for xb, _ in batches(valid, 1024):
                weights @ xb.T

    list(in_threads([run] * parts, workers))


def write_task(path: Path, train: Digits, valid: Digits) -> None:
    """What JAX is given: the data, and the models and the batches that `fit_many` draws."""
    drawn = [range(MODELS), [0.01] * MODELS, [1.0] * MODELS]
    start = Linears.drawn(cross_entropy_loss, 784, 2, *drawn)
    order, n = torch.Generator().manual_seed(0), len(train)
    orders = torch.stack([torch.randperm(n, generator=order) for _ in range(EPOCHS)])
    arrays: dict[str, Tensor] = dict(
        x=train.x, y=train.y.view(-1), valid_x=valid.x, valid_y=valid.y.view(-1), orders=orders,
        weights=start.weights_by_model, bias=start.bias_by_model,
    )  # fmt: skip
    np.savez(path, **{name: array.numpy() for name, array in arrays.items()})


def main() -> None:
    """Run all, print the table, write the JSON."""
    train, valid = mnist_sample()
    ours = lambda: fit_many(
        cross_entropy_loss, train, valid, range(MODELS), EPOCHS, device="cpu", progress=False
    )
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, "task.npz"), Path(folder, "result.npz")
        write_task(task, train, valid)
        command = [sys.argv[1], str(HERE / "peer_jax.py"), str(task), str(result), "256"]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen(command, **pipes) as peer:
            versions = json.loads(peer.stdout.readline())

            def jax() -> float:
                print(file=peer.stdin, flush=True)
                return json.loads(peer.stdout.readline())

            sides = {
                "JAX": jax,
                "fit_many": lambda: timed(ours),
                "products, one column": lambda: timed(
                    lambda: bare_products(train, valid, 1, threads)
                ),
                "products, two columns": lambda: timed(
                    lambda: bare_products(train, valid, 2, threads)
                ),
                "products, two columns, torch's threads": lambda: timed(
                    lambda: bare_products(train, valid, 2, 0)
                ),
            }
            for side in sides.values():
                side()
            turns = [{name: side() for name, side in sides.items()} for _ in range(ROUNDS)]
            peer.stdin.close()
        theirs, runs = np.load(result), ours()
    assert_close(runs.weights, torch.from_numpy(theirs["weights"]), terms=784)
    difference = runs.accuracy[-1] - torch.from_numpy(theirs["accuracy"])
    assert difference.abs().max() < 1.5 / len(valid), "one image may lie on the line"
    results = {}
    for name in sides:
        of_one = [1e3 * turn[name] / MODELS / EPOCHS for turn in turns]
        ratios = [turn["fit_many"] / turn[name] for turn in turns]
        results[name] = dict(
            ms=statistics.median(of_one), ours=statistics.median(ratios), raw=of_one
        )
    rows = [[name, f"{r['ms']:.3f}", f"{r['ours']:.2f}"] for name, r in results.items()]
    print(Table(rows, ["cross entropy, 300 models", "ms per model and epoch", "fit_many / this"]))
    settings = dict(models=MODELS, epochs=EPOCHS, rounds=ROUNDS, **versions)
    write_json(HERE / "peers.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
