"""Curves with bands in several panels of one figure: of one quantity, or of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slth.report.figures import COLOURS, EQUAL, GREY, picture, style_of

MOST_TICKS = 6
"""Labels that a panel has room for."""


class Band(NamedTuple):
    """A curve and how far it spreads, such as the mean of some seeds and their least and largest.

    Example:
      >>> from slth import report
      >>> report.Band("snip", [0.1, 0.5], [0.4, 0.9], [0.3, 0.9], [0.5, 1.0]).label
      'snip'
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    reference: bool = False
    """Drawn in grey and dashed, as something to compare with."""
    like: str | None = None
    """Label of another curve: drawn in its colour, dotted."""


class Panel(NamedTuple):
    """One part of a figure, with a y axis of its own.

    Example:
      >>> from slth import report
      >>> band = report.Band("best", [4, 8], [0.3, 0.1], [0.2, 0.1], [0.4, 0.1])
      >>> report.Panel([band], "error", log=True).log
      True
    """

    bands: Sequence[Band]
    y_label: str
    title: str = ""
    log: bool = False


def draw_panels(
    path: str | Path,
    panels: Sequence[Panel],
    *,
    title: str,
    x_label: str,
    columns: int = 2,
    log_x: bool = False,
    ticks: Mapping[float, str] | None = None,
    marks: Mapping[str, float] | None = None,
    within: tuple[str, float, float] | None = None,
) -> None:
    """Panels of different quantities over one x axis; equal labels look alike in all of them.

    A curve that equals an earlier one is dashed over it. What is not finite is not drawn.

    Args:
      columns: panels side by side.
      ticks: places on the x axis and what stands there, in place of numbers.
      marks: vertical lines, x by label.
      within: a range of x that is shaded, (label, from, to).

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> band = report.Band("best", [4, 8], [0.3, 0.1], [0.2, 0.1], [0.4, 0.1])
      >>> panels = [report.Panel([band], "error", log=True), report.Panel([band], "error")]
      >>> report.draw_panels(file, panels, title="Errors", x_label="copies", marks={"wanted": 6})
      >>> file.stat().st_size > 1000
      True
    """
    named = dict.fromkeys(
        band.label for panel in panels for band in panel.bands if not band.reference and band.like is None
    )
    styles = {label: style_of(number) for number, label in enumerate(named)}
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    with picture(path, 0.6 + 3.7 * columns, 1.0 + 2.7 * lines) as figure:
        grid = _grid(figure, lines, columns, len(panels))
        drawn: dict[str, Any] = {}
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            if within is not None:
                drawn.setdefault(within[0], axes.axvspan(*within[1:], color=GREY, alpha=0.15, linewidth=0))
            for style, (label, x) in zip(("-.", ":", (0, (6, 2))), (marks or {}).items(), strict=False):
                drawn.setdefault(label, axes.axvline(x, color="black", linewidth=1, linestyle=style))
            drawn |= {k: v for k, v in _plot(axes, panel.bands, styles).items() if k not in drawn}
            axes.set(ylabel=panel.y_label, yscale="log" if panel.log else "linear", title=panel.title)
            axes.set(xscale="log" if log_x else "linear")
            if ticks is not None:
                axes.xaxis.minorticks_off()
                axes.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
            if number + columns >= len(panels):
                axes.set_xlabel(x_label)
                axes.tick_params(labelbottom=True)
        _name(figure, title, drawn, columns)


def _grid(figure: Figure, lines: int, columns: int, count: int, *, share_y: bool = False) -> np.ndarray:
    """Axes for so many panels, with one x axis; those that are left over do not show."""
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=share_y)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return grid


def _name(figure: Figure, title: str, drawn: Mapping[str, Any], columns: int) -> None:
    """The title, and one legend for all panels."""
    figure.legend(
        list(drawn.values()),
        list(drawn),
        loc="outside lower center",
        ncols=min(len(drawn), 2 * columns),
        fontsize=8,
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def _plot(axes: Axes, bands: Sequence[Band], styles: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The curves by label, drawn."""
    lines: dict[str, Any] = {}
    before: list[list[tuple[float, float]]] = []
    for band in bands:
        look: dict[str, Any] = {"color": GREY, "linestyle": "--"}
        own = [*zip(band.x, band.y, strict=True)]
        if not band.reference:
            colour, marker = styles[band.like or band.label]
            dashes = EQUAL if own in before else "-"
            look = {"color": colour, "marker": marker, "linestyle": ":" if band.like else dashes}
            look |= {"markerfacecolor": "white"} if band.like else {}
        before.append(own)
        y, low, high = (np.asarray(values, float) for values in (band.y, band.low, band.high))
        (lines[band.label],) = axes.plot(band.x, np.where(np.isfinite(y), y, np.nan), **look)
        axes.fill_between(band.x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    return lines


def draw_bands(
    path: str | Path,
    panels: Mapping[str, Sequence[Band]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    columns: int = 3,
) -> None:
    """One panel a title, logarithmic x axes, bands behind the curves; equal labels have equal colours.

    Args:
      y_range: least and largest y that is drawn; curves leave the panels beyond.

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> band = report.Band("snip", [0.1, 0.5], [0.4, 0.9], [0.3, 0.9], [0.5, 1.0])
      >>> report.draw_bands(file, {"circle": [band]}, title="Scores", x_label="density", y_label="score")
      >>> file.stat().st_size > 1000
      True
    """
    labels = dict.fromkeys(band.label for bands in panels.values() for band in bands if not band.reference)
    styles = {
        label: (COLOURS[number % len(COLOURS)], ("o-", "s--", "^:")[number // len(COLOURS) % 3])
        for number, label in enumerate(labels)
    }
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    with picture(path, 0.8 + 2.7 * columns, 1.3 + 2.4 * lines) as figure:
        grid = _grid(figure, lines, columns, len(panels), share_y=True)
        drawn = {}
        for axes, (name, bands) in zip(grid.flat, panels.items(), strict=False):
            for band in bands:
                colour, style = (GREY, "--") if band.reference else styles[band.label]
                (line,) = axes.plot(band.x, band.y, style, color=colour, label=band.label)
                axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
                drawn.setdefault(band.label, line)
            axes.set(xscale="log", title=name)
        ticks = _apart(sorted({x for bands in panels.values() for band in bands for x in band.x}))
        for axes in grid.flat:
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{x:.2g}" for x in ticks], fontsize=7)
        if y_range is not None:
            grid.flat[0].set_ylim(*y_range)
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        _name(figure, title, drawn, columns)


def _apart(ticks: list[float]) -> list[float]:
    """Those of the ticks, the largest first, whose labels do not touch on a logarithmic axis."""
    step = (ticks[-1] / ticks[0]) ** (1 / MOST_TICKS) if ticks[0] > 0 else 1
    kept = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if tick * step <= kept[-1]:
            kept.append(tick)
    return kept[::-1]
