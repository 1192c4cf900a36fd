"""Render index.ipynb to the repository's README.md: hidden cells left out, code fences labeled."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

NBS = Path(__file__).parent
FIGURES = "nbs/figures"


def render():
    """The text of README.md, and its figures: {path from the root: bytes}."""
    notebook = nbformat.read(NBS / "index.ipynb", as_version=4)
    notebook.metadata["language_info"] = {"name": "python"}  # what the fences are labeled with
    cells = [cell for cell in notebook.cells if not cell.source.startswith("#| hide\n")]
    for cell in cells:
        if cell.source.startswith("#| hide_input\n"):
            cell.source = ""
    notebook.cells = cells
    config = Config()
    config.ExtractOutputPreprocessor.output_filename_template = "index_{cell_index}{extension}"
    # A stream that came in two pieces is one.
    coalesce = "nbconvert.preprocessors.CoalesceStreamsPreprocessor"
    text, resources = MarkdownExporter(config=config, preprocessors=[coalesce]).from_notebook_node(
        notebook, resources={"output_files_dir": FIGURES}
    )
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    alts = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    text = re.sub(r"!\[png\]", lambda _: f"![{alts.pop(0)}]", text).replace("```python\n\n```\n", "")
    lines = [line.rstrip() for line in text.strip().split("\n")]
    kept = [line for above, line in zip(["x"] + lines, lines) if line or above]  # one empty line at most
    return "\n".join(kept) + "\n", resources["outputs"]


if __name__ == "__main__":
    text, figures = render()
    (NBS.parent / "README.md").write_text(text)
    for name, data in figures.items():
        path = NBS.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
