"""The site's pages, as docs/pages.py makes them; `make test-browser` reads the built site."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
try:
    import pages
finally:
    sys.path.remove(str(ROOT / "docs"))

from mnist_ce._modidx import d as INDEX

PICTURE = dict(
    output_type="display_data",
    data={"image/png": "iVBO", "text/plain": "words"},
    metadata={"image/png": {"alt": 'A "3": seen\nfrom afar', "width": 700}},
)


def cell(source, outputs=(), kind="code", **metadata):
    return dict(
        cell_type=kind, source=source.splitlines(True), outputs=list(outputs), metadata=metadata
    )


def page(*cells, widgets=()):
    kept = []
    text = pages.notebook_page(
        list(cells),
        lambda text: text,
        lambda data: kept.append(data) or f"/{len(kept)}.png",
        widgets,
    )
    return text, kept


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All pages, {name: text}."""
    folder = tmp_path_factory.mktemp("site")
    pages.main(folder / "no widgets", folder / "source")
    return {
        path.relative_to(folder / "source").as_posix(): path.read_text()
        for path in (folder / "source").glob("**/*.md")
    }


@pytest.mark.parametrize(
    "source, name, text, meant",
    [
        (
            "nbs/00_x.ipynb",
            "00_x.md",
            "[03](03_numbers_run_out.ipynb)",
            "[03](03_numbers_run_out.md)",
        ),
        (
            "nbs/00_x.ipynb",
            "00_x.md",
            "[a](reference/04_losses.ipynb#part)",
            "[a](reference/losses.md#part)",
        ),
        (
            "nbs/reference/00_x.ipynb",
            "reference/x.md",
            "[a](../06_loop.ipynb)",
            "[a](../06_loop.md)",
        ),
        (
            "README.md",
            "index.md",
            "[a](nbs/glossary.md) [b](SECURITY.md)",
            "[a](glossary.md) [b](security.md)",
        ),
        ("README.md", "reference/index.md", "[a](nbs/reference/00_data.ipynb)", "[a](data.md)"),
        (
            "nbs/00_x.ipynb",
            "00_x.md",
            "[a](https://x.y/z.ipynb) [b](#part)",
            "[a](https://x.y/z.ipynb) [b](#part)",
        ),
        ("nbs/00_x.ipynb", "00_x.md", "`f[0](06_loop.ipynb)`\n```\n[a](06_loop.ipynb)\n```", None),
    ],
)
def test_links_between_notebooks_lead_to_pages(source, name, text, meant):
    files = set()
    assert pages.with_links(text, source, name, files) == (meant or text) and not files


def test_a_link_to_another_file_takes_it_along_and_one_to_nothing_is_an_error():
    files = set()
    text = pages.with_links("![a](nbs/figures/index_1.png)", "README.md", "course.md", files)
    assert text == "![a](nbs/figures/index_1.png)" and files == {"nbs/figures/index_1.png"}
    with pytest.raises(ValueError, match="README.md links to nbs/nothing.ipynb"):
        pages.with_links("[a](nbs/nothing.ipynb)", "README.md", "index.md", files)


def test_cells_are_hidden_folded_and_cleaned_of_directives():
    said = dict(output_type="stream", name="stdout", text=["one\n"])
    text, _ = page(
        cell("# Title", kind="markdown"),
        cell("#| hide\nsecret()", [said]),
        cell("#| hide_input\nunseen()", [said, said]),
        cell("#| export\n#| another\ndef f(): pass\nclass G:\n    def h(self): pass"),
        cell("drawn()", [PICTURE], jupyter=dict(source_hidden=True)),
        cell("# Question 5\nprint(5)", [said], jupyter=dict(source_hidden=True)),
    )
    assert "#|" not in text and "secret" not in text and "unseen" not in text
    assert text.count("one\none") == 1, "a stream in two pieces is one"
    assert '<span id="f"></span><span id="g"></span><span id="g.h"></span>' in text
    figure, question = re.findall(r"(?s)<details class=\"fold\"><summary>(.*?)</details>", text)
    assert (
        figure.startswith("Code of the figure") and "drawn()" in figure and "{image}" not in figure
    )
    assert (
        question.startswith("Answer to question 5") and "print(5)" in question and "one" in question
    )
    assert text.index("{image}") > text.index("drawn()")


def test_a_figure_has_its_words():
    text, kept = page(cell("draw()", [PICTURE]))
    assert '```{image} /1.png\n:alt: "A \\"3\\": seen from afar"\n:width: 700px' in text
    assert kept == [b"\x89P\x4e"[:3]] and "words" not in text
    with pytest.raises(ValueError, match="1.png has no alt text"):
        page(cell("draw()", [PICTURE | {"metadata": {}}]))


def test_code_with_a_fence_in_it_stays_one_block():
    text, _ = page(cell('print("```")'))
    assert text.startswith("````{code-block} python") and text.rstrip().endswith("````")


def test_each_call_of_interact_gets_its_widget():
    text, _ = page(
        cell("interact(f, a=1)\ninteract(g)"),
        cell("interact(h);"),
        widgets=["<p>1</p>", "<p>2</p>", "<p>3</p>"],
    )
    assert re.findall(r"<p>(\d)</p>|(interact)\((\w)", text) == [
        ("", "interact", "f"),
        ("", "interact", "g"),
        ("1", "", ""),
        ("2", "", ""),
        ("", "interact", "h"),
        ("3", "", ""),
    ]


def test_the_front_page_has_the_readmes_chart_word_for_word(written, readme):
    rows = [
        line
        for line in pages.sections(readme)["My loss does not train"].splitlines()
        if line.startswith("|")
    ]
    front = written["index.md"]
    assert len(rows) > 20
    for row in rows:
        assert re.sub(r"\(nbs/(\w+)\.ipynb\)", r"(\1.md)", row) in front
    assert (
        front.index("> Why did my loss not train?")
        < front.index("[The course](course.md) · ")
        < front.index(rows[0])
        < front.index("- [The course](course.md)")
        < front.index("- [The API](api/index.md)")
        < front.index("How it began")
    )
    assert "</div>\n\n" in front and "</div>\nA" not in front, "or Markdown takes what follows for HTML"
    assert rows[5].replace("nbs/", "").replace(".ipynb", ".md") in written["14_is_it_my_loss.md"]
    assert '<div class="chart">' in written["14_is_it_my_loss.md"]
    assert "[ask the doctor](package.md#is-it-my-loss)" in front
    assert "## Is it my loss?" in written["package.md"]


def test_the_page_to_draw_on_is_linked_where_it_exists(written, tmp_path):
    assert not any("draw.md" in text for text in written.values()) and "draw.md" not in written
    (tmp_path / "widgets/draw").mkdir(parents=True)
    (tmp_path / "widgets/draw/pad.html").write_text("<p>the pad</p>")
    (tmp_path / "widgets/draw/accuracy").write_text("96.9%")
    pages.main(tmp_path / "widgets", tmp_path / "source")
    front, course, draw = (
        (tmp_path / "source" / name).read_text() for name in ("index.md", "course.md", "draw.md")
    )
    assert "<p>the pad</p>" in draw and "\nglossary\ndraw\n" in front
    assert front.index(" · [Draw a digit](draw.md)\n") < front.index("| symptom |")
    assert front.index("\n- [Draw a digit](draw.md), ") < front.index("How it began")
    assert "[Draw a digit](draw.md)" in course


def test_nothing_of_the_readme_is_lost(written, readme):
    there = "\n".join(
        written[name] for name in ("index.md", "package.md", "course.md", "reference/index.md")
    )
    bare = lambda text: re.sub(r"\]\([^)]*\)", "]", text)
    missing = [line for line in bare(readme).splitlines() if line.lstrip("# ") not in bare(there)]
    assert not missing


def test_nbdevs_index_leads_to_the_references_pages(written):
    for module, names in INDEX["syms"].items():
        for name, (address, _) in names.items():
            where, _, anchor = address.partition("#")
            text = written[where.replace(".html", ".md")]
            assert f'id="{anchor}"' in text or anchor in pages.headings(text), name


def test_the_api_has_each_public_name_with_signature_and_docstring(written):
    import mnist_ce.all as everything

    for name in set(everything.__all__) - {"torch", "F", "nn"}:
        assert re.search(rf"`{name} <mnist_ce\.\w+\.{name}>`", written["api/index.md"]), name
    losses, metrics = written["api/losses.md"], written["api/metrics.md"]
    assert '{py:function} cross_entropy_loss(preds, targets, reduction="mean")' in losses
    assert "{py:function} accuracy(preds: Tensor, targets: Tensor) -> Tensor" in metrics
    assert everything.accuracy.__doc__.splitlines()[0] in metrics
    assert '<a href="../reference/metrics.html#accuracy">' in metrics
    assert "{py:class} Summary(n: int, mean: float" in written["api/results.md"]
    assert "_told" not in written["api/case.md"]


def test_every_notebook_has_a_page_without_directives_and_with_all_its_figures(written):
    notebooks = [path for path in (ROOT / "nbs").glob("**/*.ipynb") if path.stem != "index"]
    for path in notebooks:
        text = written[pages.page_of(path.relative_to(ROOT).as_posix())]
        assert not re.search(r"(?m)^#\|", text)
        code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        shown = [
            o
            for c in code
            if not c["source"] or "#| hide\n" not in c["source"]
            for o in c["outputs"]
        ]
        assert text.count("```{image}") == sum("image/png" in o.get("data", {}) for o in shown)


def test_what_opens_a_lesson_elsewhere_is_left_out():
    lesson = "# A\n\n[![Open in Colab](https://a.example/b.svg)](https://c.example)\n\nText"
    args = "nbs/00_frozen_accuracy.ipynb", "00_frozen_accuracy.md", set()
    assert pages.with_links(lesson, *args) == "# A\n\nText"
    assert page(cell("!git clone x") | dict(id="fetch-the-course"))[0].strip() == ""
