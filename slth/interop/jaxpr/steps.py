"""Values on their way from a function's arrays to the steps of a network."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from slth.interop.jaxpr.chart import Chart
from slth.interop.jaxpr.elementwise import NUMBER, Expression, nearest, recognised

BATCH = -1
"""The label of the batch axis; the others are axes of one example with its channels last."""
REPEATED = -2
"""The label of an axis along which all numbers are the same."""
REPEATS = "repeats a value along an axis, as squeeze-and-excitation does for its product"


@dataclass(frozen=True)
class Constant:
    """Numbers that no image changes."""

    value: Any
    name: str | None = None
    """The parameter that it is made of."""


@dataclass(frozen=True)
class Value:
    """A step's value as an array, and a function of each of its numbers that is not a step yet."""

    node: int
    axes: tuple[int | None, ...]
    """For each axis of the array its label; None for one of length 1 that the value does not have."""
    expression: Expression = NUMBER


class Unread(ValueError):
    """An equation that is no step of a network."""


class Steps:
    """The steps that are read so far."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.closed: dict[tuple[int, Expression], int] = {}

    def close(self, value: Value) -> int:
        """The number of a value with its function of each number made a step, once for all that read it."""
        key = (value.node, value.expression)
        if key not in self.closed:
            self.closed[key] = self._step(value)
        return self.closed[key]

    def _step(self, value: Value) -> int:
        expression = value.expression
        if expression.line:
            return self.chart.affine(value.node, *expression.line)
        found = recognised(expression)
        if found is None:
            near = nearest(expression) if not _is_bool(expression) else "none"
            raise Unread(
                f"reads a function of numbers that is no known activation (nearest: {near}); make it known "
                "by slth.nn.register_activation(name, function), or use one of the table"
            )
        node = self.chart.affine(value.node, *found.before)
        return self.chart.affine(self.chart.apply(found.activation, node), *found.behind)


def _is_bool(expression: Expression) -> bool:
    return expression.values(np.zeros(1, np.float32)).dtype == bool
