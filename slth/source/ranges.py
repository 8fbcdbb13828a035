"""How large the inputs of a target's linear layers are: what univariate layers of 2L must be made for."""

import math
from functools import reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.nn.activations import activation_info
from slth.nn.graph import Join, Sum, by_layer, graph
from slth.nn.layers import Activation
from slth.nn.network import Network
from slth.source.layout import terms_of
from slth.types import Params

MARGIN = 1.25
"""Room above the largest input seen."""


class Range(NamedTuple):
    """How large the inputs of a linear layer are."""

    reach: float
    """R, the largest |input|."""
    exact: bool
    """Whether no input can exceed it; else it was seen on images, times `MARGIN`."""


def input_ranges(
    target: Network, params: Params, images: Float[Array | np.ndarray, "n *shape"], reach: float
) -> dict[str, Range]:
    """R of every linear layer of a target by path (of skips without one, as `terms_of` has it).

    Args:
      images: from which the ranges are taken that no bounded activation gives.
      reach: R of the network's inputs.
    """
    layers, found = by_layer(params), {}
    values: list[tuple[Array, float]] = [(jnp.asarray(images), reach)]

    for step in graph(target):
        bound = math.inf
        if isinstance(step, Sum):
            terms = []
            for path, term in terms_of(step).items():
                x, limit = values[term.reads]
                exact = math.isfinite(limit)
                found[path] = Range(limit if exact else MARGIN * float(jnp.abs(x).max()), exact)
                terms.append(x if term.layer is None else term.layer.apply(layers.get(term.path, {}), x))
            y = reduce(add, terms)
        elif isinstance(step, Join):
            parts = [values[value] for value in step.reads]
            y, bound = jnp.concatenate([x for x, _ in parts], -1), max(limit for _, limit in parts)
        else:
            x, bound = values[step.value]
            y = step.layer.apply(layers.get(step.path, {}), x)
            if isinstance(step.layer, Activation):
                info = activation_info(step.layer.kind, step.layer.slope)
                bound = max(-info.least, info.most)
        values.append((y, bound))
    return found
