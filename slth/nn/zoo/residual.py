"""Residual networks: of CIFAR, of ImageNet, wide ones, and the small one of the digits."""

from collections.abc import Callable, Iterator
from itertools import count

from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean, Pool, Subsample
from slth.nn.zoo.parts import conv
from slth.types import Shape

SKIPS = ("option_a", "projection", "scaled")
IMAGENET_BLOCKS = {
    **{18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    **{50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}
"""Blocks of each stage by depth (He et al. 2016, table 1); from depth 50 on they are bottlenecks."""


def _skip(kind: str, name: str, cin: int, cout: int, stride: int) -> tuple[Layer, ...]:
    """The skip from cin to cout channels: identity where nothing changes, else option A or a projection."""
    if stride == 1 and cin == cout:
        return (ChannelScale(f"{name}scale"),) if kind == "scaled" else ()
    if kind == "option_a":
        before = (cout - cin) // 2
        channels = (-1,) * before + tuple(range(cin)) + (-1,) * (cout - cin - before)
        return (Subsample((stride, stride), channels),)
    return (conv(f"{name}0", cout, 1, stride), BatchNorm(f"{name}1"))


def _basic(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (conv("conv1", width, stride=stride), BatchNorm("bn1"), act)
    return (*first, conv("conv2", width), BatchNorm("bn2"))


def _bottleneck(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (conv("conv1", width, 1), BatchNorm("bn1"), act)
    second = (conv("conv2", width, stride=stride), BatchNorm("bn2"), act)
    return (*first, *second, conv("conv3", 4 * width, 1), BatchNorm("bn3"))


def _pre_activation(width: int, stride: int, act: Activation) -> tuple[Layer, ...]:
    first = (BatchNorm("bn1"), act, conv("conv1", width, stride=stride))
    return (*first, BatchNorm("bn2"), act, conv("conv2", width))


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
    stem = (conv("conv1", width), *(() if pre_activation else (BatchNorm("bn1"), act)))
    body = _stages(branch, ((depth - 2) // layers,) * 3, width, skip, act, "shortcut.")
    return Network(input_shape, (*stem, *body, GlobalMean(), Dense("linear", classes)))


def digits_resnet(
    input_shape: Shape, classes: int, *, width: int = 8, activation: str = "relu", slope: float = 0.01
) -> Network:
    """The small residual net of the embedded digits: two stages (8x8 and 4x4 pixels) of a block, option A."""
    act = Activation(activation, slope)
    stem = (conv("conv1", width), BatchNorm("bn1"), act)
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
    """ResNet-18, -34 (basic blocks), -50, -101 or -152 (bottlenecks): 7x7 stem of stride 2, max pooling, four
    stages.

    A bottleneck has its stride on the 3x3 convolution, as torchvision's version 1.5; He et al. have it on
    the first 1x1 convolution. The parameters are those of torchvision, names included: `slth.load` reads its
    state dicts, of which ResNet-50 has 320 arrays and 25,557,032 trained numbers.

    Args:
      width: channels of the first stage; the next have twice, four and eight times as many, and the outputs
        of bottlenecks four times more.
      pre_activation: batch norm and activation before each convolution (He et al. 2016b); of basic blocks.
    Raises: ValueError for another depth, or pre-activation bottlenecks.

    Source: He et al. 2016, table 1; names, strides and paddings as in torchvision.
    """
    depths = [d for d in IMAGENET_BLOCKS if not (pre_activation and d >= 50)]
    if depth not in depths:
        raise ValueError(f"this residual net has a depth of {depths}, got {depth}")
    act = Activation(activation, slope)
    pool = Pool("max", (3, 3), (2, 2), ((1, 1), (1, 1)))
    stem = (conv("conv1", width, 7, stride=2), BatchNorm("bn1"), act, pool)
    branch = _bottleneck if depth >= 50 else _pre_activation if pre_activation else _basic
    body = _stages(branch, IMAGENET_BLOCKS[depth], width, "projection", act, "downsample.")
    return Network(input_shape, (*stem, *body, GlobalMean(), Dense("fc", classes)))


def wide_resnet(
    depth: int,
    widen: int,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    activation: str = "relu",
    slope: float = 0.01,
    width: int = 16,
) -> Network:
    """A wide residual network, WRN-depth-widen: three stages of pre-activation blocks.

    Where the width or the size changes, branch and skip share the block's first batch norm and activation,
    and the skip is a 1x1 convolution.

    Args:
      depth: 6 n + 4.
      widen: k, by which the stages are wider than ``width``, twice and four times ``width``.
      width: channels of the first convolution.
    Raises: ValueError for another depth.

    Source: Zagoruyko and Komodakis, BMVC 2016, table 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"a wide residual net has depth 6 n + 4, got {depth}")
    act, cin = Activation(activation, slope), width
    layers: list[Layer] = [conv("conv1", width)]
    for stage in range(3):
        cout = widen * width * 2**stage
        for index in range((depth - 4) // 6):
            name, stride = f"block{stage + 1}.layer.{index}", 2 if stage > 0 and index == 0 else 1
            first, *others = _pre_activation(cout, stride, act)
            if stride == 1 and cin == cout:
                layers.append(Residual(name, (first, *others)))
            else:
                layers += [BatchNorm(f"{name}.bn1"), act]
                skip = (conv("convShortcut", cout, 1, stride),)
                layers.append(Residual(name, tuple(others[1:]), skip))
            cin = cout
    return Network(input_shape, (*layers, BatchNorm("bn1"), act, GlobalMean(), Dense("fc", classes)))


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

    def windows(features: int, stride: int = 1, taps: int = 3) -> Conv:
        zeros = max(taps - stride, 0)
        padding = ((zeros // 2, zeros - zeros // 2),) * 2
        return Conv(numbered("conv2d", convolutions), features, (taps, taps), (stride, stride), padding)

    def norm() -> BatchNorm:
        return BatchNorm(numbered("batch_normalization", norms), epsilon=1e-3)

    def numbered(name: str, numbers: Iterator[int]) -> str:
        return f"{name}_{number}" if (number := next(numbers)) else name

    layers: list[Layer] = [windows(width), norm(), act]
    for stage in range(3):
        features, stride = width * 2**stage, 2 if stage else 1
        branch = (windows(features, stride), norm(), act, windows(features), norm())
        skip = (windows(features, stride, 1),) if stage else ()
        layers += [Residual(f"block{stage + 1}", branch, skip), act]
    return Network(input_shape, (*layers, GlobalMean(), Dense("dense", classes)))
