"""Trainings that are no scores [N, C] and one loss call: pixels, several heads, mixed losses, counts, schedules."""

import random
import time

import pytest
import torch
import torch.nn.functional as F
from conftest import named, seeded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.case import Case
from mnist_ce.data import mnist_sample
from mnist_ce.doctor import examine, watch
from mnist_ce.scores import stopwatch
from mnist_ce.watching import Backward

SIDE = 12


def pictures(count=96):
    """Squares of two kinds on noise, [N, 3, 12, 12], and what lies at each pixel: 0, 1 or 2."""
    generator = torch.Generator().manual_seed(0)
    x = 0.2 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    y = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    places = torch.randint(SIDE - 4, (count, 2, 2), generator=generator)
    for k, corners in enumerate(places.tolist()):
        for kind, (top, left) in enumerate(corners, 1):
            x[k, kind, top : top + 4, left : left + 4] += 1
            y[k, top : top + 4, left : left + 4] = kind
    return x, y


class Heads(nn.Module):
    """A network of pixels with an auxiliary head, whose scores come in a dict."""

    def __init__(self, end=nn.Identity()):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.aux, self.end = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 1), end

    def forward(self, x):
        low = self.stem(x).relu()
        high = self.body(low).relu()
        return dict(out=self.end(self.head(high)), aux=self.aux(low))


def of_pixels(*end):
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1), *end
    return nn.Sequential(*layers)


def seen_in(make, loss, lr=0.01, data=None, optimizer=torch.optim.Adam, schedule=None, epochs=2):
    """What is seen of the usual loop over pictures, or over `data`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        own = optimizer(model.parameters(), lr)
        rate = schedule and torch.optim.lr_scheduler.LambdaLR(own, schedule)
        with watch() as seen:
            for _ in range(epochs):
                for xb, yb in DataLoader(TensorDataset(*(data or pictures())), 16, shuffle=True):
                    own.zero_grad()
                    loss(model(xb), yb).backward()
                    own.step()
                    if rate:
                        rate.step()
    return seen


def judged(report):
    return {check.cause for check in report} - {check.cause for check in report.skipped}


def as_rows(z, y):
    return F.cross_entropy(z.permute(0, 2, 3, 1).reshape(-1, 3), y.reshape(-1))


def with_the_aux(of, y):
    return F.cross_entropy(of["out"], y, ignore_index=255) + 0.4 * F.cross_entropy(of["aux"], y)


def with_overlap(z, y):
    p, own = z.softmax(1), F.one_hot(y, 3).permute(0, 3, 1, 2)
    overlap = 2 * (p * own).sum((-1, -2)) / (p + own).sum((-1, -2)).clamp(min=1e-6)
    return F.cross_entropy(z, y) + 1 - overlap.mean()


WELL = {"softmax-twice", "bounded-scores", "sign", "not-finite", "rows-mixed", "lr-large", "lr-small", "weak-pull"}


@pytest.mark.parametrize("loss", [F.cross_entropy, as_rows, with_overlap])
def test_scores_of_pixels_are_judged(loss):
    report = examine(seen_in(of_pixels, loss))
    assert report.causes == [] and WELL <= judged(report)


def test_a_label_that_the_loss_leaves_out_is_no_class():
    x, y = pictures()
    data, loss = (x, y.where(torch.arange(SIDE) > 0, 255)), lambda z, y: F.cross_entropy(z, y, ignore_index=255)
    assert examine(seen_in(of_pixels, loss, data=data)).causes == []
    assert examine(seen_in(lambda: of_pixels(nn.Softmax(1)), loss, data=data)).causes == ["softmax-twice"]


def test_a_dice_loss_of_the_whole_batch_mixes_places_on_purpose():
    def dice(z, y):
        p, own = z.softmax(1), F.one_hot(y, 3).permute(0, 3, 1, 2)
        return F.cross_entropy(z, y) + 1 - (2 * (p * own).sum((0, 2, 3)) + 1).div((p + own).sum((0, 2, 3)) + 1).mean()

    report = examine(seen_in(of_pixels, dice))
    assert report.causes == []
    assert "note: a place's loss depends on the others', as a Dice loss does" in [check.why for check in report]


def test_a_network_of_convolutions_whose_last_pixel_is_its_answer():
    x, y = some_digits()
    layers = nn.Conv2d(1, 8, 14, 14), nn.ReLU(), nn.Conv2d(8, 2, 2)
    loss = lambda z, y: F.cross_entropy(z.view(-1, 2), y)
    report = examine(seen_in(lambda: nn.Sequential(*layers), loss, data=(x.view(-1, 1, 28, 28), y)))
    assert report.causes == [] and WELL <= judged(report)


def test_an_auxiliary_head_is_no_cut_graph():
    report = examine(seen_in(Heads, with_the_aux))
    assert report.causes == [] and "no-gradient" in judged(report)


@pytest.mark.parametrize("make, loss, lr, cause", [
    (lambda: of_pixels(nn.Softmax(1)), F.cross_entropy, 0.01, "softmax-twice"),
    (lambda: Heads(nn.Softmax(1)), with_the_aux, 0.01, "softmax-twice"),
    (lambda: of_pixels(nn.ReLU()), F.cross_entropy, 0.01, "bounded-scores"),
    (lambda: of_pixels(nn.LogSoftmax(0)), F.nll_loss, 0.01, "nll-input"),
    (of_pixels, lambda z, y: -F.cross_entropy(z, y), 0.01, "sign"),
    (of_pixels, F.cross_entropy, 30.0, "lr-large"),
    (of_pixels, F.cross_entropy, 1e-9, "lr-small"),
], ids=named)  # fmt: skip
def test_faults_of_pixels_are_named(make, loss, lr, cause):
    assert examine(seen_in(make, loss, lr)).causes[:1] == [cause]


@pytest.mark.parametrize("metric, causes", [
    (lambda z, y: (z.argmax(1) == y).float().mean(), []),
    (lambda z, y: (z.permute(0, 2, 3, 1).argmax(3) == y).float().mean(), []),
    (lambda z, y: (z.argmin(1) == y).float().mean(), ["metric-wrong"]),
], ids=["of rows too", "of pictures alone", "the lowest"])  # fmt: skip
def test_a_metric_of_pixels_is_judged(metric, causes):
    report = examine(F.cross_entropy, metric, model=seeded(of_pixels), train=pictures())
    assert report.causes == causes and "metric-wrong" in judged(report)


def test_pixels_that_a_reshape_alone_makes_rows_of():
    report = examine(seen_in(of_pixels, lambda z, y: F.cross_entropy(z.reshape(-1, 3), y.reshape(-1))))
    (check,) = report.failed
    assert check.cause == "labels-apart"
    assert check.why == "scores [16, 3, 12, 12] become [2304, 3] by reshape alone, which mixes pixels"
    assert check.fix == "scores.permute(0, 2, 3, 1).reshape(-1, C)"


def test_a_sigmoid_before_the_loss_of_a_mask():
    x, y = pictures()
    data, mask = (x, (y > 0).float().unsqueeze(1)), lambda *end: lambda: nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), *end)
    assert examine(seen_in(mask(), F.binary_cross_entropy_with_logits, data=data)).causes == []
    ill = examine(seen_in(mask(nn.Sigmoid()), F.binary_cross_entropy_with_logits, data=data))
    assert ill.causes == ["softmax-twice"]


def changed(x, y, turn, share=1.0):
    """Pictures with the masks of the first `share` of them turned."""
    count = round(share * len(x))
    return x, torch.cat([turn(y[:count]), y[count:]])


@pytest.mark.parametrize("turn, share, said", [
    (lambda y: y.transpose(1, 2), 1.0, "transposed"),
    (lambda y: y.flip(2), 0.5, "mirrored left to right"),
    (lambda y: y.rot90(1, (1, 2)), 1.0, "turned by 270 degrees"),
], ids=["all transposed", "half mirrored", "all turned"])  # fmt: skip
def test_masks_that_were_turned_without_their_pictures(turn, share, said):
    x, y = changed(*pictures(), turn, share)
    for data, loss, make in (
        ((x, y), F.cross_entropy, of_pixels),
        ((x, (y > 0).float().unsqueeze(1)), F.binary_cross_entropy_with_logits, lambda: nn.Conv2d(3, 1, 3, padding=1)),
    ):
        (check,) = examine(seen_in(make, loss, data=data)).warned
        assert check.cause == "labels-apart" and f"masks fit their pictures only when they are {said} (correlation" in check.why
        assert check.fix == "flip, turn and cut a mask by the same numbers as its picture, in one function"


def test_pictures_that_do_not_show_their_masks_are_left_alone():
    x, y = pictures()
    noise = torch.rand(len(x), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert examine(seen_in(lambda: nn.Conv2d(1, 3, 3, padding=1), F.cross_entropy, data=(noise, y))).causes == []
    few = changed(x, y, lambda y: y.flip(2), 0.1)
    assert examine(seen_in(of_pixels, F.cross_entropy, data=few)).causes == []


# ---- A loss that cannot be read as one of scores and targets.


def mixed(z, y):
    """Mixup's: two losses of the same scores."""
    return 0.95 * F.cross_entropy(z, y) + 0.05 * F.cross_entropy(z, y.flip(0))


def of_digits(*end):
    return lambda: nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 2), *end)


def some_digits():
    train, _ = mnist_sample()
    return train.x[::60], train.y[::60, 0]


@pytest.mark.parametrize("end, lr, causes", [
    ((), 0.003, []), ((), 30.0, ["lr-large"]), ((), 1e-9, ["lr-small"]), ((nn.Softmax(1),), 0.003, ["softmax-twice"]),
], ids=named)  # fmt: skip
def test_a_loss_of_two_calls_is_done_again_as_it_was(end, lr, causes):
    report = examine(seen_in(of_digits(*end), mixed, lr, some_digits()))
    assert report.causes == causes
    assert causes or {"lr-large", "lr-small", "weight-decay"} <= judged(report)


def test_an_autoencoder_whose_rate_is_too_large():
    x, _ = some_digits()
    make = lambda: nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 784))
    for lr, causes in (0.001, []), (30.0, ["lr-large"]):
        assert examine(seen_in(make, F.mse_loss, lr, (x, x))).causes == causes


def test_a_rate_at_which_a_squared_error_grows_without_end():
    x, _ = some_digits()
    make = lambda: nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 784))
    for lr, causes in (30.0, []), (1000.0, ["lr-large"]):
        assert examine(seen_in(make, F.mse_loss, lr, (x, x), torch.optim.SGD)).causes == causes


def stepped(loss, amend, model=None, optimizer=None, data=None):
    """What is seen of a loop that does something of its own between backward and step."""
    x, y = data or some_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model or of_digits()()
        optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
        with watch() as seen:
            for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True):
                optimizer.zero_grad()
                amend(loss(model(xb), yb), model, optimizer)
    return seen


def scaled(value, model, optimizer, scaler=torch.amp.GradScaler("cpu")):
    scaler.scale(value).backward()
    scaler.step(optimizer)
    scaler.update()


def clipped(value, model, optimizer):
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def plain(value, model, optimizer):
    value.backward()
    optimizer.step()


@pytest.mark.parametrize("loss", [F.cross_entropy, mixed])
def test_a_scaled_loss_is_judged_as_it_was_before(loss):
    seen = stepped(loss, scaled)
    report = examine(seen)
    assert seen.of(Backward)[0].loss < 5 and report.causes == [] and "lr-large" in judged(report)


def test_clipped_gradients_are_clipped_when_steps_are_made_again():
    x, y = some_digits()
    far = lambda z, y: F.mse_loss(z, 100.0 * y.view(-1, 1))
    one = lambda: seeded(lambda: nn.Linear(784, 1))
    assert examine(stepped(far, clipped, one(), data=(x, y))).causes == []
    assert examine(stepped(far, plain, one(), data=(x, y))).causes == ["lr-large"]


def test_what_was_computed_without_gradients_is_so_again():
    model = seeded(lambda: nn.Linear(4, 2))
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with watch() as seen:
        with torch.no_grad():
            target = 0.9 * model(x).amax(1)
        (model(x).amax(1) - 1 - target).square().mean().backward()
    own, model.weight.grad = model.weight.grad.clone(), None
    Case(seen=seen).again().backward()
    torch.testing.assert_close(model.weight.grad, own)


def test_two_optimizers_of_unlike_rates_are_no_schedule():
    x, _ = some_digits()
    critic, actor = (seeded(lambda: nn.Linear(784, 1)) for _ in range(2))
    optimizers = [torch.optim.Adam(net.parameters(), lr) for net, lr in ((critic, 1e-3), (actor, 5e-5))]
    with watch() as seen:
        for (xb,) in DataLoader(TensorDataset(x), 16):
            for loss, optimizer in zip(((critic(xb) - 1).square(), actor(xb).square()), optimizers):
                optimizer.zero_grad()
                loss.mean().backward()
                optimizer.step()
    assert "lr-small" not in examine(seen).causes


# ---- The book's own loss, and what becomes of it.


def bare(p, y):
    """mnist_loss without its sigmoid."""
    return torch.where(y == 1, 1 - p, p).mean()


def book(p, y):
    return bare(p.sigmoid(), y)


def test_a_loss_that_has_no_floor_is_warned_of():
    (check,) = [check for check in examine(bare) if check.cause == "nll-input"]
    assert check.status == "warn" and "cost -39.5 and -159.5 (limit 0): the surer, the less, without end" in check.why
    assert "nll-input" not in examine(book).causes
    for sound in F.cross_entropy, F.binary_cross_entropy_with_logits, F.multi_margin_loss, lambda z, y: F.mse_loss(z, y):
        assert "nll-input" not in examine(sound).causes


def test_a_sigmoid_of_a_sigmoid():
    assert examine(lambda p, y: book(p.sigmoid(), y)).causes[0] == "softmax-twice"
    x, y = some_digits()
    model = lambda: nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 1), nn.Sigmoid())
    assert examine(seen_in(model, book, 0.003, (x, y.view(-1, 1)))).causes == ["softmax-twice"]


def test_a_rate_at_which_one_column_answers_always_the_same_is_too_large():
    x, y = some_digits()
    model = lambda: nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 1))
    report = examine(seen_in(model, book, 300.0, (x, y.view(-1, 1)), torch.optim.SGD))
    assert report.causes == ["lr-large"]


def test_labels_3_and_7_in_one_column():
    x, y = some_digits()
    seen = seen_in(lambda: nn.Linear(784, 1), book, data=(x, 3 + 4 * y.view(-1, 1)))
    (check,) = examine(seen).failed
    assert check.cause == "columns" and check.fix == "number the labels 0 and 1: (y == 7).float()"


# ---- Counts, sums, schedules, words.


def test_a_metric_that_counts_is_only_warned_of():
    count = lambda z, y: float((z.argmax(1) == y).sum())
    report = examine(F.cross_entropy, count, columns=3)
    (check,) = report.warned
    assert report.failed == [] and check.why == "it counts: 4 right answers score 4 (limit 1)"
    assert check.fix == "divide by len(targets); fine where the loop does so"
    assert "metric-wrong" in examine(F.cross_entropy, lambda z, y: float((z.argmin(1) == y).sum()), columns=3).causes


def test_a_sum_that_the_step_by_hand_divides_is_no_fault():
    x, y = some_digits()
    weights = torch.zeros(784, 2).requires_grad_()
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 32, shuffle=True):
            F.cross_entropy(xb @ weights, yb, reduction="sum").backward()
            weights.data -= 0.1 * weights.grad / len(xb)
            weights.grad.zero_()
    assert examine(seen).causes == []


@pytest.mark.parametrize("schedule, said", [
    (lambda k: [0.0, 1.0, 0.5, 0.0][min(k, 3)], "the rate falls from 0.01 to 0 in 8 steps"),
    (lambda k: 0.7**k, "the rate falls from 0.01 to 0.0008235 in 8 steps"),
], ids=["to 0 after a warm-up", "an epoch's factor in each batch"])  # fmt: skip
def test_a_rate_that_falls_in_a_few_steps_is_named(schedule, said):
    report = examine(seen_in(of_digits(), F.cross_entropy, data=some_digits(), schedule=schedule))
    assert [(check.cause, check.why) for check in report.failed] == [("lr-small", said)]


@pytest.mark.parametrize("peak, causes", [(0.1, []), (30.0, []), (3000.0, ["lr-large"])])
def test_a_rate_that_a_schedule_climbs_to(peak, causes):
    x, y = some_digits()
    model = seeded(of_digits())
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=1000, div_factor=1e4)
    order = torch.Generator().manual_seed(0)
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=order):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
            schedule.step()
    report = examine(seen)
    assert report.causes == causes
    for check in report.warned:
        assert check.why.startswith("the schedule climbs to lr=3000, where the loss of one batch goes from 0.")
        assert check.fix.startswith("max_lr=") and check.cured.startswith("one batch, 120 steps: loss 0.")


@pytest.mark.parametrize("trained, causes", [("bias", ["not-optimised"]), ("2", []), ("", [])])
def test_a_network_of_which_only_biases_are_trained(trained, causes):
    x, y = some_digits()
    model = seeded(of_digits())
    for name, p in model.named_parameters():
        p.requires_grad_(trained in name)
    report = examine(stepped(F.cross_entropy, plain, model))
    assert report.causes == causes
    for check in report.warned:
        assert check.why == "23580 weights are frozen, only 0.bias, 2.bias is trained"


def test_words_that_are_their_own_targets():
    words = torch.randint(9, (64, 6), generator=torch.Generator().manual_seed(0))
    make = lambda: nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
    loss = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten())
    (check,) = examine(seen_in(make, loss, data=(words, words))).warned
    assert check.cause == "leak" and check.fix.startswith("shift them: inputs x[:, :-1], targets x[:, 1:]; fine for an autoencoder")
    assert check.why == "the targets [96] are the inputs [16, 6] themselves (limit: any other)"
    assert examine(seen_in(make, loss, data=(words, words.roll(1, 1)))).causes == []


def test_a_metric_of_words_takes_scores_as_the_model_gives_them():
    words = torch.randint(9, (64, 6), generator=torch.Generator().manual_seed(0))
    model = seeded(lambda: nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)))
    loss, right = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()), lambda z, y: (z.argmax(2) == y).float().mean()
    report = examine(loss, right, model=model, train=(words, words.roll(1, 1)))
    assert report.causes == [] and {"metric-wrong", "metric-batches", "metric-hides-nan"} <= judged(report)
    assert examine(loss, lambda z, y: -right(z, y), model=model, train=(words, words.roll(1, 1))).causes == ["metric-wrong"]


def test_a_cure_is_not_shown_by_a_batch_of_one_class():
    x, y = some_digits()
    logs = lambda z, y: -z.softmax(1).log().gather(1, y.view(-1, 1)).mean()
    for data, shown in ((x, y), True), ((x[y == 1], y[y == 1]), False):
        report = examine(seen_in(of_digits(), logs, 1e3, data, torch.optim.SGD))
        assert "not-finite" in report.causes
        assert any(check.cured and "right" in check.cured for check in report.failed) == shown


def test_what_waits_for_a_cure_is_told():
    x, y = some_digits()
    model = of_digits()()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 16):
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
    report = examine(seen)
    assert report.causes[0] == "gradients-accumulate"
    assert [check.cause for check in report.waiting] == ["lr-large", "lr-small"]
    lines = str(report).splitlines()
    (row,) = [k for k, line in enumerate(lines) if "lr-large, lr-small" in line]
    assert lines[row].startswith("- SKIP") and lines[row + 1].strip() == "see gradients-accumulate"


# ---- What other people's scripts brought.


def told_of(report):
    """The one finding of a report."""
    (check,) = report.failed + report.warned
    return check.cause, check.why, check.fix


def test_gradients_that_are_clipped_before_they_are_scaled_back():
    scaler = torch.amp.GradScaler("cpu", 65536.0)

    def clipped_first(value, model, optimizer):
        scaler.scale(value).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    def unscaled(value, model, optimizer):
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()

    cause, why, fix = told_of(examine(stepped(F.cross_entropy, clipped_first)))
    assert cause == "weights-do-not-move" and "is left 1.53e-05" in why and fix == "scaler.unscale_(optimizer) before clip_grad_norm_"
    seen = stepped(F.cross_entropy, unscaled)
    assert examine(seen).causes == [] and seen.clipped == pytest.approx(0.1, rel=1e-3)


def test_dropout_of_nothing_has_no_mode():
    make = lambda p: lambda: nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Dropout(p), nn.Linear(30, 2))
    for p, causes in (0.0, []), (0.2, ["wrong-mode"]):
        x, y = some_digits()
        model = seeded(make(p))
        optimizer = torch.optim.Adam(model.parameters())
        with watch() as seen:
            for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(model(xb), yb).backward()
                optimizer.step()
            with torch.no_grad():
                model(x)
        assert examine(seen).causes == causes


def adversaries(cut):
    """Two networks that train against each other; with a `cut`, one of them in vain."""
    made, judge = seeded(lambda: nn.Linear(4, 2)), seeded(lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)))
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in (made, judge)]
    loss, generator = F.binary_cross_entropy_with_logits, torch.Generator().manual_seed(0)
    with watch() as seen:
        for _ in range(12):
            fake, real = made(torch.randn(32, 4, generator=generator)), torch.randn(32, 2, generator=generator) + 3
            optimizers[1].zero_grad()
            (loss(judge(real), torch.ones(32, 1)) + loss(judge(fake.detach()), torch.zeros(32, 1))).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            loss(judge(fake.detach() if cut else fake), torch.ones(32, 1)).backward()
            optimizers[0].step()
    return seen, optimizers[0]


def test_of_two_networks_the_one_that_an_optimizer_moves_is_its_model():
    seen, optimizer = adversaries(cut=False)
    assert examine(seen).causes == examine(seen, optimizer=optimizer).causes == []
    cause, why, _ = told_of(examine(adversaries(cut=True)[0]))
    assert cause == "weights-do-not-move" and why == "in 4 steps an optimizer found no gradient in its 2 parameters, the first [2, 4]"


def test_layers_called_one_by_one_are_no_data():
    words = torch.randint(50, (640, 12), generator=torch.Generator().manual_seed(0))
    parts = seeded(lambda: [nn.Embedding(50, 16), nn.GRU(16, 32, batch_first=True), nn.Linear(32, 5)])
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], 5e-3)
    scores = lambda x: parts[2](parts[1](parts[0](x))[0])
    with watch() as seen:
        for rows in torch.arange(640).split(40):
            optimizer.zero_grad()
            F.cross_entropy(scores(words[rows]).transpose(1, 2), words[rows] % 5).backward()
            optimizer.step()
        with torch.no_grad():
            scores(words[:320])
    report = examine(seen)
    assert report.causes == [] and "what the model is given was made by other layers" in {check.why for check in report.skipped}


def test_a_sampler_that_draws_one_class():
    x, y = some_digits()
    for weights, causes in ((torch.tensor([1.0, 1e-9]), ["imbalance"]), (torch.ones(len(y)), [])):
        sampler = torch.utils.data.WeightedRandomSampler(weights, len(y), generator=torch.Generator().manual_seed(0))
        report = examine(F.cross_entropy, model=seeded(of_digits()), train=DataLoader(TensorDataset(x, y), 16, sampler=sampler))
        assert report.causes == causes
        assert not causes or told_of(report)[1] == f"all {len(y)} examples that were drawn are of class 1"


def test_places_that_a_reshape_alone_makes_rows_of():
    words = torch.randint(9, (64, 6), generator=torch.Generator().manual_seed(0))

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.scan = nn.Embedding(9, 8), nn.Conv1d(8, 3, 3, padding=1)

        def forward(self, x):
            return self.scan(self.embed(x).transpose(1, 2))

    data, order = (words, words % 3), (0, 2, 1)
    cause, why, fix = told_of(examine(seen_in(Tagger, lambda z, y: F.cross_entropy(z.reshape(-1, 3), y.reshape(-1)), data=data)))
    assert (cause, fix) == ("labels-apart", "scores.permute(0, 2, 1).reshape(-1, C)")
    assert why == "scores [16, 3, 6] become [96, 3] by reshape alone, which mixes places"
    assert examine(seen_in(Tagger, lambda z, y: F.cross_entropy(z.permute(order).reshape(-1, 3), y.reshape(-1)), data=data)).causes == []


@pytest.mark.parametrize("mask", [False, True])
def test_a_model_of_words_that_sees_the_next(mask):
    words = torch.randint(9, (64, 7), generator=torch.Generator().manual_seed(0))

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.end = nn.Embedding(9, 16), nn.Linear(16, 9)
            self.read = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

        def forward(self, x):
            causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if mask else None
            return self.end(self.read(self.embed(x), src_mask=causal))

    loss = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten())
    report = examine(seen_in(Reader, loss, data=(words[:, :-1], words[:, 1:])))
    assert report.causes == ([] if mask else ["leak"])
    assert mask or told_of(report)[1] == "each target is the next word, and scores change with the words that follow"


def test_several_labels_and_cross_entropy():
    x, _ = some_digits()
    tags = (x[:, 300:304] > x[:, 300:304].mean(0)).float()
    make = lambda: nn.Linear(784, 4)
    cause, why, fix = told_of(examine(seen_in(make, F.cross_entropy, data=(x, tags))))
    assert cause == "target-form" and why.endswith(" labels for an example: its classes exclude each other")
    assert fix == "F.binary_cross_entropy_with_logits(scores, targets)"
    assert examine(seen_in(make, F.binary_cross_entropy_with_logits, data=(x, tags))).causes == []
    soft = 0.9 * F.one_hot(some_digits()[1], 4).float() + 0.025
    assert "target-form" not in examine(seen_in(make, F.cross_entropy, data=(x, soft))).causes


@pytest.mark.parametrize("end, said", [
    (nn.ReLU(), "ReLU ends the model, and "), (nn.Sigmoid(), "sigmoid ends the model, and "), (nn.Identity(), ""),
], ids=named)  # fmt: skip
def test_numbers_that_the_end_of_a_model_does_not_reach(end, said):
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    make = lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), end)
    for y, fault in (x[:, :1] - x[:, 1:2], bool(said)), (torch.rand(400, 1, generator=torch.Generator().manual_seed(0)), False):
        report = examine(seen_in(make, F.mse_loss, data=(x, y)))
        assert report.causes == ["bounded-scores"] * fault
        assert not fault or told_of(report)[1].startswith(said) and "% of the targets lie " in told_of(report)[1]


def test_weights_that_are_no_leaf():
    x, y = some_digits()
    w = torch.randn(784, 2, generator=torch.Generator().manual_seed(0)).requires_grad_() * 0.01
    with pytest.raises(TypeError), pytest.warns(UserWarning, match="not a leaf"), watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 16):
            F.cross_entropy(xb @ w, yb).backward()
            w.data -= 0.1 * w.grad
    cause, why, fix = told_of(examine(seen))
    assert cause == "no-gradient" and why.startswith("the loop asks a tensor [784, 2] for its gradient, and it is no leaf")
    assert fix == "call requires_grad_() last: (0.01 * torch.randn(…)).requires_grad_()"


def by_hand(rate):
    """What is seen of weights that are moved by hand, at `rate(number of the step)`."""
    x, y = some_digits()
    w = torch.zeros(784, 2).requires_grad_()
    with watch() as seen:
        for k, (xb, yb) in enumerate(DataLoader(TensorDataset(x, y), 6)):
            F.cross_entropy(xb @ w, yb).backward()
            w.data -= rate(k) * w.grad
            w.grad.zero_()
    return seen


def test_a_rate_that_falls_by_hand():
    assert "lr-small" not in examine(by_hand(lambda k: 0.1)).causes + examine(by_hand(lambda k: 0.1 / (k + 1))).causes
    (check,) = [check for check in examine(by_hand(lambda k: 0.1 * 0.9**k)).failed if check.cause == "lr-small"]
    assert check.why == "the rate falls from 0.1 to 0.00424 in 31 steps"
    assert check.fix == "lower it once an epoch, not in each batch"


def test_a_step_after_all_batches():
    x, y = some_digits()
    model = seeded(of_digits())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for _ in range(2):
            for xb, yb in DataLoader(TensorDataset(x, y), 4, shuffle=True):
                F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
            optimizer.zero_grad()
    cause, why, fix = told_of(examine(seen))
    assert (cause, why) == ("weights-do-not-move", "backward ran 32 times before the first step of the optimizer")
    assert fix.startswith("optimizer.step() inside the loop over batches, after each backward()")


def test_argmax_of_one_column():
    metric = lambda s, y: (s.argmax(-1) == y.flatten()).float().mean()
    (check,) = [check for check in examine(book, metric).failed if check.cause == "metric-wrong"]
    assert check.fix == "of one column argmax is always 0: compare scores > 0 with the targets"


def test_a_loss_of_one_column_that_is_not_finite_gets_a_cure_of_one_column():
    (check,) = examine(lambda z, y: F.soft_margin_loss(z.view(-1), 2.0 * y.view(-1) - 1)).failed
    assert check.cause == "not-finite" and check.fix.startswith("F.binary_cross_entropy_with_logits of raw scores")


def test_a_sum_that_is_divided_by_a_batch_of_several_steps():
    loss = lambda z, y: F.cross_entropy(z, y, reduction="sum") / 64
    assert examine(seen_in(of_digits(), loss, 0.002, some_digits())).causes == []


def test_inputs_that_are_all_alike_break_no_experiment():
    x, y = torch.zeros(160, 784), some_digits()[1][:160]
    report = examine(seen_in(of_digits(), F.cross_entropy, data=(x, y)))
    assert "bad-data" in report.causes and not [check for check in report if "experiment failed" in check.why]


def test_time_that_others_take_is_no_work():
    since, began = stopwatch(), time.monotonic()
    time.sleep(0.3)
    asleep, passed = since(), time.monotonic() - began
    assert passed / 3 - 0.05 <= asleep < 0.2 < passed
    since, worked = stopwatch(), time.thread_time()
    while time.thread_time() - worked < 0.1:
        random.random()
    assert since() >= 0.1
