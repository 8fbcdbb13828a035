r"""The outputs' difference as one linear form in everything that can go wrong, built backwards.

    delta_out = sum over nodes of  B (sum e u + offset)  +  remainders,

where B, the ticket's own backward map from a node's copies to the outputs, adds up the copies' weights with
their signs before any absolute value is taken. Behind an activation

    phi(u + delta) - phi(u) = s delta  for an s in [least, most],  so  s' delta +- (most - least) / 2 |delta|

with s' their middle: exact where a pre-activation keeps its sign, half of |delta| lost elsewhere. Where that
is no gain the term is put between the bounds that `slth.certificate.difference` has of it. What multiplies
the target's values u is carried on backwards too, through the target, or bounded at once: the better counts.

Source: this project. The backward form is that of CROWN (Zhang et al., NeurIPS 2018) and DeepPoly (Singh et
al., POPL 2019) for one network, here for the difference of two.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import gamma, is_max, moved_transposed, sizes_by_input, transposed
from slth.certificate.pair import Joined, Node, Pair, Place, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of, slopes
from slth.certificate.steps import Apply, Map, Range, Sum, between
from slth.nn.layers import Activation
from slth.nn.pooling import Flatten

Forms = Float[np.ndarray, "outputs *space channels"]
Array = np.ndarray
KEEP = 1.0
"""Linear forms are preferred to the bounds they would replace if their remainder is at most this share."""


def bounds(pair: Pair, values: Sequence[Range], deltas: Sequence[Range]) -> Float[np.ndarray, "n *outputs"]:
    """Bounds of |delta| at the outputs, never above those of ``deltas``.

    Args:
      values, deltas: ranges of the target's values and of the differences at every place.
    """
    last = deltas[-1].size
    tighter = []
    for i in range(len(last)):
        single = [[Range(*(a[i] for a in x)) for x in places] for places in (values, deltas)]
        tighter.append(_Backward(pair, *single).bound().reshape(last.shape[1:]))
    return np.minimum(last, np.stack(tighter))


class _Total:
    """A sum of bounded terms."""

    def __init__(self, count: int):
        self.mid, self.rad = np.zeros(count), np.zeros(count)

    def add(self, form: Forms, mid: Array | float, rad: Array | float) -> None:
        """Add a form in numbers within mid +- rad, entry by entry."""
        flat = form.reshape(len(form), -1)
        mid = np.broadcast_to(mid, form.shape[1:]).ravel()
        rad = np.broadcast_to(rad, form.shape[1:]).ravel()
        self.mid += flat @ mid
        self.rad += np.abs(flat) @ (rad + gamma(len(mid)) * (np.abs(mid) + rad)) * (1 + gamma(len(mid)))

    def round(self, form: Forms, x: Range, entry: Map, slack: float) -> None:
        """Add what a share ``slack`` of all products of weights and values can come to: their sizes, summed
        over all weights that read a value, times the largest coefficient of each form."""
        weights = sizes_by_input(entry.weight, entry.inputs, x.mid.shape[-1])
        products = (x.size.reshape(-1, len(weights)).sum(0) * weights).sum()
        self.rad += slack * np.abs(form).reshape(len(form), -1).max(1) * products


class _Side:
    """Forms in what one network has at the places still to be dealt with; the total of all other terms."""

    def __init__(self, values: list[Range], total: _Total):
        self.values, self.total = values, total
        self.forms: dict[int, Forms] = {}

    def add(self, place: int, form: Forms) -> None:
        """Add a form in the values of a place."""
        self.forms[place] = self.forms[place] + form if place in self.forms else form

    def before(self, step: Sum, form: Forms, total: _Total) -> Iterator[tuple[int, Forms]]:
        """A form in a sum as forms in what it reads; its bias, and what rounding can do, are counted."""
        total.add(form, step.bias, step.rounding)
        for entry in step.maps:
            x, kernel = self.values[entry.reads], entry.weight
            slack = 2 * gamma(math.prod(kernel.shape[:-2]) * kernel.shape[-1]) + gamma(0)
            total.round(form, x, entry, slack)
            yield entry.reads, transposed(entry.layer, form, kernel, x.mid.shape, entry.inputs)


class _Backward:
    """Forms in the differences and in the target's values, from the outputs back to the input."""

    def __init__(self, pair: Pair, values: list[Range], deltas: list[Range]):
        self.pair = pair
        shape = deltas[-1].mid.shape
        count = math.prod(shape)
        self.stopped = _Total(count)
        """What the target's values add, bounded where they arise; the target's side carries them on."""
        self.ticket, self.target = (_Side(ranges, _Total(count)) for ranges in (deltas, values))
        self.ticket.add(len(pair.steps), np.eye(count).reshape(count, *shape))

    def bound(self) -> Float[Array, " outputs"]:
        """|delta| at the outputs, after all steps."""
        for number in reversed(range(len(self.pair.steps))):
            self.step(number)
        for side in (self.ticket, self.target):
            for place, form in side.forms.items():
                side.total.add(form, *side.values[place])
        own = self.ticket.total
        through, stopped = (
            (np.abs(own.mid + other.mid) + own.rad + other.rad) * (1 + gamma(0))
            for other in (self.target.total, self.stopped)
        )
        return np.minimum(through, stopped)

    def step(self, number: int) -> None:
        """Forms behind a step become forms before it, and what the step itself adds is counted."""
        step, place = self.pair.steps[number], self.pair.places[number + 1]
        for side in (self.ticket, self.target):
            form = side.forms.pop(number + 1, None)
            if form is None:
                continue
            if isinstance(step, Univariate):
                side.total.add(form, *side.values[number + 1])
            elif isinstance(step, Joined):
                self.joined(step, side, form)
            elif isinstance(step, Apply):
                self.same(step, side, form, number + 1)
            elif side is self.ticket:
                self.node(step, place, form)
            else:
                for reads, before in side.before(step.target, form, side.total):
                    side.add(reads, before)

    def node(self, step: Node, place: Place, form: Forms) -> None:
        """A form in a sum's differences: what its weights miss, and the differences before it."""
        own = self.ticket.total
        for entry in step.target.maps:  # sums of kept weights and scaled weights are rounded themselves
            own.round(form, self.target.values[entry.reads], entry.of(place.owner[0]), gamma(0))
        for reads, before in self.target.before(step.missed, form, own):
            self.target.add(reads, before)
            self.stopped.add(before, *self.target.values[reads])
        for reads, before in self.ticket.before(step.kept, form, own):
            self.ticket.add(reads, before)

    def joined(self, step: Joined, side: _Side, form: Forms) -> None:
        """A form behind a concatenation."""
        reads = step.target.reads
        ends = np.cumsum([side.values[place].mid.shape[-1] for place in reads])
        if side is self.ticket:
            whole = np.zeros((*form.shape[:-1], ends[-1]))
            whole[..., step.channels] = form
            form = whole
        for place, part in zip(reads, np.split(form, ends[:-1], -1), strict=True):
            side.add(place, part)

    def same(self, step: Apply, side: _Side, form: Forms, behind: int) -> None:
        """A form behind a layer without parameters."""
        layer, values = step.layer, side.values
        if side is self.ticket:
            side.total.add(form, 0.0, step.rounding)
        if isinstance(layer, Activation):
            (self.difference if side is self.ticket else self.value)(layer, form, step.reads, behind)
        elif is_max(layer):
            side.total.add(form, *values[behind])
        else:
            side.add(step.reads, moved_transposed(layer, form, values[step.reads].mid.shape))
            if not isinstance(layer, Flatten):
                side.total.add(form, 0.0, 1e-13 * values[behind].size)

    def difference(self, layer: Activation, form: Forms, at: int, behind: int) -> None:
        """A form in the differences behind an activation, entry by entry as a form before it or as bounds."""
        base = self.pair.places[at].base(self.target.values[at])
        delta, after = self.ticket.values[at], self.ticket.values[behind]
        least, most = slopes(
            layer, base.low + np.minimum(delta.low, 0), base.high + np.maximum(delta.high, 0)
        )
        spread = (most - least) / 2 * delta.size
        linear = spread <= KEEP * after.rad
        slope = (least + most) / 2 * linear
        total = self.ticket.total
        total.add(form, np.where(linear, 0.0, after.mid), np.where(linear, spread, after.rad))
        total.add(form, 0.0, ROUNDING * np.abs(slope) * delta.size)
        self.ticket.add(at, form * slope)

    def value(self, layer: Activation, form: Forms, at: int, behind: int) -> None:
        """A form in the target's values behind an activation: a chord's slope, and what departs from it."""
        x, after = self.target.values[at], self.target.values[behind]
        ends = [evaluate(layer, a) for a in (x.low, x.high)]
        least, most = slopes(layer, x.low, x.high)
        width = x.high - x.low
        chord = np.divide(ends[1] - ends[0], width, out=(least + most) / 2, where=width > 1e-9)
        chord = np.clip(chord, least, most)
        middle = evaluate(layer, x.mid) - chord * x.mid
        smooth = Range(middle, np.maximum(most - chord, chord - least) * x.rad)
        if info_of(layer).homogeneous:  # two straight pieces: extremes at the ends and at 0
            corners = [end - chord * a for end, a in zip(ends, (x.low, x.high), strict=True)]
            corners.append(np.where((x.low < 0) & (x.high > 0), 0.0, corners[0]))
            smooth = between(np.minimum.reduce(corners), np.maximum.reduce(corners))
        linear = smooth.rad <= KEEP * after.rad
        rounding = ROUNDING * (np.abs(chord) * x.size + after.size)
        rad = np.where(linear, smooth.rad, after.rad) + rounding
        self.target.total.add(form, np.where(linear, smooth.mid, after.mid), rad)
        self.target.add(at, form * (chord * linear))
