r"""Univariate layers: channels :math:`\phi(\alpha_k x_i)` of one input each, constants :math:`\phi(\beta_k)`.

L + 1 has one in front of the network, 2L one in front of every linear layer. It reads a stream of one member
a channel and gives one whose slots hold several members each, so that a layer of random weights can sum to
any weight.
"""

import jax.numpy as jnp
import numpy as np

from slth.construction import noise as noise_of
from slth.construction.plan import Plan
from slth.construction.state import Read, Stream, joined_slots, univariate_slots
from slth.nn.forward import parameter_shapes
from slth.nn.graph import linear_maps
from slth.source import parameter
from slth.source.drawn import drawn
from slth.source.layout import Univariate
from slth.source.scales import OFFSET_ERROR


def univariate_stream(
    plan: Plan, stream: Stream, read: Read, layout: Univariate
) -> tuple[Stream, dict[str, np.ndarray]]:
    r"""Univariate channels of each sign that the stream may have, and fresh constants (biases).

    What a stream's single members miss is shared by all univariate channels of the input, whichever are
    chosen, so it is not part of their price. The noise of these channels is what phi misses of its two lines.
    """
    source, info = plan.source, plan.info
    shape = parameter_shapes(source.network)[f"{layout.path}/kernel"]
    kernel = drawn(source, layout.path).whole().reshape(shape)
    rows, width = shape[-2:]
    constants = layout.constants
    signs = (1,) if read.nonnegative else (1, -1)
    carrying = stream.slots.members[:, 0]
    each = layout.first_constant // layout.groups
    alpha = kernel.reshape(rows, width)
    slots = joined_slots(
        [
            univariate_slots(
                alpha[carrying[g * rows : (g + 1) * rows] - g * rows, g * each : (g + 1) * each],
                layout.copies,
                signs,
                info,
            )
            for g in range(layout.groups)
        ],
        each,
        rows,
    )
    mask = np.zeros((rows, width), bool)
    used = slots.gain != 0
    inputs = np.broadcast_to(carrying[slots.channel][:, None] % rows, used.shape)
    mask[inputs[used], slots.members[used]] = True
    random, masks = {"kernel": kernel}, {"kernel": mask.reshape(kernel.shape)}
    channels, values = np.zeros(0, int), np.zeros(0)
    if constants:
        bias = np.asarray(parameter(source, f"{layout.path}/bias"))
        most = 2 * constants if info.mu_plus * info.mu_minus else constants  # of ReLU's, half are 0
        value = np.asarray(info.phi(bias), np.float64)  # pyright: ignore[reportArgumentType]
        channels = layout.first_constant + np.flatnonzero(value[layout.first_constant :] != 0)[:most]
        values = value[channels]
        random["bias"], masks["bias"] = bias, np.isin(np.arange(width), channels)
    noise = (OFFSET_ERROR * slots.base) ** 2 + noise_of.remainder_power(stream.x, slots, info)
    slots = slots._replace(gain=slots.gain * stream.slots.gain[slots.channel, :1])
    ticket = None
    if stream.ticket is not None:
        layer = linear_maps(source.network)[layout.path].layer
        kept = {name: jnp.where(masks[name], array, 0) for name, array in random.items()}
        ticket = plan.activation.apply({}, layer.apply(kept, stream.ticket))
    made = Stream(slots, channels, values, noise, stream.x, ticket)
    return made, {f"{layout.path}/{name}": mask for name, mask in masks.items()}
