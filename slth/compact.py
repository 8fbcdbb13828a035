"""A masked network without the channels that its outputs do not depend on: smaller, the same function."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from slth.nn.graph import Join, Sum, by_layer, graph, nested, value_shapes
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.prune import Channels, made_values, needed, sum_values
from slth.nn.rewrite import Place, Sides, rewrite
from slth.types import AnyArray, Mask, Params, Shape

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
    thin = thinned(network, mask)
    return Compact(thin.network, thin.params(params))


class Thinned(NamedTuple):
    """A masked network's spec without its dead channels, and which channels are left.

    Example:
      >>> import numpy as np
      >>> from slth import compact, nn
      >>> layers = (nn.Dense("a", 3, use_bias=False), nn.Activation("relu"), nn.Dense("b", 1, use_bias=False))
      >>> mask = {"a": {"kernel": np.eye(2, 3, dtype=bool)}, "b": {"kernel": np.ones((3, 1), bool)}}
      >>> thin = compact.thinned(nn.Network((2,), layers), mask)
      >>> thin.columns["a"].tolist(), thin.rows["b"].tolist()
      ([0, 1], [0, 1])
    """

    network: Network
    mask: dict[str, dict[str, np.ndarray]]
    """The pruned mask of the whole network, by layer."""
    rows: dict[str, Held]
    """Rows left of each layer's kernel (or factors) by path: its input channels, or those of a group."""
    columns: dict[str, Held]
    """Output channels left of each linear layer by path, and of each sum that is named after its block."""

    def cut(self, path: str, name: str, values: np.ndarray) -> np.ndarray:
        """What is left of a parameter, or of any array of its shape."""
        if name == "kernel":
            return values[..., self.rows[path], :][..., self.columns[path]]
        return values[self.columns[path] if name == "bias" else self.rows[path]]

    def layer(self, path: str, values: Mapping[str, AnyArray]) -> Params:
        """A layer's masked parameters, without what is left out; a bias of which nothing is kept goes."""
        kept = self.mask.get(path, {})
        arrays = {name: np.asarray(leaf, np.float32) for name, leaf in values.items()}
        arrays |= {name: np.where(keep, arrays[name], 0) for name, keep in kept.items()}
        left = {name: self.cut(path, name, leaf) for name, leaf in arrays.items()}
        if "bias" in kept and not self.cut(path, "bias", kept["bias"]).any():
            del left["bias"]
        return left

    def params(self, params: Params) -> Params:
        """The parameters of the smaller network, of those of the whole one."""
        return nested({path: self.layer(path, own) for path, own in by_layer(params).items()})

    def whole(self, path: str, left: np.ndarray) -> np.ndarray:
        """A layer's mask of its kernel in which what is left is replaced; the inverse of `cut`."""
        kernel = np.array(self.mask[path]["kernel"])
        taps = (np.arange(size) for size in kernel.shape[:-2])
        kernel[np.ix_(*taps, self.rows[path], self.columns[path])] = left
        return kernel


def thinned(network: Network, mask: Mask) -> Thinned:
    """The spec of a masked network without the channels that its outputs do not depend on.

    Args: as of `compact`.
    Raises: ValueError for a network with batch norm.

    Example:
      >>> import numpy as np
      >>> from slth import compact, nn
      >>> network = nn.Network((2,), (nn.Dense("a", 3, use_bias=False),))
      >>> thin = compact.thinned(network, {"a": {"kernel": np.ones((2, 3), bool)}})
      >>> thin.cut("a", "kernel", np.arange(6).reshape(2, 3)).tolist()
      [[0, 1, 2], [3, 4, 5]]
    """
    found = needed(network, mask)
    kept = by_layer(found.mask)
    held = _held(network, found.read)
    columns = {path: held[value] for path, value in (sum_values(network) | made_values(network)).items()}
    rows: dict[str, Held] = {}

    def smaller(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer, path, inputs = place.layer, place.path, held[place.reads]
        match layer:
            case Conv() | Dense():
                rows[path], outputs = inputs, columns[path]
                sizes: dict[str, Any] = {"features": len(outputs)}
                sizes["use_bias"] = layer.use_bias and bool(kept[path]["bias"][outputs].any())
                if isinstance(layer, Conv) and layer.groups > 1:
                    each = layer.rows(place.shape[-1]) - layer.beside[0]
                    rows[path], read = _of_groups(kept[path]["kernel"], each, layer.groups)
                    dealt = layer.features - layer.beside[1]
                    sizes["beside"] = int((rows[path] >= each).sum()), int((outputs >= dealt).sum())
                    at = _places(inputs, read)
                    if at != tuple(range(len(inputs))):
                        done = (*done, Subsample((1,) * len(layer.kernel), at))
                layer = replace(layer, **sizes)
            case Subsample(stride, channels):
                layer = Subsample(stride, _places(inputs, _moved(layer, inputs, place.shape), channels))
            case ChannelScale():
                rows[path] = inputs
            case BatchNorm():
                raise ValueError(f"{path}: fold batch norm before a network is made compact")
        return (*done, layer)

    def joined(place: Place, sides: Sides, value: int) -> Sides:
        """The sides of a block with its skip's channels brought to those that its sum has."""
        step = graph(network)[value - 1]
        assert isinstance(step, Sum)
        for skip in step.skips:
            side = skip.side
            inputs, layers = held[skip.reads], getattr(sides, side)
            match skip.layer:
                case Subsample(stride, channels):
                    joint = Subsample(stride, _places(inputs, held[value], channels))
                    sides = sides._replace(**{side: (*layers[:-1], joint)})
                case _ if not np.array_equal(inputs, held[value]):
                    joint = Subsample((1,) * (len(step.shape) - 1), _places(inputs, held[value]))
                    sides = sides._replace(**{side: (*layers, joint)})
        return sides

    return Thinned(rewrite(network, smaller, joined), kept, rows, columns)


def _of_groups(kernel: np.ndarray, each: int, groups: int) -> tuple[Held, Held]:
    """Rows left of the kernel of a grouped layer, as many in each group, and the channels that they read.

    Args:
      each: inputs of a group; further rows are beside the groups.
    """
    used = np.asarray(kernel.reshape(-1, *kernel.shape[-2:]).any((0, 2)))
    used[0] |= not used[:each].any()
    rows = np.flatnonzero(used)
    own, beside = rows[rows < each], rows[rows >= each]
    first = each * np.arange(groups)[:, None]
    return rows, np.concatenate([(first + own).reshape(-1), beside + each * (groups - 1)])


def _alike(channels: Channels, groups: int, beside: int) -> Channels:
    """Channels that groups have, as many in each, among them all of these."""
    dealt = channels.size - beside
    local = np.asarray(channels[:dealt].reshape(groups, -1).any(0))
    local[0] |= not local.any()
    return np.concatenate([np.tile(local, groups), channels[dealt:]])


def _held(network: Network, read: tuple[Channels, ...]) -> list[Held]:
    """The channels of every value that the compact network holds; a sum without any keeps its first one."""
    shapes = value_shapes(network)
    held: list[Held] = [np.arange(network.input_shape[-1])]
    for number, step in enumerate(graph(network)):
        if isinstance(step, Sum):
            channels = read[number + 1]
            for entry in step.maps:
                if isinstance(entry.layer, Conv) and entry.layer.groups > 1:
                    channels = _alike(channels, entry.layer.groups, entry.layer.beside[1])
            held.append(np.flatnonzero(channels) if channels.any() else np.zeros(1, int))
            continue
        if isinstance(step, Join):
            starts = np.cumsum([0, *(shapes[value][-1] for value in step.reads)])
            held.append(
                np.concatenate(
                    [held[value] + start for value, start in zip(step.reads, starts, strict=False)]
                )
            )
            continue
        before, layer = held[step.value], step.layer
        moves = isinstance(layer, Flatten | Subsample)
        held.append(_moved(layer, before, shapes[step.value]) if moves else before)
    return held


def _moved(layer: Flatten | Subsample, held: Held, shape: Shape) -> Held:
    """Outputs that read a channel held, of a value of this shape; the first one where none does."""
    fed = np.flatnonzero(np.isin(layer.sources(shape), held))
    return fed if fed.size else np.zeros(1, int)


def _places(held: Held, outputs: Held, channels: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Where among the channels held each output is read from; -1 for one that is zero."""
    place = {int(channel): at for at, channel in enumerate(held)}
    reads = outputs if channels is None else [channels[j] for j in outputs]
    return tuple(place.get(int(i), -1) for i in reads)
