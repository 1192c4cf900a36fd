"""Train the published experiments as described, and in wrong ways, and store every curve.

Prints where the published curves lie, and writes published.json, which the lesson 08_published
reads. A curve is kept as the original printed it: an accuracy per epoch, with four decimals.
"""

from typing import Any

from speed import HERE
from torch import Tensor

from mnist_ce.data import Digits, mnist_sample
from mnist_ce.metrics import BatchMeans, true_accuracy
from mnist_ce.model import Linears
from mnist_ce.original import EXPERIMENTS, _as_it_was, _column_zero, inside, reproduce
from mnist_ce.results import Runs, Table, make_record, write_json
from mnist_ce.training import train_models

WRONG: dict[str, dict[str, Any]] = {
    "shuffled batches": dict(shuffle=True),
    "weights half as wide": dict(init_std=0.5),
    "half the rate": dict(slower=2),
}


def curves(values: Tensor) -> list[str]:
    """One line for each model of values [epochs, S]."""
    return [" ".join(f"{value:.4f}" for value in model) for model in values.T.tolist()]


def wrongly(
    name: str, seeds: range, train: Digits, shuffle: bool = False, init_std: float = 1.0, slower: int = 1
) -> Runs:  # fmt: skip
    """`reproduce`, but with shuffled batches, narrower weights, or a smaller learning rate."""
    experiment, s = EXPERIMENTS[name], len(seeds)
    loss, lr = _as_it_was(experiment.loss), experiment.lr / slower
    models = Linears.drawn(loss, 784, experiment.columns, seeds, [init_std] * s, [lr] * s)
    metrics: Any = dict(reported=BatchMeans(_column_zero), true_accuracy=true_accuracy())
    coords: dict[str, list[Any]] = dict(seed=[*seeds])
    return train_models(
        models, train, train, metrics, coords=coords, record=dict(settings={}), epochs=10,
        batch_size=256, shuffle=shuffle, progress=False, pooled=False,
    )  # fmt: skip


def main(seeds: int = 300, wrong_seeds: int = 150) -> None:
    """Train, print the table, write the JSON."""
    record = make_record(dict(study="published", seeds=seeds, wrong_seeds=wrong_seeds, epochs=10))
    train, _ = mnist_sample()
    results, rows = {}, []
    for name, experiment in EXPERIMENTS.items():
        runs = reproduce(name, range(seeds), "cpu", progress=False)
        found: dict[str, Any] = dict(lr=experiment.lr, columns=experiment.columns)
        found["published"] = " ".join(f"{value:.4f}" for value in experiment.accuracy)
        found["as described"] = curves(runs.reported)
        found["true, last epoch"] = [round(v, 4) for v in runs.last("true_accuracy").tolist()]
        found["first non-finite step"] = runs.nonfinite
        rows.append([name, f"{int(inside(name, runs).sum())} of 10"])
        if name != "cross_entropy":
            for way, change in WRONG.items():
                unseen = range(1000, 1000 + wrong_seeds)  # other weights than those above
                found[way] = curves(wrongly(name, unseen, train, **change).reported)
        results[name] = found
    print(Table(rows, ["experiment", "published points inside the band"]))
    write_json(HERE / "published.json", dict(record=record, results=results))


if __name__ == "__main__":
    main()
