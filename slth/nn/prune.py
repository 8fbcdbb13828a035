"""Masks without dead ends: a channel that nothing reads keeps no weights, and none reads a silent one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from slth.nn.activations import activation_info
from slth.nn.graph import Join, Map, Sum, by_layer, graph, linear_maps, nested, value_shapes
from slth.nn.layers import Activation
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.types import Mask, Params, Shape

Channels = Bool[np.ndarray, " _"]
States = Int[np.ndarray, " _"]
SILENT, CONSTANT, VARYING = 0, 1, 2
"""What a channel holds: zero, the same for every input (not the same at every position), or neither."""
Masks = dict[str, dict[str, np.ndarray]]
"""Copies of a mask's arrays by layer; a bias that the mask does not name is there, and not kept."""


def masked(params: Params, mask: Mask) -> Params:
    """mask * params, for `slth.nn.apply`; differentiable in the parameters.

    Example:
      >>> import numpy as np
      >>> from slth import pruning
      >>> pruning.masked({"a": {"kernel": np.ones(2)}}, {"a": {"kernel": np.array([True, False])}})
      {'a': {'kernel': Array([1., 0.], dtype=float32)}}
    """
    return jax.tree.map(lambda values, kept: jnp.where(kept, values, 0), params, mask)


def prune(network: Network, mask: Mask) -> Mask:
    """The smallest mask with the same outputs that differs from ``mask`` by whole channels' rows and columns.

    Forward: a channel with no kept weight into it (and none carried to it) is silent wherever phi(0) = 0;
    weights that read it are dropped. Backward: a channel that no kept weight reads (and no skip carries on)
    is dead; weights into it are dropped. Both exact. A bias that the mask does not name is dropped.

    Example:
      >>> import numpy as np
      >>> from slth import construction, nn
      >>> network = nn.Network((2,), (nn.Dense("a", 2, use_bias=False), nn.Dense("b", 1, use_bias=False)))
      >>> mask = {"a": {"kernel": np.ones((2, 2), bool)}, "b": {"kernel": np.array([[True], [False]])}}
      >>> construction.prune(network, mask)["a"]["kernel"].tolist()      # nothing reads the second channel
      [[True, False], [True, False]]
    """
    masks = _copies(network, mask)
    _states(network, masks)
    _reads(network, masks)
    return nested(masks)


def read_channels(network: Network, mask: Mask) -> dict[str, Channels]:
    """For every linear layer by path, which of its output channels some kept weight behind it reads.

    Layers of one sum share its channels; a sum that is named after its block stands there too. All outputs of
    the network are read.
    """
    reads = _reads(network, _copies(network, mask))
    return {path: reads[value] for path, value in (sum_values(network) | made_values(network)).items()}


def sum_values(network: Network) -> dict[str, int]:
    """For every sum by its path, the number of its value."""
    return {step.path: value for value, step in enumerate(graph(network), start=1) if isinstance(step, Sum)}


def made_values(network: Network) -> dict[str, int]:
    """For every linear layer by path, the number of the value that its sum makes."""
    steps = enumerate(graph(network), start=1)
    return {entry.path: value for value, step in steps if isinstance(step, Sum) for entry in step.maps}


class Needed(NamedTuple):
    """What of a pruned network its outputs depend on."""

    mask: Mask
    """The pruned mask."""
    read: tuple[Channels, ...]
    """For every value of the network, channels that are read and not silent to every reader."""
    state: tuple[States, ...]
    """For every value, whether the channel is `SILENT`, `CONSTANT` or `VARYING`."""


def needed(network: Network, mask: Mask) -> Needed:
    """The channels that cannot be left out; a carried skip does not ask for one that holds nothing."""
    masks = _copies(network, prune(network, mask))
    states = _states(network, masks)
    reads = _reads(network, masks, states)
    return Needed(nested(masks), reads, states)


class ChannelCounts(NamedTuple):
    """Hidden channels of a network: those of its sums but the last."""

    channels: int
    kept: int
    """Those that the outputs depend on."""
    constants: int
    """Those of the kept ones whose value does not depend on the input."""


def count_channels(network: Network, mask: Mask) -> ChannelCounts:
    """How many hidden channels of the masked network there are, remain, and are constant."""
    found = needed(network, mask)
    hidden = [number for number, step in enumerate(graph(network), start=1) if isinstance(step, Sum)][:-1]
    return ChannelCounts(
        sum(found.read[value].size for value in hidden),
        sum(int(found.read[value].sum()) for value in hidden),
        sum(int((found.read[value] & (found.state[value] != VARYING)).sum()) for value in hidden),
    )


def _copies(network: Network, mask: Mask) -> Masks:
    masks = {path: {name: np.array(a) for name, a in own.items()} for path, own in by_layer(mask).items()}
    for entry in linear_maps(network).values():
        if entry.layer.use_bias:
            masks[entry.path].setdefault("bias", np.zeros(entry.layer.features, bool))
    return masks


def _states(network: Network, masks: Masks) -> tuple[States, ...]:
    """What the channels of every value hold; drops weights that read silent ones. A flattened value counts
    features."""
    states: list[States] = [np.full(network.input_shape[-1], VARYING)]
    shapes = value_shapes(network)
    for step in graph(network):
        if isinstance(step, Sum):
            terms = [_mapped(entry, masks[entry.path], states[entry.reads]) for entry in step.maps]
            terms += [_behind(skip.layer, states[skip.reads], shapes[skip.reads]) for skip in step.skips]
            states.append(np.maximum.reduce(terms))
            continue
        if isinstance(step, Join):
            states.append(np.concatenate([states[value] for value in step.reads]))
            continue
        state = _behind(step.layer, states[step.value], shapes[step.value])
        match step.layer:
            case Activation(kind, slope) if activation_info(kind, slope).offset != 0:
                state = np.maximum(state, CONSTANT)
        states.append(state)
    return tuple(states)


def _mapped(entry: Map, own: dict[str, np.ndarray], state: States) -> States:
    """What a linear layer makes of channels in these states."""
    kernel, read = own["kernel"], state[entry.layer.inputs(len(state))]
    kernel &= read > SILENT
    out = np.zeros(kernel.shape[-1], int)
    kept = kernel.reshape(-1, *kernel.shape[-2:]).any(0)
    for level in (CONSTANT, VARYING):
        out[(kept & (read == level)).any(0)] = level
    return np.maximum(out, CONSTANT * own["bias"]) if "bias" in own else out


def _behind(layer: object, state: States, shape: Shape) -> States:
    """What the channels behind a layer hold, where those of its value of this shape are in these states."""
    if not isinstance(layer, Flatten | Subsample):
        return state
    source = layer.sources(shape)
    return np.where(source >= 0, state[source], SILENT)


def _reads(network: Network, masks: Masks, states: tuple[States, ...] | None = None) -> tuple[Channels, ...]:
    """Which channels of every value are read; drops weights into those that are not.

    With ``states``, a skip does not read what is silent.
    """
    shapes = value_shapes(network)
    reads = [np.zeros(shape[-1], bool) for shape in shapes]
    reads[-1] |= True
    for number, step in reversed(list(enumerate(graph(network)))):
        read = reads[number + 1]
        if isinstance(step, Join):
            ends = np.cumsum([shapes[value][-1] for value in step.reads])[:-1]
            for value, own in zip(step.reads, np.split(read, ends), strict=True):
                reads[value] |= own
            continue
        if not isinstance(step, Sum):
            reads[step.value] |= _before(step.layer, read, shapes[step.value])
            continue
        for entry in step.maps:
            own = masks[entry.path]
            own["kernel"] &= read
            if "bias" in own:
                own["bias"] &= read
            kernel, index = own["kernel"], entry.layer.inputs(shapes[entry.reads][-1])
            kept = np.asarray(kernel.reshape(-1, *kernel.shape[-2:]).any(0))
            kept = kept if index.shape[1] > 1 else np.any(kept, axis=-1, keepdims=True)
            reads[entry.reads][index[kept]] = True
        for skip in step.skips:
            carried = _before(skip.layer, read, shapes[skip.reads])
            reads[skip.reads] |= carried if states is None else carried & (states[skip.reads] > SILENT)
    return tuple(reads)


def _before(layer: object, read: Channels, shape: Shape) -> Channels:
    """Channels of a value of this shape that a layer needs for the ones read behind it."""
    if not isinstance(layer, Flatten | Subsample):
        return read
    return np.isin(np.arange(shape[-1]), layer.sources(shape)[read])
