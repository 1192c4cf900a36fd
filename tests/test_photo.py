"""Photos: what no notebook shows. Versions of MNIST's images, refusals, files of every kind, the pad's JavaScript."""
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import benchmark
from PIL import Image, ImageDraw

from mnist_ce.data import mnist, mnist_sample
from mnist_ce.losses import cross_entropy_loss, mnist_loss
from mnist_ce.photo import draw_pad, read_digit
from mnist_ce.training import fit

photos = benchmark("photos")


@pytest.fixture(scope="module")
def run(sample):
    return fit(cross_entropy_loss, *sample, epochs=2, progress=False)


@pytest.fixture(scope="module")
def three(sample):
    """A clear 3, dark on light, 280 by 280 in a page of 400: uint8."""
    ink = sample[1].x[sample[1].digits == 3][0].view(28, 28).numpy()
    page = np.full((400, 400), 240, np.uint8)
    big = np.asarray(Image.fromarray((ink * 255).astype(np.uint8)).resize((280, 280), Image.Resampling.BICUBIC))
    page[60:340, 60:340] = 240 - big * 0.8
    return page


@pytest.mark.parametrize("kind", photos.KINDS)
def test_versions_are_answered_like_the_originals(run, sample, kind):
    valid = sample[1][::102]
    generator = np.random.default_rng(photos.KINDS.index(kind))
    same = 0
    for x, answer in zip(valid.x, run.predict(valid.x)):
        try:
            same += int(run.predict_image(photos.version(kind, x.view(28, 28).numpy(), generator)).digit == answer)
        except ValueError:  # one of them is a 3 in three pieces that lie far apart
            pass
    assert same >= len(valid) - 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_is_seen_alike(three, mode):
    plain = Image.fromarray(three)
    if mode in ("I;16", "I", "F"):
        picture = Image.fromarray(three.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 7)
    else:
        picture = plain.convert(mode)
    assert picture.mode == mode
    assert (read_digit(picture) - read_digit(plain)).abs().mean() < 0.02


def test_transparent_paper_and_orientation(three, tmp_path):
    expected = read_digit(three)
    for ink in 0, 255:  # ink of that grey on a sheet that is transparent
        picture = Image.merge("LA", [Image.new("L", (400, 400), ink), Image.fromarray(240 - three)])
        assert (read_digit(picture) - expected).abs().mean() < 0.02
    turned = Image.fromarray(three).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    assert (read_digit(tmp_path / "turned.png") - expected).abs().mean() < 0.02
    assert torch.equal(read_digit(torch.from_numpy(three)), expected)
    assert torch.equal(read_digit(np.stack([three] * 3, 2)), expected)


def refused(picture, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_digit(picture)
    assert "\n" not in str(caught.value)


def test_what_is_no_single_digit_is_refused(three, tmp_path):
    generator = np.random.default_rng(0)
    Image.fromarray(np.concatenate([three, three], 1)).save(tmp_path / "two.png")
    refused(tmp_path / "two.png", r"two\.png: two shapes of like size, 50% and 50% of the ink: crop it to one digit")
    refused(np.full((300, 300), 200, np.uint8), "the page is blank")
    refused(generator.normal(230, 2, (300, 300)).astype(np.uint8), "the page is blank")
    refused(generator.random((300, 300)), "stands out")
    refused(generator.random((28, 28)), "stands out|no stroke")
    solids = [Image.new("L", (300, 300), 240) for _ in range(3)]
    ImageDraw.Draw(solids[0]).ellipse((60, 60, 240, 240), 20)
    ImageDraw.Draw(solids[1]).ellipse((30, 90, 270, 210), 20)
    ImageDraw.Draw(solids[2]).polygon((60, 100, 240, 100, 150, 240), 20)
    for solid in solids:
        refused(solid, "one solid shape and no stroke")
    rows, columns = np.mgrid[:300, :400]
    for dark in rows < 150, columns < 200, rows + columns < 350, (rows < 150) & (columns < 200):  # half a page, a corner
        refused(np.where(dark, 15, 240).astype(np.uint8), "one solid shape and no stroke")


def test_pieces_dirt_lines_and_edges_are_no_reason_to_refuse(run, three):
    five = Image.new("L", (600, 600), 235)
    draw = ImageDraw.Draw(five)
    draw.line([(230, 190), (215, 300)], 40, 18)
    draw.arc((190, 280, 370, 440), 230, 140, 40, 18)
    alone = read_digit(five).view(28, 28)
    draw.line([(245, 170), (370, 165)], 40, 18)
    assert (read_digit(five).view(28, 28)[:10] - alone[:10]).abs().sum() > 3, "the bar is there"
    page = three.copy()
    page[30:34, 30:34] = page[370:374, 200:206] = 60  # dirt
    page[::50] = np.minimum(page[::50], 170)  # ruled
    page[:, :12] = 40  # a table
    assert (read_digit(page) - read_digit(three)).abs().mean() < 0.05
    assert run.predict_image(page).digit == 3


@pytest.mark.parametrize("values", [
    np.zeros((0, 5)), np.zeros((5, 0, 3)), np.zeros((1, 1)), np.full((9, 9), np.nan), np.full((9, 9), 2.0), np.zeros((9, 9, 2)),
    np.zeros((9,)), np.zeros((2, 9, 9, 3)), np.full((9, 9), -0.1),
], ids=lambda v: str(v.shape))  # fmt: skip
def test_arrays_that_are_no_picture(values):
    with pytest.raises(ValueError, match="the picture"):
        read_digit(values)


@pytest.mark.parametrize("values", [None, 7, [[0.5]], np.zeros((9, 9), bool), np.zeros((9, 9), np.int64), np.array(["a"])], ids=str)
def test_values_that_are_no_array(values):
    with pytest.raises(TypeError, match="takes"):
        read_digit(values)


def test_any_random_array_is_answered_or_refused():
    for k in range(40):
        generator = np.random.default_rng(k)
        shape = tuple(generator.integers(1, 60, 2))
        array = generator.random(shape) ** generator.integers(1, 9)
        try:
            assert read_digit(array).shape == (784,)
        except ValueError as error:
            assert str(error).startswith("the picture")


def test_files_that_are_no_picture(three, tmp_path):
    Image.fromarray(three).save(tmp_path / "whole.png")
    Image.fromarray(three).save(tmp_path / "whole.jpg")
    for name in "whole.png", "whole.jpg":
        whole = (tmp_path / name).read_bytes()
        for cut in 0, 10, len(whole) // 2, len(whole) - 3:
            path = tmp_path / f"cut{cut}-{name}"
            path.write_bytes(whole[:cut])
            try:
                read_digit(path)
            except ValueError as error:
                assert str(path) in str(error)
            else:  # a JPEG that lacks its last bytes has all of its pixels
                assert name == "whole.jpg" and cut == len(whole) - 3
    for name, text in ("text.png", "hello"), ("a.svg", "<svg/>"), ("a.pdf", "%PDF-1.7"), ("a.heic", "\0\0\0\x18ftypheic"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} is no picture that pillow can read"):
            read_digit(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.png"):
        read_digit(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ".", "pipe.png":
        with pytest.raises(ValueError, match="no plain file"):
            read_digit(tmp_path / name)
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png.*(pixels|bomb)"):
        read_digit(tmp_path / "bomb.png")


def test_a_guess_has_the_classes_of_the_model(run, three, sample):
    guess = run.predict_image(three)
    assert guess.digit == 3 and [*guess.probabilities] == [7, 3]
    assert abs(sum(guess.probabilities.values()) - 1) < 1e-6 and guess.seen.shape == (28, 28)
    assert repr(guess).startswith("Guess(3: ")
    small = [type(part)(part.x[:, :400].contiguous(), part.y, part.classes) for part in sample]
    other = fit(cross_entropy_loss, *small, epochs=1, progress=False)
    with pytest.raises(ValueError, match="400 pixels"):
        other.predict_image(three)


@pytest.mark.skipif(not shutil.which("node"), reason="node runs the pad's JavaScript")
@pytest.mark.parametrize("loss", [cross_entropy_loss, mnist_loss], ids=lambda loss: loss.name)
def test_the_pad_answers_as_python_does(sample, three, loss, tmp_path):
    run = fit(loss, *sample, epochs=1, progress=False)
    page = draw_pad(run).page
    ink = np.clip((240 - three[60:340, 60:340].astype(np.float32)) / 192, 0, 1)
    code = page[page.index("const CLASSES"):page.index("const find")]
    (tmp_path / "pad.js").write_text(code + f"\nconst seen = toMnist({json.dumps(ink.ravel().tolist())}, 280);"
                                     "console.log(JSON.stringify([Array.from(seen), answer(seen, LAYERS)]));")
    done = subprocess.run(["node", tmp_path / "pad.js"], capture_output=True, text=True, check=True)
    seen, p = map(torch.tensor, json.loads(done.stdout))
    assert (seen - read_digit(three)).abs().mean() < 0.02
    torch.testing.assert_close(p.float(), run.predict_proba(seen.unsqueeze(0))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [0, 5])
def test_a_sheet_on_a_dark_table_is_read_as_what_is_on_it(three, turn):
    page = Image.fromarray(three).rotate(turn, fillcolor=240)
    sheet = Image.new("L", (400, 500), 240)
    sheet.paste(page, (0, 50))
    table = Image.new("L", (800, 900), 60)
    mask = Image.new("L", sheet.size, 255).rotate(turn, expand=True)
    table.paste(sheet.rotate(turn, expand=True), (150, 150), mask)
    seen, expected = read_digit(table), read_digit(page.rotate(turn, fillcolor=240))
    assert np.corrcoef(seen, expected)[0, 1] > 0.9
    with pytest.raises(ValueError, match="one solid shape"):
        read_digit(np.pad(np.full((300, 400), 240, np.uint8), 200, constant_values=60))


def test_ink_in_two_tones_is_read(three):
    assert (read_digit(np.where(three < 120, 20, 240).astype(np.uint8)[::4, ::4]) - read_digit(three)).abs().mean() < 0.05


def test_a_thick_digit_in_few_pixels_is_no_sheet():
    x, refused = mnist()[1].x, []
    for row in x[(x > 0.5).sum(1).topk(40).indices]:  # those with the most ink
        try:
            read_digit(row.view(28, 28))
        except ValueError as error:
            refused.append(str(error))
    assert refused == ["the picture: one solid shape and no stroke: crop it to one digit"] * len(refused)
    assert len(refused) < 3
