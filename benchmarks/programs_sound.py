"""Sound programs, however they look."""

import torch
import torch.nn.functional as F
from programs_base import (
    accuracy, adam, augmented, binary, close, cnn, conv, data_alone, deep, dropping, flowers,
    healthy, houses, initialized, mlp, more_digits, Net, normal, Pairs, parts, program, Program,
    rare, rings, Rows, scheduled, sgd, ten_digits, text, threes_sevens, validation, Words,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler


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
    x, y, xv, yv = ten_digits()
    model = mlp()
    model[0].requires_grad_(False)
    return program((normal(x), y, normal(xv), yv), model,
                   optimizer=lambda m: torch.optim.Adam(m[-1].parameters(), lr=0.03))

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

    return program(model=Cosines(), optimizer=adam())

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
    """An LSTM over rows, its gradients clipped; 6000 images."""
    p = program(more_digits(), Rows(), optimizer=adam(0.01))
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
def adam_lr_three_hundredths() -> Program:
    """Adam at thirty times its usual rate still learns well here."""
    return program(optimizer=adam(0.03))


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
