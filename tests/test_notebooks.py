"""Every notebook runs from top to bottom and prints what is stored in it, so no number in it is stale."""
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="Jupyter is a development tool")
pytest.importorskip("nbclient", reason="Jupyter is a development tool")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = [path for path in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
NUMBER = re.compile(r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")


def printed(cell):
    """What a reader sees of a cell's outputs, a text for each; of a figure its words."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output["output_type"] == "stream":
            text = output["text"]
        elif "image/png" in data:
            text = "figure: " + output["metadata"].get("image/png", {}).get("alt", "")
        else:
            text = data.get("text/html") or data.get("text/markdown") or data.get("text/plain", "")
        # a pad's weights, in base64, are a processor's own to the last digit
        text = re.sub(r"(&quot;(?:weights|bias)&quot;: &quot;)[\w+/=]+", r"\1…", text)
        found.append(re.sub(r"0x[0-9a-f]{6,}", "0x…", text))
    return found


def agree(fresh, stored, tags):
    """Whether outputs are alike: timings in number alone, numbers within what a tag allows, else exactly."""
    if "timing" in tags:
        return len(fresh) == len(stored)
    within = [float(tag.partition(":")[2]) for tag in tags if tag.startswith("within:")]
    if not within:
        return fresh == stored
    if [NUMBER.sub("#", text) for text in fresh] != [NUMBER.sub("#", text) for text in stored]:
        return False
    values = ([float(n.replace(",", "")) for text in texts for n in NUMBER.findall(text)] for texts in (fresh, stored))
    return all(abs(a - b) <= within[0] for a, b in zip(*values))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_stored_in_it(path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "nbs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    from execute import execute

    stored = nbformat.read(path, as_version=4)
    for k, (old, new) in enumerate(zip(stored.cells, execute(path).cells, strict=True)):
        was, now = printed(old), printed(new)
        assert agree(now, was, old.metadata.get("tags", [])), f"cell {k}: stored {was}, now {now}: run make notebooks"


@pytest.mark.parametrize(
    "fresh, stored, tags, alike",
    [
        (["0.51"], ["0.51"], [], True),
        (["0.51"], ["0.52"], [], False),
        (["0.51"], ["0.52"], ["within:0.02"], True),
        (["0.51"], ["0.54"], ["within:0.02"], False),
        (["up 0.51"], ["at 0.51"], ["within:0.02"], False),
        (["1,200"], ["1,201"], ["within:1"], True),
        (["3 ms"], ["4 ms"], ["timing"], True),
        (["3 ms"], [], ["timing"], False),
        (["figure: a"], ["figure: b"], [], False),
    ],
)
def test_outputs_agree_exactly_or_within_what_a_tag_allows(fresh, stored, tags, alike):
    assert agree(fresh, stored, tags) == alike
