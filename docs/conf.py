"""How Sphinx builds the site from what docs/pages.py laid out."""

import os
import re
from pathlib import Path

from sphinx.search.en import SearchEnglish

HERE = Path(__file__).parent
SETTINGS = (HERE.parent / "settings.ini").read_text()

project = "mnist_ce"
author = "The mnist_ce developers"
release = version = re.search(r"version = (\S+)", SETTINGS)[1]
extensions = ["myst_nb", "sphinx.ext.mathjax"]
nb_execution_mode = "off"  # outputs are those that the notebooks store
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
smartquotes = False  # the text as it stands in the notebooks
add_module_names = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "mnist_ce"
html_static_path = ["static", os.environ["SITE_STATIC"]]
exclude_patterns = ["**/widgets.json", "**/key", "**/pad.html", "**/accuracy"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_source_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": False,
    "navbar_persistent": [],  # one field for searching, in the sidebar
    "logo": {"text": "mnist_ce", "alt_text": "mnist_ce, the front page"},
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
# Served from the site itself: no page asks another host for anything.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


class SearchNumbersToo(SearchEnglish):
    """Words of English, and numbers with a point, such as 0.5112, which are no words to Sphinx."""

    js_splitter_code = (
        r"var splitQuery = (query) => query.match(/\d+(?:\.\d+)+|[\p{L}\p{N}_]+/gu) ?? [];"
    )

    def split(self, input: str) -> list[str]:
        return re.findall(r"\d+(?:\.\d+)+|\w+", input)


def setup(app) -> None:
    app.add_search_language(SearchNumbersToo)
