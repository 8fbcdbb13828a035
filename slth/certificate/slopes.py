r"""What an activation can do on an interval: its range, and the slopes of its secants.

    phi([a, b])  and  { (phi(x) - phi(y)) / (x - y) : x, y in [a, b] }  within  [low, high]

A homogeneous activation is two half-lines, and both are exact. Any other is tabulated on a grid of 1/256
(kinks at whole multiples are exact) with its slopes padded by four times the table's own departure from
straight lines; beyond the grid the slopes at 32, 100, ... stand for the tail.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.layers import Activation

Values = Float[np.ndarray, "..."]

EDGE, STEP = 32.0, 1 / 256
TAIL = (EDGE, 40.0, 100.0, 1e3, 1e6)
ROUNDING = 2.0**-48
"""Relative error allowed to phi in float64."""


def info_of(layer: Activation) -> ActivationInfo:
    """The row of the activation table."""
    return activation_info(layer.kind, layer.slope)


def evaluate(layer: Activation, x: Values) -> Values:
    """phi(x) in float64."""
    info = info_of(layer)
    if info.homogeneous:
        return np.where(x >= 0, info.mu_plus * x, info.mu_minus * x)
    return _evaluate(layer, x, 0)


def _evaluate(layer: Activation, x: Values, derivative: int) -> Values:
    # Few sizes are compiled: arrays are filled up to a power of 8.
    size = 1 << 3 * max(4, -(-max(x.size - 1, 1).bit_length() // 3))
    filled = np.zeros(size)
    filled[: x.size] = x.ravel()
    with jax.enable_x64(True):
        y = np.asarray(_compiled(layer, derivative)(jnp.asarray(filled)))
    return y[: x.size].reshape(x.shape)


@cache
def _compiled(layer: Activation, derivative: int):
    phi = info_of(layer).phi
    return jax.jit(jax.vmap(jax.grad(phi)) if derivative else phi)


_Levels = list[tuple[np.ndarray, np.ndarray]]
"""Least of some numbers and largest of others, over 2^level neighbours each."""


@cache
def _table(layer: Activation) -> tuple[_Levels, _Levels]:
    """Slopes by cell, and values by node."""
    nodes = np.arange(-EDGE, EDGE + STEP / 2, STEP)
    left, middle, right = (_evaluate(layer, nodes[:-1] + STEP * part, 1) for part in (1e-6, 0.5, 1 - 1e-6))
    flat = (left == right) & (left == middle)
    curved = np.abs(middle - (left + right) / 2) + 1e-6 * np.abs(right - left)  # left and right are inside
    pad = 0.0 if flat.all() else 4 * curved.max() + 1e-12
    low, high = (f(f(left, right), middle) for f in (np.minimum, np.maximum))
    low, high = np.where(flat, low, low - pad), np.where(flat, high, high + pad)
    tails = [_evaluate(layer, sign * np.array(TAIL), 1) for sign in (-1.0, 1.0)]
    # The cells before the first and behind the last node stand for the tails.
    low = np.concatenate([[tails[0].min() - pad], low, [tails[1].min() - pad]])
    high = np.concatenate([[tails[0].max() + pad], high, [tails[1].max() + pad]])
    values = _evaluate(layer, nodes, 0)
    return _levels(low, high), _levels(values, values)


def _levels(low: np.ndarray, high: np.ndarray) -> _Levels:
    levels = [(low, high)]
    width = 1
    while 2 * width <= len(levels[0][0]):
        low, high = np.minimum(low[:-width], low[width:]), np.maximum(high[:-width], high[width:])
        levels.append((low, high))
        width *= 2
    return levels


def _over(levels: _Levels, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest over the entries first..last of the first level."""
    least, most = np.empty(first.shape), np.empty(first.shape)
    level = np.frexp(last - first + 1.0)[1] - 1
    for number in np.unique(level):
        here = level == number
        start, end = first[here], last[here] + 1 - 2**number
        low, high = levels[number]
        least[here] = np.minimum(low[start], low[end])
        most[here] = np.maximum(high[start], high[end])
    return least, most


def slopes(layer: Activation, low: Values, high: Values) -> tuple[Values, Values]:
    """Least and largest slope of the secants of phi between points of [low, high]."""
    info = info_of(layer)
    if info.homogeneous:
        both = sorted((info.mu_plus, info.mu_minus))
        lowest, highest = (
            np.where(low >= 0, info.mu_plus, np.where(high <= 0, info.mu_minus, one)) for one in both
        )
        return lowest, highest
    levels, _ = _table(layer)
    count = len(levels[0][0])
    # A point on a node belongs to the cell to its right as an upper end: one cell more, never one less.
    first, last = (
        np.clip(np.floor((x + EDGE) / STEP) + 1, 0, count - 1).astype(int)
        for x in (low, np.nextafter(high, -np.inf))
    )
    last = np.maximum(first, last)
    lowest, highest = _over(levels, first, last)
    known = np.maximum(-low, high) <= info.reach
    most = np.where(known, info.lipschitz, np.inf)
    return np.maximum(lowest, -most), np.minimum(highest, most)


def reach(layer: Activation, low: Values, high: Values) -> tuple[Values, Values]:
    """Least and largest phi(x) over x in [low, high], rounded outward."""
    ends = evaluate(layer, low), evaluate(layer, high)
    below, above = np.minimum(*ends), np.maximum(*ends)
    info = info_of(layer)
    if info.homogeneous:
        inner = np.where((low < 0) & (high > 0), 0.0, below)
        below, above = np.minimum(below, inner), np.maximum(above, inner)
    else:
        least, most = slopes(layer, low, high)
        turning = (least < 0) & (most > 0) & (low < high)
        if turning.any():
            inner = _inner(layer, low[turning], high[turning])
            # The largest slope towards a turning point that lies between two nodes, or a node and an end.
            half = STEP / 2 * np.maximum(most, -least)[turning]
            below[turning] = np.minimum(below[turning], inner[0]) - half
            above[turning] = np.maximum(above[turning], inner[1]) + half
    slack = ROUNDING * np.maximum(np.abs(below), np.abs(above))
    if info.homogeneous:  # one product is rounded, and that keeps its sign
        return np.where(below >= 0, np.maximum(below - slack, 0), below - slack), above + slack
    return below - slack, above + slack


def _inner(layer: Activation, low: Values, high: Values) -> tuple[Values, Values]:
    """Least and largest value at the nodes within [low, high], and at the node nearest to it."""
    _, levels = _table(layer)
    count = len(levels[0][0])
    first, last = (
        np.clip(a, 0, count - 1).astype(int)
        for a in (np.ceil((low + EDGE) / STEP), np.floor((high + EDGE) / STEP))
    )
    return _over(levels, np.minimum(first, last), np.maximum(first, last))
