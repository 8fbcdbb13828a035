"""A masked network without the channels that its outputs do not depend on: smaller, the same function."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from slth.construction.prune import Channels, made_values, needed
from slth.nn.graph import Sum, by_layer, graph, nested, value_shapes
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.rewrite import Place, Sides, rewrite
from slth.types import Mask, Params, Shape

Held = Int[np.ndarray, " _"]
"""The channels of the whole network that the compact one holds at a place, in order."""


class Compact(NamedTuple):
    """A network and its parameters, as `slth.nn.apply` takes them.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> small = slth.compact.compact(made.source.network, made.ticket.params, made.mask)
      >>> nn.count(small.params) < made.ticket.parameters
      True
    """

    network: Network
    params: Params


def compact(network: Network, params: Params, mask: Mask) -> Compact:
    r"""The network :math:`f(\mathrm{mask} \odot \mathrm{params})` with its dead channels left out.

    A channel is left out where no kept weight behind it reads it, or where it is zero for every input; the
    rows and columns of the kernels go with it. Where a carried skip then joins different channels, the
    identity becomes a `Subsample` of stride 1 that says which is which. Layers keep their names; one without
    any channel left keeps a single empty one. Outputs are the same but for the order of float32 sums.

    Args:
      network: without batch norm, as every source is.
      params: the parameters, masked or not.
      mask: a tree of boolean arrays of the same structure; a bias that it does not name is not kept.
    Returns: the smaller spec and float32 NumPy arrays (kernels still hold zeros between kept weights).
    Raises: ValueError for a network with batch norm.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> small = slth.compact.compact(made.source.network, made.ticket.params, made.mask)
      >>> x = jax.random.normal(jax.random.key(1), (10, 4))
      >>> bool(abs(made.factor * nn.apply(*small, x) - made.ticket(x)).max() < 1e-4)
      True
    """
    found = needed(network, mask)
    kept = by_layer(found.mask)
    values: dict[str, Params] = {
        path: {name: np.asarray(leaf, np.float32) for name, leaf in own.items()}
        for path, own in by_layer(params).items()
    }
    for path, own in kept.items():
        values[path] |= {name: np.where(keep, values[path][name], 0) for name, keep in own.items()}
    held = _held(network, found.read)
    columns = made_values(network)
    out: dict[str, Params] = {}

    def smaller(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer, path, inputs = place.layer, place.path, held[place.reads]
        match layer:
            case Conv() | Dense():
                outputs, own = held[columns[path]], values[path]
                out[path] = {"kernel": own["kernel"][..., inputs, :][..., outputs]}
                biased = layer.use_bias and bool(kept[path]["bias"][outputs].any())
                if biased:
                    out[path]["bias"] = own["bias"][outputs]
                layer = replace(layer, features=len(outputs), use_bias=biased)
            case Subsample(stride, channels):
                layer = Subsample(stride, _places(inputs, _moved(layer, inputs, place.shape), channels))
            case ChannelScale():
                out[path] = {"scale": values[path]["scale"][inputs]}
            case BatchNorm():
                raise ValueError(f"{path}: fold batch norm before a network is made compact")
        return (*done, layer)

    def joined(place: Place, sides: Sides, value: int) -> Sides:
        """The sides of a block with its skip's channels brought to those that its sum has."""
        step = graph(network)[value - 1]
        assert isinstance(step, Sum)
        for skip, side in zip(step.skips, _skip_sides(step), strict=True):
            inputs, layers = held[skip.reads], getattr(sides, side)
            match skip.layer:
                case Subsample(stride, channels):
                    joint = Subsample(stride, _places(inputs, held[value], channels))
                    sides = sides._replace(**{side: (*layers[:-1], joint)})
                case _ if not np.array_equal(inputs, held[value]):
                    joint = Subsample((1,) * (len(step.shape) - 1), _places(inputs, held[value]))
                    sides = sides._replace(**{side: (*layers, joint)})
        return sides

    return Compact(rewrite(network, smaller, joined), nested(out))


def _held(network: Network, read: tuple[Channels, ...]) -> list[Held]:
    """The channels of every value that the compact network holds; a sum without any keeps its first one."""
    shapes = value_shapes(network)
    held: list[Held] = [np.arange(network.input_shape[-1])]
    for number, step in enumerate(graph(network)):
        if isinstance(step, Sum):
            channels = read[number + 1]
            held.append(np.flatnonzero(channels) if channels.any() else np.zeros(1, int))
            continue
        before, layer = held[step.value], step.layer
        moves = isinstance(layer, Flatten | Subsample)
        held.append(_moved(layer, before, shapes[step.value]) if moves else before)
    return held


def _skip_sides(step: Sum) -> list[str]:
    """The side of its block on which each of a sum's skips stands: the branch first, where it is no map."""
    mapped = any(entry.path.startswith(f"{step.name}/branch/") for entry in step.maps)
    return (["skip"] if mapped else ["branch", "skip"])[: len(step.skips)]


def _moved(layer: Flatten | Subsample, held: Held, shape: Shape) -> Held:
    """Outputs that read a channel held, of a value of this shape; the first one where none does."""
    fed = np.flatnonzero(np.isin(layer.sources(shape), held))
    return fed if fed.size else np.zeros(1, int)


def _places(held: Held, outputs: Held, channels: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Where among the channels held each output is read from; -1 for one that is zero."""
    place = {int(channel): at for at, channel in enumerate(held)}
    reads = outputs if channels is None else [channels[j] for j in outputs]
    return tuple(place.get(int(i), -1) for i in reads)
