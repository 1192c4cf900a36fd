"""Open every lesson in JupyterLab in a headless Chromium, run it from top to bottom, move its widgets.

python tests/browser.py PYTHON [CHROMIUM]: PYTHON has JupyterLab and the package; this one has
playwright. CHROMIUM: the browser, the system's unless given. Prints a line for each lesson and
fails where a cell ends in an error, or a widget does not change its picture.
"""
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).parent.parent
RUN = r"""async () => {
    const app = window.jupyterapp
    await app.restored
    const panel = app.shell.currentWidget
    await panel.context.ready
    await panel.sessionContext.ready
    await app.commands.execute('notebook:run-all-cells')
    const cells = panel.content.widgets.map(cell => cell.model)
    const code = cells.filter(cell => cell.type === 'code')
    const errors = code.flatMap(cell => cell.toJSON().outputs.filter(o => o.output_type === 'error'))
    const moving = cells.flatMap((cell, k) =>
        cell.type === 'code' && /^interact\(/m.test(cell.sharedModel.getSource()) ? [k] : [])
    return {cells: cells.length, ran: code.filter(cell => cell.executionCount).length,
            code: code.length, errors: errors.map(e => e.ename + ': ' + e.evalue), moving}
}"""


def move(page, k):
    """Move the first control of each widget in cell `k`; for each, whether its picture changed."""
    page.evaluate("k => window.jupyterapp.shell.currentWidget.content.scrollToItem(k, 'center')", k)
    page.locator(".widget-interact img").first.wait_for(timeout=60_000)
    moved = []
    for widget in page.locator(".widget-interact").all():
        before = widget.locator("img").first.get_attribute("src", timeout=60_000)
        handle = widget.locator(".ui-slider-handle, .noUi-handle").first
        if widget.locator("input[type=checkbox]").count():
            widget.locator("input[type=checkbox]").first.click()
        elif widget.locator("select").count():
            select = widget.locator("select").first
            count = select.locator("option").count()
            at = select.evaluate("select => select.selectedIndex")
            select.select_option(index=(at + 1) % count)
        else:
            handle.focus()
            page.keyboard.press("ArrowRight")
        changed = "([widget, before]) => widget.querySelector('img')?.src !== before"
        try:
            page.wait_for_function(changed, arg=[widget.element_handle(), before], timeout=60_000)
            moved.append(True)
        except Error:
            moved.append(False)
    return moved


def main(python, browser):
    """Visit every lesson; the exit code says how many failed."""
    token, failed = secrets.token_hex(16), 0
    scratch = tempfile.TemporaryDirectory()  # JupyterLab saves what it runs
    place = Path(scratch.name)
    for name in "nbs", "benchmarks", "mnist_ce":
        shutil.copytree(ROOT / name, place / name)
    options = ["--no-browser", "--expose-app-in-browser", "--port=0", "--ServerApp.port_retries=0", "--allow-root"]
    python = str(Path(python).absolute())  # not resolved: a link into an environment
    command = [python, "-m", "jupyterlab", *options, f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={place}"]
    said = place / "said"
    with open(said, "w") as log, subprocess.Popen(command, stderr=log, cwd=place) as server, sync_playwright() as p:
        try:
            while not (address := re.search(r"http://localhost:\d+", said.read_text())):
                time.sleep(0.2)
            chromium = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")):
                page = chromium.new_page(viewport=dict(width=1200, height=1600))
                page.goto(f"{address[0]}/lab/workspaces/{path.stem}/tree/nbs/{path.name}?token={token}&reset")
                page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.content?.widgets", timeout=60_000)
                page.set_default_timeout(600_000)
                found = page.evaluate(RUN)
                moved = [one for k in found["moving"] for one in move(page, k)]
                good = not found["errors"] and found["ran"] == found["code"] and all(moved)
                failed += not good
                told = "; ".join(found["errors"]) or f"{sum(moved)} of {len(moved)} widgets move"
                print(f"{path.stem:22} {found['ran']} of {found['code']} cells ran, {told}", flush=True)
                page.close()
            chromium.close()
        finally:
            server.terminate()
    return failed


if __name__ == "__main__":
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    there = next(filter(None, map(shutil.which, names)), None)
    if len(sys.argv) < 3 and there is None:
        sys.exit("no Chromium found: install one, or name it: make test-browser CHROMIUM=path")
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else there))
