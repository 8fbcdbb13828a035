r"""Univariate layers: channels :math:`\phi(\alpha_k x_i)` of one input each, constants :math:`\phi(\beta_k)`.

L + 1 has one in front of the network, 2L one in front of every linear layer. It reads a stream of one member
a channel and gives one whose slots hold several members each, so that a layer of random weights can sum to
any weight.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.construct import noise as noise_of
from slth.construct.context import Context
from slth.construct.layout import UNIVARIATE, copies, split, univariate
from slth.construct.node import Stream
from slth.construct.univariate import OFFSET_ERROR
from slth.nn.layers import Activation, Conv, Dense, Layer, Linear
from slth.nn.pooling import Flatten
from slth.source import parameter, parameter_shapes


class Pair(NamedTuple):
    """A layer of the target, what stands for it in the source, and the univariate layer before that in 2L."""

    target: Layer
    source: Layer
    front: tuple[Linear, Activation] | None = None


def paired(layers: tuple[Layer, ...], source_layers: tuple[Layer, ...]) -> tuple[Pair, ...]:
    """Layer by layer. Flattening has nothing to pair: the walk remembers it, wherever the source does it."""
    left = [layer for layer in source_layers if not isinstance(layer, Flatten)]
    pairs = []
    for layer in layers:
        front = None
        if isinstance(layer, Flatten):
            pairs.append(Pair(layer, layer))
            continue
        if isinstance(layer, Conv | Dense) and getattr(left[0], "name", "") == f"{layer.name}.{UNIVARIATE}":
            first, act = left.pop(0), left.pop(0)
            assert isinstance(first, Conv | Dense)
            assert isinstance(act, Activation)
            front = (first, act)
        pairs.append(Pair(layer, left.pop(0), front))
    assert not left
    return tuple(pairs)


def input_stream(context: Context, calibration: Float[Array, "n *shape"] | None) -> Stream:
    """The network's input: every channel stands for itself, exactly."""
    channels = np.arange(context.target.input_shape[-1])[:, None]
    none = np.zeros(0)
    ticket = calibration if context.runs_ticket else None
    noise = np.zeros(channels.shape)
    return Stream(
        *(context.target.input_shape, copies(channels), none.astype(int), none, noise, calibration, ticket),
        nonnegative=context.solver.inputs == "nonnegative",
    )


def univariate_stream(
    stream: Stream, layer: Linear, activation: Activation, path: str, context: Context
) -> Stream:
    r"""Univariate channels of each sign that the stream may have, and fresh constants (biases).

    What the stream's single members miss is common to all univariate channels of an input, whichever are
    chosen, so it is no price of theirs; their noise is what phi misses of its two lines.
    """
    source, info = context.source, context.info
    kernel = np.asarray(parameter(source, f"{path}/kernel"))
    cin, width = kernel.shape[-2:]
    if context.two_layers:
        per_slot, constants = split(width, len(stream.slots.channel), layer.use_bias)
    else:
        constants = _constant_count(context)
        per_slot = (width - 2 * constants) // (2 * cin)
    signs = (1,) if stream.nonnegative else (1, -1)
    carrying = stream.slots.members[:, 0]
    alpha = kernel.reshape(cin, width)[carrying, : width - 2 * constants]
    slots = univariate(alpha, per_slot, signs, info)
    mask = np.zeros((cin, width), bool)
    used = slots.gain != 0
    read = np.broadcast_to(carrying[slots.channel][:, None], used.shape)
    mask[read[used], slots.members[used]] = True
    context.masks[f"{path}/kernel"] = mask.reshape(kernel.shape)
    channels, values = np.zeros(0, int), np.zeros(0)
    if constants:
        bias = np.asarray(parameter(source, f"{path}/bias"))
        most = 2 * constants if info.mu_plus * info.mu_minus else constants  # of ReLU's, half are 0
        value = np.asarray(info.phi(jnp.asarray(bias)), np.float64)
        channels = width - 2 * constants + np.flatnonzero(value[-2 * constants :] != 0)[:most]
        values = value[channels]
        bias_mask = np.zeros(width, bool)
        bias_mask[channels] = True
        context.masks[f"{path}/bias"] = bias_mask
    noise = (OFFSET_ERROR * slots.base) ** 2 + noise_of.remainder_power(stream.x, slots, info)
    ticket = None
    if stream.ticket is not None:
        masked = {"kernel": jnp.where(context.masks[f"{path}/kernel"], kernel, 0)}
        if constants:
            masked["bias"] = jnp.where(context.masks[f"{path}/bias"], bias, 0)
        ticket = activation.apply({}, layer.apply(masked, stream.ticket))
    return stream._replace(
        slots=slots, constant_channels=channels, constants=values, noise=noise, ticket=ticket
    )


def _constant_count(context: Context) -> int:
    """K of L + 1: what the widths of the source leave beside the copies."""
    hidden = next(layer for layer in context.source.network.layers[2:] if isinstance(layer, Conv | Dense))
    target = next(layer for layer in context.target.layers if isinstance(layer, Conv | Dense))
    if f"{UNIVARIATE}/bias" not in parameter_shapes(context.source.network):
        return 0
    if target is context.last:
        return context.source.multiplicity
    return hidden.features - context.source.multiplicity * target.features
