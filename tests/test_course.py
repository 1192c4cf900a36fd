"""The lessons are lessons: of one form, short, with questions, pictures that say what they show, and an end."""
import ast
import builtins
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NBS = Path(__file__).parent.parent / "nbs"
LESSONS = sorted(NBS.glob("[0-9][0-9]_*.ipynb"))
CHAPTERS = LESSONS + sorted(NBS.glob("reference/*.ipynb")) + [NBS / "index.ipynb"]
EACH = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def cells_of(path, kind=None):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if kind in (None, cell["cell_type"])]


def sources(path, kind):
    return ["".join(cell["source"]) for cell in cells_of(path, kind)]


def figures(path):
    """The words of each figure."""
    outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
    pictures = [output for output in outputs if any(kind.startswith("image/") for kind in output.get("data", {}))]
    return [output["metadata"].get("image/png", {}).get("alt", "") for output in pictures]


def test_the_lessons_are_numbered_without_a_hole():
    assert [path.name[:2] for path in LESSONS] == [f"{k:02}" for k in range(16)]


@EACH
def test_a_lesson_is_short(path):
    assert len([cell for cell in cells_of(path) if cell["id"] != "fetch-the-course"]) <= 25
    for code in sources(path, "code"):
        assert len(code.splitlines()) <= 25, code
        assert not [line for line in code.splitlines() if len(line) > 88]


@EACH
def test_a_lesson_opens_with_a_question_and_ends_with_a_summary(path):
    first = sources(path, "markdown")[0]
    assert re.match(r"# .+\n\n> .+\?\n\n\*\*You need:\*\* .+ \*\*You will know:\*\* .+ \*\*Time:\*\* \d+ minutes\.", first)
    text = "\n\n".join(sources(path, "markdown"))
    assert re.search(r"^## Summary$", text, re.M) and re.search(r"^## Next$", text, re.M)
    assert cells_of(path)[-1]["cell_type"] == "markdown"


@EACH
def test_a_lesson_asks(path):
    text = "\n\n".join(sources(path, "markdown"))
    assert text.count("**Predict before you run.**") >= 3
    questions = text.partition("\n## Questions\n")[2]
    asked = re.findall(r"^(\d)\. ", questions, re.M)
    assert asked == ["1", "2", "3", "4", "5"]
    in_code = re.findall(r"^# Question (\d)", "\n".join(sources(path, "code")), re.M)
    assert len(re.findall(r"<details>", questions)) + len(set(in_code)) >= 5, "an answer to each"


@EACH
def test_answers_in_code_are_folded(path):
    for cell in cells_of(path, "code"):
        if "".join(cell["source"]).startswith("# Question"):
            assert cell["metadata"].get("jupyter") == {"source_hidden": True}


def test_each_cell_of_the_last_lesson_stands_alone_after_the_first():
    from mnist_ce import all as everything

    first, *others = (ast.parse(code) for code in sources(LESSONS[15], "code"))
    known = {*everything.__all__, *dir(builtins)} | bound(first)
    for cell in others:
        used = {node.id for node in ast.walk(cell) if isinstance(node, ast.Name)}
        assert used <= known | bound(cell), ast.unparse(cell)[:200]


def bound(tree):
    """The names that code makes: assigned, imported, defined, or a parameter."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_figure_says_what_it_shows(path):
    assert all(len(alt) > 20 for alt in figures(path)), "new_figure(..., alt=...)"


@EACH
def test_each_figure_of_a_lesson_has_a_caption(path):
    number = path.name[:2]
    captions = re.findall(r"\*\*Figure (\d\d)\.(\d+)\.\*\* \w", "\n".join(sources(path, "markdown")))
    assert captions == [(number, str(k + 1)) for k in range(len(figures(path)))]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "\n".join(sources(path, "markdown"))):
        base = NBS.parent if path.name == "index.ipynb" else path.parent  # the index is the README
        assert target.startswith("http") or (base / target).exists(), target


WORDS = r"\b(mend(s|ed|ing)?|[Ww]hoever|for want of|told in|come out even|for there (is|are))\b"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_prose_is_plain_american_english(path):
    found = re.search(WORDS, "\n".join(sources(path, "markdown")))
    assert not found, found.group(0)


def test_a_teacher_gets_every_figure_and_every_answer_as_files(tmp_path):
    subprocess.run([sys.executable, str(NBS / "handouts.py"), str(tmp_path)], check=True)
    pictures = sorted((tmp_path / "figures").iterdir())
    assert len(pictures) == sum(len(figures(path)) for path in LESSONS) > 40
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    listed = (tmp_path / "figures.md").read_text()
    assert re.findall(r"\(figures/(\S+)\)", listed) == [picture.name for picture in pictures]
    answers = (tmp_path / "answers.md").read_text()
    assert len(re.findall(r"^## \d\d ", answers, re.M)) == 16 and answers.count("*Answer.*") == 80
    assert "<details>" not in answers and len(re.findall(r"^\d\. ", answers, re.M)) == 80


def test_the_handouts_stand_alone(tmp_path):
    subprocess.run([sys.executable, str(NBS / "handouts.py"), str(tmp_path)], check=True)
    texts = {path.name: re.sub(r"(?s)```.*?```", "", path.read_text()) for path in tmp_path.glob("*.md")}
    asked, answers = texts["questions.md"], texts["answers.md"]
    assert len(re.findall(r"^\d\. ", asked, re.M)) == answers.count("*Answer.*") == 80
    assert "*Answer.*" not in asked
    assert not re.search(r"folded|(table|cell|printed) above|next cell|cell below", asked + answers)
    for name, text in texts.items():
        links = re.findall(r"\]\(([^)#\s]+)", text)
        assert all((tmp_path / link).exists() for link in links), name
        assert (".ipynb" not in text) and "](/" not in text and "](#" not in text, "links into the clone"
        assert not re.search(r"^\d\. .+\n\*Answer", text, re.M), "Markdown would run the two together"
    assert "[figure 05.2](figures/figure_05_2.png)" in asked
    assert not re.search(r"(?<!\[)[Ff]igure \d\d\.\d", asked + answers), "each figure that is named is on the sheet"
    assert "| symptom |" in texts["chart.md"] and (tmp_path / "front.png").stat().st_size > 1000


def test_the_class_gets_four_cells_that_run_and_no_word_of_the_answer(tmp_path, monkeypatch, capsys):
    subprocess.run([sys.executable, str(NBS / "handouts.py"), str(tmp_path)], check=True)
    cells = json.loads((tmp_path / "frozen.ipynb").read_text())["cells"]
    assert len(cells) == 4 and not any(cell["outputs"] for cell in cells)
    assert {cell["cell_type"] for cell in cells} == {"code"}
    monkeypatch.chdir(tmp_path)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    quick = "DataLoader = lambda *given, **options: [*torch.utils.data.DataLoader(*given, **options)]\n"
    names = {}
    exec(code.replace("threes, sevens =", f"{quick}threes, sevens ="), names)
    names["mnist"].close()  # a class may leave it open; here it would warn in another test
    assert capsys.readouterr().out.split()[-10:] == ["0.5112"] * 10


def test_the_chart_to_print_has_every_row(tmp_path):
    subprocess.run([sys.executable, str(NBS / "handouts.py"), str(tmp_path)], check=True)
    chart, page = ((tmp_path / name).read_text() for name in ("chart.md", "chart.html"))
    rows = [line for line in chart.splitlines() if line.startswith("| ") and "---" not in line]
    assert page.count("<tr>") == len(rows) > 20 and page.count("<td>") == 5 * len(rows)
    tests = re.findall(r"`([^`]+)`", chart)
    assert [html.unescape(test) for test in re.findall(r"<code>(.+?)</code>", page)] == tests
    assert "](" not in page and "**" not in page


def test_the_handouts_say_how_they_are_called():
    told = subprocess.run([sys.executable, str(NBS / "handouts.py"), "--help"], capture_output=True, text=True)
    assert told.returncode == 1 and "nbs/handouts.py FOLDER" in told.stderr


def test_each_word_of_the_glossary_stands_in_its_lesson():
    rows = re.findall(r"^\| (.+?) \| .+ \| \[(\d\d)\]\((\S+)\) \|$", (NBS / "glossary.md").read_text(), re.M)
    assert len(rows) >= 30 and [word.lower() for word, *_ in rows] == sorted(word.lower() for word, *_ in rows)
    for words, number, name in rows:
        text = "\n".join(sources(NBS / name, "markdown")).lower()
        assert name.startswith(number) and words.split(", ")[0].lower() in text, (words, name)
