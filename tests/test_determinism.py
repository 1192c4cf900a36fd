"""The same seed gives the same bits: in another process, on another day; and no two seeds are one.

`python tests/test_determinism.py` prints what this machine gives; tests/golden.json keeps what one
version of torch gave on one processor. The bits are compared where both are the same. Elsewhere a
product may be summed in another order, and the numbers are compared up to rounding: they would be
others altogether if torch drew others from the same seed. Then results of before cannot be made
again, and golden.json is to be made anew, with a word in CHANGELOG.md.
"""
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import mnist_ce  # before torch: its threads then wait without keeping a core busy
import numpy as np
import pytest
import torch

from mnist_ce.data import batches, mnist_sample, seeded
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.model import Linears, init_params
from mnist_ce.results import assert_close

GOLDEN = Path(__file__).parent / "golden.json"


def processor():
    """Which processor this is: its vendor and model numbers, where Linux tells them."""
    try:
        told = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    names = "vendor_id", "cpu family", "model", "stepping"
    found = dict(re.findall(r"^(.+?)\s*: (.*)$", told, re.M))
    return ", ".join(found.get(name, "?") for name in names)


def digest(tensor):
    return hashlib.sha256(np.ascontiguousarray(tensor.numpy()).tobytes()).hexdigest()


def kept(tensor):
    """What golden.json keeps of a tensor: its bits, and 20 of its numbers."""
    flat = tensor.reshape(-1)
    return dict(sha256=digest(tensor), numbers=flat[:: max(1, len(flat) // 20)][:20].tolist())


def made():
    """What seeds draw here, and what is trained from them, at one thread."""
    torch.set_num_threads(1)
    train = mnist_sample()[0]
    of_versions = dict(torch=torch.__version__, capability=torch.backends.cpu.get_cpu_capability())
    found = dict(**of_versions, processor=processor(), orders={}, weights={}, trained={})
    for seed in 0, 1, 2**32 - 1:
        order = torch.cat([yb for _, yb in batches(train, 256, seeded(seed))])
        rows = torch.randperm(1000, generator=seeded(seed))
        found["orders"][seed] = kept(torch.cat([rows, order.view(-1)]))
        found["weights"][seed] = kept(init_params((784, 2), generator=seeded(seed)).detach())
    for loss, columns in (mnist_loss, 1), (softmax_loss, 2), (cross_entropy_loss, 2):
        models = Linears.drawn(loss, 784, columns, range(3), [0.1] * 3, [0.1] * 3)
        for xb, yb in batches(train, 256, seeded(0)):
            losses = models.step(xb, yb)
        whole = torch.cat([models.weights[..., 300:400].flatten(), models.bias.view(-1), losses])
        found["trained"][loss.__name__] = kept(whole)
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    print(json.dumps(made(), indent=1))


@pytest.fixture(scope="module")
def processes():
    """What two processes give, one after the other, started with one thread and with three."""
    given = [dict(os.environ, OMP_NUM_THREADS=n, PYTHONHASHSEED=n) for n in ("1", "3")]
    run = lambda env: subprocess.run(
        [sys.executable, __file__], env=env, capture_output=True, text=True, check=True
    )
    return [json.loads(run(env).stdout) for env in given]


def test_the_same_bits_in_every_process(processes):
    assert processes[0] == processes[1]


def test_the_same_numbers_as_on_another_day(processes):
    golden, found = json.loads(GOLDEN.read_text()), processes[0]
    for seed, order in golden["orders"].items():
        assert found["orders"][seed] == order, "whole numbers are not rounded"
    same = all(golden[name] == found[name] for name in ("torch", "capability"))
    for kind, alike in ("weights", same), ("trained", same and golden["processor"] == found["processor"]):
        for name, expected in golden[kind].items():
            ours = found[kind][name]
            assert_close(torch.tensor(ours["numbers"]), torch.tensor(expected["numbers"]), terms=784)
            if alike:
                assert ours == expected, f"{kind} of {name}"


def test_seeds_that_torch_takes_for_others_are_refused():
    draw = lambda seed: torch.randn(9, generator=torch.Generator().manual_seed(seed)).tolist()
    for seed, other in (2**32, 0), (-1, 2**32 - 1), (2**63, 0), (-(2**32), 0), (2**40 + 5, 5):
        assert draw(seed) == draw(other), "why it is refused"
        with pytest.raises(ValueError, match=f"seed={seed} must be an int from 0 to 2.*32 - 1"):
            Linears.drawn(cross_entropy_loss, 4, 2, [seed], [1.0], [1.0])
    for seed in 0.0, "0", None, True, np.True_, np.float32(1), torch.tensor(0.5), 2**64:
        with pytest.raises(ValueError, match="order=.* must be an int from 0 to 2.*32 - 1"):
            seeded(seed, "order")
    for seed in 5, np.int8(5), np.uint64(5), torch.tensor(5):
        assert seeded(seed).initial_seed() == 5
    drawn = {tuple(torch.randn(4, generator=seeded(2**k)).tolist()) for k in range(32)}
    assert len(drawn) == 32
