r"""Theorem 1: how far the copies can be off, by absolute values, layer by layer.

With R the largest magnitudes of the target's values and E bounds of the copies' errors,

    xi_c'(p) = |sum e m + offset| + |e| * (R's radius) + |v| * E + (a carried skip's E),  E = slope * xi,

where m is the middle of the target's values, so that the first two terms are never more than |e| * R +
|offset|. The kernels of the last two convolutions are not negative: they are rounded up by a factor.
Note |v|, not |sum v|: copies carry different errors, and subsets of mixed signs amplify them.

Source: this project; the recursion follows the proof of Burkholz, ICML 2022.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import correlate, gamma, pool, terms
from slth.certificate.moves import carried, flattened
from slth.certificate.pair import Map, Pair, Place, Pointwise, Pooling, Reshape, Sum
from slth.certificate.reach import Range, original
from slth.certificate.slopes import info_of, reach, slopes
from slth.nn.layers import Activation

Errors = Float[np.ndarray, "n *space channels"]
CELLS = 1024


class Layer(NamedTuple):
    """What is known of the copies' pre-activations of one node over n sets of inputs."""

    path: str
    bound: Float[np.ndarray, " n"]
    """Largest bound of a copy's error."""
    mean: Float[np.ndarray, " n"]
    """Mean bound over copies and positions."""
    size: Float[np.ndarray, " n"]
    """Largest magnitude of the target's pre-activations."""
    unstable: Float[np.ndarray, " n"]
    """Share of the copies' pre-activations whose sign, or the target's, may change over the set."""


def propagate(pair: Pair, ranges: list[Range]) -> tuple[list[Errors], list[Layer]]:
    """Bounds of |delta| at every place, and a summary of each node.

    Args:
      ranges: of the target's values at every place.
    """
    errors = [start(pair, ranges[0])]
    layers = []
    for number, step in enumerate(pair.steps):
        before = pair.places[getattr(step, "reads", 0)]
        match step:
            case Sum():
                place = pair.places[number + 1]
                errors.append(_sum(step, place, ranges, errors))
                layers.append(summary(step.path, place, ranges[number + 1], errors[-1]))
            case Pointwise(at, layer, rounding):
                errors.append(_activated(layer, before, ranges[at], errors[at]) + rounding)
            case Pooling(at, layer, rounding):
                errors.append(pool(layer, errors[at]) * (1 + 1e-14) + rounding)
            case Reshape(at, layer):
                errors.append(flattened(layer, errors[at]))
    return errors, layers


def start(pair: Pair, x: Range) -> Errors:
    """The errors at place 0: remainders r(|alpha| R) of the activation, and rounding."""
    info = info_of(pair.first.layer)
    shape = (*x.mid.shape[:-1], len(pair.first.alpha))
    if info.homogeneous:
        return np.broadcast_to(pair.first.rounding, shape)
    most = np.abs(pair.first.alpha) * original(pair, x).size[..., pair.first.input]
    # r grows with its argument: its value at the upper end of a cell bounds it in the cell.
    top = float(most.max(initial=0)) * (1 + 1e-12)
    table = np.array([info.remainder(top * (cell + 1) / CELLS) for cell in range(CELLS)])
    table = np.append(table, table[-1])
    cell = np.floor(most / max(top, 1e-300) * CELLS).astype(int)
    return np.where(most > 0, table[cell], 0.0) * (1 + 1e-12) + pair.first.rounding + 1e-15


def missed(one: Map, x: Range, owner: np.ndarray) -> Range:
    """What the errors of the weights add to the copies, rounded outward."""
    slack = gamma(terms(one.error))
    mid = correlate(one.layer, x.mid, one.error)
    rad = correlate(one.layer, x.rad + slack * x.size, np.abs(one.error)) * (1 + slack)
    # Scaled weights and sums of kept weights are themselves rounded.
    weights = correlate(one.layer, x.size, np.abs(one.wanted)) * gamma(0)
    return Range(mid, rad + weights[..., owner] + gamma(0) * np.abs(mid))


def amplified(one: Map, error: Errors) -> Errors:
    """|v| * E, rounded up."""
    return correlate(one.layer, error, np.abs(one.kept)) * (1 + gamma(terms(one.kept)))


def _sum(step: Sum, place: Place, ranges: list[Range], errors: list[Errors]) -> Errors:
    total: np.ndarray = step.rounding
    mid: np.ndarray = step.offset
    for one in step.maps:
        added = missed(one, ranges[one.reads], place.owner[0])
        mid = mid + added.mid
        total = total + added.rad + amplified(one, errors[one.reads])
    total = total + np.abs(mid)
    if step.carry is not None:
        total = total + carried(step.carry.stride, step.carry.ticket, errors[step.carry.reads])
    return total * (1 + gamma(0))


def based(place: Place, x: Range) -> Range:
    """Ranges of what each channel should hold: a value of the target, or its constant."""
    return Range(place.carried(x.mid) + place.constant, place.carried(x.rad))


def _activated(layer: Activation, place: Place, x: Range, error: Errors) -> Errors:
    low, high = (based(place, x).low - error, based(place, x).high + error)
    least, most = slopes(layer, low, high)
    below, above = reach(layer, low, high)
    return np.minimum(np.maximum(np.abs(least), np.abs(most)) * error, above - below) * (1 + gamma(0))


def summary(path: str, place: Place, x: Range, error: Errors) -> Layer:
    """The largest and mean bound of a node's copies."""
    n, owned = len(error), place.owned
    if not owned.any():
        return Layer(path, *(np.zeros(n) for _ in range(4)))
    copies = error[..., owned]
    at = place.owner[0][owned]
    unstable = np.abs(x.mid)[..., at] <= x.rad[..., at] + copies
    flat = (a.reshape(n, -1) for a in (copies, copies, x.size, unstable))
    bound, average, size, share = flat
    return Layer(path, bound.max(1), average.mean(1), size.max(1), share.mean(1))
