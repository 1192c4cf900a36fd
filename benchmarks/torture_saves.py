"""What is kept, under torture: damaged files, kills, full disks, signals, two at the same second.

Each function makes `n` tries and counts them: tried, clear (refused as documented, with the file's
name), silent (accepted although it is another), wrong (another exception or none), hang (over 2 s),
lost (a result that was there, or finished, and is gone).
"""
import copy
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import torch
from tally import counts

from mnist_ce.data import Digits
from mnist_ce.ensemble import fit_many
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import recipe
from mnist_ce.results import read_checkpoint, write_checkpoint, write_file
from mnist_ce.training import fit, load_runs

def few(images=60, classes=(7, 3)):
    """Made-up images: training and validation."""
    generator, y = torch.Generator().manual_seed(0), (torch.arange(images) % len(classes)).view(-1, 1)
    draw = lambda: torch.rand(images, 784, generator=generator)
    return tuple(Digits(x=draw(), y=y, classes=classes, index=torch.arange(images)) for _ in range(2))


def samples(folder):
    """A saved run of linear models and one of a network: their paths."""
    quick = dict(epochs=2, device="cpu", progress=False)
    fit_many(cross_entropy_loss, *few(), range(3), **quick).save(folder / "linear.safetensors")
    fit(cross_entropy_loss, *few(), **quick, **recipe("mlp", 2)).save(folder / "mlp.safetensors")
    return [folder / "linear.safetensors", folder / "mlp.safetensors"]


def judge(found, path, good):
    """Count one reading of a file that is not the good one."""
    found["tried"] += 1
    start = time.perf_counter()
    try:
        load_runs(path)
        found["silent"] += path.read_bytes() != good
        return True
    except ValueError as error:
        found["clear" if str(path) in str(error) else "wrong"] += 1
    except Exception:
        found["wrong"] += 1
    found["hang"] += time.perf_counter() - start > 2


def mutated_bytes(n, seed=0):
    """Flip, drop, add, repeat or move bytes of a saved run, and read it."""
    draw, found = random.Random(seed), counts()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        goods = [path.read_bytes() for path in samples(folder)]
        path = folder / "mutated.safetensors"
        for _ in range(n):
            good = draw.choice(goods)
            size = int.from_bytes(good[:8], "little") + 8
            raw, end = bytearray(good), draw.choice([9, size, len(good)])  # length, header or all
            at = draw.randrange(end)
            other = draw.randrange(len(raw))
            low, high = sorted((at, other))
            kind = draw.randrange(7)
            if kind == 0:
                raw[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                raw[at] = draw.randrange(256)
            elif kind == 2:
                del raw[at:]
            elif kind == 3:
                del raw[at : at + draw.randrange(1, 9)]
            elif kind == 4:
                raw[at:at] = draw.randbytes(draw.randrange(1, 9))
            elif kind == 5:
                raw[low:high] = raw[low:high][::-1]
            else:
                raw[at : at + 4] = raw[other : other + 4]
            if raw != good:
                path.write_bytes(raw)
                judge(found, path, good)
    return found


def _places(value, place=()):
    """The place of each thing in lists, tuples and dicts, as keys from the outside in."""
    yield place
    if isinstance(value, (dict, list, tuple)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*place, key))


def _altered_tensor(tensor, draw):
    ways = [
        tensor.double() if tensor.dtype != torch.double else tensor.half(),
        torch.cat([tensor.view(-1), tensor.view(-1)[:1]]),
        tensor.unsqueeze(0),
        torch.empty(0, dtype=tensor.dtype),
        "tensor",
        None,
    ]
    if tensor.ndim and len(tensor) != 1:
        ways.append(tensor[1:])
    if tensor.ndim > 1 and tensor.shape[0] != tensor.shape[-1]:
        ways.append(tensor.transpose(0, -1).contiguous())
    if tensor.numel():
        lower = tensor.clone().view(-1)
        lower[draw.randrange(len(lower))] = -5
        ways.append(lower.view(tensor.shape))
    if tensor.is_floating_point() and tensor.numel():
        worse = tensor.clone().view(-1)
        worse[draw.randrange(len(worse))] = draw.choice([float("nan"), float("inf")])
        ways.append(worse.view(tensor.shape))
    return draw.choice(ways)


def _altered(value, draw):
    if isinstance(value, torch.Tensor):
        return _altered_tensor(value, draw)
    if isinstance(value, dict):
        worse = dict(value)
        worse.pop(draw.choice([*worse]), None) if worse else worse.update(more=1)
        return draw.choice([worse, None, [], "dict"])
    if isinstance(value, (list, tuple)):
        worse = list(value)
        return draw.choice([worse[1:], [*worse, *worse[:1]], None, {}, "list", [[]] * 3])
    if isinstance(value, str):
        return draw.choice(["", value + "x", None, 7, [value], "logits" * (value != "logits")])
    if value is None:
        return draw.choice(["x", 10**12, -1.5, [None]])
    return draw.choice([-1, 10**12, 0.5, float("nan"), None, "1", [value], True])


# Only the record tells of these, or nothing could tell: what they say is theirs alone.
FREE = {"record"}


def altered_fields(n, seed=0):
    """Alter one field of a saved run, with a checksum that fits, and read it.

    Values that nothing else in the file could contradict (a seed, another finite weight) are not
    made; types, shapes, counts, names, NaN and sizes are.
    """
    draw, found = random.Random(seed), counts()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        goods = [(path.read_bytes(), read_checkpoint(path)) for path in samples(folder)]
        path = folder / "altered.safetensors"
        while found["tried"] < n:
            raw, good = draw.choice(goods)
            place = draw.choice([p for p in _places(good) if p and p[0] not in FREE])
            content = copy.deepcopy(good)
            inner = content
            lists = []
            for key in place[:-1]:
                if isinstance(inner[key], tuple):
                    inner[key] = list(inner[key])
                    lists.append(inner[key])
                inner = inner[key]
            before = inner[place[-1]]
            inner[place[-1]] = _altered(before, draw)
            if _harmless(place, before, inner[place[-1]]):
                continue
            write_checkpoint(path, content)
            if judge(found, path, raw) and os.environ.get("SHOW"):
                print(place, before, inner[place[-1]])
    return found


def _harmless(place, before, after):
    """Whether a file with the altered field is a good one too: it says something else, soundly."""
    if type(before) is type(after) and not isinstance(before, torch.Tensor) and before == after:
        return True
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        if place[-1] in ("nonfinite", "seconds", "lr", "accuracy") and (after < before.min()).any():
            return False  # none of these may be -5
        own = place[0] == "scores" and place[1] not in ("accuracy", "train_loss")
        if own and after.dtype == before.dtype and after.shape == before.shape:
            return True  # a loss may well be infinite on validation images alone
        if after.dtype == before.dtype and after.shape == before.shape and after.isnan().equal(before.isnan()):
            return after.isinf().equal(before.isinf())
    if place[0] == "scores" and len(place) == 1:
        return isinstance(after, dict)  # a score fewer
    if place[0] == "coords" and len(place) == 1:
        return isinstance(after, dict) and {"loss", "seed", "lr"} <= after.keys()
    if place[0] == "coords" and place[1] in ("seed", "data_seed") and len(place) > 2:
        return type(after) is int and after >= 0
    if place[0] == "coords" and place[1] == "init_std" and len(place) > 2:
        return after is None or isinstance(after, float) and 0 <= after < float("inf")
    if place[0] == "coords" and place[1] == "lr" and len(place) > 2:
        return isinstance(before, float) and after == 0.5
    if place[0] == "classes" and len(place) == 2:
        return type(after) is int or isinstance(after, str)
    return False


def killed_saves(n, seed=0):
    """SIGKILL a process that saves over a good file, again and again; a reader sees old or new."""
    draw, found = random.Random(seed), counts()
    code = """
        import sys
        from mnist_ce.training import load_runs
        runs = load_runs(sys.argv[1])
        print("ready", flush=True)
        while True:
            runs.save(sys.argv[1])
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        runs = fit_many(cross_entropy_loss, *few(), range(100), epochs=1, device="cpu", progress=False)
        runs.save(path)
        good = path.read_bytes()
        command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        for _ in range(n):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                time.sleep(draw.uniform(0, 0.1))
                process.kill()
            found["tried"] += 1
            try:
                load_runs(path)
                found["clear"] += path.read_bytes() == good
                found["silent"] += path.read_bytes() != good
            except Exception:
                found["lost"] += 1
                path.write_bytes(good)
    return found


def full_disks(n, seed=0):
    """Write over an old file where the disk is full after so many bytes: an error, the old file."""
    draw, found = random.Random(seed), counts()
    old, before = b"old", resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        runs = fit_many(cross_entropy_loss, *few(), range(3), epochs=1, device="cpu", progress=False)
        path = Path(folder) / "result"
        try:
            for k in range(n):
                path.write_bytes(old)
                resource.setrlimit(resource.RLIMIT_FSIZE, (draw.randrange(0, 9000), before[1]))
                found["tried"] += 1
                try:
                    runs.save(path) if k % 2 else write_file(path, bytes(10_000))
                    found["silent"] += 1
                except OSError as error:
                    found["clear" if str(path) in str(error) else "wrong"] += 1
                except Exception:
                    found["wrong"] += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)
                found["lost"] += path.read_bytes() != old or os.listdir(folder) != ["result"]
        finally:
            signal.signal(signal.SIGXFSZ, handler)
    return found


COMMANDS = {
    "compare": "compare --seeds 100 --orders 100 --epochs 3 --published 100",
    "sweep": "sweep --loss mnist_loss --seeds 100 --lrs 0.1:1:40 --epochs 10",
    "autopsy": "autopsy --seeds 200 --factorial-seeds 10",
    "train": "train --model mlp --epochs 3000",
}
TABLES = dict(compare="it prints", sweep="mean ± sd", autopsy="published", train="valid_loss")


def start(words, folder, **more):
    """A command as a process; its results go into `folder`."""
    place = f"{folder}/model.safetensors" if words[0] == "train" else f"{folder}/"
    where = ["--output", str(place)] * ("--resume" not in words)
    heed = lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    command = [sys.executable, "-m", "mnist_ce", *words, *where]
    return subprocess.Popen(command, **dict(pipes, preexec_fn=heed) | more)


def strict(path):
    def refuse(word):
        raise ValueError(f"{path} holds {word}")

    return json.loads(path.read_text(), parse_constant=refuse)


def interrupt(words, number, delay, second, folder):
    """Interrupt a command once something is finished: what is wrong with what it leaves, and when."""
    with start(words, folder) as process:
        while not any(folder.rglob("*.safetensors")):
            time.sleep(0.01)
            assert process.poll() is None, process.communicate()
        time.sleep(delay)
        kept, sent = sum(1 for _ in folder.rglob("*.safetensors")), time.time()
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(second)
        out, err = process.communicate(timeout=60)
    faults = [] if process.returncode == 128 + number else [f"exit code {process.returncode}: {err}"]
    faults += ["no table"] * (TABLES[words[0]] not in out and "interval" not in out)
    results = [path for path in folder.iterdir() if path.is_file()]
    kinds = {path.suffix for path in results}
    if words[0] == "train":
        faults += [] if len(load_runs(results[0]).seconds) else ["no epochs"]
    else:
        wanted = {".json", ".html" if words[0] == "autopsy" else ".png"}
        faults += [] if kinds == wanted and len(results) == 2 else [f"files {results}"]
        (raw,) = [strict(path) for path in results if path.suffix == ".json"]
        faults += [] if sum(1 for _ in folder.rglob("*.safetensors")) >= kept else ["crowds are gone"]
        parts = [raw, raw.get("factorial", {}), *raw.get("published", {}).values()]
        parts += raw.get("reproductions", {}).values()
        told = sum(len(part.get("seed", [])) for part in parts)
        crowd = {"autopsy": 40}.get(words[0], 100)  # of the factorial: 4 settings of 10 seeds
        faults += [] if told >= crowd * kept else [f"{told} models of {kept} crowds"]
    return faults, max(path.stat().st_mtime for path in results) - sent


def signals(n, seed=0, commands=tuple(COMMANDS)):
    """A signal to each command in turn, and another at once: a readable result within 2 s."""
    draw, found = random.Random(seed), counts()
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    for k in range(n):
        words = COMMANDS[commands[k % len(commands)]].split()
        with tempfile.TemporaryDirectory() as folder:
            try:
                given = draw.choice(numbers), draw.uniform(0, 3), draw.choice(numbers)
                faults, seconds = interrupt(words, *given, Path(folder))
            except (OSError, ValueError, AssertionError, subprocess.TimeoutExpired) as error:
                faults, seconds = [repr(error)], 0
        found["tried"] += 1
        found["hang"] += seconds > 2
        found["clear" if not faults else "lost" if "models" in str(faults) else "wrong"] += 1
        if faults:
            print(words[0], given, faults, file=sys.stderr)
    return found


def same_second(n):
    """Two commands at the same moment into the same folder: two results."""
    found = counts()
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            words = "sweep --loss mnist_loss --lrs 0.1:1:2 --epochs 1 --seeds".split()
            both = [start([*words, str(seeds)], folder) for seeds in (1, 2)]
            ends = [process.communicate() and process.returncode for process in both]
            models = sorted(len(strict(path)["seed"]) for path in Path(folder).glob("*.json"))
            pictures = len([*Path(folder).glob("*.png")])
        found["tried"] += 1
        found["clear" if ends == [0, 0] and models == [2, 4] and pictures == 2 else "lost"] += 1
    return found
