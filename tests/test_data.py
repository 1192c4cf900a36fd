"""All sources give the same tensors, and a damaged one is refused with its name."""
import gzip
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_ce.bundle import write_bundle
from mnist_ce.data import BUNDLE, batches, mnist, mnist_sample, open_bundle


def same(ours, theirs):
    """Assert that two pairs of Digits hold the same bits."""
    for a, b in zip(ours, theirs):
        assert a.classes == b.classes
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)


def write_pngs(folder, digits):
    """Write Digits as PNGs, a folder for each digit, each file named after the image's index."""
    for d in digits.classes:
        (folder / str(d)).mkdir(parents=True, exist_ok=True)
    for pixels, label, index in zip((digits.x * 255).round().byte().numpy(), digits.y, digits.index):
        Image.fromarray(pixels.reshape(28, 28)).save(folder / str(digits.classes[label]) / f"{index}.png")


def write_idx(folder, prefix, digits, zipped=False):
    """Write Digits that cover a whole split as MNIST's two files."""
    images, labels = np.empty((len(digits), 784), np.uint8), np.empty(len(digits), np.uint8)
    images[digits.index] = (digits.x * 255).round().byte()
    labels[digits.index] = np.array(digits.classes)[digits.y.squeeze(1)]
    size, side = len(digits).to_bytes(4, "big"), (28).to_bytes(4, "big")
    for name, data in {
        "images-idx3-ubyte": b"\0\0\x08\x03" + size + side + side + images.tobytes(),
        "labels-idx1-ubyte": b"\0\0\x08\x01" + size + labels.tobytes(),
    }.items():
        path = folder / f"{prefix}-{name}"
        if zipped:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(data, 1))
        else:
            path.write_bytes(data)


@pytest.fixture(scope="session")
def pngs(sample, tmp_path_factory):
    """The 3s and 7s as fastai's MNIST_SAMPLE lays them out."""
    folder = tmp_path_factory.mktemp("mnist_sample") / "mnist_sample"
    for split, digits in zip(("train", "valid"), sample):
        write_pngs(folder / split, digits)
    return folder


@pytest.fixture(scope="session")
def idx(tmp_path_factory):
    """MNIST's four files, the test images gzipped."""
    folder = tmp_path_factory.mktemp("idx")
    train, test = mnist()
    write_idx(folder, "train", train)
    write_idx(folder, "t10k", test, zipped=True)
    return folder


def test_sizes_and_order(sample):
    train, valid = sample
    assert (len(train), len(valid)) == (12396, 2038) and train.classes == (7, 3)
    assert train.y[:6131].all() and not train.y[6131:].any()
    names = [f"{i}.png" for i in train.index[:6131].tolist()]
    assert names == sorted(names)
    ten = mnist()
    assert (len(ten[0]), len(ten[1])) == (60000, 10000) and torch.equal(ten[0].y, ten[0].y.sort(0).values)


def test_png_folder_equals_the_bundle(sample, pngs):
    same(mnist_sample(pngs), sample)


def test_ten_digit_png_folder_equals_the_bundle(tmp_path):
    train, test = mnist()
    few = [digits[torch.cat([(digits.y == k).nonzero()[:20, 0] for k in range(10)])] for digits in (train, test)]
    for split, digits in zip(("training", "testing"), few):
        write_pngs(tmp_path / split, digits)
    same(mnist(str(tmp_path)), few)


def test_idx_files_equal_the_bundle(sample, idx):
    same(mnist_sample(idx), sample)
    same(mnist(idx), mnist())


def test_the_bundle_is_made_again_byte_for_byte(idx, tmp_path):
    write_bundle(idx, tmp_path / "again.npz")
    made, ours = np.load(tmp_path / "again.npz"), open_bundle()
    assert made.files == ours.files and all(np.array_equal(made[name], ours[name]) for name in ours.files)
    write_bundle(idx, tmp_path / "twice.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "twice.npz").read_bytes()


def test_only_mnist_makes_the_bundle(idx, tmp_path):
    for path in idx.iterdir():
        shutil.copy(path, tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is not MNIST's"):
        write_bundle(tmp_path, tmp_path / "bundle.npz")


# fastcore leaves the file of its settings for the garbage collector to close
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # what fastai does, not we
def test_fastai_download_equals_the_bundle(sample, pngs, tmp_path, monkeypatch):
    external = pytest.importorskip("fastai.data.external", reason="fastai is a development tool")
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "mnist_sample.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(pngs, "mnist_sample")
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "home"))
    address = f"http://127.0.0.1:{server.server_port}/mnist_sample.tgz"
    monkeypatch.setattr(external.URLs, "MNIST_SAMPLE", address)
    try:
        same(mnist_sample("fastai"), sample)
    finally:
        server.shutdown()
        server.server_close()


# fastcore leaves the file of its settings for the garbage collector to close
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_network_for_the_download(tmp_path, monkeypatch):
    external = pytest.importorskip("fastai.data.external", reason="fastai is a development tool")
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    monkeypatch.setattr(external.URLs, "MNIST_SAMPLE", "http://127.0.0.1:9/nobody_listens.tgz")
    with pytest.raises(ValueError, match="could not get http://127.0.0.1:9/nobody_listens.tgz"):
        mnist_sample("fastai")


@pytest.fixture
def small(sample, tmp_path):
    """A folder with five images of each digit and split."""
    for split, digits in zip(("train", "valid"), sample):
        for rows in slice(0, 5), slice(-5, None):
            write_pngs(tmp_path / split, digits[rows])
    return tmp_path


def damage(name):
    """A function that does one kind of damage to a small folder."""
    file = "train/3/10.png"

    def image(**kwargs):
        return Image.new(kwargs.pop("mode", "L"), kwargs.pop("size", (28, 28)))

    return {
        "missing class": lambda f: shutil.rmtree(f / "valid/7"),
        "empty class": lambda f: [path.unlink() for path in (f / "valid/7").iterdir()],
        "truncated": lambda f: (f / file).write_bytes((f / file).read_bytes()[:-30]),
        "wrong size": lambda f: image(size=(28, 27)).save(f / file),
        "colour": lambda f: image(mode="RGB").save(f / file),
        "jpeg": lambda f: image().save(f / file, format="JPEG"),
        "no image": lambda f: (f / file).write_text("text"),
        "other name": lambda f: (f / "train/3/notes.txt").write_text("text"),
        "other splits": lambda f: (f / "train").rename(f / "trains"),
        "nothing": lambda f: [shutil.rmtree(f / s) for s in ("train", "valid")],
    }[name]


@pytest.mark.parametrize(
    "name, words",
    [
        ("missing class", "valid/7 is missing"),
        ("empty class", "valid/7 is empty"),
        ("truncated", "train/3/10.png is not an image"),
        ("wrong size", r"train/3/10.png is not an image of a digit: a \(28, 27\)"),
        ("colour", "train/3/10.png is not an image of a digit: .* mode RGB"),
        ("jpeg", "train/3/10.png is not an image of a digit: .* JPEG"),
        ("no image", "train/3/10.png is not an image"),
        ("other name", "train/3/notes.txt is not named"),
        ("other splits", "holds neither train/ and valid/"),
        ("nothing", "holds neither train/ and valid/"),
    ],
)
def test_a_damaged_png_folder_is_refused(small, name, words):
    mnist_sample(small)
    damage(name)(small)
    with pytest.raises(ValueError, match=words):
        mnist_sample(small)


@pytest.mark.parametrize(
    "file, spoil, words",
    [
        ("train-images-idx3-ubyte", lambda b: b"\0\0\x08\x01" + b[4:], "expected the magic number 0x00000803"),
        ("train-labels-idx1-ubyte", lambda b: b"\0\0\x0d\x01" + b[4:], "expected the magic number 0x00000801"),
        ("train-images-idx3-ubyte", lambda b: b[:-1], "train-images-idx3-ubyte is cut short"),
        ("train-images-idx3-ubyte", lambda b: b[:6], "train-images-idx3-ubyte is cut short"),
        ("train-images-idx3-ubyte", lambda b: b"", "expected the magic number"),
        ("train-labels-idx1-ubyte", lambda b: b[:4] + (59999).to_bytes(4, "big") + b[9:], "60000 images, .* 59999 labels"),
        ("train-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0b", "label 11"),
        ("t10k-images-idx3-ubyte.gz", lambda b: b[:1000], "t10k-images-idx3-ubyte cannot be read"),
    ],
)
def test_damaged_idx_files_are_refused(idx, tmp_path, file, spoil, words):
    for path in idx.iterdir():
        if path.name == file:
            (tmp_path / file).write_bytes(spoil(path.read_bytes()))
        else:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ValueError, match=words):
        mnist_sample(tmp_path)


def test_a_missing_idx_file_is_named(idx, tmp_path):
    shutil.copy(idx / "train-images-idx3-ubyte", tmp_path)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte cannot be read"):
        mnist_sample(tmp_path)


def test_a_damaged_bundle_is_refused(tmp_path):
    data = bytearray(BUNDLE.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mnist.npz").write_bytes(data)
    with pytest.raises(ValueError, match="mnist.npz is damaged"):
        open_bundle(tmp_path / "mnist.npz")
    with pytest.raises(ValueError, match="absent.npz cannot be read"):
        open_bundle(tmp_path / "absent.npz")


def test_sources_that_are_none(tmp_path):
    for source in "fastia", tmp_path / "absent":
        with pytest.raises(ValueError, match="neither 'bundle' nor 'fastai' nor a folder that exists"):
            mnist_sample(source)
    for classes in (), (3,), (3, 3), (3, 10):
        with pytest.raises(ValueError, match="two or more different digits"):
            mnist(classes=classes)


def test_batches(sample):
    train = sample[0]
    assert [len(xb) for xb, _ in batches(train, 256)][-2:] == [256, 108]
    rows = torch.cat([xb for xb, _ in batches(train, 256, torch.Generator().manual_seed(1))])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    assert torch.equal(rows, train.x[order])
    for size in 0, -1, 2.5, "256":
        with pytest.raises(ValueError, match="batch_size="):
            batches(train, size)


def test_rows(sample):
    train = sample[0]
    assert len(train[train.y == 1]) == len(train[(train.y == 1).squeeze(1)]) == 6131
    assert torch.equal(train[5:7].x, train[torch.tensor([5, 6])].x)
    with pytest.raises(ValueError, match="mask over 12396"):
        train[torch.ones(5, dtype=torch.bool)]
    with pytest.raises(TypeError, match="slice"):
        train[0]
