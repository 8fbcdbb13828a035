r"""A network as a flat list of steps: the tree of layers, lowered once for everything that reads networks.

Value 0 is the network's input; step i makes value i + 1 from values before it:

* `Sum`: a *node*, :math:`y = \sum_k W_k x_{r_k} + b + \sum_s \mathrm{skip}_s(x_{r_s})`: linear maps of one or
  several values, and values that a skip adds as they are. A convolution is a sum of one map; the end of a
  residual block is the sum of the branch's last layer and the skip.
* `Join`: the channels of several values, one after the other.
* `Apply`: an activation, pooling, flattening or normalisation of one value.

A reader is one loop over the steps with a ``match``; it never asks how layers nest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from slth.nn.activations import activation_info
from slth.nn.layers import (
    Activation,
    BatchNorm,
    Block,
    ChannelScale,
    Concat,
    Conv,
    Dense,
    Layer,
    Linear,
    Residual,
)
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.types import Params, Shape

Pointwise: TypeAlias = (
    Activation | BatchNorm | ChannelScale | Flatten | GlobalMax | GlobalMean | Pool | Subsample | Upsample
)


@dataclass(frozen=True)
class Map:
    """A convolution or dense layer on its way into a sum.

    Example:
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.graph(network)[2].maps
      (Map(path='b', layer=Dense(name='b', features=2, use_bias=True), reads=2),)
    """

    path: str
    """Key of its parameters: names joined by "/", such as ``"layer1.0/branch/conv1"``."""
    layer: Linear
    reads: int
    """Number of the value it reads."""


@dataclass(frozen=True)
class Skip:
    """A value that a sum adds without a linear map.

    Example:
      >>> from slth import nn
      >>> block = nn.Residual("block", (nn.Dense("inner", 3),))
      >>> nn.graph(nn.Network((3,), (block,)))[0].skips
      (Skip(reads=0, layer=None, path='', side='skip'),)
    """

    reads: int
    layer: Subsample | ChannelScale | None = None
    """What is done to the value: nothing, subsampling ("option A"), or a factor for each channel."""
    path: str = ""
    """Key of the factors of a `ChannelScale`."""
    side: str = "skip"
    """The side of its block: "skip", or "branch" for a branch that ends in an activation, say."""


@dataclass(frozen=True)
class Sum:
    """A node: the sum of linear maps and of skips, before any activation.

    Example:
      >>> from slth import nn
      >>> block = nn.Residual("block", (nn.Dense("inner", 3),))
      >>> (step,) = nn.graph(nn.Network((3,), (block,)))
      >>> step.name, step.path, step.reads
      ('block', 'block/branch/inner', (0, 0))
    """

    name: str
    """Name of the value it makes: the path of its only layer, or of the residual block that it ends."""
    maps: tuple[Map, ...]
    skips: tuple[Skip, ...]
    shape: Shape
    """Of one example of the value it makes."""

    @property
    def path(self) -> str:
        """Path of the branch's last layer, by which records and tables call the node; the block's where the
        branch ends in something else."""
        own = self.maps[0].path if self.maps else self.name
        return self.name if own.startswith(f"{self.name}/skip/") else own

    @property
    def features(self) -> int:
        """Number of output channels."""
        return self.shape[-1]

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the values it reads, in the order of its terms."""
        return tuple(term.reads for term in (*self.maps, *self.skips))


@dataclass(frozen=True)
class Join:
    """A concatenation: the channels of several values, one after the other.

    Example:
      >>> from slth import nn
      >>> block = nn.Concat("block", ((), (nn.Dense("inner", 3),)))
      >>> nn.graph(nn.Network((2,), (block,)))[1]
      Join(name='block', reads=(0, 1), shape=(5,))
    """

    name: str
    """Name of the value it makes: the path of the block."""
    reads: tuple[int, ...]
    """Numbers of the values, in the order of their channels."""
    shape: Shape
    """Of one example of the value it makes."""


@dataclass(frozen=True)
class Apply:
    """A layer other than a sum: one value in, one value out.

    Example:
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.graph(network)[1]
      Apply(layer=Activation(kind='relu', slope=0.01), value=1, shape=(3,), path='')
    """

    layer: Pointwise
    value: int
    """Number of the value it reads."""
    shape: Shape
    """Of one example of the value it makes."""
    path: str = ""
    """Key of its parameters; empty for a layer without a name."""

    @property
    def reads(self) -> tuple[int, ...]:
        """The number of the value it reads, as of a sum."""
        return (self.value,)


Step: TypeAlias = Sum | Join | Apply
"""One entry of `graph`: what makes one value out of earlier ones."""


@cache
def graph(network: Network) -> tuple[Step, ...]:
    """The steps of a network in the order in which they are computed; step i makes value i + 1.

    The sides of a block stand in their order, and before their sum or concatenation.

    Args:
      network: any spec, with batch norm or without.
    Returns: the steps; hashable, computed once for each spec.

    Example:
      >>> from slth import nn
      >>> block = nn.Residual("block", (nn.Dense("inner", 3),))
      >>> [step.name for step in nn.graph(nn.Network((3,), (nn.Dense("first", 3), block)))]
      ['first', 'block']
    """
    steps: list[Step] = []
    shapes = [network.input_shape]

    def sequence(layers: tuple[Layer, ...], value: int, path: str) -> int:
        """Append the steps of the layers; the number of the value that the last one makes."""
        for layer in layers:
            shape = layer.output_shape(shapes[value])
            name = getattr(layer, "name", "")
            own = path + name
            match layer:
                case Residual():
                    terms = [term(inner, value, own, side) for side, inner in layer.sides.items()]
                    maps = tuple(one for one in terms if isinstance(one, Map))
                    skips = tuple(one for one in terms if isinstance(one, Skip))
                    step = Sum(own, maps, skips, shape)
                case Concat():
                    sides = layer.sides.items()
                    reads = tuple(sequence(inner, value, f"{own}/{side}/") for side, inner in sides)
                    step = Join(own, reads, shape)
                case Conv() | Dense():
                    step = Sum(own, (Map(own, layer, value),), (), shape)
                case _:
                    step = Apply(layer, value, shape, own if name else "")
            steps.append(step)
            shapes.append(shape)
            value = len(steps)
        return value

    def term(layers: tuple[Layer, ...], value: int, block: str, side: str) -> Map | Skip:
        """A side of a block as a term of its sum: the last layer joins the sum where it can."""
        path = f"{block}/{side}/"
        match layers:
            case (*before, Conv() | Dense() as last):
                return Map(f"{path}{last.name}", last, sequence(tuple(before), value, path))
            case (*before, ChannelScale() as last):
                return Skip(sequence(tuple(before), value, path), last, f"{path}{last.name}", side)
            case (*before, Subsample() as last):
                return Skip(sequence(tuple(before), value, path), last, side=side)
        return Skip(sequence(layers, value, path), side=side)

    sequence(network.layers, 0, "")
    return tuple(steps)


def sums(network: Network) -> tuple[Sum, ...]:
    """The nodes of a network, in order."""
    return tuple(step for step in graph(network) if isinstance(step, Sum))


def linear_maps(network: Network) -> dict[str, Map]:
    """Every convolution and dense layer by its path, in the order of computation."""
    return {entry.path: entry for step in sums(network) for entry in step.maps}


def activations(network: Network) -> tuple[Activation, ...]:
    """Every activation of a network, in the order of computation."""
    layers = (step.layer for step in graph(network) if isinstance(step, Apply))
    return tuple(layer for layer in layers if isinstance(layer, Activation))


def is_homogeneous(network: Network) -> bool:
    """Whether every activation has phi(s x) = s phi(x) for s > 0, so that each channel may be scaled."""
    return all(activation_info(act.kind, act.slope).homogeneous for act in activations(network))


def value_shapes(network: Network) -> tuple[Shape, ...]:
    """Shape of one example of every value, the input first."""
    return (network.input_shape, *(step.shape for step in graph(network)))


def last_reads(network: Network) -> tuple[int, ...]:
    """For every value, the number of the last step that reads it; -1 for one that none reads."""
    last = [-1] * (len(graph(network)) + 1)
    for number, step in enumerate(graph(network)):
        for value in step.reads:
            last[value] = number
    return tuple(last)


def applied_before(network: Network, value: int) -> tuple[Apply, ...]:
    """The steps between the last sum or concatenation (or the input) and a value, the latest first."""
    steps, applied = graph(network), []
    while value > 0 and isinstance(step := steps[value - 1], Apply):
        applied.append(step)
        value = step.value
    return tuple(applied)


class Behind(NamedTuple):
    """Where a value comes from."""

    name: str
    """Of the last sum or concatenation before it; empty for the network's input."""
    layers: tuple[Pointwise, ...]
    """What is done to that value, in order."""


def behind(network: Network, value: int) -> Behind:
    """The last sum or concatenation before a value, and the layers between."""
    applied = applied_before(network, value)
    value = applied[-1].value if applied else value
    name = ""
    if value > 0:
        step = graph(network)[value - 1]
        assert isinstance(step, Sum | Join)
        name = step.name
    return Behind(name, tuple(step.layer for step in reversed(applied)))


def is_nonnegative(network: Network, value: int) -> bool:
    """Whether no number of a value can be below 0, whatever the network reads: the last activation before it
    is a ReLU, or another that has no negative value."""
    before = applied_before(network, value)
    for step in before:
        if isinstance(step.layer, Activation):
            return activation_info(step.layer.kind, step.layer.slope).least >= 0
    first = before[-1].value if before else value
    step = graph(network)[first - 1] if first else None
    return isinstance(step, Join) and all(is_nonnegative(network, read) for read in step.reads)


class Flattened(NamedTuple):
    """Where a value is flattened."""

    layer: Flatten
    reads: int
    """Number of the value that is flattened."""
    shape: Shape
    """Of one example of that value."""


def flattening(network: Network, value: int) -> Flattened | None:
    """The flattening between a value and the last sum (or the input) before it; None where there is none."""
    for step in applied_before(network, value):
        if isinstance(step.layer, Flatten):
            return Flattened(step.layer, step.value, value_shapes(network)[step.value])
    return None


def flattened_kernels(network: Network) -> dict[str, Flattened]:
    """What is flattened before a dense layer reads it, by the path of the layer's kernel."""
    found = {path: flattening(network, entry.reads) for path, entry in linear_maps(network).items()}
    return {f"{path}/kernel": flat for path, flat in found.items() if flat}


def named_layers(network: Network) -> dict[str, Layer]:
    """Every layer with a name (blocks aside) by its path, in the order in which files hold parameters.

    That is the order of the spec, one side of a block after the other; steps may come in another order.
    """

    def walk(layers: tuple[Layer, ...], path: str) -> Iterator[tuple[str, Layer]]:
        for layer in layers:
            if isinstance(layer, Block):
                for side, inner in layer.sides.items():
                    yield from walk(inner, f"{path}{layer.name}/{side}/")
            elif (name := getattr(layer, "name", None)) is not None:
                yield f"{path}{name}", layer

    return dict(walk(network.layers, ""))


def by_layer(params: Mapping[str, Any]) -> dict[str, dict]:
    """Nested parameters as ``{path of a layer: {"kernel": ..., "bias": ...}}``; `nested` is the inverse.

    Any mapping will do, such as flax's ``FrozenDict``.

    Example:
      >>> from slth import nn
      >>> nn.by_layer({"block": {"branch": {"conv1": {"kernel": 1, "bias": 2}}}})
      {'block/branch/conv1': {'kernel': 1, 'bias': 2}}
    """
    layers: dict[str, dict] = {}

    def walk(tree: Mapping[str, Any], path: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{path}/{name}" if path else name)
            else:
                layers.setdefault(path, {})[name] = value

    walk(params, "")
    return layers


def nested(layers: dict[str, dict]) -> Params:
    """The nested parameters of `by_layer`'s: blocks hold "branch" and "skip", layers their arrays.

    Example:
      >>> from slth import nn
      >>> nn.nested({"block/branch/conv1": {"kernel": 1, "bias": 2}})
      {'block': {'branch': {'conv1': {'kernel': 1, 'bias': 2}}}}
    """
    params: Params = {}
    for path, values in layers.items():
        inner = params
        for name in path.split("/"):
            inner = inner.setdefault(name, {})
        inner |= values
    return params
