"""Functions as bad as Python allows, given to the doctor, `as_loss` and the command line.

Each is a source of a loss (scores, targets), or of a metric. `hostile()` runs examine and as_loss on
each in a process of its own: what does not end in a report, or in a documented error, is counted.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tally import counts

ROOT = Path(__file__).parent.parent
GOOD = "F.cross_entropy(p, y)"
BODIES = {
    # what it raises
    "raises ValueError": "raise ValueError('no')",
    "raises with a long text": "raise RuntimeError('x' * 100_000)",
    "raises an error whose text raises": "raise type('E', (Exception,), {'__str__': boom})()",
    "raises SystemExit": "raise SystemExit(0)",
    "calls sys.exit": "sys.exit(0)",
    "calls exit with a text": "sys.exit('bye')",
    "raises GeneratorExit": "raise GeneratorExit",
    "raises a BaseException": "raise type('Own', (BaseException,), {})('own')",
    "raises StopIteration": "raise StopIteration",
    "raises MemoryError": "raise MemoryError",
    "asks for much memory": "torch.empty(10**13); return " + GOOD,
    "recurses": "return loss(p, y)",
    "asserts": "assert False",
    "raises a warning": "raise UserWarning('w')",
    "raises NotImplementedError": "raise NotImplementedError",
    "raises asyncio's CancelledError": "import asyncio; raise asyncio.CancelledError",
    "raises at the second call": "calls.append(1)\n    if len(calls) > 1: raise OSError('late')\n"
    "    return " + GOOD,
    "exits at the fifth call": "calls.append(1)\n    if len(calls) > 4: sys.exit(0)\n    return " + GOOD,
    # what it returns
    "returns None": "return None",
    "returns self": "return loss",
    "returns a string": "return 'low'",
    "returns a tuple": "return " + GOOD + ", p",
    "returns an empty tuple": "return ()",
    "returns a dict": "return dict(loss=" + GOOD + ")",
    "returns a list": "return [" + GOOD + "]",
    "returns a generator": "yield " + GOOD,
    "returns a coroutine": "import asyncio\n    async def f(): return 1\n    return f()",
    "returns a module": "return torch",
    "returns a class": "return int",
    "returns an int": "return 1",
    "returns a huge int": "return 10**400",
    "returns a complex": "return 1j",
    "returns a complex tensor": "return " + GOOD + " * 1j",
    "returns a bool": "return torch.tensor(True)",
    "returns an int tensor": "return torch.tensor(3)",
    "returns NaN": "return p.sum() * float('nan')",
    "returns infinity": "return p.sum() + float('inf')",
    "returns an empty tensor": "return torch.empty(0)",
    "returns a big tensor": "return p.repeat(1000, 1000)",
    "returns a matrix": "return p",
    "returns a 5d tensor": "return p.view(1, 1, 1, *p.shape)",
    "returns the scores": "return p.sum()",
    "returns the targets": "return y.float().mean()",
    "returns a sparse tensor": "return p.to_sparse()",
    "returns a meta tensor": "return torch.empty((), device='meta')",
    "returns a float64": "return " + GOOD.replace("p,", "p.double(),"),
    "returns a half": "return (" + GOOD + ").half()",
    "returns a parameter": "return torch.nn.Parameter(torch.tensor(1.0))",
    "returns a constant": "return torch.tensor(1.0, requires_grad=True)",
    "returns numpy": "return (" + GOOD + ").detach().numpy()",
    "returns a random number": "return torch.rand((), requires_grad=True)",
    "returns what differs each time": "calls.append(1); return " + GOOD + " * len(calls)",
    "returns an object without truth": "return type('O', (), {'__bool__': boom, '__float__': boom})()",
    "returns an object of every attribute": "return type('O', (), {'__getattr__': boom})()",
    "returns what cannot be shown": "return type('O', (), {'__repr__': boom, '__str__': boom})()",
    "returns a tensor of strange kind": "return (" + GOOD + ").as_subclass(Odd)",
    # what it does beside
    "prints": "print('x' * 1000); return " + GOOD,
    "prints to stderr": "print('x' * 1000, file=sys.stderr); return " + GOOD,
    "warns": "warnings.warn('w'); return " + GOOD,
    "turns warnings into errors": "warnings.simplefilter('error'); warnings.warn('w'); return " + GOOD,
    "replaces stdout": "sys.stdout = None; return " + GOOD,
    "closes stdout": "sys.stdout.close(); return " + GOOD,
    "sleeps": "time.sleep(0.4); return " + GOOD,
    "sleeps long": "time.sleep(3); return " + GOOD,
    "changes its scores": "p.mul_(0); return p.sum()",
    "resizes its scores": "p.data.resize_(0); return p.sum()",
    "changes its targets": "y.zero_(); return " + GOOD,
    "detaches in place": "p.detach_(); return " + GOOD,
    "frees its scores": "p.data = torch.empty(0); return p.sum()",
    "keeps its scores": "calls.append(p); return sum(q.sum() for q in calls)",
    "sends backward itself": "l = " + GOOD + "; l.backward(); return l",
    "sends backward and returns a number": "l = " + GOOD + "; l.backward(); return l.item()",
    "frees the graph": "l = " + GOOD + "; l.backward(); return l.detach()",
    "adds a hook that raises": "p.requires_grad and p.register_hook(boom); return " + GOOD,
    "adds a hook of NaN": "l = p * 1\n    l.requires_grad and l.register_hook(lambda g: g * float('nan'))\n"
    "    return F.cross_entropy(l, y)",
    "raises on the way back": "return Bad.apply(p).sum()",
    "gives a wrong gradient's shape": "return Wide.apply(p).sum()",
    "turns gradients off": "torch.set_grad_enabled(False); return " + GOOD,
    "enters no_grad for good": "torch.no_grad().__enter__(); return " + GOOD,
    "enters inference_mode for good": "torch.inference_mode().__enter__(); return " + GOOD,
    "enters autocast for good": "torch.autocast('cpu').__enter__(); return " + GOOD,
    "changes the default dtype": "torch.set_default_dtype(torch.float64); return " + GOOD,
    "changes the default device": "torch.set_default_device('meta'); return " + GOOD,
    "asks for determinism": "torch.use_deterministic_algorithms(True); return " + GOOD,
    "detects anomalies": "torch.autograd.set_detect_anomaly(True); return " + GOOD,
    "changes the threads": "torch.set_num_threads(1); return " + GOOD,
    "seeds": "torch.manual_seed(0); random.seed(0); np.random.seed(0); return " + GOOD,
    "draws": "torch.rand(9); random.random(); np.random.rand(); return " + GOOD,
    "changes the folder": "os.chdir('/'); return " + GOOD,
    "deletes its folder": "import shutil; shutil.rmtree(os.getcwd(), True); return " + GOOD,
    "changes the environment": "os.environ.clear(); return " + GOOD,
    "lowers the recursion limit": "sys.setrecursionlimit(300); return " + GOOD,
    "takes signals": "signal.signal(signal.SIGINT, signal.SIG_IGN); return " + GOOD,
    "sets an alarm": "signal.setitimer(signal.ITIMER_REAL, 100); return " + GOOD,
    "starts a thread": "threading.Thread(target=time.sleep, args=(0.1,)).start(); return " + GOOD,
    "raises in a thread": "t = threading.Thread(target=boom); t.start(); t.join(); return " + GOOD,
    "turns the collector off": "import gc; gc.disable(); return " + GOOD,
    "reads the input": "input(); return " + GOOD,
    "traces": "sys.settrace(lambda *a: None); return " + GOOD,
    "removes itself": "globals().pop('loss', None); return " + GOOD,
    "wants three arguments": None,
    "wants none": None,
    "wants a keyword": None,
}
WHOLE = {
    "wants three arguments": "def loss(p, y, z): return F.cross_entropy(p, y)",
    "wants none": "def loss(): return 1",
    "wants a keyword": "def loss(p, y, *, weight): return F.cross_entropy(p, y)",
}
ENDS = {  # the end of the process: only the command line can live on
    "calls os._exit(0)": "os._exit(0)",
    "calls os._exit(7)": "os._exit(7)",
    "aborts": "os.abort()",
    "kills itself": "os.kill(os.getpid(), 9)",
    "terminates itself": "os.kill(os.getpid(), 15)",
    "reads address 0": "import ctypes; ctypes.string_at(0)",
    "sleeps for ever": "time.sleep(10_000)",
    "loops for ever": "while True: pass",
}
HEAD = """\
import os, random, signal, sys, threading, time, warnings
import numpy as np, torch, torch.nn.functional as F
calls = []
def boom(*a, **k): raise ZeroDivisionError("boom")
class Odd(torch.Tensor): pass
class Bad(torch.autograd.Function):
    forward = staticmethod(lambda ctx, p: p * 1)
    backward = staticmethod(boom)
class Wide(torch.autograd.Function):
    forward = staticmethod(lambda ctx, p: p * 1)
    backward = staticmethod(lambda ctx, g: torch.ones(7, 7))
"""
CHILD = """
import json, sys, time
import torch
import hostile
from mnist_ce.doctor import examine
from mnist_ce.scores import as_loss
out, loss, said = sys.argv[1], hostile.loss, {}
def read(report): return report.causes + ["skips"] * len(report.skipped)
was = torch.get_default_dtype(), torch.get_default_device(), torch.get_rng_state().sum()
for name, run in dict(
    examine=lambda: read(examine(loss)), metric=lambda: read(examine(None, loss)),
    as_loss=lambda: [as_loss(loss, 2).name],
).items():
    start = time.perf_counter()
    try:
        said[name] = run()
    except (ValueError, TypeError) as error:
        said[name] = f"{type(error).__name__}: {error}"[:300]
    said[name + " s"] = time.perf_counter() - start
now = torch.get_default_dtype(), torch.get_default_device(), torch.get_rng_state().sum()
said["put back"] = was == now and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
open(out, "w").write(json.dumps(said))
"""


def source(name: str) -> str:
    """The module that holds the function, as `loss`."""
    if name in WHOLE:
        return HEAD + WHOLE[name] + "\n"
    return HEAD + f"def loss(p, y):\n    {(BODIES | ENDS)[name]}\n"


def told(name: str, seconds: float = 60) -> dict[str, Any] | str:
    """What examine and as_loss make of one function; how the process ended, where it did."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hostile.py").write_text(source(name))
        answer = Path(folder).with_suffix(".json")
        code = f"import sys; sys.path.insert(0, {folder!r})\n{CHILD}"
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, str(answer)], cwd=folder, timeout=seconds,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                env=dict(os.environ, PYTHONPATH=str(ROOT)),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"hangs: {seconds} s"
        try:
            return json.loads(answer.read_text())
        except OSError:
            return f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        finally:
            answer.unlink(missing_ok=True)


def judged(name: str) -> tuple[str, str]:
    """The kind of answer to one function, and what it was."""
    found = told(name)
    if isinstance(found, str):
        return "hang" if found.startswith("hangs") else "wrong", found
    slow = [key for key in found if key.endswith(" s") and found[key] > 25]
    if slow:
        return "hang", str(found)
    return "clear" if found["put back"] else "wrong", str(found)


def functions(count: int = len(BODIES), seed: int = 0, said: list[str] | None = None) -> dict[str, int]:
    """examine and as_loss of `count` of the functions: a report or a documented error for each.

    Hang: over 25 s, what examine may take. Wrong: another exception, the end of the process, a
    setting or a random state that is not as it was.
    """
    result = counts()
    for name in random.Random(seed).sample(list(BODIES), min(count, len(BODIES))):
        kind, found = judged(name)
        result["tried"] += 1
        result[kind] += 1
        if said is not None and kind != "clear":
            said.append(f"{name}: {found}")
    return result


def ends(count: int = len(ENDS), seed: int = 0, said: list[str] | None = None) -> dict[str, int]:
    """`mnist-ce doctor` with a loss that ends its process: one line, and exit code 1."""
    result = counts()
    for name in random.Random(seed).sample(list(ENDS), min(count, len(ENDS))):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "hostile.py").write_text(source(name))
            command = [sys.executable, "-m", "mnist_ce", "doctor", "hostile:loss", "--seconds", "15"]
            try:
                done = subprocess.run(
                    command, cwd=folder, timeout=40, capture_output=True, text=True,
                    env=dict(os.environ, PYTHONPATH=str(ROOT)),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                kind, text = "hang", name
            else:
                text = done.stdout + done.stderr
                line = "Error: your code left the doctor without a report: "
                good = done.returncode == 1 and text.startswith(line) and text.count("\n") == 1
                kind = "clear" if good else "wrong"
        result["tried"] += 1
        result[kind] += 1
        if said is not None and kind != "clear":
            said.append(f"{name}: {text}")
    return result


EXPERIMENTS = dict(functions=functions, ends=ends)

if __name__ == "__main__":
    for name in sys.argv[1:] or BODIES:
        print(f"{name:40}", told(name), flush=True)
