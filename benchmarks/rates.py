"""Sweep the learning rate of three losses, and flip labels: held-out and test accuracy.

The values behind the lesson "Which loss, at which rate?". 2,000 training images are held out, to
choose a rate by; the models train on the other 10,396, and the test images only measure. Prints a
table and writes rates.json. Run it with OMP_NUM_THREADS=1, as the lessons are.
"""

from typing import Any

import torch
from speed import HERE
from torch import Tensor

from mnist_ce.data import Digits, mnist_sample
from mnist_ce.ensemble import sweep
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import Runs, Table, join_runs, make_record, write_json

LOSSES = mnist_loss, softmax_loss, cross_entropy_loss
RATES = [10 ** (k / 2) for k in range(-6, 7)]
SHARES = [0.0, 0.1, 0.2, 0.3, 0.4]
NOISY_RATES = RATES[2:9]
PROTOCOLS: dict[str, dict[str, Any]] = {
    "default": dict(seeds=range(3), orders=range(10)),
    "published": dict(seeds=range(20), orders=[0], init_std=1.0, shuffle=False),
}


def held_out(train: Digits, count: int = 2000) -> tuple[Digits, Digits]:
    """The training images without `count` random ones, and these; both in the order of `train`."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train[order[count:].sort().values], train[order[:count].sort().values]


def flipped(data: Digits, share: float, seed: int) -> Digits:
    """The images with about this share of the labels wrong, drawn one by one."""
    flips = torch.rand(len(data), 1, generator=torch.Generator().manual_seed(seed)) < share
    return Digits(data.x, torch.where(flips, 1 - data.y, data.y), data.classes, data.index)


def scores(runs: Runs, test: Digits) -> dict[str, Tensor]:
    """Accuracy and NLL on the held-out images and on the test images, float64 [S] each."""
    log_p = runs.answers(test).double().log_softmax(-1)
    nll = -log_p.gather(-1, test.y.expand(len(runs), -1, 1)).squeeze(-1).mean(1)
    accuracy = runs.right(test).double().mean(1)
    held = dict(held_accuracy=runs.last(), held_nll=runs.last("nll"))
    return held | dict(test_accuracy=accuracy, test_nll=nll)


def by_rate(train: Digits, held: Digits, test: Digits, seeds: range, orders: Any, **settings: Any
            ) -> dict[str, Any]:  # fmt: skip
    """Each loss's scores as [rates, orders, seeds], and what it gets right at its chosen rate.

    right: on how many of the orders and seeds each test image is answered rightly, at the rate of
    the best mean accuracy on the held-out images.
    """
    parts = [
        sweep(LOSSES, train, held, RATES, seeds, progress=False, data_seed=order, **settings)
        for order in orders
    ]
    found: dict[str, Any] = {}
    for name, runs in join_runs(parts).by("loss").items():
        shape = len(orders), len(RATES), len(seeds)
        mine = {k: v.view(shape).transpose(0, 1) for k, v in scores(runs, test).items()}
        best = RATES[int(mine["held_accuracy"].mean((1, 2)).argmax())]
        right = runs.where(lr=best).right(test).sum(0)
        found[name] = dict(mine, chosen=best, right=right)
    return found


def with_noise(train: Digits, held: Digits, test: Digits, draws: int) -> dict[str, Any]:
    """Each loss's accuracy [shares, rates, draws] on noisy held-out and on clean test images.

    A draw is one of everything: wrong labels, order of the batches, initial weights.
    """
    shape = len(SHARES), len(NOISY_RATES), draws
    names = "held_accuracy", "test_accuracy"
    zeros = lambda: {name: torch.zeros(shape, dtype=torch.double) for name in names}
    found = {loss.name: zeros() for loss in LOSSES}
    for row, share in enumerate(SHARES):
        for draw in range(draws):
            noisy = flipped(train, share, 2 * draw), flipped(held, share, 2 * draw + 1)
            settings = dict(progress=False, data_seed=draw)
            runs = sweep(LOSSES, *noisy, NOISY_RATES, [draw], **settings)
            for loss, part in runs.by("loss").items():
                for name, values in scores(part, test).items():
                    if name in names:
                        found[loss][name][row, :, draw] = values
    return found


def main(draws: int = 10) -> None:
    """Run all, print the table, write the JSON."""
    train, test = mnist_sample()
    train, held = held_out(train)
    results: dict[str, Any] = {
        name: by_rate(train, held, test, **protocol) for name, protocol in PROTOCOLS.items()
    }
    rows = [
        [protocol, f"{rate:.4g}", *[f"{r['test_accuracy'][k].mean():.4f}" for r in of.values()],
         *[f"{r['test_nll'][k].mean():.4f}" for r in of.values()]]
        for protocol, of in results.items()
        for k, rate in enumerate(RATES)
    ]  # fmt: skip
    names = [loss.name for loss in LOSSES]
    print(Table(rows, ["protocol", "lr", *names, *[f"NLL {name}" for name in names]]), flush=True)
    results["noise"] = with_noise(train, held, test, draws)
    for name, of in results["noise"].items():
        print(name, *of["test_accuracy"].mean(2).tolist(), sep="\n")
    settings = dict(protocols=PROTOCOLS, rates=RATES, epochs=10, batch_size=256)
    settings |= dict(noise=dict(shares=SHARES, rates=NOISY_RATES, draws=draws))
    settings |= dict(trained_on=len(train), held_out=len(held), test=len(test))
    write_json(HERE / "rates.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
