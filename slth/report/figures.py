"""Figures of a run, drawn without a display and without global state; each function writes one PNG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slth.report.kernels import Realised

DARK, BLUE, RED, GREY = "#222222", "#0072b2", "#d55e00", "#8a9096"
COLOURS = (BLUE, RED, "#009e73", "#cc79a7", "#e69f00", DARK)
"""Okabe and Ito's, which colour-blind readers tell apart; markers tell curves apart in grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
EQUAL = (0, (4, 4))
"""Dashes of a curve that equals an earlier one, which shows through."""
SHOWN_KERNELS = 12
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
BESIDE: dict[str, Any] = {"fontsize": 8, "loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
"""A legend to the right of its axes, where no curve runs."""


@contextmanager
def picture(path: str | Path, width: float, height: float, *, placed: bool = False) -> Iterator[Figure]:
    """An empty figure to draw into, sizes in inches; then a PNG, of equal bytes for equal figures.

    Args:
      placed: whether what is drawn says itself where it stands.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=None if placed else "constrained", dpi=150)
        yield figure
        figure.savefig(path, metadata={"Software": None})


def draw_logits(
    path: str | Path, target: Float[np.ndarray, "n out"], ticket: Float[np.ndarray, "n out"]
) -> None:
    """The ticket's outputs against the target's, all images and outputs, and their differences.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> target = np.array([[1.0, 0.0], [0.0, 2.0]])
      >>> report.draw_logits(file, target, target + 0.01)
      >>> file.stat().st_size > 1000
      True
    """
    with picture(path, 7.5, 3.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        x, y = target.reshape(-1), ticket.reshape(-1)
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        left.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
        left.scatter(x, y, s=4, color=BLUE, alpha=min(1.0, 2000 / len(x)), linewidths=0, zorder=2)
        left.set(xlabel="target's output", ylabel="ticket's output", title="Outputs", aspect="equal")
        off = y - x
        reach = max(float(np.abs(off).max()), 1e-12)
        right.hist(off, bins=60, range=(-reach, reach), color=BLUE)
        right.set(yscale="log", xlabel="ticket − target", ylabel="outputs")
        right.set_title(f"Error: max {reach:.3g}, mean {np.abs(off).mean():.3g}")


def draw_layer_errors(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Relative L2 error of one copy and of the copies' mean, layer by layer (rows of `layer_rows`).

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> names = ("copy_error_test", "mean_error_test", "copy_error_calibration", "mean_error_calibration")
      >>> rows = [{"layer": layer, **dict.fromkeys(names, 0.01)} for layer in ("conv1", "linear")]
      >>> report.draw_layer_errors(file, rows)
      >>> file.stat().st_size > 1000
      True
    """
    with picture(path, max(6.5, 3.8 + 0.32 * len(rows)), 3.6) as figure:
        axes = figure.subplots()
        for kind, what, colour in (("copy", "one copy", BLUE), ("mean", "mean of the copies", RED)):
            for images, style in (("test", "o-"), ("calibration", ":")):
                values = [row[f"{kind}_error_{images}"] for row in rows]
                if None not in values:
                    axes.plot(values, style, color=colour, label=f"{what}, {images} images")
        _layer_axis(axes, [str(row["layer"]) for row in rows])
        axes.set(yscale="log", ylabel="relative error", title="Error of the copies by layer")
        axes.legend(**BESIDE)


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    short = [name.replace("/branch", "").replace("layer", "") for name in names]
    axes.set_xticks(range(len(short)), short, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)


def draw_sizes(path: str | Path, sizes: Sequence[int]) -> None:
    """How many subset-sum problems chose how many variables (``sizes[k]``: k of them).

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> report.draw_sizes(file, [5, 20, 40, 25])      # 5 problems chose nothing, 20 one variable ...
      >>> file.stat().st_size > 1000
      True
    """
    counts, size = np.asarray(sizes), np.arange(len(sizes))
    share = counts / max(counts.sum(), 1)
    mean = float(share @ size)
    with picture(path, 4.5, 3.2) as figure:
        axes = figure.subplots()
        axes.bar(size, share, color=BLUE)
        axes.axvline(mean, color=RED, label=f"mean {mean:.2f}")
        axes.set(xlabel="weights kept for one target weight, |S|", ylabel="share of the problems")
        axes.set_title(f"Sizes of {counts.sum():,} subsets")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()


def draw_kernels(path: str | Path, kernels: Realised) -> None:
    """The first kernels of the target above those of its ticket, for both signs of the input; of signals, as
    curves one over the other.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> from slth.report.kernels import Realised
      >>> one = np.random.default_rng(0).normal(size=(4, 1, 3, 3))
      >>> report.draw_kernels(file, Realised("conv1", one, one, one))
      >>> file.stat().st_size > 1000
      True
    """
    rows = ("target", "ticket, x > 0", "ticket, x < 0")
    views = (kernels.target, kernels.positive, kernels.negative)
    shown = [np.concatenate(list(view), axis=0)[:SHOWN_KERNELS] for view in views]
    title = f"Kernels of layer {kernels.path}, target and ticket"
    if shown[0].ndim == 2:
        return _draw_signals(path, dict(zip(rows, shown, strict=True)), title)
    reach = max(float(np.abs(one).max()) for one in shown) or 1.0
    colours = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
    with picture(path, 1.2 + 0.62 * len(shown[0]), 2.5) as figure:
        grid = figure.subplots(len(rows), len(shown[0]), squeeze=False)
        for line, name, images in zip(grid, rows, shown, strict=True):
            for axes, kernel in zip(line, images, strict=True):
                axes.imshow(kernel, colours.cmap, colours.norm)
                axes.set(xticks=[], yticks=[], frame_on=False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        figure.colorbar(colours, ax=grid, shrink=0.8, pad=0.01)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def _draw_signals(
    path: str | Path, shown: Mapping[str, Float[np.ndarray, "kernels taps"]], title: str
) -> None:
    """Kernels of 1-D convolutions, a panel for each, the target's in grey behind its ticket's."""
    count = len(next(iter(shown.values())))
    columns = min(count, 4)
    lines = -(-count // columns)
    with picture(path, 1.2 + 2.0 * columns, 0.9 + 1.3 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[count:]:
            axes.set_visible(False)
        styles = ((GREY, 3.0, "-"), (BLUE, 1.2, "-"), (RED, 1.2, "--"))
        for number, axes in enumerate(grid.flat[:count]):
            for (name, kernels), (colour, width, dashes) in zip(shown.items(), styles, strict=True):
                axes.plot(kernels[number], dashes, color=colour, linewidth=width, label=name)
        for axes in grid[-1]:
            axes.set_xlabel("tap")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def style_of(number: int) -> tuple[str, str]:
    """Colour and marker of a figure's curve: no two of the first 24 have both alike."""
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def draw_curves(
    path: str | Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    names: Sequence[str] = (),
    log: bool = False,
    log_x: bool = False,
    level: tuple[str, float] | None = None,
    spread: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    ticks: Mapping[float, str] | None = None,
) -> None:
    """Several curves in one picture; one that equals an earlier one is dashed over it.

    Args:
      curves: (x, y) by label.
      names: what stands under x = 0, 1, ... in place of numbers.
      log, log_x: logarithmic y and x axis.
      level: a horizontal line, (label, y).
      spread: least and largest y of each curve, drawn as a band.
      ticks: places on the x axis and what stands there, in place of numbers.

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> curves = {"best": ([4, 8, 15], [0.3, 0.1, 0.01]), "robust": ([4, 8, 15], [0.2, 0.05, 0.02])}
      >>> report.draw_curves(file, curves, x_label="copies", y_label="error", title="Error", log=True)
      >>> file.stat().st_size > 1000
      True
    """
    with picture(path, max(6.8, 3.1 + 0.32 * len(names)), 3.8) as figure:
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log else "linear")
        if level is not None:
            axes.axhline(level[1], color=GREY, linewidth=1, linestyle="--", label=level[0])
        drawn: list[tuple[list[float], list[float]]] = []
        for number, (label, (x, y)) in enumerate(curves.items()):
            line = (list(x), list(y))
            colour, marker = style_of(number)
            axes.plot(
                x, y, color=colour, marker=marker, linestyle=EQUAL if line in drawn else "-", label=label
            )
            drawn.append(line)
            if spread is not None and label in spread:
                axes.fill_between(x, *spread[label], color=colour, alpha=0.18, linewidth=0)
        if names:
            _layer_axis(axes, names)
        if ticks is not None:
            axes.minorticks_off()
            axes.set_xticks(list(ticks), list(ticks.values()))
        axes.legend(**BESIDE)
