r"""Target and ticket as one list of steps: what each source channel should hold, and how its weights miss.

At every place of the network source channel c holds

    z_c(p) = sum_k gain[k, c] u_{owner[k, c]}(p) + constant_c(p) + delta_c(p)

with u the target's values, scaled so that copies need no gain (`slth.construction.balance`), and delta the
error that certificates are about. Behind a linear map with kept weights v, with v~ their sums over the copies
of each input, and with the target's weights w and bias b,

    delta_c' = sum_j (v~ - w)_jc' u_j + (sum of the constants - b)_c' + sum_c v_cc' delta_c.

Place 0 is what the first layer reads: the input, or what the target's leading layers make of it. Where a
univariate layer reads x (place 0 in L + 1, the input of every linear layer in 2L), phi(alpha x) is phi(0),
plus a multiple of x alone where no such number is negative, else of x+ = max(x, 0) and of x- = max(-x, 0),
plus what phi departs from these lines. All channels of an input share its error: the layer behind passes on
that of x (or of x+ and x-) with the sums v~, and delta of the channels themselves is the departure alone,
which is 0 where phi is positively homogeneous.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.certificate.arithmetic import Values
from slth.certificate.steps import (
    Apply,
    Fixed,
    Join,
    Range,
    Step,
    Sum,
    X,
    behind,
    between,
    follow,
    joined,
    led,
)
from slth.nn.layers import Activation
from slth.types import Shape

MARGIN = 1e-9
"""By how much, relative to a place's largest value, values at single images are widened: far more
than float64 rounding does to them, which intervals could not follow through a deep network."""


class Place(NamedTuple):
    """One point of the network: what the ticket's channels stand for.

    A channel of gain 0 carries no value of the target, only its constant; that is 0 for all copies.
    """

    shape: Shape
    """Of the target's values."""
    owner: Int[np.ndarray, "k channels"]
    gain: Float[np.ndarray, "k channels"]
    constant: Float[np.ndarray, "*space channels"]

    @property
    def owned(self) -> Bool[np.ndarray, " channels"]:
        """Which channels carry a value of the target."""
        return (self.gain != 0).any(0)

    def carried(self, values: Float[np.ndarray, "... references"]) -> Float[np.ndarray, "... channels"]:
        """For copies (gain 1) the target's value they stand for; 0 for constants."""
        values = values[..., self.owner[0]]
        return values if self.owned.all() else values * self.owned

    def base(self, x: Range) -> Range:
        """Ranges of what each channel should hold: a value of the target, or its constant."""
        return Range(self.carried(x.mid) + self.constant, self.carried(x.rad))


class Node(NamedTuple):
    """A sum in both: delta behind it is ``missed`` of the target's values plus ``kept`` of delta."""

    target: Sum
    missed: Sum
    """v~ - w, and by how much constants miss the bias; zero for a channel that carries no value."""
    kept: Sum
    """The ticket's weights v, without any bias."""


class Univariate(NamedTuple):
    """A univariate layer: channel c is phi(alpha_c x_input), or a constant where alpha is 0."""

    layer: Activation
    alpha: Float[np.ndarray, " channels"]
    input: Int[np.ndarray, " channels"]
    """By channel, that of the ticket at the place of x."""
    rounding: Float[np.ndarray, " channels"]
    reads: int
    """The place of x."""
    lines: int
    """The place of x+ and x-, or again of x."""

    @property
    def target(self) -> Apply:
        """The target's values stay what they are."""
        return Apply(Activation("identity"), self.lines)


class Joined(NamedTuple):
    """A concatenation in both, of whose channels the ticket keeps some."""

    target: Join
    channels: Int[np.ndarray, " channels"]
    """By channel, the number of the ticket's before."""

    def of(self, deltas: Sequence[X]) -> X:
        """What the ticket's channels have, from that of every place before."""
        before = joined([deltas[place] for place in self.target.reads])
        if isinstance(before, Range):
            return Range(*(a[..., self.channels] for a in before))
        return before[..., self.channels]


class Pair(NamedTuple):
    """Target and ticket; step i leads to place i + 1."""

    lead: tuple[Fixed, ...]
    """Leading layers, which stand before place 0."""
    places: tuple[Place, ...]
    steps: tuple[Node | Univariate | Joined | Apply, ...]
    """A layer without parameters is the same in both."""
    factor: float
    """lambda."""

    @property
    def target(self) -> tuple[Step, ...]:
        """The target's steps, scaled."""
        return tuple(step if isinstance(step, Apply) else step.target for step in self.steps)


def inputs(pair: Pair, low: Values, high: Values) -> Range:
    """Ranges at place 0 for inputs of the network between low and high."""
    return between(*behind(pair.lead, low, high))


def points(pair: Pair, images: Values) -> list[Values]:
    """The (scaled) target's values at every place, for images."""
    return follow(pair.target, led(pair.lead, images))


def hull(pair: Pair, images: Values, batch: int) -> list[Range]:
    """The smallest ranges that hold the values of all images at every place (n = 1), a `MARGIN` wider."""
    low, high = ([np.full(1, end)] * len(pair.places) for end in (np.inf, -np.inf))
    for start in range(0, len(images), batch):
        values = points(pair, images[start : start + batch])
        low = [np.minimum(a, x.min(0, keepdims=True)) for a, x in zip(low, values, strict=True)]
        high = [np.maximum(a, x.max(0, keepdims=True)) for a, x in zip(high, values, strict=True)]
    ranges = []
    for number, (a, b) in enumerate(zip(low, high, strict=True)):
        exact = number == 0 and not pair.lead  # the images themselves
        margin = 0.0 if exact else MARGIN * max(np.abs(a).max(), np.abs(b).max())
        ranges.append(between(a - margin, b + margin))
    return ranges
