"""The spec of a network: an input shape and a tuple of layers.

Target, source and ticket are all of this one kind: a static spec beside a nested dict of arrays.
"""

from dataclasses import dataclass

from slth.nn.layers import Layer, check_names, shape_after
from slth.types import Shape


@dataclass(frozen=True)
class Network:
    """A static, hashable network spec.

    Args:
      input_shape: shape of one example, channels last: ``(h, w, c)``, ``(length, c)`` or ``(features,)``.
      layers: the layers in their order; residual blocks nest.
    Raises: ValueError where a length is below 1, where two layers do not fit together, naming the layer and
      the shape it got, or where two layers of one sequence have the same name.

    Example:
      >>> from slth import nn
      >>> layers = (nn.Conv("conv1", 8, (3, 3)), nn.Activation("relu"), nn.Flatten(), nn.Dense("fc", 10))
      >>> nn.Network((8, 8, 1), layers).output_shape
      (10,)
      >>> nn.Network((8, 8, 1), (nn.Dense("fc", 10),))
      Traceback (most recent call last):
      ValueError: fc: a dense layer reads flat features, got (8, 8, 1): put Flatten before it
    """

    input_shape: Shape
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(f"network: input_shape must have lengths of at least 1, got {self.input_shape}")
        check_names(self.layers)
        _ = self.output_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output."""
        return shape_after(self.layers, self.input_shape)
