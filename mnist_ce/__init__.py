"""Why did my loss not train? `from mnist_ce import fit`, or `from mnist_ce.all import *`."""

import os
from typing import TYPE_CHECKING, Any

# Read when torch is first imported. Otherwise its threads spin while they wait for each other, and
# beside another busy program all of them wait several times as long (benchmarks/busy.json).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"

if TYPE_CHECKING:
    from mnist_ce.all import *  # noqa: F403


def __getattr__(name: str) -> Any:
    # Only when a name is asked for: importing a single module stays as light as that module.
    if not name.startswith("_"):
        from importlib import import_module

        everything = import_module("mnist_ce.all")
        if name in everything.__all__:
            return getattr(everything, name)
    raise AttributeError(f"module 'mnist_ce' has no attribute {name!r}")
