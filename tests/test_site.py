"""The site that `make docs` builds: it has every page, and asks nothing of other machines."""

import re
import runpy
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

FRONT = "index.md"


def test_the_front_page_names_every_page_once(root: Path):
    docs = root / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {FRONT}
    named = Counter(re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", (docs / FRONT).read_text(), re.MULTILINE))
    assert named == dict.fromkeys(pages, 1), "add a new page to docs/index.md"


class Asked(HTMLParser):
    """What a browser fetches by itself to show a page, and its formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.formulas = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
        self.addresses += [value for name, value in attrs if value and name == names.get(tag)]
        self.formulas += tag == "math"


@pytest.mark.parametrize(
    "formula", [r"\nonsense{x}", r"\frac{1}", "x_{1", r"\sqrt[3]", r"\left( x"], ids=["name", "part", *"123"]
)
def test_a_wrong_formula_is_refused(root: Path, formula: str):
    pytest.importorskip("latex2mathml", reason="pip install slth[docs]: `make docs` does")
    pytest.importorskip("sphinx", reason="pip install slth[docs]: `make docs` does")
    conf = runpy.run_path(str(root / "docs" / "conf.py"))
    assert "<mfrac>" in conf["mathml"](r"\frac{1}{2} \alpha", "inline")
    with pytest.raises(Exception):  # noqa: B017  # the exceptions of latex2mathml have no base of their own
        conf["mathml"](formula, "inline")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_is_whole(root: Path, tmp_path: Path):
    pytest.importorskip("sphinx_book_theme", reason="pip install slth[docs]: `make docs` does")
    pytest.importorskip("myst_parser", reason="pip install slth[docs]: `make docs` does")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    formulas = 0
    for page in (root / "docs").rglob("*.md"):
        built = (tmp_path / page.relative_to(root / "docs")).with_suffix(".html")
        asked = Asked()
        asked.feed(built.read_text())
        formulas += asked.formulas
        outside = [one for one in asked.addresses if re.match(r"[a-z]+:|//", one) and one[:5] != "data:"]
        assert outside == [], built
        missing = [one for one in asked.addresses if not (built.parent / re.split("[?#]", one)[0]).exists()]
        assert missing == [], built
    assert formulas > 50, "those of the reference"
