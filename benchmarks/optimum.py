"""How good can a line be? The optimum of ten digits, the ways there, and a plane between 3s and 7s.

Prints tables and writes optimum.json. Rates, and whether there is an L2 term, are chosen on
training images held out, by the worst of three orders of the batches, because at high rates some
orders end far off; the test images only measure. Each run starts at zero, so that only the order of
the batches differs. Weights lie as [10, 784], with which the products are fast.
"""

import itertools
import math
import time
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from scipy.optimize import linprog
from speed import HERE, quietly
from torch import Tensor

from mnist_ce.data import Digits, mnist, mnist_sample
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.results import make_record, paired_error, summarize, write_json

L2 = 1e-4  # half of it times the sum of all squared weights and biases is added to the mean loss
LOSSES, SCHEDULES = ("cross_entropy_loss", "softmax_loss"), ("constant", "falling")
RATES = (0.3, 1.0, 3.0, 5.0)


class Arm(NamedTuple):
    """How a linear model of ten digits is trained: by which loss, at which rate, with which L2."""

    loss: str
    schedule: str
    lr: float
    l2: float

    def __str__(self) -> str:
        return f"{self.loss}, {self.schedule} from {self.lr:g}, L2 {self.l2:g}"


def objective(weights: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy and the L2 term. weights: [10, 784], bias: [10]."""
    squares = weights.square().sum() + bias.square().sum()
    return cross_entropy_loss(x @ weights.T + bias, y) + L2 / 2 * squares


def optimum(train: Digits) -> tuple[Tensor, Tensor, dict[str, float]]:
    """The lowest point of the objective, by LBFGS from zero: weights, bias, and facts.

    A first part in float32 is faster. The objective curves upward by at least L2 everywhere, so no
    point of it is lower than this one by more than |gradient|^2 / (2 L2).
    """
    start = time.perf_counter()
    params, calls = [torch.zeros(10, 784), torch.zeros(10)], 0
    for dtype, tolerance in (torch.float32, 1e-5), (torch.float64, 1e-7):
        x, y = train.x.to(dtype), train.y
        params = [p.detach().to(dtype).requires_grad_() for p in params]
        lbfgs = torch.optim.LBFGS(
            params, max_iter=400, history_size=30, line_search_fn="strong_wolfe",
            tolerance_grad=tolerance, tolerance_change=1e-14,
        )  # fmt: skip

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            lbfgs.zero_grad()
            value = objective(params[0], params[1], x, y)
            value.backward()
            return value

        lbfgs.step(closure)  # type: ignore[arg-type]
        value = closure().item()
        slope = math.sqrt(sum(p.grad.square().sum().item() for p in params))  # type: ignore
        print(f"LBFGS in {dtype}: {calls} calls, objective {value:.9f}, gradient {slope:.1e}")
    facts = dict(objective=value, gradient=slope, at_most_above=slope**2 / (2 * L2), calls=calls)
    weights, bias = (p.detach() for p in params)
    return weights, bias, facts | dict(seconds=time.perf_counter() - start)


def descend(
    arms: list[Arm], train: Digits, valid: Digits, order: int, epochs: int, measured: bool = True
) -> dict[str, Tensor]:
    """Train one linear model for each arm on the same batches, gradients by hand.

    Returns by epoch: accuracy and, if `measured`, of the training images the objective [epochs, S];
    the mean length of a step in each epoch [epochs, S]; at the end, which answers are right [S, N].
    """
    s, n, columns, batch_size = len(arms), len(train), len(train.classes), 256
    weights, bias = torch.zeros(s, columns, 784), torch.zeros(s, columns)
    of_softmax = torch.tensor([arm.loss == "softmax_loss" for arm in arms]).view(1, s, 1)
    falls = torch.tensor([arm.schedule == "falling" for arm in arms]).view(s, 1)
    first_rate = torch.tensor([arm.lr for arm in arms]).view(s, 1)
    l2 = torch.tensor([arm.l2 for arm in arms]).view(s, 1)
    generator, steps, step = torch.Generator().manual_seed(order), epochs * -(-n // batch_size), 0
    seen: dict[str, list[Tensor]] = dict(accuracy=[], objective=[], step_length=[])
    for _ in range(epochs):
        lengths = []
        for rows in torch.randperm(n, generator=generator).split(batch_size):
            x, y = train.x[rows], train.y[rows]
            scores = (x @ weights.flatten(0, 1).T).view(-1, s, columns) + bias
            slopes = scores.softmax(2)
            picks = y.unsqueeze(2).expand(-1, s, 1)
            probability = slopes.gather(2, picks)
            slopes = slopes.scatter_add(2, picks, torch.full_like(probability, -1.0))
            slopes = torch.where(of_softmax, probability * slopes, slopes) / len(x)
            rate = torch.where(falls, first_rate * (1 - step / steps), first_rate)
            along = (slopes.flatten(1).T @ x).view(s, columns, 784) + l2.unsqueeze(2) * weights
            of_bias = slopes.sum(0) + l2 * bias
            weights -= rate.unsqueeze(2) * along
            bias -= rate * of_bias
            length = along.square().sum((1, 2)) + of_bias.square().sum(1)
            lengths.append(rate.squeeze(1) * length.sqrt())
            step += 1
        scores = (valid.x @ weights.flatten(0, 1).T).view(-1, s, columns) + bias
        right = scores.argmax(2) == valid.y
        seen["accuracy"].append(right.double().mean(0))
        values = [
            objective(weights[k], bias[k], train.x, train.y) if measured else torch.tensor(0.0)
            for k in range(s)
        ]
        seen["objective"].append(torch.stack(values).double())
        seen["step_length"].append(torch.stack(lengths).mean(0))
    return {key: torch.stack(value) for key, value in seen.items()} | dict(right=right.T)


def over_orders(
    arms: list[Arm], train: Digits, valid: Digits, orders: range, epochs: int, **more: Any
) -> dict[str, Tensor]:
    """`descend` under each order: everything stacked, [orders, …]."""
    each = [descend(arms, train, valid, order, epochs, **more) for order in orders]
    return {key: torch.stack([one[key] for one in each]) for key in each[0]}


def plane_between(train: Digits) -> dict[str, Any]:
    """Weights and bias that score 3s at least 1 and 7s at most -1, by a linear program."""
    start, signs = time.perf_counter(), 2 * train.y.double() - 1
    rows = torch.cat([train.x.double(), torch.ones(len(train), 1)], 1)  # the bias: a column of ones
    found = linprog(
        np.zeros(785), A_ub=scipy.sparse.csr_matrix((-rows * signs).numpy()),
        b_ub=-np.ones(len(train)), bounds=(None, None), method="highs-ipm",
    )  # fmt: skip
    return dict(weights=found.x.round(7), status=found.status, seconds=time.perf_counter() - start)


def main() -> None:
    """Run all, print the tables, write the JSON."""
    quietly()
    torch.set_num_threads(1)
    train, test = mnist()
    weights, bias, facts = optimum(train)
    plane = plane_between(mnist_sample()[0])
    print(f"a plane between 3s and 7s: status {plane['status']}, {plane['seconds']:.0f} s")

    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held_out, rest = train[rows[:10_000]], train[rows[10_000:]]
    tried = [Arm(*parts) for parts in itertools.product(LOSSES, SCHEDULES, RATES, (0.0, L2))]
    choice = over_orders(tried, rest, held_out, range(3), 10, measured=False)
    on_held_out = choice["accuracy"][:, -1]  # [orders, S]
    chosen: list[Arm] = []
    for loss, schedule in itertools.product(LOSSES, SCHEDULES):
        several = [k for k, arm in enumerate(tried) if arm[:2] == (loss, schedule)]
        chosen.append(tried[max(several, key=lambda k: on_held_out[:, k].min().item())])
    for k, arm in enumerate(tried):
        print(f"{arm}: held-out accuracy {summarize(on_held_out[:, k])}", "*" * (arm in chosen))

    path = [Arm("cross_entropy_loss", "constant", lr, L2) for lr in (0.1, 0.3, 1.0, 3.0)]
    path += [Arm("cross_entropy_loss", "falling", lr, L2) for lr in (3.0,)]
    arms = [*dict.fromkeys([*chosen, *path])]  # the chosen ones first
    runs = over_orders(arms, train, test, range(5), 10)
    longer = over_orders(chosen, train, test, range(5), 40)

    at_optimum = (test.x.double() @ weights.T + bias).argmax(1) == test.y.view(-1)
    facts |= dict(accuracy=at_optimum.double().mean().item())
    print(f"test accuracy at the optimum {facts['accuracy']:.4f}")

    errors = []  # of differences, from other test images
    for epochs, right in (10, runs["right"]), (40, longer["right"]):
        answers = {str(arm): right[:, k] for k, arm in enumerate(chosen)}
        answers["the optimum"] = at_optimum
        for one, other in itertools.combinations(answers, 2):
            error = paired_error(answers[one], answers[other])
            errors.append(dict(epochs=epochs, one=one, other=other, error=error))
    for k, arm in enumerate(arms):
        above = runs["objective"][:, -1, k] - facts["objective"]
        print(f"{arm}: above the optimum {summarize(above)}", end=", ")
        print(f"accuracy {summarize(runs['accuracy'][:, -1, k])}")
    for k, arm in enumerate(chosen):
        print(f"{arm}, 40 epochs: accuracy {summarize(longer['accuracy'][:, -1, k])}")

    def kept(runs: dict[str, Tensor], arms: list[Arm]) -> list[dict[str, Any]]:
        keys = "accuracy", "objective", "step_length"
        digits = {key: np.round(runs[key].double().numpy(), 6) for key in keys}
        return [
            arm._asdict() | {key: digits[key][:, :, k] for key in keys}  # [orders, epochs]
            for k, arm in enumerate(arms)
        ]

    results = dict(
        optimum=facts | dict(weights=weights.numpy().round(7), bias=bias.numpy().round(7)),
        held_out=[
            arm._asdict() | dict(accuracy=on_held_out[:, k]) for k, arm in enumerate(tried)
        ],
        chosen=[arm._asdict() for arm in chosen],
        runs=kept(runs, arms),
        longer=kept(longer, chosen),
        paired_errors=errors,
        plane=plane,
    )
    settings = dict(l2=L2, epochs=10, batch_size=256, orders=5, held_out=10_000)
    write_json(HERE / "optimum.json", dict(record=make_record(settings), results=results))


if __name__ == "__main__":
    main()
