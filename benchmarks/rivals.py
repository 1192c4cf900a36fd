"""What others' tools say of programs.py and of scripts/: JSON on stdout, a table on stderr.

python benchmarks/rivals.py [name ...], by the Python of .venv-peers, which has the tools.
{row: {version, setting, results: {program: {alarms, causes, seconds}}}}; a tool that has levels
of severity has a row for each. alarms are texts in the tool's own order; causes has, for each, the
causes that its text could mean. error is there if the tool raised or ran out of time, and lacks if
the program has not what the tool takes.

Each tool gets what its manual asks for, in the setting that served it best here. Readings are
generous: a text that offers four causes, in itself or in the advice that the tool prints with it,
is taken to name each of them.
"""

import ast
import contextlib
import inspect
import io
import json
import os
import re
import signal
import statistics
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice, repeat
from pathlib import Path
from unittest import mock

import gradsnitch
import torch
import torch_audit
import torchdiag
import torchtest2
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch_preflight.config import Config
from torch_preflight.diagnostics import Category
from torch_preflight.engine import check_source
from torch_preflight.rules import all_rules
from torchmortem import Autopsy

sys.path.append(str(Path(__file__).parents[1]))  # programs.py takes its data from mnist_ce
import programs  # noqa: E402

# Batches for a tool that watches a run, enough for each to judge: of 40, 100 and 300, 40 has the
# fewest false alarms, and causes named about as often.
STEPS = 40
LIMIT = 20  # seconds of processor time for a tool and a program
Said = Iterator[tuple[str, str]]  # a level and a text, in the tool's own order


def loader(train: object) -> DataLoader:
    """Batches of anybody's training data."""
    if isinstance(train, DataLoader):
        return train
    dataset = TensorDataset(*train) if isinstance(train, tuple) else train
    return DataLoader(dataset, 32, shuffle=True)


def steps(program: dict, at_backward: Callable = lambda loss: None) -> Iterator[float]:
    """Run the user's loop for STEPS batches, and yield each loss after its step.

    at_backward is called with the loss right after the user's (first) backward, or, where the user
    has none, after the step.
    """
    backward, seen = Tensor.backward, []

    def watched(value: Tensor, *args: object, **kwargs: object) -> None:
        backward(value, *args, **kwargs)
        seen.append(value.detach().sum().item())
        if len(seen) == 1:
            at_backward(seen[0])

    batches = chain.from_iterable(repeat(loader(program["train"])))
    for xb, yb in islice(batches, STEPS):
        seen.clear()
        with mock.patch.object(Tensor, "backward", watched):
            program["step"](xb, yb)
        if not seen:
            with torch.no_grad():
                seen.append(program["loss"](program["model"](xb), yb).item())
            at_backward(seen[0])
        yield seen[0]


def run_torchtest2(program: dict) -> Said:
    """All its checks on one batch."""
    xb, yb = next(iter(loader(program["train"])))
    given = dict(loss_fn=program.get("loss"), optimizer=program.get("optimizer"))
    for result in torchtest2.check_model(program["model"], xb, yb, **given).results:
        yield result.status.value, f"{result.name}: {result.message}"


def run_torch_audit(program: dict) -> Said:
    """The user's loop under its patches, without rules on speed, sorted as its console does."""
    auditor = torch_audit.autopatch(
        program["model"], optimizer=program.get("optimizer"), every_n_steps=1,
        ignore_rules={"TA200", "TA201", "TA202", "TA203"},
    )  # fmt: skip
    for _ in steps(program):
        pass
    auditor.unpatch()
    found = {}
    for one in auditor.finish().findings:
        where = one.module_path or "", one.entity or ""
        found.setdefault((one.rule_id, *where), (one.severity.value, one.message))
    for where, (level, message) in sorted(found.items()):
        yield level, f"{' '.join(where)}: {message}"


def run_torchmortem(program: dict) -> Said:
    """The user's loop under its hooks."""
    with Autopsy(program["model"], program.get("optimizer"), sampling="thorough") as autopsy:
        for loss in steps(program):
            autopsy.step(loss=loss)
    for finding in autopsy.get_report().findings:
        yield finding.severity.name, f"{finding.title}: {finding.summary}"


def run_gradsnitch(program: dict) -> Said:
    """The user's loop with its line after backward."""
    monitor = gradsnitch.watch(program["model"], program.get("optimizer"))
    for _ in steps(program, lambda loss: monitor.log(len(monitor.rows), loss)):
        pass
    for finding in gradsnitch.lint(monitor.df()):
        yield finding.severity, f"{finding.code} {finding.name}: {finding.evidence}"


def run_torchdiag(program: dict) -> Said:
    """Its commands in the order of its manual: on one batch, the last in the user's loop."""
    (xb, yb), model = next(iter(loader(program["train"]))), program["model"]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        torchdiag.summary(model)
        torchdiag.check_dead_neurons(model, xb)
        if "optimizer" in program:
            torchdiag.verify_step(model, program["optimizer"], program["loss"], xb, yb)
        with contextlib.suppress(IndexError):  # of the user's step: verify_step has told it
            for _ in steps(program, lambda loss: torchdiag.check_gradients(model)):
                pass
    for line in told.getvalue().splitlines():
        if line.startswith(("  • ", "✗")):
            yield "issue", line.lstrip(" •✗")


def run_torch_preflight(program: dict) -> Said:
    """The source as a script, by the rules on what is learned, not on memory or speed."""
    rules = {rule.code for rule in all_rules() if rule.category == Category.CONVERGENCE_BUG}
    root = program["build"] if "train" in program else next(iter(program.values()))
    source = program.get("script") or script(root)
    for found in check_source("train.py", source, Config(rules))[0]:
        yield found.severity.value, f"{found.code}: {found.message}"


def script(root: Callable) -> str:
    """A program's source as a user would have it: one file, with step's body in the loop.

    With what it calls of the modules of programs, or what that calls, and their imports; their
    default losses only where it hands over none.
    """
    parts, imports, todo = {}, {}, [root]
    own_loss = "loss=" in inspect.getsource(root)
    while todo:
        one = todo.pop()
        if one.__qualname__ in parts or not one.__module__.startswith("programs"):
            continue
        module, source = sys.modules[one.__module__], textwrap.dedent(inspect.getsource(one))
        if own_loss and one is not root:
            source = re.sub(r"nn\.\w+Loss\(\)", "None", source)
        parts[one.__qualname__] = re.sub(r"^@(faulty|healthy).*\n", "", source)
        imported = re.findall(r"^(?:import|from) (?!programs).*\n", inspect.getsource(module), re.M)
        imports |= dict.fromkeys(imported)
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        named = (vars(module)[name] for name in sorted(names & vars(module).keys()))
        todo += [value for value in named if inspect.isfunction(value) or inspect.isclass(value)]
    text = "\n\n".join(["".join(imports), *reversed(parts.values())])
    return re.sub(r"def step\((\w+)[^,]*, (\w+)[^)]*\).*:", r"for \1, \2 in train:", text)


@dataclass(frozen=True)
class Tool:
    """A tool: its package, what it does, the levels of severity that each row counts ("A + B"),
    patterns of its texts and the causes that such a text could mean, and the keys that it takes."""

    package: str
    setting: str
    run: Callable[[dict], Said]
    rows: tuple[str, ...]
    says: dict[str, str]
    takes: str = "model train step"

    def causes(self, text: str) -> list[str]:
        """The causes that a text could mean."""
        found = [says.split() for pattern, says in self.says.items() if re.search(pattern, text)]
        return list(dict.fromkeys(chain(*found)))


TORCHTEST2 = {
    r"^forward:": "columns",
    r"^output_finite:": "not-finite bad-data",
    r"^output_varies:": "input-ignored dead-units broadcast",
    r"^eval_determinism:": "random-in-eval",
    r"^loss: .*(not connected|leaf tensor)": "no-gradient",
    r"^loss: the loss is (nan|-?inf)": "not-finite bad-data",
    r"^loss: .*raised": "columns target-form bad-data",
    r"^initial_loss: .*much larger": "large-init input-scale",
    r"^optimizer_coverage:": "not-optimised",
    r"^gradient_flow: .*get no gradient": "no-gradient",
    r"^gradient_flow: .*all-zero": "dead-units no-gradient weak-pull",
    r"^gradient_magnitude: NaN": "not-finite",
    r"^gradient_magnitude: exploding": "exploding large-init input-scale lr-large",
    r"^params_change: .*optimizer step:": "weights-do-not-move not-optimised no-gradient",
    r"^params_change: .*zero gradient": "dead-units no-gradient weights-do-not-move",
    r"^params_change: .*vanishing": "vanishing weights-do-not-move",
    r"^frozen_params:": "not-optimised",
    r"^input_dependency:": "input-ignored",
    r"^batch_independence:": "rows-mixed",
    r"^overfit_batch: the loss became": "lr-large not-finite exploding",
    r"^overfit_batch: gradients became": "not-finite",
    r"^overfit_batch: .*did not decrease": "lr-large lr-small not-optimised target-form columns",
    r"^overfit_batch: the loss decreased": "lr-small affine",
}
TORCH_AUDIT = {
    r"^TA100": "not-finite exploding lr-large large-init",
    r"^TA102": "exploding lr-large",
    r"^TA104": "no-gradient weights-do-not-move",
    r"^TA105": "dead-units large-init lr-large",
    r"^TA301": "input-scale",
    r"^TA30[25]": "bad-data",
    r"^TA40[123]": "weight-decay",
    r"^TA405": "dead-units",
    r"^TA500": "no-gradient",
}
TORCHMORTEM = {
    r"^Vanishing": "vanishing",
    r"^Exploding": "exploding lr-large large-init",
    r"^Gradient stalling": "vanishing dead-units no-gradient",
    r"^Dead units": "dead-units lr-large large-init",
    r"^Activation saturation": "bounded-scores lr-large large-init",
    r"^Update ratio too low": "lr-small vanishing",
    r"^Update ratio too high": "lr-large",
    r"^Training divergence": "lr-large not-finite",
    r"^Loss plateau": "lr-small",
    r"^Rank collapse": "weight-decay lr-large",
    r"^Weight norm explosion": "lr-large exploding",
    r"^Stagnant": "lr-small vanishing no-gradient weights-do-not-move",
    r"^Inter-layer": "large-init constant-init",
    r"^High gradient noise": "lr-large",
}
GRADSNITCH = {
    r"^GS001": "lr-large not-finite exploding bad-data",
    r"^GS002": "exploding lr-large bad-data",
    r"^GS003": "lr-large bad-data",
    r"^GS005": "lr-small dead-units constant-init large-init no-gradient not-optimised "
    "weights-do-not-move bad-data labels-apart",
    r"^GS00[69]": "lr-large",
    r"^GS007": "vanishing dead-units bounded-scores lr-small large-init",
    r"^GS008 .*too high": "lr-large",
    r"^GS008 .*too low": "lr-small not-optimised weights-do-not-move",
    r"^GS010": "lr-small",
}
TORCHDIAG = {
    r"disconnected|None gradients|are frozen|Backward pass": "no-gradient",
    r"exploding": "exploding",
    r"vanishing": "vanishing",
    r"neurons dead": "dead-units lr-large large-init input-scale",
    r"not finite": "not-finite",
    r"No parameters changed": "weights-do-not-move lr-small not-optimised",
    r"Forward pass": "columns",
    r"^Loss:": "columns target-form bad-data",
}
TORCH_PREFLIGHT = {
    r"^TG003": "gradients-accumulate",
    r"^TG00[56]: .*twice": "softmax-twice",
    r"^TG005: .*expects log-prob": "nll-input",
    r"^TG006: .*fragile": "not-finite",
    r"^TG006: .*probabilities in": "nll-input target-form",
    r"^TG011": "wrong-mode",
    r"^TG014": "gradients-accumulate sum-for-mean",
}
LOOP = f"{STEPS} steps of the user's loop"
TOOLS = [
    Tool("torchtest2", "check_model on one batch, with the loss and the optimizer",
         run_torchtest2, ("FAIL", "FAIL + WARN"), TORCHTEST2, "model train"),
    Tool("torch-audit", f"autopatch, every_n_steps=1, no rules on speed; {LOOP}",
         run_torch_audit, ("ERROR", "ERROR + WARN"), TORCH_AUDIT),
    Tool("torchmortem", f"Autopsy, sampling='thorough'; {LOOP}",
         run_torchmortem, ("CRITICAL", "CRITICAL + WARNING"), TORCHMORTEM),
    Tool("gradsnitch", f"watch, and a line after backward; {LOOP}",
         run_gradsnitch, ("error", "error + warning"), GRADSNITCH),
    Tool("torchdiag", "summary, check_dead_neurons and verify_step on one batch, check_gradients "
         f"after each backward; {LOOP}", run_torchdiag, ("issue",), TORCHDIAG),
    Tool("torch-preflight", "check of the source as a script, no rules on memory and speed",
         run_torch_preflight, ("error", "error + warning"), TORCH_PREFLIGHT, "build"),
]  # fmt: skip


class TimeLimit(BaseException):
    """No Exception, since the tools catch those of the programs."""


def stop(*_: object) -> None:
    """What the alarm calls."""
    raise TimeLimit(f"more than {LIMIT} s")


def examined(tool: Tool, build: Callable) -> dict:
    """What a tool says of a fresh copy of a program."""
    torch.manual_seed(0)
    program = dict(build(), build=build)
    lacks = [name for name in tool.takes.split() if program.get(name) is None]
    if lacks or not isinstance(program.get("model", nn.Identity()), nn.Module):
        return dict(said=[], seconds=0.0, lacks=lacks or ["a module"])
    said, failed, start = [], {}, time.perf_counter()
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = list(dict.fromkeys(tool.run(program)))
    except (Exception, TimeLimit) as error:
        failed = dict(error=f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return dict(said=said, seconds=time.perf_counter() - start, **failed)


def row(tool: Tool, levels: str, examinations: dict[str, dict]) -> dict:
    """A tool's results, of some levels."""
    results = {}
    for name, told in examinations.items():
        alarms = [text for level, text in told["said"] if level in levels.split(" + ")]
        rest = {key: value for key, value in told.items() if key != "said"}
        results[name] = dict(alarms=alarms, causes=[tool.causes(text) for text in alarms], **rest)
    return dict(version=version(tool.package), setting=tool.setting, results=results)


def counts(results: dict, faulty: dict[str, str]) -> list[object]:
    """Of faulty programs alarms, and those whose cause the first or any alarm names; of sound
    ones alarms; of all the tool's errors, those that lack what it takes, and the median seconds."""
    pairs = [(cause, results[name]["causes"]) for name, cause in faulty.items()]
    seconds = [told["seconds"] for told in results.values() if "lacks" not in told]
    return [
        sum(bool(causes) for _, causes in pairs),
        sum(cause in causes[0] for cause, causes in pairs if causes),
        sum(cause in chain(*causes) for cause, causes in pairs),
        sum(bool(told["alarms"]) for name, told in results.items() if name not in faulty),
        sum("error" in told for told in results.values()),
        sum("lacks" in told for told in results.values()),
        f"{statistics.median(seconds or [0.0]):.3f}",
    ]


def main(names: list[str]) -> None:
    """Run all tools on what has these names or on all, print the table, write the JSON."""
    stdout = os.fdopen(os.dup(1), "w")  # BLAS prints of NaN where the JSON is to stand alone
    os.dup2(2, 1)
    signal.signal(signal.SIGPROF, stop)
    torch.set_num_threads(1)
    everything = programs.FAULTY | {name: ("none", b) for name, b in programs.HEALTHY.items()}
    for path, cause in programs.scripts().items():
        text = path.read_text(encoding="utf-8")
        everything[path.name] = cause, lambda text=text: dict(script=text)
    names, rows = names or list(everything), {}
    faulty = {name: everything[name][0] for name in names if everything[name][0] != "none"}
    for tool in TOOLS:
        examinations = {name: examined(tool, everything[name][1]) for name in names}
        for levels in tool.rows:
            rows[f"{tool.package} {levels}"] = row(tool, levels, examinations)
    heads = "alarms", "first", "anywhere", "false", "errors", "lacks", "s"
    table = {f"{len(faulty)} faulty, {len(names) - len(faulty)} sound": heads}
    table |= {name: counts(told["results"], faulty) for name, told in rows.items()}
    for name, cells in table.items():
        print(f"{name:34}", *(f"{cell:>8}" for cell in cells), file=sys.stderr)
    with stdout:
        json.dump(rows, stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
