"""Tune the convolutional network's recipe on 10,000 held-out training images; the test images are never looked at.

Trains each variant of `recipe("convnet", 10)` on the other 50,000 from three seeds. Prints a table and writes
tuning.json.
"""
import json
import os
from datetime import datetime, timezone

import torch
from speed import HERE
from tabulate import tabulate

from mnist_ce.data import mnist
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.metrics import summarize
from mnist_ce.networks import recipe
from mnist_ce.report import environment
from mnist_ce.training import fit


def with_decay(weight_decay):
    """`one_cycle` with another weight decay."""

    def one_cycle(parameters, lr, steps):
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)

    return one_cycle


def nesterov(parameters, lr, steps):
    """Gradient descent with Nesterov's momentum under the same schedule."""
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)


VARIANTS = {
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


def main(seeds=range(3)):
    """Run all, print the table, write the JSON."""
    train, _ = mnist()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out, rest = train[order[:10_000]], train[order[10_000:]]
    results, rows = {}, []
    for name, changes in VARIANTS.items():
        runs = [fit(cross_entropy_loss, rest, held_out, **dict(recipe("convnet", 10, seed), **changes), data_seed=seed) for seed in seeds]
        results[name] = dict(
            accuracy=[run.history[-1].accuracy for run in runs],
            nll=[run.history[-1].nll for run in runs],
            seconds=[sum(epoch.seconds for epoch in run.history) for run in runs],
        )
        last, seconds = summarize(results[name]["accuracy"]), summarize(results[name]["seconds"]).mean
        rows.append([name, f"{last.mean:.4f}", f"{last.sd:.4f}", f"{summarize(results[name]['nll']).mean:.4f}", f"{seconds:.1f}"])
    print(tabulate(rows, ["variant, 10 epochs unless said", "held-out accuracy", "sd", "NLL", "seconds"], disable_numparse=True))
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = dict(made=made, cores=os.cpu_count(), environment=environment(torch.device("cpu")), seeds=list(seeds), results=results)
    (HERE / "tuning.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
