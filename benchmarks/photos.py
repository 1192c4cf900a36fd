"""Photographs of MNIST's test images: how often is one answered as the image itself would be?

Each of 500 test images is enlarged, shifted, inverted, put on paper, unevenly lit, all of that at
once, and then turned, blurred and kept as JPEG besides. Models that were trained on MNIST alone
answer. Prints a table and writes photos.json.
"""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy import ndimage
from speed import HERE

from mnist_ce.data import mnist
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import recipe
from mnist_ce.photo import read_digit
from mnist_ce.results import Run, Table, make_record, write_json
from mnist_ce.training import fit

Grey = np.ndarray  # [H, W], 0 to 1
KINDS = "same scaled shifted inverted paper lit:gradient lit:vignette lit:shadow all stress".split()


def picture_of(grey: Grey) -> Image.Image:
    return Image.fromarray((grey * 255).round().astype(np.uint8))


def grey_of(picture: Image.Image) -> Grey:
    return np.asarray(picture, np.float32) / 255


def enlarged(ink: Grey, draw: np.random.Generator) -> Grey:
    """Three to ten times as large."""
    side = int(28 * draw.uniform(3, 10))
    return grey_of(picture_of(ink).resize((side, side), Image.Resampling.BICUBIC))


def shifted(ink: Grey, draw: np.random.Generator) -> Grey:
    """Somewhere on a sheet that is up to three times as wide and high."""
    sheet = np.zeros([int(side * draw.uniform(1.2, 3)) for side in ink.shape], np.float32)
    top, left = (int(draw.integers(0, big - n + 1)) for big, n in zip(sheet.shape, ink.shape))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def on_paper(ink: Grey, draw: np.random.Generator) -> Grey:
    """Dark ink on paper with noise, clouds and fibers."""
    h, w = ink.shape
    noise = draw.normal(0, 0.02, (h, w))
    clouds = 0.18 * ndimage.gaussian_filter(draw.normal(0, 1, (h, w)), 3)
    fibers = np.zeros((h, w))
    for _ in range(h * w // 2500):
        along, angle = np.arange(draw.integers(5, 25)), draw.uniform(0, np.pi)
        rows = (draw.uniform(0, h) + along * np.sin(angle)).astype(int) % h
        columns = (draw.uniform(0, w) + along * np.cos(angle)).astype(int) % w
        fibers[rows, columns] += draw.choice([-0.06, 0.06])
    page = draw.uniform(0.75, 0.98) + noise + clouds + ndimage.gaussian_filter(fibers, 0.6)
    return np.clip(page * (1 - ink) + (draw.uniform(0.05, 0.35) + noise) * ink, 0, 1)


def lit(grey: Grey, draw: np.random.Generator, light: str) -> Grey:
    """Under light that falls off to a side, or from the middle, or has the edge of a shadow."""
    h, w = grey.shape
    y, x = np.mgrid[-0.5 : 0.5 : h * 1j, -0.5 : 0.5 : w * 1j]
    angle = draw.uniform(0, 2 * np.pi)
    across = np.cos(angle) * x + np.sin(angle) * y
    if light == "gradient":
        dark = 0.6 * np.clip(across + 0.5, 0, 1)
    elif light == "vignette":
        away = np.hypot(x - draw.uniform(-0.2, 0.2), y - draw.uniform(-0.2, 0.2))
        dark = 0.6 * np.clip(away / 0.7, 0, 1) ** 2
    else:
        edge = (across - draw.uniform(-0.2, 0.2)) * min(h, w) / draw.uniform(2, 8)
        dark = draw.uniform(0.3, 0.55) / (1 + np.exp(-np.clip(edge, -30, 30)))
    return np.clip(grey * (1 - dark), 0, 1)


def as_photographed(grey: Grey, draw: np.random.Generator) -> Grey:
    """Blurred, and kept as JPEG."""
    file = io.BytesIO()
    blur = ImageFilter.GaussianBlur(draw.uniform(0.5, 2))
    picture_of(grey).filter(blur).save(file, "JPEG", quality=int(draw.integers(30, 80)))
    return grey_of(Image.open(file))


def version(kind: str, ink: Grey, draw: np.random.Generator) -> Grey:
    """An image of MNIST, float [28, 28], ink 1, as a photograph of one of the KINDS."""
    if kind == "same":
        return ink
    ink = enlarged(ink, draw)
    if kind == "scaled":
        return 1 - ink
    if kind == "shifted":
        return 1 - shifted(ink, draw)
    if kind == "inverted":
        return ink
    if kind == "paper":
        return on_paper(ink, draw)
    if kind.startswith("lit:"):
        return lit(1 - 0.85 * ink, draw, kind[4:])
    ink = shifted(ink, draw)
    if kind == "stress":
        turn = draw.uniform(-8, 8)
        ink = grey_of(picture_of(ink).rotate(turn, Image.Resampling.BICUBIC))
    page = lit(on_paper(ink, draw), draw, draw.choice(["gradient", "vignette", "shadow"]))
    page = 1 - page if draw.random() < 0.5 else page
    return as_photographed(page, draw) if kind == "stress" else page


def main(count: int = 500) -> None:
    """Train, photograph, answer, print the table, write the JSON."""
    train, valid = mnist()
    rows = torch.randperm(len(valid), generator=torch.Generator().manual_seed(0))[:count]
    valid = valid[rows]
    settings = dict(epochs=1, progress=False)
    models: dict[str, Run] = {
        "linear": fit(cross_entropy_loss, train, valid, epochs=5, lr=0.3, progress=False),
        "convnet": fit(cross_entropy_loss, train, valid, **settings, **recipe("convnet", 10)),
    }
    found: dict[str, Any] = {"originals": dict(refused=[])}
    for name, run in models.items():
        right = run.predict(valid.x) == valid.digits
        found["originals"][name] = right.double().mean().item()
    for kind in KINDS:
        seen, refused = torch.zeros(count, 784), torch.zeros(count, dtype=torch.bool)
        for k, row in enumerate(rows.tolist()):
            draw = np.random.default_rng([row, KINDS.index(kind)])
            try:
                seen[k] = read_digit(version(kind, valid.x[k].view(28, 28).numpy(), draw))
            except ValueError:
                refused[k] = True
        found[kind] = dict(refused=rows[refused].tolist())
        for name, run in models.items():
            right = (run.predict(seen) == valid.digits) & ~refused
            found[kind][name] = right.double().mean().item()
    cells = [[kind, *(of[name] for name in models), len(of["refused"])] for kind, of in found.items()]
    print(Table(cells, [f"{count} images", *models, "refused"]))
    write_json(HERE / "photos.json", dict(record=make_record(dict(images=count)), results=found))


if __name__ == "__main__":
    main()
