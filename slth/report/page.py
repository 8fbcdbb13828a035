"""One HTML file that holds a report: text, tables, figures and commands. It needs no network.

Tables that can be sorted and filtered are DataTables, from the bundle in the package ``itables``.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slth.report.seeds import Mean

TEMPLATE = Path(__file__).with_name("page.html.jinja")


class Sheet(NamedTuple):
    """A table of a page.

    Example:
      >>> from slth import report
      >>> report.Sheet("Layers", [{"layer": "conv1", "unsolved": 3}], bad={(0, "unsolved")}).live
      False
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    live: bool = False
    """Whether a reader can sort and filter it."""
    bad: frozenset[tuple[int, str]] | set[tuple[int, str]] = frozenset()
    """Row and column of the cells that are marked as a problem."""
    links: Mapping[int, str] = {}
    """By row: what its first cell links to, as another place of the page."""
    wrap: bool = False
    """Whether its cells hold sentences, which are broken into lines."""


class Figure(NamedTuple):
    """A PNG of a page, and what is said below it.

    Example:
      >>> from slth import report
      >>> report.Figure("layers.png", "Error by layer.").caption
      'Error by layer.'
    """

    path: str | Path
    caption: str


class Entry(NamedTuple):
    """A heading with facts and commands, folded away until it is opened.

    Example:
      >>> from slth import report
      >>> report.Entry("a1b2", "ticket a1b2", {"hash": "a1b2"}, {"again": "python -m experiments.ticket"}).key
      'a1b2'
    """

    key: str
    title: str
    facts: Mapping[str, str]
    commands: Mapping[str, str]


class Page(NamedTuple):
    """What a page says, in this order; empty parts are left out.

    Example:
      >>> from slth import report
      >>> report.Page("Ticket", ["It computes its target."]).figures
      ()
    """

    title: str
    summary: Sequence[str]
    problems: Sequence[str] = ()
    facts: Mapping[str, str] = {}
    sheets: Sequence[Sheet] = ()
    figures: Sequence[Figure] = ()
    commands: Mapping[str, str] = {}
    entries: Sequence[Entry] = ()


def write_page(path: str | Path, page: Page) -> None:
    """A page as one HTML file. All text is shown as it is: nothing in it is read as HTML.

    The file forbids itself to load anything (its Content-Security-Policy).

    Raises: ValueError where a table is to be sorted and ``itables`` is not installed.

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "report.html"
      >>> report.write_page(file, report.Page("Ticket", ["Error < 0.1."]))
      >>> "Error &lt; 0.1." in file.read_text()
      True
    """
    from jinja2 import Environment, StrictUndefined  # here: few runs of the library need it

    library = _bundle() if any(sheet.live and sheet.rows for sheet in page.sheets) else None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"shown": shown, "order": _order, "picture": _picture, "columns": _columns}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    Path(path).write_text(template.render(page=page, library=library), encoding="utf-8")


def shown(value: Any) -> str:
    """A value as a cell shows it: four digits of a number, a dash for what is not known.

    Example:
      >>> from slth.report.page import shown
      >>> shown(0.123456), shown(1883216), shown(None), shown(True), shown([1, 2])
      ('0.1235', '1,883,216', '–', 'yes', '1, 2')
    """
    if isinstance(value, Mean):
        reach = "" if value.high is None or value.mean is None else f" ± {value.high - value.mean:.2g}"
        return shown(value.mean) + reach
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(one) for one in value) or "none"
    return str(value)


def _order(value: Any) -> Any:
    """What a cell is sorted by: all digits of a number; nothing of what is not known."""
    if isinstance(value, Mean):
        value = value.mean
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else shown(value)
    return value if math.isfinite(value) else ""


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """All columns, and whether a column holds text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: any(isinstance(row.get(name), str) for row in rows) for name in names}


def _picture(path: str | Path) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def _bundle() -> dict[str, str]:
    """DataTables: its style as text, its program in base64, so that nothing in it can end the script."""
    try:
        from itables import options
    except ImportError as error:
        raise ValueError(
            "itables is not installed, which tables are sorted by: pip install 'slth[page]'"
        ) from error
    program = Path(options.dt_bundle)
    style = program.with_suffix(".css").read_text(encoding="utf-8")
    return {"style": style.replace("</", "<\\/"), "program": base64.b64encode(program.read_bytes()).decode()}
