"""Each loss trains the 3-versus-7 classifier, on each device, and bad settings are refused."""
import math

import pytest
import torch

from mnist_ce.data import Digits
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.model import assert_close
from mnist_ce.training import NonFiniteLoss, fit, load_run


@pytest.mark.parametrize("seed", range(5))
def test_each_loss_trains(sample, loss, device, seed):
    run = fit(loss, *sample, seed=seed, device=device, progress=False)
    assert run.history[-1].accuracy >= 0.975
    assert len(run.history) == 10 and run.nonfinite == -1


def test_the_turned_sign_does_not_train(sample, loss, device):
    def turned(preds, targets):
        return -loss(preds, targets)

    turned.columns = loss.columns
    accuracy = fit(turned, *sample, lr=0.01, device=device, progress=False).history[-1].accuracy
    commoner_digit = 1028 / 2038
    assert accuracy <= commoner_digit + 1e-12


@pytest.mark.parametrize("shuffle", [True, False])
def test_by_hand_and_by_autograd_train_alike(sample, loss, device, shuffle):
    def unknown(preds, targets):
        return loss(preds, targets)

    unknown.columns = loss.columns
    settings = dict(epochs=1, shuffle=shuffle, seed=3, device=device, progress=False)
    by_hand, by_autograd = fit(loss, *sample, **settings), fit(unknown, *sample, **settings)
    assert_close(by_hand.weights, by_autograd.weights, terms=784)
    assert_close(by_hand.bias, by_autograd.bias, terms=784)
    assert by_hand.history[0].train_loss == pytest.approx(by_autograd.history[0].train_loss, rel=1e-4)


def test_same_seed_same_bits(sample, loss):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (fit(loss, *sample, epochs=2, seed=3, device="cpu", progress=False) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.weights, second.weights) and torch.equal(first.bias, second.bias)
    other = fit(loss, *sample, epochs=2, seed=4, device="cpu", progress=False)
    assert not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize(
    "setting, words",
    [
        (dict(epochs=0), "epochs=0"),
        (dict(epochs=1.5), "epochs=1.5"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(lr=0), "lr=0"),
        (dict(lr=-1.0), "lr=-1.0"),
        (dict(lr=float("nan")), "lr=nan"),
        (dict(init_std=-1.0), "std=-1.0"),
        (dict(on_nonfinite="ignore"), "on_nonfinite='ignore'"),
        (dict(device="gpu"), "device='gpu'"),
    ],
)
def test_settings_that_make_no_sense(sample, setting, words):
    with pytest.raises(ValueError, match=words):
        fit(cross_entropy_loss, *sample, progress=False, **setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to give")
def test_cuda_that_is_not_there(sample):
    with pytest.raises(ValueError, match="device='cuda': this machine has 0 CUDA devices"):
        fit(mnist_loss, *sample, device="cuda", progress=False)


def log_of_softmax(preds, targets):
    return -preds.softmax(1).log().gather(1, targets).mean()


def test_nonfinite_loss_stops_with_the_last_finite_weights(sample):
    protocol = dict(shuffle=False, init_std=1.0, device="cpu", progress=False)
    with pytest.raises(NonFiniteLoss, match="loss is (nan|inf) in epoch 1, batch") as caught:
        fit(log_of_softmax, *sample, **protocol)
    assert caught.value.run.weights.isfinite().all() and caught.value.run.weights.abs().sum() > 0
    run = fit(log_of_softmax, *sample, on_nonfinite="record", **protocol)
    assert run.nonfinite == caught.value.batch - 1 == caught.value.run.nonfinite
    assert math.isnan(run.history[-1].accuracy)


def test_weights_that_overflow_by_hand_are_undone(sample):
    train, valid = sample
    bright = Digits(train.x * 1e30, train.y, train.classes)
    with pytest.raises(NonFiniteLoss) as stopped:
        fit(cross_entropy_loss, bright, valid, lr=1e10, device="cpu", progress=False)
    run = stopped.value.run
    assert run.nonfinite >= 1 and run.weights.isfinite().all() and run.bias.isfinite().all()
    recorded = fit(cross_entropy_loss, bright, valid, lr=1e10, device="cpu", on_nonfinite="record", progress=False)
    assert recorded.nonfinite == run.nonfinite and math.isnan(recorded.history[-1].accuracy)


def test_any_module_can_be_trained(sample):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 30), torch.nn.ReLU(), torch.nn.Linear(30, 2))
    run = fit(cross_entropy_loss, *sample, epochs=3, lr=0.1, model=model, progress=False)
    pixel_baseline = 0.9514  # of the data notebook
    assert run.history[-1].accuracy > pixel_baseline and run.weights is None
    with pytest.raises(ValueError, match="2 columns are needed"):
        fit(cross_entropy_loss, *sample, model=torch.nn.Linear(784, 3), progress=False)


def test_a_saved_run_is_the_run(sample, tmp_path):
    run = fit(cross_entropy_loss, *sample, epochs=1, device="cpu", progress=False)
    run.save(tmp_path / "run.pt")
    loaded = load_run(tmp_path / "run.pt")
    assert torch.equal(loaded.weights, run.weights) and loaded.history == run.history and loaded.classes == (7, 3)
    (tmp_path / "other.pt").write_text("no run")
    with pytest.raises(ValueError, match="other.pt is not a saved run"):
        load_run(tmp_path / "other.pt")


def test_history_is_a_table(sample):
    pandas = pytest.importorskip("pandas")
    history = fit(cross_entropy_loss, *sample, epochs=2, progress=False).history
    frame = pandas.DataFrame(history)
    assert list(frame.columns) == ["epoch", "train_loss", "valid_loss", "accuracy", "nll", "seconds"]
    assert frame.accuracy.tolist() == [epoch.accuracy for epoch in history]
    assert "<table>" in history._repr_html_() and "train_loss" in str(history)
