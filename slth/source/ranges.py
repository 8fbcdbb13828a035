"""How large the inputs of a target's linear layers are: what univariate layers of 2L must be made for."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.nn.graph import Sum, by_layer, graph
from slth.nn.layers import Activation, ChannelScale
from slth.nn.network import Network
from slth.source.layout import SKIP
from slth.types import Params

MARGIN = 1.25
"""Room above the largest input seen."""
LARGEST = {"sigmoid": 1.0, "tanh": 1.0, "hard_tanh": 1.0}
"""Largest |phi| of the bounded activations."""


class Range(NamedTuple):
    """How large the inputs of a linear layer are."""

    reach: float
    """R, the largest |input|."""
    exact: bool
    """Whether no input can exceed it; else it was seen on images, times `MARGIN`."""


def input_ranges(
    target: Network, params: Params, images: Float[Array | np.ndarray, "n *shape"], reach: float
) -> dict[str, Range]:
    """R of every linear layer of a target by path (of skips without one, as a source of `SKIP` has it).

    Args:
      images: from which the ranges are taken that no bounded activation gives.
      reach: R of the network's inputs.
    """
    layers, found = by_layer(params), {}
    values: list[tuple[Array, float]] = [(jnp.asarray(images), reach)]

    def note(path: str, x: Array, bound: float) -> None:
        exact = math.isfinite(bound)
        found[path] = Range(bound if exact else MARGIN * float(jnp.abs(x).max()), exact)

    for step in graph(target):
        bound = math.inf
        if isinstance(step, Sum):
            terms = []
            for entry in step.maps:
                note(entry.path, *values[entry.reads])
                terms.append(entry.layer.apply(layers[entry.path], values[entry.reads][0]))
            for one in step.skips:
                x, limit = values[one.reads]
                note(f"{step.name}/skip/{SKIP}", x, limit)
                terms.append(x if one.layer is None else one.layer.apply(layers.get(one.path, {}), x))
            y = sum(terms[1:], terms[0])
        else:
            x, bound = values[step.value]
            y = step.layer.apply(layers.get(step.path, {}), x)
            if isinstance(step.layer, Activation):
                bound = LARGEST.get(step.layer.kind, math.inf)
            elif isinstance(step.layer, ChannelScale):
                bound = math.inf
        values.append((y, bound))
    return found
