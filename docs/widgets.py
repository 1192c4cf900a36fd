"""Draw the lessons' widgets in every position, so that they move on the site.

python docs/widgets.py FOLDER: each notebook that calls `interact` runs up to there, and its drawing
function is called for every combination of the controls. FOLDER/<notebook> gets the pictures and
widgets.json, the HTML of each widget; it is kept while the notebook and this file are the same.
"""

import contextlib
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
from html import escape
from pathlib import Path

NBS = Path(__file__).parent.parent / "nbs"
SHARP = 1.5  # pixels of a picture for each of the page
# A longer list of positions than anybody needs: every fifth gap, and each one around the edges.
THINNED = {
    ("draw_gap", "gap"): sorted(
        {*range(0, 151, 5), *range(8, 21), *range(84, 98), *range(100, 108)}
    )
}


def control(name: str, widget, function: str) -> dict:
    """A control of ipywidgets: its name and kind, its positions, and which is the first."""
    kind = type(widget).__name__
    if kind == "Checkbox":
        labels, values = ["off", "on"], [False, True]
    elif kind == "IntSlider":
        values = [v for v in range(widget.min, widget.max + 1, widget.step)]
        values = THINNED.get((function, name), values)
        labels = [str(value) for value in values]
    elif kind in ("Dropdown", "SelectionSlider"):
        labels, values = map(
            list, zip(*[(str(label), value) for label, value in pairs(widget.options)])
        )
    else:
        raise ValueError(
            f"docs/widgets.py cannot put the control {name} of {function}, {kind}, on the site"
        )
    kinds = {"Checkbox": "checkbox", "Dropdown": "select"}
    return dict(
        name=name,
        kind=kinds.get(kind, "range"),
        labels=labels,
        values=values,
        first=values.index(widget.value),
    )


def pairs(options):
    return [option if isinstance(option, tuple) else (option, option) for option in options]


def draw(function, state: dict) -> tuple[bytes, int, str, str]:
    """A picture as WebP, its width on the page, its words, and what the function printed."""
    said, picture = io.StringIO(), io.BytesIO()
    with contextlib.redirect_stdout(said):
        figure = function(**state)
    width = round(120 * figure.get_figwidth())  # as new_figure shows it
    figure.savefig(picture, format="webp", dpi=SHARP * 100 * 1.2, pil_kwargs=dict(lossless=True))
    return picture.getvalue(), width, figure.alt, said.getvalue().strip()


def each_state(job):
    """What `draw` gives for some states of the widget that the process was forked with."""
    return [draw(FUNCTION, state) for state in job]


def drawn(function, states: list[dict]) -> list:
    """`draw` for every state, in a process per core."""
    global FUNCTION
    FUNCTION = function
    chunks = [states[k : k + 8] for k in range(0, len(states), 8)]
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        return [one for chunk in pool.imap(each_state, chunks) for one in chunk]


def calls(sources: list[str]) -> list[tuple]:
    """Run a notebook's code up to its last `interact`: [(function, its controls)]."""
    import ipywidgets
    import torch

    torch.set_num_threads(1)  # after a fork, torch's other threads are gone
    found = []
    meant, ipywidgets.interact = ipywidgets.interact, lambda function, **given: found.append(
        (function, given)
    )
    try:
        last = max(k for k, source in enumerate(sources) if re.search(r"(?m)^interact\(", source))
        names = {"__name__": "__main__"}
        said = io.StringIO()  # all of it stands in the notebook
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.chdir(
            NBS
        ):
            for source in sources[: last + 1]:
                exec(compile(source, "notebook", "exec"), names)
    finally:
        ipywidgets.interact = meant
    make = lambda function, given: ipywidgets.interactive(
        function, {"manual": True}, **given
    ).kwargs_widgets
    return [
        (function, [control(w._kwarg, w, function.__name__) for w in make(function, given)])
        for function, given in found
    ]


def html(
    name: str, controls: list[dict], states: list[list], first: list, width: int, height: int
) -> str:
    """A widget: native controls, its first picture, and the names and words of all others."""
    parts = [
        f'<div class="widget" id="{name}" role="group" aria-label="Controls and picture">',
        '<div class="controls">',
    ]
    for k, one in enumerate(controls):
        label, here = f"{name}-{one['name']}", one["first"]
        told = escape(one["name"])
        if one["kind"] == "checkbox":
            ticked = " checked" * here
            parts.append(
                f'<label><input type="checkbox" id="{label}" data-at="{k}"{ticked}> {told}</label>'
            )
        elif one["kind"] == "select":
            options = "".join(
                f"<option{' selected' * (j == here)}>{escape(text)}</option>"
                for j, text in enumerate(one["labels"])
            )
            parts.append(
                f'<label>{told} <select id="{label}" data-at="{k}">{options}</select></label>'
            )
        else:
            labels = escape(json.dumps(one["labels"]))
            now = escape(one["labels"][here])
            parts.append(
                f'<label>{told} <input type="range" id="{label}" data-at="{k}" min="0" '
                f'max="{len(one["labels"]) - 1}" value="{here}" aria-valuetext="{now}" '
                f'data-labels="{labels}"> <output>{now}</output></label>'
            )
    picture, alt, said = first
    listed = json.dumps(states, ensure_ascii=False).replace("</", "<\\/")
    parts += [
        "</div>",
        f'<img src="{picture}" alt="{escape(alt)}" width="{width}" height="{height}">',
        f'<p class="said">{escape(said)}</p>',
        '<p class="words" aria-live="polite"></p>',
        f'<script type="application/json">{listed}</script>',
        "</div>",
    ]
    return "\n".join(part for part in parts if part != '<p class="said"></p>')


def write(path: Path, folder: Path) -> None:
    """All widgets of a notebook."""
    from PIL import Image

    cells = json.loads(path.read_text())["cells"]
    found, made = [], set()
    for k, (function, controls) in enumerate(
        calls(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])
    ):
        names, values = [one["name"] for one in controls], [one["values"] for one in controls]
        states = [dict(zip(names, combination)) for combination in itertools.product(*values)]
        stored = []
        for data, width, alt, said in drawn(function, states):
            name = f"{hashlib.sha256(data).hexdigest()[:16]}.webp"
            if name not in made:
                (folder / name).write_bytes(data)
                made.add(name)
            stored.append([f"_static/widgets/{path.stem}/{name}", alt, said])
        sizes = Image.open(folder / Path(stored[0][0]).name).size
        at = 0  # the last control moves fastest, as in itertools.product
        for one in controls:
            at = at * len(one["values"]) + one["first"]
        height = round(width * sizes[1] / sizes[0])
        found.append(
            html(f"widget-{path.stem[:2]}-{k + 1}", controls, stored, stored[at], width, height)
        )
        print(f"{path.stem}: {function.__name__}, {len(states)} positions", flush=True)
    (folder / "widgets.json").write_text(json.dumps(found, ensure_ascii=False))


def write_pad(folder: Path) -> None:
    """A page's HTML, where a network that is trained here reads a digit drawn with the mouse."""
    from mnist_ce.data import mnist
    from mnist_ce.losses import cross_entropy_loss
    from mnist_ce.networks import jitter, recipe
    from mnist_ce.photo import draw_pad
    from mnist_ce.training import fit

    settings = dict(epochs=5, augment=jitter, device="cpu", progress=False) | recipe("mlp", 10)
    run = fit(cross_entropy_loss, *mnist(), **settings)
    share = run.history[-1].accuracy
    (folder / "pad.html").write_text(draw_pad(run).html)
    (folder / "accuracy").write_text(f"{share:.1%}")


def once(make, source: Path, folder: Path, *inputs) -> None:
    """make(*inputs, folder), if `source` or this file has changed since it was last made there."""
    key = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if (folder / "key").exists() and (folder / "key").read_text() == key:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(*inputs, folder)
    (folder / "key").write_text(key)  # last: an interrupted run begins again


def main(folder: Path) -> None:
    """Draw what is not drawn yet."""
    for path in sorted(NBS.glob("[0-9]*.ipynb")):
        if '"interact(' in path.read_text():
            once(write, path, folder / path.stem, path)
    once(write_pad, NBS.parent / "mnist_ce" / "photo.py", folder / "draw")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
