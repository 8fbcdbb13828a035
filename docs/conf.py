"""Settings of the site that ``make docs`` builds from the pages of this folder with Sphinx.

The pages are those that GitHub shows; nothing is written for the site alone. docs/index.md is the front page
and the navigation: each of its sections becomes a part of the navigation, in the order of its links. Formulas
become MathML, which browsers draw themselves, so no page asks for anything from another machine.
"""

import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

project = "slth"
author = "the authors of slth"
extensions = ["myst_parser"]
exclude_patterns = ["images/**", "static/**"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4  # `page.md#a-heading`, as GitHub has them

html_theme = "sphinx_book_theme"
html_title = "slth"
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

LINK = re.compile(r"^- \[[^\]]*\]\(([^)#:]+)\.md\)", re.MULTILINE)
"""A line of docs/index.md that puts a page into the navigation."""


ARGUMENTS = dict.fromkeys(("mfrac", "msub", "msup", "munder", "mover", "mroot"), 2) | dict.fromkeys(
    ("msubsup", "munderover"), 3
)
"""How many parts these elements of MathML have."""


def navigation(index: str) -> str:
    """The hidden tables of contents that Sphinx asks for, one for each section of the front page."""
    tables = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, text = section.partition("\n")
        tables += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *LINK.findall(text), "```"]
    return "\n".join(tables)


def with_navigation(app: Any, page: str, source: list[str]) -> None:
    """Append the navigation to the front page as it is read."""
    if page == "index":
        source[0] += "\n" + navigation(source[0])


def mathml(formula: str, display: str) -> str:
    r"""A formula of TeX as MathML. GitHub writes one within a line as $`\alpha`$.

    Raises: ValueError for a command without a meaning, a brace without its partner, or an argument that is
      missing: the converter shows these as they are.
    """
    formula = formula.strip("`")
    braces = re.sub(r"\\.", "", formula)
    if braces.count("{") != braces.count("}"):
        raise ValueError("a brace has no partner")
    found = convert(formula, display=display)
    if unknown := re.findall(r"<m[a-z]+>(\\[A-Za-z]+)", found):
        raise ValueError(f"unknown: {', '.join(unknown)}")
    for part in ElementTree.fromstring(found).iter():
        name = part.tag.rpartition("}")[2]
        if len(part) < ARGUMENTS.get(name, 0):
            raise ValueError(f"an argument is missing in {name}")
    return found


def visitor(display: str) -> Any:
    """What Sphinx calls for a formula, "inline" or "block". A wrong one is a warning: it ends the build."""

    def visit(page: Any, node: Any) -> None:
        try:
            page.body.append(mathml(node.astext(), display))
        except Exception as error:  # the exceptions of latex2mathml have no base of their own
            logging.getLogger(__name__).warning("%s: %r", node.astext(), error, location=node)
        raise nodes.SkipNode

    return visit


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", with_navigation)
    app.add_html_math_renderer("mathml", (visitor("inline"), None), (visitor("block"), None))
