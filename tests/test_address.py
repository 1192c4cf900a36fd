"""The project's address, once it has one: stamped into a copy, and read where others read it."""
import json
import os
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path

import pytest
from test_package import settings

ROOT = Path(__file__).parent.parent
FILES = "CITATION.cff LICENSE MANIFEST.in README.md pyproject.toml settings.ini setup.py".split()
LESSONS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
COLAB = "https://colab.research.google.com/github/some-one/mnist.ce/blob/main/nbs/{}"
BINDER = "https://mybinder.org/v2/gh/some-one/mnist.ce/main?urlpath=lab/tree/nbs/{}"
doclinks = pytest.importorskip("nbdev.doclinks", reason="nbdev is a development tool")


def python(folder, *arguments):
    env = dict(os.environ, PYTHONPATH=str(folder))
    command = sys.executable, *arguments
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def copy_to(folder):
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in "mnist_ce", "nbs":
        ignore = shutil.ignore_patterns("*.npz", "__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


def texts(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def stamp(folder, repository):
    done = python(folder, "nbs/address.py", repository)
    assert done.returncode == 0, done.stderr
    return texts(folder)


@pytest.fixture(scope="module")
def stamped(tmp_path_factory):
    """What `make address REPOSITORY=some-one/mnist.ce` makes of a copy."""
    folder = copy_to(tmp_path_factory.mktemp("stamped"))
    stamp(folder, "some-one/mnist.ce")
    export = "from nbdev.doclinks import nbdev_export; nbdev_export()"
    for command in ["-c", export], ["nbs/readme.py"]:
        done = python(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def cells_of(folder, name):
    return json.loads((folder / "nbs" / name).read_text())["cells"]


def test_stamping_twice_changes_nothing_and_another_address_takes_the_place_of_the_first(tmp_path):
    folder = copy_to(tmp_path)
    once = stamp(folder, "some-one/mnist.ce")
    assert stamp(folder, "some-one/mnist.ce") == once
    assert not any(b"some-one" in text for text in stamp(folder, "other/mnist").values())
    assert stamp(folder, "some-one/mnist.ce") == once


@pytest.mark.parametrize("wrong", ["", "mnist_ce", "https://github.com/some-one/mnist_ce", "a/b/c"])
def test_what_is_no_repository_is_refused(tmp_path, wrong):
    folder = copy_to(tmp_path)
    before = texts(folder)
    done = python(folder, "nbs/address.py", *wrong.split())
    assert done.returncode == 1 and "make address REPOSITORY=owner/name" in done.stderr
    assert repr(wrong) in done.stderr and len(done.stderr.splitlines()) == 1
    assert texts(folder) == before


def test_the_badges_lead_to_the_lesson_they_stand_in(stamped):
    for path in LESSONS:
        head = "".join(cells_of(stamped, path.name)[0]["source"])
        urls = re.findall(r"\[!\[Open in \w+\]\(https://\S+\.svg\)\]\((\S+)\)", head)
        assert urls == [COLAB.format(path.name), BINDER.format(path.name)]
        assert re.match(r"# .+\n\n> .+\n\n\*\*You need:\*\* .+\n\n\[!\[.+\n\n", head)
    readme = (stamped / "README.md").read_text()
    first = LESSONS[0].name
    assert f"({COLAB.format(first)}) " in readme and f"({BINDER.format(first)})\n\n" in readme


def test_the_first_cell_fetches_the_course_only_where_it_is_missing(stamped, tmp_path, monkeypatch):
    from IPython.core.inputtransformer2 import TransformerManager

    transform, done = TransformerManager().transform_cell, []

    class Shell:
        system = done.append

        @staticmethod
        def run_line_magic(*words):
            done.append("%" + " ".join(words))

    def run(name):
        done.clear()
        source = "".join(cells_of(stamped, name)[1]["source"])
        assert max(map(len, source.splitlines())) <= 88  # as in all lessons
        exec(transform(source), dict(get_ipython=lambda: Shell))
        return done

    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "nbs").mkdir()
    monkeypatch.chdir(tmp_path / "nbs")
    assert not [line for path in LESSONS for line in run(path.name)]
    monkeypatch.chdir(tmp_path)
    clone = "git clone -q --depth 1 https://github.com/some-one/mnist.ce"
    for path in LESSONS:
        more = " fastai fastbook" if path.name == "13_fastai.ipynb" else ""
        steps = [clone, f"%pip install -q ./mnist.ce{more}", "%cd -q mnist.ce/nbs"]
        assert run(path.name) == steps
    (tmp_path / "mnist.ce").mkdir()  # after the kernel was restarted
    assert run(LESSONS[0].name) == ["%pip install -q ./mnist.ce", "%cd -q mnist.ce/nbs"]


def test_a_stamped_lesson_is_clean(stamped):
    path = stamped / "nbs" / LESSONS[0].name
    before = path.read_text()
    code = "import sys; from nbdev.clean import nbdev_clean; nbdev_clean(sys.argv[1])"
    assert python(stamped, "-c", code, str(path)).returncode == 0 and path.read_text() == before


def test_other_projects_pages_link_to_ours(stamped):
    index = {}
    exec((stamped / "mnist_ce" / "_modidx.py").read_text(), index)
    symbols = doclinks._qual_syms(index["d"])["syms"]["mnist_ce.data"]
    page, _, source = symbols["mnist_ce.data.Digits.of"]
    assert page == "https://some-one.github.io/mnist.ce/reference/data.html#digits.of"
    assert source == "https://github.com/some-one/mnist.ce/blob/main/mnist_ce/data.py"


def test_a_package_index_shows_pictures_and_links(stamped):
    code = "from setuptools import build_meta as it; it.prepare_metadata_for_build_wheel('told')"
    (stamped / "told").mkdir()
    done = python(stamped, "-c", code)
    assert done.returncode == 0, done.stderr
    told = message_from_bytes(next((stamped / "told").glob("*/METADATA")).read_bytes())
    urls = dict(line.split(", ") for line in told.get_all("Project-URL"))
    assert urls["Repository"] == "https://github.com/some-one/mnist.ce"
    assert urls["Documentation"] == "https://some-one.github.io/mnist.ce/"
    text, tag = told.get_payload(decode=True).decode(), f"v{settings()['version']}"
    raw = f"https://raw.githubusercontent.com/some-one/mnist.ce/{tag}/nbs/figures/index_1.png"
    lesson = f"https://github.com/some-one/mnist.ce/blob/{tag}/nbs/00_frozen_accuracy.ipynb"
    assert f"]({raw})" in text and f"| [00 The frozen accuracy]({lesson}) | " in text
    assert_no_relative_link(text)
    files = set(re.findall(rf"mnist\.ce/(?:blob/)?{re.escape(tag)}/([^)#]+)", text))
    assert len(files) > 40 and all((ROOT / name).exists() for name in files)


def assert_no_relative_link(text):
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(targets) >= 3 and not [t for t in targets if not re.match("https://|#", t)], targets


def test_without_an_address_a_package_index_shows_words(tmp_path):
    for name in [*FILES, "mnist_ce"]:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "settings.ini").unlink()
    text = re.sub("(?m)^repository =.*$", "repository =", (ROOT / "settings.ini").read_text())
    (tmp_path / "settings.ini").write_text(text)
    told = "import setuptools; setuptools.setup = lambda **told: print(told['long_description'])"
    text = python(tmp_path, "-c", f"{told}; import setup").stdout
    assert_no_relative_link(text)
    assert "\n*The accuracy printed with log(softmax): 0.5112, ten times." in text
    assert "| 00 The frozen accuracy | " in text


def test_what_is_committed_is_stamped_with_its_own_address(tmp_path):
    folder, repository = copy_to(tmp_path), settings()["repository"]
    before = texts(folder)
    assert not repository or stamp(folder, repository) == before
    assert bool(repository) == (b"Open in Colab" in before[Path("README.md")])


def test_the_citation(stamped):
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((stamped / "CITATION.cff").read_text())
    assert cited["repository-code"] == "https://github.com/some-one/mnist.ce"
    assert " AND ".join(cited["license"]) == settings()["license"]
    people = [author["family-names"] for work in cited["references"] for author in work["authors"]]
    assert people == "LeCun Cortes Burges Howard Gugger".split()


@pytest.mark.parametrize(
    "tag, repository, told",
    [
        ("v{}", "some-one/mnist.ce", ""),
        ("v9.9.9", "some-one/mnist.ce", "tag v9.9.9, but settings.ini has version {}"),
        ("v{}", "other/fork", "run make address REPOSITORY=other/fork, commit, and tag again"),
    ],
)
def test_a_tag_is_published_only_where_it_is_the_version(stamped, tmp_path, tag, repository, told):
    yaml, version = pytest.importorskip("yaml"), settings()["version"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())["jobs"]
    (script,) = [step["run"] for step in jobs["release"]["steps"] if "run" in step]
    shutil.copy(stamped / "settings.ini", tmp_path)
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    env = dict(os.environ, GITHUB_REF_NAME=tag.format(version), GITHUB_REPOSITORY=repository)
    command = "bash", "-e", "-c", script
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == bool(told) and told.format(version) in done.stdout
    assert jobs["publish"]["needs"] == "package" and jobs["package"]["needs"] == "release"
    assert jobs["publish"]["environment"] == "pypi"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
