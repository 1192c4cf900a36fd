"""The README's commands and examples do what it says; its Python cells run in test_notebooks.py."""
import json
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from mnist_ce import cli, data
from mnist_ce.data import Digits, mnist
from mnist_ce.results import Run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
SHELL = [line.partition("#")[0].strip() for kind, text in FENCED if kind == "sh" for line in text.splitlines()]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
COMMANDS = [line.removeprefix(".venv/bin/") for line in [*SHELL, *INLINE]]


def beginning(*words):
    """The README's commands that begin with one of `words`, once each."""
    return [command for command in dict.fromkeys(COMMANDS) if command.split()[0] in words and " " in command]


MY_LOSSES = """
from torch.nn.functional import multi_margin_loss


def my_loss(scores, targets):
    return multi_margin_loss(scores, targets)
"""


@pytest.fixture
def visitor(tmp_path, monkeypatch):
    """A folder with a loss of the visitor's own, and a command line that reads every twentieth image."""
    (tmp_path / "my_losses.py").write_text(MY_LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "mnist", lambda source, digits: tuple(part[::20] for part in mnist(source, digits)))
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)


def test_every_block_is_tested():
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text())["cells"]
    run = [re.sub(r"\n\n+", "\n\n", "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    blocks = [text.rstrip() for kind, text in FENCED if kind == "python"]
    (loop,) = [text for text in blocks if text not in run]
    assert loop.startswith("for xb, yb in loader:"), "the doctor's example, which a hidden cell runs"
    assert {kind for kind, _ in FENCED} == {"python", "sh"}
    assert {command.split()[0] for command in SHELL} == {"make", "pip", "jupyter", "mnist-ce", "torchrun"}


@pytest.mark.parametrize("command", beginning("mnist-ce", "torchrun"))
def test_a_command_is_understood(command, visitor):
    name, *rest = shlex.split(re.sub(r"^torchrun --nproc-per-node \d+ -m mnist_ce", "mnist-ce", command))[1:]
    if "--help" in (name, *rest):
        done = CliRunner().invoke(cli.main, [name, *rest])
        assert done.exit_code == 0 and "Usage" in done.output
    else:
        cli.main.get_command(click.Context(cli.main), name).make_context(name, rest)


# The others take a visitor's minutes, and test_cli.py, test_networks.py and the index run what they run.
@pytest.mark.parametrize(
    "command, small, prints",
    [
        ("mnist-ce compare --loss my_losses:my_loss", "--seeds 2 --orders 2 --epochs 1 --published 0", "my_loss - softmax_loss"),
        ("mnist-ce sweep", "--seeds 1 --lrs 0.1:1:2 --epochs 1", "cross_entropy_loss"),
        ("mnist-ce doctor my_losses:my_loss", "", "hides-nan"),
    ],
)
def test_a_command_runs(command, small, prints, visitor):
    assert command in COMMANDS
    done = CliRunner().invoke(cli.main, shlex.split(command)[1:] + small.split())
    assert prints in done.stdout and done.exit_code == (prints == "hides-nan"), done.output


def test_make_knows_its_targets():
    targets = beginning("make")
    assert {"make run", "make test"} <= {*targets}
    for command in targets:
        done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_pip_and_jupyter_find_what_is_named():
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    tools = [re.split(r"[><=]", tool)[0] for tool in config["DEFAULT"]["dev_requirements"].split()]
    pip = [shlex.split(command)[2:] for command in beginning("pip")]
    assert pip == [[".[dev]"], ["."], ["fastai"]] and {"fastai", "jupyterlab"} <= {*tools}
    assert beginning("jupyter") == ["jupyter lab nbs"] and (ROOT / "nbs").is_dir()


def test_methods_have_the_names_that_it_gives():
    of = dict(run=Run, Digits=Digits, train=Digits, valid=Digits)
    named = re.findall(r"\b(run|Digits|train|valid)\.(\w+)", "\n".join(part for part in INLINE if ".py" not in part))
    assert ("Digits", "of") in named
    for owner, name in named:
        assert hasattr(of[owner], name) or name in of[owner].__annotations__, f"{owner}.{name}"


def test_one_screen_tells_the_story_the_two_commands_and_the_doctor():
    screen = README.partition("## ")[0]
    found = [screen.index(part) for part in ("![", "make run", "make test", "mnist-ce doctor train.py", "✗ FAIL")]
    assert "0.5112" in screen and found == sorted(found) and len(screen.splitlines()) < 60
    assert len(screen.partition("make run")[0].splitlines()) < 20, "the commands are seen first"
    with Image.open(ROOT / re.search(r"!\[[^]]*\]\((.+?)\)", screen)[1]) as picture:
        assert picture.width <= 600 and picture.height < 700, "GitHub shows it in its own pixels: room for the commands"
    assert max(map(len, re.findall(r"^ {4}.*$|^for .*$", screen, re.M))) < 90, "no scrolling sideways"


def test_links_within_the_readme_lead_to_a_heading():
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", README, re.M)}
    assert {*re.findall(r"\]\(#([^)]+)\)", README)} <= headings


def test_the_share_of_right_answers_is_written_in_the_way_that_fits_ints_and_names():
    lesson = json.loads((ROOT / "nbs" / "15_your_own.ipynb").read_text())["cells"]
    for text in README, "\n".join("".join(cell["source"]) for cell in lesson):
        shares = re.findall(r"== \w+\.digits\)\S*(?: / len\()?", text)
        assert shares and {share.partition(")")[2] for share in shares} == {".sum() / len("}
