"""Break the library on purpose, once a mutant, and see which of its tests notice: mutants.json.

A mutant is one module with one small change, made by mutmut's operators and a few of our own. It is
killed if one of pytest's tests that run the changed function fails, or else if one of the notebooks
that assert what the function does fails with the same change in its own cell. Each mutant runs in a
fork of a process that has imported all but the package, in a copy of the repository. A mutant that
survives needs a reason in reasons.json, which is written by hand, by the mutant as it is printed.

    mutants.py [--workers 2] [--survivors] [module …]

--survivors takes again only those that were not killed by a test the last time. What was found is
kept in .mutants/, and found again as long as the package, its tests and this file stay the same.
"""

import argparse
import ast
import contextlib
import fcntl
import functools
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import libcst as cst
import libcst.matchers as m
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".mutants"
REPORT, REASONS = ROOT / "benchmarks" / "mutants.json", ROOT / "benchmarks" / "reasons.json"
NEEDED = 0.9

# Each module, the notebook that exports it, and the lessons that assert what it does.
MODULES = {
    "losses": ["reference/04_losses"],
    "metrics": ["reference/05_metrics"],
    "results": ["reference/02_results", "07_one_run"],
    "training": ["reference/18_training"],
    "ensemble": ["reference/19_ensemble", "07_one_run"],
}
# What tests import but the package is no part of: imported once, before the forks.
COMMON = """
    fastai.vision.all hypothesis matplotlib.figure matplotlib.backends.backend_agg nbdev.test numpy
    pandas PIL.Image pytest scipy.special scipy.stats tabulate torch torch.distributed torchvision
    tqdm.auto
""".split()
# Slow, and not about these modules; test_sync would notice any change at all.
LEFT_OUT = re.compile(
    "test_sync|test_package|two_processes_equal|process_that_fails|ctrl_c_keeps|four_gigabytes"
    "|import_stays|compiled|fastai_download|autopsy_writes|factorial_of_all"
    "|fastai_is_not_imported|on_ten_digits"
)


@dataclass
class Mutant:
    """A changed module: where, the lines before and after, and the whole text."""

    module: str
    function: str
    before: str
    after: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.module}.{self.function}: {self.before} -> {self.after}"


def sisters(node: cst.Name) -> Iterator[cst.CSTNode]:
    """The largest for the smallest, all for any, and so on."""
    pairs = "max min, amax amin, argmax argmin, any all, mean sum, ceil floor, std var, gt lt"
    for a, b in map(str.split, pairs.split(",")):
        if node.value in (a, b):
            yield node.with_changes(value=b if node.value == a else a)


def exchanged(node: Any) -> Iterator[cst.CSTNode]:
    """Two neighbors in a call, a list or a tuple, or both sides of a minus or a division."""
    if isinstance(node, cst.BinaryOperation):
        if isinstance(node.operator, (cst.Subtract, cst.Divide)):
            yield node.with_changes(left=node.right, right=node.left)
        return
    if m.matches(node, m.Call(func=m.Name("max") | m.Name("min"))):
        return  # the same either way
    field = "args" if isinstance(node, cst.Call) else "elements"
    parts = getattr(node, field)
    for k, (a, b) in enumerate(zip(parts, parts[1:])):
        if not any(getattr(x, "keyword", None) or getattr(x, "star", "") for x in (a, b)):
            pair = a.with_changes(value=b.value), b.with_changes(value=a.value)
            yield node.with_changes(**{field: [*parts[:k], *pair, *parts[k + 2 :]]})


def decided(node: cst.If) -> Iterator[cst.CSTNode]:
    """A branch that is always taken, or never."""
    for word in "True", "False":
        yield node.with_changes(test=cst.Name(word))


def left_out(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """A statement that is called for its effect, or a refusal, not made."""
    (first, *_) = node.body
    called = isinstance(first, cst.Expr) and isinstance(first.value, cst.Call)
    if called or isinstance(first, cst.Raise):
        yield node.with_changes(body=[cst.Pass()])


OWN = [
    (cst.Name, sisters), (cst.Call, exchanged), (cst.List, exchanged), (cst.Tuple, exchanged),
    (cst.BinaryOperation, exchanged), (cst.If, decided), (cst.SimpleStatementLine, left_out),
]  # fmt: skip


class Changes(cst.CSTVisitor):
    """Each node with what could stand there instead; but for messages, annotations, imports."""

    def __init__(self) -> None:
        self.found: list[tuple[set[cst.CSTNode], cst.CSTNode, cst.CSTNode]] = []
        self.above: list[cst.CSTNode] = []
        self.unordered: list[cst.CSTNode] = []  # after "in": the order of the elements is no matter

    def on_leave(self, original: cst.CSTNode) -> None:
        self.above.pop()

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.above.append(node)
        if isinstance(node, (cst.Annotation, cst.Import, cst.ImportFrom)):
            return False
        if isinstance(node, cst.Assign) and m.matches(node.targets[0].target, m.Name("__all__")):
            return False
        if isinstance(node, cst.ComparisonTarget) and m.matches(node.operator, m.In() | m.NotIn()):
            self.unordered.append(node.comparator)
        if isinstance(node, cst.ExceptHandler) and node.type:
            self.unordered.append(node.type)
        if m.matches(node, m.Call(func=m.Name("isinstance"))):
            self.unordered.append(node.args[1].value)
        for kind, operator in [*mutation_operators, *OWN]:
            if isinstance(node, kind) and not (operator is exchanged and node in self.unordered):
                made = list(operator(node))
                if operator is operator_string:
                    made = made[:1]  # one change of a text is enough
                if operator is operator_arg_removal:  # left out; None in its place is no news
                    made = [other for other in made if len(other.args) < len(node.args)]
                self.found += [({*self.above}, node, other) for other in made]
        told = isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func)
        return not isinstance(node, cst.Raise) and told != "warnings.warn"


class Replaced(cst.CSTTransformer):
    """A tree with one node exchanged; above: it, and the nodes that hold it."""

    def __init__(self, above: set[cst.CSTNode], node: cst.CSTNode, other: cst.CSTNode):
        self.above, self.node, self.other = above, node, other

    def on_visit(self, node: cst.CSTNode) -> bool:
        return node in self.above and node is not self.node

    def on_leave(self, original: cst.CSTNode, updated: cst.CSTNode) -> Any:
        return self.other if original is self.node else updated


def functions_in(text: str) -> dict[str, range]:
    """The lines of each function of a module, and of each method, decorators left out."""
    found: dict[str, range] = {}
    for node in ast.parse(text).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in inner:
            if isinstance(part, ast.FunctionDef):
                name = part.name if part is node else f"{node.name}.{part.name}"
                found[name] = range(part.lineno, part.end_lineno + 1)
    return found


def compiles(text: str, original: str) -> bool:
    """Whether a changed statement is Python, and other than the original."""
    try:
        compile(text, "", "exec")
        return ast.dump(ast.parse(text)) != ast.dump(ast.parse(original))
    except (SyntaxError, ValueError):
        return False


def difference(old: str, new: str) -> tuple[int, str, str]:
    """The first line that differs, counted from 0, and the lines that do, before and after."""
    ours, theirs = old.splitlines(), new.splitlines()
    start = next((k for k, (a, b) in enumerate(zip(ours, theirs)) if a != b), 0)
    end = 0
    while end < min(len(ours), len(theirs)) - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    before, after = (
        " ".join(line.strip() for line in lines[start : len(lines) - end])
        for lines in (ours, theirs)
    )
    return start, before, after


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, in its order."""
    text = (ROOT / "mnist_ce" / f"{module}.py").read_text(encoding="utf-8")
    tree, functions = cst.parse_module(text), functions_in(text)
    parts = [tree.code_for_node(statement) for statement in tree.body]
    header = "".join(tree.code_for_node(line) for line in tree.header)
    assert header + "".join(parts) == text
    found: dict[str, Mutant] = {}
    keys: Counter[str] = Counter()
    first = header.count("\n") + 1
    for k, statement in enumerate(tree.body):
        changes = Changes()
        statement.visit(changes)
        for change in changes.found:
            changed = tree.code_for_node(statement.visit(Replaced(*change)))
            whole = header + "".join([*parts[:k], changed, *parts[k + 1 :]])
            if whole in found or not compiles(changed, parts[k]):
                continue
            at, before, after = difference(parts[k], changed)
            name = next((n for n, span in functions.items() if first + at in span), "")
            mutant = Mutant(module, name, before, after, whole)
            keys[mutant.key] += 1
            if keys[mutant.key] > 1:  # the same line is in the function twice
                mutant.before += f"  # {keys[mutant.key]}"
            found[whole] = mutant
        first += parts[k].count("\n")
    return list(found.values())


class Recorder:
    """A plugin of pytest's that notes how long each test takes, and which functions it runs."""

    def __init__(self, folder: Path):
        self.folder, self.calls, self.seconds = str(folder / "mnist_ce"), defaultdict(set), {}
        self.of_fixtures: dict[Any, set] = defaultdict(set)

    def watch(self, calls: set) -> None:
        def called(frame: Any, event: str, _: Any) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(self.folder):
                calls.add((Path(code.co_filename).stem, code.co_firstlineno))

        sys.setprofile(called)
        threading.setprofile(called)  # of threads that are begun from here on

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


def hooks(recorder: Recorder) -> None:
    """Give the recorder the hooks that wrap a test and a fixture."""
    import pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(item: Any) -> Any:
        recorder.watch(recorder.calls[item.nodeid])
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            for name in item.fixturenames:  # one that was set up for an earlier test counts too
                for fixture in item._fixtureinfo.name2fixturedefs.get(name, ()):
                    recorder.calls[item.nodeid] |= recorder.of_fixtures[fixture]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(fixturedef: Any, request: Any) -> Any:
        before = sys.getprofile()
        recorder.watch(recorder.of_fixtures[fixturedef])
        try:
            return (yield)
        finally:
            sys.setprofile(before)
            threading.setprofile(before)

    recorder.pytest_runtest_protocol = pytest_runtest_protocol
    recorder.pytest_fixture_setup = pytest_fixture_setup


class Chosen:
    """A plugin of pytest's that runs the tests of a list, in its order, and notes a failure."""

    def __init__(self, tests: list[str] | None):
        self.rank = None if tests is None else {test: k for k, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if not LEFT_OUT.search(item.nodeid)]
        if self.rank is not None:
            chosen = [item for item in items if item.nodeid in self.rank]
            items[:] = sorted(chosen, key=lambda item: self.rank[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


def pytest_in(tests: list[str] | None, *plugins: Any) -> tuple[int, str]:
    """Run pytest in the current folder on these tests, or on all: its exit code, what failed."""
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("same", derandomize=True, database=None)
    hypothesis.settings.load_profile("same")
    chosen = Chosen(tests)
    files = sorted({test.split("::")[0] for test in tests}) if tests else ["tests"]
    options = ["-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += ["--basetemp", "scratch"]  # of its own, in the copy
    code = pytest.main([*options, *files], plugins=[chosen, *plugins])
    return int(code), chosen.failed


def record_tests(folder: Path) -> dict[str, Any]:
    """Run all tests: for each its seconds and the functions it runs."""
    recorder = Recorder(folder)
    hooks(recorder)
    code, failed = pytest_in(None, recorder)
    if code:
        raise RuntimeError(f"the tests fail without any mutant: {failed}")
    names = {}
    for path in (folder / "mnist_ce").glob("*.py"):
        for name, span in functions_in(path.read_text()).items():
            names.update({(path.stem, line): name for line in span})
            for line in range(span[0] - 3, span[0]):  # a decorated one starts at its decorator
                names.setdefault((path.stem, line), name)
    return {
        test: dict(
            seconds=seconds,
            runs=sorted(f"{call[0]}.{names.get(call, '')}" for call in recorder.calls[test]),
        )
        for test, seconds in recorder.seconds.items()
    }


def run_tests(mutant: Mutant, folder: Path, tests: list[str]) -> dict[str, Any]:
    """How pytest ends on a mutant."""
    (folder / "mnist_ce" / f"{mutant.module}.py").write_text(mutant.text, encoding="utf-8")
    own = f"tests/test_{mutant.module}.py"  # first: it is likely to know
    for first in True, False:
        some = [test for test in tests if test.startswith(own) == first]
        code, failed = pytest_in(some) if some else (0, "")
        while failed and not failed.startswith(own) and not pytest_in([failed])[0]:
            some = some[some.index(failed) + 1 :]  # it failed of something else, and not again
            code, failed = pytest_in(some) if some else (0, "")
        if code:
            return dict(killed=True, by=failed or "pytest itself")
    return dict(killed=False, by="")


def run_notebooks(mutant: Mutant, folder: Path) -> dict[str, Any]:
    """How the notebooks end on a mutant, which stands in the exporting notebook's cell too."""
    from nbdev.test import test_nb

    (folder / "mnist_ce" / f"{mutant.module}.py").write_text(mutant.text, encoding="utf-8")
    names = MODULES[mutant.module]
    first = folder / "nbs" / f"{names[0]}.ipynb"
    notebook = json.loads(first.read_text(encoding="utf-8"))
    original = (ROOT / "mnist_ce" / f"{mutant.module}.py").read_text(encoding="utf-8")
    for old, new in zip(cells_of(original), cells_of(mutant.text)):
        if old != new:
            (cell,) = (cell for cell in notebook["cells"] if cell["id"] == old[0])
            directives = [line for line in cell["source"] if line.startswith("#|")]
            cell["source"] = [*directives, *new[1].splitlines(keepends=True)]
    first.write_text(json.dumps(notebook), encoding="utf-8")
    for name in names:
        right, _ = test_nb(folder / "nbs" / f"{name}.ipynb", basepath=folder, showerr=False)
        if not right:
            return dict(killed=True, by=f"nbs/{name}.ipynb")
    return dict(killed=False, by="")


def try_notebooks(folder: Path) -> list[str]:
    """The notebooks that pass without any mutant, which must be all."""
    from nbdev.test import test_nb

    names = sorted({name for names in MODULES.values() for name in names})
    for name in names:
        if not test_nb(folder / "nbs" / f"{name}.ipynb", basepath=folder)[0]:
            raise RuntimeError(f"{name} fails without any mutant")
    return names


def cells_of(text: str) -> list[tuple[str, str]]:
    """The exported cells of a module: id and source."""
    parts = re.split(r"^# %% \S+ #(\w+)\n", text, flags=re.M)[1:]
    return [(cell, source.rstrip() + "\n") for cell, source in zip(parts[::2], parts[1::2])]


def fork(task: Any, folder: Path, answer: Path, arguments: tuple) -> int:
    """Do a task in a process of its own, in `folder`, and write what it returns: the process."""
    assert not any(name.split(".")[0] == "mnist_ce" for name in sys.modules)
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = os.open(answer.with_suffix(".log"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 1), os.dup2(log, 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"], sys.argv = str(folder), ["pytest"]
    sys.path.insert(0, str(folder))
    try:
        answer.write_text(json.dumps(task(*arguments)))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def fresh(slot: int) -> Path:
    """A copy of what the tests and notebooks need, as it stands in the tree."""
    folder = KEPT / f"copy{slot}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in "mnist_ce", "tests", "nbs":
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    for name in "pyproject.toml", "settings.ini":
        shutil.copy2(ROOT / name, folder)
    return folder


def restore(folder: Path) -> None:
    """Put back all that a mutant may have changed, of this module or of the one before it."""
    notebooks = [f"nbs/{names[0]}.ipynb" for names in MODULES.values()]
    for changed in [*(f"mnist_ce/{module}.py" for module in MODULES), *notebooks]:
        shutil.copy2(ROOT / changed, folder / changed)
    shutil.rmtree(folder / "mnist_ce" / "__pycache__", ignore_errors=True)


def alone(task: Any) -> Any:
    """What a task returns in a fork."""
    answer, folder = KEPT / "alone.json", fresh(0)
    child = fork(task, folder, answer, (folder,))
    try:
        os.waitpid(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    if not answer.exists():
        raise SystemExit(answer.with_suffix(".log").read_text()[-3000:])
    return json.loads(answer.read_text())


def in_turn(jobs: Iterable[tuple], workers: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Do jobs (name, task, mutant, rest, seconds), so many at a time: each name and its answer."""
    waiting, running = iter(jobs), {}
    free = [(slot, fresh(slot)) for slot in range(workers)]
    try:
        while True:
            while free and (job := next(waiting, None)):
                name, task, mutant, rest, limit = job
                slot, folder = free.pop()
                restore(folder)
                answer, start = KEPT / f"answer{slot}.json", time.monotonic()
                child = fork(task, folder, answer, (mutant, folder, *rest))
                running[child] = name, slot, folder, answer, start, limit
            if not running:
                return
            time.sleep(0.02)
            for child in list(running):
                name, slot, folder, answer, start, limit = running[child]
                late = time.monotonic() - start > limit
                ended, status = os.waitpid(child, os.WNOHANG)
                if not ended and not late:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # the child, if late, and what it started
                if not ended:
                    os.waitpid(child, 0)
                del running[child]
                free.append((slot, folder))
                took = time.monotonic() - start
                if late and not ended:
                    yield name, dict(killed=True, by="timeout", seconds=took)
                elif answer.exists():
                    yield name, dict(json.loads(answer.read_text()), seconds=took)
                elif os.WIFSIGNALED(status):  # the interpreter died
                    yield name, dict(killed=True, by="crash", seconds=took)
                else:
                    raise SystemExit(answer.with_suffix(".log").read_text()[-3000:])
    finally:
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def digest(paths: Iterable[Path]) -> str:
    """A fingerprint of files, as they were when they were first asked for."""
    return _digest(tuple(sorted(paths)))


@functools.cache
def _digest(paths: tuple[Path, ...]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def tests_of(mutant: Mutant, tests: dict[str, Any]) -> list[str]:
    """The tests that run the changed function, or the changed module, the quickest first.

    All in the module's own test file, and the first case of each test elsewhere.
    """
    place, chosen, seen = f"{mutant.module}.{mutant.function}", [], set()
    for test, told in tests.items():
        name = test.split("[")[0]
        own = name.startswith(f"tests/test_{mutant.module}.py")
        same = place.__eq__ if mutant.function else lambda run: run.startswith(place)
        if any(map(same, told["runs"])) and (own or name not in seen):
            seen.add(name)
            chosen.append(test)
    return sorted(chosen, key=lambda test: tests[test]["seconds"])


class Cache:
    """What was found about each mutant, in a file; what an older state found is a hint.

    A mutant stays killed as long as the package and the test file that killed it are the same; one
    that survived is tried again after any change.
    """

    def __init__(self, state: str):
        self.path, self.state = KEPT / "found.json", state
        self.found = json.loads(self.path.read_text()) if self.path.exists() else {}

    def state_of(self, answer: dict[str, Any]) -> str:
        killer = ROOT / answer["by"].split("::")[0]
        if not answer["killed"] or killer.suffix != ".py":
            return self.state
        helpers = ROOT / "tests" / "conftest.py", Path(__file__)
        return digest([*(ROOT / "mnist_ce").glob("*.py"), *helpers, killer])

    def get(self, mutant: Mutant, way: str, stale: bool = False) -> dict[str, Any] | None:
        kept = self.found.get(f"{way} {mutant.key}")
        return kept if kept and (stale or kept["state"] == self.state_of(kept)) else None

    def put(self, mutant: Mutant, way: str, answer: dict[str, Any]) -> None:
        self.found[f"{way} {mutant.key}"] = dict(answer, state=self.state_of(answer))
        if len(self.found) % 20 == 0:
            self.write()

    def write(self) -> None:
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps(self.found, indent=0))
        scratch.replace(self.path)


def find_out(
    way: str, mutants: list[Mutant], cache: Cache, tests: dict[str, Any], workers: int
) -> None:
    """Run pytest ("tests") or the notebooks on each mutant that is not in the cache."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is shared with forks, and one that is killed keeps it

    jobs = []
    for k, mutant in enumerate(mutants):
        if cache.get(mutant, way):
            continue
        if way == "notebooks":
            jobs.append((k, run_notebooks, mutant, (), 300))
            continue
        chosen = tests_of(mutant, tests)
        before = cache.get(mutant, way, stale=True)
        if before and before["by"] in chosen:  # who killed it before will do it again
            chosen = list(dict.fromkeys([before["by"], *chosen]))
        limit = 30 + 5 * sum(tests[test]["seconds"] for test in chosen)
        jobs.append((k, run_tests, mutant, (chosen,), limit))
    try:
        for k, answer in tqdm(in_turn(jobs, workers), way, len(jobs), unit="mutant"):
            cache.put(mutants[k], way, answer)
    finally:
        cache.write()


def report(mutants: list[Mutant], cache: Cache, whole: bool) -> int:
    """Print what was found, and write the whole; 1 where too many survive, or without a reason."""
    from mnist_ce.results import Table, make_record, write_json

    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    rows, survivors, by_notebook, table = [], [], [], {}
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        count: Counter[str] = Counter()
        for mutant in mutants:
            if mutant.module != module:
                continue
            first, second = cache.get(mutant, "tests"), cache.get(mutant, "notebooks")
            count["mutants"] += 1
            told = {key: value for key, value in asdict(mutant).items() if key != "text"}
            if first and first["killed"]:
                count["by_timeout" if first["by"] == "timeout" else "by_tests"] += 1
            elif second and second["killed"]:
                count["by_notebooks"] += 1
                by_notebook.append(dict(told, by=second["by"]))
            else:
                count["survived"] += 1
                survivors.append(dict(told, reason=reasons.get(mutant.key, "")))
        table[module] = dict(count)
    total = sum((Counter(counts) for counts in table.values()), Counter())
    for module, counts in [*table.items(), ("all", total)]:
        kinds = [counts.get(k, 0) for k in ("by_tests", "by_timeout", "by_notebooks", "survived")]
        tests, all_killed = sum(kinds[:2]), sum(kinds[:3])
        shares = [f"{100 * killed / counts['mutants']:.1f}%" for killed in (tests, all_killed)]
        rows.append([module, counts["mutants"], *kinds, *shares])
    for survivor in survivors:
        key = "{module}.{function}: {before} -> {after}".format(**survivor)
        print(f"{key}\n    {survivor['reason'] or f'NO REASON in {REASONS}'}\n")
    headers = ["module", "mutants", "by tests", "timeout", "by notebooks", "survived"]
    print(Table(rows, [*headers, "score of tests", "score"]))
    results = dict(modules=table, survivors=survivors, killed_by_notebooks_alone=by_notebook)
    record = make_record(dict(needed=NEEDED, left_out=LEFT_OUT.pattern))
    if whole:
        write_json(REPORT, dict(record=record, results=results))
        known = {mutant.key for mutant in mutants if not cache.get(mutant, "tests")["killed"]}
        print("\n".join(f"needs no reason any more: {key}" for key in reasons if key not in known))
    killed = total["by_tests"] + total["by_timeout"]
    return int(killed < NEEDED * total["mutants"] or not all(s["reason"] for s in survivors))


def main() -> int:
    """Make the mutants, run them, say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help="of " + ", ".join(MODULES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--survivors", action="store_true", help="those of the last time alone")
    asked = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # a fork has no threads
    KEPT.mkdir(exist_ok=True)
    lock = open(KEPT / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would change each other's copies
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no child is left
    notebooks = [ROOT / "nbs" / f"{n}.ipynb" for names in MODULES.values() for n in names]
    sources = [*(ROOT / "mnist_ce").glob("*.py"), *(ROOT / "tests").glob("*.py")]
    cache = Cache(digest([*sources, *notebooks, Path(__file__)]))
    mutants = [one for module in asked.modules or MODULES for one in mutants_of(module)]
    if asked.survivors:
        old = lambda mutant: cache.get(mutant, "tests", stale=True) or dict(killed=False)
        mutants = [mutant for mutant in mutants if not old(mutant)["killed"]]
    for name in COMMON:
        importlib.import_module(name)
    seen = KEPT / "tests.json"
    known = json.loads(seen.read_text()) if seen.exists() else {}
    if known.get("state") != cache.state:
        known = dict(state=cache.state, tests=alone(record_tests))
        seen.write_text(json.dumps(known, indent=0))
    find_out("tests", mutants, cache, known["tests"], asked.workers)
    survived = [one for one in mutants if not cache.get(one, "tests")["killed"]]
    if survived and "notebooks" not in known:
        known["notebooks"] = alone(try_notebooks)
        seen.write_text(json.dumps(known, indent=0))
    find_out("notebooks", survived, cache, {}, asked.workers)
    sys.path.insert(0, str(ROOT))
    return report(mutants, cache, whole=not asked.modules and not asked.survivors)


if __name__ == "__main__":
    sys.exit(main())
