"""Everything that must not cost or fake a result, many times over: torture.json.

python benchmarks/torture.py [SHARE] [NAME ...]: a share of the full counts, 1 unless given, of all
experiments or of those named; at full counts each is written as it is done, with its record. A try
is clear (the documented error, with the file's name where there is a file), silent (accepted
although it is another), wrong (another exception, or none), hang (over 2 s; over 25 s for functions
given to the doctor), lost (a result that was there is gone), or none of these, where nothing was
wrong with it and it was taken. `make torture` fails where anything but clear is counted.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torture_code
import torture_files
import torture_numbers
import torture_saves
from tally import KINDS

from mnist_ce.results import Table, make_record, read_json, write_json

COUNTS: dict[str, tuple[Any, int]] = {  # what is tortured: the experiment and its full count
    "checkpoints, bytes changed": (torture_saves.mutated_bytes, 20_000),
    "checkpoints, fields changed": (torture_saves.altered_fields, 10_000),
    "kill -9 while a run is saved": (torture_saves.killed_saves, 200),
    "a full disk while saving": (torture_saves.full_disks, 20),
    "signals to the commands": (torture_saves.signals, 160),
    "two commands in the same second": (torture_saves.same_second, 100),
    "PNG files, bytes changed": (torture_files.EXPERIMENTS["png"], 20_000),
    "PNG files with right checksums": (torture_files.EXPERIMENTS["png_lies"], 20_000),
    "names of PNG files": (torture_files.EXPERIMENTS["png_names"], 8_000),
    "folders of classes": (torture_files.EXPERIMENTS["class_folders"], 20_000),
    "IDX files": (torture_files.EXPERIMENTS["idx"], 20_000),
    "IDX files, packed": (torture_files.EXPERIMENTS["idx_gz"], 20_000),
    "the bundle": (torture_files.EXPERIMENTS["bundle"], 20_000),
    "csv files": (torture_files.EXPERIMENTS["csv"], 20_000),
    "FIFOs, devices, links, bombs": (torture_files.EXPERIMENTS["hostile"], 5),
    "hostile functions": (torture_code.functions, len(torture_code.BODIES)),
    "functions that end the process": (torture_code.ends, len(torture_code.ENDS)),
}
COUNTS |= {
    f"{name} against float64": (run, 10_000) for name, run in torture_numbers.EXPERIMENTS.items()
}


def main() -> None:
    """Run all, or those named, print the table; at full counts, write each row as it is done."""
    torch.set_num_threads(1)
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    path = Path(__file__).parent / "torture.json"
    kept = {row["what"]: row for row in read_json(path)["rows"]} if path.exists() else {}
    rows = []
    for name in sys.argv[2:] or COUNTS:
        experiment, full = COUNTS[name]
        began, count = time.perf_counter(), max(1, round(full * share))
        found = experiment(count)
        row = dict(what=name, **{kind: int(found[kind]) for kind in KINDS})
        rows.append(row)
        seconds = time.perf_counter() - began
        print(f"{name:40} {found}  {seconds:.0f} s", flush=True)
        if share == 1:
            kept[name] = row | dict(seconds=seconds, record=make_record({}))
            write_json(path, dict(rows=[kept[name] for name in COUNTS if name in kept]))
    print(Table([list(row.values()) for row in rows], ["what", *KINDS]))
    if any(row[kind] for row in rows for kind in ("silent", "wrong", "hang", "lost")):
        raise SystemExit("not all is clear")


if __name__ == "__main__":
    main()
