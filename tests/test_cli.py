"""The command line as a user meets it, alone and in several processes, and what importing costs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from mnist_ce import cli, original
from mnist_ce.data import mnist
from mnist_ce.doctor import examine
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.metrics import accuracy
from mnist_ce.networks import MODELS
from mnist_ce.original import EXPERIMENTS
from mnist_ce.results import Runs, plain
from mnist_ce.training import load_run, this_thread

OURS = ["mnist_loss", "softmax_loss", "cross_entropy_loss"]


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [*map(str, arguments)])


def told(*arguments):
    """What a command prints, if it ends well: in 80 columns, but for the names of files."""
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if len(line) > 80 and "/" not in line] == []
    return done.stdout


def strict(path):
    """The content of a JSON file; NaN and infinities are none of it."""
    return json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{path}: {word}"))


def report_in(folder):
    (path,) = folder.glob("*.json")
    return strict(path)


@pytest.fixture
def few(monkeypatch):
    """The command line reads every twentieth image."""
    some = lambda data, digits: tuple(part[::20] for part in mnist(data, digits))
    monkeypatch.setattr(cli.data, "mnist", some)


@pytest.fixture
def fewer(few, monkeypatch):
    """So do the published runs."""
    monkeypatch.setattr(original, "mnist_sample", lambda: cli.data.mnist("bundle", (7, 3)))


@pytest.fixture
def strangers(tmp_path, monkeypatch, request):
    """A module in the current folder, with a loss that is not ours: its name."""
    name = "strangers_" + re.sub(r"\W", "_", request.node.name)
    (tmp_path / f"{name}.py").write_text(textwrap.dedent("""
        import torch.nn.functional as F

        def focal(preds, targets):
            right = F.softmax(preds, 1).gather(1, targets.view(-1, 1))
            return (-(1 - right) ** 2 * right.log()).mean()
    """))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return name


def row(text, name):
    """The cells of the row of a table that begins with `name`; a wide one goes on in another."""
    rows = [re.split(r"  +", line) for line in text.splitlines()]
    for cells, (below, *_) in zip(rows, rows[1:]):  # a name on two lines
        if below.startswith("- ") and not below.startswith("---"):
            cells[0] += f" {below.strip()}"
    first, *others = [cells for cells in rows if cells[0] == name]
    return first + [cell for cells in others for cell in cells[1:]]


def test_compare_prints_the_published_finding_and_its_truth(tmp_path):
    once = "--seeds", 1, "--orders", 1, "--epochs", 1, "--loss", "softmax_loss"
    text = told("compare", *once, "--published", 3, "--output", tmp_path)
    published = text[: text.index("DONE RIGHT")]
    assert row(published, "cross_entropy")[1:] == ["0.5112", "0.5112", "no model left", "3 of 3"]
    raw = report_in(tmp_path)["published"]
    for name, kept in raw.items():
        assert kept["seed"] == [0, 1, 2] and kept["record"]["settings"]["experiment"] == name
        reported = sum(epochs[-1] for epochs in kept["reported"]) / 3
        assert row(published, name)[1] == f"{reported:.4f}"
    assert all(epochs[-1] is None for epochs in raw["cross_entropy"]["true_accuracy"])
    true = sum(epochs[-1] for epochs in raw["softmax"]["true_accuracy"]) / 3
    assert row(published, "softmax")[3:] == [f"{true:.4f}", "0 of 3"] and true < 0.06
    assert "one model of each loss" in text


def test_each_published_column_holds_what_its_header_says():
    runs, published = {}, {}
    for k, name in enumerate(cli._PUBLISHED):
        last = torch.tensor([0.1, 0.3]) + k / 10
        true = torch.tensor([0.2, torch.nan]) + k / 100 if k else torch.full((2,), torch.nan)
        scores = dict(reported=torch.stack([last / 2, last]), true_accuracy=torch.stack([true / 2, true]))
        nothing = torch.zeros(2, 2)
        runs[name] = Runs(scores, dict(seed=[0, 1]), torch.tensor([0, 5 if k < 1 else -1]), nothing, [], (7, 3))
        published[name] = f"{EXPERIMENTS[name].accuracy[-1]:.4f}"
    header, _, *lines = str(cli._published_table(runs)).splitlines()
    rows = [dict(zip(re.split("  +", header), re.split("  +", line), strict=True)) for line in lines]
    truths, broke = ["no model left", "0.2100", "0.2200"], ["2 of 2", "1 of 2", "1 of 2"]
    for k, (row, name) in enumerate(zip(rows, cli._PUBLISHED, strict=True)):
        assert row == {
            "loss": name, "it prints": f"{0.2 + k / 10:.4f}",
            "published": published[name], "true accuracy": truths[k], "broke": broke[k],
        }  # fmt: skip


def test_compare_prints_what_it_writes(tmp_path):
    settings = "--seeds", 3, "--orders", 2, "--epochs", 2, "--published", 0
    text = told("compare", *settings, "--output", tmp_path)
    report = report_in(tmp_path)
    assert "AS PUBLISHED" not in text and report["published"] == {}
    assert report["loss"] == [name for name in OURS for _ in range(6)]
    assert report["seed"] == [0, 1, 2] * 6 and report["data_seed"] == [0, 0, 0, 1, 1, 1] * 3
    assert report["record"]["settings"]["digits"] == [7, 3] and report["record"]["command"]
    for k, name in enumerate(OURS):
        last = [epochs[-1] for epochs in report["accuracy"][6 * k : 6 * k + 6]]
        assert row(text, name)[1:3] == ["6", f"{sum(last) / 6:.4f}"]
    assert "covers 3 seeds of the initial weights and 2 orders of the batches" in " ".join(text.split())
    (path,) = tmp_path.glob("*.json")
    assert str(path) in text and path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_other_digits_were_never_published_and_one_column_tells_two_apart(tmp_path):
    settings = "--seeds", 2, "--orders", 1, "--epochs", 1, "--published", 2, "--lr", 0.1
    text = told("compare", "--digits", "0-9", *settings, "--output", tmp_path)
    report = report_in(tmp_path)
    assert "AS PUBLISHED" not in text and "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in text
    assert report["loss"] == ["softmax_loss"] * 2 + ["cross_entropy_loss"] * 2
    assert set(report["lr"]) == {0.1} and report["classes"] == list(range(10))
    assert min(epochs[-1] for epochs in report["accuracy"][2:]) > 0.85


def test_batches_in_one_order_have_no_others(few, tmp_path):
    settings = "--seeds", 2, "--orders", 3, "--epochs", 1, "--published", 0, "--no-shuffle"
    text = told("compare", *settings, "--output", tmp_path)
    assert set(report_in(tmp_path)["data_seed"]) == {0} and "orders" not in text


def test_a_loss_of_the_users_own_is_compared_beside_ours(few, strangers, tmp_path):
    settings = "--seeds", 2, "--orders", 2, "--epochs", 3, "--published", 0
    own = "--loss", f"{strangers}:focal", "--loss", "torch.nn:CrossEntropyLoss"
    text = told("compare", *own, *settings, "--output", tmp_path)
    report = report_in(tmp_path)
    assert list(dict.fromkeys(report["loss"])) == [*OURS, "focal", "CrossEntropyLoss"]
    assert row(text, "CrossEntropyLoss - cross_entropy_loss")[2] == "+0.0000"
    assert float(row(text, "focal")[2]) > 0.9 and row(text, "focal - mnist_loss")
    report = report_in(tmp_path)
    assert report["accuracy"][8:12] == report["accuracy"][16:]


def test_sweep_trains_each_rate_from_each_seed(tmp_path):
    rates = "--lrs", "0.1:10:3", "--seeds", 2, "--epochs", 1
    text = told("sweep", "--loss", "softmax_loss", *rates, "--output", tmp_path)
    report = report_in(tmp_path)
    assert report["lr"] == pytest.approx([0.1, 0.1, 1, 1, 10, 10]) and report["seed"] == [0, 1] * 3
    ones = [epochs[-1] for epochs in report["accuracy"][2:4]]
    assert row(text, "1")[1].startswith(f"{sum(ones) / 2:.4f} ± ")
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_the_data_seed_changes_the_order_alone(few, tmp_path):
    settings = "--loss", "mnist_loss", "--seeds", 2, "--lrs", "0.1:1:2", "--epochs", 1
    for seed in "0", "1":
        told("sweep", *settings, "--data-seed", seed, "--output", f"{tmp_path / seed}/")
    one, other = (report_in(tmp_path / seed) for seed in "01")
    assert set(one["data_seed"]) == {0} and set(other["data_seed"]) == {1}
    assert one["seed"] == other["seed"] and one["train_loss"] != other["train_loss"]


def test_all_options_of_train_reach_the_run(few, tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    given = dict(epochs=2, seed=5, lr=0.37, batch_size=64, data_seed=3, init_std=0.5)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    text = told("train", *options, "--no-shuffle", "--digits", "2,4", "--output", path)
    run = load_run(path)
    settings = given | dict(shuffle=False, model="linear", digits=[2, 4], data="bundle")
    assert {name: run.settings[name] for name in settings} == settings
    assert run.classes == (2, 4) and f"{run.history[-1].accuracy:.4f}" in text


PAIRS = [(loss, model) for loss in OURS for model in MODELS]
PAIRS += [("torch.nn.functional:cross_entropy", "mlp"), ("torch.nn:BCEWithLogitsLoss", "mlp")]


@pytest.mark.parametrize("loss, model", PAIRS)
@pytest.mark.parametrize("digits", ["7,3", "0-2"])
def test_the_printed_lines_read_the_model_back(few, tmp_path, loss, model, digits):
    path = tmp_path / "a model's.safetensors"
    arguments = "train", "--digits", digits, "--loss", loss, "--model", model, "--epochs", 1
    if loss == "mnist_loss" and digits == "0-2":
        refused = invoke(*arguments, "--output", path)
        assert refused.exit_code == 2 and "one column" in refused.output and not path.exists()
        return
    text, names = told(*arguments, "--output", path), {}
    exec(text[text.index("read it with") + len("read it with") :], names)
    run, (_, valid) = (
        names["run"],
        cli.data.mnist("bundle", cli._DigitList().convert(digits, None, None)),
    )
    accuracy = (run.predict(valid) == valid.digits).double().mean().item()
    assert f"{accuracy:.4f}" in text and accuracy == pytest.approx(run.accuracy[-1].item())


def test_a_loss_that_rises_is_warned_of_in_one_line(few, tmp_path):
    arguments = "train", "--loss", "mnist_ce.original:target_probability", "--epochs", 1
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as for users
        done = invoke(*arguments, "--output", tmp_path / "model.safetensors")
    assert done.exit_code == 0
    (line,) = [line for line in done.output.splitlines() if "warning" in line]
    assert line.startswith("warning: target_probability rises")


def test_a_loss_that_breaks_ends_with_exit_code_1(tmp_path):
    loss = "--loss", "mnist_ce.original:log_of_softmax", "--init-std", 1, "--no-shuffle"
    done = invoke("train", *loss, "--output", tmp_path / "model.safetensors")
    assert done.exit_code == 1 and not (tmp_path / "model.safetensors").exists()
    assert re.search(
        r"Error: training stopped: the .* is .* in epoch 1, batch \d+$", done.output, re.M
    )


def test_a_loss_that_grew_until_it_broke_names_the_rate(tmp_path):
    (tmp_path / "mine.py").write_text("def squares(scores, targets):\n    return (scores[:, 0] - targets).square().mean()\n")
    arguments = "train", "--loss", f"{tmp_path}/mine.py:squares", "--epochs", 1, "--output", tmp_path / "model.safetensors"
    done = invoke(*arguments)
    words = "had grown to .*, where scores of 0 have .*: lr=1 is too large for it, write lr=0.01$"
    assert done.exit_code == 1 and re.search(rf"Error: training stopped: the loss is inf in epoch 1, .*: the loss {words}", done.output, re.M)
    assert invoke(*arguments, "--lr", 0.01).exit_code == 0


def test_the_doctor_ends_with_1_where_a_check_fails():
    ill = invoke("doctor", "mnist_ce.original:log_of_softmax")
    assert ill.exit_code == 1 and "FAIL" in ill.stdout
    well = invoke("doctor", "torch.nn:CrossEntropyLoss", "--columns", 10)
    assert well.exit_code == 0 and "FAIL" not in well.stdout


def test_all_that_the_doctor_is_given_reaches_it(monkeypatch, tmp_path):
    given, examine = [], cli.doctor.examine
    monkeypatch.setattr("mnist_ce.doctor.examine", lambda *a, **o: given.append((a, o)) or examine(*a, **o))
    metric, answer = "mnist_ce.metrics:accuracy", tmp_path / "report.json"
    invoke("doctor", "cross_entropy_loss", "--metric", metric, "--columns", 4, "--answer", answer)
    assert given == [((cross_entropy_loss,), dict(metric=accuracy, columns=4))]


@pytest.mark.parametrize(
    "body, seconds, said",
    [  # time enough for a busy machine to start Python in, where it is not the time that is tried
        ("os._exit(0)", 60, "exit code 0"),
        ("os.kill(os.getpid(), 9)", 60, "signal 9"),
        ("time.sleep(60)", 8, "no report after 8 s"),
    ],
)
def test_a_loss_that_ends_its_process_is_told_in_one_line(body, seconds, said, tmp_path, monkeypatch):
    text = f"import os, time\ndef loss(z, y):\n    print('text of its own')\n    {body}\n"
    (tmp_path / "ends.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    done = invoke("doctor", "ends:loss", "--seconds", seconds)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: your code left the doctor without a report: {said}")


def test_a_folder_without_one_of_the_digits_is_refused(tmp_path):
    (tmp_path / "train" / "3").mkdir(parents=True)
    model = tmp_path / "model.safetensors"
    done = invoke("train", "--digits", "3,8", "--data", tmp_path, "--output", model)
    assert done.exit_code == 2 and "no images of the digit 3" in done.output and not model.exists()


STRANGE = {
    "syntax.py": b"x = 1\ndef loss(p, t:\n",
    "raises.py": b"import os\n\nx = 1 / 0\n",
    "exits.py": b"raise SystemExit(3)\n",
    "bytes.py": b"\0\xff",
}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["compare", "--speed", "high"], "--speed"),
        (["compare", "--loss", "hinge"], "'hinge' is not mnist_loss, softmax_loss, cross_entropy_loss, or"),
        (["compare", "--loss", "cross_entropy"], "did you mean cross_entropy_loss?"),
        (["compare", "--loss", "my.loss"], "write my:loss"),
        (["compare", "--loss", "./my.py"], "write ./my.py:NAME"),
        (["compare", "--loss", "no/such.py:loss"], "there is no file no/such.py"),
        (["compare", "--loss", "syntax.py:loss"], "syntax.py, line 2: SyntaxError: "),
        (["compare", "--loss", "raises.py:loss"], "raises.py, line 3: ZeroDivisionError: division by zero"),
        (["compare", "--loss", "raises:loss"], "raises.py, line 3: ZeroDivisionError: division by zero"),
        (["compare", "--loss", "exits.py:loss"], "exits.py, line 1: SystemExit: 3"),
        (["compare", "--loss", "bytes.py:loss"], "bytes.py, line 1: SyntaxError: "),
        (["compare", "--loss", "math:cosh1"], "it has no cosh1, but a cosh"),
        (["compare", "--loss", "math:pi"], "'math:pi' is not a function"),
        (["compare", "--seeds", "1e3"], "'1e3' is not a valid integer"),
        (["compare", "--seeds", "1000000000"], "1<=x<=100000"),
        (["compare", "--seeds", "100000", "--orders", "100000"], "too many"),
        (["sweep", "--lrs", "1:2:1000000000"], "a count of 2 to 1000"),
        (["autopsy", "--seeds", "1000000000"], "2<=x<=100000"),
        (["train", "--seed", "9" * 30], "must be an int from 0 to 2**32 - 1"),
        (["train", "--lr", "nan"], "lr=nan must be a number above 0"),
        (["train", "--device", "cuda:999"], "'cuda:999' is no device"),
        (["compare", "--output", "mine.csv"], "write --output mine"),
        (["compare", "--output", ""], "--output is empty"),
        (["compare", "--output", "/proc/mine"], "cannot write to /proc"),
        (["compare", "--output", "exits.py/mine"], "cannot write to exits.py"),
        (["compare", "--resume", "."], "there is no command.json, nothing to go on with"),
        (["train", "--resume", "a folder"], "there is no a folder.safetensors, nothing to go on with"),
        (["train", "--resume", "exits.py", "--output", "x"], "leave out --output"),
        (["train", "--jsn"], "Did you mean"),
        (["trian"], "trian"),
        (["doctor"], "there is nothing to examine"),
        (["doctor", "a folder"], "is no script: name a .py file"),
        (["doctor", "x.py", "--metric", "m:f"], "x.py: there is no such script"),
        (["doctor", "math:cos", "--seconds", "nan"], "--seconds nan must be"),
        (["doctor", "math:cos", "--columns", "1000000000"], "1<=x<=100000"),
        (["compare", "--loss", "torch.nn:NLLLoss"], "takes log-probabilities"),
        (["compare", "--loss", "no_such_module:loss"], "No module named 'no_such_module'"),
        (["compare", "--seeds", "0"], "'--seeds': 0"),
        (["compare", "--orders", "0"], "'--orders': 0"),
        (["compare", "--published", "-1"], "'--published': -1"),
        (["sweep", "--lrs", "10:1:3"], "10:1:3"),
        (["sweep", "--lrs", "0:1:3"], "0:1:3"),
        (["sweep", "--lrs", "1:2:1"], "1:2:1"),
        (["sweep", "--lrs", "fast"], "fast"),
        (["compare", "--published", "0", "--epochs", "0"], "epochs=0"),
        (["compare", "--published", "0", "--lr", "-1"], "lr=-1.0"),
        (["compare", "--published", "0", "--batch-size", "0"], "batch_size=0"),
        (["compare", "--data", "no/such/folder"], "no/such/folder"),
        (["train", "--device", "gpu"], "gpu"),
        (["train", "--epochs", "many"], "many"),
        (["train", "--digits", "3"], "'3' is one digit alone"),
        (["train", "--digits", "3,3"], "'3,3' has a digit twice"),
        (["compare", "--digits", "three"], "'three' is not digits such as"),
        (["compare", "--digits", ""], "'' is not digits such as"),
        (
            ["compare", "--digits", "0-9", "--loss", "mnist_loss"],
            "mnist_loss scores one column, which tells 2 classes apart, not 10",
        ),
        (["train", "--model", "resnet"], "resnet"),
        (["train", "--model", "mlp", "--init-std", "1"], "--init-std is for the linear model"),
        (["autopilot"], "autopilot"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_options_end_with_exit_code_2(arguments, words, tmp_path, monkeypatch):
    named = len(arguments) < 2 or {"--output", "--resume"} & {*arguments} or arguments[0] == "doctor"
    for name, text in STRANGE.items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments, *([] if named else ["--output", tmp_path / "out"]))
    for name in "raises", "exits":
        sys.modules.pop(name, None)
    assert done.exit_code == 2 and words in done.output
    assert isinstance(done.exception, SystemExit), "no traceback"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to give")
def test_cuda_that_is_not_there(tmp_path):
    done = invoke("compare", "--device", "cuda", "--output", tmp_path)
    assert done.exit_code == 2 and "0 CUDA devices" in done.output


@pytest.mark.parametrize("command", ["compare", "sweep", "train", "autopsy"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(command, tmp_path):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "folder"
    done = invoke(command, "--output", output / "model.safetensors" if command == "train" else output)
    assert done.exit_code == 2 and "cannot write to" in done.output


def test_the_autopsy_writes_a_page_and_its_values(tmp_path):
    text = told("autopsy", "--seeds", 3, "--factorial-seeds", 2, "--output", tmp_path)
    (page,) = tmp_path.glob("*.html")
    assert page.read_text().count("data:image/png") == 2
    values = report_in(tmp_path)
    assert len(set(values["factorial"]["combination"])) == 128
    assert len(values["factorial"]["reported"]) == 256
    broken = values["reproductions"]["cross_entropy"]
    assert [len(epochs) for epochs in broken["reported"]] == [10] * 3
    assert [round(epochs[-1], 4) for epochs in broken["reported"]] == [0.5112] * 3
    assert "40 of 128 combinations: freezes" in text


# ---- What every command has in common.

SMALL = {
    "compare": "--seeds 2 --orders 1 --epochs 1 --published 2 --loss softmax_loss",
    "sweep": "--seeds 2 --lrs 0.1:1:2 --epochs 1 --loss softmax_loss",
    "train": "--epochs 1",
    "autopsy": "--seeds 2 --factorial-seeds 2",
}
KINDS = dict(compare=".json .png", sweep=".json .png", train=".safetensors", autopsy=".json .html")


@pytest.mark.parametrize("command", SMALL)
def test_output_json_quiet_and_force_mean_the_same_everywhere(fewer, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, kinds = [command, *SMALL[command].split()], KINDS[command].split()
    if command == "autopsy":  # 128 combinations four times are too slow, and so is drawing them
        combined = original.factorial(range(2), epochs=1, progress=False)
        monkeypatch.setattr(cli.original, "factorial", lambda *given, **options: combined)
        monkeypatch.setattr(cli.plots, "autopsy_page", lambda *runs: "a page")
    files = [f"the result{kind}" for kind in kinds]
    done = invoke(*words, "--output", files[0], "--json")
    printed = json.loads(done.stdout, parse_constant=pytest.fail)
    assert done.exit_code == 0 and sorted(os.listdir()) == sorted(files)
    held = load_run(files[0]).runs.raw() if command == "train" else strict(tmp_path / files[0])
    assert printed == json.loads(json.dumps(plain(held))) and "record" in printed
    before = {file: (tmp_path / file).read_bytes() for file in files}
    for output in "the result", files[-1]:
        again = invoke(*words, "--output", output)
        assert again.exit_code == 2 and f"{files[0]} is there already: name another" in again.output
        assert {file: (tmp_path / file).read_bytes() for file in os.listdir()} == before
    forced = invoke(*words, "--output", "the result", "--force", "--quiet")
    assert forced.exit_code == 0 and forced.stdout.split("\n") == [*files, ""]
    assert not re.search("model/s|epoch/s", forced.stderr), "no bars"
    assert (tmp_path / files[0]).read_bytes() != before[files[0]], "its record has another command"
    assert sorted(os.listdir()) == sorted(files)
    os.mkdir("inside")
    told(*words, "--output", "inside")
    assert sorted(path.suffix for path in Path("inside").iterdir()) == sorted(kinds)
    assert all(path.name.startswith(f"{command}-2") for path in Path("inside").iterdir())


LATER = """
calls = 0

def breaks(preds, targets):
    global calls
    calls += 1
    if calls > 60:
        [][1]
    return focal(preds, targets)
"""


def test_an_error_in_training_names_its_line_and_leaves_the_old_model(few, strangers, tmp_path):
    told("train", "--epochs", 1, "--output", "mine")
    kept, source = Path("mine.safetensors").read_bytes(), Path(f"{strangers}.py")
    source.write_text(source.read_text() + LATER)
    line = source.read_text().splitlines().index("        [][1]") + 1
    done = invoke("train", "--loss", f"./{source}:breaks", "--epochs", 40, "--output", "mine", "--force")
    assert done.exit_code == 1
    (error,) = [text for text in done.output.splitlines() if "Error" in text]
    assert error == f"Error: {source.resolve()}, line {line}: IndexError: list index out of range"
    assert Path("mine.safetensors").read_bytes() == kept and sorted(os.listdir()) == sorted(
        ["mine.safetensors", source.name, *["__pycache__"] * Path("__pycache__").exists()]
    )


COMMANDS = [[], *([name] for name in cli.main.commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_help_explains_itself_and_its_examples_are_commands(command, strangers, monkeypatch):
    text = told(*command, "--help")
    _, below = text.split("\n", 1)  # in the usage PHOTO... is one or more
    assert max(map(len, text.splitlines())) <= 80 and not re.search(r"\w\.\.\.$", below, re.M)
    assert "128+n" in text and "Examples:" in text
    Path("my_losses.py").write_text(Path(f"{strangers}.py").read_text())
    Path("train.py").write_text("")
    Path("runs").mkdir()
    Path("runs/ten.safetensors").write_text("")
    examples = re.findall(r"^ +mnist-ce (.*)$", text, re.M)
    assert len(examples) >= 2
    for example in examples:
        name, *words = shlex.split(example.partition(" > ")[0])
        if "--help" not in words:
            context = cli.main.commands[name].make_context(name, words)
            assert [*command, name] in ([name], [name, name])
            context.close()
    one, *_ = examples
    if command and command[0] in SMALL:
        assert one == command[0], "the first example needs nothing"


def test_the_program_alone_shows_its_help():
    assert told() == told("--help") and "doctor" in told("-h")
    assert told("--version").strip().endswith(f"version {cli.__version__}")


def test_help_needs_no_torch_and_any_encoding_will_do():
    code = "import sys, click, mnist_ce.cli as cli; cli.main([], standalone_mode=False); "
    code += "from click.shell_completion import ShellComplete; "
    code += "ShellComplete(cli.main, {}, 'mnist-ce', '_X').get_completions(['train', '--loss'], ''); "
    code += "click.echo('\u00b1\u2717'); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    environment = dict(os.environ, PYTHONIOENCODING="latin-1")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="latin-1")
    assert done.stdout.splitlines()[-2:] == ["\u00b1?", "[]"], done.stderr


@pytest.mark.parametrize(
    "words, begun, offered",
    [
        ([], "", ["autopsy", "compare", "doctor", "sweep", "train"]),
        (["train", "--loss"], "", ["file", *OURS]),
        (["compare", "--loss"], "soft", ["file", "softmax_loss"]),
        (["train", "--model"], "", [*MODELS]),
        (["sweep", "--digits"], "0", ["0-9", "0-4"]),
        (["sweep", "--device"], "c", ["cpu", "cuda"]),
        (["train", "--data"], "b", ["dir", "bundle"]),
        (["doctor"], "", ["file", *OURS]),
        (["train", "--resume"], "", ["file"]),
        (["train"], "--qu", ["--quiet"]),
    ],
    ids=str,
)
def test_completion(words, begun, offered):
    found = ShellComplete(cli.main, {}, "mnist-ce", "_MNIST_CE_COMPLETE").get_completions(words, begun)
    found = [item.value if item.type == "plain" else item.type for item in found]
    assert [item for item in found if item in offered] == offered and len(found) <= len(offered) + 1


@pytest.fixture
def ill(monkeypatch):
    """The doctor's report on the original's loss, without the seconds of a process of its own."""
    report = examine(original.log_of_softmax)
    monkeypatch.setattr(cli.doctor, "report_apart", lambda *given: (report, 1, ""))
    return report


def test_the_doctors_signs_have_colors_on_a_terminal_alone(ill):
    on_terminal = lambda **env: CliRunner().invoke(cli.main, ["doctor", "a:b"], color=True, env=env)
    text = on_terminal(NO_COLOR=None, TERM="xterm").stdout
    assert "\x1b[31m\x1b[1m✗ FAIL\x1b[0m" in text and "\x1b[32m\x1b[1m✓ PASS\x1b[0m" in text
    plain_text = invoke("doctor", "a:b").stdout
    assert plain_text == f"{ill}\n" and max(map(len, plain_text.splitlines())) <= 80
    for environment in dict(NO_COLOR="1"), dict(TERM="dumb"):
        assert on_terminal(**environment).stdout == plain_text


def test_the_doctor_says_how_much_could_be_looked_for_where_it_is_little(ill, monkeypatch):
    unseen, causes = {check.cause for check in ill.unseen}, {check.cause for check in ill}
    assert "lr-small" in unseen and "not-finite" not in unseen and "sign" not in unseen
    told = f"{len(causes) - len(unseen)} of {len(causes)} causes could be looked for; "
    assert invoke("doctor", "a:b").stderr == f"{told}the SKIP lines say what is missing\n"
    half = type(ill)([check for check in ill if check.cause not in unseen])
    half += [check for check in ill.unseen][: len({check.cause for check in half})]
    monkeypatch.setattr(cli.doctor, "report_apart", lambda *given: (half, 1, ""))
    assert invoke("doctor", "a:b").stderr == ""


def test_the_doctor_fails_for_fail_alone_and_its_help_says_so(ill, monkeypatch):
    help = " ".join(told("doctor", "--help").split())
    assert "Ends with exit code 1 if there is a FAIL; WARN alone ends with 0, as a threshold can be wrong." in help
    (failed, *_) = ill.failed
    for status, code in ("fail", 1), ("warn", 0):
        report = type(ill)([failed._replace(status=status), *(check for check in ill if check.status == "pass")])
        monkeypatch.setattr(cli.doctor, "report_apart", lambda *given: (report, 1, ""))
        done = invoke("doctor", "a:b")
        assert done.exit_code == code and status.upper() in done.stdout


def test_the_doctor_quiet_and_as_json(ill):
    quiet = invoke("doctor", "a:b", "--quiet")
    assert (quiet.exit_code, quiet.output) == (1, "")
    assert re.search(r"--quiet +Print nothing: the exit code tells\.", told("doctor", "--help"))
    done = invoke("doctor", "a:b", "--json")
    assert done.stderr == ""
    rows = json.loads(done.stdout)
    assert [row["cause"] for row in rows if row["status"] == "fail"] == [c.cause for c in ill.failed]


def test_a_reader_that_closes_early_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mnist_ce", "train", "--epochs", "1", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0 and "Error" not in done.stderr and "Traceback" not in done.stderr
    assert len([*tmp_path.glob("runs/train-*.safetensors")]) == 1


LONG = "a_loss_with_a_name_that_somebody_wrote_out_gamma_{}"


def test_wide_tables_go_on_below_and_long_names_on_another_line():
    names = [LONG.format(k) for k in range(3)]
    headers = ["loss", *(f"column {k}" for k in range(6))]
    table = cli.results.Table([[name, *[f"{k}{j}" * 4 for j in range(6)]] for k, name in enumerate(names)], headers)
    lines = cli._narrow(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(f"column {k}" in "\n".join(lines) for k in range(6))
    for k in range(3):
        rows = [line.split() for line in lines if f"{k}0" * 4 in line or f"{k}5" * 4 in line]
        assert [cells[0] for cells in rows] == ["a_loss_with_a_name_that_"] * 2
    shown = [line.strip() for line in lines if line.startswith(("somebody", "gamma"))]
    assert "".join(shown[:2]) == "somebody_wrote_out_gamma_0"
    assert cli._narrow(cli.results.Table([["a", "b"]], ["c", "d"])).splitlines()[2] == "a    b"


def test_import_stays_light():
    modules = (
        "data, results, scores, losses, metrics, model, networks, training, ensemble, original"
    )
    modules += ", plots, doctor, learner, cli, all"
    slow = {"fastai", "torchvision", "matplotlib", "scipy", "pandas", "tabulate"}
    code = f"import sys; from mnist_ce import {modules}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run_processes(count, arguments):
    """torchrun's launcher with `count` processes, one thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", str(count), *map(str, arguments)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_two_processes_equal_one(tmp_path):
    settings = "--seeds", 150, "--orders", 1, "--epochs", 1, "--device", "cpu", "--published", 1
    reports = []
    for count in 1, 2:
        output = tmp_path / str(count)
        done = run_processes(count, ["-m", "mnist_ce", "compare", *settings, "--output", f"{output}/"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("gained / lost:") == done.stdout.count("AS PUBLISHED") == 1
        report = report_in(output)
        assert report["seed"] == [*range(150)] * 3 and len(report.pop("seconds")) == 450
        for kept in report, *report["published"].values():
            record = kept.pop("record")
            kept["settings"] = record["settings"]
            kept.pop("seconds", None)
        reports.append(report)
    assert reports[0] == reports[1]


def test_a_process_that_fails_ends_all(tmp_path):
    script, output = tmp_path / "script.py", tmp_path / "out"
    script.write_text(textwrap.dedent(f"""
        import os
        from mnist_ce import cli, ensemble

        def fail(*args, **kwargs):
            raise RuntimeError("out of luck")

        if os.environ["RANK"] == "1":
            ensemble.fit_many = fail
        settings = ["--seeds", "150", "--epochs", "1", "--device", "cpu", "--published", "0"]
        cli.main(["compare", *settings, "--output", {f"{output}/"!r}])
    """))  # fmt: skip
    done = run_processes(2, [script])
    assert done.returncode != 0 and "out of luck" in done.stderr
    assert not list(output.glob("*.*")), "no table of half the seeds"


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is a POSIX signal here")
def test_ctrl_c_keeps_what_was_finished(tmp_path):
    settings = "--seeds", "100", "--orders", "1000", "--epochs", "2", "--published", "0"
    command = [sys.executable, "-m", "mnist_ce", "compare", *settings, "--output", str(tmp_path)]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in background jobs
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes, preexec_fn=heed) as process:
        seen = ""
        while "200/300000" not in seen:  # two crowds are done
            seen += process.stderr.read(1)
            assert len(seen) < 100_000
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: these are the models that were finished" in out
    report = report_in(tmp_path)
    n = len(report["seed"])
    assert report["record"]["interrupted"] is True and n >= 200 and n % 100 == 0
    assert row(out, "mnist_loss")[1] == str(n) and report["seed"] == [*range(100)] * (n // 100)


def test_ctrl_c_before_anything_was_finished(few, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_ce.ensemble.fit_many", interrupt)
    done = invoke("compare", "--published", 0, "--output", tmp_path)
    assert done.exit_code == 130 and "before any models were finished" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_lock_of_the_bars_that_was_left_held_holds_nobody_up():
    lock = cli._Patient()
    threading.Thread(target=lock.lock.acquire).start()  # as one that an interruption leaves
    start = time.monotonic()
    for _ in range(3):
        with lock:
            pass
    assert time.monotonic() - start < 2


def test_ctrl_c_after_the_last_crowd_of_a_stage_was_kept_loses_nothing(few, tmp_path, monkeypatch):
    joined, calls = original.joined, []

    def interrupt_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return joined(*args)

    monkeypatch.setattr(original, "joined", interrupt_once)
    done = invoke("compare", "--published", 3, "--output", tmp_path)
    assert done.exit_code == 130 and "interrupted: these are the models that were finished" in done.stdout
    report = report_in(tmp_path)
    assert report["published"]["mnist_loss"]["seed"] == [0, 1, 2] and report["record"]["interrupted"] is True
    assert "softmax" not in report["published"] and not hasattr(this_thread, "stop")


# ---- Photos.


def test_a_photo_is_answered_with_what_the_model_can_tell_apart(few, tmp_path):
    model = tmp_path / "model.safetensors"
    told("train", "--digits", "3,7", "--epochs", 2, "--output", model)
    _, valid = mnist("bundle", (3, 7))
    seven = valid.x[valid.digits == 7][0]
    picture = Image.fromarray((255 - 255 * seven.view(28, 28)).byte().numpy()).resize((280, 280))
    picture.save(tmp_path / "7.png")
    Image.new("L", (280, 280), 250).save(tmp_path / "blank.png")
    done = invoke("predict", tmp_path / "7.png", tmp_path / "blank.png", "--model", model)
    assert done.exit_code == 1 and "blank.png: the page is blank" in done.output
    assert re.search(r"7\.png: 7 \(\d+\.\d% among 3, 7\)\n", done.output)
    answer = json.loads(invoke("predict", tmp_path / "7.png", "--model", model, "--json").stdout)
    assert answer["answers"][0]["digit"] == 7
    assert set(answer["answers"][0]["probabilities"]) == {"3", "7"}


def test_a_loss_is_told_which_options_there_are():
    told = CliRunner().invoke(cli.main, ["doctor", "torch.nn.functional:cross_entropy"]).output
    assert "-> name it: --train NAME" in told and "pass " not in told
