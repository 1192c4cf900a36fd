"""What the doctor and its rivals find in planted faults, and invent in sound programs: doctor.json.

python benchmarks/doctor.py [PYTHON], where PYTHON has the rivals: `make bench-peers` makes such an
environment. Each program is made anew for each tool. Found: any alarm. Named: the right cause comes
first. False: sound programs with an alarm. Both sides run on one thread, one after the other.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from programs import FAULTY, HEALTHY, scripts

from mnist_ce.doctor import Report, examine, examine_script
from mnist_ce.results import Table, make_record, write_json

HERE = Path(__file__).parent


class Row(NamedTuple):
    """A tool in one setting: counts of programs, and its median seconds for one."""

    tool: str
    found: int
    named: int
    false: int
    seconds: float


def ours() -> dict[str, dict[str, Any]]:
    """The report of each program and each script: what failed, what was warned of, seconds."""
    found = {}
    programs = FAULTY | {name: ("none", build) for name, build in HEALTHY.items()}
    for name, (cause, build) in programs.items():
        given = build()
        found[name] = entry(cause, lambda: examine(**given))
    here, folder = os.getcwd(), tempfile.mkdtemp()
    os.chdir(folder)  # one of them writes a file
    try:
        for path, cause in scripts().items():
            found[path.name] = entry(cause, lambda: examine_script(path, seconds=30))
    finally:
        os.chdir(here)
        shutil.rmtree(folder)
    return found


def entry(cause: str, run: Any) -> dict[str, Any]:
    """One program's cause, what was said of it, and the seconds that took."""
    start = time.perf_counter()
    report: Report = run()
    seconds = time.perf_counter() - start
    failed, warned = ([c.cause for c in part] for part in (report.failed, report.warned))
    return dict(cause=cause, failed=failed, warned=warned, seconds=seconds)


def rows(mine: dict[str, Any], rivals: dict[str, Any]) -> list[Row]:
    """All tools: ours first, the others by how many causes they name."""
    cause_of = {name: told["cause"] for name, told in mine.items()}

    def row(tool: str, causes: dict[str, list[list[str]]], seconds: list[float]) -> Row:
        faulty = [name for name in causes if cause_of[name] != "none"]
        alarmed = [name for name in faulty if causes[name]]
        named = [name for name in alarmed if cause_of[name] in causes[name][0]]
        false = [name for name in causes if cause_of[name] == "none" and causes[name]]
        return Row(tool, len(alarmed), len(named), len(false), statistics.median(seconds))

    seconds = [told["seconds"] for told in mine.values()]
    fails = {name: [[c] for c in told["failed"]] for name, told in mine.items()}
    both = {name: [[c] for c in told["failed"] + told["warned"]] for name, told in mine.items()}
    first = [row("examine: FAIL", fails, seconds), row("examine: FAIL + WARN", both, seconds)]
    others = []
    for tool, told in rivals.items():
        results = told["results"]
        causes = {name: results[name]["causes"] for name in results if name in cause_of}
        times = [result["seconds"] for result in results.values() if not result.get("lacks")]
        others.append(row(tool, causes, times or [0.0]))
    return first + sorted(others, key=lambda one: -one.named)


def main() -> None:
    """Run all, print the table, write the JSON."""
    torch.set_num_threads(1)
    mine, rivals = ours(), {}
    if len(sys.argv) > 1:
        env = dict(os.environ, PYTHONPATH=str(HERE.parent), OMP_NUM_THREADS="1")
        command = [sys.argv[1], str(HERE / "rivals.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
        rivals = json.loads(done.stdout)
    table = rows(mine, rivals)
    faulty = sum(told["cause"] != "none" for told in mine.values())
    counts = dict(faulty=faulty, sound=len(mine) - faulty)
    print(f"{faulty} faulty programs and {counts['sound']} sound ones")
    print(Table(table))
    for name, told in mine.items():
        said = told["failed"] + told["warned"]
        if said[:1] != [told["cause"]] and (said or told["cause"] != "none"):
            print(f"{name}: {told['cause']}, said {said}")
    write_json(HERE / "doctor.json", dict(
        counts, tools=[one._asdict() for one in table], programs=mine,
        rivals={tool: dict(told, results=None) for tool, told in rivals.items()},
        record=make_record({}),
    ))  # fmt: skip


if __name__ == "__main__":
    main()
