"""The drawing of one layer: target and sums on the left, source and ticket on the right."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from slth.report.figures import picture
from slth.report.layer import LayerPicture

PALE = 0.12
"""Of a pruned weight's colour; the rest is white."""
COLOURS = "RdBu_r"
GAP = 1
"""Cells between two kernels."""
CELL = 0.06
"""Side of a weight, in inches."""
NARROW = 18
"""Fewest cells of the left half."""


def draw_layer(
    path: str | Path,
    layer: LayerPicture,
    *,
    outputs: int = 2,
    inputs: int = 2,
    copies: int = 5,
    channels: int = 24,
) -> None:
    """The target's kernels beside the source's random ones, and the ticket's below: pruned weights are pale.

    Args:
      outputs, inputs: how many channels of the target are shown, the first that have weights.
      copies: how many copies of each output are shown.
      channels: how many univariate channels are shown, where the layer reads them.

    Example:
      >>> import pathlib, tempfile
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4, 4, 1), (nn.Conv("c", 2, (3, 3)), nn.Activation("relu"), nn.GlobalMean()))
      >>> network = nn.Network((4, 4, 1), (*network.layers, nn.Dense("fc", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=8), slth.Best())
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "layer.png"
      >>> report.draw_layer(file, report.layer_picture(made, made.ticket.mask))
      >>> file.stat().st_size > 1000
      True
    """
    out, read, rows, columns = shown_of(layer, outputs, inputs, copies, channels)
    flat = layer.target.ndim == 2
    every = tuple(range(2, layer.target.ndim))

    def tiles(values: np.ndarray) -> np.ndarray:
        """Taps as pictures: (rows, columns, height, width)."""
        lines = 1 if len(every) < 2 else values.shape[2]
        return values.reshape(*values.shape[:2], lines, -1)

    target = tiles(layer.target[np.ix_(out, read)])
    random, kept = (tiles(one[np.ix_(rows, columns)]) for one in (layer.random, layer.kept))
    sums = tiles(layer.sums[0][np.ix_(rows, read)])
    reach = float(max(np.abs(target).max(), np.abs(sums).max(), 1e-12))
    own, held = layer.output[rows], layer.input[columns] if layer.alpha is None else np.zeros(len(columns))
    blocks = {
        "target": _blocks(target / reach, None, out, read),
        "sums": _blocks(sums / reach, None, own, read),
        "source": _blocks(random, None, own, held),
        "ticket": _blocks(random, kept, own, held),
    }
    if layer.alpha is not None and layer.alpha_kept is not None:
        size = (1, 1, 1 if flat else 2, random.shape[3])
        alpha, alive = (
            np.tile(one[np.ix_(read, columns)][:, :, None, None], size)
            for one in (layer.alpha, layer.alpha_kept)
        )
        for name, chosen in (("source", None), ("ticket", alive)):
            strip = _blocks(alpha, chosen, read, held)
            blocks[name] = _stacked(strip, blocks[name])
    _lay_out(path, layer, blocks, out, read)


class _Block(NamedTuple):
    """Tiles as one picture, and where rows lie in it."""

    colours: Float[np.ndarray, "height width 3"]
    places: list[tuple[float, int]]
    """Of the groups of rows: middle and number."""
    strip: int = 0
    """Cells above that belong to the univariate layer."""


def shown_of(
    layer: LayerPicture, outputs: int, inputs: int, copies: int, channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which outputs, inputs, rows and columns a drawing shows."""
    alive = np.abs(layer.target).reshape(*layer.target.shape[:2], -1).max(2)
    out = np.flatnonzero(alive.max(1) > 0)[:outputs]
    read = np.flatnonzero(alive[out].max(0) > 0)[:inputs] if len(out) else np.zeros(0, int)
    if not len(read):
        raise ValueError(f"layer: all weights of {layer.path} are 0: draw another layer")
    columns = (
        np.arange(len(layer.input))[:channels]
        if layer.alpha is not None
        else np.flatnonzero(np.isin(layer.input, read))
    )
    each = len(layer.output) // len(layer.target)
    rows = np.flatnonzero(np.isin(layer.output, out) & (np.arange(len(layer.output)) % each < copies))
    return out, read, rows, columns


def _blocks(
    values: Float[np.ndarray, "rows columns height width"],
    kept: Bool[np.ndarray, "rows columns height width"] | None,
    rows: np.ndarray,
    columns: np.ndarray,
) -> _Block:
    """Tiles side by side, with a wider gap where a row or a column is of another channel."""
    down, across = _starts(rows, values.shape[2]), _starts(columns, values.shape[3])
    height, width = down[-1] + values.shape[2], across[-1] + values.shape[3]
    canvas = np.ones((height, width, 3))
    colours = ScalarMappable(Normalize(-1, 1), COLOURS).to_rgba(np.clip(values, -1, 1).reshape(-1))[:, :3]
    colours = np.asarray(colours).reshape(*values.shape, 3)
    if kept is not None:
        colours = np.where(kept[..., None], colours, 1 - PALE * (1 - colours))
    for r, top in enumerate(down):
        for c, left in enumerate(across):
            canvas[top : top + values.shape[2], left : left + values.shape[3]] = colours[r, c]
    places = [
        (float(np.mean([down[r] for r in np.flatnonzero(rows == one)]) + (values.shape[2] - 1) / 2), int(one))
        for one in dict.fromkeys(rows.tolist())
    ]
    return _Block(canvas, places)


def _starts(groups: np.ndarray, size: int) -> list[int]:
    """Where tiles of so many cells begin."""
    starts, at = [], 0
    for number, group in enumerate(groups):
        if number:
            at += size + (GAP if group == groups[number - 1] else 4 * GAP)
        starts.append(at)
    return starts


def _stacked(strip: _Block, block: _Block) -> _Block:
    above = strip.colours.shape[0] + 4 * GAP
    gap = np.ones((4 * GAP, strip.colours.shape[1], 3))
    return _Block(
        np.concatenate([strip.colours, gap, block.colours]),
        [(place + above, one) for place, one in block.places],
        above,
    )


def _lay_out(
    path: str | Path, layer: LayerPicture, blocks: Mapping[str, _Block], out: np.ndarray, read: np.ndarray
) -> None:
    """Target and sums on the left, source and ticket on the right."""
    univariate = layer.alpha is not None
    reads = "univariate channels of weight α" if univariate else "copies of the inputs"
    titles = {
        "target": "target",
        "sums": "sums of the kept,\ninputs above 0" if univariate else "sums of\nthe kept",
        "source": f"source, random weights\ncolumns: {reads}, rows: copies of the outputs",
        "ticket": "ticket: the same weights, pruned ones pale",
    }
    left = max(NARROW, *(blocks[name].colours.shape[1] for name in ("target", "sums")))
    right = blocks["source"].colours.shape[1]
    high = blocks["source"].colours.shape[0]
    width, height = (0.95 + CELL * (left + right) + 0.75, 1.35 + 2 * CELL * high + 0.45)
    with picture(path, width, height, placed=True) as figure:
        for name, block in blocks.items():
            rows, columns = block.colours.shape[:2]
            lower = name in ("sums", "ticket")
            x = 0.75 if name in ("target", "sums") else 0.75 + CELL * left + 0.75
            top = 0.75 + (CELL * high + 0.35 if lower else 0)
            if name == "sums":
                top += CELL * blocks["ticket"].strip
            box = (x, height - top - CELL * rows, CELL * columns, CELL * rows)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            _show(axes, block, titles[name])
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if block.strip:
                axes.text(-1.5, (block.strip - 4 * GAP) / 2 - 0.5, "α", ha="right", va="center", fontsize=9)
        bar = figure.add_axes((0.75 / width, 0.32 / height, 1.6 / width, 0.09 / height))
        figure.colorbar(ScalarMappable(Normalize(-1, 1), COLOURS), cax=bar, orientation="horizontal")
        bar.set_xticks([-1, 0, 1], ["−largest", "0", "largest"], fontsize=7)
        figure.suptitle(
            f"Layer {layer.path}: outputs {_numbers(out)}, inputs {_numbers(read)}",
            x=0.01,
            ha="left",
            fontsize=10,
        )


def _numbers(channels: np.ndarray) -> str:
    return ", ".join(str(one) for one in channels.tolist())


def _show(axes: Axes, block: _Block, title: str) -> None:
    axes.imshow(block.colours, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([place for place, _ in block.places], [f"output {one}" for _, one in block.places])
    axes.tick_params(length=0, labelsize=8)
    axes.set_title(title, fontsize=9)
