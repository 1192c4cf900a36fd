"""Whatever is handed to the doctor: one clear line, no wait without end, nothing left changed."""

import functools
import itertools
import random
import re
import signal
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import seeded
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mnist_ce import doctor
from mnist_ce.case import Case
from mnist_ce.doctor import EXPERIMENTS, examine, watch

N = 240
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.arange(N) % 3
X = torch.randn(3, 6, generator=GENERATOR)[Y] + 0.5 * torch.randn(N, 6, generator=GENERATOR)
XV = torch.randn(3, 6, generator=GENERATOR)[Y[:90]]  # not of the same kinds: for what is put back


def loader(x=X, y=Y, **options):
    return DataLoader(TensorDataset(x, y), 32, shuffle=True, **options)


def network(inputs=6, outputs=3):
    return seeded(
        lambda: nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))
    )


def stepping(model, optimizer, loss=F.cross_entropy):
    def step(xb, yb):
        optimizer.zero_grad()
        loss(model(xb), yb).backward()
        optimizer.step()

    return step


def everything(**instead):
    """All that can be passed, sound where nothing else is said."""
    model = instead.get("model", network())
    optimizer = torch.optim.SGD(network().parameters(), 0.1)
    if isinstance(model, nn.Module):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
    given = dict(
        loss=F.cross_entropy, model=model, train=loader(), optimizer=optimizer,
        step=stepping(model, optimizer),
    )  # fmt: skip
    return given | instead


def reasons(report):
    return {check.why for check in report if check.status != "pass" and check.why}


def judged(report):
    """The causes that were looked into with a result."""
    return {check.cause for check in report if check.status != "skip"}


# ---- Data that is none: said in one line, and what needs no data is still judged.


class Endless(IterableDataset):
    def __iter__(self):
        k = 0
        while True:
            yield X[k % N], Y[k % N]
            k += 1


class Items(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, k):
        return self.make(k)


@pytest.mark.parametrize("lone", [True, False], ids=["loss and model", "all"])
@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: iter(loader()), "train is an iterator: pass the loader itself"),
        (lambda: (b for b in loader()), "train is an iterator: pass the loader itself"),
        (lambda: DataLoader(TensorDataset(X[:0], Y[:0]), 32), "train is empty"),
        (lambda: [], "train is empty"),
        (lambda: (X[:0], Y[:0]), "train is empty"),
        (lambda: loader(drop_last=True, x=X[:9], y=Y[:9]), "train is empty"),
        (lambda: DataLoader(TensorDataset(X, Y, Y), 32, True),
         "train gives a list of 3, no pairs (inputs, targets)"),
        (lambda: DataLoader(Items(lambda k: dict(x=X[k], y=Y[k], place=k)), 32, True),
         "train gives a dict of 3, no pairs (inputs, targets)"),
        (lambda: X, "train gives a Tensor, no pairs (inputs, targets)"),
        (lambda: (X, Y[:-1]), f"train has {N} inputs and {N - 1} targets"),
        (lambda: DataLoader(Items(lambda k: (X[k], "abc"[Y[k]])), 32, True),
         "train holds what is no tensor: ValueError: too many dimensions 'str'"),
        (lambda: (X, ["abc"[k] for k in Y]),
         "train holds what is no tensor: ValueError: too many dimensions 'str'"),
    ],
    ids=(
        "iterator,generator,empty loader,empty list,empty pair,last batch dropped,three,dicts,"
        "a tensor,lengths,strings,list of strings"
    ).split(","),
)  # fmt: skip
def test_data_that_makes_no_batches(make, line, lone):
    given = everything(train=make())
    if lone:
        given = {name: given[name] for name in ("loss", "model", "train")}
    report = examine(**given)
    assert report.failed == []
    assert [why for why in reasons(report) if why.startswith(line)], reasons(report)
    assert not {why for why in reasons(report) if "experiment failed" in why or "\n" in why}


def test_an_empty_list_of_strings_or_a_number_is_no_data():
    for train in "digits", 3:
        report = examine(F.cross_entropy, model=network(), train=train)
        assert report.failed == [] and any(why.startswith("train ") for why in reasons(report))


def test_a_loader_that_never_ends_is_judged_by_its_start():
    start = time.monotonic()
    report = examine(**everything(train=DataLoader(Endless(), 32)))
    assert time.monotonic() - start < 20
    assert report.causes == []
    assert {"rows-mixed", "gradients-accumulate", "imbalance", "lr-small"} <= judged(report)


def test_no_experiment_fails_on_a_loader_that_never_ends():
    report = examine(**everything(train=DataLoader(Endless(), 32)))
    assert not {why for why in reasons(report) if "experiment failed" in why}
    assert {"columns", "sign", "softmax-twice"} <= judged(report)


# ---- Functions that raise, wait or return what they should not.


def boom(*arguments):
    raise RuntimeError("no\nmore disks")


def test_a_step_of_three_arguments_and_one_that_raises():
    report = examine(**everything(step=lambda xb, yb, extra: None))
    assert report.failed == []
    (line,) = {why for why in reasons(report) if why.startswith("step(xb, yb) raises")}
    assert "missing 1 required positional argument: 'extra'" in line
    report = examine(**everything(step=boom))
    assert report.failed == []
    assert "step(xb, yb) raises RuntimeError: no more disks" in reasons(report)
    assert {"sign", "columns", "not-optimised"} <= judged(report)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_step_that_takes_long_ends_with_the_time(seconds, monkeypatch):
    given = everything()
    usual, calls = given["step"], itertools.count()  # the only count that is not put back

    def slow(xb, yb):
        next(calls)
        time.sleep(0.4)
        usual(xb, yb)

    monkeypatch.setattr(doctor, "Case", lambda **more: Case(seconds=seconds, **more))
    start = time.monotonic()
    report = examine(**given | dict(step=slow))
    assert time.monotonic() - start < seconds + 4
    assert "there was no time left" in reasons(report) and report.failed == []
    assert (next(calls) > 0) == bool(seconds)


def test_a_model_that_raises_or_returns_a_tuple_or_takes_no_such_inputs():
    report = examine(F.cross_entropy, model=boom, train=loader())
    assert report.causes == ["columns"] and "no more disks" in report.failed[0].why
    assert "[32, 6]" in report.failed[0].fix

    class Twofold(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    report = examine(F.cross_entropy, model=Twofold(6, 3), train=loader())
    assert report.failed == []
    assert "the model returns a tuple: let it return the scores" in reasons(report)
    report = examine(F.cross_entropy, model=network(7), train=loader())
    assert report.causes == ["columns"] and "shapes cannot be multiplied" in report.failed[0].why
    failed = {check.cause for check in report if "experiment failed" in check.why}
    assert not failed & {"nll-input", "softmax-twice", "input-scale", "vanishing", "sign"}


def test_a_model_that_is_refused_is_called_by_no_other_experiment():
    report = examine(F.cross_entropy, model=network(7), train=loader())
    assert not {why for why in reasons(report) if "experiment failed" in why}


@pytest.mark.parametrize(
    "loss, outputs, cause",
    [
        (nn.CrossEntropyLoss(), 2, "columns"),
        (nn.CrossEntropyLoss(), 1, "columns"),
        (nn.CrossEntropyLoss(weight=torch.ones(5)), 3, "target-form"),
        (nn.BCEWithLogitsLoss(), 3, "target-form"),
        (nn.CTCLoss(), 3, "target-form"),
        (lambda z, y: None, 3, "target-form"),
        (boom, 3, "target-form"),
    ],
    ids="too few,one column,weight of five,BCE of labels,CTC,None,raises".split(","),
)
def test_a_loss_that_refuses_the_outputs_has_one_fault(loss, outputs, cause):
    report = examine(loss, model=network(6, outputs), train=loader())
    assert report.causes == [cause]
    assert report.failed[0].fix and "\n" not in report.failed[0].why


def test_a_metric_or_a_validation_that_raises():
    report = examine(F.cross_entropy, boom, model=network(), train=loader())
    assert report.causes == ["metric-wrong"] and "RuntimeError: no" in report.failed[0].why
    report = examine(**everything(validate=boom))
    assert report.failed == [] and {"sign", "gradients-accumulate"} <= judged(report)
    dropping = nn.Sequential(network(), nn.Dropout(0.1))
    report = examine(F.cross_entropy, model=dropping, train=loader(), validate=boom)
    assert "validate() raises RuntimeError: no more disks" in reasons(report)


def test_a_loss_that_returns_nothing_says_so():
    assert "returns NoneType" in examine(lambda z, y: None).failed[0].why


def test_classes_for_instances():
    class Net(nn.Module):
        def forward(self, x):
            return x

    for name, value in dict(loss=nn.MSELoss, model=Net, metric=Net).items():
        with pytest.raises(TypeError, match=rf"the {name} is a class: write {value.__name__}\(\)"):
            examine(**{name: value})
    for name in "step", "validate", "model":
        with pytest.raises(TypeError, match=f"the {name} must be a function, got 7"):
            examine(F.cross_entropy, **{name: 7})


def test_a_class_for_an_optimizer():
    try:
        report = examine(**everything(optimizer=torch.optim.SGD))
    except (TypeError, ValueError):
        return
    assert not {why for why in reasons(report) if "experiment failed" in why}


# ---- Everything is put back.


def full_call():
    """Everything that can be passed, each part with a state of its own, and what reads it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout())
            self.head = nn.Linear(16, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.head(self.body(x))

    model = seeded(Net)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    own = torch.Generator().manual_seed(5)
    train, valid = loader(generator=own), DataLoader(TensorDataset(XV, Y[:90]), 32)
    history, count = [], 0

    def metric(z, y):
        print("metric"), np.random.rand(2)
        return (z.argmax(1) == y).float().mean()

    def step(xb, yb):
        nonlocal count
        count += 1
        print("step"), torch.rand(2), random.random()
        model.train()
        optimizer.zero_grad()
        value = loss(model(xb + 0.01 * torch.randn_like(xb)), yb)
        value.backward()
        optimizer.step()
        scheduler.step()
        history.append(value.item())

    def validate():
        model.eval()
        with torch.no_grad():
            right = sum((model(xb).argmax(1) == yb).sum().item() for xb, yb in valid)
        history.append(right)
        return right / 90

    seeded(lambda: [step(*batch) for batch in loader()])
    model.body[1].eval()
    model.head.bias.grad = None
    model.head.requires_grad_(True)
    model.body[0].bias.requires_grad_(False)

    def state():
        return dict(
            weights={name: value.clone() for name, value in model.state_dict().items()},
            grads=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
            needs=[p.requires_grad for p in model.parameters()],
            modes=[part.training for part in model.modules()],
            optimizer=optimizer.state_dict(), moments=[
                {name: part.clone() for name, part in optimizer.state[p].items()}
                for p in model.parameters()
            ],
            scheduler=dict(scheduler.state_dict()), lr=optimizer.param_groups[0]["lr"],
            counts=(count, model.calls), history=history[:], order=own.get_state(),
            torch=torch.get_rng_state(), numpy=np.random.get_state()[1].copy(),
            python=random.getstate(), grad=torch.is_grad_enabled(),
            data=[t.clone() for t in (X, Y, XV)], threads=torch.get_num_threads(),
            hooks=[len(part._forward_hooks) for part in model.modules()],
        )  # fmt: skip

    given = dict(
        loss=loss, metric=metric, model=model, train=train, valid=valid, optimizer=optimizer,
        step=step, validate=validate,
    )  # fmt: skip
    return given, state


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
def test_a_full_call_leaves_everything_as_it_was(grad, capfd):
    given, state = full_call()
    ids = [id(p) for p in given["model"].parameters()]
    capfd.readouterr()
    with torch.set_grad_enabled(grad):
        before = state()
        report = examine(**given)
        after = state()
    assert not [name for name in before if not same(before[name], after[name])]
    assert ids == [id(p) for p in given["model"].parameters()]
    assert capfd.readouterr() == ("", "")
    assert not {why for why in reasons(report) if "experiment failed" in why}
    assert {"weights-do-not-move", "gradients-accumulate", "lr-large"} <= judged(report)


def test_what_fails_in_the_middle_is_put_back_too():
    given, state = full_call()
    usual, calls = given["step"], [0]

    def breaking(xb, yb):
        calls[0] += 1
        usual(xb, yb)
        if calls[0] % 3 == 0:
            raise OSError("disk full")

    before = state()
    report = examine(**given | dict(step=breaking))
    assert not [name for name, value in state().items() if not same(before[name], value)]
    assert calls == [0] and report


def batches():
    return [(X[k : k + 40].clone(), Y[k : k + 40].clone()) for k in range(0, N, 40)]


def in_place_loss(z, y):
    z += 1
    return F.cross_entropy(z, y)


def in_place_targets(z, y):
    y -= 1
    return F.cross_entropy(z, y + 1)


def in_place_metric(z, y):
    right = (z.argmax(1) == y).float().mean()
    z.zero_(), y.zero_()
    return right


def in_place_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(xb, yb):
        xb *= 0.5
        stepping(model, optimizer)(xb, yb)
        yb.zero_()

    return dict(model=model, optimizer=optimizer, step=step)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        x *= 0.5
        return self.inner(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dict(loss=in_place_loss),
        pytest.param(
            lambda: dict(loss=in_place_targets),
        ),
        lambda: dict(metric=in_place_metric),
        in_place_step,
        lambda: everything(model=InPlace()),
    ],
    ids=["scores", "targets", "metric", "step", "model"],
)
def test_batches_that_a_function_changes_are_no_others_than_before(make):
    train = batches()
    report = examine(**dict(loss=F.cross_entropy, model=network()) | make() | dict(train=train))
    assert all(torch.equal(a, b) for pair in zip(train, batches()) for a, b in zip(*pair))
    assert report.failed == []


# ---- Sound programs of other shapes.


def rows_of(length):
    return X.view(N, 1, 6).repeat(1, length, 1)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


IDS = Y[:, None] * 10 + torch.randint(10, (N, 7), generator=GENERATOR)
PRICE = (X @ torch.linspace(-1, 1, 6)).view(-1, 1) / 3
IMAGES = 0.3 * torch.randn(N, 1, 8, 8, generator=GENERATOR)
IMAGES[torch.arange(N), 0, 2 * Y] += 1  # a bright row
PAIR = (Y > 0).float()
SOFT = 0.8 * F.one_hot(Y, 3) + 0.2 / 3

SOUND = dict(
    regression=(X, PRICE, lambda: network(6, 1), nn.MSELoss()),
    flat_regression=(
        X, PRICE[:, 0], lambda: nn.Sequential(network(6, 1), nn.Flatten(0)), nn.L1Loss(),
    ),
    three_numbers=(X, X[:, :3] - X[:, 3:], network, nn.SmoothL1Loss()),
    tokens=(IDS, Y, Tokens, nn.CrossEntropyLoss()),
    sequences=(
        rows_of(4), Y.view(N, 1).repeat(1, 4), network,
        lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()),
    ),
    channels_second=(
        rows_of(4), Y.view(N, 1).repeat(1, 4), network,
        lambda z, y: F.cross_entropy(z.transpose(1, 2), y),
    ),
    images=(
        IMAGES, Y, lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(128, 3),
        ), nn.CrossEntropyLoss(),
    ),
    one_column=(X, PAIR.view(-1, 1), lambda: network(6, 1), nn.BCEWithLogitsLoss()),
    flat_column=(
        X, PAIR, lambda: nn.Sequential(network(6, 1), nn.Flatten(0)), nn.BCEWithLogitsLoss(),
    ),
    squeezed=(
        X, PAIR, lambda: network(6, 1),
        lambda z, y: F.binary_cross_entropy_with_logits(z.squeeze(1), y),
    ),
    soft=(X, SOFT, network, nn.CrossEntropyLoss()),
    one_hot=(X, F.one_hot(Y, 3).float(), network, nn.CrossEntropyLoss()),
    doubles=(X.double(), Y, lambda: network().double(), nn.CrossEntropyLoss()),
)  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_program_of_another_shape_has_no_fault(name):
    x, y, make, loss = SOUND[name]
    model = seeded(make)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    report = examine(
        loss, model=model, train=loader(x[:160], y[:160]), valid=loader(x[160:], y[160:]),
        optimizer=optimizer, step=stepping(model, optimizer, loss),
    )  # fmt: skip
    assert report.failed == []
    assert not {why for why in reasons(report) if "experiment failed" in why}
    assert {"gradients-accumulate", "weights-do-not-move"} <= judged(report)


def test_every_experiment_has_an_id_and_can_be_made_alone():
    report = examine(F.cross_entropy, lambda z, y: 0.5)
    assert {check.cause for check in report} == {e.cause for e in EXPERIMENTS}


def test_a_step_that_never_returns_is_left(monkeypatch):
    model = nn.Linear(6, 3)

    def step(xb, yb):
        while True:
            model(xb)

    monkeypatch.setattr(doctor, "Case", functools.partial(Case, 1.0))
    start = time.monotonic()
    report = examine(step=step, model=model, train=(torch.randn(40, 6), torch.arange(40) % 3))
    assert time.monotonic() - start < 20 and not report.failed
    assert any("TimeoutError: no answer after" in check.why for check in report.skipped)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_error_that_a_loop_ends_with_is_told():
    model = nn.Linear(5, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(IndexError), watch() as seen:
        loss = F.cross_entropy(model(torch.randn(8, 5)), torch.full((8,), 2))
        loss.backward()
        optimizer.step()
    report = examine(seen)
    assert report.causes == ["raises"]
    why, fix = report.failed[0].why, report.failed[0].fix
    assert why.startswith("the training ended in ") and re.search(r"test_examine.py, line \d+ with IndexError: Target 2 is out", why)
    assert fix == "labels go from 0 to C - 1, with a column of scores for each"


def test_an_optimizer_of_frozen_parameters_alone():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    report = examine(F.cross_entropy, model=model, optimizer=optimizer)
    assert report.causes == ["not-optimised"]
    assert report.failed[0].why.startswith("all 2 parameters that the optimizer holds are frozen")


def test_a_model_of_two_inputs_is_no_fault():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 3)

        def forward(self, a, b):
            return self.layer(torch.cat([a, b], 1))

    model, y = Two(), torch.arange(32) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    with watch() as seen:
        for _ in range(4):
            a, b = torch.randn(2, 32, 6, generator=generator)
            F.cross_entropy(model(a, b), y).backward()
            optimizer.step()
    assert examine(seen).causes == ["gradients-accumulate"]


def test_a_model_that_samples_on_purpose_is_only_warned_of():
    class Sampling(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) + torch.randn(len(x), 3)

    report = examine(model=Sampling(), train=(torch.randn(40, 6), torch.arange(40) % 3))
    assert report.failed == [] and report.causes == ["random-in-eval"]


def test_a_linear_model_may_start_at_zero():
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x @ self.w + self.b

    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).float()
    assert examine(F.binary_cross_entropy_with_logits, model=Vector(), train=(x, y)).causes == []


def test_a_cross_entropy_of_probabilities_by_hand_is_read_as_such():
    def by_hand(p, y, eps=1e-7):
        p = p.clamp(eps, 1 - eps)
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).float().view(-1, 1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
    assert examine(by_hand, model=model, train=(x, y)).causes == []


# ---- Loops whose model is called otherwise, or is no module.


class Attention(nn.Module):
    """One head of attention, its weights as small as those of BERT: the query hardly gets any."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.hidden, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        for part in self.embed, self.query, self.key:
            nn.init.normal_(part.weight, std=0.005)

    def forward(self, input_ids, attention_mask, labels=None):
        x = self.embed(input_ids)
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        scores = scores.masked_fill(attention_mask[:, None] == 0, -torch.inf)
        z = self.head(self.hidden((scores.softmax(-1) @ self.value(x)).mean(1)).relu())
        return dict(loss=F.cross_entropy(z, labels), logits=z)


def trained_on(make, batches, lr=0.01):
    """What is seen of a loop over dict batches, by a model that returns its loss."""
    model = seeded(make)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    with watch() as seen:
        for batch in batches:
            model(**batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    return seen


def dicts(ids, y, masked):
    mask = torch.ones_like(ids)
    mask[:, -1] = 0 if masked else 1
    parts = [dict(attention_mask=mask[k], input_ids=ids[k], labels=y[k]) for k in range(len(y))]
    return DataLoader(parts, 32, shuffle=True, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("masked", [False, True])
def test_a_model_of_words_that_returns_its_loss_is_judged_and_acquitted(masked):
    random = torch.randint(30, IDS.shape, generator=torch.Generator().manual_seed(0))
    for ids in IDS, random:  # random words: no neighbor is like another
        report = examine(trained_on(Attention, dicts(ids, Y, masked)))
        assert report.causes == []
        assert {"lr-large", "rows-mixed", "softmax-twice", "sorted", "vanishing"} <= judged(report)
        assert "labels-apart" not in judged(report) or ids is IDS
        assert not [why for why in reasons(report) if "experiment failed" in why]


def test_random_words_alone_have_no_likeness():
    ids = torch.randint(30, (N, 7), generator=torch.Generator().manual_seed(0))
    model = seeded(Tokens)
    report = examine(F.cross_entropy, model=model, train=loader(ids, Y))
    assert "labels-apart" not in report.causes + list(judged(report))


def test_a_model_that_returns_its_loss_is_passed_with_its_step():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(network(), nn.Dropout(0.1))

        def forward(self, x, y=None):
            z = self.layers(x)
            return F.cross_entropy(z, y), z

    model = seeded(Inside)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(xb, yb):
        optimizer.zero_grad()
        model(xb, yb)[0].backward()
        optimizer.step()

    report = examine(model=model, step=step, train=loader(), optimizer=optimizer)
    assert report.causes == [] and {"rows-mixed", "softmax-twice", "lr-large"} <= judged(report)
    model.eval()
    assert examine(model=model, step=step, train=loader()).causes == ["wrong-mode"]


def moved_by_hand(loss_of, move, *, steps=4, rows=slice(None)):
    """The report on tensors w, b that `move` moves by their gradients."""
    w = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).mul_(0.1).requires_grad_()
    b = torch.zeros(3).requires_grad_()
    with watch() as seen:
        for _ in range(steps):
            loss_of(X[rows] @ w + b, Y[rows]).backward()
            with torch.no_grad():
                for p in (w, b):
                    move(p)
    return examine(seen)


def downhill(p, lr=0.1):
    p -= lr * p.grad
    p.grad.zero_()


def uphill(p):
    downhill(p, -0.1)


def too_far(p):
    downhill(p, 5.0)


def squares(z, y):
    return (z - F.one_hot(y, 3)).square().sum(1).mean()


def hardly(p):
    downhill(p, 1e-5)


def weights_alone(p):
    downhill(p, 0.1 if p.ndim > 1 else 0.0)


def gathered(p):
    p -= 0.1 * p.grad


BY_HAND = {
    "none": (F.cross_entropy, downhill),
    "sign": (F.cross_entropy, uphill),
    "lr-large": (squares, too_far),
    "lr-small": (F.cross_entropy, hardly),
    "not-optimised": (F.cross_entropy, weights_alone),
    "gradients-accumulate": (F.cross_entropy, gathered),
    "weights-do-not-move": (F.cross_entropy, lambda p: p.grad.zero_()),
    "softmax-twice": (lambda z, y: F.cross_entropy(z.softmax(1), y), downhill),
    "not-finite": (lambda z, y: F.nll_loss(z.softmax(1).log(), y), downhill),
}


@pytest.mark.parametrize("cause", BY_HAND)
def test_a_loop_of_tensors_is_judged(cause):
    report = moved_by_hand(*BY_HAND[cause])
    assert report.causes[:1] == ([] if cause == "none" else [cause])
    assert not [why for why in reasons(report) if "experiment failed" in why]
    if cause == "none":
        assert {"lr-large", "lr-small", "rows-mixed", "sign", "affine"} <= judged(report)


def test_the_words_for_a_loop_of_tensors():
    (uphill_,) = moved_by_hand(*BY_HAND["sign"]).failed
    assert (uphill_.why, uphill_.fix) == (
        "the weights move along their gradient: uphill", "p -= lr * p.grad",
    )  # fmt: skip
    (large,) = moved_by_hand(*BY_HAND["lr-large"]).failed
    assert large.why.startswith("at lr=5 the loss of one batch goes from ")
    (left,) = moved_by_hand(*BY_HAND["not-optimised"]).warned
    assert left.why == "the loop moves 1 of 2 weights, and not weight 2 [3]"
    assert left.fix == "move each of them: for p in params: p -= lr * p.grad"


def test_of_several_labels_for_an_example_the_sign_is_that_of_right_and_inverted_outputs():
    model = seeded(lambda: network(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    several = (X[:, :4] > 0).float()
    upside_down = lambda z, y: -F.binary_cross_entropy_with_logits(z, y)
    for loss in F.binary_cross_entropy_with_logits, upside_down:
        report = examine(
            loss, model=model, train=loader(X, several), optimizer=optimizer, step=stepping(model, optimizer, loss)
        )
        assert ("sign" in judged(report)) == ("sign" in report.causes) == (loss is upside_down)
        assert "several labels for an example: only a loss of one is examined" in reasons(report)


class Table(nn.Module):
    """Numbers and categories; `norm` before the numbers meet weights."""

    def __init__(self, norm=False):
        super().__init__()
        self.embed, self.norm = nn.Embedding(3, 4), nn.BatchNorm1d(10) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, values, kinds):
        return self.layers(self.norm(torch.cat([values, self.embed(kinds)], 1)))


@pytest.mark.parametrize("norm, causes", [(False, ["input-scale"]), (True, [])])
def test_numbers_beside_categories_must_be_scaled_or_normed(norm, causes):
    model = seeded(lambda: Table(norm))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    data = TensorDataset(1000 * X, IDS[:, 0] // 10, Y)
    with watch() as seen:
        for values, kinds, y in DataLoader(data, 40, shuffle=True):
            loss = F.cross_entropy(model(values, kinds), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert examine(seen).causes == causes


def test_a_model_that_is_a_function_may_start_too_sure():
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    report = examine(F.cross_entropy, model=lambda x: 100 * x @ weights, train=(X, Y))
    assert report.causes == ["large-init"]
    assert not [why for why in reasons(report) if "experiment failed" in why]


# ---- Texts: scores of each place, [N, T, C].

TEXT = torch.arange(600).mul(7).add(torch.arange(600) // 5).remainder(11)
PLACES = dict(
    rows=lambda z, y: F.cross_entropy(z.reshape(-1, 11), y.reshape(-1)),
    counted=lambda z, y: F.cross_entropy(z.reshape(24 * 8, 11), y.reshape(24 * 8)),
    turned=lambda z, y: F.cross_entropy(z.transpose(1, 2), y),
)


class Writer(nn.Module):
    def __init__(self, end=nn.Identity(), inside=None):
        super().__init__()
        self.embed, self.read = nn.Embedding(11, 16), nn.GRU(16, 32, batch_first=True)
        self.head, self.end, self.inside = nn.Linear(32, 11), end, inside

    def forward(self, ids, targets=None):
        z = self.end(self.head(self.read(self.embed(ids))[0]))
        if self.inside is None:
            return z
        return z, self.inside(z, targets)


def texts(count=20):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        starts = torch.randint(len(TEXT) - 8, (24, 1), generator=generator)
        yield TEXT[starts + torch.arange(8)], TEXT[starts + torch.arange(1, 9)]


def written(loss, end=nn.Identity(), lr=0.01, sign=1, inside=False, batches=texts):
    """What is seen of the usual loop over texts."""
    model = seeded(lambda: Writer(end, loss if inside else None))
    optimizer = torch.optim.Adam(model.parameters(), lr)
    with watch() as seen:
        for xb, yb in batches():
            optimizer.zero_grad()
            value = model(xb, yb)[1] if inside else loss(model(xb), yb)
            (sign * value).backward()
            optimizer.step()
    return seen


def text_loader():
    return DataLoader([*zip(*map(torch.cat, zip(*texts())))], 24)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("batches", [texts, text_loader])
@pytest.mark.parametrize("loss", PLACES.values(), ids=PLACES)
def test_scores_of_each_place_are_judged(loss, batches, inside):
    report = examine(written(loss, inside=inside, batches=batches))
    assert report.causes == []
    assert {"sign", "softmax-twice", "weak-pull", "lr-large", "rows-mixed"} <= judged(report)
    softmax = examine(written(loss, nn.Softmax(-1), inside=inside, batches=batches))
    assert softmax.causes == ["softmax-twice"]
    assert examine(written(loss, sign=-1, batches=batches)).causes[:1] == ["sign"]


def test_the_words_for_scores_of_each_place():
    report = examine(written(PLACES["rows"], nn.Softmax(-1)))
    (check,) = report.failed
    right, cured = map(int, re.fullmatch(
        r"one batch of 192, \d+ steps of Adam at lr=0.01: (\d+) right; "
        r"without the model's softmax (\d+)", check.cured,
    ).groups())  # fmt: skip
    assert right < cured <= 192
    assert examine(written(PLACES["rows"], lr=1e-9)).causes == ["lr-small"]


def test_padding_that_a_loss_leaves_out_is_no_fault():
    loss = lambda z, y: F.cross_entropy(z.view(-1, 11), y.view(-1), ignore_index=0)
    report = examine(written(loss))
    (note,) = [check.why for check in report if check.cause == "dead-class"]
    assert report.causes == [] and note == "note: 0 is left out of the loss, right only for padding"


def test_of_places_in_texts_that_hang_together_nothing_is_said():
    class Turned(Writer):
        def forward(self, ids):
            return super().forward(ids.t()).transpose(0, 1).contiguous()

    seen = written(PLACES["rows"])
    model = seeded(Turned)
    with watch() as seen:
        for xb, yb in texts(8):
            PLACES["rows"](model(xb), yb).backward()
    (told,) = [check for check in examine(seen) if check.cause == "rows-mixed"]
    assert told.status == "skip" and "the places of one text is not known" in told.why


# ---- Several trainings in one script.


def parabola():
    """Ten steps of chapter 4's first example."""
    time = torch.arange(20.0)
    speed, params = 0.75 * (time - 9.5) ** 2, torch.ones(3).requires_grad_()
    for _ in range(10):
        (params[0] * time**2 + params[1] * time + params[2] - speed).square().mean().backward()
        params.data -= 1e-5 * params.grad
        params.grad = None


def with_tensors():
    weights = torch.zeros(6, 3).requires_grad_()
    for xb, yb in loader():
        F.cross_entropy(xb @ weights, yb).backward()
        weights.data -= 0.1 * weights.grad
        weights.grad = None
    return weights


def with_a_module():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for xb, yb in loader():
        optimizer.zero_grad()
        (-F.cross_entropy(model(xb), yb)).backward()
        optimizer.step()
    return model[0].weight


@pytest.mark.parametrize("loop, causes", [(with_tensors, []), (with_a_module, ["sign"])])
def test_of_two_trainings_the_second_is_examined(loop, causes):
    with watch() as seen:
        parabola()
        weight = loop()
    assert {id(p) for p in seen.model.parameters()} >= {id(weight)}
    report = examine(seen)
    assert report.causes[:1] == causes and {"sign", "leak", "lr-large"} & judged(report)
    alone = [check for check in report if "experiment failed" in check.why]
    assert not alone


def test_two_networks_that_train_in_turn_are_one_training():
    first, second = network(), network(outputs=4)
    moves = [torch.optim.SGD(model.parameters(), 0.1) for model in (first, second)]
    with watch() as seen:
        for k, (xb, yb) in enumerate(loader()):
            moves[k % 2].zero_grad()
            F.cross_entropy((first, second)[k % 2](xb), yb).backward()
            moves[k % 2].step()
    assert seen.model is first and len(seen.optimizers) == 2


def test_a_cause_of_which_a_part_was_not_looked_at_does_not_pass():
    model = seeded(lambda: nn.Linear(3, 2))
    with watch() as seen:
        for xb, _ in loader(X[:, :3]):
            model(xb).square().sum().backward()  # there are no targets: the loss cannot be read
    report = examine(seen, model=model, train=(X[:, :3], Y))
    parts = {check.status for check in report if check.cause == "not-finite"}
    assert parts == {"skip", "pass"} and "not-finite" in {c.cause for c in report.unseen}
    told, passed = str(report).split("PASS", 1)
    assert "not-finite" in re.sub(r"-\s+", "-", told) and "not-finite" not in passed


def test_a_model_of_numbers_is_looked_at_for_gradients():
    report = examine(F.mse_loss, model=seeded(lambda: nn.Linear(6, 1)), train=(X, X.sum(1)[:, None]))
    assert "no-gradient" not in {check.cause for check in report.unseen}
    assert "no-gradient" in judged(report)


# ---- What newcomers' scripts brought to light.


def steps_of(forward, optimizer, loader):
    with watch() as seen:
        for xb, yb in loader:
            optimizer.zero_grad()
            forward(xb, yb).backward()
            optimizer.step()
    return seen


@pytest.mark.parametrize("cut", [True, False])
def test_layers_that_are_called_one_by_one_and_cut_apart(cut):
    model = network()
    middle = lambda z: z.detach() if cut else z
    report = examine(steps_of(
        lambda x, y: F.cross_entropy(model[2](middle(model[1](model[0](x)))), y),
        torch.optim.Adam(model.parameters(), 0.01), loader(),
    ))  # fmt: skip
    assert report.causes == ["no-gradient"] * cut
    if cut:
        assert report.failed[0].why == (
            "the loss depends on 2 parameters that the optimizer holds, such as one of [16, 6], "
            "and they get no gradient"
        )


def test_weights_that_are_held_elsewhere_or_used_twice_may_be_cut():
    model, target = network(), network()  # a target network's weights are nobody's to move
    report = examine(steps_of(
        lambda x, y: F.cross_entropy(model(x) + model(x).detach() - target(x).detach(), y),
        torch.optim.SGD(model.parameters(), 0.1), loader(),
    ))  # fmt: skip
    assert "no-gradient" not in report.causes


def test_places_that_come_first_in_the_scores_and_last_in_the_targets():
    class Unturned(Writer):
        def forward(self, ids):
            return super().forward(ids).transpose(0, 1).contiguous()

    loss = lambda z, y: F.cross_entropy(z.reshape(-1, 11), y.reshape(-1))
    turned = lambda z, y: F.cross_entropy(z.reshape(-1, 11), y.t().reshape(-1))
    causes = {}
    for name, of in dict(fault=loss, sound=turned).items():
        model = seeded(Unturned)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        causes[name] = examine(steps_of(lambda x, y: of(model(x), y), optimizer, texts(8)))
    assert causes["fault"].causes[:1] == ["labels-apart"] and causes["sound"].causes == []
    assert causes["fault"].failed[0].why == (
        "scores [8, 24, 11] and targets [24, 8] are laid out as rows, in unlike orders"
    )


def test_actions_of_a_game_are_no_labels():
    model, target = network(outputs=2), network(outputs=2)

    def step(state, _):
        action = torch.randint(2, (len(state),), generator=GENERATOR)
        value = model(state).gather(1, action[:, None]).squeeze(1)
        with torch.no_grad():
            goal = state[:, 0] + 0.9 * target(state).max(1).values
        return F.smooth_l1_loss(value, goal)

    batches = [(torch.randn(64, 6, generator=GENERATOR), None) for _ in range(8)]
    report = examine(steps_of(step, torch.optim.Adam(model.parameters(), 0.001), batches))
    assert report.causes == []
    assert {"labels-apart", "imbalance", "sorted"} <= {check.cause for check in report.unseen}


def test_a_weight_decay_is_no_cause_where_it_diverges_without_it_too():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 100, momentum=0.9, weight_decay=5e-4)
    report = examine(steps_of(lambda x, y: F.cross_entropy(model(x), y), optimizer, loader()))
    assert report.causes[:1] == ["lr-large"] and "weight-decay" not in report.causes


def test_words_for_optimizers_and_labels():
    model = network()
    seen = steps_of(
        lambda x, y: F.cross_entropy(model(x), y),
        torch.optim.SGD(model.parameters(), 0.1), loader(X[::3], Y[::3]),
    )  # fmt: skip
    told = {check.cause: check.why for check in examine(seen).skipped}
    assert told["labels-apart"] == "all 80 examples that were seen are of one class"
    with pytest.raises(TypeError, match="torch's, got <object .*>: leave it out, and pass step= or"):
        examine(model=model, optimizer=object())

    def closure():
        lbfgs.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    lbfgs = torch.optim.LBFGS(model.parameters())
    with watch() as seen:
        for _ in range(3):
            lbfgs.step(closure)
    told = {check.cause: check.why for check in examine(seen).skipped}
    assert told["lr-large"] == "LBFGS chooses its own steps: it is not tried at other rates"


def test_neighbors_that_agree_a_little_more_than_by_chance_are_no_alarm():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 12, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    (told,) = [check for check in examine(train=loader(x, y)) if check.cause == "labels-apart"]
    assert told.status == "skip" and told.why.endswith(": more than chance, too little to be sure")
    shuffled = y[torch.randperm(400, generator=generator)]
    assert "labels-apart" in examine(train=loader(x, shuffled)).causes
