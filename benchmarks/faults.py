"""Train all 128 combinations of the original's faults from many seeds, and store what comes of them.

Prints the outcomes and the effects, and writes faults.json, which the lesson 09_all_faults reads.
"""

import itertools
from typing import Any

from speed import HERE

from mnist_ce.original import FAULTS, OUTCOMES, effect, factorial, outcome
from mnist_ce.results import Runs, Table, make_record, summarize, write_json

RESPONSES = dict(true="true_accuracy", reported="reported")


def combination_row(key: str, runs: Runs) -> dict[str, Any]:
    """One of the 128: its switches, its outcome, and both accuracies over its seeds."""
    row: dict[str, Any] = dict(combination=key, outcome=outcome(runs))
    row |= {name: runs.coords[name][0] for name in FAULTS}
    for short, response in RESPONSES.items():
        row[short] = summarize(runs.last(response))._asdict()
    return row | dict(frozen=int((runs.nonfinite >= 0).sum()), n=len(runs))


def all_effects(runs: Runs) -> list[dict[str, Any]]:
    """Each main effect and each interaction of two, on both accuracies."""
    names = [(name,) for name in FAULTS] + [*itertools.combinations(FAULTS, 2)]
    return [
        dict(faults=some) | {k: effect(runs, v, *some)._asdict() for k, v in RESPONSES.items()}
        for some in names
    ]


def main(seeds: int = 100) -> None:
    """Train, print the tables, write the JSON."""
    record = make_record(dict(study="faults", seeds=seeds, epochs=10))
    runs = factorial(range(seeds), device="cpu")
    rows = [combination_row(key, part) for key, part in runs.by("combination").items()]
    counts = {name: sum(row["outcome"] == name for row in rows) for name in OUTCOMES}
    print(Table(counts.items(), ["outcome for most seeds", "combinations"]))
    effects = all_effects(runs)
    told = [[" x ".join(e["faults"]), *(e[k]["mean"] for k in RESPONSES)] for e in effects]
    print(f"\n{Table(told, ['effect', *RESPONSES])}")
    results = dict(counts=counts, combinations=rows, effects=effects)
    write_json(HERE / "faults.json", dict(record=record, results=results))


if __name__ == "__main__":
    main()
