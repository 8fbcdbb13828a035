"""One layer of a ticket: the target's kernels, the source's random ones, and which taps survive."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.construction import Construction
from slth.construction.plan import weight_scale
from slth.construction.state import Read
from slth.nn.graph import Map, Sum, behind, by_layer, flattening, graph
from slth.nn.layers import Conv, Dense
from slth.nn.prune import read_channels
from slth.report.kernels import slopes_at_zero
from slth.source import parameter
from slth.source.layout import unflattened
from slth.source.widths import first_info
from slth.types import AnyArray, Mask


class LayerPicture(NamedTuple):
    """A layer of the target and what a ticket makes of it, in units of the layer's source scale.

    A row is a copy of an output of the target's layer, a column a channel that the source's layer reads: a
    univariate channel of one input, or a copy of a channel.

    Example:
      >>> from slth import report
      >>> report.LayerPicture._fields[:4]
      ('path', 'target', 'random', 'kept')
    """

    path: str
    target: Float[np.ndarray, "outputs inputs *taps"]
    random: Float[np.ndarray, "rows columns *taps"]
    kept: Bool[np.ndarray, "rows columns *taps"]
    output: Int[np.ndarray, " rows"]
    """Which output each row is a copy of."""
    live: Bool[np.ndarray, " rows"]
    """Whether anything behind reads the row; one that nothing reads is pruned whole."""
    input: Int[np.ndarray, " columns"]
    """Which input each column holds; -1 where it holds none, because it is pruned."""
    sums: Float[np.ndarray, "signs rows inputs *taps"]
    """What the kept weights apply to an input above 0 and, of univariate channels, to one below."""
    sizes: Int[np.ndarray, "signs rows inputs *taps"]
    """Weights kept for each of these."""
    alpha: Float[np.ndarray, "inputs columns"] | None
    """Weights of the univariate channels, in units of their own scale; None behind other layers."""
    alpha_kept: Bool[np.ndarray, "inputs columns"] | None

    @property
    def error(self) -> Float[np.ndarray, "signs rows inputs *taps"]:
        """How far the sums are from the target's weights."""
        return self.sums - self.target[self.output]


def layer_picture(made: Construction, mask: Mask, path: str | None = None) -> LayerPicture:
    """The picture of one layer.

    Args:
      made: a construction; its target, as it was balanced, and its source.
      mask: of its source; that of the ticket.
      path: of the target's layer; None: its first one.
    Raises: ValueError for a layer that the target does not have, or one that reads groups of channels or a
      concatenation.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> layers = (nn.Conv("conv1", 2, (3, 3)), nn.Activation("relu"), nn.Flatten(), nn.Dense("fc", 2))
      >>> network = nn.Network((4, 4, 1), layers)
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=8), slth.Best())
      >>> found = report.layer_picture(made, made.ticket.mask, "conv1")
      >>> found.target.shape, found.random.shape      # 2 outputs of 8 copies, 32 univariate channels
      ((2, 1, 3, 3), (16, 32, 3, 3))
      >>> bool(abs(found.error).max() < 0.2)
      True
    """
    target, source = made.target.network, made.source
    layout = source.layout_for(target)
    terms = {entry.path: (entry, term) for entry, term in layout.terms(target) if isinstance(term, Map)}
    path = next(iter(terms)) if path is None else path
    if path not in terms:
        raise ValueError(f"layer: the target has no layer {path!r}: it has {', '.join(terms)}")
    entry, term = terms[path]
    before = behind(target, term.reads).name
    steps = {step.name: step for step in graph(target) if isinstance(step, Sum)}
    if entry.groups > 1 or (isinstance(term.layer, Conv) and term.layer.groups > 1):
        raise ValueError(f"layer: {path} has groups: draw a layer that reads all channels")
    if before and before not in steps:
        raise ValueError(f"layer: {path} reads a concatenation: draw another layer")
    flat = flattening(target, term.reads)
    read = Read(unflattened(target, term.reads), flat and flat.layer)
    taps = read.shape[:-1] if isinstance(term.layer, Dense) else term.layer.kernel
    scale = weight_scale(source, entry)
    kernels, kept = by_layer(made.params), by_layer(mask)
    node = next(graph(target)[one.step] for one in layout.nodes if entry in one.maps)
    assert isinstance(node, Sum)
    rows = made.columns[node.path]

    def by_tap(kernel: AnyArray) -> np.ndarray:
        return read.by_tap(np.asarray(kernel))

    goal = by_tap(kernels[path]["kernel"])
    v, own = (
        by_tap(one)[:, :, rows.reshape(-1)]
        for one in (parameter(source, f"{path}/kernel"), kept[path]["kernel"])
    )
    front, alpha, alpha_kept = layout.front_of(target, entry, term), None, None
    inputs = goal.shape[1]
    if front is None:
        columns = made.columns[steps[before].path]
        holds = np.repeat(np.arange(inputs), columns.shape[1])
        v, own = (one[:, columns.reshape(-1)] for one in (v, own))
        gains = np.eye(inputs)[None, :, holds]  # signs, inputs, columns
    else:
        width = front.first_constant
        info = first_info(target)
        v, own = v[:, :width], own[:, :width]
        alpha = np.asarray(parameter(source, f"{front.path}/kernel"), float).reshape(inputs, -1)[:, :width]
        alpha_kept = np.asarray(kept[front.path]["kernel"]).reshape(inputs, -1)[:, :width]
        holds = np.where(alpha_kept.any(0), alpha_kept.argmax(0), -1)
        # Of one slope, or of inputs that are known not to be below 0, there is one sum.
        both = info.mu_plus != info.mu_minus and (alpha[alpha_kept] < 0).any()
        slopes = [slopes_at_zero(alpha, info, sign) for sign in ((1, -1) if both else (1,))]
        gains = np.stack([np.where(alpha_kept, slope, 0) for slope in slopes])
        alpha = alpha / np.abs(alpha).max()
    weights = np.where(own, v, 0).astype(np.float64)
    sums = np.einsum("tnr,sin->srit", weights, gains) / scale
    sizes = np.einsum("tnr,sin->srit", own.astype(int), (gains != 0).astype(int))

    def shaped(array: np.ndarray) -> np.ndarray:
        """Taps last and in their own shape."""
        return array.reshape(*array.shape[:-1], *taps)

    unit = scale if front is None else float(np.abs(v).max()) or 1.0
    return LayerPicture(
        path,
        shaped(goal.transpose(2, 1, 0) / scale),
        shaped(v.transpose(2, 1, 0) / unit),
        shaped(own.transpose(2, 1, 0)),
        np.repeat(np.arange(len(rows)), rows.shape[1]),
        np.asarray(read_channels(source.network, mask)[node.path])[rows.reshape(-1)],
        holds,
        shaped(sums),
        shaped(sizes),
        alpha,
        alpha_kept,
    )
