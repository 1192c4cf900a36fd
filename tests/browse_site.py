"""Read the built site in a headless Chromium, as a phone, a keyboard and a screen reader do.

python tests/browse_site.py SITE AXE [CHROMIUM]: SITE is what `make docs` built, AXE the file
axe.min.js of axe-core. Prints a line for each check and fails where one finds something.
"""

import functools
import http.server
import shutil
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from playwright.sync_api import sync_playwright

SAMPLE = (
    "index.html",
    "course.html",
    "00_frozen_accuracy.html",
    "03_numbers_run_out.html",
    "09_all_faults.html",
    "14_is_it_my_loss.html",
    "for_teachers.html",
    "glossary.html",
    "package.html",
    "reference/data.html",
    "api/index.html",
    "api/results.html",
    "search.html",
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDER = """() => document.documentElement.scrollWidth <= innerWidth ? null :
    [...document.querySelectorAll('main *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3)
    .map(e => e.tagName + '.' + e.className)"""


class Page(HTMLParser):
    """A page's ids, the links it has, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.wordless = set(), [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script", "source", "iframe") and given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("href") and given.get("rel") != "canonical":
            self.loads.append(given["href"])
        self.wordless += (
            tag == "img"
            and "figure" in (given.get("class") or "")
            and len(given.get("alt") or "") < 20
        )


def broken(site):
    """Links and files that lead nowhere or to another host, and figures without words."""
    pages = {
        path.relative_to(site).as_posix(): Page(path.read_text())
        for path in sorted(site.glob("**/*.html"))
        if "_static" not in path.parts
    }  # there lie templates of the theme
    found = []
    for name, page in pages.items():
        found += [f"{name}: {page.wordless} figures without words"] if page.wordless else []
        for target in page.links + page.loads:
            parts = urlsplit(urljoin(f"http://site/{name}", target))
            if parts.netloc != "site":
                if target in page.loads and parts.scheme != "data":
                    found.append(f"{name} loads {target}")
                continue
            path, anchor = unquote(parts.path).lstrip("/"), unquote(parts.fragment)
            path += "index.html" if path.endswith("/") or not path else ""
            if not (site / path).is_file():
                found.append(f"{name}: no {target}")
            elif anchor and path in pages and anchor not in pages[path].ids:
                found.append(f"{name}: no anchor {target}")
    return list(pages), found


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Reader:
    """A browser that lets no request leave the site, and notes each try and each error."""

    def __init__(self, chromium, address):
        self.chromium, self.address, self.found = chromium, address, []

    def open(self, name, width=1200, scheme="light"):
        page = self.chromium.new_page(viewport=dict(width=width, height=800), color_scheme=scheme)
        note = self.found.append
        page.route("**/*", lambda route: self.let(route, name))
        page.on(
            "console", lambda message: message.type == "error" and note(f"{name}: {message.text}")
        )
        page.on("pageerror", lambda error: note(f"{name}: {error}"))
        page.on("response", lambda r: r.status >= 400 and note(f"{name}: {r.status} {r.url}"))
        page.goto(f"{self.address}/{name}", wait_until="load")
        # Formulas are set once the page has loaded.
        page.evaluate("() => window.MathJax?.startup?.promise")
        return page

    def let(self, route, name):
        url = route.request.url
        if url.startswith(self.address) or url.startswith("data:"):
            return route.continue_()
        self.found.append(f"{name} asks {url}")
        route.abort()


def accessible(page, axe):
    """What axe-core finds."""
    page.evaluate(axe)
    found = page.evaluate("rules => axe.run({runOnly: rules})", RULES)["violations"]
    return [
        f"{one['id']} {node['target']}: {node['any'][0]['message'] if node['any'] else one['help']}"
        for one in found
        for node in one["nodes"]
    ]


def moved(page):
    """What goes wrong as each control of each widget is moved, with the keyboard alone."""
    found = []
    for widget in page.locator(".widget").all():
        picture, controls = widget.locator("img"), widget.locator("input, select").all()
        for slider in widget.locator("input[type=range]").all():
            slider.press("Home")  # where lesson 06 still has numbers
        for control in controls:
            name, kind = control.get_attribute("id"), control.evaluate("c => c.type")
            last = kind == "select-one" and control.evaluate("c => c.selectedIndex > 0")
            keys = {"checkbox": "Space", "range": "ArrowRight"}
            before = picture.evaluate("i => [i.src, i.alt]")
            control.press(keys.get(kind, "ArrowUp" if last else "ArrowDown"))
            picture.evaluate("i => i.decode()")
            after = picture.evaluate("i => [i.src, i.alt]")
            read = widget.locator(".words").inner_text()
            if after[0] == before[0] or after[1] == before[1] or read != after[1]:
                found.append(f"{name} does not change the picture and its words")
            if control.evaluate("c => getComputedStyle(c).outlineStyle") == "none":
                found.append(f"{name} does not show its focus")
            if kind == "range":
                control.press("Home")
    return found


def matched(page):
    """What lesson 03's picture says otherwise than its controls."""
    widget = page.locator(".widget").first
    slider, (dtype, answer) = widget.locator("input"), widget.locator("select").all()
    for key, format, side in ("Home", "float16", "wrong"), ("End", "float64", "right"):
        slider.press(key), dtype.select_option(format), answer.select_option(side)
        gap = "150" if key == "End" else "0"
        meant = f"Each number on the way, {side} answer, gap {gap}, {format}, "
        said = widget.locator("img").get_attribute("alt")
        if not said.startswith(meant) or widget.locator("output").inner_text() != gap:
            return [f"{said!r} instead of {meant!r}"]
    return []


def tabbed(page):
    """What goes wrong with the Tab key: the menu can be skipped, each control is reached."""
    page.keyboard.press("Tab")
    page.wait_for_timeout(1000)  # it slides in
    first = page.evaluate(
        "() => { const at = document.activeElement;"
        " return [at.textContent, at.getBoundingClientRect().top] }"
    )
    found = (
        []
        if "Skip to main content" in first[0] and first[1] >= 0
        else [f"the first Tab leads to {first}"]
    )
    page.keyboard.press("Enter")
    wanted, reached = {
        c.get_attribute("id") for c in page.locator(".widget :is(input, select)").all()
    }, set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    return found + [f"Tab does not reach {name}" for name in sorted(wanted - reached)]


def drawn(page):
    """What goes wrong as one draws a stroke: the model in the page answers it."""
    frame, pad = page.frame_locator("main iframe"), page.locator("main iframe")
    pad.scroll_into_view_if_needed()
    box = frame.locator("#pad").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 5
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 3 * box["height"] / 5, steps=10)
    page.mouse.up()
    told = frame.locator("#told").inner_text()
    return [] if told.startswith("1, ") else [f"a stroke downward is read as {told!r}"]


def searched(reader, words):
    """The titles of the pages that a search finds, once it has looked through all."""
    page = reader.open(f"search.html?q={words}")
    page.get_by_text("Search finished").wait_for(timeout=20_000)
    titles = page.locator("#search-results li > a").all_inner_texts()
    page.close()
    return titles


def main(site, axe, browser):
    """Make every check; the exit code is the number of things found."""
    axe, total = Path(axe).read_text(), 0
    names, dead = broken(site)

    def tell(what, found):
        nonlocal total
        total += len(found)
        print("\n  ".join([f"{what}: {len(found) or 'nothing'} wrong", *found[:20]]), flush=True)

    tell(f"links, files and words of figures, {len(names)} pages", dead)
    server = http.server.ThreadingHTTPServer(
        ("localhost", 0), functools.partial(Quiet, directory=site)
    )
    server.handle_error = lambda *of: None  # a page that is left while it loads is no fault
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        reader = Reader(chromium, f"http://localhost:{server.server_port}")
        wide, drawing = [], [name for name in names if name == "draw.html"]
        for name in names:
            page = reader.open(name, width=380)
            over = page.evaluate(WIDER)
            wide += (
                [f"{name}: {', '.join(over) or 'wider than the window'}"]
                if over is not None
                else []
            )
            page.close()
        tell("pages 380 wide", wide)
        for scheme, width in ("light", 1200), ("light", 380), ("dark", 1200):
            for name in [*SAMPLE, *drawing]:
                page = reader.open(name, width, scheme)
                tell(f"axe, {scheme}, {width} wide, {name}", accessible(page, axe))
                page.close()
        moving = [name for name in names if 'class="widget"' in (site / name).read_text()]
        tell("lessons with widgets", [] if len(moving) == 4 else moving)
        for name in moving:
            page = reader.open(name, width=380)
            tell(f"keyboard, {name}", tabbed(page))
            tell(f"widgets, {name}", moved(page))
            if name.startswith("03"):
                tell(f"positions of the controls, {name}", matched(page))
            page.close()
        for name in drawing:
            page = reader.open(name)
            tell("a digit drawn with the mouse", drawn(page))
            page.close()
        for words, title in ("softmax-twice", "mnist_ce"), ("0.5112", "The frozen accuracy"):
            titles = searched(reader, words)
            tell(f"search for {words}", [] if title in titles else [str(titles)])
        tell("requests and errors", reader.found)
        alone = Reader(chromium, site.as_uri())  # without a server
        for name in "index.html", moving[0]:
            page = alone.open(name)
            tell(f"from a file, {name}", moved(page))
            page.close()
        tell("requests and errors from a file", alone.found)
        chromium.close()
    server.shutdown()
    return min(total, 100)


if __name__ == "__main__":
    browsers = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    there = next(filter(None, map(shutil.which, browsers)), None)
    if len(sys.argv) < 4 and there is None:
        sys.exit("no Chromium found: install one, or name it: make test-browser CHROMIUM=path")
    sys.exit(
        main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else there)
    )
