"""What docs/pages.py lays out for Sphinx; `make test-browser` reads the built site."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytest.importorskip("griffe", reason="griffe is a development tool")
sys.path.insert(0, str(ROOT / "docs"))
try:
    import pages
finally:
    sys.path.remove(str(ROOT / "docs"))

from mnist_ce._modidx import d as INDEX


def cell(source, outputs=(), kind="code", **metadata):
    shown = dict(outputs=list(outputs)) if kind == "code" else {}
    return dict(
        cell_type=kind, id="x", source=source.splitlines(True), metadata=metadata, **shown
    )


def picture(alt):
    told = {"alt": alt, "width": 700}
    return dict(data={"image/png": "iVBO"}, metadata={"image/png": told})


def shown(*cells, **given):
    return list(pages.shown(list(cells), "nbs/00_x.ipynb", **given))


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All pages, {name: text}."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "widgets/draw").mkdir(parents=True)
    (folder / "widgets/draw/pad.html").write_text("<p>the pad</p>")
    (folder / "widgets/draw/accuracy").write_text("96.9%")
    pages.main(folder / "widgets", folder / "source")
    found = [*folder.glob("source/**/*.md"), *folder.glob("source/**/*.ipynb")]
    return {path.relative_to(folder / "source").as_posix(): path.read_text() for path in found}


@pytest.mark.parametrize(
    "source, text, meant",
    [
        ("nbs/00_x.ipynb", "[3](03_y.ipynb)", "[3](/03_y.ipynb)"),
        ("nbs/00_x.ipynb", "[a](reference/04_b.ipynb#c)", "[a](/reference/b.ipynb#c)"),
        ("nbs/00_x.ipynb", "[a](../README.md#c)", "[a](/index.md#c)"),
        ("nbs/reference/00_x.ipynb", "[a](../06_y.ipynb)", "[a](/06_y.ipynb)"),
        ("nbs/reference/00_x.ipynb", "[a](04_b.ipynb)", "[a](/reference/b.ipynb)"),
        (
            "README.md",
            "[a](nbs/glossary.md) [b](SECURITY.md)",
            "[a](/glossary.md) [b](/security.md)",
        ),
        ("README.md", "![a](nbs/figures/a_1.png)", "![a](/figures/a_1.png)"),
        (
            "nbs/00_x.ipynb",
            "[a](https://x.y/z.ipynb) [b](#part)",
            "[a](https://x.y/z.ipynb) [b](#part)",
        ),
        ("nbs/00_x.ipynb", "A\n\n[![Open in Colab](https://a.b/c)](https://d.e)\n\nB", "A\n\nB"),
    ],
)
def test_links_lead_to_pages_and_badges_are_left_out(source, text, meant):
    assert pages.linked(text, source) == meant


def test_cells_are_hidden_folded_and_cleaned_of_directives():
    title, unseen, code, figure, question = shown(
        cell("# Title", kind="markdown"),
        cell("#| hide\nsecret()"),
        cell("!git clone x") | dict(id="fetch-the-course"),
        cell("#| hide_input\nunseen()"),
        cell("#| export\n#| another\ndef f(): pass"),
        cell("drawn()", [picture("words")], jupyter=dict(source_hidden=True)),
        cell("# Question 5\nprint(5)", jupyter=dict(source_hidden=True)),
    )
    assert title["source"] == "# Title" and code["source"] == "def f(): pass"
    assert unseen["metadata"]["tags"] == ["remove-input"] and code["metadata"]["tags"] == []
    folded = [(c["metadata"]["tags"], c["metadata"]["mystnb"]) for c in (figure, question)]
    (one, told), (other, answer) = folded
    assert (one, told["code_prompt_show"]) == (["hide-input"], "Code of the figure")
    assert (other, answer["code_prompt_show"]) == (["hide-cell"], "Answer to question 5, in code")
    assert answer["code_prompt_hide"] == answer["code_prompt_show"]


def test_each_figure_has_its_own_words():
    said = dict(output_type="stream", name="stdout", text=["one\n"])
    first, later = shown(
        cell("#| export\ndraw()", [picture('A "3":\nfrom afar'), said, picture("second")])
    )
    images = [c["metadata"]["mystnb"]["image"] for c in (first, later)]
    assert [image["alt"] for image in images] == ['A "3": from afar', "second"]
    assert first["outputs"][1:] == [said] and later["outputs"] == [picture("second")]
    assert first["metadata"]["tags"] == [] and later["metadata"]["tags"] == ["remove-input"]
    with pytest.raises(ValueError, match=r"the figure of 'draw\(\)' has no alt text"):
        shown(cell("draw()", [picture("")]))


def test_each_call_of_interact_gets_its_widget_and_each_definition_its_address():
    found = shown(
        cell("interact(f, a=1)\ninteract(g)"),
        cell("interact(h);"),
        cell("@cache\ndef G(): pass"),
        cell("class K:\n    def l(self): pass"),
        widgets=["<p>1</p>", "<p>2</p>", "<p>3</p>"],
        anchors=["g", "k", "k.l", "elsewhere"],
    )
    kinds = [(c["cell_type"], c["source"]) for c in found]
    raw = [source for kind, source in kinds if kind == "raw"]
    assert raw[:3] == ["<p>1</p>", "<p>2</p>", "<p>3</p>"]
    assert [kind for kind, _ in kinds][:5] == ["code", "raw", "raw", "code", "raw"]
    assert raw[3:] == ['<span id="g"></span>', '<span id="k"></span><span id="k.l"></span>']
    assert kinds[5:7] == [("raw", raw[3]), ("code", "@cache\ndef G(): pass")]
    assert found[1]["metadata"] == {"format": "text/html"}


def test_the_front_page_has_the_readmes_chart_word_for_word(written, readme):
    chart = readme.partition("## My loss does not train\n")[2].partition("\n## ")[0]
    rows = [line for line in chart.splitlines() if line.startswith("|")]
    front = written["index.md"]
    assert len(rows) > 20
    for row in rows:
        assert re.sub(r"\(nbs/(\w+)\.ipynb\)", r"(/\1.ipynb)", row) in front
    assert (
        front.index("> Why did my loss not train?")
        < front.index("[The course](course.md) · ")
        < front.index("{.chart .front}\n" + rows[0])
        < front.index("- [The course](course.md)")
        < front.index("How it began")
    )
    lesson = "".join(
        "".join(c["source"]) for c in json.loads(written["14_is_it_my_loss.ipynb"])["cells"]
    )
    assert "{.chart}\n| symptom |" in lesson
    assert "[ask the doctor](/package.md#is-it-my-loss)" in front
    assert "## Is it my loss?" in written["package.md"] and rows[0] not in written["package.md"]
    assert "\n03 Where the numbers run out <03_numbers_run_out>\n" in front


def test_the_page_to_draw_on_has_its_pad(written):
    assert "<p>the pad</p>" in written["draw.md"] and "it reads 96.9% of" in written["draw.md"]


def test_nothing_of_the_readme_is_lost(written, readme):
    there = "\n".join(
        written[name] for name in ("index.md", "package.md", "course.md", "reference/index.md")
    )
    bare = lambda text: re.sub(r"\]\([^)]*\)", "]", text)
    missing = [line for line in bare(readme).splitlines() if line.lstrip("# ") not in bare(there)]
    assert not missing


def test_nbdevs_index_leads_to_the_references_pages(written):
    for names in INDEX["syms"].values():
        for name, (address, _) in names.items():
            where, _, anchor = address.partition("#")
            cells = json.loads(written[where.replace(".html", ".ipynb")])["cells"]
            text = "\n".join("".join(c["source"]) for c in cells)
            ids = len(re.findall(f'<span id="{re.escape(anchor)}">', text))
            heads = re.findall(rf"(?mi)^#+ `?{re.escape(anchor)}`?$", text)
            assert ids + len(heads) == 1, name


def test_the_api_has_each_public_name_with_signature_and_docstring(written):
    import mnist_ce.all as everything

    for name in set(everything.__all__) - {"torch", "F", "nn"}:
        listed = re.findall(rf"`{name} <mnist_ce\.\w+\.{name}>`", written["api/index.md"])
        assert len(listed) == 1, name
    losses, metrics = written["api/losses.md"], written["api/metrics.md"]
    assert '{py:function} cross_entropy_loss(preds, targets, reduction="mean")' in losses
    assert "{py:function} accuracy(preds: Tensor, targets: Tensor) -> Tensor" in metrics
    assert everything.accuracy.__doc__.splitlines()[0] in metrics
    assert '<a href="../reference/metrics.html#accuracy">' in metrics
    results = written["api/results.md"]
    assert "{py:class} Summary(n: int, mean: float" in results
    assert "{py:method} Runs.where(**coords: Any) -> Runs\n" in results
    assert "{py:method} Runs.of_kept(" in results and "\n:classmethod:\n" in results
    assert "{py:property} Digits.digits\n" in written["api/data.md"]
    assert "{py:data} CAUSES\n" in written["api/doctor.md"]
    assert "_main" not in results and "_joined" not in results
    assert "passed: bool" not in written["api/case.md"], "a property is no field"


def test_every_notebook_has_a_page_without_directives_and_with_all_its_figures(written):
    for path in (path for path in (ROOT / "nbs").glob("**/*.ipynb") if path.stem != "index"):
        stored = json.loads(path.read_text())["cells"]
        made = json.loads(written[pages.page_of(path.relative_to(ROOT).as_posix())])["cells"]
        kept = [c for c in stored if not "".join(c["source"]).startswith("#| hide\n")]
        assert not any(re.search(r"(?m)^#\|", "".join(c["source"])) for c in made)
        figures = [
            [o["data"]["image/png"] for c in cells for o in c.get("outputs", [])
             if "image/png" in o.get("data", {})]
            for cells in (kept, made)
        ]  # fmt: skip
        assert figures[0] == figures[1]
