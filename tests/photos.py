"""Versions of MNIST images as photographs would show them."""
import io
import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

def enlarged(image, rng, low=3, high=10):
    """float [28, 28], ink 1 -> float [H, W], ink 1."""
    side = int(28 * rng.uniform(low, high))
    pic = Image.fromarray((image * 255).round().astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(pic, np.float32) / 255

def shifted(ink, rng):
    h, w = ink.shape
    H, W = (int(s * rng.uniform(1.2, 3)) for s in (h, w))
    out = np.zeros((H, W), np.float32)
    i, j = rng.integers(0, H - h + 1), rng.integers(0, W - w + 1)
    out[i:i+h, j:j+w] = ink
    return out

def paper(ink, rng, dark=None):
    """Dark ink on textured paper."""
    h, w = ink.shape
    tone, dark = rng.uniform(.75, .98), rng.uniform(.05, .35)
    noise = rng.normal(0, .02, (h, w)) + .03 * ndimage.gaussian_filter(rng.normal(0, 1, (h, w)), 3) * 6
    fibres = np.zeros((h, w))
    for _ in range(h * w // 2500):
        y, x, a, n = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi), rng.integers(5, 25)
        ys = (y + np.arange(n) * np.sin(a)).astype(int) % h; xs = (x + np.arange(n) * np.cos(a)).astype(int) % w
        fibres[ys, xs] += rng.choice([-.06, .06])
    page = tone + noise + ndimage.gaussian_filter(fibres, .6)
    return np.clip(page * (1 - ink) + (dark + noise) * ink, 0, 1)

def lit(grey, rng, kind=None):
    h, w = grey.shape
    y, x = np.mgrid[0:1:h * 1j, 0:1:w * 1j]
    kind = rng.choice(["gradient", "vignette", "shadow"]) if kind is None else kind
    if kind == "gradient":
        a = rng.uniform(0, 2 * np.pi); t = (np.cos(a) * (x - .5) + np.sin(a) * (y - .5)) + .5
        light = 1 - .6 * np.clip(t, 0, 1)
    elif kind == "vignette":
        r = np.hypot(x - rng.uniform(.3, .7), y - rng.uniform(.3, .7)); light = 1 - .6 * np.clip(r / .7, 0, 1) ** 2
    else:
        a, c = rng.uniform(0, 2 * np.pi), rng.uniform(-.2, .2)
        edge = (np.cos(a) * (x - .5) + np.sin(a) * (y - .5) - c) * min(h, w) / rng.uniform(2, 8)
        light = 1 - rng.uniform(.3, .55) / (1 + np.exp(-np.clip(edge, -30, 30)))
    return np.clip(grey * light, 0, 1)

def turned(ink, rng):
    pic = Image.fromarray((ink * 255).astype(np.uint8)).rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return np.asarray(pic, np.float32) / 255

def stressed(grey, rng):
    pic = Image.fromarray((grey * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(.5, 2)))
    b = io.BytesIO(); pic.save(b, "JPEG", quality=int(rng.integers(30, 80)))
    return np.asarray(Image.open(b), np.float32) / 255

def version(kind, image, rng):
    if kind == "same": return image
    ink = enlarged(image, rng)
    if kind == "scaled": return 1 - ink if rng.random() < .5 else ink
    if kind == "shifted": return 1 - shifted(ink, rng)
    if kind == "inverted": return ink
    if kind == "paper": return paper(ink, rng)
    if kind == "lit": return lit(1 - ink * .85, rng)
    if kind.startswith("lit:"): return lit(1 - ink * .85, rng, kind[4:])
    ink = shifted(ink, rng)
    page = lit(paper(turned(ink, rng) if kind == "stress" else ink, rng), rng)
    if kind == "all": return 1 - page if rng.random() < .5 else page
    if kind == "stress": return stressed(1 - page if rng.random() < .5 else page, rng)
KINDS = "same scaled shifted inverted paper lit:gradient lit:vignette lit:shadow all stress".split()
