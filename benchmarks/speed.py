"""Time the package against the loop as the original notebook wrote it: a table, and speed.json.

Each ratio is the median over rounds in which the two sides ran one after the other, so that a
machine that speeds up or slows down meanwhile does not decide it.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mnist_ce.data import Digits, mnist_sample
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import Table, make_record, write_json
from mnist_ce.training import fit

HERE = Path(__file__).parent


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def paired(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> dict:
    """Both sides in turn after a warm-up: medians in seconds, the median ratio, raw values."""
    slow(), fast()
    pairs = [(timed(slow), timed(fast)) for _ in range(rounds)]
    return dict(
        slow=statistics.median(s for s, _ in pairs),
        fast=statistics.median(f for _, f in pairs),
        ratio=statistics.median(s / f for s, f in pairs),
        raw=pairs,
    )


def notebook_style(
    loss: Callable[..., Tensor], columns: int, train: Digits, epochs: int = 10
) -> Callable[[], None]:
    """The original's loop: fastai's DataLoader over pairs, validation on the same images."""
    from fastai.data.load import DataLoader

    pairs = list(zip(train.x, train.y))
    dl, valid_dl = DataLoader(pairs, batch_size=256), DataLoader(pairs, batch_size=256)

    def batch_accuracy(preds: Tensor, targets: Tensor) -> Tensor:
        if columns == 1:
            return ((preds.sigmoid() > 0.5) == targets).float().mean()
        return ((preds.softmax(1)[:, 1] > 0.5) == targets.squeeze()).float().mean()

    def train_and_validate() -> None:
        weights = torch.randn(784, columns).requires_grad_()
        bias = torch.randn(columns).requires_grad_()
        for _ in range(epochs):
            for xb, yb in dl:
                loss(xb @ weights + bias, yb).backward()
                for p in weights, bias:
                    p.data -= p.grad
                    p.grad.zero_()
            found = [batch_accuracy(xb @ weights + bias, yb) for xb, yb in valid_dl]
            torch.stack(found).mean().item()

    return train_and_validate


def notebook_mnist_loss(preds: Tensor, targets: Tensor) -> Tensor:
    """The book's loss, as the original wrote it."""
    preds = preds.sigmoid()
    return torch.where(targets == 1, 1 - preds, preds).mean()


def notebook_softmax_loss(preds: Tensor, targets: Tensor) -> Tensor:
    """The original's mean probability of the target; its sign does not change its cost."""
    preds = torch.softmax(preds, dim=1)
    return preds[range(preds[:, 0].shape[0]), torch.squeeze(targets)].mean()


def notebook_cross_entropy(preds: Tensor, targets: Tensor) -> Tensor:
    """The original's logarithm of softmax; that it turns NaN does not change its cost."""
    return F.nll_loss(torch.log(torch.softmax(preds, dim=1)), torch.squeeze(targets))


NOTEBOOK = {
    mnist_loss: notebook_mnist_loss,
    softmax_loss: notebook_softmax_loss,
    cross_entropy_loss: notebook_cross_entropy,
}


def fit_ratios(train: Digits, rounds: int) -> dict[str, dict]:
    """One `fit` of 10 epochs against the notebook's loop: as published, in order, and shuffled."""
    results = {}
    for loss, slow_loss in NOTEBOOK.items():
        slow = notebook_style(slow_loss, loss.columns or 2, train)
        for protocol, settings in ("in order", dict(shuffle=False, init_std=1.0)), ("shuffled", {}):
            fast = lambda: fit(loss, train, train, device="cpu", progress=False, **settings)
            results[f"fit, {loss.__name__}, {protocol}"] = paired(slow, fast, rounds)
    return results


def loading_ratio(rounds: int) -> dict[str, dict]:
    """`mnist_sample()` against opening the PNGs one by one."""
    from fastai.torch_core import tensor

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for split, digits in zip(("train", "valid"), mnist_sample()):
            images = (digits.x * 255).round().byte().numpy()
            for pixels, label, index in zip(images, digits.y, digits.index):
                path = Path(folder, split, str(digits.classes[label]), f"{index}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.reshape(28, 28)).save(path)
                paths.append(path)

        def one_by_one() -> None:
            torch.stack([tensor(Image.open(path)) for path in paths]).float() / 255.0

        return {"load the 3s and 7s": paired(one_by_one, mnist_sample, rounds)}


def import_ratio(rounds: int) -> dict:
    """A Python that imports all of the package against one that imports torch alone."""

    def run(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    return paired(run("import mnist_ce.all"), run("import torch"), rounds)


def quietly() -> None:
    """Silence fastai's warnings, and ours: the original validates on its training images."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".* validation images looked up are training images")


def main() -> None:
    """Run all, print the table, write the JSON."""
    quietly()
    train, _ = mnist_sample()
    results = fit_ratios(train, rounds=7) | loading_ratio(rounds=3)
    rows = [
        [name, f"{r['slow'] * 1e3:.0f}", f"{r['fast'] * 1e3:.0f}", f"{r['ratio']:.2f}"]
        for name, r in results.items()
    ]
    print(Table(rows, ["what", "notebook style, ms", "mnist_ce, ms", "ratio"]))
    imports = results["import mnist_ce.all / import torch"] = import_ratio(rounds=15)
    print(f"\nimport mnist_ce.all: {imports['ratio']:.2f} times import torch")
    settings = dict(rounds=dict(fit=7, load=3, imports=15))
    write_json(HERE / "speed.json", dict(record=make_record(settings), results=results))
    print("medians; raw values: benchmarks/speed.json")


if __name__ == "__main__":
    main()
