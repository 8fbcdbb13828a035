"""What the specs of layers have in common."""

from dataclasses import field
from typing import Any

from jaxtyping import Array, Key

from slth.types import Params, Shape

LATER = "later"
"""Key in a field's metadata: see `later`."""


def later(default: Any) -> Any:
    """A field of a layer that older files do not have.

    Files hold it only where it differs from its default (`slth.nn.serial`), so that a layer gets a new field
    and every file written before it is read, and written, as it was.
    """
    return field(default=default, metadata={LATER: True})


def check_positive(layer: str, **values: tuple[int, ...] | int) -> None:
    """Refuse sizes below 1, naming the layer and the field."""
    for name, value in values.items():
        if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
            raise ValueError(f"{layer}: {name} must be at least 1, got {value}")


class Stateless:
    """A layer without parameters."""

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """No parameters."""
        return {}
