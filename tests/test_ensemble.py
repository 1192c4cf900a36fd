"""A model in a crowd is the model that trains alone, whoever its neighbours are; many processes equal one."""
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from mnist_ce.data import Digits, mnist
from mnist_ce.ensemble import by_autograd, fit_many
from mnist_ce.losses import cross_entropy_loss, softmax_loss
from mnist_ce.model import assert_close
from mnist_ce.training import fit

SETTINGS = dict(epochs=2, progress=False)


def agree(many, s, one, valid):
    """Model s of `many` and the run `one` are the same model, up to rounding."""
    assert_close(many.weights[s], one.weights, terms=784)
    assert_close(many.bias[s], one.bias, terms=784)
    for e, epoch in enumerate(one.history):
        assert abs(many.accuracy[e, s] - epoch.accuracy) < 1.5 / len(valid)  # rounding may turn one image
        for values, value in (many.train_loss, epoch.train_loss), (many.valid_loss, epoch.valid_loss), (many.nll, epoch.nll):
            assert values[e, s].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("protocol", [dict(), dict(shuffle=False, init_std=1.0)], ids=["default", "published"])
@pytest.mark.parametrize("seeds", [[7], [7, 8], [0, 5, 7, 1000], range(64)], ids=len)
def test_a_model_depends_on_its_own_seed_alone(sample, loss, device, seeds, protocol):
    many = fit_many(loss, *sample, seeds, device=device, **protocol, **SETTINGS)
    agree(many, list(seeds).index(7), fit(loss, *sample, seed=7, device=device, **protocol, **SETTINGS), sample[1])


def test_ten_digits(device):
    train, valid = mnist()
    train, valid = train[::20], valid[::20]
    many = fit_many(cross_entropy_loss, train, valid, [3, 7], device=device, **SETTINGS)
    assert many.weights.shape == (2, 784, 10) and many.bias.shape == (2, 10) and many.accuracy.shape == (2, 2)
    agree(many, 1, fit(cross_entropy_loss, train, valid, seed=7, device=device, **SETTINGS), valid)


def test_one_rate_and_one_scale_for_each_model(sample, device):
    rates, stds = [0.01, 1.0, 3.0], [0.0, 1.0, 0.1]
    many = fit_many(softmax_loss, *sample, [4, 4, 5], lr=rates, init_std=stds, device=device, **SETTINGS)
    for s, (seed, lr, std) in enumerate(zip([4, 4, 5], rates, stds)):
        agree(many, s, fit(softmax_loss, *sample, seed=seed, lr=lr, init_std=std, device=device, **SETTINGS), sample[1])


def log_of_softmax(preds, targets, reduction="mean"):
    losses = -preds.softmax(1).log().gather(1, targets.view(-1, 1)).squeeze(1)
    return losses if reduction == "none" else losses.mean()


def test_a_model_that_breaks_disturbs_nobody(sample):
    settings = dict(shuffle=False, epochs=3, progress=False, device="cpu")
    many = fit_many(log_of_softmax, *sample, range(6), lr=[1.0, 0.01] * 3, init_std=[1.0, 0.01] * 3, **settings)
    assert (many.nonfinite[::2] >= 0).all() and many.accuracy[-1, ::2].isnan().all() and many.weights[::2].isnan().any()
    assert many.nonfinite[1::2].tolist() == [-1] * 3
    for s in 1, 3, 5:
        agree(many, s, fit(log_of_softmax, *sample, seed=s, lr=0.01, **settings), sample[1])
    recorded = fit(log_of_softmax, *sample, seed=0, init_std=1.0, on_nonfinite="record", **settings)
    assert recorded.nonfinite == many.nonfinite[0] and math.isnan(recorded.history[-1].accuracy)


def test_autograd_stands_in_for_a_gradient_by_hand(loss):
    z = (3 * torch.randn(loss.columns or 4, 32, generator=torch.Generator().manual_seed(0))).T
    t = torch.arange(32).unsqueeze(1) % max(z.shape[1], 2)
    for found, known in zip(by_autograd(loss)(z, t), loss.value_and_grad(z, t)):
        assert_close(found, known, terms=4)


def test_order_belongs_to_the_data_seed(sample):
    first, again, other = (fit_many(softmax_loss, *sample, [0], data_seed=s, device="cpu", **SETTINGS) for s in (0, 0, 1))
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize(
    "setting, error, words",
    [
        (dict(seeds=[]), ValueError, "seeds is empty"),
        (dict(seeds=[1, 2, 1]), ValueError, "two models are alike: seed 1"),
        (dict(seeds=[1, 2], lr=[0.1]), ValueError, "lr has 1 values for 2 seeds"),
        (dict(seeds=[1, 2], init_std=[0.1] * 3), ValueError, "init_std has 3 values for 2 seeds"),
        (dict(seeds=[1, 2], lr=[0.1, -1.0]), ValueError, "lr=-1.0"),
        (dict(seeds=[1, 2], init_std=[0.1, -1.0]), ValueError, "std=-1.0"),
        (dict(seeds=[1.5]), TypeError, "float"),
        (dict(seeds=[0], epochs=0), ValueError, "epochs=0"),
        (dict(seeds=[0], batch_size=0), ValueError, "batch_size=0"),
        (dict(seeds=[0], device="gpu"), ValueError, "gpu"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(sample, setting, error, words):
    with pytest.raises(error, match=words):
        fit_many(cross_entropy_loss, *sample, **setting, progress=False)


def test_three_thousand_models_fit_in_four_gigabytes():
    code = """
        import resource
        from mnist_ce.data import mnist
        from mnist_ce.ensemble import fit_many
        from mnist_ce.losses import cross_entropy_loss
        train, valid = mnist()
        fit_many(cross_entropy_loss, train[::100], valid[::5], range(3000), epochs=1, device="cpu", progress=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4


def run_processes(count, arguments, **kwargs):
    """torchrun's launcher with `count` processes, one thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=120, **kwargs)


def test_two_processes_equal_one(tmp_path):
    for count in 1, 2:
        arguments = ["compare", "--seeds", "150", "--epochs", "2", "--device", "cpu", "--output", str(tmp_path / str(count))]
        done = run_processes(count, ["-m", "mnist_ce", *arguments])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("paired difference") == 1
    reports = [json.loads(next((tmp_path / count).glob("*.json")).read_text()) for count in ("1", "2")]
    for report in reports:
        for result in report["results"].values():
            assert result["seeds"] == list(range(150)) and len(result.pop("seconds")) == 150
    assert reports[0]["results"] == reports[1]["results"] and reports[0]["settings"] == reports[1]["settings"]


def test_a_process_that_fails_ends_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(f"""
        import os
        from mnist_ce import cli, comparison

        def fail(*args, **kwargs):
            raise RuntimeError("out of luck")

        if os.environ["RANK"] == "1":
            comparison.fit_many = fail
        cli.main(["compare", "--seeds", "150", "--epochs", "1", "--device", "cpu", "--output", {str(tmp_path / "out")!r}])
    """))
    done = run_processes(2, [str(script)])
    assert done.returncode != 0 and "out of luck" in done.stderr
    assert not list((tmp_path / "out").iterdir())    # no table of half the seeds


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is a POSIX signal here")
def test_ctrl_c_keeps_what_was_finished(tmp_path):
    command = [sys.executable, "-m", "mnist_ce", "compare", "--seeds", "100000", "--epochs", "2", "--output", str(tmp_path)]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that Ctrl-C is ignored
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        seen = ""
        while "200/300000" not in seen:  # two crowds are done
            seen += process.stderr.read(1)
            assert len(seen) < 100_000
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted: these are the models that were finished" in out
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    seeds = report["results"]["mnist_loss"]["seeds"]
    assert report["interrupted"] is True and len(seeds) >= 200 and seeds == list(range(len(seeds)))
