r"""Scales of univariate layers for a phi that is no cone: phi(alpha x) is linear where alpha x is small.

With :math:`\hat\phi` the two lines of phi at 0 and x in [-R, R], a univariate channel misses at most
:math:`r(|\alpha| R)` of :math:`\mu |\alpha| R`. So alpha must be small, and the weights that read it large in
turn; too small an alpha would leave the sums to the resolution of float32.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from slth.construct.layout import SKIP, UNIVARIATE
from slth.nn.activations import ActivationInfo
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.source import Source, layer_scale, parameter_shapes
from slth.types import Params

REMAINDER = 1e-3
"""Share of a univariate channel's value that phi may miss, where no smaller alpha is the better one."""
OFFSET_ERROR = 2e-5
"""Share of what univariate channels hold at 0 that their constants leave."""
STEPS = 80
MARGIN = 1.25
"""Room above the largest input seen."""
LARGEST = {"sigmoid": 1.0, "tanh": 1.0, "hard_tanh": 1.0}
"""Largest |phi| of the bounded activations."""


def smaller_slope(info: ActivationInfo) -> float:
    """The smaller non-zero one of |mu+| and |mu-|."""
    return min(abs(mu) for mu in (info.mu_plus, info.mu_minus) if mu != 0)


def choose_alpha(info: ActivationInfo, reach: float) -> float:
    r"""The scale a of the weights alpha for inputs in [-R, R].

    A channel misses :math:`r(a R)` of :math:`\mu a R`, and what it holds at 0, d, is cancelled to a part in
    50,000: the largest :math:`a = 2^{-k/4} \le 1` whose share of both is near the least or below 1/1000.

    Args:
      info: of phi; mu is the smaller non-zero slope.
      reach: R > 0, the largest |input|.
    """
    slope = smaller_slope(info)
    alphas = [2.0 ** (-step / 4) for step in range(STEPS)]
    missed = [
        (info.remainder(a * reach) + OFFSET_ERROR * abs(info.offset)) / (slope * a * reach) for a in alphas
    ]
    accepted = max(REMAINDER, 1.1 * min(missed))
    return next(a for a, share in zip(alphas, missed, strict=True) if share <= accepted)


def with_small_alpha(source: Source, info: ActivationInfo, reach: float | Mapping[str, float]) -> Source:
    """The source with the scales of its univariate layers, and of those that read them, made for phi.

    alpha's scale is `choose_alpha`; the layer behind has 1 / (mu a) times the scale it would have if it
    read copies of the inputs, so that the products v alpha mu are as large as its weights would be. Scales
    that were asked for stay.

    Args:
      reach: R of the network's inputs; in 2L, of the inputs of each linear layer by its path.
    """
    shapes = parameter_shapes(source.network)
    if isinstance(reach, Mapping):
        chosen = [(f"{path}.{UNIVARIATE}", path, r) for path, r in reach.items()]
    else:
        first, second, *_ = [p.removesuffix("/kernel") for p in shapes if p.endswith("/kernel")]
        assert first == UNIVARIATE
        chosen = [(first, second, reach)]
    scales = list(source.scales)
    for first, second, r in chosen:
        alpha = choose_alpha(info, r)
        *_, cin, width = shapes[f"{first}/kernel"]
        copied = math.sqrt(width / (source.multiplicity * cin)) if source.init.startswith("he") else 1.0
        scales += [
            (first, alpha / layer_scale(source, first)),
            (second, copied / (smaller_slope(info) * alpha)),
        ]
    return replace(source, scales=tuple(scales))


class Range(NamedTuple):
    """How large the inputs of a linear layer are."""

    reach: float
    """R, the largest |input|."""
    exact: bool
    """Whether no input can exceed it; else it was seen on images, times `MARGIN`."""


def input_ranges(
    target: Network, params: Params, images: Float[Array, "n *shape"], reach: float
) -> dict[str, Range]:
    """R of every linear layer of a target by path (of skips without one, as a source of `SKIP` has it).

    Args:
      images: from which the ranges are taken that no bounded activation gives.
      reach: R of the network's inputs.
    """
    found: dict[str, Range] = {}

    def note(path: str, x: Array, bound: float) -> None:
        exact = math.isfinite(bound)
        found[path] = Range(bound if exact else MARGIN * float(jnp.abs(x).max()), exact)

    def walk(
        layers: tuple[Layer, ...], values: Params, x: Array, bound: float, path: str
    ) -> tuple[Array, float]:
        for layer in layers:
            match layer:
                case Conv() | Dense():
                    note(f"{path}{layer.name}", x, bound)
                    x, bound = layer.apply(values[layer.name], x), math.inf
                case Residual():
                    inside, own = f"{path}{layer.name}/", values[layer.name]
                    branch = walk(layer.branch, own["branch"], x, bound, f"{inside}branch/")
                    if not any(isinstance(skip, Conv | Dense) for skip in layer.skip):
                        note(f"{inside}skip/{SKIP}", x, bound)
                    skip = walk(layer.skip, own.get("skip", {}), x, bound, f"{inside}skip/")
                    x, bound = branch[0] + skip[0], branch[1] + skip[1]
                case ChannelScale():
                    x, bound = layer.apply(values[layer.name], x), math.inf
                case Activation(kind):
                    x, bound = layer.apply({}, x), LARGEST.get(kind, math.inf)
                case _:
                    x = layer.apply({}, x)
        return x, bound

    walk(target.layers, params, images, reach, "")
    return found


def weight_scale(source: Source, path: str) -> float:
    """What a weight of the layer at ``path`` is measured in: the source's scale of it; in 2L that times half
    the scale of the univariate layer in front, as products of two uniform numbers are half as large as one.
    """
    name = f"{path}.{UNIVARIATE}"
    doubled = f"{name}/kernel" in parameter_shapes(source.network)
    return layer_scale(source, path) * (layer_scale(source, name) / 2 if doubled else 1.0)
