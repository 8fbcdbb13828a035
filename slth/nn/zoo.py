"""Builders of named network specs: mlp, LeNet-like and plain convolutional nets, residual nets.

Each takes any activation of `slth.nn.ACTIVATIONS` by its name; ``slope`` is that of leaky ReLU.
Names of layers follow the published PyTorch checkpoints, so that importing them is a matter of suffixes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from itertools import count
from typing import Any

from slth.nn.convolution import same_padding
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.types import Shape

CIFAR_DEPTHS = (20, 22, 32, 44, 56, 110)
BOTTLENECK_DEPTHS = (29, 164)
SKIPS = ("option_a", "projection", "scaled")
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def _conv(name: str, features: int, taps: int = 3, stride: int = 1) -> Conv:
    """A convolution in front of a batch norm: without bias, padded so that stride 1 keeps the size."""
    kernel = (taps, taps)
    return Conv(name, features, kernel, (stride, stride), same_padding(kernel), use_bias=False)


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
        *(_conv("conv1", width), BatchNorm("bn1"), act),
        *(_conv("conv2", 2 * width, stride=2), BatchNorm("bn2"), act),
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


def _skip(kind: str, name: str, cin: int, cout: int, stride: int) -> tuple[Layer, ...]:
    """The skip from cin to cout channels: identity where nothing changes, else option A or a projection."""
    if stride == 1 and cin == cout:
        return (ChannelScale(f"{name}scale"),) if kind == "scaled" else ()
    if kind == "option_a":
        before = (cout - cin) // 2
        channels = (-1,) * before + tuple(range(cin)) + (-1,) * (cout - cin - before)
        return (Subsample((stride, stride), channels),)
    return (_conv(f"{name}0", cout, 1, stride), BatchNorm(f"{name}1"))


def _basic(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (_conv("conv1", width, stride=stride), BatchNorm("bn1"), act)
    return (*first, _conv("conv2", width), BatchNorm("bn2"))


def _bottleneck(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (_conv("conv1", width, 1), BatchNorm("bn1"), act)
    second = (_conv("conv2", width, stride=stride), BatchNorm("bn2"), act)
    return (*first, *second, _conv("conv3", 4 * width, 1), BatchNorm("bn3"))


def _pre_activation(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (BatchNorm("bn1"), act, _conv("conv1", width, stride=stride))
    return (*first, BatchNorm("bn2"), act, _conv("conv2", width))


Branch = Callable[[int, int, Activation], tuple[Layer, ...]]
"""The branch of a block, from its width, its stride and the activation."""


def _stages(
    branch: Branch, repeats: tuple[int, ...], width: int, skip: str, act: Activation, prefix: str
) -> list[Layer]:
    """Stages of as many blocks each; every stage after the first halves the image and doubles the width."""
    layers: list[Layer] = []
    cin = width
    for stage, blocks in enumerate(repeats):
        inner = width * 2**stage
        cout = 4 * inner if branch is _bottleneck else inner
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            sides = branch(inner, stride, act), _skip(skip, prefix, cin, cout, stride)
            layers.append(Residual(f"layer{stage + 1}.{index}", *sides))
            layers += [] if branch is _pre_activation else [act]
            cin = cout
    return [*layers, BatchNorm("bn"), act] if branch is _pre_activation else layers


def resnet_cifar(
    depth: int,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    skip: str | None = None,
    activation: str = "relu",
    slope: float = 0.01,
    width: int = 16,
    pre_activation: bool = False,
    bottleneck: bool = False,
) -> Network:
    """The CIFAR residual net of He et al. 2016 (section 4.2): three stages of (depth - 2) / 6 blocks each.

    Args:
      depth: 6 n + 2 linear layers (20, 32, 44, 56, 110), or 22: the 20-layer net with projections; 9 n + 2
        with bottlenecks (29, 164).
      skip: "option_a" (parameter-free; the default, but not of depth 22 nor with bottlenecks), "projection"
        (1x1 convolution and batch norm) or "scaled" (projection where the width changes, a per-channel weight
        elsewhere).
      width: channels of the first stage; the next have twice and four times as many.
      pre_activation: batch norm and activation before each convolution (He et al. 2016b).
      bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, the last four times as wide (He et al. 2016b).
    Raises: ValueError for another depth or skip, or pre-activation bottlenecks.
    """
    layers, special = (9, "") if bottleneck else (6, " (or 22)")
    if (bottleneck or depth != 22) and (depth - 2) % layers:
        kind = "a CIFAR residual net of bottlenecks" if bottleneck else "a CIFAR residual net"
        raise ValueError(f"{kind} has depth {layers} n + 2{special}, got {depth}")
    if bottleneck and pre_activation:
        raise ValueError("pre_activation is for basic blocks, not for bottlenecks: choose one of the two")
    skip = skip or ("projection" if depth == 22 or bottleneck else "option_a")
    kinds = SKIPS[1:] if depth == 22 else SKIPS
    if skip not in kinds:
        raise ValueError(
            f"the skip of a residual net of depth {depth} is one of {', '.join(kinds)}, got {skip!r}"
        )
    act = Activation(activation, slope)
    branch = _bottleneck if bottleneck else _pre_activation if pre_activation else _basic
    stem = (_conv("conv1", width), *(() if pre_activation else (BatchNorm("bn1"), act)))
    body = _stages(branch, ((depth - 2) // layers,) * 3, width, skip, act, "shortcut.")
    return Network(input_shape, (*stem, *body, GlobalMean(), Dense("linear", classes)))


def digits_resnet(
    input_shape: Shape, classes: int, *, width: int = 8, activation: str = "relu", slope: float = 0.01
) -> Network:
    """The small residual net of the embedded digits: two stages (8x8 and 4x4 pixels) of a block, option A."""
    act = Activation(activation, slope)
    stem = (_conv("conv1", width), BatchNorm("bn1"), act)
    body = _stages(_basic, (1, 1), width, "option_a", act, "shortcut.")
    return Network(input_shape, (*stem, *body, GlobalMean(), Dense("linear", classes)))


def resnet_imagenet(
    depth: int,
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: int = 64,
    pre_activation: bool = False,
) -> Network:
    """ResNet-18, -34 (basic blocks) or -50 (bottlenecks): 7x7 stem of stride 2, max pooling, four stages.

    Source: He et al. 2016, table 1; names and paddings as in torchvision. Pre-activation (He et al. 2016b)
    is for basic blocks.
    Raises: ValueError for another depth, or pre-activation bottlenecks.
    """
    depths = [d for d in IMAGENET_BLOCKS if not (pre_activation and d == 50)]
    if depth not in depths:
        raise ValueError(f"this residual net has a depth of {depths}, got {depth}")
    act = Activation(activation, slope)
    pool = Pool("max", (3, 3), (2, 2), ((1, 1), (1, 1)))
    stem = (_conv("conv1", width, 7, stride=2), BatchNorm("bn1"), act, pool)
    branch = _bottleneck if depth == 50 else _pre_activation if pre_activation else _basic
    body = _stages(branch, IMAGENET_BLOCKS[depth], width, "projection", act, "downsample.")
    return Network(input_shape, (*stem, *body, GlobalMean(), Dense("fc", classes)))


def mlperf_resnet8(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: int = 16,
) -> Network:
    """The ResNet-8 of MLPerf Tiny (Banbury et al. 2021), as Keras trains it: three stages of one block.

    Convolutions have biases, batch norm follows all but the skips', and the zeros of a stride of 2 stand at
    the ends alone. Names are Keras's own numbers; the published weights read pixels of 0 to 255.
    """
    act, convolutions, norms = Activation(activation, slope), count(), count()

    def conv(features: int, stride: int = 1, taps: int = 3) -> Conv:
        zeros = max(taps - stride, 0)
        padding = ((zeros // 2, zeros - zeros // 2),) * 2
        return Conv(numbered("conv2d", convolutions), features, (taps, taps), (stride, stride), padding)

    def norm() -> BatchNorm:
        return BatchNorm(numbered("batch_normalization", norms), epsilon=1e-3)

    def numbered(name: str, numbers: Iterator[int]) -> str:
        return f"{name}_{number}" if (number := next(numbers)) else name

    layers: list[Layer] = [conv(width), norm(), act]
    for stage in range(3):
        features, stride = width * 2**stage, 2 if stage else 1
        branch = (conv(features, stride), norm(), act, conv(features), norm())
        skip = (conv(features, stride, 1),) if stage else ()
        layers += [Residual(f"block{stage + 1}", branch, skip), act]
    return Network(input_shape, (*layers, GlobalMean(), Dense("dense", classes)))


BUILDERS: dict[str, Callable[..., Network]] = {
    **{builder.__name__: builder for builder in (mlp, lenet, digits_cnn, digits_resnet, conv_mnist)},
    "mlperf_resnet8": mlperf_resnet8,
    **{f"resnet{depth}": partial(resnet_cifar, depth) for depth in CIFAR_DEPTHS},
    "resnet20_sigmoid": partial(resnet_cifar, 20, skip="scaled", activation="sigmoid"),
    **{f"resnet{depth}": partial(resnet_cifar, depth, bottleneck=True) for depth in BOTTLENECK_DEPTHS},
    **{f"preresnet{depth}": partial(resnet_cifar, depth, pre_activation=True) for depth in CIFAR_DEPTHS},
    **{f"resnet{depth}": partial(resnet_imagenet, depth) for depth in IMAGENET_BLOCKS},
}
"""The named targets: each builds a spec from an input shape, a number of classes and its own options."""


def build(name: str, input_shape: Sequence[int], classes: int, **options: Any) -> Network:
    """The spec of a named target (`BUILDERS`) for images of a shape and a number of classes.

    Args:
      options: the builder's own keyword arguments, such as ``width``, ``activation`` or ``skip``.
    Raises: ValueError for an unknown name or option, or a shape that the layers cannot read.
    """
    if name not in BUILDERS:
        raise ValueError(f"target {name!r} is unknown: choose one of {', '.join(BUILDERS)}")
    builder = BUILDERS[name]
    parameters = signature(builder).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"target {name} has no option {unknown[0]!r}: it has {', '.join(known)}")
    return builder(tuple(input_shape), classes, **options)
