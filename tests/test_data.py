"""All sources give the same tensors, anybody's data gets in, and what is wrong is named."""
import base64
import gzip
import hashlib
import io
import re
import shutil
import sys
import warnings
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from conftest import named
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mnist_ce.data import (
    BUNDLE,
    Digits,
    _check_pair,
    _read_bundle,
    batches,
    mnist,
    mnist_sample,
    write_bundle,
)


def same(ours, theirs):
    """Assert that two pairs of Digits hold the same bits."""
    for a, b in zip(ours, theirs):
        assert a.classes == b.classes
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)


def write_pngs(folder, digits):
    """Write Digits as PNGs, a folder for each digit, each file named after the image's index."""
    for d in digits.classes:
        (folder / str(d)).mkdir(parents=True, exist_ok=True)
    images = (digits.x * 255).round().byte().view(-1, 28, 28).numpy()
    for pixels, digit, index in zip(images, digits.digits, digits.index):
        Image.fromarray(pixels).save(folder / f"{digit}" / f"{index}.png")


def write_idx(folder, prefix, digits, zipped=False):
    """Write Digits that cover a whole split as MNIST's two files."""
    images, labels = np.empty((len(digits), 784), np.uint8), np.empty(len(digits), np.uint8)
    images[digits.index] = (digits.x * 255).round().byte()
    labels[digits.index] = digits.digits
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


def test_order(sample):
    train = sample[0]
    names = [f"{i}.png" for i in train.index[:6131].tolist()]
    assert names == sorted(names)
    ten = mnist()[0]
    assert torch.equal(ten.y, ten.y.sort(0).values)


def test_png_folder_equals_the_bundle(sample, pngs):
    same(mnist_sample(pngs), sample)


def test_ten_digit_png_folder_equals_the_bundle(tmp_path):
    train, test = mnist()
    rows = [torch.cat([(d.y == k).nonzero()[:20, 0] for k in range(10)]) for d in (train, test)]
    few = [train[rows[0]], test[rows[1]]]
    for split, digits in zip(("training", "testing"), few):
        write_pngs(tmp_path / split, digits)
    same(mnist(str(tmp_path)), few)


def test_idx_files_equal_the_bundle(sample, idx):
    same(mnist_sample(idx), sample)
    same(mnist(idx), mnist())


def test_the_bundle_is_the_one_that_was_published():
    digest = "ad61eaba2c5fbbe6880ca7cf51e10c94b1d7655069afa7b3c3bb17359b17b685"
    assert hashlib.sha256(BUNDLE.read_bytes()).hexdigest() == digest


def test_only_mnist_makes_the_bundle(idx, tmp_path):
    for path in idx.iterdir():
        shutil.copy(path, tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is not MNIST's"):
        write_bundle(tmp_path, tmp_path / "bundle.npz")


# fastcore leaves the file of its settings for the garbage collector to close
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # fastai's, not ours
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
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
        ("train-images-idx3-ubyte", lambda b: b"\0\0\x08\x01" + b[4:], "magic number 0x00000803"),
        ("train-labels-idx1-ubyte", lambda b: b"\0\0\x0d\x01" + b[4:], "magic number 0x00000801"),
        ("train-images-idx3-ubyte", lambda b: b[:-1], "train-images-idx3-ubyte is cut short"),
        ("train-images-idx3-ubyte", lambda b: b[:6], "train-images-idx3-ubyte is cut short"),
        ("train-images-idx3-ubyte", lambda b: b"", "expected the magic number"),
        (
            "train-labels-idx1-ubyte",
            lambda b: b[:4] + (59999).to_bytes(4, "big") + b[9:],
            "60000 images, .* 59999 labels",
        ),
        ("train-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0b", "label 11"),
        ("t10k-images-idx3-ubyte.gz", lambda b: b[:10000], "t10k-images-idx3-ubyte.gz cannot"),
    ],
)
def test_damaged_idx_files_are_refused(idx, tmp_path, file, spoil, words):
    for path in idx.iterdir():
        if path.name == file:
            (tmp_path / file).write_bytes(spoil(path.read_bytes()))
        else:
            (tmp_path / path.name).hardlink_to(path)
    with pytest.raises(ValueError, match=words):
        mnist_sample(tmp_path)


def test_a_missing_idx_file_is_named(idx, tmp_path):
    shutil.copy(idx / "train-images-idx3-ubyte", tmp_path)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte cannot be read"):
        mnist_sample(tmp_path)


def test_a_damaged_bundle_is_refused(tmp_path):
    """A byte changed anywhere is named, or sits where it changes no array: never read as data."""
    names = ["test_7", "test_7_index"]
    ours, path = _read_bundle(names), tmp_path / "mnist.npz"
    data = bytearray(BUNDLE.read_bytes())
    with zipfile.ZipFile(BUNDLE) as bundle:
        info = bundle.getinfo("test_7.npy")
        start, end, directory = info.header_offset, info.compress_size, bundle.start_dir
    inside = [start + 60 + (end - 100) * k // 12 for k in range(13)]
    end = start + end + 40
    around = [*range(start, start + 46, 5), *range(directory, len(data), 181), end]
    for place in inside + around:
        data[place] ^= 0x55
        path.write_bytes(data)
        data[place] ^= 0x55
        try:
            again = _read_bundle(names, path)
        except ValueError as error:
            assert str(error).startswith(f"{path} is damaged")
        else:
            assert place not in inside
            assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, again))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="mnist.npz is damaged"):
        _read_bundle(names, path)
    with pytest.raises(ValueError, match="absent.npz is missing"):
        _read_bundle(names, tmp_path / "absent.npz")


def test_sources_that_are_none(tmp_path):
    for source in "fastia", tmp_path / "absent":
        with pytest.raises(ValueError, match="neither 'bundle' nor 'fastai' nor a folder that"):
            mnist_sample(source)
    for classes in (), (3,), (3, 3), (3, 10):
        with pytest.raises(ValueError, match="two or more different digits"):
            mnist(classes=classes)


def test_batches(sample):
    train = sample[0]
    generator = torch.Generator().manual_seed(1)
    rows = torch.cat([xb for xb, _ in batches(train, np.int64(256), generator)])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    assert torch.equal(rows, train.x[order])
    for size in 0, -1, 2.5, "256", True, np.bool_(True):
        with pytest.raises(ValueError, match="batch_size="):
            batches(train, size)
    with pytest.raises(TypeError, match="generator=1: write torch.Generator"):
        batches(train, 256, 1)


def test_rows(sample):
    train = sample[0]
    mask = train.y == 1
    for rows in mask, mask.squeeze(1), mask.squeeze(1).numpy(), mask.squeeze(1).tolist():
        assert torch.equal(train[rows].index, train.index[:6131])
    numbers = torch.tensor([5, 6, -1])
    for rows in numbers, numbers.int(), numbers.numpy(), numbers.tolist():
        assert train[rows].index.tolist() == train.index[numbers].tolist()
    assert train[5:7].index.tolist() == train[range(5, 7)].index.tolist()
    assert len(train[[]]) == len(train[:0]) == 0
    with pytest.raises(ValueError, match="mask over 12396"):
        train[torch.ones(5, dtype=torch.bool)]
    with pytest.raises(ValueError, match="write rows.flatten"):
        train[(train.y == 1).nonzero()]
    for rows, words in (0, r"write the slice \[0:1\]"), (np.int64(3), "slice"), (None, "NoneType"), ([0.5], "float"):
        with pytest.raises(TypeError, match=words):
            train[rows]
    with pytest.raises(TypeError, match="write .bool"):
        train[torch.ones(len(train), dtype=torch.uint8)]


def test_toy_digits_refuse_bad_tensors():
    x, y = torch.zeros(3, 4), torch.tensor([[0], [1], [1]])
    assert Digits(x, y, (7, 3)).index.tolist() == [0, 1, 2]
    for kind, arguments in [
        (TypeError, (x.double(), y, (7, 3))),
        (TypeError, (x.numpy(), y, (7, 3))),
        (TypeError, (x, y.float(), (7, 3))),
        (TypeError, (x, y, "73")),
        (TypeError, (x, y, (7, 3), [0, 1, 2])),
        (ValueError, (x, y.squeeze(1), (7, 3))),
        (ValueError, (x, y[:2], (7, 3))),
        (ValueError, (x, y + 1, (7, 3))),
        (ValueError, (x, y - 1, (7, 3))),
        (ValueError, (x, y, (3, 3))),
        (ValueError, (x, y, (7, 3), torch.arange(2))),
        (ValueError, (x.to("meta"), y, (7, 3))),
        (ValueError, (torch.tensor(0.5), y, (7, 3))),
    ]:
        with pytest.raises(kind, match="^Digits: "):
            Digits(*arguments)


def test_classes_are_pythons_own():
    x, y = torch.zeros(2, 4), torch.tensor([[0], [1]])
    for classes in np.array([7, 3]), torch.tensor([7, 3]), [np.int64(7), np.uint8(3)]:
        digits = Digits(x, y, classes)
        assert digits.classes == (7, 3) and {*map(type, digits.classes)} == {int}
        assert digits.digits.dtype == torch.int64 and digits.digits.tolist() == [7, 3]
    words = Digits(x, y, np.array(["seven", "three"]))
    assert {*map(type, words.classes)} == {str} and words.digits.tolist() == ["seven", "three"]


# Anybody's data


@pytest.fixture(scope="session")
def few(sample):
    """Twenty 3s and twenty 7s in an order of their own, and their grey values as bytes."""
    train = sample[0][torch.randperm(12396, generator=torch.Generator().manual_seed(0))]
    rows = [(train.digits == digit).nonzero()[:20, 0] for digit in (3, 7)]
    digits = train[torch.cat(rows).sort().values]
    return digits, (digits.x * 255).round().byte().view(-1, 28, 28)


class Items:
    """A data set of pairs, as anybody writes one: it has a length and items."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


class Stream(IterableDataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return iter(self.pairs)


def forms(images, labels):
    """The same images, bytes [N, 28, 28], and labels, int [N], in every form but files."""
    array, floats = images.numpy(), images.float() / 255
    pictures = [Image.fromarray(pixels) for pixels in array]
    column = labels.unsqueeze(1)
    pairs = list(zip(floats, labels))
    return {
        "bytes": (array, labels.numpy()),
        "bytes, reversed twice": (array[::-1][::-1], labels),
        "big-endian": (array.astype(">i4"), labels.numpy().astype(">i8")),
        "int tensor": (images.long(), labels.int()),
        "channel first": (images[:, None], column),
        "channel last": (array[..., None], column.numpy()),
        "grey three times": (floats[:, None].expand(-1, 3, -1, -1), labels),
        "rows": (floats.flatten(1), labels.float()),
        "float64": (floats.double().numpy(), labels.tolist()),
        "requires grad": (floats.clone().requires_grad_(), list(labels)),
        "nested lists": (floats.flatten(1).tolist(), tuple(labels.tolist())),
        "list of arrays": (list(array), [np.int64(label) for label in labels]),
        "list of tensors": (list(floats), [[label] for label in labels.tolist()]),
        "pictures": (pictures, labels),
        "colored pictures": ([picture.convert("RGB") for picture in pictures], labels),
        "pair": ((floats, labels),),
        "list of pairs": (pairs,),
        "zip": (zip(floats, labels),),
        "TensorDataset": (TensorDataset(floats[:, None], column),),
        "Dataset of pictures": (Items(pictures, labels.tolist()),),
        "Hugging Face": ([{"image": p, "label": int(k)} for p, k in zip(pictures, labels)],),
        "IterableDataset": (Stream(pairs),),
        "DataLoader": (DataLoader(TensorDataset(floats[:, None], labels), batch_size=16),),
        "DataLoader of bytes": (DataLoader(Items(images, labels.tolist()), batch_size=7),),
        "loader of a stream": (DataLoader(Stream(pairs), batch_size=16),),
        "Digits": (Digits.of(floats, labels),),
    }


def check(ours, few, name=""):
    """Assert that `ours` is the few digits bit for bit, its classes in order."""
    assert ours.classes == (3, 7) and {*map(type, ours.classes)} == {int}, name
    assert torch.equal(ours.x, few[0].x) and torch.equal(ours.digits, few[0].digits), name
    assert ours.y.shape == (len(ours), 1), name


def test_every_form_gives_the_same_digits(few):
    state = torch.get_rng_state()
    for name, arguments in forms(few[1], few[0].digits).items():
        check(Digits.of(*arguments), few, name)
    assert torch.equal(state, torch.get_rng_state()), "a loader draws from the global generator"


def test_of_copies(few):
    floats = few[0].x.clone()
    for images in floats, floats.numpy():
        ours = Digits.of(images, few[0].digits)
        images[:] = 0.5
        assert torch.equal(ours.x, few[0].x)
        floats.copy_(few[0].x)


@pytest.mark.parametrize(
    "names",
    [("three", "seven"), (True, False), (0, -3), ("drei", "sieben und mehr")],
    ids=named,
)
def test_labels_of_any_kind(few, names):
    labels = [names[0] if digit == 3 else names[1] for digit in few[0].digits]
    pandas = pytest.importorskip("pandas")
    for form in labels, np.array(labels), np.array(labels, dtype=object), pandas.Series(labels):
        ours = Digits.of(few[0].x, form)
        assert ours.classes == tuple(sorted(names))
        assert {*map(type, ours.classes)} == {type(names[0])}
        assert ours.digits.tolist() == labels
        assert isinstance(ours.digits, torch.Tensor) == (type(names[0]) is int)
    assert pandas.Categorical(labels).tolist() == labels
    assert Digits.of(few[0].x, pandas.Categorical(labels)).digits.tolist() == labels
    ours = Digits.of(few[0].x, labels, classes=list(names))
    assert ours.classes == names and ours.digits.tolist() == labels


def test_classes_of_the_training_set(sample, few):
    train = sample[0]
    ours = Digits.of(few[0].x, few[0].digits, classes=train.classes)
    assert ours.classes == (7, 3) and torch.equal(ours.y, few[0].y)
    again = Digits.of(few[0], classes=(3, 7))
    assert torch.equal(again.y, 1 - few[0].y) and torch.equal(again.index, few[0].index)
    assert Digits.of(few[0]).classes == (7, 3)
    with pytest.raises(ValueError, match=r"20 labels are none of the classes \(7, 1\): 3"):
        Digits.of(few[0].x, few[0].digits, classes=(7, 1))
    with pytest.raises(ValueError, match=r"none of the classes \(3, 7\): '3', '7'"):
        Digits.of(few[0].x, list(map(str, few[0].digits.tolist())), classes=(3, 7))


def test_a_csv_and_a_frame(few, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    digits, images = few
    frame = pandas.DataFrame(images.flatten(1).numpy()).add_prefix("pixel")
    check(Digits.of(frame, digits.digits), few)
    frame.insert(0, "label", digits.digits.numpy())
    check(Digits.of(frame), few)
    numbers = ["label", *map(str, range(784))]
    for name, header in [
        ("kaggle.csv", True), ("plain.csv", False), ("zip.csv.gz", True), ("number.csv", numbers)
    ]:
        frame.to_csv(tmp_path / name, index=False, header=header)
        check(Digits.of(tmp_path / name), few)
        check(Digits.of(str(tmp_path / name)), few)
    frame["label"] = ["three" if digit == 3 else "seven" for digit in digits.digits]
    frame.to_csv(tmp_path / "words.csv", index=False, header=False)
    assert Digits.of(tmp_path / "words.csv").classes == ("seven", "three")

    with pytest.raises(ValueError, match="no column 'label' among 'digit'"):
        Digits.of(frame.rename(columns={"label": "digit"}))
    with pytest.raises(ValueError, match="leave labels out"):
        Digits.of(frame, digits.digits)
    with pytest.raises(TypeError, match=r"columns \['name'\] hold no numbers"):
        Digits.of(frame.assign(name="x"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty.csv cannot be read as a csv"):
        Digits.of(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="absent.csv does not exist"):
        Digits.of(tmp_path / "absent.csv")
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(ValueError, match="neither a csv nor a folder"):
        Digits.of(tmp_path / "3.png")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="kaggle.csv needs pandas: pip install pandas"):
        Digits.of(tmp_path / "kaggle.csv")


def test_a_folder_of_class_folders(few, sample, tmp_path):
    write_pngs(tmp_path, few[0])
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / "3" / ".hidden").write_text("")
    ours = Digits.of(tmp_path)
    assert ours.classes == (3, 7) and ours.y.flatten().tolist() == [0] * 20 + [1] * 20
    names = [path.stem for d in "37" for path in sorted((tmp_path / d).glob("*.png"))]
    rows = [few[0].index.tolist().index(int(name)) for name in names]
    assert torch.equal(ours.x, few[0].x[rows])
    same([Digits.of(str(tmp_path), classes=(7, 3))], [Digits(ours.x, 1 - ours.y, (7, 3))])
    (tmp_path / "3").rename(tmp_path / "three")
    assert Digits.of(tmp_path).classes == ("7", "three")

    (tmp_path / "7" / "Thumbs.db").write_text("no picture")
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "7" / "deep").mkdir()
    with pytest.raises(ValueError) as error:
        Digits.of(tmp_path, classes=("7", "3"))
    for words in ("Thumbs.db", "labels.csv lies beside", "empty is empty", "deep is a folder",
                  "'three'", "3 are not"):
        assert words in str(error.value)
    for place in (tmp_path / "empty", tmp_path / "three"):
        with pytest.raises(ValueError, match="holds no class folders"):
            Digits.of(place)
    with pytest.raises(ValueError, match="leave labels out"):
        Digits.of(tmp_path, [1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pictures_of_any_size_and_mode(few, tmp_path, mode):
    """Ten times as large and in another mode, the digit is about the same."""
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    for digit, pixels in zip(few[0].digits[:8].tolist(), few[1][:8]):
        (tmp_path / str(digit)).mkdir(exist_ok=True)
        large = Image.fromarray(pixels.numpy()).resize((280, 280), Image.Resampling.NEAREST)
        if mode == "I;16":
            large = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
        else:
            large = large.convert(mode)
        number = len(list((tmp_path / str(digit)).iterdir()))
        large.save(tmp_path / str(digit) / f"{number}.{suffix}")
    ours = Digits.of(tmp_path)
    theirs = torch.cat([few[0].x[:8][few[0].digits[:8] == digit] for digit in (3, 7)])
    assert ours.x.shape == (8, 784)
    error = (ours.x - theirs).abs()
    assert error.mean() < 0.05 and (mode == "1" or error.max() < 0.35), (error.mean(), error.max())


def test_clear_is_white_and_wide_stays_wide():
    clear = Image.new("LA", (28, 28), (0, 0))
    clear.paste((0, 255), (10, 10, 18, 18))
    wide = Image.new("L", (280, 140), 50)
    wide.paste(250, (100, 60, 200, 80))
    with pytest.warns(UserWarning, match="dark on light"):
        Digits.of([clear, clear], [0, 1])
    ours = Digits.of([clear, wide], [0, 1]).x.view(-1, 28, 28) * 255
    assert ours[0, 0, 0] == 255 and ours[0, 14, 14] == 0
    assert (ours[1] > 150).nonzero().amin(0).tolist() == [13, 10]  # above it a margin of 7 rows
    assert (ours[1] > 150).nonzero().amax(0).tolist() == [14, 19] and ours[1, :7].unique() == 50
    turned = io.BytesIO()  # as a camera held upright stores it
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(turned, "PNG", exif=exif)
    upright = Digits.of([Image.open(turned), clear], [0, 1]).x.view(-1, 28, 28)[0]
    assert torch.equal(upright, torch.eye(28).rot90(-1))
    with pytest.raises(ValueError, match='mode "F" has no fixed white'):
        Digits.of([Image.new("F", (28, 28))], [0])


def test_other_sizes_are_rows(few):
    ours = Digits.of(few[0].x.view(-1, 14, 56), few[0].digits)
    assert torch.equal(ours.x, few[0].x)
    assert Digits.of(few[0].x[:, 350:450], few[0].digits).x.shape == (40, 100)


@pytest.mark.parametrize("scale", [1, 16, 200])
def test_ints_and_their_scale(few, scale):
    """0 and 1 alone are black and white; everything else counts from 0 to 255."""
    ints = (few[0].x.numpy() > 0.5).astype(np.int64) * scale
    if scale == 16:
        with pytest.warns(UserWarning, match="hardly any contrast: the images go from 0 to 0.0627"):
            ours = Digits.of(ints, few[0].digits)
    else:
        ours = Digits.of(ints, few[0].digits)
    assert torch.equal(ours.x, torch.from_numpy(ints) / (1 if scale == 1 else 255))
    black = Digits.of(few[0].x > 0.5, few[0].digits)
    assert torch.equal(black.x, (few[0].x > 0.5).float())


def nan(x):
    x = x.clone()
    x[5, 7] = float("nan")
    x[6, :2] = float("inf")
    return x


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda x: x * 255, "floats from 0 to 255, expected 0 to 1, .*: write .*data.x / 255"),
        (lambda x: x * 16, "floats from 0 to 16, .*data.x / 16"),
        (lambda x: x * 300 - 100, "floats from -100 to 200"),
        (lambda x: x / 255, "hardly any contrast: .* 0.00392157"),
        (lambda x: 1 - x, r"dark on light: the border's mean is 1.00, .*Digits\(1 - data.x"),
        (lambda x: ((1 - x) * 255).byte(), "dark on light"),
        (nan, "3 grey values in 2 images are NaN or infinite, the first in row 5"),
        (lambda x: x * (torch.arange(40) > 2).unsqueeze(1), "3 of the 40 images are blank"),
    ],
)
def test_what_looks_wrong_is_warned_of_once(few, spoil, words):
    images = spoil(few[0].x)
    with pytest.warns(UserWarning, match=words) as caught:
        ours = Digits.of(images, few[0].digits)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__, "it points at the caller's line"
    if images.is_floating_point():
        assert torch.equal(ours.x.nan_to_num(), images.nan_to_num()), "floats stay as they are"


def test_a_warning_writes_the_call_that_it_came_from(few, tmp_path):
    pandas = pytest.importorskip("pandas")
    x, labels = 1 - few[0].x, few[0].digits
    frame = pandas.DataFrame((x * 255).byte().numpy()).assign(kind=labels.numpy())
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    for call, given, named in [
        ("Digits.of(images, labels)", (x, labels), {}),
        ("Digits.of(images, labels, classes=…)", (x.numpy(), labels), dict(classes=(3, 7))),
        ("Digits.of(images)", ([*zip(x, labels.tolist())],), {}),
        ("Digits.of(images, 'kind')", (frame, "kind"), {}),
        (f"Digits.of({str(path)!r}, 'kind')", (path, "kind"), {}),
    ]:
        with pytest.warns(UserWarning) as caught:
            data = Digits.of(*given, **named)
        (told,) = [str(one.message) for one in caught]
        first, _, then = told.partition(": write ")[2].partition(", then ")
        assert first == f"data = {call}"
        cured = eval(then, dict(Digits=Digits, data=data))
        assert (cured.x - few[0].x).abs().max() < 1 / 255 and torch.equal(cured.digits, labels)


def test_one_class_is_warned_of(few):
    for classes in None, (7, 3):
        with pytest.warns(UserWarning, match="all 40 images are of the class 3"):
            Digits.of(few[0].x, [3] * 40, classes=classes)


def test_what_a_loader_drops_is_warned_of(few):
    loader = DataLoader(TensorDataset(few[0].x, few[0].digits), batch_size=16, drop_last=True)
    with pytest.warns(UserWarning, match="gave 32 of its 40 images"):
        assert len(Digits.of(loader)) == 32


def test_standardized_images_are_not_suspected(few):
    Digits.of((few[0].x - 0.1307) / 0.3081, few[0].digits)
    Digits.of(few[0].x * 2 - 1, few[0].digits)


X = torch.rand(6, 784, generator=torch.Generator().manual_seed(0))
K = [3, 7, 3, 7, 3, 7]


@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        (ValueError, (X,), "there are no labels"),
        (ValueError, (X, K[:5]), "6 images, but 5 labels"),
        (ValueError, (X[:0], []), "there are no images"),
        (ValueError, (X[0], K), r"images are \[784\], expected"),
        (ValueError, (X.view(6, 28, 28, 1, 1), K), "images are"),
        (ValueError, (torch.stack([X.view(6, 28, 28) / k for k in (1, 2, 3)], 1), K),
         r"in color: write their grey values, images.mean\(1\)"),
        (ValueError, ((X * 1000).int(), K), r"ints from 0 to 999, .*images / 999"),
        (ValueError, ((X * 255 - 128).to(torch.int8), K), "ints from -12"),
        (TypeError, (X.to(torch.complex64), K), "images of torch.complex64"),
        (TypeError, (np.full((6, 784), "a"), K), "images of <U1"),
        (TypeError, (Image.new("L", (28, 28)), [1]), "one picture"),
        (TypeError, (5, K), "images of the type int"),
        (TypeError, ({"x": X}, K), "images of the type dict"),
        (TypeError, ({"images": X, "target": K},), r"images of the type dict: write Digits.of\(data\['images'\], data\['target'\]\)"),
        (ValueError, (torch.ones(6, 28, 28, 4), K), r"in color: write their grey values, images\[..., :3\].mean\(3\)$"),
        (ValueError, (X, ["a", "b", "a ", "b", "a", "b"]),
         r"the labels 'a ' and 'a' differ by blanks alone: write \[label.strip\(\) for label in labels\]"),
        (ValueError, ([X[0], X[1, :9]], [3, 7]), r"image 0 is \[784\], but image 1 is \[9\]"),
        (TypeError, ([X[0], X[1].byte()], [3, 7]), "but image 1 is Tensor torch.uint8"),
        (ValueError, ([[0.1, 0.2], [0.3]], [3, 7]), "different sizes"),
        (ValueError, (X, np.eye(6)), r"write labels.argmax\(1\)"),
        (ValueError, (X, np.eye(6).tolist()), r"write labels.argmax\(1\)"),
        (ValueError, (X, 3 * np.ones((6, 1, 1))), r"\[N\] or \[N, 1\], got \[6, 1, 1\]"),
        (ValueError, (X, [3, 7, 0.5, 3, 7, 7]), r"1 labels are no whole .*labels\[2\], 0.5"),
        (ValueError, (X, torch.tensor([3, float("nan")] * 3)), r"labels\[1\], nan"),
        (ValueError, (X, ["a", None, "b", None, "a", "a"]), r"2 labels are missing, .*labels\[1\]"),
        (TypeError, (X, [3, "7", 3, 7, 3, 7]), r"labels\[0\] is 3, labels\[1\] is '7'"),
        (TypeError, (X, np.array([b"a", b"b"] * 3)), r"write labels.astype\(str\)"),
        (TypeError, (X, "373737"), "labels must be a list"),
        (TypeError, (X, set(K)), "labels must be a list"),
        (ValueError, (Items([], []),), "Items is empty"),
        (ValueError, (DataLoader(Items([], []), shuffle=False),), "DataLoader is empty"),
        (TypeError, (DataLoader(X, batch_size=2),), "batch 0 of DataLoader is no pair"),
        (TypeError, (TensorDataset(X, X, X),), "item 0 of TensorDataset is no pair .* tuple of 3"),
        (TypeError, (DataLoader(list(zip(X, K)), batch_size=None),), "single label"),
        (ValueError, (DataLoader(list(zip(X, K))), K), "brings its own labels"),
    ],
)
def test_what_is_wrong_is_refused(kind, arguments, words):
    with pytest.raises(kind, match=words) as error:
        Digits.of(*arguments)
    assert type(error.value) is kind and str(error.value).startswith("Digits.of: ")


def test_all_that_is_wrong_is_named_at_once():
    images = np.zeros((5, 28, 28, 2))
    with pytest.raises(ValueError, match="2 things are wrong:\n- images are .*\n- .*argmax"):
        Digits.of(images, np.eye(5))
    with pytest.raises(TypeError, match="^Digits.of: 3 things are wrong:") as error:
        Digits.of((X * 999).int(), [3, "7"], classes=(1, 1))
    for words in "ints from 0 to 998", "labels[1] is '7'", "(1, 1) has a class twice":
        assert words in str(error.value)
    with pytest.raises(TypeError, match="^Digits: 4 things are wrong:"):
        Digits(X.double().view(6, 28, 28), torch.zeros(5, 1, dtype=torch.int64) + 2, (0, 1))


def test_a_users_own_error_stays_his_own():
    class Broken(Items):
        def __getitem__(self, i):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        Digits.of(Broken(X, K))


# fastai scripts a function when it is imported, and leaves files to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_fastais_loaders(few):
    core = pytest.importorskip("fastai.data.core", reason="fastai is a development tool")
    load = pytest.importorskip("fastai.data.load")
    pairs = list(zip(few[0].x, few[0].digits))
    train, valid = (load.DataLoader(pairs, bs=16, num_workers=0) for _ in range(2))
    check(Digits.of(train), few)
    with pytest.raises(TypeError, match=r"write Digits.of\(dls.train\)"):
        Digits.of(core.DataLoaders(train, valid))


# The pair


@pytest.mark.parametrize(
    "kind, spoil, words",
    [
        (TypeError, lambda t, v: (DataLoader(t.x), v), r"train must be Digits.*Digits.of\(train\)"),
        (TypeError, lambda t, v: (t, v.x), r"valid must be Digits.*Digits.of\(images, labels\)"),
        (TypeError, lambda t, v: (None, v[:0]), "2 things are wrong:"),
        (ValueError, lambda t, v: (t, v[:0]), "valid has no images"),
        (ValueError, lambda t, v: (t, Digits(v.x, v.y, (3, 7))), "classes=train.classes"),
        (ValueError, lambda t, v: (t, Digits(v.x[:, 1:], v.y, (7, 3))), "784 pixels, valid's 783"),
    ],
)
def test_no_pair(sample, kind, spoil, words):
    with pytest.raises(kind, match=words):
        _check_pair(*spoil(*sample))


def test_training_images_among_the_validation_images(sample, few):
    train, valid = sample
    mixed = Digits(torch.cat([valid.x, train.x[:60]]), torch.cat([valid.y, train.y[:60]]), (7, 3))
    for data in (train, train), (train, train[::7]), (train, mixed), (few[0], few[0][:20]):
        with pytest.warns(UserWarning, match="validation images looked up are training images"):
            _check_pair(*data)
    few_copies = Digits(mixed.x[:2048], mixed.y[:2048], (7, 3))
    _check_pair(train, few_copies)  # ten copies: less than one in a hundred
    _check_pair(train, valid)


@pytest.mark.parametrize("n", [2, 5, 20, 100, 1000])
def test_inputs_that_meet_by_chance_are_no_copies(n):
    """Rows of a few coins: twelve draws of each size, none suspected, unless it is the same set."""
    generator = torch.Generator().manual_seed(n)
    for coins in 1, 3, 8:
        for _ in range(4):
            x = torch.randint(2, (n + 200, coins), generator=generator).float()
            y = torch.randint(2, (n + 200, 1), generator=generator)
            data = Digits(x, y, (0, 1))
            _check_pair(data[:n], data[n:])
    with pytest.warns(UserWarning, match="looked up"):
        _check_pair(data[:n], data[:n])


def test_a_column_that_numbers_the_rows_is_no_pixel(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = pandas.DataFrame(np.eye(4, dtype=np.uint8) * 255).assign(label=[0, 1, 0, 1])
    frame.to_csv(tmp_path / "images.csv")
    with pytest.raises(ValueError, match="the column 'Unnamed: 0' numbers the rows and is no pixel"):
        Digits.of(tmp_path / "images.csv")


def written(path, *columns):
    np.savetxt(path, np.column_stack(columns), fmt="%d", delimiter=",")
    return path


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("pixels", ["as they are", "black and white", "dark on noisy paper", "light on noise", "random"])
def test_labels_in_the_last_column_without_a_header_are_never_guessed(sample, tmp_path, pixels, n):
    """Of each kind of pixels: labels first are read, labels last refused in a line that helps."""
    few = sample[0][torch.arange(n) * 12396 // n]
    x, noise = (few.x * 255).round().long(), torch.Generator().manual_seed(0)
    x = {
        "as they are": lambda: x,
        "black and white": lambda: x // 128,
        "dark on noisy paper": lambda: (255 - x - torch.randint(50, x.shape, generator=noise)).clamp(0),
        "light on noise": lambda: (x + torch.randint(10, x.shape, generator=noise)).clamp(0, 255),
        "random": lambda: torch.randint(256, x.shape, generator=noise),
    }[pixels]()
    plain, turned = written(tmp_path / "a.csv", few.digits, x), written(tmp_path / "b.csv", x, few.digits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is dark on light
        first, named = Digits.of(plain), Digits.of(turned, 784)
        assert torch.equal(first.x, named.x) and torch.equal(first.digits, few.digits) and torch.equal(named.digits, few.digits)
        told = f"{turned} has no header, and its last column looks like the labels, not its first: write Digits.of({str(turned)!r}, 784), or 0"
        with pytest.raises(ValueError, match=re.escape(told)) as caught:
            Digits.of(turned)
        assert "\n" not in str(caught.value)
        assert torch.equal(Digits.of(turned, 0).digits, x[:, 0]), "who says so is believed"


def test_row_numbers_without_a_header_are_no_labels(few, tmp_path):
    x = (few[0].x * 255).round().long()
    for start in 0, 1:
        path = written(tmp_path / "a.csv", torch.arange(40) + start, few[0].digits, x)
        for named in (), (1,):
            with pytest.raises(ValueError, match=f"the first column of {re.escape(str(path))} numbers the rows and is no pixel: drop it"):
                Digits.of(path, *named)
    assert Digits.of(written(tmp_path / "b.csv", torch.arange(10), x[:10])).classes == (*range(10),), "one of each"


def picture_of(digits):
    """The picture that `digits` show of themselves, as grey and alpha, its words and its line."""
    shown = re.fullmatch(
        r'<img alt="(.*)" src="data:image/png;base64,(.*?)" style="max-width:100%"><div>(.*)</div>', digits._repr_html_()
    )
    words, source, line = shown.groups()
    with Image.open(io.BytesIO(base64.b64decode(source))) as picture:
        return np.asarray(picture), words, line


def test_images_show_of_each_class_its_share_dark_on_white():
    y = torch.tensor([1, 0] * 30 + [0] * 60)  # 90 of the first class, 30 of the second
    x = torch.linspace(0, 1, 120).view(-1, 1).expand(-1, 64)
    pixels, words, line = picture_of(Digits(x, y.view(-1, 1), (7, 3)))
    assert words == "20 of the images: " + ", ".join("7" * 15 + "3" * 5)
    assert line == "120 images: 90 of 7, 30 of 3; 8 × 8, 0 to 1, cpu"
    assert pixels.shape == (116, 596, 2), "two rows of ten"
    assert pixels[:56, :56, 1].min() == 255 and pixels[:, 56:60, 1].max() == 0, "gaps are of the page's color"
    first, last = pixels[0, 0, 0], pixels[60, 540, 0]
    assert first == 255 - int(255 * x[1, 0]) and last == 255 - int(255 * x[58, 0]), "rows 1 and 58 of the set"
    pixels, words, line = picture_of(Digits(x[:2], y[:2].view(-1, 1), (7, 3)))
    assert pixels.shape == (56, 116, 2) and words == "2 of the images: 7, 3" and line.startswith("2 images: 1 of 7, 1 of 3;")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_images_of_any_numbers_and_names_show_themselves(bad):
    x = torch.tensor([0.0, 300, bad]).view(-1, 1).expand(-1, 64)
    names = ("<b>", 'a"b', *(f"class {k}" for k in range(20)))
    pixels, words, line = picture_of(Digits(x, torch.tensor([[0], [0], [1]]), names))
    assert words == "3 of the images: &lt;b&gt;, &lt;b&gt;, a&quot;b"
    told = "NaN among them" if np.isnan(bad) else f"{min(0, bad):.4g} to {max(300, bad):.4g}"
    assert line.startswith("3 images: 2 of &lt;b&gt;, 1 of a&quot;b, 0 of class 0") and line.endswith(f"8 × 8, {told}, cpu")
    assert "0 of class 7, 12 more classes;" in line
    assert [pixels[0, k, 0] for k in (0, 60, 120)] == [255, 0, 255]


@pytest.mark.parametrize("shape", [(3, 4), (3, 49), (3, 65), (0, 784), (3, 0)], ids=str)
def test_what_are_no_images_is_a_line_alone(shape):
    digits = Digits(torch.zeros(shape), torch.zeros(shape[0], 1).long(), (7, 3))
    assert digits._repr_html_() is None and repr(digits) == f"Digits({shape[0]} images, classes (7, 3), cpu)"


def test_images_show_themselves_on_any_device(device):
    digits = Digits(torch.rand(5, 784), torch.tensor([[1], [0], [1], [0], [0]]), (7, 3)).to(device)
    with torch.inference_mode():
        assert picture_of(digits)[1] == "5 of the images: 7, 7, 7, 3, 3" and f", {device}" in picture_of(digits)[2]


def test_images_in_a_line_are_80_columns_wide_and_need_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    names = tuple(f"a class of quite some length {k}" for k in range(30))
    digits = Digits(torch.zeros(1, 64), torch.zeros(1, 1).long(), names)
    assert repr(digits) == "Digits(1 images, classes (a class of quite som, … 30 in all), cpu)"
    assert repr(Digits(digits.x, digits.y, tuple(range(20)))) == "Digits(1 images, classes (0, … 20 in all), cpu)"
    assert repr(Digits(digits.x, digits.y, tuple(range(10)))) == f"Digits(1 images, classes {(*range(10),)}, cpu)"
    assert digits._repr_html_().startswith("<img")
    half = Digits.__new__(Digits)
    assert repr(half).startswith("<mnist_ce.data.Digits object at") and half._repr_html_() is None


def test_split_draws_at_random_and_keeps_the_order(sample):
    few = sample[0][::40]
    train, valid = few.split(0.25)
    assert len(valid) == round(len(few) / 4) and len(train) + len(valid) == len(few)
    assert (train.index.tolist(), valid.index.tolist()) != (few.index[: len(train)].tolist(), few.index[len(train) :].tolist())
    for part in train, valid:
        at = [few.index.tolist().index(index) for index in part.index.tolist()]
        assert at == sorted(at) and torch.equal(few.x[at], part.x)
    assert not {*train.index.tolist()} & {*valid.index.tolist()}
    assert torch.equal(few.split(0.25)[1].x, valid.x) and not torch.equal(few.split(0.25, seed=1)[1].x, valid.x)
    for share in 0, 1, 1e-9, -0.5:
        with pytest.raises(ValueError, match=re.escape(f"split({share!r}) of {len(few)} images leaves a part empty")):
            few.split(share)


@pytest.mark.parametrize(
    "text, words",
    [
        ("label;a;b\n3;0,5;0,1\n7;0,1;0,2\n", r"separated by ';': write Digits.of\(pandas.read_csv\(path, sep=';'\), …\)"),
        ("label\ta\tb\n3\t0\t1\n7\t1\t2\n", r"separated by '\\t'"),
        ("ID,label,a,b\n1,3,0,1\n2,7,1,0\n", "the column 'ID' numbers the rows and is no pixel: drop it"),
        ("filename,label\na.png,3\nb.png,7\n", r"for pictures write \[Image.open\(path\) for path in frame\['filename'\]\]"),
        ("a,Label,b\n0,3,1\n1,7,2\n", r"labels, Digits.of\(data, 'Label'\)"),
        ("label,a,b\n", "it has no rows but its header"),
    ],
)
def test_a_csv_of_another_form_is_told_what_to_write(text, words, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises((ValueError, TypeError), match=words):
        Digits.of(tmp_path / "a.csv")


def test_files_of_another_kind_are_told_what_to_write(few, tmp_path):
    (tmp_path / "wide.csv").write_bytes("label,a,b\n3,0,1\n7,1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"UTF-16: write Digits.of\(pandas.read_csv\(path, encoding='utf-16'\), …\)"):
        Digits.of(tmp_path / "wide.csv")
    for name, write in (
        ("a.npy", "write Digits.of(np.load(path), labels)"), ("a.npz", "write Digits.of(npz['images'], npz['labels'])"),
        ("a.tsv", "write Digits.of(pandas.read_csv(path, sep='\\t'))"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=re.escape(write)):
            Digits.of(tmp_path / name)


def test_a_file_that_is_no_picture_is_named_and_not_its_bytes(tmp_path):
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "1.png").write_text("hello")
    with pytest.raises(ValueError, match=r"1\.png \(no picture that pillow can read\)") as caught:
        Digits.of(tmp_path)
    assert "BytesIO" not in str(caught.value)
