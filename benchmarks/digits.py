"""Ten digits: how far the models go, what mirroring costs, and 99% against PyTorch's own example.

Prints tables and writes digits.json. What is compared runs in turn in one process. The recipes were
chosen on held-out training images (tuning.py); the test images only measure.
"""

import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from speed import HERE
from torch import Tensor, nn

from mnist_ce.data import Digits, batches, mnist, mnist_sample
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import jitter, recipe, shifted_probabilities
from mnist_ce.results import Run, Table, make_record, summarize, write_json
from mnist_ce.training import fit, select_device

Pair = tuple[Digits, Digits]


class Example(nn.Module):
    """The network of PyTorch's MNIST example: two convolutions, dropout, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - 0.1307) / 0.3081).view(-1, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(self.dropout1(x).flatten(1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def example_to(
    goal: float, train: Digits, test: Digits, seed: int, device: torch.device, most: int = 14
) -> tuple[list[float], float]:
    """Train PyTorch's example (Adadelta, lr 1, gamma 0.7, batches of 64) to a test accuracy.

    Batches are cut from tensors, which is faster than the example's own DataLoader. Returns the
    accuracy after each epoch and the seconds of training, validation left out.
    """
    torch.manual_seed(seed)
    model, order = Example().to(device), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    accuracies: list[float] = []
    seconds = 0.0
    while len(accuracies) < most and max(accuracies, default=0.0) < goal:
        start = time.perf_counter()
        model.train()
        for xb, yb in batches(train, 64, order):
            optimizer.zero_grad()
            F.nll_loss(model(xb), yb.view(-1)).backward()
            optimizer.step()
        synchronize(device)
        seconds += time.perf_counter() - start
        schedule.step()
        model.eval()
        with torch.no_grad():
            scores = torch.cat([model(xb) for xb, _ in batches(test, 1000)])
        accuracies.append((scores.argmax(1) == test.y.view(-1)).double().mean().item())
    return accuracies, seconds


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def trained(
    name: str, columns: int, data: Pair, seed: int, device: torch.device, **changes: Any
) -> tuple[Run, float]:
    """A run of `recipe(name)`, and its seconds, validation included."""
    start = time.perf_counter()
    settings = dict(recipe(name, columns, seed), **changes)
    run = fit(cross_entropy_loss, *data, data_seed=seed, device=device, **settings)
    synchronize(device)
    return run, time.perf_counter() - start


def with_mirrors(xb: Tensor, generator: torch.Generator) -> Tensor:
    """`jitter`, and half of the images mirrored."""
    mirrored = torch.rand(len(xb), 1, 1, generator=generator).to(xb.device) < 0.5
    images = xb.view(-1, 28, 28)
    return jitter(torch.where(mirrored, images.flip(2), images).flatten(1), generator)


def to_99(data: Pair, seeds: Iterable[int], device: torch.device) -> dict[str, list]:
    """Seconds to 99.0% on the test images: two epochs of our recipe, and the example, in turn."""
    rows: dict[str, list] = dict(ours=[], example=[])
    for seed in seeds:
        run, seconds = trained("convnet", 10, data, seed, device, epochs=2)
        rows["ours"].append(dict(accuracy=run.accuracy.tolist(), seconds=seconds))
        accuracies, seconds = example_to(0.99, *data, seed, device)
        rows["example"].append(dict(accuracy=accuracies, seconds=seconds))
    return rows


def how_far(data: Pair, seeds: Iterable[int], device: torch.device, epochs: int) -> dict[str, list]:
    """Accuracy of the convolutional network after `epochs`, alone and averaged over nine places."""
    rows: dict[str, list] = dict(accuracy=[], averaged=[], seconds=[])
    for seed in seeds:
        run, seconds = trained("convnet", 10, data, seed, device, epochs=epochs)
        start = time.perf_counter()
        answers = shifted_probabilities(run.model, data[1].x.to(device)).argmax(1).cpu()
        synchronize(device)
        rows["accuracy"].append(run.history[-1].accuracy)
        rows["averaged"].append((answers == data[1].y.view(-1).cpu()).double().mean().item())
        rows["seconds"].append([seconds, time.perf_counter() - start])
    return rows


def final(
    name: str, columns: int, data: Pair, seeds: Iterable[int], device: torch.device, **changes: Any
) -> dict[str, list]:
    """The last test accuracy from each seed, and the seconds."""
    runs = [trained(name, columns, data, seed, device, **changes) for seed in seeds]
    accuracy = [run.history[-1].accuracy for run, _ in runs]
    return dict(accuracy=accuracy, seconds=[seconds for _, seconds in runs])


def main() -> None:
    """Run all, print the tables, write the JSON."""
    device = select_device()
    (small, small_test), (all_ten, test) = mnist_sample(), mnist()
    two, ten = (small.to(device), small_test.to(device)), (all_ten.to(device), test.to(device))
    results: dict[str, Any] = dict(
        to_99=to_99(ten, range(3), device),
        convnet=how_far(ten, range(5), device, epochs=10),
        convnet_long=how_far(ten, range(3), device, epochs=30),
        mlp_2=final("mlp", 2, two, range(5), device),
        mlp_10=final("mlp", 10, ten, range(5), device),
        plain=final("convnet", 10, ten, range(5), device, epochs=3),
        mirrored=final("convnet", 10, ten, range(5), device, epochs=3, augment=with_mirrors),
    )
    for name, result in results.items():
        if name != "to_99":
            print(f"{name:14} {summarize(result['accuracy'])}")
        if "averaged" in result:
            print(f"{'':14} {summarize(result['averaged'])}, averaged over nine places")
    sides = results["to_99"]
    rows = [
        [side, seed, len(run["accuracy"]), f"{run['accuracy'][-1]:.4f}", f"{run['seconds']:.1f}"]
        for side, runs in sides.items()
        for seed, run in enumerate(runs)
    ]
    print(f"\n{Table(rows, ['to 99%', 'seed', 'epochs', 'accuracy', 'seconds'])}")
    example, ours = (
        statistics.median(run["seconds"] for run in sides[side]) for side in ("example", "ours")
    )
    print(f"\nmedians: {example:.0f} s and {ours:.1f} s, {example / ours:.1f} times sooner")
    record = make_record(dict(loss=cross_entropy_loss.name), device)
    write_json(HERE / "digits.json", dict(record=record, results=results))


if __name__ == "__main__":
    main()
