"""What is written twice says the same, and the house keeps its order: modules, lines, notebooks."""
import ast
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import mnist_ce

ROOT = Path(__file__).parent.parent
NOTEBOOKS = [path for path in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
ORDER = (
    "data photo results scores losses metrics model networks calls watching case loss_checks metric_checks model_checks "
    "data_checks step_checks cures doctor training ensemble original plots learner cli all"
).split()
nbdev = pytest.importorskip("nbdev", reason="nbdev is a development tool")


def test_the_library_is_exported_from_the_notebooks(tmp_path):
    copy = tmp_path / "repo"
    copy.mkdir()
    for name in "nbs", "mnist_ce", "pyproject.toml", "settings.ini":
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy)], check=True)
    subprocess.run([str(Path(sys.executable).parent / "nbdev-export")], cwd=copy, check=True)
    for path in sorted((ROOT / "mnist_ce").glob("*.py")):
        assert (copy / "mnist_ce" / path.name).read_text() == path.read_text(), f"{path.name}: run nbdev-export"


def test_a_module_imports_only_those_before_it():
    modules = {path.stem for path in (ROOT / "mnist_ce").glob("*.py")}
    assert modules == {*ORDER, "__init__", "__main__", "_modidx"}
    for name in ORDER:
        tree = ast.parse((ROOT / "mnist_ce" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            found = []
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("mnist_ce")):
                found = [(node.module or "").removeprefix("mnist_ce").strip(".")]
            if isinstance(node, ast.Import):
                found = [alias.name.removeprefix("mnist_ce.") for alias in node.names if alias.name.startswith("mnist_ce.")]
            for other in filter(None, found):
                assert ORDER.index(other) < ORDER.index(name), f"{name} imports {other}, line {node.lineno}"


def test_no_line_of_code_is_over_100_columns():
    for path in (ROOT / "mnist_ce").glob("*.py"):
        exported = path.read_text().split("__all__ = [")  # nbdev's own lines, at the top
        body = "".join(exported[:1] + [part.split("]", 1)[1] for part in exported[1:]])
        if path.name != "_modidx.py":
            wide = [line for line in body.splitlines() if len(line) > 100]
            assert not wide, f"{path.name}: {wide[0]}"
    for path in NOTEBOOKS:
        code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        wide = [line for cell in code for line in "".join(cell["source"]).splitlines() if len(line) > 100]
        assert not wide, f"{path.name}: {wide[0]}"


def test_the_readme_lists_every_notebook():
    listed = re.findall(r"^\| \[[^]]+\]\((nbs/\S+\.ipynb)\) \| ([^|]+\?) \|", (ROOT / "README.md").read_text(), re.M)
    questions = {}
    for path in NOTEBOOKS:
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        questions[str(path.relative_to(ROOT))] = re.search(r"^> (.+)$", first, re.M).group(1)
    del questions["nbs/index.ipynb"], questions["nbs/for_teachers.ipynb"]
    assert dict(listed) == questions
    assert "](nbs/for_teachers.ipynb)" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """A copy of all notebooks that nbdev-clean has gone over."""
    folder = tmp_path_factory.mktemp("cleaned")
    shutil.copytree(ROOT / "nbs", folder / "nbs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [str(Path(sys.executable).parent / "nbdev-clean"), "--fname", str(folder / "nbs")]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_executed(path, cleaned):
    assert (cleaned / path.relative_to(ROOT)).read_text() == path.read_text(), f"{path.name}: run nbdev-clean"
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs, f"{path.name} has no stored outputs"
    assert not any(output["output_type"] == "error" for output in outputs)
    shown = re.sub(r'"image/png": "[^"]*"', "", json.dumps(outputs))  # base64 has slashes
    there = re.search(r"/\S+/mnist_ce/\w+\.py", shown)
    assert not there, f"{path.name}: {there and there[0]} is a place on the machine that ran it"


# Lesson 00 is plain PyTorch and imports nothing of ours.
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.name != "00_frozen_accuracy.ipynb"], ids=lambda path: path.stem)
def test_notebooks_import_the_package_before_torch(path):
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in code)
    first = re.search(r"^(?:import|from) (mnist_ce|torch|fastai|fastbook)\b", lines, re.M)
    assert first.group(1) == "mnist_ce", "only then do torch's threads wait passively"


def test_the_versions_are_equal():
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    assert mnist_ce.__version__ == config["DEFAULT"]["version"]
    told = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M).groups()
    cited = re.findall(r'^(?:version|date-released): "?([\w.-]+)', (ROOT / "CITATION.cff").read_text(), re.M)
    assert told[0] == mnist_ce.__version__ and tuple(cited) == told  # version and date


def test_the_readme_is_rendered_from_the_index():
    sys.path.insert(0, str(ROOT / "nbs"))
    from readme import render

    text, figures = render()
    assert (ROOT / "README.md").read_text() == text, "run make readme"
    assert {ROOT / name for name in figures} == {*(ROOT / "nbs" / "figures").iterdir()}
    for name, data in figures.items():
        assert (ROOT / name).read_bytes() == data, f"{name}: run make readme"


def test_the_bill_of_materials_names_every_pin():
    pins = re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / "constraints/core.txt").read_text(), re.M)
    parts = json.loads((ROOT / "constraints/sbom.json").read_text())["components"]
    assert sorted(pins) == sorted((part["name"], part["version"]) for part in parts)
