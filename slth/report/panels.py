"""Curves with bands in several panels of one figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slth.report.figures import COLOURS, GREY, picture

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
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
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
        figure.legend(
            list(drawn.values()),
            list(drawn),
            loc="outside lower center",
            ncols=min(len(drawn), 2 * columns),
            fontsize=8,
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def _apart(ticks: list[float]) -> list[float]:
    """Those of the ticks, the largest first, whose labels do not touch on a logarithmic axis."""
    step = (ticks[-1] / ticks[0]) ** (1 / MOST_TICKS) if ticks[0] > 0 else 1
    kept = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if tick * step <= kept[-1]:
            kept.append(tick)
    return kept[::-1]
