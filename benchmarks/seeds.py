"""Train three losses from 300 seeds under two protocols, and from 20 seeds under ten orders.

The values behind the lesson "One run is an anecdote". Prints a table and writes seeds.json. Run it
with OMP_NUM_THREADS=1, as the lessons are.
"""

from typing import Any

from speed import HERE

from mnist_ce.data import mnist_sample
from mnist_ce.ensemble import compare
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import Table, make_record, write_json

LOSSES = mnist_loss, softmax_loss, cross_entropy_loss
PROTOCOLS: dict[str, dict[str, Any]] = {
    "published": dict(init_std=1.0, shuffle=False),
    "default": dict(init_std=0.01, shuffle=True),
}


def main(seeds: int = 300, few: int = 20, orders: int = 10) -> None:
    """Run all, print the table, write the JSON."""
    train, test = mnist_sample()
    results: dict[str, dict[str, Any]] = {}
    for name, protocol in PROTOCOLS.items():
        runs = compare(LOSSES, train, test, range(seeds), [0], progress=False, **protocol)
        results[name] = {loss: part.last() for loss, part in runs.by("loss").items()}
    runs = compare(LOSSES, train, test, range(few), range(orders), progress=False)
    results["orders"] = {loss: part.table_of() for loss, part in runs.by("loss").items()}
    rows = [
        [name, loss, values.numel(), f"{values.mean():.4f}", int((values < 0.9).sum())]
        for name, of_loss in results.items()
        for loss, values in of_loss.items()
    ]
    print(Table(rows, ["protocol", "loss", "models", "mean test accuracy", "below 0.9"]))
    settings = dict(protocols=PROTOCOLS, lr=1.0, epochs=10, batch_size=256)
    settings |= dict(seeds=seeds, orders=dict(seeds=few, orders=orders))
    write_json(HERE / "seeds.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
