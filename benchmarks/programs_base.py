"""What the planted faults and the sound programs are made of: data, models, loops.

`faulty` and `healthy` are decorators that enter a program in FAULTY and in HEALTHY.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mnist_ce.data import mnist

Program = dict[str, Any]
Build = Callable[[], Program]
Data = tuple[Tensor, Tensor, Tensor, Tensor]  # inputs and targets to train on, then to validate on
FAULTY: dict[str, tuple[str, Build]] = {}
HEALTHY: dict[str, Build] = {}


def seeded(build: Build) -> Build:
    """`build` from a fixed seed, with the global random state left as it was."""

    @functools.wraps(build)
    def fresh() -> Program:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build()

    return fresh


def faulty(cause: str, alone: str = "") -> Callable[[Callable], Callable]:
    """Enter a build in FAULTY; with alone="loss" or "metric", a function that is all there is."""

    def enter(made: Callable) -> Callable:
        assert made.__name__ not in FAULTY | HEALTHY, f"there are two programs {made.__name__}"
        FAULTY[made.__name__] = cause, seeded((lambda: {alone: made}) if alone else made)
        return made

    return enter


def healthy(alone: str = "") -> Callable[[Callable], Callable]:
    """Enter a build in HEALTHY, as `faulty` does."""

    def enter(made: Callable) -> Callable:
        assert made.__name__ not in FAULTY | HEALTHY, f"there are two programs {made.__name__}"
        HEALTHY[made.__name__] = seeded((lambda: {alone: made}) if alone else made)
        return made

    return enter


# ---- Data: fixed draws, copied, so that no program spoils another's.


@functools.cache
def drawn_digits(classes: tuple[int, ...], counts: tuple[int, int] = (1500, 500)) -> Data:
    random = torch.Generator().manual_seed(0)
    drawn = []
    for digits, count in zip(mnist(classes=classes), counts):
        rows = torch.randperm(len(digits), generator=random)[:count]
        drawn += [digits.x[rows], digits.y[rows, 0]]
    return tuple(drawn)  # type: ignore[return-value]


def ten_digits() -> Data:
    """Images [N, 784] from 0 to 1, labels int64 [N]."""
    return tuple(t.clone() for t in drawn_digits(tuple(range(10))))  # type: ignore[return-value]


def more_digits() -> Data:
    """6000 images and 2000 more, for models that need them."""
    return tuple(t.clone() for t in drawn_digits(tuple(range(10)), (6000, 2000)))  # type: ignore


def pictures() -> Data:
    """Images [N, 1, 28, 28] with mean 0 and deviation 1, labels int64 [N]."""
    x, y, xv, yv = ten_digits()
    return normal(x).view(-1, 1, 28, 28), y, normal(xv).view(-1, 1, 28, 28), yv


def normal(x: Tensor) -> Tensor:
    """Grey values with the mean and the deviation of MNIST taken out."""
    return (x - 0.1307) / 0.3081


def threes_sevens() -> Data:
    """Images [N, 784] from 0 to 1, labels float [N, 1], 1 for a 3."""
    x, y, xv, yv = (t.clone() for t in drawn_digits((7, 3)))
    return x, y.float().unsqueeze(1), xv, yv.float().unsqueeze(1)


def both(make: Callable[[int], tuple[Tensor, Tensor]]) -> Data:
    """1500 made-up examples and 500 more."""
    (x, y), (xv, yv) = make(1500), make(500)
    return x, y, xv, yv


def sentences() -> Data:
    """Token ids int64 [N, 16] below 200, and which of four topics they are on, int64 [N]."""

    def make(n: int) -> tuple[Tensor, Tensor]:
        topic = torch.randint(4, (n,))
        on_topic = topic[:, None] * 20 + torch.randint(20, (n, 16))
        ids = torch.where(torch.rand(n, 16) < 0.4, on_topic, torch.randint(80, 200, (n, 16)))
        return ids, topic

    return both(make)


def flowers() -> Data:
    """Twelve measurements, standardized, float [N, 12], and which of three kinds, int64 [N]."""
    centers = torch.randn(3, 12)

    def make(n: int) -> tuple[Tensor, Tensor]:
        kind = torch.randint(3, (n,))
        return (centers[kind] + torch.randn(n, 12)) / 1.4, kind

    return both(make)


def rings() -> Data:
    """Points float [N, 2] on one of two rings, and whether on the outer one, float [N, 1]."""

    def make(n: int) -> tuple[Tensor, Tensor]:
        outer, angle = torch.randint(2, (n, 1)).float(), 6.2832 * torch.rand(n, 1)
        radius = 0.7 + outer + 0.15 * torch.randn(n, 1)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1), outer

    return both(make)


def houses() -> Data:
    """Eight features, standardized, float [N, 8], and a standardized price, float [N, 1]."""
    weight = torch.randn(8, 1) / 3

    def make(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, 8)
        return x, x @ weight + 0.3 * x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(n, 1)

    return both(make)


class Pairs(Dataset):
    """What people write: inputs, targets, and perhaps a change made to each input."""

    def __init__(self, x: Tensor, y: Tensor, change: Callable[[Tensor], Tensor] | None = None):
        self.x, self.y, self.change = x, y, change

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x = self.x[i]
        return (self.change(x) if self.change else x), self.y[i]


def loader(x: Tensor, y: Tensor, batch: int = 32, shuffle: bool = True) -> DataLoader:
    """Batches of a TensorDataset."""
    return DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=shuffle)


# ---- Models, metrics, and the sound programs that faults are planted in.


def mlp(outputs: int = 10, inputs: int = 784, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two layers, 100 hidden units."""
    return nn.Sequential(nn.Linear(inputs, 100), act(), nn.Linear(100, outputs))


def deep(depth: int, act: type[nn.Module] = nn.ReLU, width: int = 64) -> nn.Module:
    """`depth` hidden layers of `width` units, drawn as Kaiming did."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else 784, width), act()]
    net = nn.Sequential(*layers, nn.Linear(width, 10))
    return initialized(net, nn.init.kaiming_normal_)


def cnn(outputs: int = 10) -> nn.Sequential:
    """Two convolutions with strides."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 7 * 7, outputs),
    )


class Rows(nn.Module):
    """An LSTM that reads an image [N, 784] row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x.view(-1, 28, 28))
        return self.head(out[:, -1])


class Words(nn.Module):
    """The mean of the tokens' embeddings, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).mean(1))


class Net(nn.Module):
    """The classic with two layers by name and a forward that is easy to get wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 100)
        self.fc2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


def accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of rows whose highest score is that of the right class."""
    return (scores.argmax(dim=1) == targets).float().mean()


def binary_accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of scores [N, 1] on the right side of 0."""
    return ((scores > 0).float() == targets).float().mean()


def close(predicted: Tensor, price: Tensor) -> Tensor:
    """The share of prices predicted to within .3 deviations."""
    return ((predicted - price).abs() < 0.3).float().mean()


def sgd(lr: float = 0.1, momentum: float = 0.9, **rest: Any) -> Callable:
    """What makes an SGD of a model."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, **rest)


def adam(lr: float = 3e-3, **rest: Any) -> Callable:
    """What makes an Adam of a model."""
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr, **rest)


def program(
    data: Data | None = None, model: nn.Module | None = None, loss: Any = None,
    metric: Callable = accuracy, optimizer: Callable = sgd(), batch: int = 32, **given: Any,
) -> Program:
    """A sound program: by default a network with one hidden layer on ten digits."""
    x, y, xv, yv = data or ten_digits()
    model, loss = model or mlp(), loss or nn.CrossEntropyLoss()
    train = given.get("train", loader(x, y, batch))
    valid = given.get("valid", loader(xv, yv, 100, shuffle=False))
    opt = optimizer(model)
    return dict(
        loss=loss, metric=metric, model=model, optimizer=opt, train=train, valid=valid,
        step=training(model, loss, opt), validate=validation(model, metric, valid),
    )


def binary(data: Data | None = None, model: nn.Module | None = None, **given: Any) -> Program:
    """One column for 3 against 7."""
    sound = dict(loss=nn.BCEWithLogitsLoss(), metric=binary_accuracy, optimizer=sgd(0.05))
    return program(data or threes_sevens(), model or mlp(1), **sound | given)


def conv(model: nn.Module | None = None, **given: Any) -> Program:
    """A convnet with Adam."""
    return program(given.pop("data", None) or pictures(), model or cnn(),
                   **dict(optimizer=adam()) | given)


def text(model: nn.Module | None = None, **given: Any) -> Program:
    """Topics of token ids."""
    return program(sentences(), model or Words(), **dict(optimizer=adam(0.01)) | given)


def training(model: nn.Module, loss: Callable, optimizer: torch.optim.Optimizer) -> Callable:
    """The usual step."""

    def step(xb: Tensor, yb: Tensor) -> float:
        model.train()
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def validation(model: nn.Module, metric: Callable, valid: Any) -> Callable[[], float]:
    """The usual validation: the metric's mean over all examples."""

    def validate() -> float:
        model.eval()
        total = count = 0.0
        with torch.no_grad():
            for xb, yb in batches(valid):
                total += float(metric(model(xb), yb)) * len(xb)
                count += len(xb)
        return total / count

    return validate


def batches(data: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a DataLoader, a Dataset or a pair (inputs, targets)."""
    if isinstance(data, tuple):
        data = TensorDataset(*data)
    yield from data if isinstance(data, DataLoader) else DataLoader(data, 32, shuffle=True)


def parts(p: Program) -> tuple[nn.Module, Callable, Any]:
    """The model, the loss and the optimizer."""
    return p["model"], p["loss"], p["optimizer"]


# ---- What several programs share.


def initialized(model: nn.Module, init: Callable[[Tensor], Any], biases: bool = False) -> nn.Module:
    """`model` with the weights, or all, of its layers set by `init`."""
    for parameter in model.parameters():
        if biases or parameter.ndim > 1:
            init(parameter.data)
    return model


def dropping(p: float = 0.5) -> nn.Sequential:
    """A network with dropout on its hidden units."""
    return nn.Sequential(*mlp()[:2], nn.Dropout(p), nn.Linear(100, 10))


def normed() -> nn.Sequential:
    """A network with batch norm."""
    return nn.Sequential(nn.Linear(784, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))


def bare_step(p: Program) -> Callable:
    """A step that leaves the model's mode alone."""
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        loss(model(xb), yb).backward()
        optimizer.step()

    return step


def data_alone(x: Tensor, y: Tensor, xv: Tensor, yv: Tensor, batch: int = 32) -> Program:
    """Two loaders and nothing else."""
    return dict(train=loader(x, y, batch), valid=loader(xv, yv, 100, shuffle=False))


def by_label(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Examples in the order of their labels."""
    order = y.flatten().argsort()
    return x[order], y[order]


def augmented(change: Callable[[Tensor], Tensor]) -> Program:
    """A convnet on images [1, 28, 28] that `change` is made to."""
    x, y, xv, yv = data = pictures()
    return conv(data=data, train=DataLoader(Pairs(x, y, change), 32, shuffle=True))


def rare(x: Tensor, y: Tensor, label: int, keep: int) -> tuple[Tensor, Tensor]:
    """`keep` of the examples of `label` and all others, shuffled."""
    rows = torch.cat([(y.flatten() != label).nonzero(), (y.flatten() == label).nonzero()[:keep]])
    rows = rows.flatten()[torch.randperm(len(rows))]
    return x[rows], y[rows]


def scheduled(p: Program, scheduler: Any) -> Program:
    """`p`, with `scheduler` stepped after each batch."""
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        usual(xb, yb)
        scheduler.step()

    return p | {"step": step}
