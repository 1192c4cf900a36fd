"""The doctor convicts each faulty function of exactly its faults, and acquits the sound ones."""
import warnings

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from mnist_ce import losses, metrics, original
from mnist_ce.cli import main
from mnist_ce.doctor import examine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of fastai's imports
    from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat
    from fastai.metrics import accuracy as fastai_accuracy

RISES, BLOWS_UP, GRADIENT, BROADCAST, NAN, COLUMN, POOLED = (
    "falls as the target's probability rises", "finite for logits of ±10,000", "gradient matches finite differences",
    "same for targets [N] and [N, 1]", "notices NaN", "metric: column k scores label k", "metric: pooled over examples",
)  # fmt: skip


def faults(*arguments, **options):
    return [check.name for check in examine(*arguments, **options) if not check.passed]


@pytest.mark.parametrize("columns", [2, 3, 10])
@pytest.mark.parametrize(
    "loss",
    [F.cross_entropy, F.nll_loss, torch.nn.CrossEntropyLoss(), CrossEntropyLossFlat(), FocalLossFlat(), LabelSmoothingCrossEntropyFlat(),
     losses.cross_entropy_loss, losses.softmax_loss, losses.nll_loss],
    ids=str,
)  # fmt: skip
def test_sound_losses_and_metrics_are_acquitted(loss, columns):
    for metric in metrics.accuracy, fastai_accuracy:
        assert faults(loss, metric, columns=columns) == []


@pytest.mark.parametrize("loss", [losses.mnist_loss, F.binary_cross_entropy_with_logits, BCEWithLogitsLossFlat()], ids=str)
def test_sound_losses_of_one_column_are_acquitted(loss):
    assert faults(loss, metrics.binary_accuracy, columns=1) == []


@pytest.mark.parametrize(
    "loss, expected",
    [(original.log_of_softmax, [BLOWS_UP]), (original.target_probability, [RISES]), (original.log_probability, [RISES, BLOWS_UP])],
)
def test_the_originals_losses_are_convicted_of_their_faults(loss, expected):
    assert faults(loss) == expected


def test_the_originals_metrics_are_convicted_of_their_faults():
    assert faults(F.cross_entropy, original.column_zero_accuracy) == [COLUMN]
    assert faults(F.cross_entropy, original.mean_of_batch_means) == [COLUMN, POOLED]


@pytest.mark.parametrize(
    "loss, expected",
    [
        (lambda z, y: torch.where(y == 1, 1 - z.sigmoid(), z.sigmoid()).mean(), [BROADCAST]),
        (lambda z, y: losses.mnist_loss(-z, y), [RISES]),
        (lambda z, y: F.binary_cross_entropy(z.sigmoid(), y), []),
        (lambda z, y: losses.mnist_loss(z.detach(), y), [BLOWS_UP, GRADIENT]),
        (lambda z, y: losses.mnist_loss(z.nan_to_num(), y), [NAN]),
        (lambda z, y: losses.mnist_loss(2 * z - z.detach(), y), [GRADIENT]),
        (lambda z: z, [RISES, BLOWS_UP, GRADIENT, BROADCAST, NAN]),
    ],
    ids=["book", "reversed", "clamped", "detached", "hides NaN", "wrong gradient", "wrong signature"],
)
def test_faults_of_one_column(loss, expected):
    assert faults(loss, columns=1) == expected


def test_a_metric_of_batch_means_with_the_right_column_is_convicted_of_that_alone():
    means = lambda z, y: torch.stack([metrics.accuracy(*pair) for pair in zip(z.split(64), y.split(64))]).mean()
    assert faults(F.cross_entropy, means) == [POOLED]


def test_the_report_prints_and_shows_each_check():
    report = examine(original.log_of_softmax, metrics.accuracy)
    assert len(report) == 7 and str(report).count("PASS") == 6 and str(report).count("FAIL") == 1
    assert "<table>" in report._repr_html_() and "nan" in next(check.why for check in report if not check.passed)


def test_input_that_makes_no_sense():
    with pytest.raises(TypeError, match="the loss must be a function, got 'mse'"):
        examine("mse")
    with pytest.raises(TypeError, match="the metric must be a function, got 3"):
        examine(F.cross_entropy, 3)
    with pytest.raises(ValueError, match="columns=0"):
        examine(F.cross_entropy, columns=0)


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_command_line_names_the_faults():
    told = run("mnist_ce.original:log_of_softmax", "--metric", "mnist_ce.original:mean_of_batch_means")
    assert told.exit_code == 1 and told.output.count("FAIL") == 3
    told = run("torch.nn.functional:cross_entropy", "--metric", "fastai.metrics:accuracy")
    assert told.exit_code == 0 and "FAIL" not in told.output and told.output.count("PASS") == 7


def test_the_command_line_finds_functions_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text("def squared(z, y):\n    return ((z - y) ** 2).mean()\n")
    monkeypatch.chdir(tmp_path)
    told = run("my_losses:squared", "--columns", "1")
    assert told.exit_code == 1 and "FAIL" in told.output


@pytest.mark.parametrize(
    "name, message",
    [("cross_entropy", "is not module:function"), ("no_such_module:f", "No module named"), ("torch:nothing", "no attribute"), ("torch:float32", "is not a function")],
)
def test_names_that_lead_nowhere(name, message):
    told = run(name)
    assert told.exit_code == 2 and message in told.output
