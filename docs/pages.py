"""Lay out what Sphinx builds the site from: the stored notebooks, README.md, the API.

python docs/pages.py WIDGETS FOLDER: WIDGETS is what docs/widgets.py filled, FOLDER becomes the
source of Sphinx. MyST-NB shows the notebooks with the outputs that they store; griffe reads the
modules' text. Nothing is run.
"""

import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from os.path import dirname, join, normpath
from pathlib import Path
from string import Template

import griffe

ROOT = Path(__file__).parent.parent
SOURCE = Path(__file__).parent / "source"  # pages of the site's own, with places to fill
PAGES = {  # what stands beside the notebooks, and its page
    "README.md": "index.md",
    "nbs/glossary.md": "glossary.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def page_of(path: str) -> str:
    """Where a file of the repository lies in Sphinx's source, the reference as nbdev has it."""
    return PAGES.get(path, re.sub(r"^nbs/|(?<=/reference/)\d\d_", "", path))


def linked(text: str, source: str) -> str:
    """Markdown of the file `source` with links to pages; Sphinx fails where there is no page."""
    to_page = lambda link: f"](/{page_of(normpath(join(dirname(source), link[1])))}"
    text = re.sub(r"(?m)^\[!\[Open in .*\n\n?", "", text)  # badges, whose pictures other hosts have
    text = re.sub(r"\]\((?![a-z]+:)([^()#\s]+)", to_page, text)
    return text.replace("| symptom |", "{.chart}\n| symptom |")  # which a phone shows as cards


def without_directives(source: str) -> tuple[str, set[str]]:
    """Code without nbdev's `#|` lines, and the first word of each of these."""
    words = set(re.findall(r"(?m)^#\| *(\w+)", source))
    return re.sub(r"(?m)^#\|.*\n?", "", source).strip("\n"), words


def html(text: str, name: str) -> dict:
    """A cell of HTML."""
    return dict(cell_type="raw", id=name, metadata={"format": "text/html"}, source=text)


def metadata(cell: dict, code: str, words: set[str], output: dict | None) -> dict:
    """What MyST-NB must know of a code cell: what is folded, and the words of its figure."""
    question = re.match(r"# Question (\d)", code)
    summary, tags = "Code of the figure" if output else "Code", []
    if question:
        summary, tags = f"Answer to question {question[1]}, in code", ["hide-cell"]
    elif "hide_input" in words:
        tags = ["remove-input"]
    elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
        tags = ["hide-input"]
    given = {"code_prompt_show": summary, "code_prompt_hide": summary}
    if output:
        alt = output["metadata"].get("image/png", {}).get("alt")
        if not alt:
            told = "has no alt text: draw it with new_figure(..., alt=...)"
            raise ValueError(f"the figure of {code[:40]!r} {told}")
        given["image"] = {"alt": " ".join(alt.split()), "classes": "figure"}
    return {"tags": tags, "mystnb": given}


def shown(cells: list[dict], source: str, widgets=(), anchors=()) -> Iterator[dict]:
    """A notebook's cells as MyST-NB takes them: hidden ones left out, folded ones folded.

    widgets: HTML for the calls of `interact`, in their order. anchors: names as nbdev writes them
    in an address, each put above the code that defines it.
    """
    widgets, anchors = list(widgets), sorted(anchors)
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield cell | {"source": linked(text, source)}
            continue
        code, words = without_directives(text)
        if "hide" in words or cell.get("id") == "fetch-the-course":  # for Colab alone
            continue
        here = [a for a in anchors if re.search(rf"(?mi)^(def|class) {a.split('.')[0]}\b", code)]
        if here:
            yield html("".join(f'<span id="{a}"></span>' for a in here), f"{cell['id']}-anchors")
        figures = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
        first, *later = figures or [None]  # MyST-NB takes one alt text for a cell
        kept = [o for o in cell["outputs"] if not any(o is one for one in later)]
        given = metadata(cell, code, words, first)
        yield cell | dict(source=code, outputs=kept, metadata=given)
        for k, output in enumerate(later):
            given = metadata(cell, code, words, output)
            given["tags"].append("remove-input")
            yield cell | dict(
                id=f"{cell['id']}-{k}", source=code, outputs=[output], metadata=given
            )
        for k, _ in enumerate(re.findall(r"(?m)^interact\(", code)):
            if widgets:
                yield html(widgets.pop(0), f"{cell['id']}-widget-{k}")


def notebook(path: Path, widgets: Path, addresses: list[str]) -> dict:
    """A stored notebook as MyST-NB takes it. addresses: of nbdev's index."""
    stored, source = json.loads(path.read_text()), path.relative_to(ROOT).as_posix()
    page = page_of(source).replace(".ipynb", ".html")
    words = [cell for cell in stored["cells"] if cell["cell_type"] == "markdown"]
    text = "\n".join("".join(cell["source"]) for cell in words)
    anchors = {
        anchor
        for where, _, anchor in (address.partition("#") for address in addresses)
        if where == page and not re.search(rf"(?mi)^#+ `?{re.escape(anchor)}`?$", text)
    }
    moving = widgets / path.stem / "widgets.json"
    drawn = json.loads(moving.read_text()) if moving.exists() else []
    cells = list(shown(stored["cells"], source, drawn, anchors))
    return stored | {"cells": cells, "metadata": {"language_info": {"name": "python"}}}


def readme_parts(readme: str) -> dict[str, str]:
    """README.md in parts, as the pages in docs/source name them."""
    front, *rest = re.split(r"(?m)^## (.+)\n", readme)
    found = dict(zip(rest[::2], rest[1::2]))
    pages = {heading: "package" for heading in found}
    pages |= {"My loss does not train": "index", "The course": "course"}
    slug = lambda heading: re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    there = {slug(heading): page for heading, page in pages.items()}
    to_page = lambda link: f"](/{there[link[1]]}.md#{link[1]})"
    part = lambda text: re.sub(r"\]\(#([\w-]+)\)", to_page, linked(text, "README.md")).strip()
    title, question, story = front.split("\n\n", 2)
    course, reference = found["The course"].split("\n\nThe reference is")
    package = [f"## {h}\n{text}" for h, text in found.items() if pages[h] == "package"]
    chart = part(found["My loss does not train"]).replace("{.chart}", "{.chart .front}")
    return dict(
        title=title,
        question=part(question),
        story=part(story),
        chart=chart,
        course=part(course),
        reference=part(f"The reference is{reference}"),
        package=part("\n".join(package)),
    )


def entry(of: griffe.Object, fence: str = ":::::") -> str:
    """The directive that documents a definition, and, within a class, its public methods."""
    _, module, name = of.path.split(".", 2)
    doc = of.docstring.value if of.docstring else ""
    kind, anchor = of.kind.value, f"#{name.lower()}"
    members = [one for one in of.members.values() if of.is_class and not one.is_alias]
    fields = [
        f"{one.name}: {one.annotation}" + (f" = {one.value}" if one.value else "")
        for one in members
        if one.is_attribute and one.annotation and "property" not in one.labels
    ]
    if called := re.search(rf"Called as ({name}\(.+?\))", doc):  # a loss is a value that is called
        signature = called[1]
    elif of.is_attribute:
        signature, anchor = name, ""
        kind = "property" if "property" in of.labels else "data"
    elif of.is_class and not of.parameters and fields:
        signature = f"{name}({', '.join(fields)})"
    else:
        signature = of.signature(name=name) or name
        kind = "method" if of.parent.is_class else kind
    options = [f":{mark}:" for mark in ("staticmethod", "classmethod") if mark in of.labels]
    made = f'<a href="../reference/{module}.html{anchor}">How it is made</a>'
    within = [entry(one, "::::") for one in members if one.docstring and one.name[0] != "_"]
    body = ["", doc, "", *([] if of.parent.is_class else [made, ""]), *within]
    return "\n".join([f"{fence}{{py:{kind}}} {signature}", *options, *body, fence, ""])


def api_pages(modules: dict[str, griffe.Module]) -> dict[str, str]:
    """A page for each module: its public names, with signatures and docstrings."""
    pages = {}
    for name, module in modules.items():
        title = f"# mnist_ce.{name}\n\n> {module.docstring.value}\n"
        listed = [of for of in module.members.values() if of.name in module.exports]
        entries = [entry(of) for of in listed if not of.is_alias]
        heads = [title, f":::{{py:module}} mnist_ce.{name}\n:::\n"]
        pages[f"api/{name}.md"] = "\n".join(heads + entries)
    return pages


def api_rows(modules: dict[str, griffe.Module], everything: griffe.Module) -> str:
    """What `from mnist_ce.all import *` brings of ours, each with its docstring's first line."""
    paths = {of.target_path for of in everything.members.values() if of.is_alias}
    rows = []
    for name, module in modules.items():
        for of in (of for of in module.members.values() if of.path in paths):
            doc = of.docstring.value if of.docstring else f"one of the constants of `{name}`"
            line = doc.split("\n")[0].replace("|", "\\|")
            there = f"[{name}](/api/{name}.md)"
            rows.append(f"| {{py:obj}}`{of.name} <{of.path}>` | {there} | {line} |")
    return "\n".join(rows)


def main(widgets: Path, folder: Path) -> None:
    """Write every page."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "nbs/figures", folder / "figures")
    notebooks = sorted([*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("nbs/reference/*.ipynb")])
    notebooks = [path for path in notebooks if path.stem != "index"]
    index = runpy.run_path(str(ROOT / "mnist_ce/_modidx.py"))["d"]["syms"]
    addresses = [address for names in index.values() for address, _ in names.values()]
    pages = {page: linked((ROOT / path).read_text(), path) for path, page in PAGES.items()}
    titles = {}
    for path in notebooks:
        made, page = notebook(path, widgets, addresses), page_of(path.relative_to(ROOT).as_posix())
        titles[page[:-6]] = re.match(r"# (.+)", "".join(made["cells"][0]["source"]))[1]
        pages[page] = json.dumps(made, ensure_ascii=False)
    package = griffe.load("mnist_ce", search_paths=[ROOT])
    rooms = [page[10:] for page in titles if page.startswith("reference/")]
    modules = {name: package[name] for name in rooms if name != "all"}
    pages |= api_pages(modules)
    numbered = [page for page in titles if page[:2].isdigit()]
    words = readme_parts((ROOT / "README.md").read_text()) | dict(
        lessons="\n".join(f"{page[:2]} {titles[page]} <{page}>" for page in numbered),
        rooms="\n".join(rooms),
        modules="\n".join(modules),
        names=api_rows(modules, package["all"]),
        pad=(widgets / "draw/pad.html").read_text(),
        accuracy=(widgets / "draw/accuracy").read_text(),
    )
    for path in SOURCE.glob("**/*.md"):
        pages[path.relative_to(SOURCE).as_posix()] = Template(path.read_text()).substitute(words)
    for page, text in pages.items():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
