"""Planted faults of the model."""

import torch
import torch.nn.functional as F
from programs_base import (
    adam, binary, cnn, conv, deep, faulty, flowers, initialized, mlp, more_digits, Net, program,
    Program, rings, Rows, sgd, text, Words,
)
from torch import Tensor, nn


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
    """Convolutions and head start at .1. hides=True"""
    return conv(initialized(cnn(), lambda w: nn.init.constant_(w, 0.1)))

@faulty("constant-init")
def ones_on_a_table() -> Program:
    """ones_ on a table's network."""
    return program(flowers(), initialized(mlp(3, 12, nn.Tanh), nn.init.ones_), optimizer=sgd(0.01))

@faulty("large-init")
def standard_normal() -> Program:
    """normal_() with its default deviation 1. F 73600. hides=True"""
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
    return program(model=deep(10, nn.Sigmoid), optimizer=adam())

@faulty("vanishing")
def tiny_weights() -> Program:
    """Six layers, weights drawn with deviation .001."""
    model = initialized(deep(6), lambda w: nn.init.normal_(w, std=0.001))
    return program(model=model, optimizer=adam())

@faulty("vanishing")
def steep_sigmoids() -> Program:
    """Sigmoids in a convnet of eight layers, too deep for them."""
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Sigmoid()]
    for _ in range(7):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid()]
    return conv(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 14 * 14, 10)),
                optimizer=adam(1e-3))

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

    return program(more_digits(), Recurrent(), optimizer=adam(1e-3))

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
    """Eight layers, each drawn four times as wide as Kaiming's."""
    model = initialized(deep(8), lambda w: nn.init.kaiming_normal_(w).mul_(4))
    return program(model=model, optimizer=adam())

@faulty("unregistered")
def layers_in_a_list() -> Program:
    """Hidden layers in a Python list. pytorch/pytorch#59925, #72580."""
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
    """The first weight is a tensor with requires_grad, not an nn.Parameter."""
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

    return program(more_digits(), Mixed(), optimizer=adam(0.01))

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
    """track_running_stats=False: in eval mode, too, a batch normalizes itself. hides=True"""
    norm = nn.BatchNorm1d(100, track_running_stats=False)
    return program(model=nn.Sequential(nn.Linear(784, 100), norm, nn.ReLU(), nn.Linear(100, 10)))

@faulty("rows-mixed")
def log_softmax_over_batch_in_forward() -> Program:
    """LogSoftmax(dim=0) is the model's last layer. F 77250. hides=True"""
    return program(model=nn.Sequential(*mlp(), nn.LogSoftmax(dim=0)), loss=nn.NLLLoss())

@faulty("input-ignored")
def first_row_only() -> Program:
    """out[:, 0] where out[:, -1] is meant: the LSTM's answer after one row, which is blank."""
    class First(Rows):
        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.lstm(x.view(-1, 28, 28))
            return self.head(out[:, 0])

    return program(more_digits(), First(), optimizer=adam(0.01))

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
    """F.dropout without training=self.training. huggingface/transformers#33844."""
    class Dropped(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5))

    return program(model=Dropped())

@faulty("random-in-eval")
def dropout_made_in_forward() -> Program:
    """nn.Dropout made in forward is always in training mode."""
    class Dropped(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(nn.Dropout(0.4)(F.relu(self.fc1(x))))

    return program(model=Dropped())

@faulty("random-in-eval")
def noise_always() -> Program:
    """Noise against overfitting is added in validation, too."""
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
    """F.relu(x) without `x =`."""
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
