"""Strangers' files: damage is named, never read as data; nothing blocks, nothing fills the memory."""
import io
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from conftest import benchmark, named

from mnist_ce.data import Digits, _read_bundle, mnist_sample

pytest.importorskip("pandas", reason="pandas is a development tool")
torture_files = benchmark("torture_files")

POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")


@pytest.mark.parametrize("name", [name for name in torture_files.EXPERIMENTS if name != "hostile"])
def test_damage_is_named_and_never_read_as_data(name):
    told = []
    found = torture_files.EXPERIMENTS[name](250, seed=1, told=told)
    assert found["tried"] == 250 and found["clear"] > 150
    assert found["silent"] == found["wrong"] == found["hang"] == found["lost"] == 0, told


@POSIX
def test_what_is_no_plain_file_leads_out_or_promises_too_much_is_refused_at_once():
    told = []
    found = torture_files.hostile(told=told)
    assert found == dict(tried=24, clear=24, silent=0, wrong=0, hang=0, lost=0), told


@POSIX
def test_why_it_is_refused(folder):
    path = min(folder.glob("train/3/*.png"))
    path.unlink()
    os.mkfifo(path)
    for read, place in (mnist_sample, folder), (Digits.of, folder / "train"):
        with pytest.raises(ValueError, match=f"{path.name}.* is no plain file"):
            read(place)
    path.unlink()
    path.write_bytes(b"")
    os.truncate(path, 2**40)
    for read, place in (mnist_sample, folder), (Digits.of, folder / "train"):
        with pytest.raises(ValueError, match=f"{path.name} has {2**40} bytes, {2**30} are the most"):
            read(place)
    path.unlink()
    Image.new("1", (9000, 9000)).save(path)
    for read, place in (mnist_sample, folder), (Digits.of, folder / "train"):
        with pytest.raises(ValueError, match=f"{path.name}.*81000000 pixels, {2**26} are the most"):
            read(place)


@pytest.fixture
def folder(sample, tmp_path):
    """Two images of each digit and split."""
    for split, parts in zip(("train", "valid"), torture_files.few(2)):
        torture_files.write_pngs(tmp_path / split, parts)
    return tmp_path


def test_a_damaged_checksum_is_refused_whatever_pillow_was_told(folder, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = min(folder.glob("train/3/*.png"))
    data = path.read_bytes()
    for changed in data[:-20], data[:-13] + b"\0" + data[-12:], data[:-1] + b"\0", data[:-12]:
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{path.name} is not an image of a digit"):
            mnist_sample(folder)
        with pytest.raises(ValueError, match=path.name):
            Digits.of(folder / "train")


@POSIX
def test_links_within_the_folder_are_followed(folder):
    expected = mnist_sample(folder)
    path = min(folder.glob("train/3/*.png"))
    path.rename(folder / "kept")
    path.symlink_to(folder / "kept")
    (folder / "valid" / "3").rename(folder / "threes")
    (folder / "valid" / "3").symlink_to("../threes")
    outside = folder.parent / f"{folder.name}-link"
    outside.symlink_to(folder)  # the folder itself may be reached by a link
    for place in folder, outside:
        for ours, theirs in zip(mnist_sample(place), expected):
            assert torch.equal(ours.x, theirs.x) and torch.equal(ours.index, theirs.index)


def test_a_name_is_one_number_or_none(folder):
    path = min(folder.glob("train/3/*.png"))
    data = path.read_bytes()
    path.unlink()
    for stem in "0", "9223372036854775807":
        other = path.with_name(f"{stem}.png")
        other.write_bytes(data)
        assert int(stem) in mnist_sample(folder)[0].index.tolist()
        other.unlink()
    for stem in "01", "१", "9223372036854775808", "-1", "1_0", "²", "00":
        other = path.with_name(f"{stem}.png")
        other.write_bytes(data)
        with pytest.raises(ValueError, match=f"{stem}.png is not named"):
            mnist_sample(folder)
        other.unlink()


def test_classes_are_numbers_where_all_names_are_one_number(folder):
    for name, expected in [("8", (3, 8)), ("08", ("08", "3")), ("٨", ("3", "٨")),
                           ("99999999999999999999", ("3", "9" * 20))]:  # fmt: skip
        (folder / "train" / "7").rename(folder / "train" / name)
        assert Digits.of(folder / "train").classes == expected
        (folder / "train" / name).rename(folder / "train" / "7")


def test_a_program_that_draws_is_not_run(folder):
    path = folder / "train" / "3" / "1.eps"
    Image.new("L", (28, 28)).save(path)
    with pytest.raises(ValueError, match="1.eps .EPS is a program that draws"):
        Digits.of(folder / "train")


@pytest.mark.parametrize(
    "labels",
    [np.array([1, 2**63], np.uint64), [1, 2**63], [1, -(2**63) - 1], [1.0, 2.0**63],
     np.array([1.0, -1e300]), torch.tensor([1.0, 1e30])],
    ids=named,
)  # fmt: skip
def test_labels_that_int64_cannot_hold(labels):
    with pytest.raises(ValueError, match="does not fit int64: write labels as strings"):
        Digits.of(torch.rand(2, 9), labels)


def test_tables_that_are_not_whole(tmp_path):
    path = tmp_path / "a.csv"
    for text, words in [
        ("label,a,b\n0,1,2\n1,3\n", r"row 1 has no last cell: 1 are cut short"),
        ("label,a,b\n0,1,2,9\n1,3,250,9\n", "cannot be read as a csv"),
        ("label,a,b\n0,1,2\n1,3,4,9\n", "cannot be read as a csv"),
        ("label,a,b\n0,1,2\n\x17,3,4\n", r"byte 16 is no text: b'\\x17'"),
        ("\0\0\0", r"byte 0 is no text: b'\\x00'"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"a.csv.*{words}"):
            Digits.of(path)
    path.write_text("label,a,b\n0,1,2,9\n1,3,250,9\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="a.csv cannot be read as a csv"):
            Digits.of(path)
    path.write_text("label,a,b\n0,1,x\n1,3,y\n")
    with pytest.raises(TypeError, match="a.csv.*hold no numbers"):
        Digits.of(path)


def test_packed_tables(tmp_path):
    text = "label,a,b\n0,0,200\n1,250,40\n"
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.writestr("a.csv", text)
        archive.writestr("b.csv", text)
    assert len(Digits.of(tmp_path / "a.csv.zip")) == 2
    (tmp_path / "a.csv.xz").write_text(text)
    for name, words in ("two.csv.zip", "too many values"), ("a.csv.xz", "unpack it first"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a csv: .*{words}"):
            Digits.of(tmp_path / name)


def test_a_bundle_that_lies_with_right_checksums(tmp_path):
    def written(array, edit=lambda data: data):
        stored = io.BytesIO()
        np.save(stored, array)
        with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as bundle:
            bundle.writestr("test_3.npy", edit(stored.getvalue()))

    read = lambda: _read_bundle(["test_3"], tmp_path / "mnist.npz")
    images = np.zeros((100, 784), np.uint8)
    written(images)
    assert np.array_equal(read()[0], images)
    for array, edit in [
        (images.astype(np.int8), bytes),
        (images[:, :783], bytes),
        (np.asfortranarray(images), bytes),
        (np.array([[{}]]), bytes),
        (images, lambda data: data.replace(b"(100, 784)", b"(999, 784)")),
        (images, lambda data: data.replace(b"(100, 784)", b"(010, 784)")),
        (images, lambda data: data.replace(b"(100, 784)", b"(9**9,784)")),
    ]:
        written(array, edit)
        with pytest.raises(ValueError, match="mnist.npz is damaged, install mnist_ce again"):
            read()
