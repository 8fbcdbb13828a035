"""Where the target's values lie over a domain, place by place: interval propagation, or what images reach."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import UNIT, correlate, gamma, is_max, mean, pool, terms
from slth.certificate.moves import carried, flattened
from slth.certificate.pair import Pair, Pointwise, Pooling, Reshape, Step, Sum
from slth.certificate.slopes import evaluate, reach

MARGIN = 1e-9
"""By how much, relative to a place's largest value, values at single images are widened: far more
than float64 rounding does to them, which intervals could not follow through a deep network."""


class Range(NamedTuple):
    """Values within ``mid`` +- ``rad``, entry by entry."""

    mid: Float[np.ndarray, "n *shape"]
    rad: Float[np.ndarray, "n *shape"]

    @property
    def low(self) -> Float[np.ndarray, "n *shape"]:
        """Lower ends."""
        return self.mid - self.rad

    @property
    def high(self) -> Float[np.ndarray, "n *shape"]:
        """Upper ends."""
        return self.mid + self.rad

    @property
    def size(self) -> Float[np.ndarray, "n *shape"]:
        """R, the largest magnitudes."""
        return np.abs(self.mid) + self.rad


def between(low: Float[np.ndarray, "n *shape"], high: Float[np.ndarray, "n *shape"]) -> Range:
    """The range from low to high, rounded outward."""
    mid = low / 2 + high / 2
    rad = np.maximum(high - mid, mid - low)
    return Range(mid, rad * (1 + 4 * UNIT))


def inputs(pair: Pair, low: Float[np.ndarray, "n *shape"], high: Float[np.ndarray, "n *shape"]) -> Range:
    """Ranges at place 0: of x, or of x+ and x- if inputs may be negative."""
    if pair.signed:
        low, high = (
            np.concatenate([np.maximum(a, 0.0), np.maximum(-b, 0.0)], -1)
            for a, b in ((low, high), (high, low))
        )
    return between(low, high)


def original(pair: Pair, start: Range) -> Range:
    """The range of x itself, from that at place 0."""
    if not pair.signed:
        return start
    (above, below), (most, least) = (np.split(a, 2, -1) for a in (start.low, start.high))
    return between(above - least, most - below)


def propagate(pair: Pair, start: Range) -> list[Range]:
    """Ranges of the (scaled) target's values at every place, by interval arithmetic rounded outward."""
    places = [start]
    for step in pair.steps:
        places.append(_after(step, places))
    return places


def _after(step: Step, places: list[Range]) -> Range:
    match step:
        case Sum(_, maps, carry, bias):
            mid: np.ndarray = bias
            rad: np.ndarray = 8 * UNIT * np.abs(bias)
            for layer, at, wanted in ((one.layer, one.reads, one.wanted) for one in maps):
                x, slack = places[at], gamma(terms(wanted))
                mid = mid + correlate(layer, x.mid, wanted)
                # gamma of every product, and as much again for the rounding of the scaled weights
                rad = rad + correlate(layer, x.rad + 2 * slack * x.size, np.abs(wanted)) * (1 + slack)
            if carry is not None:
                x = places[carry.reads]
                mid, rad = (
                    a + carried(carry.stride, carry.target, b) for a, b in ((mid, x.mid), (rad, x.rad))
                )
            return Range(mid, rad + 4 * UNIT * np.abs(mid))
        case Pointwise(at, layer):
            return between(*reach(layer, places[at].low, places[at].high))
        case Pooling(at, layer):
            x = places[at]
            if is_max(layer):
                return between(*(pool(layer, a) for a in (x.low, x.high)))
            mid, rad = (mean(layer, a) for a in x)
            return Range(mid, rad + 1e-14 * mean(layer, x.size))
        case Reshape(at, layer):
            return Range(*(flattened(layer, a) for a in places[at]))


def values(pair: Pair, x: Float[np.ndarray, "n *shape"]) -> list[Float[np.ndarray, "n *shape"]]:
    """The (scaled) target's values at every place, for single inputs."""
    places = [inputs(pair, x, x).mid]
    for step in pair.steps:
        match step:
            case Sum(_, maps, carry, bias):
                y: np.ndarray = bias
                for one in maps:
                    y = y + correlate(one.layer, places[one.reads], one.wanted)
                if carry is not None:
                    y = y + carried(carry.stride, carry.target, places[carry.reads])
                places.append(y)
            case Pointwise(at, layer):
                places.append(evaluate(layer, places[at]))
            case Pooling(at, layer):
                places.append(pool(layer, places[at]))
            case Reshape(at, layer):
                places.append(flattened(layer, places[at]))
    return places


def hull(pair: Pair, images: Float[np.ndarray, "n *shape"], batch: int) -> list[Range]:
    """The smallest ranges that hold the values of all images at every place (n = 1), a `MARGIN` wider."""
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    for start in range(0, len(images), batch):
        found = values(pair, images[start : start + batch])
        least, most = ([f(a, axis=0, keepdims=True) for a in found] for f in (np.min, np.max))
        low = least if not low else [np.minimum(a, b) for a, b in zip(low, least, strict=True)]
        high = most if not high else [np.maximum(a, b) for a, b in zip(high, most, strict=True)]
    ranges = []
    for number, (a, b) in enumerate(zip(low, high, strict=True)):
        margin = MARGIN * max(np.abs(a).max(), np.abs(b).max()) * (number > 0)
        ranges.append(between(a - margin, b + margin))
    return ranges
