"""The spec of a source wide enough for a target: L + 1 layers, or two for each of the target's (2L)."""

from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.graph import Apply, Map, Sum, activations, flattening, graph, linear_maps, sums, value_shapes
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense, Layer, Linear
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.rewrite import Place, Sides, rewrite
from slth.nn.spec import Stateless
from slth.source.layout import MOST_CONSTANTS, SKIP, UNIVARIATE, Layout, Univariate, layout_of
from slth.target import checked_integer
from slth.types import Shape

DEPTHS = ("L+1", "2L")
SKIPS = ("carried", "random")


class Wide(NamedTuple):
    """A source's spec and what its layers stand for."""

    network: Network
    layout: Layout


def source_network(
    target: Network,
    multiplicity: int,
    *,
    copies_per_sign: int,
    constants: int,
    skip: str = "carried",
    own_biases: bool = False,
    depth: str = "L+1",
) -> Wide:
    """The spec of a source wide enough for ``target``, and its layout (see `slth.source.layout`).

    Args:
      target: spec without batch norm.
      multiplicity: m >= 1, copies of each hidden channel.
      copies_per_sign: N, univariate channels wanted for each input channel and sign.
      constants: K, constant channels of each hidden layer; 0 makes a source without any bias. In 2L no other
        number counts: see `MOST_CONSTANTS`.
      skip: "carried" (identity and option A are carried from copy to copy) or "random" (every skip is a
        random 1x1 convolution, to be pruned).
      own_biases: whether every layer has random biases, so that constants are made afresh and a neuron's own
        bias is one more variable; else univariate layers alone have, and constants come from there.
      depth: "L+1" or "2L".
    Returns: the spec and its layout. `slth.Source.of` calls this with widths that suit the target.
    Raises: ValueError for a number or word that is out of range, or a target that `check_covered` refuses.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> wide = slth.source.source_network(network, 5, copies_per_sign=16, constants=24)
      >>> [layer.features for layer in wide.network.layers if isinstance(layer, nn.Dense)]      # widths
      [176, 39, 2]
    """
    multiplicity, copies_per_sign, constants = (
        checked_integer(f"source.{name}", value, least)
        for name, value, least in (
            ("multiplicity", multiplicity, 1),
            ("univariate", copies_per_sign, 1),
            ("constants", constants, 0),
        )
    )
    if not isinstance(own_biases, bool):
        raise ValueError(f"source.own_biases: expected True or False, got {own_biases!r}")
    if skip not in SKIPS:
        raise ValueError(f"source.skip: expected one of {', '.join(SKIPS)}, got {skip!r}")
    if depth not in DEPTHS:
        raise ValueError(f"source.depth: expected one of {', '.join(DEPTHS)}, got {depth!r}")
    check_covered(target)
    _check_skips(target, skip)
    if depth == "2L":
        network = _doubled(target, copies_per_sign, constants > 0, skip, own_biases)
        return Wide(network, layout_of(target, network, multiplicity))
    network, first = _widened(target, multiplicity, copies_per_sign, constants, skip, own_biases)
    return Wide(network, replace(layout_of(target, network, multiplicity), first=first))


def check_covered(target: Network) -> None:
    """Refuse a target of which no ticket can be constructed, in one line.

    Raises: ValueError, naming the layer, what was expected and what to do.
    """
    if UNIVARIATE in linear_maps(target):
        raise ValueError(
            f"target: a layer is named {UNIVARIATE!r}, as the source's own first layer is: rename it"
        )
    raw = {0}  # values that no linear layer has made
    for number, step in enumerate(graph(target)):
        if isinstance(step, Apply):
            if step.value in raw:
                raw.add(number + 1)
                if number >= _leading(target) and not isinstance(step.layer, Flatten):
                    raise ValueError(
                        f"target: {step.layer} in its first block reads the network's input, of which a"
                        " source holds no copies: put a convolution before the block"
                    )
                if flattening(target, step.value) and not isinstance(step.layer, Activation | Flatten):
                    raise ValueError(
                        f"target: {step.layer} stands behind a Flatten, where there are no positions left:"
                        " leave it out"
                    )
            if isinstance(step.layer, Subsample):
                raise ValueError(
                    "target: it has a Subsample that is not the last layer of a block's skip: no source"
                    " carries that there, use a strided convolution"
                )
            if isinstance(step.layer, BatchNorm | ChannelScale):
                raise ValueError(
                    f"target: {step.path or 'a layer'} is a {type(step.layer).__name__}, which is not folded:"
                    " make the target with slth.Target.of(network, params), or fold it with"
                    " slth.nn.fold_batch_norm"
                )
        elif "/skip/" in step.name:
            block = step.name.partition("/skip/")[0]
            raise ValueError(
                f"target: the skip of block {block} must hold one convolution or dense layer at most, as its"
                f" last (after folding), and {step.path} stands before others: move it in front of the block"
            )
        elif not step.maps or "/skip/" in step.maps[0].path:
            raise ValueError(
                f"target: the branch of block {step.name} must end in a convolution or dense layer (after"
                " folding): move what follows it behind the block's sum"
            )
    output_map(target)


def output_map(target: Network) -> Map:
    """The last linear layer, whose outputs need one copy each.

    Raises: ValueError if the last node is the end of a residual block, or there is none.
    """
    nodes = sums(target)
    if not nodes:
        raise ValueError("target: it has no convolution or dense layer, so there is nothing to construct")
    last = nodes[-1]
    if len(last.maps) != 1 or last.skips:
        raise ValueError(
            f"target: it ends in the residual block {last.name}: a target must end in a convolution or dense "
            "layer (after folding), put one behind the block"
        )
    return last.maps[0]


def _check_skips(target: Network, skip: str) -> None:
    """Refuse a block that carries the network's input itself, of which a source holds no copies."""
    raw = {0}
    for number, step in enumerate(graph(target), start=1):
        if isinstance(step, Apply):
            if step.value in raw:
                raw.add(number)
            continue
        carried = [one for one in step.skips if not isinstance(one.layer, ChannelScale)]
        if skip == "carried" and any(one.reads in raw for one in carried):
            raise ValueError(
                f"source.skip: block {step.name} carries the network's input past its branch, and a "
                "source holds "
                "no copies of that: put a convolution before the block, or choose skip=random"
            )


def first_activation(target: Network) -> Activation:
    """The activation of univariate layers: the target's first one behind a linear layer (ReLU if there is
    none)."""
    behind = False
    for step in graph(target):
        if isinstance(step, Sum):
            behind = True
        elif behind and isinstance(step.layer, Activation):
            return step.layer
    return next(iter(activations(target)), Activation("relu"))


def first_info(target: Network) -> ActivationInfo:
    """What is known of `first_activation`, the phi of univariate layers."""
    first = first_activation(target)
    return activation_info(first.kind, first.slope)


def _linear(name: str, features: int, rank: int, *, bias: bool) -> Linear:
    """A 1x1 convolution on ``rank`` spatial axes; without any, a dense layer."""
    return Conv(name, features, (1,) * rank, use_bias=bias) if rank else Dense(name, features, bias)


def _widened(
    target: Network, m: int, copies: int, constants: int, skip: str, own_biases: bool
) -> tuple[Network, Univariate]:
    """The network of L + 1: m copies of each channel, and one layer in front."""
    last = output_map(target).path

    def wider(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer = place.layer
        if isinstance(layer, Conv | Dense):
            features = layer.features if place.path == last else m * layer.features + constants
            layer = replace(layer, features=features, use_bias=own_biases)
        return (*done, layer)

    def with_skip(place: Place, sides: Sides, value: int) -> Sides:
        node = graph(target)[value - 1]
        assert isinstance(node, Sum)
        layer = _solved(target, node, skip)
        if layer is not None:
            wide = replace(layer, features=m * node.features + constants, use_bias=False)
            return sides._replace(skip=(*_before(sides.skip, node), wide))
        carried = node.skips[0]
        if carried.layer is None:
            return sides
        assert isinstance(carried.layer, Subsample)
        cin = value_shapes(target)[carried.reads][-1]
        channels = carried_channels(carried.layer.channels, cin, m, constants)
        return sides._replace(skip=(*sides.skip[:-1], Subsample(carried.layer.stride, channels)))

    layers = rewrite(target, wider, with_skip).layers
    # What the target does to its input before any linear layer, the source does too; univariate channels are
    # made before a flattening.
    count = _leading(target)
    leading = tuple(layer for layer in layers[:count] if not isinstance(layer, Flatten))
    flat = tuple(layer for layer in layers[:count] if isinstance(layer, Flatten))
    shape = target.input_shape
    for layer in leading:
        shape = layer.output_shape(shape)
    first = Univariate(UNIVARIATE, shape[-1], copies, constants)
    front = _linear(UNIVARIATE, first.width, len(shape) - 1, bias=constants > 0)
    whole = (*leading, front, first_activation(target), *flat, *layers[count:])
    return Network(target.input_shape, whole), first


def _leading(target: Network) -> int:
    """Number of layers before the first linear layer or block."""
    return sum(1 for _ in takewhile(lambda layer: isinstance(layer, Stateless), target.layers))


def _solved(target: Network, node: Sum, skip: str) -> Linear | None:
    """The layer by which a skip is solved, with the target's width; None where it is carried."""
    if not node.skips:
        return node.maps[1].layer
    one = node.skips[0]
    if skip == "carried" and not isinstance(one.layer, ChannelScale):
        return None
    rank = len(value_shapes(target)[one.reads]) - 1
    if isinstance(one.layer, Subsample):
        return Conv(SKIP, node.features, (1,) * rank, one.layer.stride, use_bias=False)
    return _linear(SKIP, node.features, rank, bias=False)


def _before(skip: tuple[Layer, ...], node: Sum) -> tuple[Layer, ...]:
    """The layers of a block's skip that stand before its last term."""
    return skip if node.skips and node.skips[0].layer is None else skip[:-1]


def _doubled(target: Network, copies: int, biases: bool, skip: str, own_biases: bool) -> Network:
    """The network of 2L: every linear layer behind a univariate one."""
    act = first_activation(target)
    maps = [entry for node in sums(target) for entry in node.maps]
    flattened = {flat.reads for entry in maps if (flat := flattening(target, entry.reads)) is not None}

    def behind_univariate(layer: Linear, shape: Shape, flat: Flatten | None) -> tuple[Layer, ...]:
        inputs, rank = shape[-1], len(shape) - 1
        constants = min(2 * copies, MOST_CONSTANTS) if biases else 0
        one = Univariate(f"{layer.name}.{UNIVARIATE}", inputs, copies, constants)
        front = _linear(one.path, one.width, rank, bias=biases)
        return (front, act, *(() if flat is None else (flat,)), layer)

    def doubled(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer = place.layer
        if isinstance(layer, Flatten) and place.reads in flattened:
            return done  # the univariate layer reads channels, so it stands before the flattening
        if not isinstance(layer, Conv | Dense):
            return (*done, layer)
        flat = flattening(target, place.reads)
        layer = replace(layer, use_bias=own_biases and "/skip/" not in place.path)
        if flat is None:
            return (*done, *behind_univariate(layer, place.shape, None))
        return (*done, *behind_univariate(layer, flat.shape, flat.layer))

    def with_skip(place: Place, sides: Sides, value: int) -> Sides:
        node = graph(target)[value - 1]
        assert isinstance(node, Sum)
        layer = _solved(target, node, skip)
        if layer is None or not node.skips:
            return sides
        shape = value_shapes(target)[node.skips[0].reads]
        return sides._replace(skip=(*_before(sides.skip, node), *behind_univariate(layer, shape, None)))

    return rewrite(target, doubled, with_skip)


def carried_channels(channels: tuple[int, ...], cin: int, m: int, constants: int) -> tuple[int, ...]:
    """Option A for copies: copy k of output j is copy k of input ``channels[j]``; constants stay so."""
    copied = tuple(-1 if i < 0 else i * m + k for i in channels for k in range(m))
    return copied + tuple(cin * m + k for k in range(constants))
