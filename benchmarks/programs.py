"""Planted training faults, and sound programs that look odd: what does a doctor find, and invent?

`FAULTY[name]` is (cause, build), `HEALTHY[name]` is build. `build()` makes fresh objects, the
keyword arguments of `examine(loss, metric, *, model, train, valid, optimizer, step, validate)`
that a user would have. A fault is one change to a sound program. Where a thread is named, the fault
is from there: `a/b#n` is a GitHub issue, `SO n` stackoverflow.com/questions/n, `F n`
discuss.pytorch.org/t/n. "hides=True" marks a fault that the accuracy does not show.
Written without a look at the doctor, which must not be tuned on it silently.
`python benchmarks/programs.py [NAME ...]` trains them.
"""

import sys
import time
import warnings
from pathlib import Path

import programs_loop  # these five fill FAULTY and HEALTHY
import programs_loss
import programs_model
import programs_places
import programs_sound
import torch
from programs_base import FAULTY, HEALTHY, Program, batches

__all__ = ["FAULTY", "HEALTHY", "scripts", "train_briefly"]


def scripts() -> dict[Path, str]:
    """Whole training scripts, and the cause that their first line names."""
    found = sorted(Path(__file__).parent.glob("scripts/*.py"))
    first = {path: path.read_text(encoding="utf-8").splitlines()[0] for path in found}
    return {path: line.removeprefix("# cause: ") for path, line in first.items()}


def train_briefly(p: Program, epochs: int = 3) -> float:
    """What `validate` says after `epochs` from a fixed seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        for _ in range(epochs):
            for xb, yb in batches(p["train"]):
                p["step"](xb, yb)
        return float(p["validate"]())


def main(names: list[str]) -> None:
    """Train all that can be trained, or those named; print the accuracy."""
    everything = FAULTY | {name: ("none", build) for name, build in HEALTHY.items()}
    for name in names or everything:
        cause, build = everything[name]
        start = time.perf_counter()
        p = build()
        built = time.perf_counter() - start
        said = "cannot be trained"
        if "step" in p and "validate" in p:
            try:
                said = f"{train_briefly(p):.3f}"
            except (RuntimeError, IndexError) as error:
                said = f"raises {str(error).splitlines()[0]}"
        seconds = time.perf_counter() - start
        print(f"{cause:20} {name:36} {said:20} built in {built:.2f} s, {seconds:.1f} s in all")


if __name__ == "__main__":
    main(sys.argv[1:])
