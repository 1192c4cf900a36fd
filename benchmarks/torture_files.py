"""Damage files of each kind that the package reads, and count what comes of it.

Each experiment takes a count and gives dict(tried, clear, silent, wrong, hang, lost): mutations
tried; refused with the documented error that names the file; read as other images without a word;
another error, or one without the file's name; over two seconds; lost is for writers, 0 here. The
rest was harmless: the same images. Bare IDX and csv have no checksum, so there a changed pixel is
no fault, and "silent" is a file that was read as other than what stands in it.
"""

import contextlib
import csv
import gzip
import io
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas  # noqa: F401  (its import takes seconds, and is no hang of what imports it first)
from PIL import Image
from tally import counts

from mnist_ce.data import Digits, _read_bundle, mnist_sample

SPECIAL = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutate(data, rng):
    """`data` with one to three changes: bits, bytes, numbers, pieces gone, doubled or moved."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 4, 16, 64])
        near = bytes(data[place : place + length])
        kind = rng.randrange(9)
        if kind == 0 and near:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and near:
            data[place] = rng.randrange(256)
        elif kind == 2:
            number = rng.choice(SPECIAL)
            data[place : place + 4] = number.to_bytes(4, rng.choice(["big", "little"]))
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + length]
        elif kind == 5:
            data[place:place] = near
        elif kind == 6:
            data[place:place] = rng.randbytes(length)
        elif kind == 7:
            other = rng.randrange(len(data) + 1)
            data[place : place + length] = data[other : other + length]
        else:
            data += rng.randbytes(length)
        if not data:
            break
    return bytes(data)


class Hang(BaseException):
    pass


@contextlib.contextmanager
def alarm(seconds=10):
    """Raise Hang after so long, where there are signals to do it with."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(counts, read, truth, names, told=None):
    """Count what comes of `read()`, which should give `truth`, or refuse and name one of `names`.

    truth: a function of what was read: whether that is right. A warning is as good as an error.
    TypeError is what `Digits.of` documents for words where numbers are expected.
    """
    counts["tried"] += 1
    start, said = time.perf_counter(), None
    try:
        with alarm(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = read()
    except Hang:
        counts["hang"] += 1
        return
    except (ValueError, TypeError, OSError) as error:
        named = any(name in str(error) for name in names)
        counts["clear" if named else "wrong"] += 1
        if not named and told is not None:
            told.append(f"{type(error).__name__} without the file: {error}")
    except Exception as error:
        counts["wrong"] += 1
        if told is not None:
            told.append(f"{type(error).__name__}: {error}")
    else:
        if not truth(found):
            counts["clear" if said else "silent"] += 1
            if not said and told is not None:
                told.append("silent")
    if time.perf_counter() - start > 2:
        counts["hang"] += 1


def few(n=4):
    """`n` training and test images of each of 7 and 3, as `Digits`."""
    def some(digits):
        return [digits[np.flatnonzero(digits.digits.numpy() == digit)[:n]] for digit in (3, 7)]

    return [some(digits) for digits in mnist_sample()]


def grey(digits):
    return (digits.x * 255).round().byte().numpy()


def write_pngs(folder, parts):
    for digits in parts:
        place = folder / str(int(digits.digits[0]))
        place.mkdir(parents=True)
        for pixels, index in zip(grey(digits), digits.index.tolist()):
            Image.fromarray(pixels.reshape(28, 28)).save(place / f"{index}.png")


def same_pair(expected):
    return lambda found: all(
        a.x.equal(b.x) and a.y.equal(b.y) and a.index.equal(b.index)
        for a, b in zip(expected, found)
    )


def one_file(count, seed, files, read, truth, change=mutate, told=None, names=None):
    """Change one of `files` at a time, read them, put it back. truth: of the new bytes and path."""
    result, rng = counts(), random.Random(seed)
    originals = {path: path.read_bytes() for path in files}
    while result["tried"] < count:
        path = rng.choice(files)
        data = change(originals[path], rng)
        if data == originals[path]:
            continue
        path.write_bytes(data)
        judge(result, read, truth(data, path), names or [str(path)], told=told)
        path.write_bytes(originals[path])
    return result


def png(count, seed=0, told=None, change=mutate, lies=False):
    """Damaged PNGs in a folder such as fastai's MNIST_SAMPLE."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, parts in zip(("train", "valid"), few(2)):
            write_pngs(folder / split, parts)
        expected = mnist_sample(folder)
        truth = (lambda found: True) if lies else same_pair(expected)
        files = sorted(folder.glob("*/*/*.png"))
        return one_file(count, seed, files, lambda: mnist_sample(folder),
                        lambda data, path: truth, change, told)  # fmt: skip


def chunk(kind, body):
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def mended(data, rng):
    """A PNG whose chunks were changed and whose checksums were made anew: a lie, not damage."""
    chunks, place = [], 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    k = rng.randrange(len(chunks))
    kind, body = chunks[k]
    chunks[k] = kind, mutate(body or b"\0", rng)
    if rng.random() < 0.3:
        extra = rng.choice([b"tRNS", b"PLTE", b"zTXt", b"iCCP", b"acTL", b"eXIf", b"IHDR", b"IDAT"])
        body = rng.randbytes(rng.choice([0, 2, 6, 40]))
        chunks.insert(rng.randrange(1, len(chunks)), (extra, body))
    return data[:8] + b"".join(chunk(*pair) for pair in chunks)


def png_lies(count, seed=0, told=None):
    """PNGs that lie with right checksums: what they show cannot be known, only the error."""
    return png(count, seed, told, mended, lies=True)


def class_folders(count, seed=0, told=None):
    """Damaged PNGs in a folder of class folders, for `Digits.of`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pngs(folder, few(2)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = Digits.of(folder)
        files = sorted(folder.glob("*/*.png"))
        truth = lambda found: found.x.equal(expected.x) and found.y.equal(expected.y)
        return one_file(count, seed, files, lambda: Digits.of(folder),
                        lambda data, path: truth, mutate, told)  # fmt: skip


DIGITS = ["1", "7", "१", "٣", "𝟗", "²", "Ⅷ", "0", "-", "+", " ", "_", "e", ".", "\u200b", "\n"]


def png_names(count, seed=0, told=None):
    """Names that are no number as we write it, or one that int64 cannot hold."""
    result, rng = counts(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, parts in zip(("train", "valid"), few(2)):
            write_pngs(folder / split, parts)
        path = min(folder.glob("train/3/*.png"))
        while result["tried"] < count:
            stem = "".join(rng.choices(DIGITS, k=rng.choice([1, 2, 3, 18, 19, 20, 40])))
            stem = rng.choice([stem, "0" * rng.randrange(3) + path.stem, str(rng.getrandbits(65))])
            other = path.with_name(stem + rng.choice([".png", ".png", ".PNG", ".png "]))
            if other.exists():
                continue
            path.rename(other)
            plain = other.name.endswith(".png") and stem.isascii() and stem.isdigit()
            right = plain and str(int(stem)) == stem and int(stem) < 2**63
            truth = lambda found: right and int(stem) in found[0].index.tolist()
            judge(result, lambda: mnist_sample(folder), truth, [str(other)], told)
            other.rename(path)
    return result


def write_idx(folder, zipped):
    for prefix, parts in zip(("train", "t10k"), few(4)):
        images = np.concatenate([grey(digits) for digits in parts])
        labels = np.repeat(np.array([3, 7], np.uint8), 4)
        size, side = len(images).to_bytes(4, "big"), (28).to_bytes(4, "big")
        for kind, data in {
            "images-idx3": b"\0\0\x08\x03" + size + side + side + images.tobytes(),
            "labels-idx1": b"\0\0\x08\x01" + size + labels.tobytes(),
        }.items():
            path = folder / f"{prefix}-{kind}-ubyte"
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
            else:
                path.write_bytes(data)


def idx(count, seed=0, told=None):
    """Damaged IDX files: what is read must be what stands in them, byte for byte."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_idx(folder, zipped=False)

        def truth(data, path):
            train = (folder / "train-labels-idx1-ubyte").read_bytes()
            test = (folder / "t10k-labels-idx1-ubyte").read_bytes()
            sizes = [int.from_bytes(part[4:8], "big") for part in (train, test)]
            whole = all(len(part) == 8 + n for part, n in zip((train, test), sizes))

            def right(found):
                pixels = {}
                for prefix, digits in zip(("train", "t10k"), found):
                    stored = (folder / f"{prefix}-images-idx3-ubyte").read_bytes()
                    labels = (folder / f"{prefix}-labels-idx1-ubyte").read_bytes()[8:]
                    all_of = np.frombuffer(stored, np.uint8, offset=16).reshape(-1, 784)
                    wanted = [k for k, label in enumerate(labels) if label in (3, 7)]
                    pixels[prefix] = (
                        sorted(digits.index.tolist()) == wanted
                        and len(all_of) == len(labels)
                        and (grey(digits) == all_of[digits.index.numpy()]).all()
                        and bytes(digits.digits.tolist()) == bytes(labels[k] for k in digits.index)
                    )
                return whole and all(pixels.values())

            return right

        files = sorted(folder.iterdir())
        return one_file(count, seed, files, lambda: mnist_sample(folder), truth, mutate,
                        told, [str(folder)])  # fmt: skip


def idx_gz(count, seed=0, told=None):
    """Damaged IDX files, gzipped: their checksum tells."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_idx(folder, zipped=True)
        truth = same_pair(mnist_sample(folder))
        return one_file(count, seed, sorted(folder.iterdir()), lambda: mnist_sample(folder),
                        lambda data, path: truth, mutate, told)  # fmt: skip


def bundle(count, seed=0, told=None):
    """A damaged bundle of a few images."""
    names = [f"{split}_{digit}{end}" for split in ("train", "test") for digit in (3, 7)
             for end in ("", "_index")]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "mnist.npz")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for member, array in zip(names, _read_bundle(names)):
                stored = io.BytesIO()
                np.save(stored, array[:4])
                made.writestr(f"{member}.npy", stored.getvalue())
        expected = _read_bundle(names, path)
        truth = lambda found: all(
            a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(expected, found)
        )
        return one_file(count, seed, [path], lambda: _read_bundle(names, path),
                        lambda data, _: truth, mutate, told)  # fmt: skip


def table(data):
    """The rows of a csv with a header, by Python's own reader: a label as text, numbers; None if
    it is none."""
    try:
        rows = [*csv.reader(io.StringIO(data.decode(), newline=""))]
        rows = [row for row in rows if len(row) > 1 or "".join(row).strip()]  # a blank line is none
        width = len(rows[0])
        if any(len(row) != width for row in rows):
            return None
        return [[row[0], *map(float, row[1:])] for row in rows[1:]]
    except (UnicodeDecodeError, ValueError, IndexError, csv.Error):
        return None


def same(label):
    """A label as a number if it is one; a word is a class, too, and no damage."""
    try:
        return float(label)
    except ValueError:
        return label.strip()


def csv_file(count, seed=0, told=None):
    """Damaged csv files: the rows are those that Python's own reader finds, or it is refused."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "digits.csv")
        parts = few(4)[0]
        pixels = np.concatenate([grey(digits)[:, 350:430] for digits in parts])
        labels = np.repeat([3, 7], 4)
        lines = ["label," + ",".join(f"p{k}" for k in range(pixels.shape[1]))]
        lines += [f"{y}," + ",".join(map(str, row)) for y, row in zip(labels, pixels)]
        path.write_text("\n".join(lines) + "\n")

        def truth(data, _):
            rows = table(data)

            def right(found):
                if rows is None or len(rows) != len(found):
                    return False
                values = np.array([row[1:] for row in rows])
                whole = (values == np.floor(values)).all() and values.max() > 1
                expected = values.astype(np.float32) / np.float32(255 if whole else 1)
                names = [str(found.classes[k]) for k in found.y.flatten().tolist()]
                return np.allclose(found.x.numpy(), expected) and [*map(same, names)] == [
                    same(row[0]) for row in rows
                ]

            return right

        return one_file(count, seed, [path], lambda: Digits.of(path), truth, mutate,
                        told, [str(path)])  # fmt: skip


def hostile_files(folder):
    """What a stranger's folder may hold: (label, what reads it, the name that must be told)."""
    def dataset(label):
        place = folder / label
        for split, parts in zip(("train", "valid"), few(2)):
            write_pngs(place / split, parts)
        return place

    def idx_folder(label):
        place = folder / label
        place.mkdir()
        write_idx(place, zipped=True)
        return place

    for label in "fifo", "socket", "device", "link out", "loop", "folder":
        place = dataset(label)
        path = min(place.glob("train/3/*.png"))
        path.unlink()
        if label == "fifo":
            os.mkfifo(path)
        elif label == "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # the path of a socket must be short
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(path.name)
            os.chdir(here)
        elif label == "folder":
            path.mkdir()
        else:
            target = {"device": "/dev/zero", "loop": str(path)}.get(label, str(folder / "out.png"))
            Image.new("L", (28, 28)).save(folder / "out.png")
            path.symlink_to(target)
        yield label, (lambda place=place: mnist_sample(place)), path
        yield f"{label}, class folders", (lambda path=path: Digits.of(path.parent.parent)), path
    place = dataset("linked class")
    (place / "train/7").rename(folder / "elsewhere")
    (place / "train/7").symlink_to(folder / "elsewhere")
    yield "linked class", (lambda: mnist_sample(place)), place / "train/7"
    yield "linked class, class folders", (lambda: Digits.of(place / "train")), place / "train/7"

    header = lambda n, h=28, w=28: b"\0\0\x08\x03" + struct.pack(">III", n, h, w)
    zeros = gzip.compress(bytes(2**20), 9)
    bombs = {
        "bomb, short promise": gzip.compress(header(8), 9) + zeros * 4000,  # 4 GB in 4 MB
        "bomb, long promise": gzip.compress(header(2**32 - 1), 9) + zeros * 4000,
        "bomb, large images": gzip.compress(header(8, 2**16, 2**16), 9) + zeros * 4000,
        "promise alone": gzip.compress(header(10**6)),
    }
    for label, data in bombs.items():
        one = idx_folder(label)
        path = one / "train-images-idx3-ubyte.gz"
        path.write_bytes(data)
        yield label, (lambda one=one: mnist_sample(one)), path
    one = idx_folder("sparse")
    path = one / "train-images-idx3-ubyte"
    path.write_bytes(header(2**31))
    os.truncate(path, 16 + 784 * 2**31)
    yield "sparse", (lambda: mnist_sample(one)), path
    wide = dataset("wide")
    path = min(wide.glob("train/3/*.png"))
    rows = zlib.compress(bytes(30001) * 100, 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    yield "wide", (lambda: mnist_sample(wide)), path
    yield "wide, class folders", (lambda: Digits.of(wide / "train")), path
    for label, ending in ("csv fifo", "csv"), ("csv device", "csv"), ("csv bomb", "csv.gz"):
        path = folder / f"{label}.{ending}"
        if label == "csv fifo":
            os.mkfifo(path)
        elif label == "csv device":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(zeros * 1100)
        yield label, (lambda path=path: Digits.of(path)), path


def hostile(count=1, seed=0, told=None, most=256 * 2**20):
    """FIFOs, devices, sockets, links, bombs: each refused in two seconds and 256 MB of memory.

    Memory over that counts as lost.
    """
    result = counts()
    for _ in range(count):
        with tempfile.TemporaryDirectory() as name:
            for label, read, path in hostile_files(Path(name).resolve()):
                tracemalloc.start()
                before, notes = result["clear"], []
                judge(result, read, lambda found: False, [str(path)], told=notes)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                result["lost"] += peak > most
                if told is not None and (result["clear"] == before or notes):
                    told.append(f"{label}: {notes} {peak}")
    return result


EXPERIMENTS = dict(
    png=png, png_lies=png_lies, png_names=png_names, class_folders=class_folders, idx=idx,
    idx_gz=idx_gz, bundle=bundle, csv=csv_file, hostile=hostile,
)  # fmt: skip

if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for experiment in sys.argv[2:] or EXPERIMENTS:
        said = []
        start = time.perf_counter()
        n = 1 if experiment == "hostile" else number
        result = EXPERIMENTS[experiment](n, told=said)
        print(f"{experiment:14}", result, f"{time.perf_counter() - start:.0f} s")
        for line in sorted(set(said), key=said.count, reverse=True)[:5]:
            print(f"    {said.count(line)} x {line[:200]}")
