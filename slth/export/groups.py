"""A convolution of several groups as ordinary ones: other programs have no channels beside groups."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from slth.nn.layers import Conv


class Piece(NamedTuple):
    """A convolution of some channels of a value."""

    path: str
    layer: Conv
    """With nothing beside its groups."""
    params: dict[str, np.ndarray]
    first: int
    count: int
    """The channels that it reads, from the first on."""


class Pieces(NamedTuple):
    """The convolutions that a layer is."""

    joined: tuple[Piece, ...]
    """Their outputs stand one after the other."""
    added: tuple[Piece, ...]
    """Their outputs are added to those."""


def pieces_of(path: str, layer: Conv, params: Mapping[str, np.ndarray], cin: int) -> Pieces:
    """The convolutions without `Conv.beside` whose joined and added outputs are a layer's.

    Args:
      path: of the layer, with which each piece's begins.
      params: the layer's.
      cin: channels of what it reads.
    """
    (inputs, outputs), own = layer.beside, {name: np.asarray(leaf) for name, leaf in params.items()}
    each = layer.rows(cin) - inputs
    dealt, whole = layer.features - outputs, each * layer.groups

    def piece(name: str, groups: int, first: int, rows: slice, columns: slice, bias: bool) -> Piece:
        kernel = own["kernel"][..., rows, columns]
        held = {"kernel": kernel} | ({"bias": own["bias"][columns]} if bias else {})
        sizes = {"features": kernel.shape[-1], "groups": groups, "use_bias": bias, "beside": (0, 0)}
        return Piece(path + name, replace(layer, **sizes), held, first, kernel.shape[-2] * groups)

    biased, rows = layer.use_bias, slice(0, each)
    joined = [piece("", layer.groups, 0, rows, slice(0, dealt), biased)]
    if outputs:
        joined.append(piece("/more", 1, whole - each, rows, slice(dealt, None), biased))
    every = slice(None)
    added = (piece("/beside", 1, whole, slice(each, None), every, False),) if inputs else ()
    return Pieces(tuple(joined), added)
