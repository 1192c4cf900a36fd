"""Each loss trains the 3-versus-7 classifier, on each device, and bad settings are refused."""
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mnist_ce.data import Digits
from mnist_ce.ensemble import fit_many
from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss
from mnist_ce.results import assert_close
from mnist_ce.training import NonFiniteLoss, fit, load_run, load_runs


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
        (NETWORK, ValueError, "write lr=0.001 for Adam, lr=0.1 for plain descent"),
        (dict(optimizer=torch.optim.Adam), ValueError, "no default learning rate"),
        (dict(model=nn.Linear, lr=0.1), TypeError, r"model is a class: write Linear\(\)"),
        (dict(model=lambda x: x[:, :2], lr=0.1), TypeError, "model must be an nn.Module, got function"),
        (dict(model=nn.Linear(784, 3), lr=0.1), ValueError, "2 columns are needed for classes"),
        (dict(model=nn.Linear(100, 2), lr=0.1), ValueError, "cannot be multiplied"),
        (dict(model=Pair(784, 2), lr=0.1), ValueError, "returns a tuple: let it return the scores alone"),
        (dict(model=NoParameters(), lr=0.1), ValueError, "NoParameters has no parameters"),
        (dict(model=nn.Linear(784, 2, device="meta"), lr=0.1), ValueError, "on the device meta"),
        (NETWORK | dict(optimizer="adam", lr=0.1), TypeError, "optimizer must be a class .* got 'adam'"),
        (NETWORK | dict(optimizer=lambda p, lr: None, lr=0.1), TypeError, "optimizer gave a NoneType"),
        (NETWORK | dict(optimizer=torch.optim.LBFGS, lr=0.1), ValueError, "LBFGS needs a closure"),
        (NETWORK | dict(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)), ValueError,
         "holds parameters that are not the model's"),
        (NETWORK | dict(optimizer=torch.optim.SGD(NETWORK["model"].parameters(), lr=0.1), lr=1), ValueError,
         "the optimizer has its own, 0.1"),
        (dict(metrics=[len]), TypeError, r"write metrics=dict\(name=function\)"),
        (dict(metrics=dict(accuracy=len)), ValueError, "the name 'accuracy' is taken"),
        (dict(metrics=dict(f1="f1")), TypeError, "the metric 'f1' must be a function"),
        (dict(metrics=dict(f1=lambda p, t: p)), ValueError, "the metric 'f1' failed on"),
    ],
    ids=lambda value: str(value)[:60],
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
], ids=str)  # fmt: skip
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


@pytest.mark.parametrize("loss", [where, nn.MSELoss(), nn.BCELoss()], ids=str)
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
], ids=str)  # fmt: skip
def test_softmax_twice_is_warned_of(sample, loss, columns, end):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, columns), end)
    with pytest.warns(UserWarning, match="ends in a sigmoid or softmax, and .* takes raw scores"):
        run = fit(loss, *sample, epochs=1, model=model, lr=0.1, device="cpu", progress=False)
    out = model(sample[1].x)
    answers = out.argmax(1) if columns == 2 else (out > 0.5).long().view(-1)
    assert run.history[-1].accuracy == pytest.approx((answers == sample[1].y.view(-1)).double().mean().item())


def test_a_model_that_did_not_learn_is_named(sample):
    model = nn.Linear(784, 2)  # of which the bias alone may learn
    nn.init.zeros_(model.weight).requires_grad_(False)
    with pytest.warns(UserWarning, match="answers 7 to every validation image, an accuracy of 0.5044"):
        fit(cross_entropy_loss, *sample, epochs=3, lr=0.1, model=model, progress=False)


def test_the_linear_model_is_a_module_as_well(sample):
    run = fit(cross_entropy_loss, *sample, epochs=1, device="cpu", progress=False)
    assert torch.equal(run.model(sample[1].x).argmax(1), torch.tensor([1, 0])[(run.predict(sample[1]) == 7).long()])
