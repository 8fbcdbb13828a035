"""The spec of a source wide enough for a target: L + 1 layers, or two for each of the target's (2L)."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.graph import (
    Apply,
    Join,
    activations,
    behind,
    flattening,
    graph,
    linear_maps,
    sums,
    value_shapes,
)
from slth.nn.layers import Activation, ChannelScale, Concat, Conv, Dense, Layer, Linear, shape_after
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.rewrite import Place, Sides, rewrite
from slth.source.layout import (
    UNIVARIATE,
    Layout,
    LinearLayout,
    NodeLayout,
    Univariate,
    constant_side,
    leading,
    made_layout,
    terms_of,
    unflattened,
)
from slth.target import check_folded, checked_integer, checked_word


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
    univariate_signs: str = "random",
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
      univariate_signs: "random", or "positive": univariate layers have N channels for each input, of positive
        weight, where no input can be below 0 and phi has another slope there, as behind a ReLU.
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
    multiplicity = checked_integer("source.multiplicity", multiplicity, 1)
    copies_per_sign = checked_integer("source.univariate", copies_per_sign, 1)
    constants = checked_integer("source.constants", constants, 0)
    if not isinstance(own_biases, bool):
        raise ValueError(f"source.own_biases: expected True or False, got {own_biases!r}")
    checked_word("source.skip", skip, ("carried", "random"))
    checked_word("source.depth", depth, ("L+1", "2L"))
    checked_word("source.univariate_signs", univariate_signs, ("random", "positive"))
    check_covered(target, skip, depth)
    info = first_info(target)
    positive = univariate_signs == "positive" and info.mu_plus != info.mu_minus
    layout = made_layout(target, multiplicity, copies_per_sign, constants, skip, depth, positive=positive)
    return Wide(widened(target, layout, own_biases=own_biases), layout)


def check_covered(target: Network, skip: str, depth: str) -> None:
    """Refuse a target of which no ticket can be constructed from such a source, in one line.

    In 2L a source has the network's input as it is, and may do to it what the target does.

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
                inside = number >= leading(target) and not isinstance(step.layer, Flatten)
                if inside and depth == "L+1":
                    raise ValueError(
                        f"target: {step.layer} in its first block reads the network's input, of which a"
                        " source of L+1 holds no copies: put a convolution before the block, or choose depth"
                        " 2L"
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
            check_folded(step)
        elif isinstance(step, Join):
            if depth == "L+1" and raw.intersection(step.reads):
                raise ValueError(
                    f"target: {step.name} concatenates the network's input, and a source of L+1 holds no"
                    " copies of that: put a convolution before it, or choose depth 2L"
                )
            if any(flattening(target, value) for value in step.reads):
                raise ValueError(
                    f"target: {step.name} concatenates a flattened value, and a source carries channels: put"
                    " a dense layer between them"
                )
        elif len({map.layer.groups for map in step.maps if isinstance(map.layer, Conv)} - {1}) > 1:
            raise ValueError(
                f"target: the layers that {step.name} adds have different groups: give them the same, or put"
                " a convolution of one group last"
            )
        elif "/skip/" in step.name:
            block = step.name.partition("/skip/")[0]
            raise ValueError(
                f"target: the skip of block {block} must hold one convolution or dense layer at most, as its"
                f" last (after folding), and {step.path} stands before others: move it in front of the block"
            )
        elif any(one.side == "branch" and one.layer for one in step.skips):
            raise ValueError(
                f"target: the branch of block {step.name} must end in a convolution, a dense layer, an"
                " activation or a pooling (after folding): move what follows it behind the block's sum"
            )
        else:
            carried = [
                one.reads
                for one in step.skips
                if one.side == "branch" or not (skip == "random" or isinstance(one.layer, ChannelScale))
            ]
            if depth == "L+1" and raw.intersection(carried):
                raise ValueError(
                    f"source.skip: block {step.name} carries the network's input past its branch, and a"
                    " source of L+1 holds no copies of that: put a convolution before the block, or choose"
                    " skip=random or depth 2L"
                )
            if any(flattening(target, value) for value in carried):
                raise ValueError(
                    f"source.skip: block {step.name} carries a flattened value past its branch, and a"
                    " source carries channels: put a dense layer between them, or choose skip=random"
                )
    if not sums(target):
        raise ValueError("target: it has no convolution or dense layer, so there is nothing to construct")
    last = sums(target)[-1]
    if behind(target, len(graph(target))).name != last.name:
        raise ValueError(
            "target: it ends in a concatenation: a target must end in a convolution or dense layer, put one"
            " behind it"
        )
    if len(last.maps) != 1 or last.skips:
        raise ValueError(
            f"target: it ends in the residual block {last.name}: a target must end in a convolution or dense "
            "layer (after folding), put one behind the block"
        )


def first_activation(target: Network) -> Activation:
    """The activation of univariate layers: the target's first one behind a linear layer (ReLU if there is
    none)."""
    found = activations(target)
    before = sum(isinstance(layer, Activation) for layer in target.layers[: leading(target)])
    return (*found[before:], *found, Activation("relu"))[0]


def first_info(target: Network) -> ActivationInfo:
    """What is known of `first_activation`, the phi of univariate layers."""
    first = first_activation(target)
    return activation_info(first.kind, first.slope)


def widened(target: Network, layout: Layout, *, own_biases: bool) -> Network:
    """The network of the source with this layout: the target's layers, widened, and the univariate ones."""
    act, start = first_activation(target), leading(target)
    pairs = zip(sums(target), layout.nodes, strict=True)
    made = {node.step + 1: (step, node) for step, node in pairs}  # by the values that they make
    owners = {entry.path: (node, entry) for node in layout.nodes for entry in node.maps}
    joins = {step.name: step for step in graph(target) if isinstance(step, Join)}
    constants = max(node.constants for node in layout.nodes)
    if layout.first is not None:
        read = [start]
    else:
        read = [terms_of(step)[entry.path].reads for step, node in made.values() for entry in node.maps]
    # Univariate layers read channels: they stand before a flattening.
    flattened = {flat.reads for value in read if (flat := flattening(target, value)) is not None}

    def front(one: Univariate, value: int) -> tuple[Layer, ...]:
        flat, rank = flattening(target, value), len(unflattened(target, value)) - 1
        layer = _linear(one.path, one.width, rank, bias=one.constants > 0)
        if isinstance(layer, Conv) and one.groups > 1:
            layer = replace(layer, groups=one.groups, beside=(0, 2 * one.constants))
        return (layer, act) if flat is None else (layer, act, flat.layer)

    def wider(layer: Linear, path: str, value: int) -> tuple[Layer, ...]:
        node, entry = owners[path]
        features, bias = node.copies * layer.features + node.constants, own_biases and entry == node.maps[0]
        if isinstance(layer, Conv):
            groups = {"groups": entry.groups, "beside": beside(node, entry)}
            layer = replace(layer, features=features, use_bias=bias, **groups)
        else:
            layer = replace(layer, features=features, use_bias=bias)
        return (layer,) if entry.front is None else (*front(entry.front, value), layer)

    def beside(node: NodeLayout, entry: LinearLayout) -> tuple[int, int]:
        """The constants that a grouped convolution reads and makes."""
        if entry.groups == 1:
            return 0, 0
        return 2 * entry.front.constants if entry.front else constants, node.constants

    def rule(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer = place.layer
        if layout.first is None and isinstance(layer, Flatten) and place.reads in flattened:
            return done
        if isinstance(layer, Conv | Dense):
            return (*done, *wider(layer, place.path, place.reads))
        return (*done, layer)

    def with_skip(place: Place, sides: Sides, value: int) -> Sides:
        step, node = made[value]
        skip = next((one for one in step.skips if one.side == "skip"), None)
        if skip is None or (skip.layer is None and len(node.maps) == len(step.maps)):
            return sides  # a layer of its own, or the identity
        *space, cin = value_shapes(target)[skip.reads]
        before = sides.skip if skip.layer is None else sides.skip[:-1]
        if len(node.maps) > len(step.maps):
            path = node.maps[-1].path
            layer = _linear(path, step.features, len(space), bias=False)
            if isinstance(skip.layer, Subsample) and isinstance(layer, Conv):
                layer = replace(layer, stride=skip.layer.stride)
            return sides._replace(skip=(*before, *wider(layer, path, skip.reads)))
        assert isinstance(skip.layer, Subsample)
        channels = carried_channels(skip.layer.channels, cin, node.copies, node.constants)
        return sides._replace(skip=(*before, Subsample(skip.layer.stride, channels)))

    def joined(place: Place, block: Concat) -> tuple[Layer, ...]:
        """All copies, and the constants of one side."""
        if layout.first is None or not constants:
            return (block,)
        assert isinstance(place.layer, Concat)
        widths = [layout.multiplicity * shape_after(part, place.shape)[-1] for part in place.layer.parts]
        starts = np.cumsum([0, *(width + constants for width in widths)])[:-1]
        side = constant_side(target, joins[place.path])
        kept = [np.arange(start, start + width) for start, width in zip(starts, widths, strict=True)]
        kept.append(starts[side] + widths[side] + np.arange(constants))
        ones = (1,) * (len(place.layer.output_shape(place.shape)) - 1)
        return (block, Subsample(ones, tuple(np.concatenate(kept).tolist())))

    layers = rewrite(target, rule, with_skip, joined).layers
    if layout.first is not None:
        before = (layer for value, layer in enumerate(layers[:start]) if value not in flattened)
        layers = (*before, *front(layout.first, start), *layers[start:])
    return Network(target.input_shape, layers)


def _linear(path: str, features: int, rank: int, *, bias: bool) -> Linear:
    """A 1x1 convolution on ``rank`` spatial axes; without any, a dense layer."""
    name = path.rpartition("/")[2]
    return Conv(name, features, (1,) * rank, use_bias=bias) if rank else Dense(name, features, bias)


def carried_channels(channels: tuple[int, ...], cin: int, m: int, constants: int) -> tuple[int, ...]:
    """Option A for copies: copy k of output j is copy k of input ``channels[j]``; constants stay so."""
    copied = tuple(-1 if i < 0 else i * m + k for i in channels for k in range(m))
    return copied + tuple(cin * m + k for k in range(constants))
