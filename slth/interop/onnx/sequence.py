"""Layers in their order, with names and parameters; affine maps go into the linear layers behind them."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from slth.interop.onnx.model import Refused
from slth.interop.onnx.nesting import Block, Item, Items, Parts, Scaling
from slth.interop.onnx.values import Affine, plain_name
from slth.nn.layers import BatchNorm, ChannelScale, Concat, Conv, Dense, Layer, Residual
from slth.nn.pooling import Flatten
from slth.types import Params

LOG = logging.getLogger(__name__)
WIDEST = 2**12
"""Channels of an affine map that becomes a matrix of its own."""


class Sequence(NamedTuple):
    """Layers and their parameters."""

    layers: tuple[Layer, ...]
    params: Params


def sequence_of(items: Items, *, summed: bool = False) -> Sequence:
    """The layers of a sequence; an affine map is a batch norm whose statistics are 0 and 1.

    Args:
      summed: whether it is a side of a residual block.
    """
    layers: list[Layer] = []
    params: Params = {}
    items = _joined(_merged(items))
    for before, item in zip([None, *items], items, strict=False):
        layer, own = _layer(item, before, summed and len(items) == 1)
        if isinstance(layer, Conv | Dense | BatchNorm | ChannelScale | Residual | Concat):
            layer = replace(layer, name=_free(layer.name, layers))
            if own:
                params[layer.name] = own
        layers.append(layer)
    return Sequence(tuple(layers), params)


def _free(name: str, layers: Iterable[Layer]) -> str:
    """A name that none of the layers has."""
    taken = {getattr(layer, "name", None) for layer in layers}
    names = (name, *(f"{name}_{k}" for k in range(2, len(taken) + 3)))
    return next(one for one in names if one not in taken)


def _layer(item: Item | Scaling | Block | Parts, before: object, alone: bool) -> tuple[Layer, Params]:
    """A layer and its parameters in float32."""
    if isinstance(item, Parts):
        sides = [sequence_of(side) for side in item.sides]
        params = {str(number): side.params for number, side in enumerate(sides) if side.params}
        return Concat("concat", tuple(side.layers for side in sides)), params
    if isinstance(item, Scaling):
        return _norm(item, before, alone)
    if isinstance(item, Item):
        return item.layer, {name: array.astype(np.float32) for name, array in item.params.items()}
    branch, skip = sequence_of(item.branch, summed=True), sequence_of(item.skip, summed=True)
    sides = (("branch", branch.params), ("skip", skip.params))
    return Residual("block", branch.layers, skip.layers), {name: own for name, own in sides if own}


def _norm(item: Scaling, before: object, alone: bool) -> tuple[Layer, Params]:
    channels = item.shape[-1]
    name = plain_name(item.node.partition(" ")[2].strip("'\"")) or "affine"
    factor, shift = (np.broadcast_to(one, (channels,)).astype(np.float32) for one in item.affine)
    if alone and not shift.any():
        return ChannelScale(name), {"scale": factor}
    if not _linear(before):
        if channels > WIDEST and len(item.shape) == 1:
            raise Refused(
                f"{item.node}: no linear layer beside it takes over its {channels} factors and shifts"
            )
        LOG.info("%s: no linear layer beside it takes it over: it becomes one, of 1x1 taps", item.node)
    still = {"mean": np.zeros_like(factor), "var": np.ones_like(factor)}
    return BatchNorm(name, epsilon=0.0), {"scale": factor, "bias": shift, **still}


def _linear(item: object) -> Conv | Dense | None:
    """The convolution or dense layer that an item is."""
    return item.layer if isinstance(item, Item) and isinstance(item.layer, Conv | Dense) else None


def _merged(items: Items) -> Items:
    """The items with affine maps that follow each other made one, and those that do nothing left out."""
    out: Items = []
    for item in items:
        if isinstance(item, Scaling):
            if out and isinstance(before := out[-1], Scaling):
                (f, s), (g, t) = before.affine, item.affine
                item = item._replace(affine=Affine(f * g, s * g + t))
                out.pop()
            if (item.affine.factor == 1).all() and not item.affine.shift.any():
                continue
        out.append(item)
    return out


def _joined(items: Items) -> Items:
    """The items with every affine map that has no linear layer before it in the one behind it, where that is
    exact: a convolution that pads would read zeros that are not shifted. (`Target.of` joins the others.)"""
    out: Items = []
    for item in items:
        layer, sources, place = _linear(item), None, len(out) - 1
        if out and isinstance(flat := out[-1], Item) and isinstance(flat.layer, Flatten):
            sources, place = flat.layer.sources(flat.shape), place - 1
        if layer and isinstance(item, Item) and place >= 0 and isinstance(before := out[place], Scaling):
            pads = isinstance(layer, Conv) and any(map(any, layer.padding))
            if not (place and _linear(out[place - 1])) and not (pads and before.affine.shift.any()):
                sources = np.arange(before.shape[-1]) if sources is None else sources
                params = _behind(before.affine, sources[layer.inputs(len(sources))], item.params)
                item = item._replace(layer=replace(layer, use_bias=True), params=params)
                del out[place]
        out.append(item)
    return out


def _behind(affine: Affine, sources: np.ndarray, params: Params) -> Params:
    """The parameters of a linear layer behind an affine map, whose outputs read these channels by row."""
    kernel = params["kernel"]
    factor, shift = (np.broadcast_to(one, (sources.max() + 1,))[sources] for one in affine)
    bias = params.get("bias", 0.0) + (shift * kernel.sum(tuple(range(kernel.ndim - 2)))).sum(0)
    return {"kernel": kernel * factor, "bias": bias}
