"""Write what a teacher hands out, from the lessons as they are stored: python nbs/handouts.py FOLDER

figures/figure_NN_k.png, each with its caption in figures.md, and answers.md, the questions of all
lessons with their answers.
"""
import base64
import json
import re
import sys
from pathlib import Path

NBS = Path(__file__).parent


def of_lesson(path):
    """A lesson's title, its figures [(number, caption, alt, bytes)], its questions and answers in Markdown."""
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
    questions = re.sub(r"<details>\s*<summary>Answer</summary>\s*", "\n*Answer.* ", questions)
    questions = questions.replace("</details>", "")
    sources = ["".join(cell["source"]) for cell in codes]
    answers = [f"```python\n{source}\n```" for source in sources if source.startswith("# Question")]
    title = re.match(r"# (.+)", prose).group(1)
    return f"{path.name[:2]} {title}", figures, "\n\n".join([questions.strip(), *answers])


def main(folder):
    """Write all of it."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    listed, asked = ["# The figures of the lessons"], ["# Questions and answers"]
    for path in sorted(NBS.glob("[0-9][0-9]_*.ipynb")):
        title, figures, questions = of_lesson(path)
        for number, caption, alt, data in figures:
            name = f"figure_{number.replace('.', '_')}.png"
            (folder / "figures" / name).write_bytes(data)
            listed.append(f"![{alt}](figures/{name})\n\n**Figure {number}.** {caption}")
        asked.append(f"## {title}\n\n{questions}")
    (folder / "figures.md").write_text("\n\n".join(listed) + "\n")
    (folder / "answers.md").write_text("\n\n".join(asked) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
