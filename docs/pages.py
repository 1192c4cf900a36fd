"""Turn the stored notebooks into the pages that Sphinx builds.

python docs/pages.py WIDGETS FOLDER: WIDGETS is what docs/widgets.py filled, FOLDER becomes the
source of Sphinx. Nothing is run: code, outputs and figures are those that the notebooks store.
"""

import ast
import base64
import json
import re
import shutil
import sys
from html import escape
from os.path import relpath
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n\n"  # no table of contents beside it
# A line of links above the chart, for those who came for something else.
LINE = """\
[The course](course.md) · [For teachers](for_teachers.md) · [The package](package.md) · \
[The reference](reference/index.md) · [The API](api/index.md)"""
DRAW = "[Draw a digit](draw.md)", "and let a model trained on MNIST read it."
DOORS = """\
## From here

- [The course](course.md): sixteen lessons, from the frozen accuracy to your own work, \
and [a glossary](glossary.md) of their words.
- [For teachers](for_teachers.md): an hour's plan, and numbers to quote with their sources.
- [The package](package.md): two commands, the doctor, and what it does in a notebook of your own.
- [The reference](reference/index.md): how the library is made, a module from each notebook.
- [The API](api/index.md): every public name, with its signature."""
CODE = r"(?ms)^( *)(`{3,})[^\n]*\n.*?^\1\2`*$|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`)"
PAGES = {  # what stands beside the notebooks, and its page
    "README.md": "index.md",
    "nbs/index.ipynb": "index.md",
    "nbs/glossary.md": "glossary.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def page_of(path: str) -> str | None:
    """The page of a file of the repository, where nbdev expects it, or None."""
    place = re.fullmatch(r"nbs/(?:(reference)/\d\d_)?(\w+)\.ipynb", path)
    if path in PAGES or not place:
        return PAGES.get(path)
    return f"{place[1]}/{place[2]}.md" if place[1] else f"{place[2]}.md"


def outside_code(pattern: str, replace, text: str) -> str:
    """`re.sub`, which leaves code in backticks alone."""
    found, at = [], 0
    for code in re.finditer(CODE, text):
        found += [re.sub(pattern, replace, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*found, re.sub(pattern, replace, text[at:])])


def with_links(text: str, source: str, page: str, files: set[str]) -> str:
    """Markdown of the file `source` with its links as they must be on `page`.

    A link to a notebook becomes one to its page. What has no page, such as a picture, is added to
    `files` and found under the same path.
    """

    def rewritten(link):
        target, anchor = link[1], link[2] or ""
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        path = relpath((ROOT / source).parent / target, ROOT).replace("\\", "/")
        if not (ROOT / path).is_file():
            raise ValueError(f"{source} links to {target}, which is no file of the repository")
        if not (there := page_of(path)):
            files.add(there := path)
        return f"]({relpath(there, PurePosixPath(page).parent)}{anchor})"

    text = re.sub(r"(?m)^\[!\[Open in .*\n\n?", "", text)  # badges, whose pictures other hosts have
    return outside_code(r"\]\(([^()#\s]*)(#[^()\s]*)?\)", rewritten, text)


def without_directives(source: str) -> tuple[str, set[str]]:
    """Code without nbdev's `#|` lines, and the first word of each of these."""
    lines = source.split("\n")
    words = {line[2:].split()[0] for line in lines if re.match(r"#\| *\w", line)}
    return "\n".join(line for line in lines if not line.startswith("#|")).strip("\n"), words


def block(text: str, language: str, kind: str = "") -> str:
    """A code block, in a fence longer than any within."""
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    options = f":class: {kind}\n" * bool(kind)
    return f"{ticks}{{code-block}} {language}\n{options}:force:\n\n{text}\n{ticks}"


def raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"


def figure(output: dict, name: str) -> str:
    """The directive that shows a stored picture, with its words for readers who cannot see it."""
    told = output["metadata"].get("image/png", {})
    if not told.get("alt"):
        raise ValueError(f"{name} has no alt text: draw it with new_figure(..., alt=...)")
    alt = json.dumps(" ".join(told["alt"].split()), ensure_ascii=False)
    return f"```{{image}} {name}\n:alt: {alt}\n:width: {told['width']}px\n:class: figure\n```"


def merged(outputs: list[dict]) -> list[dict]:
    """Outputs, each stream that came in pieces as one."""
    found: list[dict] = []
    for output in outputs:
        if found and output.get("name") and output.get("name") == found[-1].get("name"):
            found[-1] = found[-1] | {"text": [*found[-1]["text"], *output["text"]]}
        else:
            found.append(output)
    return found


def shown(outputs: list[dict], link, keep) -> list[str]:
    """Stored outputs as Markdown. keep(bytes) stores a picture and gives its name."""
    found = []
    for output in merged(outputs):
        data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
        if "text" in output:
            found.append(block("".join(output["text"]).rstrip("\n"), "text", "output"))
        elif "image/png" in data:
            found.append(figure(output, keep(base64.b64decode(data["image/png"]))))
        elif "text/html" in data:
            html = data["text/html"].strip()
            found.append(raw(f'<div class="scroll output" tabindex="0">\n{html}\n</div>'))
        elif "text/markdown" in data:
            found.append(link(data["text/markdown"]))
        elif "text/plain" in data:
            found.append(block(data["text/plain"], "text", "output"))
        else:
            raise ValueError(f"no way to show an output of the kinds {sorted(data) or output}")
    return found


def defined(source: str, prefix: str = "") -> list[str]:
    """The names that code defines, with their methods, as nbdev writes them in an address."""
    found = []
    for node in ast.parse(source).body if not prefix else source.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = prefix + node.name.lower()
            found += [name, *(defined(node, name + ".") if isinstance(node, ast.ClassDef) else [])]
    return found


def slug(heading: str) -> str:
    """A heading's address, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(text: str) -> set[str]:
    return {
        slug(found[1])
        for found in re.finditer(
            r"(?m)^#+ (.+)$", re.sub(CODE, lambda c: "" if c[2] else c[0], text)
        )
    }


def folded(summary: str, *parts: str) -> str:
    return "\n\n".join(
        [f'<details class="fold"><summary>{summary}</summary>', *parts, "</details>"]
    )


def notebook_page(cells: list[dict], link, keep, widgets=()) -> str:
    """A notebook's cells as Markdown: hidden ones left out, folded ones folded, answers closed.

    link: rewrites the links of Markdown. keep: see `shown`. widgets: HTML for the calls of
    `interact`, in their order.
    """
    widgets, parts = list(widgets), []
    taken = headings(
        "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    )
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(link(source))
            continue
        source, words = without_directives(source)
        if "hide" in words or cell.get("id") == "fetch-the-course":  # for Colab alone
            continue
        code = [block(source, "python")] if source and "hide_input" not in words else []
        outputs = shown(cell["outputs"], link, keep)
        if words & {"export", "exporti"}:
            names = [name for name in defined(source) if name not in taken]
            taken.update(names)
            if names:
                parts.append(raw("".join(f'<span id="{name}"></span>' for name in names)))
        if question := re.match(r"# Question (\d)", source):
            parts.append(folded(f"Answer to question {question[1]}, in code", *code, *outputs))
        elif code and cell["metadata"].get("jupyter", {}).get("source_hidden"):
            parts += [
                folded("Code of the figure" if "```{image}" in "".join(outputs) else "Code", *code),
                *outputs,
            ]
        else:
            parts += code + outputs
        for _ in re.findall(r"(?m)^interact\(", source):
            parts.append(raw(widgets.pop(0)) if widgets else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(readme: str) -> dict[str, str]:
    """README.md as {heading: text with it}; what stands before the first is under ""."""
    pieces = re.split(r"(?m)^## (.+)\n", readme)
    return {"": pieces[0]} | {h: f"## {h}\n{text}" for h, text in zip(pieces[1::2], pieces[2::2])}


def scrolled(text: str) -> str:
    """Markdown with each HTML table in a box of its own that scrolls."""
    return re.sub(
        r"(?s)<table>.*?</table>",
        lambda t: raw(f'<div class="scroll" tabindex="0">{t[0]}</div>'),
        text,
    )


def charted(text: str, kind: str = "chart") -> str:
    """Markdown with the chart's table in a box of its own, which a phone shows as cards."""
    boxed = lambda rows: f'<div class="{kind}">\n\n{rows[0].strip()}\n\n</div>\n\n'
    return re.sub(r"(?m)^\| symptom \|.*\n(?:\|.*(?:\n|\Z))+", boxed, text)


def toctree(caption: str, entries: list[str]) -> str:
    listed = "\n".join(entries)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```"


def readme_pages(readme: str, files: set[str]) -> dict[str, str]:
    """README.md as pages: index.md with the chart, course.md, reference/index.md, package.md."""
    found = sections(readme)
    chart, course = found.pop("My loss does not train"), found.pop("The course")
    lessons, reference = course.split("\n\nThe reference is", 1)
    reference = f"# Reference\n\nThe reference is{reference}"
    front, rest = found.pop(""), "# The package\n\n" + "\n".join(found.values())
    where = {name: "package.md" for name in headings(rest)} | {
        name: "course.md" for name in headings(lessons)
    }

    def linked(text, page):
        text = with_links(text, "README.md", page, files)
        inner = lambda m: (
            f"]({where.get(m[1], page)}#{m[1]})" if where.get(m[1], page) != page else m[0]
        )
        return scrolled(outside_code(r"\]\(#([\w-]+)\)", inner, text))

    lessons = lessons.replace("## The course", "# The course")
    title, question, story = front.split("\n\n", 2)
    boxed = linked(charted(chart.strip(), "chart front"), "index.md")
    opened = "\n\n".join([linked(title, "index.md"), linked(question, "index.md"), LINE, boxed])
    return {
        "index.md": f"{WIDE}{opened}\n\n{DOORS}\n\n## How it began\n\n{linked(story, 'index.md')}",
        "course.md": linked(lessons, "course.md"),
        "reference/index.md": linked(reference, "reference/index.md"),
        "package.md": linked(rest, "package.md"),
    }


def signature(node) -> str:
    """A function's parameters and what it returns; of a method without `self`."""
    text = ast.unparse(node.args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({text}){returns}"


def api_entry(node, module: str, prefix: str = "") -> list[str]:
    """The directive that documents a definition, and, within a class, its public methods."""
    name, doc = prefix + node.name, ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        body = [one for one in node.body if isinstance(one, (ast.FunctionDef, ast.ClassDef))]
        made = [one for one in body if one.name == "__init__"]
        kind, bare = "class", lambda text: re.sub(r"^\(self(, )?", "(", text.split(" -> ")[0])
        told = name + (bare(signature(made[0])) if made else "")
        public = [one for one in body if not one.name.startswith("_") and ast.get_docstring(one)]
        members = [line for one in public for line in api_entry(one, module, name + ".")]
        if not made and (
            fields := [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
        ):
            told += f"({', '.join(fields)})"
    else:
        kind, members = "method" if prefix else "function", []
        called = re.search(
            rf"Called as ({name}\(.+?\))", doc
        )  # of a loss, which is a value that is called
        told = called[1] if called else name + signature(node)
        marks = {ast.unparse(mark) for mark in node.decorator_list}
        if prefix:
            told = re.sub(r"\((self|cls)(, )?", "(", told, count=1)
            kind = (
                "property"
                if marks & {"property", "cached_property", "functools.cached_property"}
                else kind
            )
        if kind == "property":
            told = name
        options = [f":{mark}:" for mark in ("staticmethod", "classmethod") if mark in marks]
        kind = f"{kind}" + ("|" + "|".join(options) if options else "")
    kind, *options = kind.split("|")
    ticks = ":" * (4 if prefix else 5)
    source = f'<a href="../reference/{module}.html#{name.lower()}">How it is made</a>'
    return [
        f"{ticks}{{py:{kind}}} {told}",
        *options,
        "",
        doc,
        "",
        *([] if prefix else [source, ""]),
        *members,
        ticks,
        "",
    ]


def api_page(module: str, source: str) -> str:
    """The public names of a module, with signatures and docstrings, read from its text."""
    tree = ast.parse(source)
    (public,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    lines = [
        f"# mnist_ce.{module}",
        "",
        f"> {ast.get_docstring(tree)}",
        "",
        f":::{{py:module}} mnist_ce.{module}",
        ":::",
        "",
    ]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in public:
            lines += api_entry(node, module)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if name in public:
                lines += [
                    f":::{{py:data}} {name}",
                    "",
                    f'<a href="../reference/{module}.html">How it is made</a>',
                    ":::",
                    "",
                ]
    return "\n".join(lines)


def of_modules() -> dict[str, str]:
    """{module: its text}, in the order of the reference's notebooks."""
    names = [path.stem[3:] for path in sorted((ROOT / "nbs/reference").glob("*.ipynb"))]
    return {name: (ROOT / f"mnist_ce/{name}.py").read_text() for name in names}


def api_index(modules: dict[str, str]) -> str:
    """What `from mnist_ce.all import *` brings, each name with its docstring's first line."""
    nodes = {
        (module, node.name): node
        for module, text in modules.items()
        for node in ast.parse(text).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    public = ast.literal_eval(re.search(r"__all__ = (\[.*?\])", modules["all"], re.S)[1])
    rows = [
        (name, module, (ast.get_docstring(node) or "").split("\n")[0])
        for (module, name), node in nodes.items()
        if name in public
    ]
    rows += [
        (name, module, f"one of the constants of `{module}`")
        for module, text in modules.items()
        for name in public
        if re.search(rf"(?m)^{name} = ", text)
    ]
    lines = [
        "# API",
        "",
        "`from mnist_ce.all import *` brings these, besides `torch`, `F` and `nn`; "
        "`from mnist_ce import fit` brings one of them. "
        "The pages of the modules have the rest, with signatures.",
        "",
        "| name | module | |",
        "|---|---|---|",
    ]
    for name, module, line in rows:
        line = line.replace("|", "\\|")
        lines.append(
            f"| {{py:obj}}`{name} <mnist_ce.{module}.{name}>` | [{module}]({module}.md) | {line} |"
        )
    return "\n".join(lines) + "\n"


def draw_page(pad: str, accuracy: str) -> str:
    """The page to draw on: the pad as HTML, and what share of digits its model reads right."""
    question = "> What does a model that has only seen MNIST make of your digits?"
    told = (
        "The network of the book's chapter 4, 30 hidden units, trained with cross entropy when "
        f"this site was built: it reads {accuracy} of MNIST's test images right, and runs in "
        "this page."
    )
    return "\n\n".join(["# Draw a digit", question, told, raw(pad)]) + "\n"


def with_draw(front: str) -> str:
    """The front page with the page to draw on: in the line of links, the doors and the menu."""
    line, door, menu = LINE.splitlines()[-1], DOORS.splitlines()[-1], "\nglossary\n"
    front = front.replace(line, f"{line} · {DRAW[0]}", 1)
    front = front.replace(door, f"{door}\n- {DRAW[0]}, {DRAW[1]}", 1)
    return front.replace(menu, f"{menu}draw\n", 1)


def main(widgets: Path, folder: Path) -> None:
    """Write every page."""
    shutil.rmtree(folder, ignore_errors=True)
    files: set[str] = set()
    pages = readme_pages((ROOT / "README.md").read_text(), files)
    for path in "nbs/glossary.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md":
        pages[PAGES[path]] = with_links((ROOT / path).read_text(), path, PAGES[path], files)
    titles = {}
    for path in sorted((ROOT / "nbs").glob("**/*.ipynb")):
        source, page = str(path.relative_to(ROOT)), page_of(str(path.relative_to(ROOT)))
        if page == "index.md" or ".ipynb_checkpoints" in source:
            continue
        cells, count = json.loads(path.read_text())["cells"], 0

        def keep(data):
            nonlocal count
            count += 1
            name = PurePosixPath("figures", f"{PurePosixPath(page).stem}_{count}.png")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            return f"/{name}"

        stored = widgets / path.stem / "widgets.json"
        moving = json.loads(stored.read_text()) if stored.exists() else []
        link = lambda text: charted(with_links(text, source, page, files))
        pages[page] = notebook_page(cells, link, keep, moving)
        titles[page] = re.match(r"# (.+)", "".join(cells[0]["source"]))[1]
    modules = of_modules()
    pages["api/index.md"] = api_index(modules)
    for module, text in modules.items():
        if module != "all":
            pages[f"api/{module}.md"] = api_page(module, text)

    lessons = [
        f"{page[:2]} {title} <{page[:-3]}>"
        for page, title in titles.items()
        if re.match(r"\d\d_", page)
    ]
    rooms = [page[10:-3] for page in titles if page.startswith("reference/")]
    pages["index.md"] += (
        "\n\n".join(
            [
                "",
                toctree("Course", ["The course <course>", *lessons, "glossary", "for_teachers"]),
                toctree("Library", ["package", "api/index", "reference/index"]),
                toctree("Project", ["contributing", "security", "changelog"]),
            ]
        )
        + "\n"
    )
    pages["reference/index.md"] += "\n" + toctree("Reference", rooms) + "\n"
    pages["api/index.md"] += (
        "\n" + toctree("API", [name for name in modules if name != "all"]) + "\n"
    )
    pad = widgets / "draw" / "pad.html"  # docs/widgets.py makes it where the package can
    if pad.exists():
        pages["draw.md"] = draw_page(pad.read_text(), (pad.parent / "accuracy").read_text())
        pages["index.md"] = with_draw(pages["index.md"])
        pages["course.md"] = f"{pages['course.md'].rstrip()}\n\n{' '.join(DRAW)}\n"
    for page, text in pages.items():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text)
    for name in sorted(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
