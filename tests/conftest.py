"""What the tests share: the real data, a device to train on, the losses."""
import importlib
import re
import sys
from pathlib import Path

import mnist_ce  # before torch: its threads then wait without keeping a core busy
import pytest
import torch

from mnist_ce.data import mnist_sample
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss

LOSSES = [mnist_loss, softmax_loss, cross_entropy_loss]
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def named(value):
    """A value as the name of a test, without its address: workers must agree on it."""
    return re.sub(r" at 0x\w+", "", str(value))[:80]


def seeded(make):
    """What `make` makes after torch's seed 0; the global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def benchmark(name):
    """The module `name` of the benchmarks, whose folder is on the path only for its own imports."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def sample():
    """The 3s and 7s, training and test images."""
    return mnist_sample()


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.__name__)
def loss(request):
    """Each loss that trains on logits."""
    return request.param


@pytest.fixture(params=DEVICES)
def device(request):
    """The CPU, and CUDA where there is one."""
    return request.param
