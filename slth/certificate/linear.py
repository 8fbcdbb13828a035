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

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import UNIT, gamma, is_max, mean_transposed, transposed
from slth.certificate.interval import based
from slth.certificate.moves import carried_transposed, flattened_transposed
from slth.certificate.pair import Carry, Map, Pair, Pointwise, Sum
from slth.certificate.reach import Range, between
from slth.certificate.slopes import ROUNDING, evaluate, info_of, slopes
from slth.nn.layers import Activation
from slth.nn.pooling import Flatten

Forms = Float[np.ndarray, "outputs *space channels"]
Array = np.ndarray
KEEP = 1.0
"""Linear forms are preferred to the bounds they would replace if their remainder is at most this share."""


def bounds(pair: Pair, ranges: list[Range], deltas: list[Range]) -> Float[np.ndarray, "n *outputs"]:
    """Bounds of |delta| at the outputs, never above those of ``deltas``.

    Args:
      ranges, deltas: of the target's values and of the differences at every place.
    """
    last = deltas[-1].size
    found = []
    for i in range(len(last)):
        one = [[Range(*(a[i] for a in x)) for x in places] for places in (ranges, deltas)]
        backward = _Backward(pair, *one)
        for number in reversed(range(len(pair.steps))):
            backward.step(number)
        found.append(backward.bound().reshape(last.shape[1:]))
    return np.minimum(last, np.stack(found))


class _Total:
    """A sum of bounded terms."""

    def __init__(self, count: int):
        self.mid, self.rad = np.zeros(count), np.zeros(count)

    def add(self, form: Forms, mid: Array, rad: Array | float) -> None:
        """Add a form in numbers within mid +- rad, entry by entry."""
        flat = form.reshape(len(form), -1)
        mid = np.broadcast_to(mid, form.shape[1:]).ravel()
        rad = np.broadcast_to(rad, form.shape[1:]).ravel()
        self.mid += flat @ mid
        self.rad += np.abs(flat) @ (rad + gamma(len(mid)) * (np.abs(mid) + rad)) * (1 + gamma(len(mid)))


class _Backward:
    """Forms in the differences and the target's values at the places still to be dealt with, and totals."""

    def __init__(self, pair: Pair, ranges: list[Range], deltas: list[Range]):
        self.pair, self.ranges, self.deltas = pair, ranges, deltas
        shape = deltas[-1].mid.shape
        count = math.prod(shape)
        self.ticket: dict[int, Forms] = {len(pair.places) - 1: np.eye(count).reshape(count, *shape)}
        self.target: dict[int, Forms] = {}
        self.own = _Total(count)
        self.through, self.stopped = _Total(count), _Total(count)
        """What the target's values add, carried on to the input or bounded where they arise."""

    def bound(self) -> Float[Array, " outputs"]:
        """|delta| at the outputs."""
        for forms, places, total in (
            (self.ticket, self.deltas, self.own),
            (self.target, self.ranges, self.through),
        ):
            for place, form in forms.items():
                total.add(form, places[place].mid, places[place].rad)
        return np.minimum(
            *(
                (np.abs(self.own.mid + other.mid) + self.own.rad + other.rad) * (1 + gamma(0))
                for other in (self.through, self.stopped)
            )
        )

    def step(self, number: int) -> None:
        """Forms behind a step become forms before it, and what the step itself adds is counted."""
        step, behind = self.pair.steps[number], number + 1
        ticket, target = self.ticket.pop(behind, None), self.target.pop(behind, None)
        if isinstance(step, Sum):
            if ticket is not None:
                self.missed(step, ticket, behind)
            if target is not None:
                self.wanted(step, target)
            return
        at = step.reads
        if isinstance(step, Pointwise):
            if ticket is not None:
                self.own.add(ticket, np.zeros(1), step.rounding)
                self.difference(step.layer, ticket, at, behind)
            if target is not None:
                self.value(step.layer, target, at, behind)
            return
        for forms, form, values, total, rounding in (
            (self.ticket, ticket, self.deltas, self.own, getattr(step, "rounding", 0.0)),
            (self.target, target, self.ranges, self.through, 0.0),
        ):
            if form is None:
                continue
            shape = values[at].mid.shape
            if isinstance(step.layer, Flatten):
                _add(forms, at, flattened_transposed(step.layer, form, shape))
            elif not is_max(step.layer):
                _add(forms, at, mean_transposed(step.layer, form, shape))
                total.add(form, np.zeros(1), 1e-13 * values[behind].size + rounding)
            else:
                total.add(form, *values[behind])

    def missed(self, step: Sum, form: Forms, behind: int) -> None:
        """A form in a sum's differences: their own sources, and those before the maps."""
        self.own.add(form, step.offset, step.rounding)
        owner = self.pair.places[behind].owner[0]
        for one in step.maps:
            x = self.ranges[one.reads]
            # Sums of kept weights and scaled weights are rounded themselves.
            self.own.rad += gamma(0) * _largest(form) * _reached(np.abs(one.wanted[..., owner]), x)
            before = self.mapped(one, form, one.error, x, self.own)
            _add(self.target, one.reads, before)
            self.stopped.add(before, *x)
            delta = self.deltas[one.reads]
            _add(self.ticket, one.reads, self.mapped(one, form, one.kept, delta, self.own))
        self.skipped(step.carry, form, self.ticket)

    def wanted(self, step: Sum, form: Forms) -> None:
        """A form in a sum's target values: its bias, and the values before the maps."""
        self.through.add(form, step.bias, 8 * UNIT * np.abs(step.bias))
        for one in step.maps:
            x = self.ranges[one.reads]
            self.through.rad += gamma(0) * _largest(form) * _reached(np.abs(one.wanted), x)
            _add(self.target, one.reads, self.mapped(one, form, one.wanted, x, self.through))
        self.skipped(step.carry, form, self.target)

    def skipped(self, carry: Carry | None, form: Forms, forms: dict[int, Forms]) -> None:
        """What a carried skip contributes to the forms at its beginning."""
        if carry is not None:
            ticket = forms is self.ticket
            shape = (self.deltas if ticket else self.ranges)[carry.reads].mid.shape
            channels = carry.ticket if ticket else carry.target
            _add(forms, carry.reads, carried_transposed(carry.stride, channels, form, shape))

    def mapped(self, one: Map, form: Forms, kernel: Array, x: Range, total: _Total) -> Forms:
        """A form before a linear map; what the rounding of its coefficients can do is counted."""
        slack = 2 * gamma(math.prod(kernel.shape[:-2]) * kernel.shape[-1])
        total.rad += slack * _largest(form) * _reached(np.abs(kernel), x)
        return transposed(one.layer, form, kernel, x.mid.shape)

    def difference(self, layer: Activation, form: Forms, at: int, behind: int) -> None:
        """A form in the differences behind an activation, entry by entry as a form before it or as bounds."""
        base, delta, after = (
            based(self.pair.places[at], self.ranges[at]),
            self.deltas[at],
            self.deltas[behind],
        )
        least, most = slopes(
            layer, base.low + np.minimum(delta.low, 0), base.high + np.maximum(delta.high, 0)
        )
        spread = (most - least) / 2 * delta.size
        kept = spread <= KEEP * after.rad
        slope = (least + most) / 2 * kept
        self.own.add(form, np.where(kept, 0.0, after.mid), np.where(kept, spread, after.rad))
        self.own.add(form, np.zeros(1), ROUNDING * np.abs(slope) * delta.size)
        _add(self.ticket, at, form * slope)

    def value(self, layer: Activation, form: Forms, at: int, behind: int) -> None:
        """A form in the target's values behind an activation: a chord's slope, and what departs from it."""
        x, after = self.ranges[at], self.ranges[behind]
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
        kept = smooth.rad <= KEEP * after.rad
        rounding = ROUNDING * (np.abs(chord) * x.size + after.size)
        self.through.add(
            form, np.where(kept, smooth.mid, after.mid), np.where(kept, smooth.rad, after.rad) + rounding
        )
        _add(self.target, at, form * (chord * kept))


def _add(forms: dict[int, Forms], place: int, form: Forms) -> None:
    forms[place] = forms[place] + form if place in forms else form


def _largest(form: Forms) -> Float[Array, " outputs"]:
    """The largest coefficient of each form."""
    return np.abs(form).reshape(len(form), -1).max(1)


def _reached(kernel: Float[Array, "*taps c out"], x: Range) -> float:
    """Sum over all values of their size times all weights that read them."""
    weights = kernel.reshape(-1, *kernel.shape[-2:]).sum((0, 2))
    return float((x.size.reshape(-1, len(weights)).sum(0) * weights).sum())
