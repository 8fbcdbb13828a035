"""Functions of one number, put together from primitives, and which activation of the table they are.

``x * logistic(x)``, ``jax.nn.silu(x)`` and a call of any library's ``swish`` are one function. So it is not a
name that decides but the values on a grid.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from slth.nn.activations import ACTIVATIONS, activation_info
from slth.nn.layers import Activation

ARITHMETIC = ("add", "add_any", "sub", "mul", "div", "neg")
SAME = ("convert_element_type", "copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision")
PRIMITIVES = frozenset(
    (
        *(*ARITHMETIC, *SAME, "abs", "sign", "square", "sqrt", "rsqrt", "cbrt", "integer_pow", "pow", "exp"),
        *("exp2", "expm1", "log", "log1p", "logistic", "tanh", "erf", "erfc", "sin", "cos", "tan", "asin"),
        *("acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh", "atanh", "max", "min", "clamp"),
        *("select_n", "gt", "lt", "ge", "le", "eq", "ne", "and", "or", "not", "xor", "is_finite", "round"),
        *("floor", "ceil"),
    )
)
"""Primitives of JAX that treat each number by itself."""

_FAR = np.array([12.5, 15.0, 20.0, 30.0, 50.0, 100.0, 1000.0])
GRID = np.concatenate([-_FAR[::-1], np.linspace(-12, 12, 4801), _FAR]).astype(np.float32)
"""Where functions are compared."""
NEAR = 1e-5
"""Largest distance on the grid, absolute or relative, of what counts as the same function."""


class Line(NamedTuple):
    """``slope * x + shift``."""

    slope: float
    shift: float


SAME_LINE = Line(1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Expression:
    """A function of one number: the number itself, or a primitive of other such functions and constants."""

    line: Line | None = SAME_LINE
    """What it is, if a line."""
    equation: Any = None
    terms: tuple[Any, ...] = ()

    def values(self, x: np.ndarray) -> Any:
        """The function's values."""
        if self.equation is None:
            return jnp.asarray(x)
        terms = [
            term.values(x) if isinstance(term, Expression) else jnp.full(x.shape, term) for term in self.terms
        ]
        # In float32 throughout, so that the precision of the function decides nothing.
        terms = [one.astype(jnp.float32) if jnp.issubdtype(one.dtype, jnp.floating) else one for one in terms]
        name, options = self.equation.primitive.name, self.equation.params
        if name == "clamp":
            return jnp.clip(terms[1], terms[0], terms[2])
        if name in SAME and jnp.issubdtype(self.equation.outvars[0].aval.dtype, jnp.floating):
            return terms[0].astype(jnp.float32)
        return self.equation.primitive.bind(*terms, **options)

    def lines(self) -> list[Line]:
        """The lines through which it reads its number; the number itself first."""
        own = [self.line] if self.line is not None else []
        inner = [line for term in self.terms if isinstance(term, Expression) for line in term.lines()]
        return [line for line in dict.fromkeys([SAME_LINE, *own, *inner]) if line.slope]


NUMBER = Expression()


def combined(equation: Any, terms: tuple[Any, ...]) -> Expression:
    """A primitive of expressions and constants, each constant one number."""
    return Expression(_line(equation.primitive.name, terms), equation, terms)


def _line(name: str, terms: tuple[Any, ...]) -> Line | None:
    read = (term.line if isinstance(term, Expression) else Line(0.0, float(term)) for term in terms)
    lines = [line for line in read if line is not None]
    if len(lines) < len(terms):
        return None
    match name, lines:
        case (("add" | "add_any"), [a, b]):
            return Line(a.slope + b.slope, a.shift + b.shift)
        case "sub", [a, b]:
            return Line(a.slope - b.slope, a.shift - b.shift)
        case "mul", [a, b] if not (a.slope and b.slope):
            return Line(a.slope * b.shift + b.slope * a.shift, a.shift * b.shift)
        case "div", [a, b] if not b.slope and b.shift:
            return Line(a.slope / b.shift, a.shift / b.shift)
        case "neg", [a]:
            return Line(-a.slope, -a.shift)
        case _, [a] if name in SAME:
            return a
    return None


class Read(NamedTuple):
    """An activation, with a line before it and one behind it."""

    before: Line
    activation: Activation
    behind: Line


def recognised(expression: Expression) -> Read | None:
    """Which activation of the table an expression is, up to lines; None where it is none of them."""
    for line in expression.lines():
        activation = _activation(expression, line)
        if activation:
            return Read(line, activation, SAME_LINE)
    inner = [term for term in expression.terms if isinstance(term, Expression)]
    if expression.equation is None or len(inner) != 1:
        return None
    # A line of something: what is inside may be an activation.
    around = _line(
        expression.equation.primitive.name, tuple(NUMBER if t is inner[0] else t for t in expression.terms)
    )
    found = recognised(inner[0]) if around else None
    if found is None or around is None:
        return None
    a, b = around, found.behind
    return found._replace(behind=Line(a.slope * b.slope, a.slope * b.shift + a.shift))


def _activation(expression: Expression, line: Line) -> Activation | None:
    """The activation phi with expression(x) = phi(line(x)) on the grid."""
    places = ((GRID - line.shift) / line.slope).astype(np.float32)
    values = expression.values(places)
    if values.dtype == bool:
        return None
    wanted = np.asarray(values, np.float64)
    low = np.interp([-8.0, -4.0], GRID, wanted)
    slope = float(np.float32((low[1] - low[0]) / 4))
    for kind in ACTIVATIONS:
        if kind == "identity" or (
            kind == "leaky_relu" and not (np.isfinite(slope) and abs(slope + 1) > NEAR)
        ):
            continue
        slope_of = slope if kind == "leaky_relu" else 0.01
        if distance(kind, slope_of, wanted) <= NEAR:
            return Activation(kind, slope_of)
    return None


def distance(kind: str, slope: float, wanted: np.ndarray) -> float:
    """Largest difference on the grid, relative where values are large."""
    values = np.asarray(activation_info(kind, slope).phi(jnp.asarray(GRID)), np.float64)
    return float(np.max(np.abs(values - wanted) / np.maximum(1, np.abs(values)), initial=0.0))


def nearest(expression: Expression) -> str:
    """The activation that an unknown function is most like, for a message."""
    wanted = np.asarray(expression.values(GRID), np.float64)
    found = {kind: distance(kind, 0.01, wanted) for kind in ACTIVATIONS}
    kind = min(found, key=lambda name: found[name] if np.isfinite(found[name]) else np.inf)
    return f"{kind}, {found[kind]:.1g} away"
