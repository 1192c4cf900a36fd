"""Ten digits: how far the models go, what mirrored digits cost, and the time to 99% against PyTorch's own example.

Prints tables and writes digits.json. What is compared runs in turn in one process. The recipes were chosen on held-out
training images (tuning.py); the test images only measure.
"""
import json
import os
import time
from datetime import datetime, timezone

import torch
import torch.nn.functional as F
from speed import HERE
from tabulate import tabulate
from torch import nn

from mnist_ce.data import batches, mnist, mnist_sample
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.metrics import summarize
from mnist_ce.model import select_device
from mnist_ce.networks import jitter, recipe, shifted_probabilities
from mnist_ce.report import environment
from mnist_ce.training import fit


class Example(nn.Module):
    """The network of PyTorch's MNIST example: two convolutions of 32 and 64 channels, dropout, two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = ((x - 0.1307) / 0.3081).view(-1, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(self.dropout1(x).flatten(1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def example_to(goal, train, test, seed, device, most=14):
    """Train PyTorch's example (Adadelta, lr 1, gamma 0.7, batches of 64) until the test accuracy reaches `goal`.

    Batches are cut from tensors, which is faster than the example's own DataLoader. Returns the accuracy after each
    epoch and the seconds of training, validation left out.
    """
    torch.manual_seed(seed)
    model, order = Example().to(device), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    accuracies, seconds = [], 0.0
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
            right = sum((model(xb).argmax(1) == yb.view(-1)).sum().item() for xb, yb in batches(test, 1000))
        accuracies.append(right / len(test))
    return accuracies, seconds


def synchronize(device):
    """Wait until a GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def trained(name, columns, data, seed, device, **changes):
    """A run of `recipe(name)`, and its seconds, validation included."""
    start = time.perf_counter()
    settings = dict(recipe(name, columns, seed), **changes)
    run = fit(cross_entropy_loss, *data, data_seed=seed, device=device, **settings)
    synchronize(device)
    return run, time.perf_counter() - start


def with_mirrors(xb, generator):
    """`jitter`, and half of the images mirrored."""
    mirrored = torch.rand(len(xb), 1, 1, generator=generator).to(xb.device) < 0.5
    images = xb.view(-1, 28, 28)
    return jitter(torch.where(mirrored, images.flip(2), images).flatten(1), generator)


def to_99(data, seeds, device):
    """Seconds to 99.0% on the test images: two epochs of our recipe, and the example, in turn."""
    rows = dict(ours=[], example=[])
    for seed in seeds:
        run, seconds = trained("convnet", 10, data, seed, device, epochs=2)
        rows["ours"].append(dict(accuracy=[epoch.accuracy for epoch in run.history], seconds=seconds))
        accuracies, seconds = example_to(0.99, *data, seed, device)
        rows["example"].append(dict(accuracy=accuracies, seconds=seconds))
    return rows


def how_far(data, seeds, device, epochs):
    """Accuracy of the convolutional network after `epochs`, alone and averaged over nine places."""
    rows = dict(accuracy=[], averaged=[], seconds=[])
    for seed in seeds:
        run, seconds = trained("convnet", 10, data, seed, device, epochs=epochs)
        start, answers = time.perf_counter(), shifted_probabilities(run.model, data[1].x).argmax(1)
        synchronize(device)
        rows["accuracy"].append(run.history[-1].accuracy)
        rows["averaged"].append((answers == data[1].y.view(-1)).double().mean().item())
        rows["seconds"].append([seconds, time.perf_counter() - start])
    return rows


def final(name, columns, data, seeds, device, **changes):
    """The last test accuracy from each seed, and the seconds."""
    runs = [trained(name, columns, data, seed, device, **changes) for seed in seeds]
    return dict(accuracy=[run.history[-1].accuracy for run, _ in runs], seconds=[seconds for _, seconds in runs])


def main():
    """Run all, print the tables, write the JSON."""
    device = select_device()
    two, ten = [[digits.to(device) for digits in data] for data in (mnist_sample(), mnist())]
    results = dict(
        to_99=to_99(ten, range(3), device),
        convnet=how_far(ten, range(5), device, epochs=10),
        convnet_long=how_far(ten, range(3), device, epochs=30),
        mlp_2=final("mlp", 2, two, range(5), device),
        mlp_10=final("mlp", 10, ten, range(5), device),
        plain=final("convnet", 10, ten, range(5), device, epochs=3),
        mirrored=final("convnet", 10, ten, range(5), device, epochs=3, augment=with_mirrors),
    )
    text = lambda values: "n = {}, {:.4f} ± {:.4f} ({:.4f} to {:.4f})".format(*summarize(values))
    for name, result in results.items():
        if name != "to_99":
            print(f"{name:14} {text(result['accuracy'])}")
        if "averaged" in result:
            print(f"{'':14} {text(result['averaged'])} averaged over nine places")
    rows = [
        [side, seed, len(run["accuracy"]), f"{run['accuracy'][-1]:.4f}", f"{run['seconds']:.1f}"]
        for side, runs in results["to_99"].items() for seed, run in enumerate(runs)
    ]
    print("\n" + tabulate(rows, ["to 99%", "seed", "epochs", "accuracy", "seconds"], disable_numparse=True))
    times = {side: torch.tensor([run["seconds"] for run in runs]).median().item() for side, runs in results["to_99"].items()}
    print(f"\nmedians: {times['example']:.0f} s and {times['ours']:.1f} s, {times['example'] / times['ours']:.1f} times sooner")
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = dict(made=made, cores=os.cpu_count(), environment=environment(device), results=results)
    (HERE / "digits.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
