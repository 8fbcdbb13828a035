"""What the specs of layers have in common."""

from dataclasses import field
from typing import Any

from jaxtyping import Array, Key

from slth.types import Pairs, Params, Shape

LATER = "later"
"""Key in a field's metadata: see `later`."""


def later(default: Any) -> Any:
    """A field of a layer that older files do not have.

    Files hold it only where it differs from its default (`slth.nn.serial`), so that a layer gets a new field
    and every file written before it is read, and written, as it was.
    """
    return field(default=default, metadata={LATER: True})


def check_positive(name: str, layer: Any, *names: str) -> None:
    """Refuse sizes below 1 in the named fields of a layer, by the layer's name and the field's."""
    for field_name in names:
        value = getattr(layer, field_name)
        if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
            raise ValueError(f"{name}: {field_name} must be at least 1, got {value}")


def positions(size: Shape, taps: Shape, stride: Shape, padding: Pairs, dilation: Shape) -> Shape:
    """How often a window fits into a padded input on each axis: (I + a + b - d (R - 1) - 1) // s + 1."""
    axes = zip(size, taps, stride, padding, dilation, strict=True)
    return tuple((i + sum(pair) - d * (r - 1) - 1) // s + 1 for i, r, s, pair, d in axes)


class Stateless:
    """A layer without parameters."""

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """No parameters."""
        return {}


class SameShape:
    """A layer whose output has the shape of its input."""

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape
