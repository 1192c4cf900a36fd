"""Planted faults, and sound programs, of pixels, of words, and of losses of more than one call."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs_base import (
    adam, conv, faulty, healthy, loader, mlp, Pairs, parts, program, Program, scheduled, sgd,
    ten_digits,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

# ---- Pixels: is there ink?


def masks() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy images [N, 1, 28, 28] and what lies at each pixel, int64 [N, 28, 28]: 1 for ink."""
    x, _, xv, _ = ten_digits()
    clean = [t[:320].view(-1, 1, 28, 28) for t in (x, xv)]
    train, valid = [(t + 0.3 * torch.randn(t.shape), (t[:, 0] > 0.5).long()) for t in clean]
    return *train, *valid


def filters(outputs: int = 2) -> nn.Sequential:
    """Two convolutions that keep the size."""
    last = nn.Conv2d(8, outputs, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), last)


def right(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of places whose highest score is that of the right class."""
    return (scores.argmax(1) == targets).float().mean()


def pixels(model: nn.Module | None = None, **given: Any) -> Program:
    """Two classes of pixels."""
    usual = dict(metric=right, optimizer=adam(0.01))
    return program(given.pop("data", None) or masks(), model or filters(), **usual | given)


class Mirrored(Pairs):
    """Every other picture is mirrored, and perhaps what belongs to it."""

    def __init__(self, x: Tensor, y: Tensor, both: bool):
        super().__init__(x, y)
        self.both = both

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(i)
        if torch.rand(()) < 0.5:
            return x.flip(-1), y.flip(-1) if self.both else y
        return x, y


@faulty("labels-apart")
def masks_by_columns() -> Program:
    """Masks were written column by column: they are transposed."""
    x, y, xv, yv = masks()
    return pixels(data=(x, y.transpose(1, 2).contiguous(), xv, yv.transpose(1, 2).contiguous()))

@faulty("labels-apart")
def picture_mirrored_alone() -> Program:
    """A random flip of the picture that the mask does not follow."""
    x, y, xv, yv = data = masks()
    return pixels(data=data, train=DataLoader(Mirrored(x, y, both=False), 32, shuffle=True))

@faulty("labels-apart")
def pixels_by_view() -> Program:
    """Scores [N, C, H, W] are viewed as [N·H·W, C] without a permute."""
    return pixels(loss=lambda z, y: F.cross_entropy(z.view(-1, 2), y.view(-1)))

@faulty("softmax-twice")
def pixels_softmax() -> Program:
    """Softmax2d at the end, and cross entropy."""
    return pixels(nn.Sequential(*filters(), nn.Softmax(1)))

@faulty("softmax-twice")
def mask_sigmoid() -> Program:
    """A sigmoid at the end, and the loss with logits."""
    x, y, xv, yv = masks()
    ink = lambda scores, targets: ((scores > 0.5) == (targets > 0.5)).float().mean()
    data = x, y.float().unsqueeze(1), xv, yv.float().unsqueeze(1)
    model = nn.Sequential(*filters(1), nn.Sigmoid())
    return pixels(model, data=data, loss=nn.BCEWithLogitsLoss(), metric=ink)

@healthy()
def pixels_as_they_are() -> Program:
    """Cross entropy of scores [N, C, H, W]."""
    return pixels()

@healthy()
def pixels_as_rows() -> Program:
    """Scores are permuted before they become rows."""
    rows = lambda z, y: F.cross_entropy(z.permute(0, 2, 3, 1).reshape(-1, 2), y.view(-1))
    return pixels(loss=rows)

@healthy()
def pixels_left_out() -> Program:
    """The border is labeled 255, which the loss leaves out."""
    x, y, xv, yv = masks()
    y[:, 0] = 255
    loss = nn.CrossEntropyLoss(ignore_index=255)
    return pixels(data=(x, y, xv, yv), loss=loss)

@healthy()
def mirrored_together() -> Program:
    """A random flip of picture and mask."""
    x, y, xv, yv = data = masks()
    return pixels(data=data, train=DataLoader(Mirrored(x, y, both=True), 32, shuffle=True))

@healthy()
def overlap() -> Program:
    """Cross entropy and Dice."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        ink, own = z.softmax(1)[:, 1], (y == 1).float()
        shared = 2 * (ink * own).sum((1, 2)) / (ink + own).sum((1, 2)).clamp(min=1e-6)
        return F.cross_entropy(z, y) + 1 - shared.mean()

    return pixels(loss=loss)

@healthy()
def two_heads() -> Program:
    """A dict of scores, with an auxiliary loss."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out, self.aux = nn.Conv2d(1, 8, 3, padding=1), filters(), filters()
            self.out[0], self.aux[0] = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            body = self.body(x).relu()
            return dict(out=self.out(body), aux=self.aux(body))

    x, y, xv, yv = masks()
    model, loader_of = Heads(), loader(x, y)
    optimizer = adam(0.01)(model)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        scores = model(xb)
        loss = F.cross_entropy(scores["out"], yb) + 0.4 * F.cross_entropy(scores["aux"], yb)
        loss.backward()
        optimizer.step()

    return dict(model=model, optimizer=optimizer, train=loader_of, step=step)


# ---- Words: which comes next?


def tales() -> Tensor:
    """Words int64 [N, 12] below 30, each mostly two more than the one before."""
    words = torch.zeros(600, 12, dtype=torch.long)
    words[:, 0] = torch.randint(30, (600,))
    for k in range(1, 12):
        other = torch.randint(30, (600,))
        words[:, k] = torch.where(torch.rand(600) < 0.9, (words[:, k - 1] + 2) % 30, other)
    return words


def next_words(x: Tensor, y: Tensor) -> Program:
    """A network that reads one word, and scores the next."""
    model = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30))
    loss = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten())
    metric = lambda z, y: (z.argmax(2) == y).float().mean()
    return program((x[:500], y[:500], x[500:], y[500:]), model, loss, metric, adam(0.01))


@faulty("leak")
def words_not_shifted() -> Program:
    """Each word is its own target."""
    words = tales()
    return next_words(words, words)

@healthy()
def words_shifted() -> Program:
    """The target of a word is the next."""
    words = tales()
    return next_words(words[:, :-1], words[:, 1:])


# ---- Losses of more than one call, and steps of more than three lines.


def mixed(model: nn.Module, optimizer: Callable = adam()) -> Program:
    """Mixup: two losses of the same blended pictures."""
    p = program(model=model, optimizer=optimizer)
    model, loss, opt = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        share, order = 0.2 + 0.1 * torch.rand(()), torch.randperm(len(xb))
        scores = model((1 - share) * xb + share * xb[order])
        opt.zero_grad()
        ((1 - share) * loss(scores, yb) + share * loss(scores, yb[order])).backward()
        opt.step()

    return p | dict(step=step)


def copying(lr: float) -> Program:
    """An autoencoder with a squared error."""
    x, _, xv, _ = ten_digits()
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 784))
    return program((x, x, xv, xv), model, nn.MSELoss(), F.mse_loss, sgd(lr, 0.0))


def one_cycle(peak: float) -> Program:
    """A rate that climbs to its peak within 500 steps."""
    p = program()
    optimizer = p["optimizer"]
    return scheduled(p, torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=1500))


@faulty("softmax-twice")
def mixed_softmax() -> Program:
    """Mixup with a model that ends in softmax."""
    return mixed(nn.Sequential(*mlp(), nn.Softmax(1)))

@faulty("lr-large")
def mixed_fast() -> Program:
    """Mixup at a rate of 100."""
    return mixed(mlp(), sgd(100.0, 0.0))

@faulty("lr-large")
def copying_fast() -> Program:
    """An autoencoder at a rate of 1000."""
    return copying(1000.0)

@faulty("lr-large")
def high_peak() -> Program:
    """OneCycleLR to a rate of 100."""
    return one_cycle(100.0)

@faulty("not-optimised")
def biases_alone() -> Program:
    """All weights are frozen, by a condition that was meant for one layer."""
    model = mlp()
    for name, p in model.named_parameters():
        p.requires_grad_("bias" in name)
    return program(model=model)

@healthy()
def autoencoder() -> Program:
    """Each picture is its own target."""
    return copying(1.0)

@healthy()
def low_peak() -> Program:
    """OneCycleLR to a rate of 0.1."""
    return one_cycle(0.1)

@healthy()
def scaled_loss() -> Program:
    """A GradScaler multiplies the loss by 65536, and divides the gradients."""
    p = conv()
    model, loss, optimizer = parts(p)
    scaler = torch.amp.GradScaler("cpu")

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss(model(xb), yb)).backward()
        scaler.step(optimizer)
        scaler.update()

    return p | dict(step=step)
