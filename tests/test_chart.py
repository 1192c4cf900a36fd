"""The chart "My loss does not train": each row's one-line test tells its fault, planted here, and passes a sound program."""
import ast
import copy
import functools
import json
import math
import re
from pathlib import Path

import pytest

from mnist_ce.data import Digits, mnist, mnist_sample

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent
LESSON = ROOT / "nbs" / "14_is_it_my_loss.ipynb"


def chart():
    """The cell of the lesson that holds the chart, and nothing else."""
    cells = ["".join(cell["source"]) for cell in json.loads(LESSON.read_text())["cells"]]
    (found,) = [cell for cell in cells if cell.startswith("| symptom |")]
    return found.strip()


def rows():
    """{cause: (symptom, line of code, link)}; a row without a symptom has that of the row above."""
    found, symptom = {}, ""
    for line in chart().splitlines()[2:]:
        first, code, cause, _, link = [cell.strip() for cell in line.split("|")[1:-1]]
        symptom = first or symptom
        assert cause not in found and re.fullmatch(r"`[^`]+`", code), line
        found[cause] = symptom, code.strip("`"), link
    return found


ROWS = rows()
SETS = {2: mnist_sample, 10: mnist}


@functools.cache
def data(classes):
    """Every twentieth image of both sets."""
    return [digits[::20] for digits in SETS[classes]()]


class Sound(dict):
    """A program that trains, as the names that the chart's lines use."""

    def __init__(self, classes):
        train, valid = (digits[range(len(digits))] for digits in data(classes))  # copies: some faults change them
        torch.manual_seed(0)
        mix = torch.randperm(len(train))
        model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, classes))
        super().__init__(
            torch=torch, F=F, math=math, C=classes, train=train, valid=valid, model=model, loss=F.cross_entropy,
            xb=train.x[mix[:256]], yb=train.y[mix[:256], 0], w=model[0].weight,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            metric=lambda scores, targets: (scores.argmax(1) == targets).float().mean(), step=self.step, validate=self.validate,
        )
        self.zeroes = self.steps = self.evaluates = True

    def step(self, xb, yb):
        self["model"].train()
        if self.zeroes:
            self["optimizer"].zero_grad()
        loss = self["loss"](self["model"](xb), yb)
        loss.backward()
        if self.steps:
            self["optimizer"].step()
        return loss.item()

    def validate(self):
        self["model"].train(not self.evaluates)
        with torch.no_grad():
            return self["metric"](self["model"](self["valid"].x), self["valid"].y[:, 0]).item()

    def answer(self, line):
        """What a line says: the value of its last expression, after what stands before it."""
        *before, last = ast.parse(line).body
        exec(compile(ast.Module(before, []), "chart", "exec"), self)
        return bool(eval(compile(ast.Expression(last.value), "chart", "eval"), self))

    def change(self, **names):
        self.update(names)


def planted(name):
    """Note the function below as a way to plant the fault of that row; a row may have several."""
    assert name in ROWS, f"no row of the chart has the cause {name!r}"

    def note(plant):
        PLANTS.append(pytest.param(name, plant, id=plant.__name__))
        return plant

    return note


PLANTS = []


@planted("the weights are NaN, and the metric counts NaN as a class")
def nan_weights(p):
    p.change(loss=lambda z, y: F.nll_loss(z.softmax(1).log(), y))
    nn.init.normal_(p["model"][0].weight, std=9)
    p.step(p["xb"], p["yb"]), p.step(p["xb"], p["yb"])


@planted("`log(softmax(z))` or `log(sigmoid(z))` by hand")
def log_of_softmax(p):
    p.change(loss=lambda z, y: F.nll_loss(z.softmax(1).log(), y))


@planted("`log(softmax(z))` or `log(sigmoid(z))` by hand")
def log_of_sigmoid(p):
    def loss(z, y):
        right = F.one_hot(y, p["C"])
        return -(right * z.sigmoid().log() + (1 - right) * (1 - z.sigmoid()).log()).mean()

    p.change(loss=loss)


@planted("NaN or inf in the inputs")
def nan_pixel(p):
    p["train"].x[5, 100] = math.nan


@planted("the gradient is cut on its way")
def frozen_layer(p):
    p["model"][0].requires_grad_(False)


@planted("the gradient is cut on its way")
def body_without_grad(p):
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    p["model"].insert(3, Cut())


@planted("a layer passes nothing on: all its weights are 0, or no ReLU ever fires")
def all_weights_zero(p):
    for weight in p["model"].parameters():
        nn.init.zeros_(weight)


@planted("a layer passes nothing on: all its weights are 0, or no ReLU ever fires")
def dead_relu(p):
    nn.init.constant_(p["model"][0].bias, -99)


@planted("the optimizer holds other weights")
def another_model(p):
    p.change(optimizer=torch.optim.SGD(copy.deepcopy(p["model"]).parameters(), lr=0.1))


@planted("the optimizer holds other weights")
def head_replaced_later(p):
    p["model"][3] = nn.Linear(64, p["C"])


@planted("no `optimizer.step()`, or a rate far too small")
def no_step(p):
    p.steps = False


@planted("no `optimizer.step()`, or a rate far too small")
def tiny_rate(p):
    p["optimizer"].param_groups[0]["lr"] = 1e-8


@planted("scores [N, 1] meet targets [N]: each meets each")
def one_column(p):
    def book(preds, targets):
        preds = preds.sigmoid()
        return torch.where(targets == 1, 1 - preds, preds).mean()

    p.change(loss=book, model=nn.Linear(784, 1))


@planted("softmax at the end of the model, and again in cross entropy")
def softmax_in_the_model(p):
    p["model"].append(nn.Softmax(1))


@planted("softmax twice, inside the loss")
def softmax_in_the_loss(p):
    p.change(loss=lambda z, y: F.cross_entropy(z.softmax(1), y))


@planted("the rate is too large")
def huge_rate(p):
    p["optimizer"].param_groups[0]["lr"] = 10


@planted("`zero_grad` is forgotten")
def no_zero_grad(p):
    p.zeroes = False


@planted("the batches come sorted by class")
def sorted_batch(p):
    p.change(xb=p["train"].x[:256], yb=p["train"].y[:256, 0])


@planted("the inputs are not scaled")
def bytes_as_inputs(p):
    p.change(xb=255 * p["xb"])


@planted("the initial weights are too wide (or the row above)")
def wide_weights(p):
    for layer in p["model"][0], p["model"][3]:
        nn.init.normal_(layer.weight)


@planted("the sign: the loss rises with the right answer's score")
def minus_forgotten(p):
    p.change(loss=lambda z, y: -F.cross_entropy(z, y))


@planted("the sign: the loss rises with the right answer's score")
def mean_probability(p):
    p.change(loss=lambda z, y: z.softmax(1)[range(len(y)), y].mean())


@planted("the metric reads another column, or compares [N] with [N, 1]")
def other_column(p):
    p.change(metric=lambda z, y: (z.argmin(1) == y).float().mean())


@planted("the metric reads another column, or compares [N] with [N, 1]")
def each_with_each(p):
    p.change(metric=lambda z, y: (z.argmax(1) == y[:, None]).float().mean())


@planted("the two sets are scaled in two ways")
def unlike_scaling(p):
    valid = p["valid"]
    p.change(valid=Digits(x=255 * valid.x, y=valid.y, classes=valid.classes))


@planted("validation in train mode: dropout, if there is any, still drops")
def train_mode(p):
    p.evaluates = False


@planted("labels and inputs were shuffled apart")
def labels_apart(p):
    p.change(yb=p["yb"][torch.randperm(256)])


@planted("validation images are among the training images")
def leak(p):
    p.change(valid=p["train"][::7])


@planted("one class holds most of the examples")
def mostly_one_class(p):
    label = p["train"].y.flatten()
    p.change(train=p["train"][(label == 1) | (torch.arange(len(label)) % 50 == 0)])


def test_every_row_has_a_fault_that_is_planted_here():
    assert {plant.values[0] for plant in PLANTS} == {*ROWS}
    assert len({line for _, line, _ in ROWS.values()}) == len(ROWS) >= 15


@pytest.mark.parametrize("classes", SETS)
@pytest.mark.parametrize("cause, plant", PLANTS)
def test_the_line_of_a_row_tells_its_fault(cause, plant, classes):
    if plant is one_column and classes != 2:
        pytest.skip("one column is of two classes")
    program = Sound(classes)
    plant(program)
    assert program.answer(ROWS[cause][1])


@pytest.mark.parametrize("classes", SETS)
@pytest.mark.parametrize("cause", ROWS)
def test_the_line_of_a_row_passes_a_sound_program(cause, classes):
    program = Sound(classes)
    assert not program.answer(ROWS[cause][1])
    for _ in range(20):  # and one that has learned something
        program.step(program["xb"], program["yb"])
    program["optimizer"].zero_grad()
    assert not program.answer(ROWS[cause][1])


def test_the_chart_leads_to_lessons():
    for symptom, _, link in ROWS.values():
        number, name = re.fullmatch(r"\[(\d\d)\]\((\d\d_\w+)\.ipynb\)", link).groups()
        assert symptom and name.startswith(number)


def test_the_readme_has_the_same_chart():
    readme = (ROOT / "README.md").read_text()
    if "| symptom |" in readme:
        assert re.sub(r"\]\((?=\d\d_)", "](nbs/", chart()) in readme
