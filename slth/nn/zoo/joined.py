"""Networks of concatenations."""

from slth.nn.convolution import same_padding
from slth.nn.layers import Activation, BatchNorm, Concat, Conv, Dense, Layer
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean, Pool
from slth.nn.zoo.parts import conv
from slth.types import Shape

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Channels of each fire module of SqueezeNet 1.1: squeezed, and of each of the two expansions."""


def densenet(
    depth: int,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    growth: int = 12,
    width: int = 16,
) -> Network:
    """DenseNet of CIFAR, without bottlenecks and compression: every layer reads all layers of its block.

    Args:
      depth: 3 n + 4 (40 and 100 in the paper).
      growth: k, channels that each layer adds.
      width: channels of the first convolution; many programs have twice the growth.
    Raises: ValueError for another depth.

    Source: Huang et al., CVPR 2017, section 4.
    """
    if depth < 7 or (depth - 4) % 3:
        raise ValueError(f"a DenseNet without bottlenecks has depth 3 n + 4, got {depth}")
    blocks = ((depth - 4) // 3,) * 3
    return _dense(input_shape, classes, blocks, width, growth, Activation(activation, slope))


def digits_densenet(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    growth: int = 6,
) -> Network:
    """A DenseNet of the embedded digits: two blocks of two layers."""
    return _dense(input_shape, classes, (2, 2), 2 * growth, growth, Activation(activation, slope))


def _dense(
    input_shape: Shape, classes: int, blocks: tuple[int, ...], channels: int, growth: int, act: Activation
) -> Network:
    layers: list[Layer] = [conv("conv1", channels)]
    for block, count in enumerate(blocks, start=1):
        for index in range(count):
            grown = (BatchNorm("bn1"), act, conv("conv1", growth))
            layers.append(Concat(f"block{block}.layer.{index}", ((), grown)))
            channels += growth
        if block < len(blocks):
            layers += [BatchNorm(f"trans{block}.bn1"), act, conv(f"trans{block}.conv1", channels, 1)]
            layers.append(Pool("mean", (2, 2)))
    return Network(input_shape, (*layers, BatchNorm("bn1"), act, GlobalMean(), Dense("fc", classes)))


def squeezenet(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: float = 1.0,
) -> Network:
    """SqueezeNet 1.1: fire modules squeeze the channels, then concatenate 1x1 and 3x3 convolutions.

    The last convolution makes an image of scores for each class; the outputs are their means, behind ReLU.

    Args:
      width: factor of all numbers of channels.

    Source: Iandola et al. 2016; version 1.1 and names as in torchvision.
    """
    act = Activation(activation, slope)
    pool = Pool("max", (3, 3), (2, 2), incomplete=True)

    def scaled(channels: int) -> int:
        return max(1, round(width * channels))

    layers: list[Layer] = [Conv("features.0", scaled(64), (3, 3), (2, 2)), act, pool]
    number = 3
    for index, (squeezed, expanded) in enumerate(FIRES):
        if index in (2, 4):
            layers.append(pool)
            number += 1
        name, wide, padding = f"features.{number}", scaled(expanded), same_padding((3, 3))
        sides = (
            (Conv("expand1x1", wide, (1, 1)), act),
            (Conv("expand3x3", wide, (3, 3), padding=padding), act),
        )
        layers += [Conv(f"{name}.squeeze", scaled(squeezed), (1, 1)), act, Concat(f"{name}", sides)]
        number += 1
    return Network(input_shape, (*layers, Conv("classifier.1", classes, (1, 1)), act, GlobalMean()))
