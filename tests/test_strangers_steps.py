"""What people get wrong between the batch and the weights: steps, roots, rates by hand, scales, masks."""

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import seeded
from test_strangers_loops import judged, of_digits, pictures, seen_in, some_digits
from test_strangers_scripts import finding, rng, table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.doctor import examine, watch


def looped(step, make=None, data=None, size=16, epochs=2):
    """What is seen of a loop with `step(model, xb, yb)` for each batch."""
    model = seeded(make or of_digits())
    loader = DataLoader(TensorDataset(*(data or some_digits())), size, shuffle=True, generator=rng())
    with watch() as seen:
        for _ in range(epochs):
            for xb, yb in loader:
                step(model, xb, yb)
    return examine(seen, train=loader)


def by(optimizer, loss=F.cross_entropy):
    """One step of the optimizer that `optimizer(parameters)` makes."""
    made = {}

    def step(model, xb, yb):
        if not made:
            made["own"] = optimizer(model.parameters())
        made["own"].zero_grad()
        loss(model(xb), yb).backward()
        made["own"].step()

    return step


# ---- Steps


def test_a_step_that_is_never_made_though_the_last_batch_is_short():
    def forgotten(model, xb, yb):
        model.zero_grad()
        F.cross_entropy(model(xb), yb).backward()

    assert len(some_digits()[0]) % 16
    why, fix = finding(looped(forgotten), "weights-do-not-move")
    assert why == "backward ran 26 times, no optimizer stepped, and no weight changed"
    assert fix.startswith("optimizer.step() after loss.backward(), for each batch")


def test_weights_that_are_bound_anew_are_no_leaves():
    x, y = some_digits()
    w = torch.zeros(784, 2).normal_(generator=rng()).requires_grad_()
    with pytest.raises(TypeError), pytest.warns(UserWarning, match="not a leaf"), watch() as seen:
        for _ in range(3):
            F.cross_entropy(x @ w, y).backward()
            w = w - 0.1 * w.grad
    why, fix = finding(examine(seen), "no-gradient")
    assert fix == "move it in its place: with torch.no_grad(): w -= lr * w.grad, not w = w - …"


class Uphill(torch.optim.Optimizer):
    """Descent as one writes it oneself, with a sign too few; `sign` -1 is right."""

    def __init__(self, parameters, sign):
        super().__init__(parameters, dict(lr=0.02, sign=sign))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=group["sign"] * group["lr"])


def test_an_optimizer_that_climbs():
    why, fix = finding(looped(by(lambda p: Uphill(p, 1))), "sign")
    assert why == "the first step of Uphill moves the weights along their gradient (cosine 1): uphill"
    assert fix == "p.add_(grad, alpha=-lr)"
    assert looped(by(lambda p: Uphill(p, -1))).causes == []


def test_a_step_that_looks_around_first_does_not_climb():
    made = {}

    def sharp(model, xb, yb):  # as in Foret and others, 2021: up by 0.05, the gradient there, back
        own = made.setdefault("own", torch.optim.SGD(model.parameters(), 0.1))
        own.zero_grad()
        F.cross_entropy(model(xb), yb).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.kept = p.clone()
                p.add_(0.05 * p.grad / p.grad.norm().clamp(min=1e-12))
        own.zero_grad()
        F.cross_entropy(model(xb), yb).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(p.kept)
        own.step()

    assert "sign" not in looped(sharp).causes


@pytest.mark.parametrize("anew", [True, False])
def test_one_batch_in_every_step(anew):
    x, y = some_digits()
    loader = DataLoader(TensorDataset(x, y), 16)
    model = seeded(of_digits())
    step, batches = by(lambda p: torch.optim.SGD(p, 0.05)), iter(loader)
    with watch() as seen:
        for _ in range(8):
            step(model, *next(iter(loader) if anew else batches))
    report = examine(seen, train=loader)
    told = [(check.why, check.fix) for check in report.warned if "same batch" in check.why]
    assert told == [(
        f"the first 8 steps get the same batch, one of {len(loader)}",
        "for xb, yb in loader: next(iter(loader)) begins anew each time",
    )] * anew  # fmt: skip


def one_cycle(top, clip=None):
    """Loops whose rate climbs from a 25th of `top`."""
    made = {}

    def step(model, xb, yb):
        if not made:
            made["own"] = torch.optim.SGD(model.parameters(), 1, momentum=0.9)
            made["rate"] = torch.optim.lr_scheduler.OneCycleLR(made["own"], top, total_steps=600)
        made["own"].zero_grad()
        F.cross_entropy(model(xb), yb).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        made["own"].step()
        made["rate"].step()

    return step


def test_a_schedule_is_judged_at_its_top():
    why, fix = finding(looped(one_cycle(1e-5)), "lr-small")
    assert re.fullmatch(r"at lr=1e-05, the schedule's top, the loss of one batch goes from .* in 20 steps \(limit 1%\)", why)
    assert looped(one_cycle(0.1)).causes == []
    why, fix = finding(looped(one_cycle(0.01, clip=1e-6)), "lr-small")
    assert why.startswith("gradients are clipped to a norm of 1e-06: the loss of one batch goes from ")


# ---- What is no number


class Lengths(nn.Module):
    """Weighed pixels without their signs, by a root, which has no slope at 0."""

    def __init__(self, eps):
        super().__init__()
        self.scale, self.last, self.eps = nn.Parameter(torch.ones(784)), nn.Linear(784, 2), eps

    def forward(self, x):
        return self.last(((x * self.scale) ** 2 + self.eps).sqrt())


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_a_root_at_0_ends_the_loop(eps):
    report = looped(by(lambda p: torch.optim.SGD(p, 0.02)), lambda: Lengths(eps))
    if eps:
        assert "not-finite" not in report.causes
    else:
        why, fix = finding(report, "not-finite")
        assert re.fullmatch(
            r"the loss is 0\.\d+ in step 1 and nan in step 2; the first gradient is NaN or infinite in scale, "
            r"and finite in last\.bias", why), why  # fmt: skip
        assert fix.endswith("add a small number inside: (x + 1e-8).sqrt()")


def test_weights_of_half_precision():
    x, y = some_digits()
    report = looped(
        by(lambda p: torch.optim.Adam(p, 0.01)), lambda: of_digits()().half(), (x.half(), y)
    )
    why, fix = finding(report, "not-finite")
    assert re.fullmatch(r"the loss is .* in step \d and nan in step \d; weights are float16", why), why
    assert fix.startswith("keep the weights in float32, and compute in float16 under torch.autocast")


# ---- Layers


def dropping(p):
    return lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 2))


def test_a_dropout_that_keeps_what_it_should_drop():
    adam = lambda p: torch.optim.Adam(p, 0.003)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        why, fix = finding(looped(by(adam), dropping(0.9)), "dead-units")
        assert why == "nn.Dropout(p=0.9) sets 90% to 0 in training (limit 80%)"
        assert fix == "p is the share that is dropped: nn.Dropout(0.1)"
        assert looped(by(adam), dropping(0.5)).causes == []


def normed(momentum):
    return lambda: nn.Sequential(
        nn.Linear(784, 30), nn.BatchNorm1d(30, momentum=momentum), nn.ReLU(), nn.Linear(30, 2)
    )


@pytest.mark.parametrize("momentum, average", [(0.99, "the last batch alone"), (0.001, "some 1000 steps"), (0.1, "")])
def test_the_momentum_of_another_librarys_batch_norm(momentum, average):
    report = looped(by(lambda p: torch.optim.Adam(p, 0.003)), normed(momentum))
    assert report.causes == ["wrong-mode"] * bool(average)
    if average:
        why, fix = finding(report, "wrong-mode")
        assert why == (
            f"momentum={momentum} in BatchNorm1d (limits 0.005 and 0.8): what eval mode normalizes by is an "
            f"average over {average}"
        )
        assert fix == "momentum=0.1 is PyTorch's own: it weighs the new batch, as 1 - Keras's momentum"


class ZeroBlock(nn.Module):
    """A block that begins by adding nothing, before a head of zeros: its own slope is 0 at first."""

    def __init__(self):
        super().__init__()
        self.body, self.block, self.head = nn.Linear(784, 30), nn.Linear(30, 30), nn.Linear(30, 2)
        nn.init.zeros_(self.block.weight), nn.init.zeros_(self.head.weight)

    def forward(self, x):
        x = self.body(x).relu()
        return self.head(x + self.block(x))


def test_zeros_that_part_in_the_next_steps_are_no_constant_init():
    report = looped(by(lambda p: torch.optim.SGD(p, 0.05)), ZeroBlock)
    assert report.causes == [] and "constant-init" in judged(report)


# ---- Scales


def test_a_code_for_what_is_missing():
    x, y = table(0.5)
    own = x.clone()
    own[::50, 3] = -9999
    loss = F.cross_entropy
    seen = [seen_in(lambda: nn.Linear(8, 2), loss, 0.01, (data, y)) for data in (x, own)]
    assert examine(seen[0], train=(x, y)).causes == []
    why, fix = finding(examine(seen[1], train=(own, y)), "input-scale")
    assert re.fullmatch(r"-9999 stands in 0\.\d+% of .*, which else lie between -2.* and 3.*: a code for what is missing\?", why)
    assert fix == "put the column's median in its place, then scale"


@pytest.mark.parametrize("scale", [1.0, 200_000.0])
def test_targets_of_another_scale_than_the_outputs(scale):
    x, _ = table()
    y = scale * (x.sum(1, keepdim=True) + torch.randn(len(x), 1, generator=rng(3)))
    make = lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    report = examine(seen_in(make, F.mse_loss, 0.01, (x, y)))
    assert report.causes == ["input-scale"] * (scale > 1)
    if scale > 1:
        why, fix = finding(report, "input-scale")
        assert why.startswith("targets lie between -") and why.endswith("(limit 100 times)")
        assert fix == "train on (y - mean) / sd of the training targets, and turn the outputs back"


def test_few_validation_rows_have_a_mean_of_their_own():
    x = 0.3 * table()[0] + torch.randn(600, 1, generator=rng(5))
    y = (x.mean(1) > 0).long()
    for few in [x[k : k + 4] for k in range(0, 40, 4)] + [x[k : k + 12] for k in range(0, 48, 12)]:
        assert examine(train=(x[50:], y[50:]), valid=(few, (few.mean(1) > 0).long())).causes == []


# ---- Losses


@pytest.mark.parametrize("whole", [True, False])
def test_a_dice_that_grows_with_what_is_right(whole):
    x, y = pictures()
    masks = (y > 0).float()[:, None]

    def dice(z, y):
        p = z.sigmoid()
        score = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        return 1 - score if whole else score

    make = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    report = examine(seen_in(make, dice, data=(x, masks)))
    assert ("sign" in report.causes) != whole
    if not whole:
        why, fix = finding(report, "sign")
        assert why.startswith("the loss of outputs that are right and sure is 0.9")
        assert fix == "-loss, or 1 - dice: descent lowers it"


@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_bytes_are_no_probabilities(top):
    x, y = pictures()
    masks = top * (y > 0).float()[:, None]
    make = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    report = examine(seen_in(make, nn.BCEWithLogitsLoss(), data=(x, masks)))
    assert ("target-form" in report.causes) == (top > 1)
    if top > 1:
        assert report.failed[0].cause == "target-form"
        why, fix = finding(report, "target-form")
        assert why == (
            "binary_cross_entropy_with_logits gets targets from 0 to 255, where they are probabilities, from 0 to 1"
        )
        assert fix == "(y > 127.5).float()"


def test_a_margin_loss_that_drops_nan_is_noted():
    (check,) = [c for c in examine(nn.MultiMarginLoss()) if c.cause == "hides-nan"]
    assert check.status != "fail", check


@pytest.mark.parametrize("loss", [
    lambda z, y: ((z.squeeze(1) - y) ** 2).mean(), lambda z, y: F.mse_loss(z.squeeze(1), y),
    lambda z, y: F.mse_loss(z, y),
], ids=["by hand", "torch", "sound"])  # fmt: skip
@pytest.mark.parametrize("classes", [True, False])
def test_outputs_that_are_squeezed_meet_targets_in_a_column(loss, classes, request):
    sound = "sound" in request.node.name
    x, y = table(0.5)
    y = y[:, None].float() if classes else x.sum(1, keepdim=True) + torch.randn(len(x), 1, generator=rng(3))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using a target size")  # torch's own, which people overlook
        report = examine(seen_in(lambda: nn.Linear(8, 1), loss, 0.01, (x, y)), train=(x, y))
    assert report.causes == ["broadcast"] * (not sound)
    if not sound:
        why, fix = finding(report, "broadcast")
        assert why.startswith("outputs [16] meet targets [16, 1]: ") and why.endswith(": each meets each")
        assert fix == "give both one shape: loss(model(xb), yb.view(-1, 1)), or model(xb).squeeze(1)"


# ---- Models that draw


class Draws(nn.Module):
    """A variational autoencoder, which gives three things."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(784, 16), nn.Linear(8, 784)

    def forward(self, x):
        mean, spread = self.into(x).chunk(2, 1)
        return self.out(mean + torch.randn_like(mean) * (spread / 2).exp()), mean, spread


def test_an_autoencoder_that_draws_is_examined():
    x, _ = some_digits()

    def loss(outs, x):
        z, mean, spread = outs
        far = -0.5 * (1 + spread - mean**2 - spread.exp()).sum(1).mean()
        return F.binary_cross_entropy_with_logits(z, x, reduction="none").sum(1).mean() + far

    report = examine(seen_in(Draws, loss, 0.001, (x, x)))
    assert report.causes == []
    (check,) = [check for check in report if check.cause == "random-in-eval"]
    assert check.why == "note: it samples, with a spread that it learns"
    assert {"lr-large", "lr-small", "vanishing", "weight-decay"} <= judged(report)


class Words(nn.Module):
    """Means of words without their padding, whose row of the table is zeroed in place."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 2)

    def forward(self, words):
        return self.out(self.table(words).sum(1) / (words > 0).sum(1, keepdim=True).clamp(min=1))


def test_a_table_of_words_with_a_row_for_padding():
    words = torch.randint(1, 50, (160, 9), generator=rng()) * (torch.arange(9) < torch.randint(4, 10, (160, 1), generator=rng(1)))
    y = ((words > 0) & (words < 25)).sum(1).gt((words >= 25).sum(1)).long()
    with watch() as seen:  # the row is zeroed where the table is made
        model = seeded(Words)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for xb, yb in DataLoader(TensorDataset(words, y), 16, shuffle=True, generator=rng()):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
    report = examine(seen)
    assert report.causes == [] and "gradients-accumulate" in judged(report)


# ---- Models that are called several times, and what they give


class Letters(nn.Module):
    """A step of a network of letters: the letter and the state give scores and the next state."""

    def __init__(self):
        super().__init__()
        self.table, self.state, self.out = nn.Embedding(9, 16), nn.Linear(32, 16), nn.Linear(16, 9)

    def forward(self, letter, state):
        state = torch.tanh(self.state(torch.cat([self.table(letter), state], 1)))
        return self.out(state).log_softmax(1), state


def test_a_loss_that_is_added_up_letter_by_letter():
    model = seeded(Letters)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch() as seen:
        for k in range(12):
            word, state, loss = torch.randint(9, (6,), generator=rng(k)), torch.zeros(1, 16), 0
            optimizer.zero_grad()
            for letter, after in zip(word, word[1:]):
                scores, state = model(letter.view(1), state)
                loss = loss + F.nll_loss(scores, after.view(1))
            loss.backward()
            optimizer.step()
    report = examine(seen)
    assert report.causes == [] and {"loss-mixes-rows", "target-form", "sign"} <= judged(report)


class Said:
    def __init__(self, **parts):
        vars(self).update(parts)


class Speaks(nn.Module):
    """A model that gives its loss and scores in an object, as many a library's does."""

    def __init__(self, kind, end):
        super().__init__()
        self.net, self.kind = of_digits(*end)(), kind

    def forward(self, x, labels):
        scores = self.net(x)
        return self.kind(loss=F.cross_entropy(scores, labels), logits=scores)


@pytest.mark.parametrize("kind", [dict, SimpleNamespace, Said])
@pytest.mark.parametrize("end, causes", [((), []), ((nn.Softmax(1),), ["softmax-twice"])], ids=["sound", "twice"])
def test_what_a_model_gives_in_an_object_is_read(kind, end, causes):
    x, y = some_digits()
    model = seeded(lambda: Speaks(kind, end))
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=rng()):
            optimizer.zero_grad()
            said = model(x=xb, labels=yb)
            (said["loss"] if kind is dict else said.loss).backward()
            optimizer.step()
    report = examine(seen)
    assert report.causes == causes and "constant-init" in judged(report)
