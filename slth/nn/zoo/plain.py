"""Networks whose layers follow one after the other."""

from collections.abc import Sequence
from dataclasses import replace

from slth.nn.convolution import same_padding
from slth.nn.layers import Activation, BatchNorm, Conv, Dense, Layer
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.nn.zoo.parts import conv, normalised
from slth.types import Shape

VGG = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
"""Widths of the convolutions by depth; M is a max pooling (Simonyan and Zisserman 2015, table 1)."""


def mlp(
    input_shape: Shape,
    classes: int,
    *,
    widths: Sequence[int] = (64, 64),
    activation: str = "relu",
    slope: float = 0.01,
) -> Network:
    """A fully connected network with the given hidden widths; images are flattened first."""
    layers: list[Layer] = [Flatten()] if len(input_shape) > 1 else []
    for index, width in enumerate(widths):
        layers += [Dense(f"dense{index + 1}", width), Activation(activation, slope)]
    return Network(input_shape, (*layers, Dense("linear", classes)))


def lenet(input_shape: Shape, classes: int, *, activation: str = "relu", slope: float = 0.01) -> Network:
    """A LeNet-like network (LeCun et al. 1998): two 5x5 convolutions with max pooling, 120-84-classes."""
    act = Activation(activation, slope)
    layers = [
        *(Conv("conv1", 6, (5, 5), padding=same_padding((5, 5))), act, Pool("max", (2, 2))),
        *(Conv("conv2", 16, (5, 5), padding=same_padding((5, 5))), act, Pool("max", (2, 2))),
        *(Flatten(), Dense("dense1", 120), act, Dense("dense2", 84), act, Dense("linear", classes)),
    ]
    return Network(input_shape, tuple(layers))


def digits_cnn(
    input_shape: Shape, classes: int, *, width: int = 12, activation: str = "relu", slope: float = 0.01
) -> Network:
    """The small convolutional net of the embedded digits: two 3x3 convolutions with batch norm, the second of
    stride 2, max pooling, one dense layer."""
    act = Activation(activation, slope)
    layers = [
        *(conv("conv1", width), BatchNorm("bn1"), act),
        *(conv("conv2", 2 * width, stride=2), BatchNorm("bn2"), act),
        *(Pool("max", (2, 2)), Flatten(), Dense("linear", classes)),
    ]
    return Network(input_shape, tuple(layers))


def conv_mnist(
    input_shape: Shape = (28, 28, 1), classes: int = 10, *, activation: str = "relu", slope: float = 0.01
) -> Network:
    """The MNIST net published with Burkholz 2022: conv 1-32, conv 32-32 (3x3, padding 1), dense 25088-10.

    Flattened in PyTorch's channel-row-column order. Names ("0", "2", "5") are the checkpoint's.
    """
    act = Activation(activation, slope)
    pad = same_padding((3, 3))
    layers = [Conv("0", 32, (3, 3), padding=pad), act, Conv("2", 32, (3, 3), padding=pad), act]
    return Network(input_shape, (*layers, Flatten("chw"), Dense("5", classes)))


def vgg_cifar(
    depth: int,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: float = 1.0,
) -> Network:
    """VGG with batch norm as CIFAR networks have it: the convolutions of table 1 (with biases, as published
    files have them), then one dense layer.

    Args:
      depth: 11, 13, 16 or 19.
      width: factor of all numbers of channels.
    Raises: ValueError for another depth.

    Source: Simonyan and Zisserman, ICLR 2015; names as in torchvision (``features.0``), and ``classifier``.
    """
    if depth not in VGG:
        raise ValueError(f"VGG has a depth of {list(VGG)}, got {depth}")
    act = Activation(activation, slope)
    layers: list[Layer] = []
    number = 0
    for entry in VGG[depth].split():
        if entry == "M":
            layers.append(Pool("max", (2, 2)))
            number += 1
        else:
            layer = replace(conv(f"features.{number}", max(1, round(width * int(entry)))), use_bias=True)
            layers += normalised(layer, f"features.{number + 1}", act)
            number += 3
    return Network(input_shape, (*layers, Flatten("chw"), Dense("classifier", classes)))


def m5(
    input_shape: Shape = (8000, 1),
    classes: int = 35,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: int = 32,
    taps: int = 80,
    stride: int = 16,
) -> Network:
    """M5, a network of raw audio: a long filter bank, three convolutions of 3 taps, pooling by 4 after each.

    Args:
      width: channels of the first two convolutions; the next two have twice as many.
      taps, stride: of the filter bank (80 and 4 in the paper, 80 and 16 where a second has 8,000 numbers).

    Source: Dai et al., ICASSP 2017, table 1; names as in PyTorch's tutorial on audio.
    """
    act, pool = Activation(activation, slope), Pool("max", (4,))
    layers: list[Layer] = []
    for number, features in enumerate((width, width, 2 * width, 2 * width), start=1):
        kernel, step = ((taps,), (stride,)) if number == 1 else ((3,), (1,))
        layers += [Conv(f"conv{number}", features, kernel, step), BatchNorm(f"bn{number}"), act, pool]
    return Network(input_shape, (*layers, GlobalMean(), Dense("fc1", classes)))
