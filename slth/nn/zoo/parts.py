"""What builders of several families share."""

from slth.nn.convolution import same_padding
from slth.nn.layers import Activation, BatchNorm, Conv, Layer


def conv(name: str, features: int, taps: int = 3, stride: int = 1, groups: int = 1) -> Conv:
    """A convolution in front of a batch norm: without bias, padded so that stride 1 keeps the size."""
    kernel = (taps, taps)
    return Conv(name, features, kernel, (stride, stride), same_padding(kernel), use_bias=False, groups=groups)


def normalised(layer: Conv, norm: str, act: Activation) -> tuple[Layer, ...]:
    """A convolution, its batch norm and an activation."""
    return layer, BatchNorm(norm), act
