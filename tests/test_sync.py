"""What is written twice says the same: library and notebooks, README and index, the two versions."""
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import mnist_ce

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
nbdev = pytest.importorskip("nbdev", reason="nbdev is a development tool")


def test_the_library_is_exported_from_the_notebooks(tmp_path):
    copy = tmp_path / "repo"
    copy.mkdir()
    for name in "nbs", "mnist_ce", "pyproject.toml", "settings.ini":
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy)], check=True)
    subprocess.run([str(Path(sys.executable).parent / "nbdev-export")], cwd=copy, check=True)
    for path in sorted((ROOT / "mnist_ce").glob("*.py")):
        assert (copy / "mnist_ce" / path.name).read_text() == path.read_text(), f"{path.name}: run nbdev-export"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_executed(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run([str(Path(sys.executable).parent / "nbdev-clean"), "--fname", str(copy)], cwd=ROOT, check=True)
    assert copy.read_text() == path.read_text(), f"{path.name}: run nbdev-clean"
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs, f"{path.name} has no stored outputs"
    assert not any(output["output_type"] == "error" for output in outputs)


def test_the_versions_are_equal():
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    assert mnist_ce.__version__ == config["DEFAULT"]["version"]
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changelog.group(1) == mnist_ce.__version__


def test_the_readme_is_rendered_from_the_index():
    sys.path.insert(0, str(ROOT / "nbs"))
    from readme import render

    text, figures = render()
    assert (ROOT / "README.md").read_text() == text, "run make readme"
    for name, data in figures.items():
        assert (ROOT / name).read_bytes() == data, f"{name}: run make readme"
