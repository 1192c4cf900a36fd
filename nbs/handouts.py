"""Write what a teacher hands out, from the lessons as they are stored: python nbs/handouts.py FOLDER

frozen.ipynb, the first four code cells of lesson 00 without their outputs, and mnist.npz, which they
read; figures/figure_NN_k.png, each with its caption in figures.md; front.png, the README's first
picture; chart.md, the chart "My loss does not train", and chart.html, the same to print, in landscape;
questions.md, the questions of all lessons, for the class; and answers.md, the same with their answers.
"""
import base64
import html
import json
import re
import shutil
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parent
README = NBS.parent / "README.md"
# What a lesson's answer points at, and where it is on the sheet.
ELSEWHERE = (
    (r"\b([Tt])he (?:folded cell(?: above| below)?|answer cell below|next cell|cell below)", r"\1he code below"),
    (r"\b([Tt])he table above", r"\1he lesson's table"),
    (r"the lines printed above", "the lines that the lesson prints"),
)


def of_lesson(path):
    """A lesson's title, its figures [(number, caption, alt, bytes)], its questions with answers and alone."""
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    prose, codes = "\n\n".join(texts), [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in codes for output in cell["outputs"]]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    captions = re.findall(r"\*\*Figure (\d\d\.\d+)\.\*\* (.+)", prose)
    figures = [
        (number, caption, output["metadata"]["image/png"]["alt"], base64.b64decode(output["data"]["image/png"]))
        for (number, caption), output in zip(captions, pictures, strict=True)
    ]
    questions = re.split(r"\n## (?:Next|Summary)", prose.partition("\n## Questions\n")[2])[0]
    questions = re.sub(r"\s*<details>\s*<summary>Answer</summary>\s*", "\n\n*Answer.* ", questions)
    questions = re.sub(r"\n{3,}", "\n\n", questions.replace("</details>", "").strip())
    hint = r" \(The answer is in the folded cell\.\)"  # what follows it is the answer
    questions = re.sub(hint + r"\n\n", "\n\n*Answer.* The code below finds it. ", questions)
    for there, here in ELSEWHERE:
        questions = re.sub(there, here, questions)
    asked = re.findall(r"^\d\. .+", questions, re.M)
    sources = ["".join(cell["source"]) for cell in codes]
    answers = [f"```python\n{source}\n```" for source in sources if source.startswith("# Question")]
    title = f"{path.name[:2]} {re.match(r'# (.+)', prose).group(1)}"
    return title, figures, "\n\n".join([questions, *answers]), "\n\n".join(asked)


def alone(text):
    """Markdown as it can be handed out: links are words, but for those to the figures that it names."""
    text = re.sub(r"(?<!!)\[([^]]+)\]\([^)\s]+\)", r"\1", text)
    return re.sub(r"\b([Ff]igure (\d\d)\.(\d+))", r"[\1](figures/figure_\2_\3.png)", text)


def of_the_class():
    """Lesson 00 as the class gets it: its first four code cells, and no word."""
    notebook = json.loads((NBS / "00_frozen_accuracy.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if cell["id"] != "fetch-the-course"][:4]  # see address.py
    for cell in cells:
        source = "".join(cell["source"])
        source = re.sub(r'(?s)file = Path.*?np\.load\(file\)', 'mnist = np.load("mnist.npz")', source)
        cell.update(source=source.splitlines(keepends=True), outputs=[], execution_count=None)
    return json.dumps(notebook | dict(cells=cells), indent=1, ensure_ascii=False) + "\n"


STYLE = """\
@page { size: A4 landscape; margin: 10mm } body { font: 8.5pt/1.25 sans-serif } h1 { font-size: 13pt }
table { border-collapse: collapse } td { border: 1px solid #999; padding: 2px 5px; text-align: left;
vertical-align: top } tr { break-inside: avoid } code { font-size: 7.5pt; overflow-wrap: anywhere }"""


def to_print(text):
    """The chart's Markdown, paragraphs, a list and a table, without links, as a page of HTML."""
    body = []
    for block in text.strip().split("\n\n"):
        block = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(block, quote=False))
        block = re.sub(r"\*\*?([^*\n]+)\*\*?", r"<i>\1</i>", block)
        lines = block.split("\n")
        if block.startswith("|"):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if set(line) - set("|-: ")]
            cells = ["".join(f"<td>{cell.strip()}</td>" for cell in row) for row in rows]
            body.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>")
        elif block.startswith("- "):
            body.append(f"<ul>{''.join(f'<li>{line[2:]}</li>' for line in lines)}</ul>")
        else:
            body.append(re.sub(r"^# (.+)", r"<h1>\1</h1>", block) if lines[0][0] == "#" else f"<p>{block}</p>")
    return f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>\n' + "\n".join(body) + "\n"


def main(folder):
    """Write all of it."""
    folder = folder.resolve()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    listed, asked, answered = ["# The figures of the lessons"], ["# Questions"], ["# Questions and answers"]
    answered.append("Code among the answers goes to the end of its lesson's notebook, which defines what it uses.")
    for path in sorted(NBS.glob("[0-9][0-9]_*.ipynb")):
        title, figures, answers, questions = of_lesson(path)
        for number, caption, alt, data in figures:
            name = f"figure_{number.replace('.', '_')}.png"
            (folder / "figures" / name).write_bytes(data)
            listed.append(f"![{alt}](figures/{name})\n\n**Figure {number}.** {alone(caption)}")
        asked.append(f"## {title}\n\n{alone(questions)}")
        answered.append(f"## {title}\n\n{alone(answers)}")
    shutil.copy(NBS / "figures/index_1.png", folder / "front.png")
    chart = re.search(r"(?ms)^#(# My loss does not train\n.*?)\n## ", README.read_text()).group(1)
    (folder / "chart.md").write_text(alone(chart))
    (folder / "chart.html").write_text(to_print(alone(chart)))
    (folder / "frozen.ipynb").write_text(of_the_class())
    shutil.copy(NBS.parent / "mnist_ce/mnist.npz", folder)
    for name, parts in ("figures", listed), ("questions", asked), ("answers", answered):
        (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
