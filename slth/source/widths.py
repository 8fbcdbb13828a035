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
from slth.source.layout import (
    MOST_CONSTANTS,
    SKIP,
    UNIVARIATE,
    Layout,
    LinearLayout,
    NodeLayout,
    Univariate,
    terms_of,
)
from slth.target import checked_integer, checked_word
from slth.types import Shape


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
    checked_word("source.skip", skip, ("carried", "random"))
    checked_word("source.depth", depth, ("L+1", "2L"))
    check_covered(target, skip)
    layout = made_layout(target, multiplicity, copies_per_sign, constants, skip, depth)
    return Wide(widened(target, layout, own_biases=own_biases), layout)


def check_covered(target: Network, skip: str) -> None:
    """Refuse a target of which no ticket can be constructed from a source with these skips, in one line.

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
        elif skip == "carried" and any(
            one.reads in raw and not isinstance(one.layer, ChannelScale) for one in step.skips
        ):
            raise ValueError(
                f"source.skip: block {step.name} carries the network's input past its branch, and a source"
                " holds no copies of that: put a convolution before the block, or choose skip=random"
            )
    if not sums(target):
        raise ValueError("target: it has no convolution or dense layer, so there is nothing to construct")
    last = sums(target)[-1]
    if len(last.maps) != 1 or last.skips:
        raise ValueError(
            f"target: it ends in the residual block {last.name}: a target must end in a convolution or dense "
            "layer (after folding), put one behind the block"
        )


def first_activation(target: Network) -> Activation:
    """The activation of univariate layers: the target's first one behind a linear layer (ReLU if there is
    none)."""
    found = activations(target)
    before = sum(isinstance(layer, Activation) for layer in target.layers[: _leading(target)])
    return (*found[before:], *found, Activation("relu"))[0]


def first_info(target: Network) -> ActivationInfo:
    """What is known of `first_activation`, the phi of univariate layers."""
    first = first_activation(target)
    return activation_info(first.kind, first.slope)


def _leading(target: Network) -> int:
    """Number of layers before the first linear layer or block."""
    return sum(1 for _ in takewhile(lambda layer: isinstance(layer, Stateless), target.layers))


def _unflattened(target: Network, value: int) -> Shape:
    """Shape of a value, or of that before it which a univariate layer reads in its place."""
    flat = flattening(target, value)
    return value_shapes(target)[value] if flat is None else flat.shape


def made_layout(target: Network, m: int, copies: int, constants: int, skip: str, depth: str) -> Layout:
    """The layout of the source with these settings (see `source_network`)."""
    doubled = depth == "2L"
    fresh = min(2 * copies, MOST_CONSTANTS) if doubled and constants else constants

    def univariate(path: str, value: int) -> Univariate:
        return Univariate(path, _unflattened(target, value)[-1], copies, fresh)

    nodes = []
    for number, step in enumerate(graph(target)):
        if isinstance(step, Sum):
            solved = skip == "random" or any(isinstance(one.layer, ChannelScale) for one in step.skips)
            maps = tuple(
                LinearLayout(path, univariate(f"{path}.{UNIVARIATE}", term.reads) if doubled else None)
                for path, term in terms_of(step).items()
                if solved or isinstance(term, Map)
            )
            once = doubled or step == sums(target)[-1]
            nodes.append(NodeLayout(number, maps, *((1, 0) if once else (m, constants))))
    first = None if doubled else univariate(UNIVARIATE, _leading(target))
    return Layout(m, first, tuple(nodes))


def widened(target: Network, layout: Layout, *, own_biases: bool) -> Network:
    """The network of the source with this layout: the target's layers, widened, and the univariate ones."""
    steps, act, leading = graph(target), first_activation(target), _leading(target)
    nodes = {node.step + 1: node for node in layout.nodes}  # by the values that they make
    owners = {entry.path: (node, entry) for node in layout.nodes for entry in node.maps}
    if layout.first is not None:
        read = [leading]
    else:
        terms = {path: term for step in sums(target) for path, term in terms_of(step).items()}
        read = [terms[path].reads for path in owners]
    # Univariate layers read channels: they stand before a flattening.
    flattened = {flat.reads for value in read if (flat := flattening(target, value)) is not None}

    def front(one: Univariate, value: int) -> tuple[Layer, ...]:
        flat, rank = flattening(target, value), len(_unflattened(target, value)) - 1
        name = one.path.rpartition("/")[2]
        layer = _linear(name, one.width, rank, bias=one.constants > 0)
        return (layer, act) if flat is None else (layer, act, flat.layer)

    def wider(layer: Linear, path: str, value: int) -> tuple[Layer, ...]:
        node, entry = owners[path]
        features = node.copies * layer.features + node.constants
        layer = replace(layer, features=features, use_bias=own_biases and entry == node.maps[0])
        return (layer,) if entry.front is None else (*front(entry.front, value), layer)

    def rule(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer = place.layer
        if layout.first is None and isinstance(layer, Flatten) and place.reads in flattened:
            return done
        if isinstance(layer, Conv | Dense):
            return (*done, *wider(layer, place.path, place.reads))
        return (*done, layer)

    def with_skip(place: Place, sides: Sides, value: int) -> Sides:
        node, step = nodes[value], steps[value - 1]
        assert isinstance(step, Sum)
        if not step.skips or (step.skips[0].layer is None and len(node.maps) == len(step.maps)):
            return sides  # a layer of its own, or the identity
        skip = step.skips[0]
        *space, cin = value_shapes(target)[skip.reads]
        before = sides.skip if skip.layer is None else sides.skip[:-1]
        if len(node.maps) > len(step.maps):
            layer = _linear(SKIP, step.features, len(space), bias=False)
            if isinstance(skip.layer, Subsample) and isinstance(layer, Conv):
                layer = replace(layer, stride=skip.layer.stride)
            return sides._replace(skip=(*before, *wider(layer, node.maps[-1].path, skip.reads)))
        assert isinstance(skip.layer, Subsample)
        channels = carried_channels(skip.layer.channels, cin, node.copies, node.constants)
        return sides._replace(skip=(*before, Subsample(skip.layer.stride, channels)))

    layers = rewrite(target, rule, with_skip).layers
    if layout.first is not None:
        before = (layer for value, layer in enumerate(layers[:leading]) if value not in flattened)
        layers = (*before, *front(layout.first, leading), *layers[leading:])
    return Network(target.input_shape, layers)


def _linear(name: str, features: int, rank: int, *, bias: bool) -> Linear:
    """A 1x1 convolution on ``rank`` spatial axes; without any, a dense layer."""
    return Conv(name, features, (1,) * rank, use_bias=bias) if rank else Dense(name, features, bias)


def carried_channels(channels: tuple[int, ...], cin: int, m: int, constants: int) -> tuple[int, ...]:
    """Option A for copies: copy k of output j is copy k of input ``channels[j]``; constants stay so."""
    copied = tuple(-1 if i < 0 else i * m + k for i in channels for k in range(m))
    return copied + tuple(cin * m + k for k in range(constants))
