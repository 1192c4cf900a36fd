"""The package as others get it: sdist, wheel from it, installed elsewhere, run without network."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.version import Version

from mnist_ce.losses import cross_entropy_loss
from mnist_ce.training import fit

ROOT = Path(__file__).parent.parent
SOURCES = {path.name for path in (ROOT / "mnist_ce").glob("*.py")}
PACKAGE = {f"mnist_ce/{name}" for name in SOURCES | {"mnist.npz", "mnist.npz.license", "py.typed"}}
TESTED = "benchmarks", "constraints", "docs", "nbs", "tests", ".github"
CACHES = "__pycache__", ".ipynb_checkpoints"
OFFLINE = """import sys; sys.addaudithook(lambda event, args: event in \
("socket.connect", "socket.getaddrinfo") and sys.exit(f"asked the network: {event} {args}"))"""


def settings():
    config = ConfigParser()
    assert config.read(ROOT / "settings.ini")
    return config["DEFAULT"]


def call(*command, cwd):
    """What a command prints, elsewhere than in the checkout."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist, and the wheel built from it, of a copy of the checkout: their paths."""
    pytest.importorskip("build", reason="build is a development tool")
    copy = tmp_path_factory.mktemp("built") / "copy"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for name in "mnist_ce", *TESTED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*CACHES))
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy.parent, cwd=copy)
    (sdist,), (wheel,) = copy.parent.glob("*.tar.gz"), copy.parent.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def elsewhere(built, tmp_path_factory):
    """A folder with a new environment `env`: the wheel, ours to depend on, and no network."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=os.name != "nt")
    python = folder / "env" / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--python", python
    call(*pip, "install", "--no-deps", "--no-index", built[1], cwd=folder)
    (site,) = folder.glob("env/lib/python*/site-packages")
    # A path in a .pth file brings the dependencies, and not the editable install among them.
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "ours.pth").write_text("\n".join([*ours, OFFLINE]) + "\n")
    return folder


def test_the_sdist_holds_what_builds_and_tests_it_and_no_more(built):
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    asides = {name for name in names if name.startswith("mnist_ce.egg-info/")}
    top = "CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE MANIFEST.in Makefile PKG-INFO"
    top += " README.md SECURITY.md pyproject.toml settings.ini setup.cfg setup.py"
    paths = [path for name in TESTED for path in (ROOT / name).rglob("*") if path.is_file()]
    tested = {path.relative_to(ROOT).as_posix() for path in paths if not {*CACHES} & {*path.parts}}
    assert names - asides == PACKAGE | tested | set(top.split())


def test_the_wheel_holds_the_package_and_its_licenses_and_no_more(built):
    info = f"mnist_ce-{settings()['version']}.dist-info"
    licenses = settings()["license_files"].split()
    with ZipFile(built[1]) as wheel:
        told = "METADATA RECORD WHEEL entry_points.txt top_level.txt".split()
        told += [f"licenses/{name}" for name in licenses]
        assert set(wheel.namelist()) == PACKAGE | {f"{info}/{name}" for name in told}
        for name in PACKAGE:
            assert wheel.read(name) == (ROOT / name).read_bytes(), name
        for name in licenses:
            assert wheel.read(f"{info}/licenses/{name}") == (ROOT / name).read_bytes(), name


def test_the_metadata(built):
    with ZipFile(built[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        told = message_from_bytes(wheel.read(name))
    assert told["License-Expression"] == "Apache-2.0 AND CC-BY-SA-3.0" and told["License"] is None
    assert told.get_all("License-File") == ["LICENSE", "mnist_ce/mnist.npz.license"]
    assert not any(line.startswith("License") for line in told.get_all("Classifier"))
    assert "Yann LeCun, Corinna Cortes and Christopher Burges" in told["Author"]
    assert told["Requires-Python"] == ">=3.10" and told["Version"] == settings()["version"]
    always = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(always) == sorted(settings()["requirements"].split())
    urls = told.get_all("Project-URL")
    assert "License of the data, https://creativecommons.org/licenses/by-sa/3.0/" in urls
    for line in urls:
        assert re.fullmatch(r"[^,]+, https://\S+", line)
    assert told["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text()
    assert len(told.get_payload(decode=True).decode().splitlines()) == len(readme.splitlines())


def test_the_main_job_runs_where_only_the_wheel_is(elsewhere, sample):
    program = elsewhere / "env" / "bin" / "mnist-ce"
    where = "from importlib.util import find_spec; print(find_spec('mnist_ce').origin)"
    origin = Path(call(elsewhere / "env" / "bin" / "python", "-c", where, cwd=elsewhere).strip())
    assert elsewhere / "env" in origin.parents
    few = "--seeds", 2, "--orders", 2, "--published", 2, "--epochs", 2, "--device", "cpu"
    text = call(program, "compare", *few, cwd=elsewhere)
    assert re.search(r"^cross_entropy .* 0\.5112 +0\.5112 +no model left +2 of 2$", text, re.M)
    settings_of_one = dict(epochs=2, seed=1, data_seed=1, device="cpu", progress=False)
    ours = fit(cross_entropy_loss, *sample, **settings_of_one)
    (report,) = elsewhere.glob("runs/*.json")
    runs = json.loads(report.read_text())
    (k,) = [
        k for k, model in enumerate(zip(runs["loss"], runs["seed"], runs["data_seed"]))
        if model == ("cross_entropy_loss", 1, 1)
    ]  # fmt: skip
    assert runs["accuracy"][k][-1] == pytest.approx(ours.history[-1].accuracy, abs=1.5 / 2038)
    assert runs["record"]["versions"]["mnist_ce"] == settings()["version"]
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def pins(name):
    """The pins in a file of constraints: {(package, version)}."""
    text = (ROOT / "constraints" / f"{name}.txt").read_text()
    return set(re.findall(r"^([\w-]+)==(\S+)", text, re.M))


def test_the_pins_agree_and_the_lowest_are_the_stated_bounds():
    assert pins("core") < pins("dev")
    for line in settings()["requirements"].split():
        package, bound = line.split(">=")
        (lowest,) = [Version(version) for name, version in pins("lowest") if name == package]
        pinned = [Version(version) for name, version in pins("core") if name == package]
        assert lowest == Version(bound) and pinned and min(pinned) >= lowest


def test_the_sources_are_of_the_oldest_python():
    oldest = tuple(map(int, settings()["min_python"].split(".")))
    for path in sorted((ROOT / "mnist_ce").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=oldest)):
            # What `feature_version` lets through, though it is Python 3.11's.
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
                stars = [part for part in node.slice.elts if isinstance(part, ast.Starred)]
                assert not stars, f"{path.name}, line {node.lineno}: a star in an index"
