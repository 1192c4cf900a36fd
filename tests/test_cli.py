"""The command line as a user meets it, and what importing the library costs."""
import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from mnist_ce.cli import main
from mnist_ce.networks import recipe
from mnist_ce.training import load_run


def test_compare_writes_what_it_prints(tmp_path):
    done = CliRunner().invoke(main, ["compare", "--seeds", "3", "--epochs", "2", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    assert set(report) == {"command", "made", "environment", "settings", "results"}
    assert {"git", "versions", "device", "threads"} == set(report["environment"])
    for name, result in report["results"].items():
        assert result["seeds"] == [0, 1, 2] and len(result["accuracy"]) == 3 and len(result["accuracy"][0]) == 2
        mean = sum(epochs[-1] for epochs in result["accuracy"]) / 3
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(name) and " - " not in line]
        assert f"{mean:.4f}" in line
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert str(path) in done.output


def test_sweep_trains_each_rate_from_each_seed(tmp_path):
    arguments = ["sweep", "--loss", "softmax_loss", "--lrs", "0.1:10:3", "--seeds", "2", "--epochs", "1", "--output", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())["results"]["softmax_loss"]
    assert result["lr"] == pytest.approx([0.1, 0.1, 1, 1, 10, 10]) and result["seeds"] == [0, 1] * 3
    assert len(set(map(tuple, result["accuracy"]))) > 3 and path.with_suffix(".png").exists()


def test_train_saves_the_model(tmp_path):
    path = tmp_path / "deep" / "model.pt"
    done = CliRunner().invoke(main, ["train", "--epochs", "2", "--seed", "5", "--output", str(path)])
    assert done.exit_code == 0, done.output
    run = load_run(path)
    assert run.settings["seed"] == 5 and f"{run.history[-1].accuracy:.4f}" in done.output


def test_train_a_network_on_other_digits(tmp_path):
    path = tmp_path / "model.pt"
    done = CliRunner().invoke(main, ["train", "--digits", "0-2", "--model", "mlp", "--epochs", "2", "--output", str(path)])
    assert done.exit_code == 0, done.output
    assert f'load_run("{path}", model=recipe("mlp", 3)["model"])' in done.output
    run = load_run(path, model=recipe("mlp", 3)["model"])
    assert run.classes == (0, 1, 2) and run.history[-1].accuracy > 0.97


def test_compare_on_ten_digits_leaves_the_one_column_out(tmp_path):
    done = CliRunner().invoke(main, ["compare", "--digits", "0-9", "--seeds", "2", "--epochs", "1", "--lr", "0.1", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert list(report["results"]) == ["softmax_loss", "cross_entropy_loss"] and report["settings"]["digits"] == list(range(10))
    assert report["results"]["cross_entropy_loss"]["columns"] == 10
    assert min(epochs[-1] for epochs in report["results"]["cross_entropy_loss"]["accuracy"]) > 0.85


def test_a_folder_without_one_of_the_digits_is_refused(tmp_path):
    (tmp_path / "train" / "3").mkdir(parents=True)
    done = CliRunner().invoke(main, ["train", "--digits", "3,8", "--data", str(tmp_path), "--output", str(tmp_path / "model.pt")])
    assert done.exit_code == 2 and "no images of the digit 3" in done.output and not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["compare", "--speed", "high"], "--speed"),
        (["compare", "--loss", "hinge"], "hinge"),
        (["compare", "--seeds", "0"], "'--seeds': 0"),
        (["sweep", "--lrs", "10:1:3"], "10:1:3"),
        (["sweep", "--lrs", "0:1:3"], "0:1:3"),
        (["sweep", "--lrs", "1:2:1"], "1:2:1"),
        (["sweep", "--lrs", "fast"], "fast"),
        (["compare", "--epochs", "0"], "epochs=0"),
        (["compare", "--lr", "-1"], "lr=-1.0"),
        (["compare", "--batch-size", "0"], "batch_size=0"),
        (["compare", "--data", "no/such/folder"], "no/such/folder"),
        (["train", "--device", "gpu"], "gpu"),
        (["train", "--epochs", "many"], "many"),
        (["train", "--digits", "3"], "'3' is one digit alone"),
        (["train", "--digits", "3,3"], "'3,3' has a digit twice"),
        (["compare", "--digits", "three"], "'three' is not digits such as"),
        (["compare", "--digits", ""], "'' is not digits such as"),
        (["compare", "--digits", "0-9", "--loss", "mnist_loss"], "mnist_loss scores one column, which tells 2 classes apart, not 10"),
        (["train", "--model", "resnet"], "resnet"),
        (["train", "--model", "mlp", "--init-std", "1"], "--init-std is for the linear model"),
        (["autopilot"], "autopilot"),
    ],
)
def test_bad_options_end_with_exit_code_2(arguments, words, tmp_path):
    done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "out")] if len(arguments) > 1 else arguments)
    assert done.exit_code == 2 and words in done.output
    assert isinstance(done.exception, SystemExit), "no traceback"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to give")
def test_cuda_that_is_not_there():
    done = CliRunner().invoke(main, ["compare", "--device", "cuda"])
    assert done.exit_code == 2 and "0 CUDA devices" in done.output


def test_import_stays_light():
    modules = "data, model, losses, metrics, training, ensemble, original, learner, plots, doctor, networks, options, report, comparison, cli, bundle"
    code = f"import sys, mnist_ce; from mnist_ce import {modules}; print([m for m in sys.modules if m in " \
        "('fastai', 'torchvision', 'matplotlib', 'scipy', 'pandas')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_autopsy_writes_a_page_and_its_values(tmp_path):
    run = CliRunner().invoke(main, ["autopsy", "--seeds", "3", "--factorial-seeds", "2", "--output", str(tmp_path)])
    assert run.exit_code == 0, run.output
    (page,), (raw,) = tmp_path.glob("*.html"), tmp_path.glob("*.json")
    assert page.read_text().count("data:image/png") == 2
    values = json.loads(raw.read_text())
    assert len(values["factorial"]) == 128 and len(values["reproductions"]["cross_entropy"]["reported"]) == 10
    assert "40 of 128 combinations: freezes" in run.output


@pytest.mark.parametrize("command", ["compare", "sweep", "train", "autopsy"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(command, tmp_path):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "folder"
    run = CliRunner().invoke(main, [command, "--output", str(output / "model.pt" if command == "train" else output)])
    assert run.exit_code == 2 and "cannot write to" in run.output


def test_the_data_seed_changes_the_order_alone(tmp_path):
    for seed in "0", "1":
        options = ["compare", "--loss", "mnist_loss", "--seeds", "2", "--epochs", "1", "--data-seed", seed, "--output", str(tmp_path / seed)]
        assert CliRunner().invoke(main, options).exit_code == 0
    one, other = (json.loads(next((tmp_path / seed).glob("*.json")).read_text()) for seed in "01")
    assert one["settings"]["data_seed"] == 0 and other["settings"]["data_seed"] == 1
    assert one["results"]["mnist_loss"]["train_loss"] != other["results"]["mnist_loss"]["train_loss"]
