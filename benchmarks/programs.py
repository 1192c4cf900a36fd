"""Planted training faults, and sound programs that look odd: what does a doctor find, and invent?

`FAULTY[name]` is (cause, build), `HEALTHY[name]` is build. `build()` makes fresh objects, the
keyword arguments of `examine(loss, metric, *, model, train, valid, optimizer, step, validate)`
that a user would have. A fault is one change to a sound program. Where a thread is named, the fault
is from there: `a/b#n` is a GitHub issue, `SO n` stackoverflow.com/questions/n, `F n`
discuss.pytorch.org/t/n. "hides=True" marks a fault that the accuracy does not show.
Written without a look at the doctor. `python benchmarks/programs.py [NAME ...]` trains them.
"""

import copy
import functools
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, WeightedRandomSampler

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
        FAULTY[made.__name__] = cause, seeded((lambda: {alone: made}) if alone else made)
        return made

    return enter


def healthy(alone: str = "") -> Callable[[Callable], Callable]:
    """Enter a build in HEALTHY, as `faulty` does."""

    def enter(made: Callable) -> Callable:
        HEALTHY[made.__name__] = seeded((lambda: {alone: made}) if alone else made)
        return made

    return enter


# ---- Data: fixed draws, copied, so that no program spoils another's.


@functools.cache
def _drawn(classes: tuple[int, ...], counts: tuple[int, int] = (1500, 500)) -> Data:
    random = torch.Generator().manual_seed(0)
    drawn = []
    for digits, count in zip(mnist(classes=classes), counts):
        rows = torch.randperm(len(digits), generator=random)[:count]
        drawn += [digits.x[rows], digits.y[rows, 0]]
    return tuple(drawn)  # type: ignore[return-value]


def ten_digits() -> Data:
    """Images [N, 784] from 0 to 1, labels int64 [N]."""
    return tuple(t.clone() for t in _drawn(tuple(range(10))))  # type: ignore[return-value]


def pictures() -> Data:
    """Images [N, 1, 28, 28] with mean 0 and deviation 1, labels int64 [N]."""
    x, y, xv, yv = ten_digits()
    return normal(x).view(-1, 1, 28, 28), y, normal(xv).view(-1, 1, 28, 28), yv


def normal(x: Tensor) -> Tensor:
    """Grey values with the mean and the deviation of MNIST taken out."""
    return (x - 0.1307) / 0.3081


def threes_sevens() -> Data:
    """Images [N, 784] from 0 to 1, labels float [N, 1], 1 for a 3."""
    x, y, xv, yv = (t.clone() for t in _drawn((7, 3)))
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
    """Points float [N, 2] on one of two rings about zero, and whether on the outer, float [N, 1]."""

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


def deep(depth: int, act: type[nn.Module] = nn.ReLU, width: int = 64) -> nn.Sequential:
    """`depth` hidden layers of `width` units."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else 784, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


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


# ---- Faults of the loss.


@faulty("not-finite", alone="loss")
def log_of_softmax(scores: Tensor, targets: Tensor) -> Tensor:
    """log(softmax): minus infinity from a difference of 104 on. SO 33712178, tensorflow/models#181."""
    return -torch.log(torch.softmax(scores, 1))[range(len(targets)), targets].mean()

@faulty("not-finite", alone="loss")
def exp_over_sum(scores: Tensor, targets: Tensor) -> Tensor:
    """exp overflows from 89 on. zackchase/mxnet-the-straight-dope#3."""
    exps = scores.exp()
    probabilities = exps / exps.sum(1, keepdim=True)
    return -probabilities.gather(1, targets.view(-1, 1)).log().mean()

@faulty("not-finite", alone="loss")
def log_of_sigmoid(scores: Tensor, targets: Tensor) -> Tensor:
    """BCE by the formula of the textbook: log(1 - sigmoid(17)) is minus infinity."""
    p = torch.sigmoid(scores)
    return -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p)).mean()

@faulty("not-finite", alone="loss")
def where_both_branches(scores: Tensor, targets: Tensor) -> Tensor:
    """softplus by torch.where: the value is right, the slope is 0 * inf."""
    signed = torch.where(targets == 1, -scores, scores)
    return torch.where(signed > 30, signed, torch.log(1 + torch.exp(signed))).mean()

@faulty("not-finite")
def root_of_error() -> Program:
    """RMSE by sqrt with an exact answer: the slope of sqrt at 0 is infinite. hides=True"""
    rmse = lambda predicted, price: ((predicted - price) ** 2).sqrt().mean()
    return program(houses(), mlp(1, 8), rmse, close, sgd(0.01))

@faulty("not-finite")
def log_softmax_by_hand() -> Program:
    """log(softmax) in the model, then NLL: infinite on a confident mistake. hides=True"""
    class LogProbs(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(F.softmax(super().forward(x), dim=1))

    return program(model=LogProbs(*mlp()), loss=nn.NLLLoss())

@faulty("softmax-twice")
def softmax_in_forward() -> Program:
    """Softmax is the model's last layer, then cross entropy. F 52862: accuracy never moves."""
    return program(model=nn.Sequential(*mlp(), nn.Softmax(dim=1)), optimizer=sgd(0.01))

@faulty("softmax-twice")
def softmax_in_convnet() -> Program:
    """A convnet whose forward returns F.softmax. ariecattan/SciCo#2."""
    class Probabilities(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), dim=1)

    return conv(Probabilities(*cnn()))

@faulty("softmax-twice")
def softmax_of_topics() -> Program:
    """Topics of sentences, softmax and cross entropy. Lightning-Universe/lightning-bolts#654."""
    class Softmaxed(Words):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.softmax(super().forward(ids), -1)

    return text(Softmaxed(), optimizer=sgd(0.1))

@faulty("softmax-twice")
def sigmoid_then_with_logits() -> Program:
    """Sigmoid, then BCEWithLogitsLoss. F 27298, yudi-mars/daisyRec#15. hides=True"""
    return binary(model=nn.Sequential(*mlp(1), nn.Sigmoid()),
                  metric=lambda p, y: ((p > 0.5) == y).float().mean())

@faulty("softmax-twice", alone="loss")
def softmax_then_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Softmax in the loss, and cross entropy of that."""
    return F.cross_entropy(F.softmax(scores, dim=1), targets)

@faulty("nll-input")
def nll_of_scores() -> Program:
    """NLLLoss of raw scores: no floor, it goes to minus infinity."""
    return program(loss=nn.NLLLoss(), optimizer=sgd(0.01))

@faulty("nll-input")
def nll_of_softmax() -> Program:
    """NLLLoss of softmax: the log is missing. F 55904."""
    return program(model=nn.Sequential(*mlp(), nn.Softmax(dim=1)), loss=nn.NLLLoss(),
                   optimizer=sgd(0.01))

@faulty("nll-input")
def nll_of_exp() -> Program:
    """The model returns log-probabilities, the loss takes exp of them before NLL. F 55904."""
    return conv(nn.Sequential(*cnn(), nn.LogSoftmax(dim=1)), optimizer=sgd(0.01),
                loss=lambda out, y: F.nll_loss(torch.exp(out), y))

@faulty("nll-input", alone="loss")
def kl_of_probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    """kl_div wants log-probabilities first and gets probabilities."""
    one_hot = F.one_hot(targets, scores.shape[1]).float()
    return F.kl_div(F.softmax(scores, dim=1), one_hot, reduction="batchmean")

@faulty("loss-mixes-rows", alone="loss")
def softmax_over_batch(scores: Tensor, targets: Tensor) -> Tensor:
    """F.softmax(dim=0). F 77250, Lackel/DPN#1."""
    return F.nll_loss(torch.log_softmax(scores, dim=0), targets)

@faulty("loss-mixes-rows")
def softmax_without_dim_of_rows() -> Program:
    """log_softmax(dim=0) in the loss of a whole program. MicrosoftDocs/pytorchfundamentals#4."""
    return program(loss=lambda out, y: F.nll_loss(F.log_softmax(out, 0), y))

@faulty("loss-mixes-rows")
def scores_standardized_in_loss() -> Program:
    """The loss takes the batch's mean and deviation out of the scores: constants cost nothing."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        scores = (scores - scores.mean(0)) / (scores.std(0) + 1e-6)
        return F.cross_entropy(scores, targets)

    return program(loss=loss)

@faulty("loss-mixes-rows", alone="loss")
def sum_over_everything(scores: Tensor, targets: Tensor) -> Tensor:
    """Softmax by hand, the sum taken over the whole table: keepdim and dim left out."""
    exps = torch.exp(scores - scores.max())
    return -torch.log(exps / exps.sum() + 1e-12).gather(1, targets.view(-1, 1)).mean()

@faulty("sign", alone="loss")
def log_likelihood(scores: Tensor, targets: Tensor) -> Tensor:
    """The minus is missing. stellargraph/stellargraph#1138."""
    return torch.log_softmax(scores, 1).gather(1, targets.view(-1, 1)).mean()

@faulty("sign")
def book_loss_swapped() -> Program:
    """The book's mnist_loss with the branches of where swapped. fastai/fastbook#478."""
    def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, predictions, 1 - predictions).mean()

    return binary(loss=mnist_loss)

@faulty("sign")
def optimizer_maximizes() -> Program:
    """maximize=True left from a policy gradient."""
    return program(optimizer=sgd(0.01, maximize=True))

@faulty("sign")
def minus_before_backward() -> Program:
    """(-loss).backward() of a loss that has its minus."""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        (-loss(model(xb), yb)).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("sign")
def gradient_added() -> Program:
    """Gradient descent by hand that adds the gradient."""
    p = program()
    model, loss, _ = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        loss(model(xb), yb).backward()
        with torch.no_grad():
            for w in model.parameters():
                w += 0.1 * w.grad
                w.grad = None

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@faulty("dead-class")
def padding_index_is_zero() -> Program:
    """ignore_index=0, copied from a translation model: no zero is ever learned."""
    return program(loss=nn.CrossEntropyLoss(ignore_index=0))

@faulty("dead-class")
def weight_of_nine_is_zero() -> Program:
    """Class weights made by counting from 1: the last class has weight 0."""
    return conv(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0] * 9 + [0.0])))

@faulty("dead-class", alone="loss")
def only_positives(scores: Tensor, targets: Tensor) -> Tensor:
    """BCE without its second half: answering 1 always is best."""
    return -(targets * F.logsigmoid(scores)).mean()

@faulty("dead-class", alone="loss")
def where_blocks_gradient(scores: Tensor, targets: Tensor) -> Tensor:
    """torch.where with detached losses for one class. F 72570."""
    losses = F.cross_entropy(scores, targets, reduction="none")
    return torch.where(targets == 1, losses.detach(), losses).mean()

@faulty("dead-class")
def mask_of_labels() -> Program:
    """A mask `targets > 0` meant for padding drops all 7s, whose label is 0."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        mask = (targets > 0).float()
        return (F.binary_cross_entropy_with_logits(scores, targets, reduction="none") * mask).mean()

    return binary(loss=loss)

@faulty("no-gradient", alone="loss")
def loss_of_argmax(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of errors, with requires_grad set so that backward runs. 47 forum posts."""
    return (scores.argmax(1) != targets).float().mean().requires_grad_()

@faulty("no-gradient", alone="loss")
def rounded_probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    """MSE of rounded probabilities: the slope of round is 0 everywhere."""
    return F.mse_loss(torch.sigmoid(scores).round(), targets.to(scores.dtype))

@faulty("no-gradient")
def loss_made_anew() -> Program:
    """torch.tensor(loss.item(), requires_grad=True). queenie88/A-GCN#4."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor(F.cross_entropy(scores, targets).item(), requires_grad=True)

    return program(loss=loss)

@faulty("no-gradient")
def detached_features() -> Program:
    """.data between body and head: the convolutions never learn. guopengf/FL-MRCM#10. hides=True"""
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(*cnn()[:-1]), nn.Linear(16 * 7 * 7, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).data)

    return conv(Detached())

@faulty("no-gradient")
def no_grad_in_forward() -> Program:
    """torch.no_grad around the embedding, left from inference."""
    class Frozen(Words):
        def forward(self, ids: Tensor) -> Tensor:
            with torch.no_grad():
                words = self.embed(ids)
            return self.head(words.mean(1))

    return text(Frozen())

@faulty("no-gradient")
def through_numpy() -> Program:
    """An activation computed in numpy: the first layer is cut off. hides=True"""
    class Numpy(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.fc1(x).detach().numpy().clip(min=0)
            return self.fc2(torch.from_numpy(hidden))

    return program(model=Numpy())

@faulty("sum-for-mean", alone="loss")
def summed_picks(scores: Tensor, targets: Tensor) -> Tensor:
    """-sum of the picked log-probabilities: twice the batch, twice the step."""
    return -F.log_softmax(scores, dim=1)[range(len(targets)), targets].sum()

@faulty("sum-for-mean")
def reduction_sum() -> Program:
    """reduction="sum" with a learning rate for means."""
    return program(loss=nn.CrossEntropyLoss(reduction="sum"))

@faulty("sum-for-mean")
def squares_summed() -> Program:
    """Squared errors on one-hot, summed over batch and columns. TheDeepChecker IPS_1."""
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return ((out - F.one_hot(y, 10)) ** 2).sum()

    return program(loss=loss)

@faulty("broadcast")
def book_loss_flat_labels() -> Program:
    """The book's mnist_loss, scores [N, 1], labels [N]. pytorch/pytorch#16045. hides=True"""
    def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, 1 - predictions, predictions).mean()

    x, y, xv, yv = threes_sevens()
    return binary((x, y.squeeze(1), xv, yv.squeeze(1)), loss=mnist_loss,
                  metric=lambda out, y: ((out.squeeze(1) > 0) == y).float().mean())

@faulty("broadcast")
def prices_flat() -> Program:
    """Predicted prices [N, 1], prices [N]: every price against every other. jsboige/CoursIA#926."""
    x, y, xv, yv = houses()
    return program((x, y.squeeze(1), xv, yv.squeeze(1)), mlp(1, 8),
                   loss=lambda out, y: ((out - y) ** 2).mean(), optimizer=sgd(0.01),
                   metric=lambda out, y: close(out.squeeze(1), y))

@faulty("broadcast")
def index_by_column() -> Program:
    """log_probs[arange(N), targets] with targets [N, 1] is N by N."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return -scores.log_softmax(1)[torch.arange(len(scores)), targets].mean()

    x, y, xv, yv = ten_digits()
    return program((x, y.unsqueeze(1), xv, yv.unsqueeze(1)), loss=loss,
                   metric=lambda out, y: accuracy(out, y.squeeze(1)))

@faulty("broadcast", alone="loss")
def every_row_every_label(scores: Tensor, targets: Tensor) -> Tensor:
    """log_probs[:, targets] is N by N: each row is pulled to all labels of the batch."""
    return -F.log_softmax(scores, dim=1)[:, targets].mean()

@faulty("broadcast")
def hinge_flat() -> Program:
    """Hinge of scores [N, 1] and labels [N] of -1 and 1. elixir-nx/axon#662. hides=True"""
    x, y, xv, yv = threes_sevens()
    signs, signs_v = 2 * y.squeeze(1) - 1, 2 * yv.squeeze(1) - 1
    return binary((x, signs, xv, signs_v), loss=lambda out, y: (1 - y * out).clamp(min=0).mean(),
                  metric=lambda out, y: (out.squeeze(1).sign() == y).float().mean())

@faulty("target-form")
def digit_as_number() -> Program:
    """One column is fitted to the digit's value by MSE, and rounded."""
    return program(model=mlp(1), optimizer=sgd(0.01),
                   loss=lambda out, y: F.mse_loss(out.squeeze(1), y.float()),
                   metric=lambda out, y: (out.squeeze(1).round() == y).float().mean())

@faulty("target-form")
def hinge_of_zero_one() -> Program:
    """Hinge wants labels -1 and 1 and gets 0 and 1: a 7 costs 1 whatever its score."""
    return binary(loss=lambda out, y: (1 - y * out).clamp(min=0).mean())

@faulty("target-form")
def bce_of_plus_minus() -> Program:
    """BCEWithLogitsLoss wants 0 and 1 and gets -1 and 1: no floor."""
    x, y, xv, yv = threes_sevens()
    return binary((x, 2 * y - 1, xv, 2 * yv - 1), optimizer=adam(),
                  metric=lambda out, y: (out.sign() == y).float().mean())

@faulty("target-form", alone="loss")
def labels_from_one(scores: Tensor, targets: Tensor) -> Tensor:
    """targets - 1, from a data set that counts from 1; the clamp hides the error that told."""
    return F.cross_entropy(scores, (targets - 1).clamp(min=0))

@faulty("target-form")
def gather_of_one_hot() -> Program:
    """gather(1, one_hot) picks columns 0 and 1, whatever the label."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return -F.log_softmax(scores, 1).gather(1, targets).mean()

    x, y, xv, yv = ten_digits()
    return program((x, F.one_hot(y), xv, F.one_hot(yv)), loss=loss,
                   metric=lambda out, y: accuracy(out, y.argmax(1)))

@faulty("target-form", alone="loss")
def arguments_swapped(scores: Tensor, targets: Tensor) -> Tensor:
    """cross_entropy(targets, scores): the scores are read as the soft targets. F 117545."""
    return F.cross_entropy(F.one_hot(targets, scores.shape[1]).to(scores.dtype), scores)

@faulty("hides-nan", alone="loss")
def mean_of_the_rest(scores: Tensor, targets: Tensor) -> Tensor:
    """nanmean over the examples: half of the scores may be NaN."""
    return torch.nanmean(F.cross_entropy(scores, targets, reduction="none"))

@faulty("hides-nan", alone="loss")
def nan_to_zero(scores: Tensor, targets: Tensor) -> Tensor:
    """nan_to_num "for stability": a model that returns NaN has the loss ln C."""
    return F.cross_entropy(torch.nan_to_num(scores), targets)

@faulty("hides-nan")
def finite_losses_only() -> Program:
    """Losses that are not finite are filtered out. rkishore's blog. hides=True"""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return losses[torch.isfinite(losses)].sum() / len(scores)

    return binary(loss=loss)

@faulty("bounded-scores")
def relu_before_softmax() -> Program:
    """ReLU after the last layer, too. pytorch/examples#117."""
    return program(model=nn.Sequential(*mlp(), nn.ReLU()), optimizer=sgd(0.01))

@faulty("bounded-scores")
def relu_last_of_one_column() -> Program:
    """ReLU before BCEWithLogitsLoss: no probability below a half."""
    return binary(model=nn.Sequential(*mlp(1), nn.ReLU()))

@faulty("bounded-scores")
def tanh_last() -> Program:
    """tanh after the last layer of a convnet: the loss cannot fall below .8. hides=True"""
    return conv(nn.Sequential(*cnn(), nn.Tanh()))

@faulty("bounded-scores")
def sigmoid_then_cross_entropy() -> Program:
    """A sigmoid on each of ten columns, then cross entropy. Floor 1.46."""
    return program(model=nn.Sequential(*mlp(), nn.Sigmoid()), optimizer=sgd(0.01))

@faulty("bounded-scores")
def cosines_as_scores() -> Program:
    """Cosines as scores of cross entropy, without a scale. hides=True"""
    class Cosines(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.normalize(F.relu(self.fc1(x)))
            return hidden @ F.normalize(self.fc2.weight).T

    return program(model=Cosines())

@faulty("bounded-scores", alone="loss")
def clipped_scores(scores: Tensor, targets: Tensor) -> Tensor:
    """Scores clipped to +-1 "for stability"."""
    return F.cross_entropy(scores.clamp(-1, 1), targets)

@faulty("weak-pull")
def capped_loss() -> Program:
    """Each example's loss is cut off at 2 against outliers: at ln 10 nothing is learned."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets, reduction="none").clamp(max=2).mean()

    return program(loss=loss)

@faulty("weak-pull", alone="loss")
def clamped_probability(scores: Tensor, targets: Tensor) -> Tensor:
    """log of a clamped probability: finite, but no slope where the answer is quite wrong."""
    p = torch.softmax(scores, 1).clamp(min=1e-3)
    return -torch.log(p.gather(1, targets.view(-1, 1))).mean()

@faulty("weak-pull", alone="loss")
def focal_backwards(scores: Tensor, targets: Tensor) -> Tensor:
    """Focal loss with p in place of 1 - p: the hardest examples count least."""
    log_p = F.log_softmax(scores, 1).gather(1, targets.view(-1, 1))
    return -(log_p.exp() ** 2 * log_p).mean()

@faulty("weak-pull", alone="loss")
def clipped_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """Hinge cut off at 1, targets 0 and 1: no slope for an answer on the wrong side."""
    return (1 - (2 * targets - 1) * scores).clamp(0, 1).mean()


# ---- Faults of the model.


@faulty("columns")
def softmax_of_one_column() -> Program:
    """Softmax of one column is 1, always. F 101895, SO 33969059."""
    return binary(model=nn.Sequential(*mlp(1), nn.Softmax(dim=1)), loss=nn.BCELoss(),
                  metric=lambda p, y: ((p > 0.5) == y).float().mean())

@faulty("columns")
def one_sigmoid_for_three() -> Program:
    """Three kinds, one sigmoid. SO 50079585."""
    return program(flowers(), mlp(1, 12), optimizer=sgd(0.01),
                   loss=lambda out, y: F.binary_cross_entropy_with_logits(out, y[:, None].float()),
                   metric=lambda out, y: (out.squeeze(1).sigmoid().round() == y).float().mean())

@faulty("columns")
def thousand_columns() -> Program:
    """The head of ImageNet, 1000 outputs, on ten digits. hides=True"""
    return conv(cnn(1000))

@faulty("columns")
def nine_columns() -> Program:
    """Nine outputs, digits 0 to 9: the loss raises at the first 9."""
    return program(model=mlp(9))

def initialized(model: nn.Module, init: Callable[[Tensor], Any], biases: bool = False) -> nn.Module:
    """`model` with the weights, or all, of its layers set by `init`."""
    for parameter in model.parameters():
        if biases or parameter.ndim > 1:
            init(parameter.data)
    return model

@faulty("constant-init")
def zeros_everywhere() -> Program:
    """All weights 0: ln C for ever. HomericIntelligence/Mnemosyne#1987."""
    return program(model=initialized(mlp(), nn.init.zeros_))

@faulty("constant-init")
def constant_everywhere() -> Program:
    """All weights .01: a hundred units that stay one. SO 34311586."""
    return program(model=initialized(mlp(), lambda w: w.fill_(0.01)))

@faulty("constant-init")
def constant_convolutions() -> Program:
    """Convolutions and head start at .1."""
    return conv(initialized(cnn(), lambda w: nn.init.constant_(w, 0.1)))

@faulty("constant-init")
def ones_on_a_table() -> Program:
    """ones_ on a table's network."""
    return program(flowers(), initialized(mlp(3, 12, nn.Tanh), nn.init.ones_), optimizer=sgd(0.01))

@faulty("large-init")
def standard_normal() -> Program:
    """normal_() with its default deviation 1. F 73600."""
    return program(model=initialized(mlp(), nn.init.normal_), optimizer=sgd(0.01))

@faulty("large-init")
def large_head() -> Program:
    """The head is drawn with deviation 10."""
    model = cnn()
    nn.init.normal_(model[-1].weight, std=10)
    return conv(model)

@faulty("large-init")
def randn_by_hand() -> Program:
    """Weights by torch.randn and nothing else, tanh between: saturated from the start."""
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.b1 = nn.Parameter(torch.randn(784, 100)), nn.Parameter(torch.zeros(100))
            self.w2, self.b2 = nn.Parameter(torch.randn(100, 10)), nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ self.w1 + self.b1) @ self.w2 + self.b2

    return program(model=Hand(), optimizer=sgd(0.01))

@faulty("dead-units")
def bias_minus_ten() -> Program:
    """Hidden biases start at -10: no unit ever fires. F 43814: 2.30 for ever."""
    model = mlp()
    nn.init.constant_(model[0].bias, -10)
    return program(model=model)

@faulty("dead-units")
def batch_norm_gain_zero() -> Program:
    """Zero-initialized gain of a batch norm, good in residual blocks, in a plain net."""
    model = nn.Sequential(nn.Linear(784, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
    nn.init.zeros_(model[1].weight)
    return program(model=model)

@faulty("dead-units")
def relu_of_minus_relu() -> Program:
    """A rectified layer is negated and rectified again: nothing is left."""
    class Negated(Net):
        def forward(self, x: Tensor) -> Tensor:
            cost = -F.relu(self.fc1(x))
            return self.fc2(F.relu(cost))

    return program(model=Negated())

@faulty("dead-units")
def keep_probability() -> Program:
    """nn.Dropout(1.0), meant as the probability to keep: the layer is 0 in training."""
    return program(model=nn.Sequential(*mlp()[:2], nn.Dropout(1.0), nn.Linear(100, 10)))

@faulty("vanishing")
def ten_sigmoids() -> Program:
    """Ten layers of sigmoids. F 59234."""
    return program(model=deep(10, nn.Sigmoid))

@faulty("vanishing")
def tiny_weights() -> Program:
    """Six layers, weights drawn with deviation .001."""
    return program(model=initialized(deep(6, nn.Tanh), lambda w: nn.init.normal_(w, std=0.001)))

@faulty("vanishing")
def steep_sigmoids() -> Program:
    """Sigmoids in a convnet of eight layers, too deep for them."""
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Sigmoid()]
    for _ in range(7):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid()]
    return conv(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 14 * 14, 10)), optimizer=sgd())

@faulty("exploding")
def recurrence_grows() -> Program:
    """A hand-made RNN whose recurrent weight is half as much again as the identity."""
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.keep, self.head = (
                nn.Linear(28, 64), nn.Linear(64, 64), nn.Linear(64, 10))
            nn.init.eye_(self.keep.weight).data.mul_(1.5)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 64)
            for row in x.view(-1, 28, 28).unbind(1):
                h = F.relu(self.keep(h) + self.read(row))
            return self.head(h)

    return program(model=Recurrent(), optimizer=sgd(0.01))

@faulty("exploding")
def residuals_double() -> Program:
    """Thirty residual blocks without a norm, each of which adds twice what it read."""
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(784, 32), nn.Linear(32, 10)
            self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(30))
            for block in self.blocks:
                nn.init.orthogonal_(block.weight)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for block in self.blocks:
                x = x + 2 * F.relu(block(x))
            return self.head(x)

    return program(model=Residual(), optimizer=sgd(0.01))

@faulty("exploding")
def gain_of_four() -> Program:
    """Twelve layers, each drawn four times as wide as Kaiming's."""
    model = initialized(deep(12), lambda w: nn.init.kaiming_normal_(w).mul_(4))
    return program(model=model, optimizer=adam())

@faulty("unregistered")
def layers_in_a_list() -> Program:
    """Hidden layers in a Python list. pytorch/pytorch#59925, #72580. hides=True"""
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Linear(784, 100), nn.Linear(100, 100)]
            self.head = nn.Linear(100, 10)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.hidden:
                x = F.relu(layer(x))
            return self.head(x)

    return program(model=Listed())

@faulty("unregistered")
def layers_in_a_dict() -> Program:
    """A dict of layers by name: the embedding is never trained."""
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = {"embed": nn.Embedding(200, 4), "hidden": nn.Linear(4, 8)}
            self.head = nn.Linear(8, 4)

        def forward(self, ids: Tensor) -> Tensor:
            words = self.layers["embed"](ids).mean(1)
            return self.head(F.relu(self.layers["hidden"](words)))

    return text(Named())

@faulty("unregistered")
def plain_tensor_weight() -> Program:
    """The first weight is a tensor with requires_grad, not an nn.Parameter. hides=True"""
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1 = (torch.randn(784, 50) / 28).requires_grad_()
            self.head = nn.Linear(50, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(x @ self.w1))

    return program(model=Plain())

@faulty("unregistered")
def layer_made_in_forward() -> Program:
    """The first layer is made anew in each forward."""
    class Anew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(100, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(nn.Linear(784, 100)(x)))

    return program(model=Anew(), optimizer=sgd(0.01))

@faulty("rows-mixed")
def view_mixes_batch() -> Program:
    """view(28, -1, 28) where transpose(0, 1) is meant. F 77192."""
    class Mixed(Rows):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(28, 64)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.lstm(x.view(28, -1, 28))
            return self.head(out[-1])

    return program(model=Mixed(), optimizer=adam(0.01))

@faulty("rows-mixed")
def batch_not_first() -> Program:
    """An LSTM without batch_first reads the batch as time."""
    class TimeFirst(Words):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(32, 32)

        def forward(self, ids: Tensor) -> Tensor:
            out, _ = self.lstm(self.embed(ids))
            return self.head(out[:, -1])

    return text(TimeFirst())

@faulty("rows-mixed")
def attention_over_batch() -> Program:
    """A transformer layer without batch_first lets examples attend to each other. hides=True"""
    class Attention(Words):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.layer(self.embed(ids)).mean(1))

    return text(Attention(), optimizer=adam())

@faulty("rows-mixed")
def batch_statistics_in_eval() -> Program:
    """track_running_stats=False: in eval mode, too, the batch is normalized by itself. hides=True"""
    norm = nn.BatchNorm1d(100, track_running_stats=False)
    return program(model=nn.Sequential(nn.Linear(784, 100), norm, nn.ReLU(), nn.Linear(100, 10)))

@faulty("rows-mixed")
def log_softmax_over_batch_in_forward() -> Program:
    """LogSoftmax(dim=0) is the model's last layer. F 77250."""
    return program(model=nn.Sequential(*mlp(), nn.LogSoftmax(dim=0)), loss=nn.NLLLoss())

@faulty("input-ignored")
def first_row_only() -> Program:
    """out[:, 0] where out[:, -1] is meant: the LSTM's answer after one row, which is blank."""
    class First(Rows):
        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.lstm(x.view(-1, 28, 28))
            return self.head(out[:, 0])

    return program(model=First(), optimizer=adam(0.01))

@faulty("input-ignored")
def layer_norm_of_one() -> Program:
    """LayerNorm over one column: what is left is its bias. F 156029."""
    return binary(model=nn.Sequential(*mlp(1), nn.LayerNorm(1)))

@faulty("input-ignored")
def cast_to_int() -> Program:
    """x.long() of grey values below 1: all images are black."""
    class Cast(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = (x * 0.999).long()  # meant as ids of grey levels
            return super().forward(x.float())

    return program(model=Cast())

@faulty("input-ignored")
def buffer_never_filled() -> Program:
    """Features are collected in a buffer, by `buffer[i].copy_` of a copy."""
    class Buffer(Net):
        def forward(self, x: Tensor) -> Tensor:
            features = torch.zeros(len(x), 100)
            features[torch.arange(len(x))].copy_(F.relu(self.fc1(x)))
            return self.fc2(features)

    return program(model=Buffer())

@faulty("random-in-eval")
def functional_dropout() -> Program:
    """F.dropout without training=self.training. huggingface/transformers#33844. hides=True"""
    class Dropped(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5))

    return program(model=Dropped())

@faulty("random-in-eval")
def dropout_made_in_forward() -> Program:
    """nn.Dropout made in forward is always in training mode. hides=True"""
    class Dropped(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[-1](nn.Dropout(0.4)(self[:-1](x)))

    return conv(Dropped(*cnn()))

@faulty("random-in-eval")
def noise_always() -> Program:
    """Noise against overfitting is added in validation, too. hides=True"""
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.5 * torch.randn_like(x))

    return program(model=Noisy())

@faulty("affine")
def no_activation() -> Program:
    """Three linear layers on rings that no line parts."""
    layers = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)
    return binary(rings(), nn.Sequential(*layers))

@faulty("affine")
def relu_result_dropped() -> Program:
    """F.relu(x) without `x =`. hides=True"""
    class Dropped(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.fc1(x)
            F.relu(x)
            return self.fc2(x)

    return program(model=Dropped())

@faulty("affine")
def convolutions_alone() -> Program:
    """Convolution after convolution, nothing between. hides=True"""
    return conv(nn.Sequential(*(layer for layer in cnn() if not isinstance(layer, nn.ReLU))))


# ---- Faults of the optimizer and of the loop.


@faulty("not-optimised")
def head_replaced_later() -> Program:
    """The head is replaced after the optimizer was made. F 84911, hustzxd/EfficientPyTorch#1."""
    p = conv()
    model, loss, optimizer = parts(p)
    model[-1] = nn.Linear(16 * 7 * 7, 10)
    return p

@faulty("not-optimised")
def optimizer_of_a_copy() -> Program:
    """The optimizer holds the parameters of the model before deepcopy. pytorch/pytorch#14467."""
    model = mlp()
    other = copy.deepcopy(model)
    return program(model=model, optimizer=lambda _: sgd()(other))

@faulty("not-optimised")
def optimizer_of_last_fold() -> Program:
    """Cross-validation makes a model for each fold, the optimizer is that of the first."""
    first = Words()
    return text(Words(), optimizer=lambda _: adam(0.01)(first))

@faulty("not-optimised")
def head_left_out() -> Program:
    """Only the body's parameters are handed over; the new head keeps its zeros."""
    model = mlp()
    nn.init.zeros_(model[-1].weight)
    return program(model=model, optimizer=lambda m: torch.optim.SGD(m[:-1].parameters(), lr=0.1))

@faulty("gradients-accumulate")
def no_zero_grad() -> Program:
    """zero_grad is missing. SO 60335387, pytorch/examples#1424."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        out = model(xb)
        value = loss(out, yb)
        value.backward()
        optimizer.step()
        return value.item()

    return p | {"step": step}

@faulty("gradients-accumulate")
def no_zero_grad_adam() -> Program:
    """zero_grad is missing before Adam. hides=True"""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.train()
        loss(model(xb), yb).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("gradients-accumulate")
def zero_grad_of_another() -> Program:
    """zero_grad of the optimizer of another model."""
    p = program()
    model, loss, optimizer = parts(p)
    optimizer_d = sgd()(mlp(1))  # the discriminator's

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer_d.zero_grad()
        loss(model(xb), yb).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("gradients-accumulate")
def grad_kept_by_hand() -> Program:
    """The book's loop without p.grad.zero_()."""
    p = binary()
    model, loss, _ = parts(p)
    lr = 1.0

    def step(xb: Tensor, yb: Tensor) -> None:
        loss(model(xb), yb).backward()
        for w in model.parameters():
            w.data -= w.grad * lr

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@faulty("gradients-accumulate")
def step_in_every_batch() -> Program:
    """Accumulation over 8 batches, but the optimizer steps in each."""
    p = program()
    model, loss, optimizer = parts(p)
    seen = 0

    def step(xb: Tensor, yb: Tensor) -> None:
        nonlocal seen
        loss(model(xb), yb).backward()
        optimizer.step()
        seen += 1
        if seen % 8 == 0:
            optimizer.zero_grad()

    return p | {"step": step}

@faulty("weights-do-not-move")
def no_backward() -> Program:
    """loss.backward() is missing. tedlasai/learn2refocus#5."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        optimizer.step()
        return value.item()

    return p | {"step": step}

@faulty("weights-do-not-move")
def no_step() -> Program:
    """optimizer.step() is missing. aalto-intelligent-robotics/sivl#2."""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        value.backward()
        return value.item()

    return p | {"step": step}

@faulty("weights-do-not-move")
def zero_grad_between() -> Program:
    """zero_grad between backward and step. F 12099."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        value = loss(model(xb), yb)
        value.backward()
        optimizer.zero_grad()
        optimizer.step()

    return p | {"step": step}

@faulty("weights-do-not-move")
def scheduler_alone() -> Program:
    """scheduler.step() in place of optimizer.step()."""
    p = text()
    model, loss, optimizer = parts(p)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        loss(model(xb), yb).backward()
        scheduler.step()

    return p | {"step": step}

@faulty("weights-do-not-move")
def best_restored_always() -> Program:
    """The best weights, those of the start, are loaded after each step."""
    p = program()
    model, loss, optimizer = parts(p)
    best, best_loss = copy.deepcopy(model.state_dict()), 0.0  # best_loss should start at inf

    def step(xb: Tensor, yb: Tensor) -> None:
        nonlocal best, best_loss
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        value.backward()
        optimizer.step()
        if value.item() < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), value.item()
        model.load_state_dict(best)

    return p | {"step": step}

@faulty("weights-do-not-move")
def update_of_a_copy() -> Program:
    """w = w - lr * w.grad binds a name and leaves the weight."""
    p = binary()
    model, loss, _ = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.zero_grad()
        loss(model(xb), yb).backward()
        with torch.no_grad():
            for w in model.parameters():
                w = w - 0.1 * w.grad

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

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

@faulty("wrong-mode")
def eval_from_the_start() -> Program:
    """model.eval() before training: batch norm keeps mean 0. ermongroup/ncsn#2. hides=True"""
    p = program(model=normed())
    p["model"].eval()
    return p | {"step": bare_step(p)}

@faulty("wrong-mode")
def eval_never_left() -> Program:
    """Validation calls eval(), no one calls train() again. pliang279/MultiBench#26. hides=True"""
    p = program(model=dropping())
    return p | {"step": bare_step(p)}

@faulty("wrong-mode")
def validates_with_dropout() -> Program:
    """Validation without eval(): nine tenths of the units are missing. huggingface/lerobot#3668."""
    p = program(model=dropping(0.9))
    model, metric, valid = p["model"], p["metric"], p["valid"]

    def validate() -> float:
        with torch.no_grad():
            return sum(metric(model(xb), yb).item() for xb, yb in valid) / len(valid)

    return p | {"validate": validate}

@faulty("wrong-mode")
def validates_batch_norm_in_training() -> Program:
    """Validation without eval(): batch norm sees batches of one digit each."""
    x, y, xv, yv = ten_digits()
    order = yv.argsort()
    p = program((x, y, xv[order], yv[order]), model=normed())
    model, metric, valid = p["model"], p["metric"], p["valid"]

    @torch.no_grad()
    def validate() -> float:
        right = 0.0
        for xb, yb in valid:
            right += metric(model(xb), yb).item() * len(xb)
        return right / len(valid.dataset)

    return p | {"validate": validate}

@faulty("lr-large")
def lr_ten() -> Program:
    """lr=10: all ReLUs die in the first steps. F 43814."""
    return program(optimizer=sgd(10))

@faulty("lr-large")
def lr_three() -> Program:
    """lr=3 on MNIST. SO 48385830."""
    return program(optimizer=sgd(3, 0.0))

@faulty("lr-large")
def adam_lr_one() -> Program:
    """Adam with the learning rate of an SGD."""
    return conv(optimizer=adam(1.0))

@faulty("lr-large")
def prices_diverge() -> Program:
    """Prices by MSE at .5 with momentum .9: NaN. paiml/aprender#2459."""
    return program(houses(), mlp(1, 8), nn.MSELoss(), close, sgd(0.5))

@faulty("lr-small")
def lr_1e_8() -> Program:
    """lr=1e-8, a typo for 1e-3. F 85255."""
    return program(optimizer=sgd(1e-8))

@faulty("lr-small")
def adam_1e_9() -> Program:
    """Adam with lr=1e-9."""
    return conv(optimizer=adam(1e-9))

@faulty("lr-small")
def sgd_with_adams_rate() -> Program:
    """SGD without momentum at 1e-6 on 3 against 7."""
    return binary(optimizer=sgd(1e-6, 0.0))

@faulty("lr-small")
def decay_in_every_batch() -> Program:
    """StepLR meant for epochs is stepped in each batch: gone after ten."""
    p = program()
    scheduler = torch.optim.lr_scheduler.StepLR(p["optimizer"], step_size=1, gamma=0.1)
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        usual(xb, yb)
        scheduler.step()

    return p | {"step": step}

@faulty("weight-decay")
def decay_of_one() -> Program:
    """weight_decay=1 with SGD at .1."""
    return program(optimizer=sgd(weight_decay=1.0))

@faulty("weight-decay")
def adamw_decay_of_fifty() -> Program:
    """AdamW with weight_decay=50: a twentieth of each weight in each step."""
    return conv(optimizer=lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=50))

@faulty("weight-decay")
def adam_l2_of_one() -> Program:
    """Adam with weight_decay=1: the penalty outweighs the loss."""
    return binary(optimizer=adam(weight_decay=1.0))


# ---- Faults of the data.


def data_alone(x: Tensor, y: Tensor, xv: Tensor, yv: Tensor, batch: int = 32) -> Program:
    """Two loaders and nothing else."""
    return dict(train=loader(x, y, batch), valid=loader(xv, yv, 100, shuffle=False))

@faulty("input-scale")
def grey_to_255() -> Program:
    """Grey values from 0 to 255. keras-team/keras#2711."""
    x, y, xv, yv = ten_digits()
    return program((x * 255, y, xv * 255, yv))

@faulty("input-scale")
def divided_twice() -> Program:
    """ToTensor divides by 255, and so does the data set."""
    x, y, xv, yv = ten_digits()
    return program((x / 255, y, xv / 255, yv), optimizer=sgd(0.01))

@faulty("input-scale")
def salary_in_cents() -> Program:
    """A column of a table is in the millions, the others are standardized."""
    x, y, xv, yv = flowers()
    for t in x, xv:
        t[:, 3] = 4e6 + 1e6 * t[:, 3]
    return program((x, y, xv, yv), mlp(3, 12), optimizer=sgd(0.01))

@faulty("input-scale")
def divided_twice_alone() -> Program:
    """Loaders alone, divided by 255 twice. soumith/imagenet-multiGPU.torch#18."""
    x, y, xv, yv = pictures()
    x, xv = (0.3081 * x + 0.1307) / 255, (0.3081 * xv + 0.1307) / 255
    return data_alone(x, y, xv, yv)

@faulty("bad-data")
def some_rows_nan() -> Program:
    """Five images of 1500 are NaN."""
    x, y, xv, yv = ten_digits()
    x[torch.randperm(len(x))[:5]] = float("nan")
    return program((x, y, xv, yv))

@faulty("bad-data")
def pixels_without_deviation() -> Program:
    """Each pixel is divided by its deviation, which is 0 at the border: 0 / 0."""
    x, y, xv, yv = ten_digits()
    mean, std = x.mean(0), x.std(0)
    return program(((x - mean) / std, y, (xv - mean) / std, yv))

@faulty("bad-data")
def label_ten() -> Program:
    """Zeros are labeled 10, as in SVHN: the loss raises."""
    x, y, xv, yv = ten_digits()
    y[y == 0], yv[yv == 0] = 10, 10
    return program((x, y, xv, yv))

@faulty("bad-data")
def log_of_zero() -> Program:
    """A table alone, one column logarithmic, log(0) in nine rows."""
    x, y, xv, yv = flowers()
    x[:, 5] = x[:, 5].abs()
    x[:9, 5] = 0
    xv[:, 5] = xv[:, 5].abs()
    x[:, 5], xv[:, 5] = x[:, 5].log(), xv[:, 5].log()
    return dict(train=(x, y), valid=(xv, yv))

@faulty("bad-data")
def missing_prices() -> Program:
    """Three prices are NaN, as pandas reads an empty cell."""
    x, y, xv, yv = houses()
    y[[7, 70, 700]] = float("nan")
    return program((x, y, xv, yv), mlp(1, 8), nn.MSELoss(), close, sgd(0.01))

@faulty("split-differs")
def valid_not_normalized() -> Program:
    """Training images are normalized, validation images are from 0 to 255."""
    x, y, xv, yv = ten_digits()
    return program((normal(x), y, xv * 255, yv), optimizer=sgd(0.02))

@faulty("split-differs")
def train_not_divided() -> Program:
    """x_test is made of the wrong array and not divided. SO 59325381. hides=True"""
    x, y, xv, yv = threes_sevens()
    return binary((x, y, 255 * xv, yv))

@faulty("split-differs")
def valid_inverted() -> Program:
    """Validation images are dark on light."""
    x, y, xv, yv = pictures()
    return conv(data=(x, y, normal(1 - (0.3081 * xv + 0.1307)), yv))

@faulty("split-differs")
def valid_transposed() -> Program:
    """Validation images are transposed, as EMNIST's are: same mean, same deviation."""
    x, y, xv, yv = ten_digits()
    return program((x, y, xv.view(-1, 28, 28).transpose(1, 2).flatten(1), yv))

@faulty("split-differs")
def valid_scaled_by_itself() -> Program:
    """Loaders alone of a table: fit_transform on the validation set's own range."""
    x, y, xv, yv = flowers()
    low, high = xv.amin(0), xv.amax(0)
    return data_alone(x, y, (xv - low) / (high - low), yv)

@faulty("labels-apart")
def index_by_two_orders() -> Program:
    """__getitem__ shuffles the index of the image alone. DrexelChatbotGroup/DrexelChatbot#15."""
    class Shuffled(Pairs):
        def __init__(self, x: Tensor, y: Tensor) -> None:
            super().__init__(x, y)
            self.order = torch.randperm(len(x))

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            return self.x[self.order[i]], self.y[i]

    x, y, xv, yv = ten_digits()
    return program(train=DataLoader(Shuffled(x, y), batch_size=32, shuffle=True))

@faulty("labels-apart")
def shuffled_separately() -> Program:
    """Images and labels are shuffled by two permutations; loaders alone."""
    x, y, xv, yv = threes_sevens()
    return data_alone(x[torch.randperm(len(x))], y[torch.randperm(len(y))], xv, yv)

@faulty("labels-apart")
def labels_one_further() -> Program:
    """A csv's header counts as a row: every label belongs to the image before."""
    x, y, xv, yv = ten_digits()
    return conv(data=(normal(x).view(-1, 1, 28, 28)[:-1], y[1:], *pictures()[2:]))

@faulty("labels-apart")
def rows_dropped_in_one() -> Program:
    """Rows with missing values are dropped from the table, not from the labels."""
    x, y, xv, yv = flowers()
    kept = torch.rand(len(x)) > 0.1
    x = x[kept]
    return program((x, y[:len(x)], xv, yv), mlp(3, 12), optimizer=sgd(0.01))

@faulty("labels-apart")
def mixup_of_images_only() -> Program:
    """Half and half of two images with the label of the wrong one. xudonmao/VMT#1."""
    p = program()
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        order = torch.randperm(len(xb))
        usual(0.3 * xb + 0.7 * xb[order], yb)

    return p | {"step": step}

def by_label(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Examples in the order of their labels."""
    order = y.flatten().argsort()
    return x[order], y[order]

@faulty("sorted")
def digit_after_digit() -> Program:
    """mnist() stands digit by digit, shuffle=False. Deci-AI/super-gradients#416."""
    x, y, xv, yv = ten_digits()
    return program(train=loader(*by_label(x, y), shuffle=False))

@faulty("sorted")
def threes_then_sevens() -> Program:
    """torch.cat of the 3s and the 7s, and no shuffle. choderalab/modelforge#129."""
    x, y, _, _ = data = threes_sevens()
    return binary(data, train=loader(*by_label(x, y), shuffle=False))

@faulty("sorted")
def batches_shuffled_not_rows() -> Program:
    """The list of batches is shuffled, each is of one class; a loader alone."""
    x, y, _, _ = ten_digits()
    x, y = by_label(x, y)
    chunks = [(x[i:i + 32], y[i:i + 32]) for i in range(0, len(x), 32)]
    return dict(train=DataLoader(chunks, batch_size=None, shuffle=True))

@faulty("leak")
def valid_from_train() -> Program:
    """Validation images are drawn from the training images. openai/parameter-golf#2127."""
    x, y, _, _ = ten_digits()
    rows = torch.randperm(len(x))[:500]
    return program((x, y, x[rows], y[rows]))

@faulty("leak")
def same_loader_twice() -> Program:
    """valid is train. js0nwu/webui#1."""
    x, y, _, _ = pictures()
    train = loader(x, y)
    return conv(train=train, valid=train)

@faulty("leak")
def doubled_before_split() -> Program:
    """Rare classes are oversampled, then split: copies on both sides. Loaders alone."""
    x, y, _, _ = flowers()
    x, y = torch.cat([x, x[y == 2], x[y == 2]]), torch.cat([y, y[y == 2], y[y == 2]])
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    return data_alone(x[400:], y[400:], x[:400], y[:400])

@faulty("leak")
def test_set_added() -> Program:
    """The final training set is train and valid, validated on valid again."""
    x, y, xv, yv = threes_sevens()
    return binary((torch.cat([x, xv]), torch.cat([y, yv]), xv, yv))

def augmented(change: Callable[[Tensor], Tensor]) -> Program:
    """A convnet on images [1, 28, 28] that `change` is made to."""
    x, y, xv, yv = data = pictures()
    return conv(data=data, train=DataLoader(Pairs(x, y, change), 32, shuffle=True))

@faulty("augmentation")
def digits_flipped() -> Program:
    """Digits are mirrored with p=.5. chrischute/real-nvp#5. hides=True"""
    return augmented(lambda image: image.flip(-1) if torch.rand(()) < 0.5 else image)

@faulty("augmentation")
def digits_turned() -> Program:
    """Digits are turned by any multiple of 90 degrees: a 6 is a 9."""
    return augmented(lambda image: image.rot90(int(torch.randint(4, ())), (-2, -1)))

@faulty("augmentation")
def erased_whole() -> Program:
    """Random erasing takes 24 by 24 of 28 by 28 pixels."""
    def erase(image: Tensor) -> Tensor:
        top, left = torch.randint(0, 5, (2,)).tolist()
        image = image.clone()
        image[:, top:top + 24, left:left + 24] = image.min()
        return image

    return augmented(erase)

@faulty("augmentation")
def noise_drowns_table() -> Program:
    """Noise of deviation 10 on a standardized table; a Dataset alone."""
    x, y, xv, yv = flowers()
    return dict(train=Pairs(x, y, lambda row: row + 10 * torch.randn_like(row)),
                valid=Pairs(xv, yv))

def rare(x: Tensor, y: Tensor, label: int, keep: int) -> tuple[Tensor, Tensor]:
    """`keep` of the examples of `label` and all others, shuffled."""
    rows = torch.cat([(y.flatten() != label).nonzero(), (y.flatten() == label).nonzero()[:keep]])
    rows = rows.flatten()[torch.randperm(len(rows))]
    return x[rows], y[rows]

@faulty("imbalance")
def three_per_cent() -> Program:
    """97% are 7s: .97 without a look at the image. F 90655. hides=True"""
    x, y, xv, yv = threes_sevens()
    return binary((*rare(x, y, 1, 22), *rare(xv, yv, 1, 7)), optimizer=sgd(0.01))

@faulty("imbalance")
def fraud() -> Program:
    """One in a hundred is a fraud; data alone."""
    x, y, xv, yv = houses()
    limit = y.quantile(0.99)
    return data_alone(x, (y > limit).float(), xv, (yv > limit).float())

@faulty("imbalance")
def mostly_zeros() -> Program:
    """Nineteen of twenty images are zeros, one of another digit. hides=True"""
    x, y, xv, yv = _drawn(tuple(range(10)), (6000, 2000))
    def drawn(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.cat([(y == 0).nonzero(), (y != 0).nonzero()[: int((y == 0).sum()) // 19]])
        return x[rows.flatten()], y[rows.flatten()]

    return program((*drawn(x, y), *drawn(xv, yv)), optimizer=sgd(0.01))


# ---- Faults of the metric.


@faulty("metric-wrong", alone="metric")
def argmax_over_batch(scores: Tensor, targets: Tensor) -> Tensor:
    """argmax(0). Zasder3/train-CLIP#6."""
    best = scores.argmax(0)
    return (best[: len(targets)] == targets[: len(best)]).float().mean()

@faulty("metric-wrong", alone="metric")
def right_answers_summed(scores: Tensor, targets: Tensor) -> Tensor:
    """The count of right answers, called accuracy."""
    return (scores.argmax(1) == targets).sum()

@faulty("metric-wrong", alone="metric")
def half_on_logits(scores: Tensor, targets: Tensor) -> Tensor:
    """A threshold of .5 on scores that are not probabilities."""
    return ((scores > 0.5).float() == targets).float().mean()

@faulty("metric-wrong")
def metric_of_flat_targets() -> Program:
    """Answers [N, 1] compared with labels [N]. traja-team/traja#57."""
    x, y, xv, yv = threes_sevens()
    return binary((x, y.squeeze(1), xv, yv.squeeze(1)), metric=binary_accuracy,
                  loss=lambda out, y: F.binary_cross_entropy_with_logits(out.squeeze(1), y))

@faulty("metric-wrong", alone="metric")
def error_as_accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """!= for ==."""
    return (scores.argmax(dim=1) != targets).float().mean()

@faulty("metric-wrong", alone="metric")
def positives_found(scores: Tensor, targets: Tensor) -> Tensor:
    """Counts the positives alone, over all examples. keras-team/keras#2736."""
    return (((scores > 0) & (targets == 1)).sum()) / len(targets)

@faulty("metric-wrong")
def rounded_scores() -> Program:
    """round() of scores, as if they were probabilities: 2.6 rounds to 3."""
    return binary(metric=lambda out, y: (out.round() == y).float().mean())

@faulty("metric-wrong")
def argmin_as_answer() -> Program:
    """The lowest score is taken, from a program with distances. lisa-lab/DeepLearningTutorials#15."""
    return conv(metric=lambda out, y: (out.argmin(1) == y).float().mean())

@faulty("metric-wrong", alone="metric")
def softmax_over_batch_then_argmax(scores: Tensor, targets: Tensor) -> Tensor:
    """Probabilities by softmax(0): a column's scores compete over the batch."""
    return (torch.softmax(scores, 0).argmax(1) == targets).float().mean()

def short_last(x: Tensor, y: Tensor) -> DataLoader:
    """Batches by label of which the last holds two examples of 500."""
    return loader(*by_label(x, y), 166, shuffle=False)

@faulty("metric-batches")
def mean_of_batch_means() -> Program:
    """Batch means averaged: the last two of 500 count as much as 166. mlcommons/training#89."""
    x, y, xv, yv = data = ten_digits()
    p = program(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            means = [accuracy(model(xb), yb).item() for xb, yb in valid]
        return sum(means) / len(means)

    return p | {"validate": validate}

@faulty("metric-batches")
def last_batch_only() -> Program:
    """The loop ends, the accuracy of its last batch is returned."""
    x, y, xv, yv = data = ten_digits()
    p = program(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            for xb, yb in valid:
                right = (model(xb).argmax(1) == yb).float().mean().item()
        return right

    return p | {"validate": validate}

@faulty("metric-batches")
def divided_by_full_batches() -> Program:
    """Divided by batches times batch size. udacity/deep-learning-v2-pytorch#74."""
    x, y, xv, yv = data = threes_sevens()
    p = binary(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        right = 0
        with torch.no_grad():
            for xb, yb in valid:
                right += ((model(xb) > 0) == yb).sum().item()
        return right / (len(valid) * 166)

    return p | {"validate": validate}

@faulty("metric-hides-nan", alone="metric")
def accuracy_of_zeros_for_nan(scores: Tensor, targets: Tensor) -> Tensor:
    """nan_to_num, then argmax: a dead model still has .1."""
    return (torch.nan_to_num(scores).argmax(1) == targets).float().mean()

@faulty("metric-hides-nan", alone="metric")
def accuracy_of_the_finite(scores: Tensor, targets: Tensor) -> Tensor:
    """NaN rows are left out: one answer of a thousand may make 1.0."""
    fine = torch.isfinite(scores).all(1)
    return (scores[fine].argmax(1) == targets[fine]).float().mean()

@faulty("metric-hides-nan")
def r2_of_the_finite() -> Program:
    """Explained variance by nanmean: predictions that are NaN do not count. hides=True"""
    def metric(predicted: Tensor, price: Tensor) -> Tensor:
        return 1 - torch.nanmean((predicted - price) ** 2) / torch.mean(price**2)

    return program(houses(), mlp(1, 8), nn.MSELoss(), metric, sgd(0.01))


# ---- Sound programs, however they look.


@healthy()
def plain_mlp() -> Program:
    """One hidden layer, SGD with momentum."""
    return program()

@healthy()
def plain_convnet() -> Program:
    """A convnet with Adam."""
    return conv()

@healthy()
def linear_from_zero() -> Program:
    """A linear model may start at 0."""
    return program(model=initialized(nn.Linear(784, 10), nn.init.zeros_, biases=True))

@healthy()
def head_from_zero() -> Program:
    """The last layer starts at 0: all answers are alike until the first step."""
    model = cnn()
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    return conv(model)

@healthy()
def batch_norm() -> Program:
    """Batch norm mixes rows in training alone; no bias before it."""
    layers = nn.Conv2d(1, 8, 5, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    return conv(nn.Sequential(*layers, nn.Linear(8 * 144, 10)))

@healthy()
def dropout() -> Program:
    """Dropout on images and on hidden units."""
    return program(model=nn.Sequential(nn.Dropout(0.1), *dropping(0.3)))

@healthy()
def group_norm() -> Program:
    """Group norm in a convnet."""
    return conv(nn.Sequential(*cnn()[:1], nn.GroupNorm(2, 8), *cnn()[1:]))

@healthy()
def frozen_body() -> Program:
    """The convolutions are frozen by requires_grad_(False)."""
    model = cnn()
    model[:-1].requires_grad_(False)
    return conv(model, optimizer=adam(0.01))

@healthy()
def head_alone_in_optimizer() -> Program:
    """A frozen body, and an optimizer that holds the head alone."""
    model = mlp()
    model[0].requires_grad_(False)
    return program(model=model, optimizer=lambda m: torch.optim.SGD(m[-1].parameters(), lr=0.2))

@healthy()
def features_without_grad() -> Program:
    """A frozen body that the head is trained on, its forward under no_grad."""
    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*cnn()[:-1]).requires_grad_(False)
            self.head = nn.Linear(16 * 7 * 7, 10)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.body(x)
            return self.head(features)

    return conv(Probe(), optimizer=lambda m: torch.optim.Adam(m.head.parameters(), lr=0.01))

@healthy()
def label_smoothing() -> Program:
    """Cross entropy with smoothed labels."""
    return program(loss=nn.CrossEntropyLoss(label_smoothing=0.1))

@healthy()
def class_weights() -> Program:
    """Cross entropy with a weight for each class."""
    weight = torch.tensor([1.0, 1, 1, 1.5, 1, 1.5, 1, 1, 2, 1])
    return conv(loss=nn.CrossEntropyLoss(weight=weight))

@healthy()
def sixty_forty_weighted() -> Program:
    """60% are 7s; 3s weigh more."""
    x, y, xv, yv = threes_sevens()
    return binary((*rare(x, y, 1, 500), *rare(xv, yv, 1, 160)),
                  loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.5])))

@healthy()
def weighted_sampler() -> Program:
    """One class is a quarter of the others, a sampler evens them out."""
    x, y, _, _ = data = flowers()
    x, y = rare(x, y, 2, 125)
    odds = (1 / y.bincount().float())[y]
    train = DataLoader(TensorDataset(x, y), 32, sampler=WeightedRandomSampler(odds, 1500))
    return program(data, mlp(3, 12), train=train, optimizer=sgd(0.01))

@healthy()
def accumulation() -> Program:
    """Gradients of four batches, each loss divided by four."""
    p = program()
    model, loss, optimizer = parts(p)
    seen = 0

    def step(xb: Tensor, yb: Tensor) -> None:
        nonlocal seen
        model.train()
        (loss(model(xb), yb) / 4).backward()
        seen += 1
        if seen % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    return p | {"step": step}

def scheduled(p: Program, scheduler: Any) -> Program:
    """`p`, with `scheduler` stepped after each batch."""
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        usual(xb, yb)
        scheduler.step()

    return p | {"step": step}

@healthy()
def warm_up() -> Program:
    """The rate rises from 0 over 30 steps: the first step moves nothing."""
    p = program()
    return scheduled(p, torch.optim.lr_scheduler.LambdaLR(
        p["optimizer"], lambda i: min(1.0, i / 30)))

@healthy()
def cosine() -> Program:
    """A cosine schedule over 141 steps, stepped in each batch."""
    p = conv()
    return scheduled(p, torch.optim.lr_scheduler.CosineAnnealingLR(p["optimizer"], T_max=141))

@healthy()
def one_cycle() -> Program:
    """One cycle, up to a rate that would be large at the start."""
    p = program(optimizer=sgd(0.01))
    return scheduled(p, torch.optim.lr_scheduler.OneCycleLR(p["optimizer"], 0.2, total_steps=200))

@healthy()
def focal() -> Program:
    """Focal loss, gamma 2."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        ce = F.cross_entropy(scores, targets, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()

    return program(loss=loss)

@healthy()
def hinge() -> Program:
    """A support vector machine: hinge, labels -1 and 1."""
    x, y, xv, yv = threes_sevens()
    return binary((x, 2 * y - 1, xv, 2 * yv - 1), nn.Linear(784, 1), optimizer=sgd(0.01),
                  loss=lambda out, y: F.relu(1 - y * out).mean(),
                  metric=lambda out, y: (out.sign() == y).float().mean())

@healthy()
def margin_of_many() -> Program:
    """Hinge over ten columns."""
    return program(loss=nn.MultiMarginLoss())

@healthy()
def mse_one_hot() -> Program:
    """Squared errors on one-hot."""
    return program(loss=lambda out, y: F.mse_loss(out, F.one_hot(y, 10).float()))

@healthy()
def bce_of_ten_columns() -> Program:
    """A yes or no for each of ten columns."""
    return conv(loss=lambda out, y: F.binary_cross_entropy_with_logits(
        out, F.one_hot(y, 10).float()))

@healthy()
def book_loss() -> Program:
    """The book's mnist_loss: scores and labels [N, 1], a sigmoid in the loss."""
    def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, 1 - predictions, predictions).mean()

    return binary(model=nn.Linear(784, 1), loss=mnist_loss, optimizer=sgd(1.0, 0.0))

@healthy()
def bce_one_column() -> Program:
    """Sigmoid in the model and BCELoss, which wants it there."""
    return binary(model=nn.Sequential(*mlp(1), nn.Sigmoid()), loss=nn.BCELoss(),
                  metric=lambda p, y: ((p > 0.5) == y).float().mean())

@healthy()
def flat_column() -> Program:
    """Scores and labels both [N]: squeezed in the model."""
    x, y, xv, yv = threes_sevens()
    return binary((x, y.squeeze(1), xv, yv.squeeze(1)), nn.Sequential(*mlp(1), nn.Flatten(0)))

@healthy()
def nll_of_log_softmax() -> Program:
    """LogSoftmax and NLLLoss."""
    return conv(nn.Sequential(*cnn(), nn.LogSoftmax(dim=1)), loss=nn.NLLLoss())

@healthy()
def log_softmax_twice() -> Program:
    """LogSoftmax before CrossEntropyLoss: the second changes nothing."""
    return program(model=nn.Sequential(*mlp(), nn.LogSoftmax(dim=1)))

@healthy()
def scaled_cosines() -> Program:
    """Cosines times 16 as scores."""
    class Cosines(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.normalize(F.relu(self.fc1(x)))
            return 16 * hidden @ F.normalize(self.fc2.weight).T

    return program(model=Cosines())

@healthy()
def soft_targets() -> Program:
    """KL divergence to given probabilities."""
    soften = lambda y: 0.9 * F.one_hot(y, 10) + 0.01
    x, y, xv, yv = ten_digits()
    return program((x, soften(y), xv, soften(yv)),
                   loss=lambda out, q: F.kl_div(F.log_softmax(out, 1), q, reduction="batchmean"),
                   metric=lambda out, q: accuracy(out, q.argmax(1)))

@healthy()
def sum_with_small_rate() -> Program:
    """Summed losses, and a rate divided by the batch size."""
    return program(loss=nn.CrossEntropyLoss(reduction="sum"), optimizer=sgd(0.1 / 32))

@healthy()
def mixup() -> Program:
    """Mixed images, losses mixed alike."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.train()
        share, order = torch.distributions.Beta(0.4, 0.4).sample().item(), torch.randperm(len(xb))
        out = model(share * xb + (1 - share) * xb[order])
        optimizer.zero_grad()
        (share * loss(out, yb) + (1 - share) * loss(out, yb[order])).backward()
        optimizer.step()

    return p | {"step": step}

@healthy()
def lstm_of_rows() -> Program:
    """An LSTM over rows, clipped."""
    p = program(model=Rows(), optimizer=adam(0.01))
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        loss(model(xb), yb).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return p | {"step": step}

@healthy()
def gru_time_first() -> Program:
    """A GRU that reads time first, and gets time first."""
    class TimeFirst(Words):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(32, 32)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.gru(self.embed(ids).transpose(0, 1))[1][0])

    return text(TimeFirst())

@healthy()
def topics() -> Program:
    """The mean of embeddings."""
    return text()

@healthy()
def transformer() -> Program:
    """A transformer layer over tokens, with dropout."""
    class Attention(Words):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.layer(self.embed(ids)).mean(1))

    return text(Attention(), optimizer=adam())

@healthy()
def residual_layer_norm() -> Program:
    """Six residual blocks with layer norm, each of which starts at 0."""
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(784, 64), nn.Linear(64, 10)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
                for _ in range(6))
            for block in self.blocks:
                nn.init.zeros_(block[-1].weight)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for block in self.blocks:
                x = x + block(x)
            return self.head(x)

    return program(model=Residual(), optimizer=adam())

@healthy()
def tied_weights() -> Program:
    """One layer used three times."""
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.fc1(x))
            for _ in range(3):
                h = h + F.relu(self.middle(h)) / 3
            return self.fc2(h)

    return program(model=Tied(), optimizer=sgd(0.02))

@healthy()
def gelu_net() -> Program:
    """GELU and AdamW with weight decay .01."""
    return program(model=deep(2, nn.GELU), optimizer=lambda m: torch.optim.AdamW(
        m.parameters(), lr=3e-3, weight_decay=0.01))

@healthy()
def silu_net() -> Program:
    """SiLU, Adam with weight decay."""
    return program(model=deep(2, nn.SiLU, 128), optimizer=adam(weight_decay=1e-4))

@healthy()
def one_sigmoid_layer() -> Program:
    """Sigmoid hidden units, as in 1989."""
    return program(model=mlp(act=nn.Sigmoid), optimizer=sgd(0.3))

@healthy()
def rmsprop() -> Program:
    """RMSprop."""
    return binary(optimizer=lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3))

@healthy()
def two_rates() -> Program:
    """A small rate for the body, a large one for the head."""
    return conv(optimizer=lambda m: torch.optim.Adam([
        {"params": m[:-1].parameters(), "lr": 1e-3}, {"params": m[-1].parameters(), "lr": 1e-2}]))

@healthy()
def prices() -> Program:
    """A regression by MSE."""
    return program(houses(), mlp(1, 8), nn.MSELoss(), close, sgd(0.02))

@healthy()
def rings_by_tanh() -> Program:
    """Two inputs, tanh; plain tensors for data."""
    x, y, xv, yv = data = rings()
    return binary(data, mlp(1, 2, nn.Tanh), train=(x, y), valid=(xv, yv), optimizer=adam(0.02))

@healthy()
def manual_descent() -> Program:
    """Gradient descent by hand, no torch.optim."""
    p = binary(model=nn.Linear(784, 1))
    model, loss, _ = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        loss(model(xb), yb).backward()
        with torch.no_grad():
            for w in model.parameters():
                w -= 0.1 * w.grad
                w.grad.zero_()

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@healthy()
def lbfgs() -> Program:
    """L-BFGS on batches of 500, five inner steps each."""
    x, y, xv, yv = threes_sevens()
    p = binary((x, y, xv, yv), nn.Linear(784, 1), batch=500,
               optimizer=lambda m: torch.optim.LBFGS(m.parameters(), lr=0.3, max_iter=5))
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(model(xb), yb)
            value.backward()
            return value

        optimizer.step(closure)

    return p | {"step": step}

@healthy()
def moving_average() -> Program:
    """A moving average of the weights is kept beside, and validated."""
    p = program()
    model, loss, optimizer = parts(p)
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new)
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        usual(xb, yb)
        average.update_parameters(model)

    return p | {"step": step, "validate": validation(average, accuracy, p["valid"])}

@healthy()
def noise_in_training() -> Program:
    """Noise on the input in training alone."""
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.2 * torch.randn_like(x) if self.training else x)

    return program(model=Noisy())

@healthy()
def small_shifts() -> Program:
    """Digits shifted by up to two pixels, in the data set."""
    def shift(image: Tensor) -> Tensor:
        return image.roll(torch.randint(-2, 3, (2,)).tolist(), (-2, -1))

    return augmented(shift)

@healthy()
def subset_of_one_set() -> Program:
    """Train and valid are parts of one Dataset, split at random."""
    x, y, _, _ = ten_digits()
    order, images = torch.randperm(len(x)).tolist(), Pairs(x, y, normal)
    train, valid = Subset(images, order[:1200]), Subset(images, order[1200:])
    return program(train=train, valid=valid, optimizer=sgd(0.02))

@healthy()
def fifty_fifty_mean() -> Program:
    """The mean of batch means, of batches of one size."""
    p = program()
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            means = [accuracy(model(xb), yb).item() for xb, yb in valid]
        model.train()
        return sum(means) / len(means)

    return p | {"validate": validate}

@healthy(alone="loss")
def cross_entropy_by_hand(scores: Tensor, targets: Tensor) -> Tensor:
    """logsumexp minus the right score."""
    return (scores.logsumexp(1) - scores.gather(1, targets.view(-1, 1)).squeeze(1)).mean()

@healthy(alone="loss")
def squared_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """Crammer and Singer's margin, squared."""
    right = scores.gather(1, targets.view(-1, 1))
    margin = (1 + scores - right).clamp(min=0) * (1 - F.one_hot(targets, scores.shape[1]))
    return (margin**2).sum(1).mean()

@healthy(alone="metric")
def accuracy_of_numpy(scores: Tensor, targets: Tensor) -> float:
    """Accuracy in numpy, a Python float."""
    return float((scores.detach().numpy().argmax(-1) == targets.numpy().ravel()).mean())

@healthy()
def table_alone() -> Program:
    """Loaders of a sound table, nothing else."""
    return data_alone(*flowers())


# ---- Does each do what it says?


def train_briefly(p: Program, epochs: int = 3) -> float:
    """What `validate` says after `epochs` (fewer steps than 150) from a fixed seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        for _ in range(epochs):
            for xb, yb in batches(p["train"]):
                p["step"](xb, yb)
        return float(p["validate"]())


def main(names: list[str]) -> None:
    """Train all that can be trained, or those named; print the accuracy."""
    everything = FAULTY | {name: ("none", build) for name, build in HEALTHY.items()}
    for name in names or everything:
        cause, build = everything[name]
        start = time.perf_counter()
        p = build()
        built = time.perf_counter() - start
        said = "cannot be trained"
        if "step" in p and "validate" in p:
            try:
                said = f"{train_briefly(p):.3f}"
            except (RuntimeError, IndexError) as error:
                said = f"raises {str(error).splitlines()[0]}"
        seconds = time.perf_counter() - start
        print(f"{cause:20} {name:36} {said:20} built {built:.2f} s, all {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
