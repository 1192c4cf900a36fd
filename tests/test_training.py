"""Each loss trains the 3-versus-7 classifier, on each device, and bad settings are refused."""
import functools
import contextlib
import math
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from conftest import named
from torch import nn

from mnist_ce import training
from mnist_ce.data import Digits
from mnist_ce.doctor import examine
from mnist_ce.ensemble import fit_many
from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss
from mnist_ce.model import Linears
from mnist_ce.results import Run, assert_close, read_checkpoint, write_checkpoint
from mnist_ce.scores import Loss
from mnist_ce.training import (
    NonFiniteLoss, fit, load_run, load_runs, optimizer_of, real_number, select_device, train_models, whole_number,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_each_loss_trains(sample, loss, device, seed):
    run = fit(loss, *sample, seed=seed, device=device, progress=False)
    assert run.history[-1].accuracy >= 0.975
    assert len(run.history) == 10 and run.nonfinite == -1


def test_the_turned_sign_trains_the_wrong_way_with_a_warning(sample, loss, device):
    def turned(preds, targets):
        return -loss(preds, targets)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = fit(turned, *sample, lr=0.01, device=device, progress=False)
    assert "turned rises as the right answer's score rises" in str(said[0].message)
    commoner_digit = 1028 / 2038
    assert run.history[-1].accuracy <= commoner_digit + 1e-12


@pytest.mark.parametrize("shuffle", [True, False])
def test_by_hand_and_by_autograd_train_alike(sample, loss, device, shuffle):
    def unknown(preds, targets):
        return loss(preds, targets)

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


def cnn():
    """A small convolutional network on pictures, from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 36, 2))


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class NoParameters(nn.Module):
    def forward(self, x):
        return x[:, :2]


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


NETWORK = dict(model=nn.Linear(784, 2))


@pytest.mark.parametrize(
    "setting, error, words",
    [
        (dict(epochs=0), ValueError, "epochs=0"),
        (dict(epochs=1.5), ValueError, "epochs=1.5"),
        (dict(epochs=True), ValueError, "epochs=True"),
        (dict(batch_size=0), ValueError, "batch_size=0"),
        (dict(lr=0), ValueError, "lr=0"),
        (dict(lr=-1.0), ValueError, "lr=-1.0"),
        (dict(lr=float("nan")), ValueError, "lr=nan"),
        (dict(lr=True), ValueError, "lr=True"),
        (dict(lr="fast"), ValueError, "lr='fast'"),
        (dict(init_std=-1.0), ValueError, "std=-1.0"),
        (dict(on_nonfinite="ignore"), ValueError, "on_nonfinite='ignore'"),
        (dict(device="gpu"), ValueError, "device='gpu'"),
        (dict(resume=Pair), TypeError, "resume must be the path of a file, got type: write resume='run.pt'"),
        (NETWORK, ValueError, "write lr=0.001 for Adam, lr=0.1 for plain descent"),
        (dict(optimizer=torch.optim.Adam), ValueError, "no default learning rate"),
        (dict(model=nn.Linear, lr=0.1), TypeError, r"model is a class: write Linear\(\)"),
        (dict(model=lambda x: x[:, :2], lr=0.1), TypeError, "model must be an nn.Module, got function"),
        (dict(model=nn.Linear(784, 3), lr=0.1), ValueError, "2 columns are needed for classes"),
        (dict(model=nn.Linear(100, 2), lr=0.1), ValueError, "cannot be multiplied"),
        (dict(model=Pair(784, 2), lr=0.1), ValueError, "returns a tuple: let it return the scores alone"),
        (dict(model=NoParameters(), lr=0.1), ValueError,
         r"NoParameters has no parameters that require a gradient: keep layers as attributes or in nn.ModuleList"),
        (dict(model=Detached(784, 2), lr=0.1), ValueError,
         r"Detached gives scores without a gradient: leave out detach\(\), no_grad and .data in forward"),
        (dict(model="convnet"), TypeError, r"write fit\(…, \*\*recipe\('convnet', 2\)\)"),
        (dict(model=nn.Linear(784, 2, device="meta"), lr=0.1), ValueError, "on the device meta"),
        (NETWORK | dict(optimizer="adam", lr=0.1), TypeError, "optimizer must be a class .* got 'adam'"),
        (NETWORK | dict(optimizer=lambda p, lr: None, lr=0.1), TypeError, "optimizer gave a NoneType"),
        (NETWORK | dict(optimizer=torch.optim.LBFGS, lr=0.1), ValueError, "LBFGS needs a closure"),
        (NETWORK | dict(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)), ValueError,
         "holds parameters that are not the model's: pass model= as well, make it anew, or pass its class"),
        (NETWORK | dict(optimizer=torch.optim.SGD(NETWORK["model"].parameters(), lr=0.1), lr=1), ValueError,
         "the optimizer has its own, 0.1"),
        (dict(metrics=[len]), TypeError, r"write metrics=dict\(name=function\)"),
        (dict(metrics=dict(accuracy=len)), ValueError, "the name 'accuracy' is taken"),
        (dict(metrics=dict(f1="f1")), TypeError, "the metric 'f1' must be a function"),
        (dict(metrics=dict(f1=lambda p, t: p)), ValueError, "the metric 'f1' failed on"),
    ],
    ids=named,
)  # fmt: skip
def test_settings_that_make_no_sense(sample, setting, error, words):
    with pytest.raises(error, match=words):
        fit(cross_entropy_loss, *sample, progress=False, **setting)


def test_numbers_of_numpy_and_torch_are_numbers(sample):
    settings = dict(epochs=np.int64(1), lr=np.float32(0.5), batch_size=np.int32(256), seed=0)
    run = fit(cross_entropy_loss, *sample, progress=False, **settings)
    same = fit(cross_entropy_loss, *sample, progress=False, epochs=1, lr=torch.tensor(0.5))
    assert torch.equal(run.weights, same.weights) and run.settings["lr"] == 0.5


@pytest.mark.parametrize("optimizer", [
    torch.optim.Adam,
    lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
    lambda parameters, lr, weight_decay=0.0: torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay),
    lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    lambda parameters, lr, steps: (
        adam := torch.optim.Adam(parameters, lr=lr), torch.optim.lr_scheduler.LinearLR(adam, 1, 1, steps)
    ),
    "an optimizer",
], ids=["class", "function", "with a default", "parameters alone", "with a schedule", "an optimizer"])  # fmt: skip
def test_each_way_to_give_an_optimizer_trains_alike(sample, optimizer):
    train, valid = sample[0][::20], sample[1]
    model, lr = cnn(), dict(lr=1e-3)
    if optimizer == "an optimizer":
        optimizer, lr = torch.optim.Adam(model.parameters(), lr=1e-3), {}
    settings = dict(epochs=2, device="cpu", progress=False)
    run = fit(cross_entropy_loss, train, valid, model=model, optimizer=optimizer, **lr, **settings)
    plain, expected = cnn(), None
    expected = fit(cross_entropy_loss, train, valid, model=plain, optimizer=torch.optim.Adam, lr=1e-3, **settings)
    assert_close(run.train_loss, expected.train_loss, terms=784)
    assert run.settings["lr"] == 1e-3 and run.model is model


def test_a_schedule_takes_a_step_a_batch(sample):
    rates = []

    def falling(parameters, lr, steps):
        assert steps == 2 * 49
        optimizer = torch.optim.SGD(parameters, lr=lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: rates.append(k) or 1 - k / steps)
        return optimizer, schedule

    fit(cross_entropy_loss, *sample, epochs=2, lr=1.0, optimizer=falling, progress=False)
    assert rates == list(range(99))


class Rows(nn.Module):
    """Reads a picture row after row, as a recurrent network does."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        if x.ndim != 3:
            raise ValueError(f"wants [n, 28, 28], got {list(x.shape)}")
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize("make", [lambda: nn.Linear(784, 2), cnn, Rows])
def test_a_model_gets_images_in_the_shape_it_takes(sample, make, device):
    train, valid = sample[0][::50], sample[1][::10]
    run = fit(cross_entropy_loss, train, valid, epochs=1, model=make(), lr=0.1, device=device, progress=False)
    shares = run.predict_proba(valid)
    assert shares.shape == (len(valid), 2)
    assert_close(shares.sum(1), torch.ones(len(valid)), terms=4)
    right = (run.predict(valid.x) == valid.digits.to(device)).double().mean().item()
    assert right == pytest.approx(run.history[-1].accuracy, abs=1e-6)


def test_dropout_draws_from_the_seed_and_leaves_the_global_state(sample):
    train, valid = sample[0][::50], sample[1]
    make = lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(784, 2))
    state, runs = torch.get_rng_state(), []
    for noise in 1, 2:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make()
        with torch.random.fork_rng():
            torch.manual_seed(noise)
            runs.append(fit(cross_entropy_loss, train, valid, epochs=1, model=model, lr=0.1,
                            seed=3, device="cpu", progress=False))  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0].train_loss, runs[1].train_loss)


@pytest.mark.parametrize(
    "loss, end, words",
    [
        (nn.NLLLoss(), nn.Identity(), "NLLLoss takes log-probabilities, the model gives scores from"),
        (nn.NLLLoss(), nn.Softmax(1), "end the model with log_softmax, or take F.cross_entropy"),
        (nll_loss, nn.Identity(), "nll_loss takes log-probabilities"),
        (nn.BCELoss(), nn.Identity(), "BCELoss takes probabilities"),
    ],
)
def test_a_loss_of_other_scores_than_the_models_is_refused(sample, loss, end, words):
    columns = 1 if isinstance(loss, nn.BCELoss) else 2
    with pytest.raises(ValueError, match=words):
        fit(loss, *sample, model=nn.Sequential(nn.Linear(784, columns), end), lr=0.1, progress=False)


@pytest.mark.parametrize("loss, columns, end", [
    (nn.NLLLoss(), 2, nn.LogSoftmax(1)), (nn.BCELoss(), 1, nn.Sigmoid()), (nn.MSELoss(), 1, nn.Sigmoid()),
], ids=named)  # fmt: skip
def test_scores_are_read_as_the_loss_means_them(sample, loss, columns, end):
    train, valid = sample
    model = nn.Sequential(nn.Linear(784, columns), end)
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[0].bias)
    run = fit(loss, train, valid, epochs=2, model=model, lr=0.5, device="cpu", progress=False)
    assert run.history[-1].accuracy > 0.95
    out = model(valid.x).squeeze(1)
    answers = out.argmax(1) if columns == 2 else (out > 0.5).long()
    assert torch.equal(run.predict(valid), torch.tensor([7, 3])[answers])
    proba = run.predict_proba(valid)[:, 1]
    assert_close(proba, out[:, 1].exp() if columns == 2 else out, terms=8)


def test_the_linear_model_gives_logits_and_nothing_else(sample):
    for loss in nn.NLLLoss(), nn.BCELoss(), nll_loss:
        with pytest.raises(ValueError, match="the linear model gives logits: take"):
            fit(loss, *sample, progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to give")
def test_cuda_that_is_not_there(sample):
    with pytest.raises(ValueError, match="device='cuda': this machine has 0 CUDA devices"):
        fit(mnist_loss, *sample, device="cuda", progress=False)


def log_of_softmax(preds, targets):
    return -preds.softmax(1).log().gather(1, targets).mean()


PUBLISHED = dict(shuffle=False, init_std=1.0, device="cpu", progress=False)


def test_what_breaks_first_is_named_and_the_weights_are_finite(sample):
    with pytest.raises(NonFiniteLoss, match=r"the gradient of the scores is (nan|-?inf) in epoch 1, batch") as caught:
        fit(log_of_softmax, *sample, **PUBLISHED)
    error = caught.value
    assert error.tensor == "gradient of the scores" and error.run.nonfinite == error.batch - 1
    assert error.run.weights.isfinite().all() and error.run.weights.abs().sum() > 0
    run = fit(log_of_softmax, *sample, on_nonfinite="record", **PUBLISHED)
    assert error.batch - 1 <= run.nonfinite <= error.batch, "the loss breaks with it, or one step later"
    assert math.isnan(run.history[-1].accuracy)
    with pytest.raises(ValueError, match="the training of these runs went non-finite"):
        run.predict(sample[1])


def nan_after(steps):
    """Cross entropy that turns to NaN after so many calls on batches of 256."""
    calls = []

    def loss(preds, targets):
        calls.append(len(preds)) if len(preds) == 256 and preds.requires_grad else None
        return nn.functional.cross_entropy(preds, targets.view(-1)) * (math.nan if len(calls) > steps else 1)

    return loss


def test_the_step_is_counted_over_epochs(sample):
    train = sample[0][: 256 * 4]
    with pytest.raises(NonFiniteLoss, match="the loss is nan in epoch 3, batch 2") as caught:
        fit(nan_after(9), train, sample[1], progress=False, device="cpu")
    assert caught.value.run.nonfinite == 9 and len(caught.value.run.history) == 2
    run = fit(nan_after(9), train, sample[1], progress=False, device="cpu", on_nonfinite="record")
    assert run.nonfinite == 9
    slow = fit_many(log_of_softmax, *sample, [251], shuffle=False, init_std=1.0, epochs=2, device="cpu", progress=False)
    alone = fit(log_of_softmax, *sample, seed=251, epochs=2, on_nonfinite="record", **PUBLISHED)
    assert slow.nonfinite.item() == alone.nonfinite


def test_a_network_that_breaks_names_the_parameter(sample):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.scale = nn.Linear(784, 2), nn.Parameter(torch.zeros(()))

        def forward(self, x):  # the root's slope is infinite at 0
            return self.head(x) * (1 + self.scale.abs().sqrt())

    model = Root()
    with pytest.raises(NonFiniteLoss, match="the gradient of scale is nan in epoch 1, batch 1"):
        fit(cross_entropy_loss, *sample, model=model, lr=0.1, device="cpu", progress=False)
    assert all(p.isfinite().all() for p in model.parameters())


def test_weights_that_overflow_go_back_to_the_start_of_the_epoch(sample):
    train, valid = sample
    bright = Digits(train.x * 1e30, train.y, train.classes)
    with pytest.raises(NonFiniteLoss) as stopped:
        fit(cross_entropy_loss, bright, valid, lr=1e10, device="cpu", progress=False)
    run = stopped.value.run
    assert run.nonfinite >= 1 and run.weights.isfinite().all() and run.bias.isfinite().all()
    recorded = fit(cross_entropy_loss, bright, valid, lr=1e10, device="cpu", on_nonfinite="record", progress=False)
    assert recorded.nonfinite >= run.nonfinite and math.isnan(recorded.history[-1].accuracy)


def f1(preds, targets):
    answers, y = preds.argmax(1), targets.view(-1)
    return 2 * ((answers == 1) & (y == 1)).sum() / ((answers == 1).sum() + (y == 1).sum())


def test_a_metric_of_ones_own_is_pooled_by_name(sample):
    train, valid = sample
    run = fit(cross_entropy_loss, train, valid, epochs=2, metrics=dict(f1=f1), device="cpu", progress=False)
    logits = valid.x @ run.weights + run.bias
    assert run.history[-1].f1 == pytest.approx(f1(logits, valid.y).item(), abs=1e-6)
    assert list(run.history[0]._fields) == ["epoch", "train_loss", "valid_loss", "accuracy", "nll", "f1", "seconds"]

    calls = []

    def fails(preds, targets):
        calls.append(1)
        if len(preds) == 2038 and len(calls) > 5:
            raise RuntimeError("out of luck")
        return f1(preds, targets)

    with pytest.raises(ValueError, match="in epoch 2: the metric 'f1' failed on .*: RuntimeError: out of luck"):
        fit(cross_entropy_loss, train, valid, metrics=dict(f1=fails), progress=False)


@pytest.mark.parametrize("compiled", [False, True], ids=["module", "compiled"])
def test_a_saved_run_is_the_run(sample, tmp_path, compiled):
    train, valid = sample[0][::50], sample[1]
    path, model = tmp_path / "run.pt", cnn()
    trained = torch.compile(model, backend="eager") if compiled else model
    run = fit(cross_entropy_loss, train, valid, epochs=1, lr=0.1, model=trained, device="cpu", progress=False)
    run.save(path)
    loaded = load_run(path, model=cnn())
    assert torch.equal(loaded.predict(valid), run.predict(valid)) and loaded.history == run.history
    with pytest.raises(ValueError, match="run.pt holds a module, so pass one like it"):
        load_run(path)
    with pytest.raises(ValueError, match="run.pt holds a module of another make"):
        load_run(path, model=nn.Linear(784, 2))


def test_saved_runs_keep_every_field(sample, tmp_path):
    settings = dict(init_std=[1.0, 0.01], lr=[1.0, 0.01], shuffle=False, epochs=2, device="cpu", progress=False)
    runs = fit_many(log_of_softmax, sample[0], sample[1], [0, 1], **settings)
    assert runs.nonfinite[0] >= 0 > runs.nonfinite[1]
    runs.save(tmp_path / "runs.pt")
    loaded = load_runs(tmp_path / "runs.pt")
    for name in "nonfinite", "seconds", "weights", "bias", "train_loss", "valid_loss", "accuracy", "nll":
        torch.testing.assert_close(getattr(loaded, name), getattr(runs, name), equal_nan=True, rtol=0, atol=0)
    assert loaded.coords == runs.coords and loaded.classes == runs.classes
    assert loaded.record["settings"]["seeds"] == [0, 1] and loaded.record["git"] == runs.record["git"]
    assert torch.equal(loaded[1].predict(sample[1]), runs[1].predict(sample[1]))
    with pytest.raises(ValueError, match="holds 2 runs: read them with load_runs"):
        load_run(tmp_path / "runs.pt")
    (tmp_path / "other.pt").write_text("no run")
    with pytest.raises(ValueError, match="other.pt is not a saved run"):
        load_run(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds a linear model, so pass none"):
        load_runs(tmp_path / "runs.pt", model=nn.Linear(784, 2))


def test_where_a_run_comes_from_is_recorded(sample):
    run = fit(nn.CrossEntropyLoss(), *sample, epochs=1, model=cnn(), optimizer=torch.optim.Adam, lr=1e-3,
              progress=False, data_seed=4)  # fmt: skip
    settings = run.record["settings"]
    assert settings["loss"] == "CrossEntropyLoss" and settings["model"] == "Sequential"
    assert settings["optimizer"] == "Adam" and settings["data_seed"] == 4 and settings["init_std"] is None
    assert run.record["versions"]["torch"] == torch.__version__ and run.record["made"]


def where(p, targets):  # the book's loss without its sigmoid
    return torch.where(targets == 1, 1 - p, p).mean()


@pytest.mark.parametrize("loss", [where, nn.MSELoss(), nn.BCELoss()], ids=named)
def test_a_model_that_ends_in_a_sigmoid_is_read_as_probabilities(sample, loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 1), nn.Sigmoid())
    run = fit(loss, *sample, epochs=2, model=model, lr=0.1, device="cpu", progress=False)
    p = model(sample[1].x)
    right = ((p > 0.5).long() == sample[1].y).double().mean().item()
    assert run.history[-1].accuracy == pytest.approx(right) and right > 0.95
    assert_close(run.predict_proba(sample[1])[:, 1:], p, terms=8)


@pytest.mark.parametrize("loss, columns, end", [
    (nn.BCEWithLogitsLoss(), 1, nn.Sigmoid()), (mnist_loss, 1, nn.Sigmoid()), (cross_entropy_loss, 2, nn.Softmax(1)),
    (nn.CrossEntropyLoss(), 2, nn.Softmax(1)),
], ids=named)  # fmt: skip
def test_softmax_twice_is_warned_of(sample, loss, columns, end):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, columns), end)
    with pytest.warns(UserWarning, match="ends in a sigmoid or softmax, and .* takes raw scores"):
        run = fit(loss, *sample, epochs=1, model=model, lr=0.1, device="cpu", progress=False)
    out = model(sample[1].x)
    answers = out.argmax(1) if columns == 2 else (out > 0.5).long().view(-1)
    assert run.history[-1].accuracy == pytest.approx((answers == sample[1].y.view(-1)).double().mean().item())


def test_what_a_glance_at_a_model_shows_is_told_before_it_trains(few):
    mixing = nn.Sequential(nn.Linear(784, 2), nn.LogSoftmax(0))
    with pytest.warns(UserWarning, match="rows-mixed: in eval mode, row 0 gives") as said:
        fit(cross_entropy_loss, *few, epochs=1, lr=0.1, model=mixing, **QUICK)
    assert said[0].filename == __file__


def test_a_model_that_did_not_learn_is_named(sample):
    model = nn.Linear(784, 2)  # of which the bias alone may learn
    nn.init.constant_(model.weight, 1e-5).requires_grad_(False)
    with pytest.warns(UserWarning, match="answers 7 to every validation image, an accuracy of 0.5044"):
        fit(cross_entropy_loss, *sample, epochs=3, lr=0.1, model=model, progress=False)


def test_the_linear_model_is_a_module_as_well(sample):
    run = fit(cross_entropy_loss, *sample, epochs=1, device="cpu", progress=False)
    assert torch.equal(run.model(sample[1].x).argmax(1), torch.tensor([1, 0])[(run.predict(sample[1]) == 7).long()])


@pytest.fixture(scope="module")
def few(sample):
    """300 training images, so that the second batch of 256 is a short one, and 102 test images."""
    return sample[0][::41][:300], sample[1][::20]


QUICK = dict(device="cpu", progress=False)


def test_whole_numbers_are_ints_from_the_least_on():
    for value, least in (1, 1), (np.int64(3), 3), (torch.tensor(2), 1), (0, 0), (np.uint8(7), 0):
        found = whole_number("n", value, least)
        assert found == value and type(found) is int
    for value, least in (0, 1), (-1, 0), (1.0, 1), ("1", 1), (True, 1), (None, 0), ([1], 1), (2, 3):
        with pytest.raises(ValueError, match=rf"^n={re.escape(repr(value))} must be an int of at least {least}$"):
            whole_number("n", value, least)
    with pytest.raises(ValueError, match="at least 1"):
        whole_number("n", 0)


def test_real_numbers_are_finite_and_above_0_or_from_0_on():
    for value in 1, 0.5, np.float32(0.5), torch.tensor(2.0), 1e-300, 1e300:
        for zero in False, True:
            found = real_number("x", value, zero)
            assert found == float(value) and type(found) is float
    assert real_number("x", 0, zero=True) == 0 == real_number("x", -0.0, zero=True)
    wrong = -1, math.inf, -math.inf, math.nan, "1", True, False, None, [1.0], torch.ones(2), 1j
    for value in 0, 0.0, *wrong:
        with pytest.raises(ValueError, match=rf"^x={re.escape(repr(value))} must be a number above 0$"):
            real_number("x", value)
    for value in wrong:
        with pytest.raises(ValueError, match="must be a number of at least 0$"):
            real_number("x", value, zero=True)


@pytest.mark.parametrize("cards", [0, 2])
def test_the_device_is_one_that_is_there(monkeypatch, cards):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert select_device() == torch.device("cuda" if cards else "cpu")
    assert select_device("cpu") == select_device(torch.device("cpu")) == torch.device("cpu")
    there = ["cuda", "cuda:0", "cuda:1"] if cards else []
    assert [select_device(name) for name in there] == [torch.device(name) for name in there]
    for name in {"cuda", "cuda:1", "cuda:2"} - {*there}:
        with pytest.raises(ValueError, match=rf"^device='{name}': this machine has {cards} CUDA devices$"):
            select_device(name)
    with pytest.raises(ValueError, match="^device='meta' is neither the CPU nor CUDA$"):
        select_device("meta")
    with pytest.raises(ValueError, match="is called 'cuda' in PyTorch: write device='cuda'$"):
        select_device("gpu")
    for wrong in "npu:x", None:
        with pytest.raises(ValueError, match=f"^device={wrong!r} is not a torch device: "):
            select_device(wrong)


def test_the_training_loss_is_the_mean_over_images_of_what_each_step_saw(few):
    train, valid = few
    run = fit(cross_entropy_loss, train, valid, epochs=2, lr=0.1, shuffle=False, seed=3, **QUICK)
    w, b = (tensor.clone() for tensor in (run.weights, run.bias))
    model = Linears.drawn(cross_entropy_loss, 784, 2, [3], [0.01], [0.1])
    w, b, means = model.weights_by_model[0].clone(), model.bias_by_model[0].clone(), []
    for _ in range(2):
        sums = 0.0
        for start in 0, 256:
            x, y = train.x[start : start + 256], train.y[start : start + 256].view(-1)
            w.requires_grad_(), b.requires_grad_()
            loss = nn.functional.cross_entropy(x @ w + b, y)
            of_w, of_b = torch.autograd.grad(loss, (w, b))
            w, b, sums = (w - 0.1 * of_w).detach(), (b - 0.1 * of_b).detach(), sums + loss.item() * len(x)
        means.append(sums / 300)
    assert run.train_loss.tolist() == pytest.approx(means, rel=1e-5)
    assert_close(run.weights, w, terms=784)
    assert run.accuracy[-1] == pytest.approx((run.predict(valid) == valid.digits).double().mean().item())
    logits = valid.x @ w + b
    assert run.valid_loss[-1] == pytest.approx(nn.functional.cross_entropy(logits, valid.y.view(-1)).item(), rel=1e-5)
    assert run.nll[-1].item() == pytest.approx(run.valid_loss[-1].item(), rel=1e-6)


def test_the_mean_over_batches_counts_a_short_batch_as_much(few):
    train, valid = few
    losses = []
    for pooled in True, False:
        models = Linears.drawn(cross_entropy_loss, 784, 2, [3], [0.01], [1e-12])
        runs = train_models(
            models, train, valid, {}, coords={}, record=dict(settings={}), epochs=1, shuffle=False,
            progress=False, pooled=pooled,
        )  # fmt: skip
        losses.append(runs.train_loss.item())
    each = cross_entropy_loss(models.logits(train.x)[0], train.y, "none").double()
    assert losses == pytest.approx([each.mean().item(), (each[:256].mean() + each[256:].mean()).item() / 2], rel=1e-6)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_seconds_are_a_models_share_of_the_clock(few, monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 21.0] * 3)
    monkeypatch.setattr("mnist_ce.training.time.perf_counter", lambda: next(clock))
    runs = fit_many(cross_entropy_loss, *few, range(4), epochs=2, **QUICK)
    assert runs.seconds.tolist() == [[1.0] * 4, [0.25] * 4]
    run = fit(cross_entropy_loss, *few, epochs=2, **QUICK)
    assert [epoch.seconds for epoch in run.history] == [4, 1]


def test_progress_is_told_or_not(few, capsys):
    fit(cross_entropy_loss, *few, epochs=2, device="cpu", progress=False)
    assert capsys.readouterr() == ("", "")
    run = fit(cross_entropy_loss, *few, epochs=2, device="cpu")
    said = capsys.readouterr().err
    assert "cross_entropy_loss:" in said and "0/2" in said and "epoch" in said
    assert f"accuracy={run.accuracy[0]:.4f}" in said and f"loss={run.train_loss[0]:.4f}" in said
    fit_many(mnist_loss, *few, range(2), epochs=2, device="cpu")
    said = capsys.readouterr().err
    assert "mnist_loss:" in said and "accuracy=" not in said


def test_what_was_asked_for_is_recorded(few):
    run = fit(cross_entropy_loss, *few, epochs=1, **QUICK)
    plain = dict(
        loss="cross_entropy_loss", model="linear", epochs=1, lr=1.0, batch_size=256, shuffle=True,
        seed=0, data_seed=0, init_std=0.01,
    )  # fmt: skip
    assert run.settings == plain and run.record["device"].startswith("CPU")
    assert run.coords == {name: plain[name] for name in ("loss", "seed", "data_seed", "lr", "init_std")}
    given = dict(epochs=2, lr=0.5, batch_size=7, shuffle=False, seed=4, data_seed=5)
    own = dict(optimizer=torch.optim.Adam, augment=lambda xb, generator: xb)
    run = fit(mnist_loss, *few, **given, **own, init_std=0.3, **QUICK)
    told = given | dict(loss="mnist_loss", model="linear", init_std=0.3, optimizer="Adam", augment="<lambda>")
    assert run.settings == told
    run = fit(cross_entropy_loss, *few, **given, model=nn.Linear(784, 2), **QUICK)
    assert run.settings == given | dict(loss="cross_entropy_loss", model="Linear", init_std=None)
    assert run.coords["init_std"] is None and run.coords["lr"] == 0.5
    assert len(fit(cross_entropy_loss, *few, **QUICK).history) == 10


def test_augment_gets_each_batch_and_the_generator_of_the_order(few):
    train, valid = few
    seen = []

    def augment(xb, generator):
        seen.append((xb.shape, torch.rand((), generator=generator).item()))
        return torch.zeros_like(xb)

    run = fit(cross_entropy_loss, train, valid, epochs=1, shuffle=False, augment=augment, data_seed=3, lr=0.1, **QUICK)
    generator = torch.Generator().manual_seed(3)
    assert seen == [((n, 784), torch.rand((), generator=generator).item()) for n in (256, 44)]
    start = Linears.drawn(cross_entropy_loss, 784, 2, [0], [0.01], [0.1]).weights_by_model[0]
    assert torch.equal(run.weights, start), "of black images no weight learns"


def test_a_linear_model_by_an_optimizer_starts_where_plain_descent_does(few):
    settings = dict(epochs=2, lr=0.2, seed=5, init_std=0.1, **QUICK)
    by_hand = fit(cross_entropy_loss, *few, **settings)
    by_torch = fit(cross_entropy_loss, *few, optimizer=torch.optim.SGD, **settings)
    assert_close(by_torch.model.weight.T, by_hand.weights, terms=784)
    assert_close(by_torch.train_loss, by_hand.train_loss.float(), terms=784)
    assert by_torch.weights is None and by_torch.settings["optimizer"] == "SGD"


def adam(parameters, lr):
    return torch.optim.Adam(parameters, lr=lr)


def test_the_optimizer_is_made_of_what_learns_and_the_rate():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    learns, given = list(module[1].parameters()), []

    def scheduled(parameters, lr, steps):
        given.append((parameters, lr, steps))
        made = adam(parameters, lr)
        return made, torch.optim.lr_scheduler.StepLR(made, 1)

    def own_default(parameters, lr, momentum=0.7):
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum)

    def steps_default(parameters, lr, steps=1):
        given.append(steps)
        return adam(parameters, lr)

    sgd, half = torch.optim.SGD, functools.partial(torch.optim.SGD, momentum=0.5)
    for optimizer, lr, kind, rate in [
        (None, 0.1, sgd, 0.1), (torch.optim.Adam, 0.2, torch.optim.Adam, 0.2), (half, 0.3, sgd, 0.3),
        (functools.partial(sgd, lr=0.4), None, sgd, 0.4), (functools.partial(sgd, lr=0.4), 0.5, sgd, 0.5),
        (adam, 0.6, torch.optim.Adam, 0.6), (lambda parameters: sgd(parameters, lr=0.7), None, sgd, 0.7),
        (lambda parameters: sgd(parameters, lr=0.7), 0.1, sgd, 0.7), (scheduled, 0.8, torch.optim.Adam, 0.8),
        (own_default, 0.9, sgd, 0.9), (steps_default, 0.1, torch.optim.Adam, 0.1),
        (functools.partial(adam, lr=0.2), None, torch.optim.Adam, 0.2),
    ]:  # fmt: skip
        made, schedule = optimizer_of(optimizer, module, lr, 12)
        (group,) = made.param_groups
        assert type(made) is kind and group["lr"] == rate and (schedule is None) == (optimizer is not scheduled)
        assert all(a is b for a, b in zip(group["params"], learns)) and len(group["params"]) == 2
        momentum = {half: 0.5, own_default: 0.7}.get(optimizer, 0)
        assert group.get("momentum", 0) == momentum
    ((parameters, lr, steps), other) = given
    assert (len(parameters), lr, steps, other) == (2, 0.8, 12, 12)
    made = sgd(learns, lr=0.1)
    assert optimizer_of(made, module, None, 12) == (made, None)


@pytest.mark.parametrize(
    "optimizer, lr, error, words",
    [
        (torch.optim.SGD, None, ValueError, "^lr: a model or an optimizer of your own has no default learning rate"),
        (functools.partial(torch.optim.SGD, momentum=0.5), None, ValueError, "^lr: "),
        (adam, None, ValueError, "^lr: "), (None, None, ValueError, "^lr: "), (adam, -1, ValueError, "^lr=-1 must"),
        (3, 0.1, TypeError, "^optimizer must be a class of torch.optim or a function, .*, got 3$"),
        (lambda p, lr: (adam(p, lr), None, None), 0.1, ValueError, "unpack"),
        (lambda p, lr: "adam", 0.1, TypeError, "^optimizer gave a str, not an optimizer of torch.optim$"),
        (lambda p, lr: adam([nn.Parameter(torch.ones(1))], lr), 0.1, ValueError, "^the optimizer holds parameters that"),
        (lambda p, lr: adam([*p, nn.Parameter(torch.ones(1))], lr), 0.1, ValueError, "^the optimizer holds parameters"),
        (torch.optim.LBFGS, 0.1, ValueError, "^LBFGS needs a closure; fit takes one gradient a step"),
    ],
)  # fmt: skip
def test_optimizers_that_cannot_be_used(optimizer, lr, error, words):
    with pytest.raises(error, match=words):
        optimizer_of(optimizer, nn.Linear(3, 2), lr, 12)


def test_warnings_point_at_the_line_that_called_fit(few):
    stuck = nn.Linear(784, 2)
    nn.init.constant_(stuck.weight, 1e-5).requires_grad_(False)
    ended = nn.Sequential(nn.Linear(784, 2), nn.Softmax(1))
    flat = dict(flat=lambda preds, targets: 0.5)
    for model, epochs, words in (stuck, 3, "it has not learned"), (ended, 1, "Take the end off"):
        with pytest.warns(UserWarning, match=words) as said:
            fit(cross_entropy_loss, *few, epochs=epochs, lr=0.01, model=model, **QUICK)
        assert [warning.filename for warning in said] == [__file__]
    with pytest.warns(UserWarning, match="'flat' gives right answers and wrong ones the same value"):
        fit(cross_entropy_loss, *few, epochs=1, metrics=flat, **QUICK)


def test_a_loss_that_was_lucky_is_told_where_it_breaks(few):
    def lucky(preds, targets):
        return nn.functional.nll_loss(preds.softmax(1).log(), targets)

    def drawn(preds, targets):
        return nn.functional.cross_entropy(preds + 0 * torch.rand(()), targets)

    with pytest.warns(UserWarning) as said:
        fit(lucky, *few, epochs=1, **QUICK)
    assert [str(warning.message) for warning in said] == [
        "lucky stayed finite here, and is not where a model is surer, at scores of 100 and -100: "
        "examine(lucky) says what to write instead"
    ]
    assert examine(lucky).causes == ["not-finite"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(nn.functional.cross_entropy, *few, epochs=1, **QUICK)
        before = torch.get_rng_state()
        fit(drawn, *few, epochs=1, **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_too_soon_to_tell_or_told_already_is_not_told(few):
    train, valid = few
    of_one = valid[valid.y.view(-1) == 0]
    alone = pytest.warns(UserWarning, match="^valid holds images of 7 alone, .* = data.split")
    for epochs, data, told in (2, valid, contextlib.nullcontext([0])), (3, of_one, alone):
        stuck = nn.Linear(784, 2)
        nn.init.constant_(stuck.weight, 1e-5).requires_grad_(False)
        with told as said:
            fit(cross_entropy_loss, train, data, epochs=epochs, lr=0.01, model=stuck, **QUICK)
        assert len(said) == 1
    rising = lambda preds, targets: -nn.functional.cross_entropy(preds, targets)
    model = nn.Linear(784, 2)
    nn.init.constant_(model.weight, 1e-5).requires_grad_(False)
    with pytest.warns(UserWarning, match="rises") as said:
        fit(rising, train, valid, epochs=3, lr=0.01, model=model, **QUICK)
    assert len(said) == 1


def test_a_loss_that_breaks_in_the_first_step_leaves_a_run_without_epochs(few):
    def broken(preds, targets):
        return nn.functional.cross_entropy(preds, targets) * (math.nan if len(preds) > 40 else 1)

    with pytest.raises(NonFiniteLoss) as caught:
        fit(broken, *few, seed=3, **QUICK)
    error = caught.value
    assert (error.epoch, error.batch, error.tensor) == (1, 1, "loss") and math.isnan(error.loss)
    assert error.args == (1, 1, "loss", error.loss, error.run) and isinstance(error.run, Run)
    assert str(error) == (
        "the loss is nan in epoch 1, batch 1; .run has the last finite weights, "
        "on_nonfinite='record' would go on; examine(loss) looks for the cause"
    )
    assert error.run.history == [] and error.run.nonfinite == 0
    assert error.run.history.headers == ("epoch", "train_loss", "valid_loss", "accuracy", "nll", "seconds")
    start = Linears.drawn(cross_entropy_loss, 784, 2, [3], [0.01], [1.0])
    assert torch.equal(error.run.weights, start.weights_by_model[0])
    run = fit(broken, *few, epochs=2, on_nonfinite="record", **QUICK)
    assert run.nonfinite == 0, "the first step that broke, not a later one"


def squared(preds, targets):
    """Of raw scores, a loss that too high a rate lets grow without bounds."""
    return ((preds - nn.functional.one_hot(targets, 2)) ** 2).sum(1).mean()


def test_the_step_that_broke_is_counted_for_each_model_over_all_epochs(few):
    """Against descent by hand, 3 steps an epoch: one model in the first epoch, one in a later one."""
    train, valid = few
    rates, settings = [1e-6, 1e30, 3.0], dict(epochs=6, batch_size=100, shuffle=False, **QUICK)
    many = fit_many(squared, train, valid, [0] * 3, lr=rates, **settings)
    alone = [fit(squared, train, valid, lr=lr, on_nonfinite="record", **settings) for lr in rates]
    assert many.nonfinite.tolist() == [run.nonfinite for run in alone]
    for rate, found in zip(rates, many.nonfinite.tolist()):
        models = Linears.drawn(squared, 784, 2, [0], [0.01], [rate])
        w, b, broke = models.weights_by_model[0], models.bias_by_model[0], -1
        for step in range(18):
            x, y = train.x[100 * (step % 3) :][:100], train.y[100 * (step % 3) :][:100].view(-1)
            z = x @ w + b
            if not squared(z, y).isfinite():
                broke = step
                break
            slope = 2 * (z - nn.functional.one_hot(y, 2)) / 100
            w, b = w - rate * x.T @ slope, b - rate * slope.sum(0)
        assert found == broke
    assert many.nonfinite[0] == -1 and 0 < many.nonfinite[1] < 3 < many.nonfinite[2]
    with pytest.raises(NonFiniteLoss) as caught:
        fit(squared, train, valid, lr=3.0, **settings)
    error = caught.value
    assert error.run.nonfinite == 3 * (error.epoch - 1) + error.batch - 1 and error.epoch > 1
    assert len(error.run.history) == error.epoch - 1


@pytest.mark.parametrize("loss, end, words", [
    (nn.NLLLoss(), nn.Identity(), "NLLLoss takes log-probabilities, the model gives scores from {:.3g} to {:.3g}: "
     "end the model with log_softmax, or take F.cross_entropy"),
    (nn.BCELoss(), nn.Identity(), "BCELoss takes probabilities, the model gives scores from {:.3g} to {:.3g}: "
     "end the model with softmax or sigmoid, or take a loss of logits"),
    (nn.BCELoss(), nn.ReLU(), "BCELoss takes probabilities, the model gives scores from {:.3g} to {:.3g}: "
     "end the model with softmax or sigmoid, or take a loss of logits"),
], ids=named)  # fmt: skip
def test_the_refusal_tells_between_what_the_scores_lie(few, loss, end, words):
    train, valid = few
    columns = 1 if isinstance(loss, nn.BCELoss) else 2
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, columns), end)
    nn.init.normal_(model[0].weight, 0, 1)
    scores = model(train.x)
    with pytest.raises(ValueError) as refused:
        fit(loss, train, valid, model=model, lr=0.1, **QUICK)
    assert str(refused.value) == words.format(scores.min().item(), scores.max().item())


def test_a_linear_model_for_two_classes_or_ten_and_no_other_scores(few):
    with pytest.raises(ValueError) as refused:
        fit(nn.NLLLoss(), *few, **QUICK)
    assert str(refused.value) == (
        "NLLLoss takes log-probabilities, and the linear model gives logits: take cross_entropy_loss, "
        "F.cross_entropy or nn.BCEWithLogitsLoss()"
    )


def test_a_file_of_another_version_or_with_too_many_runs_is_refused(few, tmp_path):
    runs = fit_many(mnist_loss, *few, range(2), epochs=1, **QUICK)
    path = tmp_path / "runs.pt"
    runs.save(path)
    loaded = load_runs(str(path))
    assert loaded.models[0].loss is mnist_loss and loaded.record["settings"] == runs.record["settings"]
    assert loaded.models[0].lr.tolist() == [1, 1] and len(loaded.models) == 1
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} holds a linear model, so pass none$"):
        load_runs(path, nn.Linear(784, 2))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} holds 2 runs: read them with load_runs$"):
        load_run(path)
    write_checkpoint(path, read_checkpoint(path) | dict(format=1))
    with pytest.raises(ValueError, match="runs.pt is not a saved run: it was written by another version"):
        load_runs(path)


def test_a_strangers_loss_is_known_again_by_what_it_takes(few, tmp_path):
    path = tmp_path / "run.pt"
    model = nn.Sequential(nn.Linear(784, 1), nn.Sigmoid())
    run = fit(nn.BCELoss(), *few, epochs=1, lr=0.1, model=model, **QUICK)
    run.save(path)
    loaded = load_run(path, model=model)
    assert loaded.runs.models[0].loss.name == "BCELoss" and loaded.runs.models[0].loss.scores == "probabilities"
    assert loaded.model is model and loaded.runs.models[0].shape == (784,)
    assert torch.equal(loaded.predict_proba(few[1]), run.predict_proba(few[1]))


@pytest.mark.parametrize("metrics", [[len], "f1", 3], ids=named)
def test_metrics_that_are_no_dict(few, metrics):
    with pytest.raises(TypeError, match=re.escape(f"write metrics=dict(name=function), got {metrics!r}")):
        fit(cross_entropy_loss, *few, metrics=metrics, **QUICK)


@pytest.mark.parametrize("name", ["epoch", "train_loss", "valid_loss", "accuracy", "nll", "seconds"])
def test_names_of_metrics_that_are_taken(few, name):
    with pytest.raises(ValueError, match=f"^metrics: the name '{name}' is taken, take another$"):
        fit(cross_entropy_loss, *few, metrics={"own": f1, name: f1}, **QUICK)


def test_a_loss_that_is_near_0_for_sure_probabilities_is_not_warned_of(few):
    missed = Loss(lambda scores, labels: 1 - scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1), name="missed")
    model = nn.Sequential(nn.Linear(784, 2), nn.Softmax(1))
    run = fit(missed, *few, epochs=1, lr=0.1, model=model, **QUICK)
    assert run.runs.models[0].loss.scores == "probabilities"
    assert_close(run.predict_proba(few[1]), model(few[1].x), terms=4)


def test_a_pickle_is_not_opened(few, tmp_path):
    class Stranger:
        def __reduce__(self):
            return (tmp_path / "opened").touch, ()

    for k, write in enumerate([torch.save, lambda it, path: path.write_bytes(pickle.dumps(it))]):
        write(Stranger(), tmp_path / f"{k}.pt")
        with pytest.raises(ValueError, match=rf"{k}\.pt is not a saved run"):
            load_runs(tmp_path / f"{k}.pt")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "scores, normal",
    [
        ([[0.2], [0.9]], True), ([[0.2], [3.0]], False), ([[-0.2], [0.9]], False), ([[0.5], [0.5]], False),
        ([[0.2, 0.8], [0.9, 0.1]], True), ([[0.2, 0.7], [0.9, 0.1]], False), ([[0.2, 0.8], [1.9, -0.9]], False),
    ],
)  # fmt: skip
def test_what_a_sigmoid_or_a_softmax_could_have_given(scores, normal):
    assert training._normal(torch.tensor(scores)) == normal


def test_scores_that_are_nearly_log_probabilities_are_refused(few):
    class Shifted(nn.Linear):
        def forward(self, x):
            return super().forward(x).log_softmax(1) + 0.3

    with pytest.raises(ValueError, match="nll_loss takes log-probabilities"):
        fit(nll_loss, *few, epochs=1, lr=0.1, model=Shifted(784, 2), **QUICK)


def test_probabilities_may_be_0_and_1(few):
    class Sure(nn.Linear):
        def forward(self, x):
            return (1e6 * super().forward(x)).sigmoid()

    model = Sure(784, 1)
    assert {0.0, 1.0} <= set(model(few[0].x).unique().tolist())
    fit(nn.BCELoss(), *few, epochs=1, lr=1e-9, model=model, **QUICK)


def test_the_rate_that_was_asked_for_is_recorded(few):
    slower = lambda parameters, lr: torch.optim.SGD(parameters, lr / 10)
    run = fit(cross_entropy_loss, *few, epochs=1, lr=0.5, optimizer=slower, **QUICK)
    assert run.settings["lr"] == 0.5 and run.coords["lr"] == 0.5


def test_a_live_curve_is_drawn_after_each_epoch_where_there_is_a_notebook(few, monkeypatch):
    pytest.importorskip("IPython", reason="Jupyter is a development tool")
    with pytest.raises(ValueError, match=r"elsewhere write run.plot\(\) afterwards"):
        fit(cross_entropy_loss, *few, plot=True)
    drawn = []

    class Handle:
        update = staticmethod(drawn.append)

    def display(figure, display_id):
        drawn.append(figure)
        return Handle()

    monkeypatch.setattr("IPython.get_ipython", lambda: "a notebook")
    monkeypatch.setattr("IPython.display.display", display)
    run = fit(cross_entropy_loss, *few, epochs=3, plot=True, progress=False)
    assert [len(figure.axes[1].lines[0].get_xdata()) for figure in drawn] == [1, 2, 3]
    left, right = drawn[-1].axes
    assert [list(line.get_ydata()) for line in left.lines] == [run.runs.train_loss[:, 0].tolist(), run.runs.valid_loss[:, 0].tolist()]
    assert list(right.lines[0].get_ydata()) == run.accuracy.tolist()
    assert drawn[-1].alt.endswith(f"after epoch 3 the accuracy is {run.history[-1].accuracy:.4f}")


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_loss_that_grew_without_end_is_told(few, epochs):
    train, valid = few
    settings = dict(epochs=epochs, lr=0.7, batch_size=64, device="cpu", progress=False)
    with pytest.warns(UserWarning) as said:
        run = fit(nn.functional.mse_loss, train, valid, **settings)
    ended = f"mse_loss: the loss ended at {run.valid_loss[-1]:.4g}, where scores of 0 have 0.5"
    assert [str(one.message) for one in said] == [f"{ended}: lr=0.7 is too large for it, write lr=0.007"]
    assert fit(nn.functional.mse_loss, train, valid, **settings | dict(lr=0.007)).valid_loss[-1] < 0.5


def stopped(loss, train, valid, **settings):
    with pytest.raises(NonFiniteLoss) as caught:
        fit(loss, train, valid, **dict(lr=1.0, batch_size=64) | settings | QUICK)
    return caught.value


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, squared])
def test_a_rate_that_let_the_loss_grow_until_it_broke_is_named(few, loss):
    """A hundredth of the rate trains."""
    error = stopped(loss, *few)
    assert error.tensor == "loss" and len(error.losses) == error.batch - 1
    grew = [*error.run.train_loss.tolist(), *error.losses]
    assert grew[-1] > 1000 and grew == sorted(grew)
    zero = loss(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])).item() if loss is squared else 0.5
    grown = f"the loss had grown to {grew[-1]:.4g}, where scores of 0 have {zero:.4g}"
    assert error.reason == f"{grown}: lr=1 is too large for it, write lr=0.01"
    assert str(error) == (
        f"the loss is inf in epoch {error.epoch}, batch {error.batch}: {error.reason}; .run has the last finite weights, "
        "on_nonfinite='record' would go on"
    )
    again = pickle.loads(pickle.dumps(NonFiniteLoss(1, 2, "loss", math.inf, None)))
    assert (again.reason, again.losses) == ("", ())
    assert fit(loss, *few, epochs=3, lr=0.01, batch_size=64, **QUICK).valid_loss[-1] < zero
    later = stopped(loss, *few, lr=0.2)
    assert later.epoch > 1 and "lr=0.2 is too large for it, write lr=0.002" in str(later)


def test_the_rate_is_not_blamed_for_what_else_breaks(few):
    train, valid = few
    spoiled = train.x.clone()
    spoiled[70] = 1e5
    exponential = lambda preds, targets: ((preds[:, 0] - preds[:, 1]) * (2 * targets - 1)).exp().mean()
    for loss, data, settings in [
        (log_of_softmax, train, dict(init_std=3.0)),  # breaks at once
        (log_of_softmax, train, dict(lr=100.0)),  # its formula breaks
        (exponential, train, {}),  # so does this
        (nn.functional.mse_loss, Digits(spoiled, train.y, train.classes), dict(lr=0.01)),  # an outlier
    ]:
        error = stopped(loss, data, valid, **settings)
        assert error.reason == "" and f"batch {error.batch}; .run" in str(error)
