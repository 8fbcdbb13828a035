"""Whether a source does to its values what its target does: activations, pooling, flattening, skips."""

from typing import NamedTuple

from slth.nn.graph import Sum, applied_before, graph, linear_maps, value_shapes
from slth.nn.layers import Activation
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.source.layout import Layout, LinearLayout, NodeLayout
from slth.source.widths import carried_channels, first_activation

HINT = "make the source of this target with slth.Source.of(target)"


class Behind(NamedTuple):
    """Where a value comes from."""

    name: str
    """Of the last sum before it; empty for the network's input."""
    layers: tuple[object, ...]
    """What is done to that sum, in order."""


def check_agreement(target: Network, network: Network, layout: Layout) -> None:
    """Refuse a source whose layers have the target's widths, and other things between them.

    Args:
      network: of a source with this layout for the target.
    Raises: ValueError, naming the layer, what was expected and what to do.
    """
    sums = {step.name: step for step in graph(network) if isinstance(step, Sum)}
    for node in layout.nodes:
        step = graph(target)[node.step]
        assert isinstance(step, Sum)
        reads = [entry.reads for entry in step.maps]
        if solved := len(node.maps) > len(reads):
            reads.append(step.skips[0].reads)
        for entry, value in zip(node.maps, reads, strict=True):
            _check_map(target, network, layout, entry, value)
        if step.skips and not solved:
            _check_carried(target, network, layout, node, step, sums[step.name])


def behind(network: Network, value: int) -> Behind:
    """The last sum before a value, and the layers between."""
    applied = applied_before(network, value)
    value = applied[-1].value if applied else value
    name = ""
    if value > 0:
        step = graph(network)[value - 1]
        assert isinstance(step, Sum)
        name = step.name
    return Behind(name, tuple(step.layer for step in reversed(applied)))


def _check_map(target: Network, network: Network, layout: Layout, entry: LinearLayout, value: int) -> None:
    """A linear map reads what the target's reads, or univariate channels of it."""
    wide, expected = linear_maps(network), behind(target, value)
    front = entry.front or (layout.first if not expected.name else None)
    if front is not None:
        flat = tuple(layer for layer in expected.layers if isinstance(layer, Flatten))
        own = Behind(front.path, (first_activation(target), *flat))
        _compare(entry.path, own, behind(network, wide[entry.path].reads))
        plain = tuple(layer for layer in expected.layers if not isinstance(layer, Flatten))
        _compare(front.path, Behind(expected.name, plain), behind(network, wide[front.path].reads))
    else:
        _compare(entry.path, expected, behind(network, wide[entry.path].reads))


def _check_carried(
    target: Network, network: Network, layout: Layout, node: NodeLayout, step: Sum, other: Sum
) -> None:
    """A carried skip carries, copy by copy, what the target's does (``other``: the source's sum)."""
    skip = step.skips[0]
    layer = skip.layer
    if isinstance(layer, Subsample) and layout.depth == "L+1":
        cin = value_shapes(target)[skip.reads][-1]
        channels = carried_channels(layer.channels, cin, layout.multiplicity, node.constants)
        layer = Subsample(layer.stride, channels)
    if other.skips[0].layer != layer:
        raise ValueError(
            f"source: the skip of its block {step.name} carries other channels than the target's: {HINT}"
        )
    _compare(f"{step.name}/skip", behind(target, skip.reads), behind(network, other.skips[0].reads))


def _compare(path: str, expected: Behind, found: Behind) -> None:
    if found != expected:
        raise ValueError(
            f"source: layer {path} reads {_words(found)}, and for this target should read "
            f"{_words(expected)}: {HINT}"
        )


def _words(value: Behind) -> str:
    """A value in words, such as "conv1, relu, Flatten(order='hwc')"."""
    names = [value.name or "the input"]
    for layer in value.layers:
        match layer:
            case Activation("leaky_relu", slope):
                names.append(f"leaky_relu({slope:g})")
            case Activation(kind):
                names.append(kind)
            case _:
                names.append(repr(layer))
    return ", ".join(names)
