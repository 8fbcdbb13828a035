r"""The difference of ticket and target, place by place: by absolute values (Theorem 1), or with its signs.

With signs, for target values within m_u +- r_u and errors e of the weights, kept weights v,

    mid' = sum e m_u + offset + sum v mid,      rad' = |e| * r_u + |v| * rad.

At an activation, for u in its range and delta within mid +- rad,

    phi(u + delta) - phi(u)  lies in  s delta,  s between the least and largest slope of phi over both, and in
    phi(m_u + mid) - phi(m_u)  +-  (spread of the slopes) r_u + (largest slope) rad;

the two intervals are intersected. Where a pre-activation keeps its sign this is exact, so that a small ball
around an image costs little more than the error at the image.

Theorem 1 is the same recursion with |mid| + rad in place of the two: xi = |sum e m_u + offset| + |e| * r_u +
|v| * E and E = (largest slope) * xi. Never the tighter one. Note |v|, not |sum v|: copies carry different
errors, and subsets of mixed signs amplify them. A carried skip has one weight v = 1 for each copy, and e = 0.

Source: this project; the recursion of Theorem 1 follows the proof of Burkholz, ICML 2022.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import UNIT, Values, gamma, is_max, windows
from slth.certificate.pair import Joined, Node, Pair, Place, Univariate, points
from slth.certificate.slopes import ROUNDING, evaluate, info_of, reach, slopes
from slth.certificate.steps import Fixed, Range, Sum, absolute, applied, between, summed
from slth.nn.layers import Activation
from slth.nn.pooling import GlobalMax, Pool

CELLS = 1024
"""Arguments at which the remainder of a univariate layer's activation is tabulated."""
Summary = Float[np.ndarray, "4 n"]
"""For each of n sets of inputs: largest and mean bound of a copy, largest |u|, share of unstable copies."""


def propagate(pair: Pair, values: Sequence[Range], *, signed: bool) -> list[Range]:
    """Ranges of delta at every place; around 0 where signs are not kept.

    Args:
      values: ranges of the target's values at every place.
      signed: whether signs are kept.
    """
    deltas = [Range(*(np.zeros_like(values[0].mid) for _ in Range._fields))]
    for step, place in zip(pair.steps, pair.places[1:], strict=True):
        if isinstance(step, Node):
            delta = missed(step, place, values) + amplified(step.kept, deltas)
        elif isinstance(step, Joined):
            delta = step.of(deltas)
        else:
            base = pair.places[step.reads].base(values[step.reads])
            if isinstance(step, Univariate):
                delta = _departed(step, base + deltas[step.reads], signed=signed)
            else:
                delta = _after(step.layer, base, deltas[step.reads], signed=signed).widened(step.rounding)
        deltas.append(delta if signed else Range(np.zeros_like(delta.mid), delta.size))
    return deltas


def missed(step: Node, place: Place, values: Sequence[Range]) -> Range:
    """What the errors of the weights add to the copies, rounded outward."""
    delta = summed(step.missed, values)
    for entry in step.target.maps:  # scaled weights and sums of kept weights are themselves rounded
        weights = absolute(entry, values[entry.reads].size) * gamma(0)
        delta = delta.widened(weights[..., place.owner[0]])
    return delta


def amplified(kept: Sum, deltas: Sequence[Range]) -> Range:
    """What the kept weights make of the errors before them."""
    return summed(kept, deltas)


def _departed(step: Univariate, x: Range, *, signed: bool) -> Range:
    """What phi(alpha x) of the ticket's x departs from its two lines: at most r(|alpha| R); and with signs,
    that at the middle of x, and how much it can change over the range of x."""
    phi, alpha, index, rounding, *_ = step
    info = info_of(phi)
    shape = (*x.mid.shape[:-1], len(alpha))
    if info.homogeneous:
        return Range(np.zeros(shape), np.broadcast_to(rounding, shape))
    mid, rad = (a[..., index] for a in x)
    most = np.abs(alpha) * x.size[..., index]
    # r grows with its argument: its value at the upper end of a cell bounds it in the cell.
    ends = np.linspace(0, most.max(initial=0), CELLS + 1)
    table = np.array([info.remainder(float(end)) for end in ends])
    worst = table[np.searchsorted(ends, most)] * (1 + 1e-12) + rounding + 1e-15
    whole = Range(np.zeros(shape), worst)
    if not signed:
        return whole
    centre, straight = _departure(step, x.mid)
    ends = alpha * (mid - rad), alpha * (mid + rad)
    least, largest = slopes(phi, np.minimum(*ends), np.maximum(*ends))
    lines = min(info.mu_plus, info.mu_minus), max(info.mu_plus, info.mu_minus)
    steep = np.maximum(np.abs(largest - lines[0]), np.abs(least - lines[1]))
    rounded = ROUNDING * (np.abs(straight) + abs(info.offset) + 1e-3)
    return _both(Range(centre, steep * np.abs(alpha) * rad + rounded), whole)


def _departure(step: Univariate, x: Values) -> tuple[Values, Values]:
    """phi(alpha x) less phi(0) and the line on its side of 0, and what it is taken from."""
    info, argument = info_of(step.layer), step.alpha * x[..., step.input]
    straight = np.where(argument >= 0, info.mu_plus, info.mu_minus) * argument + info.offset
    return np.where(step.alpha == 0, 0.0, evaluate(step.layer, argument) - straight), straight


def _both(a: Range, b: Range) -> Range:
    """The intersection of two ranges that hold the same number."""
    low, high = np.maximum(a.low, b.low), np.minimum(a.high, b.high)
    low, high = np.minimum(low, high), np.maximum(low, high)  # apart by rounding alone
    cut = between(low, high)
    # An uncut range keeps its middle: no rounding where nothing changes.
    whole = (low <= a.low) & (high >= a.high)
    return Range(np.where(whole, a.mid, cut.mid), np.where(whole, a.rad, cut.rad + 8 * UNIT * a.size))


def _after(layer: Fixed, base: Range, delta: Range, *, signed: bool) -> Range:
    """delta behind a layer without parameters."""
    if isinstance(layer, Activation):
        return (_activated if signed else _steepest)(layer, base, delta)
    return _largest(layer, base, delta) if signed and is_max(layer) else applied(layer, delta)


def _steepest(layer: Activation, base: Range, delta: Range) -> Range:
    """The largest slope times the size of delta, or the width of phi's range."""
    low, high = base.low - delta.size, base.high + delta.size
    least, most = slopes(layer, low, high)
    below, above = reach(layer, low, high)
    size = np.minimum(np.maximum(np.abs(least), np.abs(most)) * delta.size, above - below)
    return Range(np.zeros_like(size), size * (1 + gamma(0)))


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
    both = reach(layer, base.low + delta.low, base.high + delta.high)
    alone = reach(layer, base.low, base.high)
    return _both(_both(centred, scaled), between(both[0] - alone[1], both[1] - alone[0]))


def _largest(layer: Pool | GlobalMax, base: Range, delta: Range) -> Range:
    """max(u + delta) - max(u): at least delta where u is largest, at most delta where u + delta is."""
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
    least = sums[1].max(0) - above.max(0) - size
    most = sums[0].max(0) - below.max(0) + size
    return _both(routed, between(least, most))


def at(pair: Pair, images: Values) -> tuple[list[Values], list[Values]]:
    """The target's values and delta at every place, for single inputs, without any bound of rounding."""
    values = points(pair, images)
    deltas = [np.zeros_like(values[0])]
    for step in pair.steps:
        if isinstance(step, Node):
            deltas.append(summed(step.missed, values) + summed(step.kept, deltas))
            continue
        if isinstance(step, Joined):
            deltas.append(step.of(deltas))
            continue
        place, delta = pair.places[step.reads], deltas[step.reads]
        base = place.carried(values[step.reads]) + place.constant
        if isinstance(step, Univariate):
            deltas.append(_departure(step, base + delta)[0])
        else:
            deltas.append(applied(step.layer, base + delta) - applied(step.layer, base))
    return values, deltas


def summaries(pair: Pair, values: Sequence[Range], deltas: Sequence[Range]) -> dict[str, Summary]:
    """What is known of the copies of each node, by path."""
    return {
        step.target.path: _summary(pair.places[number], values[number], deltas[number].size)
        for number, step in enumerate(pair.steps, start=1)
        if isinstance(step, Node) and step.target.path  # none: x+ and x- of a univariate layer
    }


def _summary(place: Place, x: Range, error: Values) -> Summary:
    n, owned = len(error), place.owned
    if not owned.any():
        return np.zeros((4, n))
    copies = error[..., owned]
    owner = place.owner[0][owned]
    unstable = np.abs(x.mid)[..., owner] <= x.rad[..., owner] + copies
    bound, size, share = (a.reshape(n, -1) for a in (copies, x.size, unstable))
    return np.stack([bound.max(1), bound.mean(1), size.max(1), share.mean(1)])
