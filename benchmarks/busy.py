"""Time training beside other busy programs against training alone: a table, and busy.json.

There are two processes, one in which mnist_ce was imported before torch, so that torch's threads
wait passively, and one in which torch came first, and they spin. A round is a job alone, beside one
process that keeps a core busy, and beside three; each slowdown is the median over the rounds.

python benchmarks/busy.py tests   times `make test` once alone and once beside one, into tests.json
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from speed import HERE, timed

from mnist_ce import ensemble
from mnist_ce.data import mnist_sample
from mnist_ce.ensemble import compare
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.networks import mlp
from mnist_ce.results import Table, make_record, write_json
from mnist_ce.training import fit

ROUNDS, NEIGHBORS = 7, (0, 1, 3)
LOSSES = [mnist_loss, softmax_loss, cross_entropy_loss]


def jobs() -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    train, valid = mnist_sample()
    quiet = dict(device="cpu", progress=False)
    ours = lambda: compare(LOSSES, train, valid, range(30), range(2), **quiet)

    def in_torchs_threads() -> None:
        with mock.patch.object(ensemble, "workers_for", lambda *_: 0):
            ours()

    return {
        "compare": ours,
        "compare, by torch's threads": in_torchs_threads,
        "fit": lambda: fit(cross_entropy_loss, train, valid, **quiet),
        "fit of an mlp": lambda: fit(
            F.cross_entropy, train, valid, epochs=3, lr=0.1, **quiet,
            model=mlp(2, torch.Generator().manual_seed(0)),
        ),
    }  # fmt: skip


@contextlib.contextmanager
def neighbors(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def serve() -> None:
    """Run the jobs whose names come on stdin, and print the seconds of each."""
    known = jobs()
    for line in sys.stdin:
        print(timed(known[line.strip()]), flush=True)


def main() -> None:
    """Run all, print the table, write the JSON."""
    results = {}
    for first in "mnist_ce", "torch":
        environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= dict(OMP_WAIT_POLICY="PASSIVE") if first == "mnist_ce" else {}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        with subprocess.Popen([sys.executable, __file__, "serve"], **pipes) as process:

            def seconds(name: str) -> float:
                print(name, file=process.stdin, flush=True)
                return json.loads(process.stdout.readline())

            for name in jobs():
                seconds(name)
                raw = {count: [] for count in NEIGHBORS}
                for _ in range(ROUNDS):
                    for count in NEIGHBORS:
                        with neighbors(count):
                            raw[count].append(seconds(name))
                slower = {
                    count: statistics.median(b / a for a, b in zip(raw[0], raw[count]))
                    for count in NEIGHBORS[1:]
                }
                alone = statistics.median(raw[0])
                results[f"{name}; {first}"] = dict(alone=alone, slower=slower, raw=raw)
            process.stdin.close()
    rows = [
        [*name.split("; "), f"{r['alone']:.3f}", *(f"{r['slower'][n]:.2f}" for n in NEIGHBORS[1:])]
        for name, r in results.items()
    ]
    headers = ["what", "imported first", "alone, s", "beside one, times", "beside three, times"]
    print(Table(rows, headers))
    settings = dict(rounds=ROUNDS, neighbors=NEIGHBORS)
    write_json(HERE / "busy.json", dict(record=make_record(settings), results=results))


def time_the_tests() -> None:
    """Run `make test` alone and beside one busy process, and write the JSON."""
    seconds = {}
    for count in NEIGHBORS[:2]:
        with neighbors(count):
            run = lambda: subprocess.run(["make", "test"], cwd=HERE.parent, check=True)
            seconds[count] = timed(run)
            print(f"make test beside {count} busy processes: {seconds[count]:.0f} s", flush=True)
    write_json(HERE / "tests.json", dict(record=make_record({}), results=dict(seconds=seconds)))


if __name__ == "__main__":
    {"": main, "serve": serve, "tests": time_the_tests}["".join(sys.argv[1:])]()
