"""Tune the convolutional network's recipe on 10,000 held-out training images.

The test images are never looked at. Trains each variant of `recipe("convnet", 10)` on the other
50,000 from three seeds. Prints a table and writes tuning.json.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from speed import HERE

from mnist_ce.data import mnist
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import recipe
from mnist_ce.results import Table, make_record, summarize, write_json
from mnist_ce.training import fit, select_device


def scheduled(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> tuple:
    """The optimizer, and the schedule of `one_cycle`."""
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, cycle_momentum=False
    )


def with_decay(weight_decay: float) -> Callable[..., tuple]:
    """`one_cycle` with another weight decay."""

    def one_cycle(parameters: Any, lr: float, steps: int) -> tuple:
        adamw = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
        return scheduled(adamw, lr, steps)

    return one_cycle


def nesterov(parameters: Any, lr: float, steps: int) -> tuple:
    """Gradient descent with Nesterov's momentum under the same schedule."""
    sgd = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return scheduled(sgd, lr, steps)


VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": dict(),
    "no jitter": dict(augment=None),
    "lr 0.005": dict(lr=0.005),
    "lr 0.02": dict(lr=0.02),
    "no weight decay": dict(optimizer=with_decay(0.0)),
    "weight decay 0.2": dict(optimizer=with_decay(0.2)),
    "Nesterov, lr 0.2": dict(optimizer=nesterov, lr=0.2),
    "batches of 128": dict(batch_size=128),
    "1 epoch": dict(epochs=1),
    "2 epochs": dict(epochs=2),
    "3 epochs": dict(epochs=3),
}


def main(seeds: Iterable[int] = range(3)) -> None:
    """Run all, print the table, write the JSON."""
    train, _ = mnist()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out, rest = train[order[:10_000]], train[order[10_000:]]
    results, rows = {}, []
    for name, changes in VARIANTS.items():
        each = [dict(recipe("convnet", 10, seed), **changes, data_seed=seed) for seed in seeds]
        runs = [fit(cross_entropy_loss, rest, held_out, **settings) for settings in each]
        results[name] = dict(
            accuracy=[run.history[-1].accuracy for run in runs],
            nll=[run.history[-1].nll for run in runs],
            seconds=[sum(epoch.seconds for epoch in run.history) for run in runs],
        )
        last, nll, seconds = (summarize(values) for values in results[name].values())
        cells = f"{last.mean:.4f}", f"{last.sd:.4f}", f"{nll.mean:.4f}", f"{seconds.mean:.1f}"
        rows.append([name, *cells])
    headers = ["variant, 10 epochs unless said", "held-out accuracy", "sd", "NLL", "seconds"]
    print(Table(rows, headers))
    record = make_record(dict(loss=cross_entropy_loss.name, seeds=list(seeds)), select_device())
    write_json(HERE / "tuning.json", dict(record=record, results=results))


if __name__ == "__main__":
    main()
