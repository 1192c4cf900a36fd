"""Write the project's place on GitHub wherever it is needed: python nbs/address.py OWNER/NAME

settings.ini keeps it, setup.py and this file derive the rest: the addresses in pyproject.toml, from
which nbdev makes the links of other projects' pages to ours, the one in CITATION.cff, the badges of
the lessons and the index, and the lessons' first cell. `make address` exports and renders after it.
"""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CELL = "fetch-the-course"  # the id of the cell
FETCH = """\
# Where the rest of the course is missing, as in Colab: fetch it, install it, go there.
import os

if not os.path.exists("../benchmarks"):
    if not os.path.exists("{name}"):
        !git clone -q --depth 1 https://github.com/{repository}
    %pip install -q ./{name}{more}
    %cd -q {name}/nbs"""


def badges(repository, notebook):
    """The two badges that open a notebook, in Markdown."""
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/nbs/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/nbs/{notebook}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def stamp_text(path, pattern, line):
    """Put `line` where the file has `pattern`, which ends where the line should stand."""
    text, found = re.subn(pattern, lambda match: match[1] + line, path.read_text(), flags=re.M)
    assert found == 1, f"{path.name}: {pattern} was found {found} times"
    path.write_text(text)


def stamp_notebook(path, badges, fetch=None):
    """Put the badges under a notebook's head, and after it the cell that fetches the course."""
    notebook = json.loads(path.read_text())
    head, *cells = [cell for cell in notebook["cells"] if cell["id"] != CELL]
    text = re.sub(r"\[!\[Open in Colab.+\n\n?", "", "".join(head["source"]))
    text = re.sub(r"\A# .+\n\n> .+\n(\n\*\*You need:.+\n?)?", rf"\g<0>\n{badges}\n", text)
    head["source"] = text.splitlines(keepends=True)
    if fetch:
        folded = dict(jupyter=dict(source_hidden=True))
        cells.insert(0, dict(cell_type="code", execution_count=None, id=CELL, metadata=folded,
                             outputs=[], source=fetch.splitlines(keepends=True)))  # fmt: skip
    notebook["cells"] = [head, *cells]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def main(repository):
    """Stamp all files. Again changes nothing; another address takes the place of the first."""
    if not re.fullmatch(r"[\w-]+/[\w.-]+", repository):
        wanted = "write make address REPOSITORY=owner/name"
        sys.exit(f"{repository!r} is not a repository on GitHub: {wanted}")
    owner, name = repository.split("/")
    home = f"https://github.com/{repository}"
    stamp_text(ROOT / "settings.ini", r"^(repository =).*", f" {repository}")
    stamp_text(
        ROOT / "CITATION.cff",
        r"^(type: software\n)(?:repository-code.*\n)?",
        f"repository-code: {home}\n",
    )
    pages = f"https://{owner}.github.io/{name}/"
    stamp_text(
        ROOT / "pyproject.toml",
        r"^(\[project.urls\]\n)(?:Repository.*\nDocumentation.*\n)?",
        f'Repository = "{home}"\nDocumentation = "{pages}"\n',
    )
    stamp_notebook(ROOT / "nbs/index.ipynb", badges(repository, "00_frozen_accuracy.ipynb"))
    for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")):
        more = " fastai fastbook" if path.name == "13_fastai.ipynb" else ""
        fetch = FETCH.format(name=name, repository=repository, more=more)
        stamp_notebook(path, badges(repository, path.name), fetch)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
