r"""The difference of ticket and target, as middles and radii: signs are kept where they can be.

    mid' = sum e m_u + offset + sum v mid,      rad' = |e| * r_u + |v| * rad + (a carried skip's)

for target values within m_u +- r_u. At an activation, for u in its range and delta within mid +- rad,

    phi(u + delta) - phi(u)  lies in  s delta,  s between the least and largest slope of phi over both, and in
    phi(m_u + mid) - phi(m_u)  +-  (spread of the slopes) r_u + (largest slope) rad;

the two intervals are intersected. Where a pre-activation keeps its sign this is exact, so that a small ball
around an image costs little more than the error at the image. Never looser than the absolute bounds of
`slth.certificate.interval`.
"""

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import UNIT, correlate, gamma, is_max, mean, pool, terms, windows
from slth.certificate.interval import Layer, based, missed, start, summary
from slth.certificate.moves import carried, flattened
from slth.certificate.pair import Map, Pair, Place, Pointwise, Pooling, Reshape, Sum
from slth.certificate.reach import Range, between, original, values
from slth.certificate.slopes import ROUNDING, evaluate, info_of, reach, slopes
from slth.nn.layers import Activation
from slth.nn.pooling import GlobalMean, Pool

Values = Float[np.ndarray, "n *space channels"]


def propagate(pair: Pair, ranges: list[Range]) -> tuple[list[Range], list[Layer]]:
    """Ranges of delta at every place, and a summary of each node.

    Args:
      ranges: of the target's values at every place.
    """
    deltas = [_start(pair, ranges[0])]
    layers = []
    for number, step in enumerate(pair.steps):
        place = pair.places[number + 1]
        match step:
            case Sum():
                deltas.append(_sum(step, place, ranges, deltas))
                layers.append(summary(step.path, place, ranges[number + 1], deltas[-1].size))
            case Pointwise(at, layer, rounding):
                delta = _activated(layer, based(pair.places[at], ranges[at]), deltas[at])
                deltas.append(Range(delta.mid, delta.rad + rounding))
            case Pooling(at, layer, rounding):
                delta = _pooled(layer, based(pair.places[at], ranges[at]), deltas[at])
                deltas.append(Range(delta.mid, delta.rad + rounding))
            case Reshape(at, layer):
                deltas.append(Range(*(flattened(layer, a) for a in deltas[at])))
    return deltas, layers


def _start(pair: Pair, x: Range) -> Range:
    """phi(alpha x) against its two lines: at the middle of x, and how much that can change over its range."""
    info, alpha, index = info_of(pair.first.layer), pair.first.alpha, pair.first.input
    worst = start(pair, x)
    if info.homogeneous:
        return Range(np.zeros(worst.shape), np.array(worst))
    mid, rad = (a[..., index] for a in original(pair, x))
    argument = alpha * mid
    straight = np.where(argument >= 0, info.mu_plus, info.mu_minus) * argument + info.offset
    centre = np.where(alpha == 0, 0.0, evaluate(pair.first.layer, argument) - straight)
    ends = alpha * (mid - rad), alpha * (mid + rad)
    least, most = slopes(pair.first.layer, np.minimum(*ends), np.maximum(*ends))
    lines = min(info.mu_plus, info.mu_minus), max(info.mu_plus, info.mu_minus)
    steep = np.maximum(np.abs(most - lines[0]), np.abs(least - lines[1]))
    rounding = ROUNDING * (np.abs(straight) + abs(info.offset) + 1e-3)
    near = Range(centre, steep * np.abs(alpha) * rad + rounding)
    return _both(near, Range(np.zeros(worst.shape), worst))


def _both(a: Range, b: Range) -> Range:
    """The intersection of two ranges that hold the same number."""
    low, high = np.maximum(a.low, b.low), np.minimum(a.high, b.high)
    low, high = np.minimum(low, high), np.maximum(low, high)  # apart by rounding alone
    cut = between(low, high)
    # An uncut range keeps its middle: no rounding where nothing changes.
    whole = (low <= a.low) & (high >= a.high)
    return Range(np.where(whole, a.mid, cut.mid), np.where(whole, a.rad, cut.rad + 8 * UNIT * a.size))


def amplified(one: Map, delta: Range) -> Range:
    """What the kept weights make of the errors before them."""
    slack = gamma(terms(one.kept))
    mid = correlate(one.layer, delta.mid, one.kept)
    rad = correlate(one.layer, delta.rad + slack * np.abs(delta.mid), np.abs(one.kept)) * (1 + slack)
    return Range(mid, rad)


def _sum(step: Sum, place: Place, ranges: list[Range], deltas: list[Range]) -> Range:
    mid: np.ndarray = step.offset
    rad: np.ndarray = step.rounding
    for one in step.maps:
        for part in (missed(one, ranges[one.reads], place.owner[0]), amplified(one, deltas[one.reads])):
            mid, rad = mid + part.mid, rad + part.rad
    if step.carry is not None:
        skip = deltas[step.carry.reads]
        mid, rad = (
            a + carried(step.carry.stride, step.carry.ticket, b)
            for a, b in ((mid, skip.mid), (rad, skip.rad))
        )
    return Range(mid, (rad + gamma(0) * np.abs(mid)) * (1 + gamma(0)))


def _activated(layer: Activation, base: Range, delta: Range) -> Range:
    low, high = base.low + np.minimum(delta.low, 0), base.high + np.maximum(delta.high, 0)
    least, most = slopes(layer, low, high)
    products = [s * d for s in (least, most) for d in (delta.low, delta.high)]
    scaled = between(np.minimum.reduce(products), np.maximum.reduce(products))
    steep = np.maximum(np.abs(least), np.abs(most))
    after, before = evaluate(layer, base.mid + delta.mid), evaluate(layer, base.mid)
    rounding = ROUNDING * (np.abs(after) + np.abs(before))
    centred = Range(after - before, (most - least) * base.rad + steep * delta.rad + rounding)
    # One slope: the difference is that slope times delta, without rounding through phi.
    fixed = least == most
    if fixed.any():
        straight = Range(least * delta.mid, steep * delta.rad + 2 * UNIT * np.abs(least * delta.mid))
        centred = Range(*(np.where(fixed, a, b) for a, b in zip(straight, centred, strict=True)))
    both, alone = (
        reach(layer, base.low + delta.low, base.high + delta.high),
        reach(layer, base.low, base.high),
    )
    return _both(_both(centred, scaled), between(both[0] - alone[1], both[1] - alone[0]))


def _pooled(layer: Pool | GlobalMean, base: Range, delta: Range) -> Range:
    if not is_max(layer):
        mid, rad = (mean(layer, a) for a in delta)
        return Range(mid, rad * (1 + 1e-14) + 1e-14 * mean(layer, np.abs(delta.mid)))
    # max(u + delta) - max(u) is at least delta where u is largest, at most delta where u + delta is.
    below, above, lowest, highest = (
        windows(layer, a, -np.inf) for a in (base.low, base.high, delta.low, delta.high)
    )
    inside = np.isfinite(below)
    target = inside & (above >= below.max(0))
    sums = np.where(inside, above + highest, -np.inf), np.where(inside, below + lowest, -np.inf)
    slack = 8 * UNIT * (np.abs(sums[0], where=inside, out=np.zeros(below.shape)) + 1)
    ticket = inside & (sums[0] + slack >= sums[1].max(0))
    least = np.where(target, lowest, np.inf).min(0)
    most = np.where(ticket, highest, -np.inf).max(0)
    routed = between(np.minimum(least, most), np.maximum(least, most))
    # And it is no more than the distance between the two maxima.
    size = 4 * UNIT * (windows(layer, base.size, 0.0).max(0) + windows(layer, delta.size, 0.0).max(0))
    least = np.where(inside, below + lowest, -np.inf).max(0) - above.max(0) - size
    most = np.where(inside, above + highest, -np.inf).max(0) - below.max(0) + size
    return _both(routed, between(least, most))


def at(pair: Pair, x: Float[np.ndarray, "n *shape"]) -> tuple[list[Values], list[Values]]:
    """The target's values and delta at every place, for single inputs, without any bound of rounding."""
    u = values(pair, x)
    info, argument = info_of(pair.first.layer), pair.first.alpha * x[..., pair.first.input]
    straight = np.where(argument >= 0, info.mu_plus, info.mu_minus) * argument + info.offset
    remainder = evaluate(pair.first.layer, argument) - straight
    deltas = [np.where(pair.first.alpha == 0, 0.0, remainder)]
    for step in pair.steps:
        match step:
            case Sum(_, maps, carry, _, offset):
                y: np.ndarray = offset
                for one in maps:
                    y = y + correlate(one.layer, u[one.reads], one.error)
                    y = y + correlate(one.layer, deltas[one.reads], one.kept)
                if carry is not None:
                    y = y + carried(carry.stride, carry.ticket, deltas[carry.reads])
                deltas.append(y)
            case Pointwise(at, layer):
                base = pair.places[at].carried(u[at]) + pair.places[at].constant
                deltas.append(evaluate(layer, base + deltas[at]) - evaluate(layer, base))
            case Pooling(at, layer):
                if is_max(layer):
                    base = pair.places[at].carried(u[at]) + pair.places[at].constant
                    ticket, right = (pool(layer, a) for a in (base + deltas[at], base))
                    deltas.append(ticket - right)
                else:
                    deltas.append(mean(layer, deltas[at]))
            case Reshape(at, layer):
                deltas.append(flattened(layer, deltas[at]))
    return u, deltas
