"""Networks of depthwise convolutions."""

from slth.nn.layers import Activation, BatchNorm, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean
from slth.nn.zoo.parts import conv, normalised
from slth.types import Shape

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage (Sandler et al. 2018, table 2).

The second stage, as the first convolution, has stride 1 for images of 32 pixels.
"""


def mobilenet_v2(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    activation: str = "relu6",
    slope: float = 0.01,
    width: float = 1.0,
) -> Network:
    """MobileNetV2 of CIFAR's size: inverted residual blocks around depthwise convolutions.

    Args:
      width: factor of all numbers of channels.

    Source: Sandler et al., CVPR 2018; names as in torchvision.
    """
    return _inverted(input_shape, classes, STAGES, (32, 1280), width, Activation(activation, slope))


def digits_mobilenet(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "relu6",
    slope: float = 0.01,
    width: float = 1.0,
) -> Network:
    """A MobileNetV2 of the embedded digits: three inverted residual blocks, the second of stride 2."""
    stages = ((1, 8, 1, 1), (4, 12, 2, 2))
    return _inverted(input_shape, classes, stages, (8, 32), width, Activation(activation, slope))


def _inverted(
    input_shape: Shape,
    classes: int,
    stages: tuple[tuple[int, int, int, int], ...],
    ends: tuple[int, int],
    width: float,
    act: Activation,
) -> Network:
    def scaled(channels: int) -> int:
        return max(1, round(width * channels))

    cin = scaled(ends[0])
    layers: list[Layer] = [*normalised(conv("features.0.0", cin), "features.0.1", act)]
    number = 1
    for expansion, channels, blocks, first in stages:
        for index in range(blocks):
            stride, cout = first if index == 0 else 1, scaled(channels)
            block, name = _block(cin, cout, expansion, stride, act), f"features.{number}"
            if stride == 1 and cin == cout:
                layers.append(Residual(name, block("")))
            else:
                layers += block(f"{name}.")
            cin, number = cout, number + 1
    last = conv(f"features.{number}.0", scaled(ends[1]), 1)
    layers += normalised(last, f"features.{number}.1", act)
    return Network(input_shape, (*layers, GlobalMean(), Dense("classifier.1", classes)))


def _block(cin: int, cout: int, expansion: int, stride: int, act: Activation):
    """The layers of a block, from what stands before their names."""
    inner = expansion * cin

    def layers(prefix: str) -> tuple[Layer, ...]:
        number, found = 0, ()
        if expansion > 1:
            found = normalised(conv(f"{prefix}conv.0.0", inner, 1), f"{prefix}conv.0.1", act)
            number = 1
        depthwise = conv(f"{prefix}conv.{number}.0", inner, 3, stride, groups=inner)
        found += normalised(depthwise, f"{prefix}conv.{number}.1", act)
        last = conv(f"{prefix}conv.{number + 1}", cout, 1)
        return (*found, last, BatchNorm(f"{prefix}conv.{number + 2}"))

    return layers
