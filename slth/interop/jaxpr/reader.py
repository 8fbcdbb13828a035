"""A jaxpr, equation by equation: what depends on parameters alone is numbers, all else a network's steps."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from slth.interop.jaxpr.elementwise import GRID, PRIMITIVES, SAME_LINE, combined, recognised
from slth.interop.jaxpr.rules import RESHAPES, RULES
from slth.interop.jaxpr.steps import BATCH, NUMBER, REPEATED, REPEATS, Constant, Steps, Unread, Value
from slth.nn.layers import Activation, BatchNorm
from slth.nn.pooling import Pool

SUPPORTED = (
    "convolutions on one or two axes, matrix products, additions and concatenations of values, activations "
    "of slth.nn.ACTIVATIONS, maximum and mean pooling, flattening, every s-th position, every position "
    "several times, zeros as further channels, and constants added to or multiplied with each channel"
)


class Reader(Steps):
    """Reads equations into steps."""

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Constant | Value]) -> list[Any]:
        """The outputs of a jaxpr."""
        held: dict[Any, Constant | Value] = dict(zip(jaxpr.constvars, map(Constant, constants), strict=True))
        held |= zip(jaxpr.invars, inputs, strict=True)

        def read(atom: Any) -> Constant | Value:
            return Constant(atom.val) if isinstance(atom, core.Literal) else held[atom]

        for equation in jaxpr.eqns:
            try:
                outputs = self.equation(equation, [read(atom) for atom in equation.invars])
            except Unread as error:
                raise ValueError(
                    f"{equation.primitive.name} at {place(equation)}: {error}. What can be read: {SUPPORTED}"
                ) from error
            held |= zip(equation.outvars, outputs, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, terms: list[Any]) -> list[Any]:
        """The outputs of one equation."""
        name, values = equation.primitive.name, [term for term in terms if isinstance(term, Value)]
        if inner := _called(equation):
            terms = [self._settled(term, values) for term in terms]
            return self.run(inner.jaxpr, inner.consts, terms[len(terms) - len(inner.jaxpr.invars) :])
        if not values:
            found = equation.primitive.bind(*(term.value for term in terms), **equation.params)
            names = {term.name for term in terms if term.name is not None}
            of = names.pop() if len(names) == 1 else None
            return [Constant(one, of) for one in (found if equation.primitive.multiple_results else [found])]
        if name not in RESHAPES and any(REPEATED in value.axes for value in values):
            raise Unread(REPEATS)
        if name in PRIMITIVES:
            return [self.elementwise(equation, terms)]
        rule = RULES.get(name)
        if rule is None:
            raise Unread("is no step of a network that slth knows")
        return [rule(self, equation, *terms)]

    def _settled(self, term: Constant | Value, values: list[Value]) -> Constant | Value:
        """An activation that a function is called with is one, whatever the function makes of it."""
        if not isinstance(term, Value) or len(values) > 1 or term.expression.line:
            return term
        return (
            replace(term, node=self.close(term), expression=NUMBER) if recognised(term.expression) else term
        )

    def elementwise(self, equation: Any, terms: list[Any]) -> Value:
        """A function of each number; the sum of two values; a factor or shift for each channel."""
        name, values = equation.primitive.name, [term for term in terms if isinstance(term, Value)]
        first, shape = values[0], equation.outvars[0].aval.shape
        shapes = [
            atom.aval.shape
            for atom, term in zip(equation.invars, terms, strict=True)
            if isinstance(term, Value)
        ]
        several = any(value.node != first.node for value in values)
        if several and name == "select_n" and (found := self._parametric(terms)) is not None:
            return found
        if several and (name not in ("add", "add_any", "sub") or len(values) != 2):
            raise Unread(
                "combines two values otherwise than by adding them, as gates, squeeze-and-excitation and "
                "attention do: subset sums stand for weights, and in a product of two values there are none"
            )
        if any(value.axes != first.axes for value in values) or any(one != shape for one in shapes):
            raise Unread("combines values whose axes differ")
        if several:
            a, b = map(self.close, values)
            b = self.chart.affine(b, -1.0, 0.0) if name == "sub" else b
            return Value(self.chart.add((a, b), self.chart.nodes[a].shape), first.axes)
        numbers = [term if isinstance(term, Value) else _number(term.value) for term in terms]
        if all(number is not None for number in numbers):
            parts = tuple(one.expression if isinstance(one, Value) else one for one in numbers)
            return replace(first, expression=combined(equation, parts))
        if name == "select_n" and len(values) == 1:
            return RULES[name](self, equation, *terms)
        if len(terms) != 2 or len(values) != 1:
            raise Unread("has a constant that is not one number")
        constant = next(term for term in terms if isinstance(term, Constant))
        array = np.asarray(constant.value, np.float64)
        return self.by_channel(name, first, array, shape, terms[0] is first)

    def _parametric(self, terms: list[Any]) -> Value | None:
        """``where(x >= 0, x, a * x)`` with a slope for each channel, as a x + (1 - a) relu(x)."""
        if len(terms) != 3 or not all(isinstance(term, Value) for term in terms):
            return None
        which, *sides = terms
        if len({term.axes for term in terms}) > 1:
            return None
        chosen = np.asarray(which.expression.values(GRID))
        if chosen.dtype != bool:
            return None
        negative = (chosen == (GRID < 0))[GRID != 0]
        if negative.all():
            x, sloped = sides
        elif not negative.any():
            sloped, x = sides
        else:
            return None
        plain = all(term.expression.line == SAME_LINE for term in sides)
        slopes = self.chart.ratio(sloped.node, node := x.node) if plain and which.node == x.node else None
        if slopes is None:
            return None
        positive = self.chart.affine(self.chart.apply(Activation("relu"), node), 1 - slopes, 0.0)
        parts = (self.chart.affine(node, slopes, 0.0), positive)
        return Value(self.chart.add(parts, self.chart.nodes[node].shape), x.axes)

    def by_channel(self, name: str, value: Value, array: np.ndarray, shape: tuple, left: bool) -> Value:
        """A constant array added to a value or multiplied with it."""
        node = self.close(value)
        if name == "div" and left and (counted := self._counted(node, value, array, shape)) is not None:
            return Value(counted, value.axes)
        each = _per_channel(array, value.axes, shape, len(self.chart.nodes[node].shape))
        match name, left:
            case (("add" | "add_any"), _):
                scale, shift = 1.0, each
            case "sub", _:
                scale, shift = (1.0, -each) if left else (-1.0, each)
            case "mul", _:
                scale, shift = each, 0.0
            case "div", True:
                scale, shift = 1 / each, 0.0
            case _:
                raise Unread("has a constant that is not one number")
        return Value(self.chart.affine(node, scale, shift), value.axes)

    def _counted(self, node: int, value: Value, array: np.ndarray, shape: tuple) -> int | None:
        """Sums of windows divided by the number of their true entries: a mean."""
        scaled = self.chart.nodes[node]
        inner = self.chart.nodes[scaled.reads[0]] if isinstance(scaled.layer, BatchNorm) else None
        if inner is None or not isinstance(inner.layer, Pool) or inner.layer.kind != "mean":
            return None
        mean = replace(inner.layer, count_padding=False)
        entries = np.asarray(mean.divisors(self.chart.nodes[inner.reads[0]].shape))
        order = [BATCH, *range(len(inner.shape))]
        if sorted(axis for axis in value.axes if axis is not None) != sorted(order) or None in value.axes:
            return None
        arranged = np.broadcast_to(array, shape).transpose([value.axes.index(axis) for axis in order])
        same = (arranged == np.broadcast_to(entries, arranged.shape)).all()
        window = math.prod(mean.window)
        if not same or not (scaled.params["scale"] == window).all() or scaled.params["bias"].any():
            return None
        return self.chart.apply(mean, inner.reads[0])


def _called(equation: Any) -> Any:
    """The function that an equation calls as it is."""
    if equation.primitive.name in ("scan", "while", "cond"):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if isinstance(inner, core.ClosedJaxpr):
            return inner
        if isinstance(inner, core.Jaxpr):
            return core.ClosedJaxpr(inner, ())
    return None


def _number(array: Any) -> Any:
    """The one number that a constant holds."""
    array = np.asarray(array)
    return array.reshape(-1)[0] if array.size and (array == array.reshape(-1)[0]).all() else None


def _per_channel(array: np.ndarray, axes: tuple, shape: tuple, rank: int) -> np.ndarray:
    """A constant as one number for each channel."""
    whole = np.broadcast_to(array, shape)
    if rank - 1 not in axes:
        raise Unread("has a constant for a value whose channels are gone")
    channel = axes.index(rank - 1)
    each = np.moveaxis(whole, channel, 0).reshape(shape[channel], -1)
    if (each != each[:, :1]).any():
        raise Unread("has a constant that differs from place to place, and only one for each channel is read")
    return each[:, 0]


def place(equation: Any) -> str:
    """The line of a program that an equation comes from: the innermost that is not of JAX or on top of it."""
    frames = getattr(equation.source_info.traceback, "frames", None) or []
    libraries = ("/jax/", "/jaxlib/", "/flax/", "/equinox/", "/haiku/", "/slth/interop/jaxpr/", "/jaxtyping/")
    own = [frame for frame in frames if not any(part in frame.file_name for part in libraries)]
    found = (own or frames)[:1]
    return f"{found[0].file_name}:{found[0].line_num}" if found else "an unknown line"
