"""What an ONNX file says, in plain values: nodes with their attributes, constants, one input, one output."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from slth.types import Shape

PRODUCT = (
    "it multiplies or divides values that the network computes, as squeeze-and-excitation, attention and "
    "gates do: subset sums stand for weights, and in a product of two values there are none"
)
NORM = "it normalises by statistics of the input, and subset sums stand for fixed weights"
REASONS = {
    **dict.fromkeys(("Attention", "MultiHeadAttention", "Einsum"), PRODUCT),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN", "LpNormalization"), NORM
    ),
    **dict.fromkeys(("RMSNormalization", "MeanVarianceNormalization", "SkipLayerNormalization"), NORM),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Scan", "Loop", "If"), "it is run as often as its input says"),
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear"),
        "it rounds what the network computes: export the network before it was quantised",
    ),
}
"""Why operators are not read that slth will not have, by name."""


class Refused(ValueError):
    """What cannot be read, in one line; the file's name is put in front of it."""


class WrongLayout(Refused):
    """The axes of the input were taken for others than they are."""


@dataclass(frozen=True)
class Node:
    """One operation of the file."""

    op: str
    name: str
    inputs: tuple[str, ...]
    """Names of tensors; an optional one that is left out is empty."""
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    batch: int | None
    """Size of the batch axis, where the file fixes it."""

    def __str__(self) -> str:
        return f"{self.op} {(self.name or (self.outputs or ('',))[0])!r}"

    def refused(self, why: str) -> Refused:
        """The refusal of this node."""
        return Refused(f"{self}: {why}")

    def wrong_layout(self, why: str) -> WrongLayout:
        """The refusal of this node if its input's axes are what they are taken for."""
        return WrongLayout(f"{self}: {why}")

    def _given(self, name: str, kind: type, what: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        if value is not default and type(value) is not kind:
            raise self.refused(f"attribute {name}: expected {what}, got {str(value)[:40]!r}")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is one integer."""
        return self._given(name, int, "an integer", default)

    def integers(self, name: str, default: Shape | None = None) -> Shape | None:
        """An attribute that is a list of integers."""
        return self._given(name, tuple, "integers", default)

    def number(self, name: str, default: float) -> float:
        """An attribute that is one finite number, in the fewest digits of 32 bits: 0.1, not 0.100000001."""
        value = self._given(name, float, "a number", default)
        if not np.isfinite(value):
            raise self.refused(f"attribute {name} is {value}")
        return float(str(np.float32(value)))

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        return self._given(name, str, "a word", default)


@dataclass(frozen=True)
class Model:
    """One network of a file."""

    nodes: tuple[Node, ...]
    """Those that the output depends on, each after what it reads."""
    constants: dict[str, np.ndarray]
    input: str
    input_sizes: Shape
    """Without the batch axis."""
    output: str
    output_sizes: tuple[int | None, ...] | None
    """Without the batch axis, where the file says them; None for an axis that it leaves open."""
    budget: int
    """Numbers that constants may have altogether when constant nodes are computed."""
