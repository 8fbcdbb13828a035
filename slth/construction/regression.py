"""What rounded rows follow from: moments about the means of what a node reads and should compute."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.construction.moments import HIGHEST, share_weights
from slth.construction.noise import slot_values
from slth.construction.samples import SAMPLED, Samples, patches
from slth.construction.state import Part, Rows, Stream


class Regression(NamedTuple):
    """What the best rows of a node follow from: moments about the means.

    There is one input for each (part, tap, slot), what the slot's members hold in units of their gains.
    """

    gram: Float[np.ndarray, "n n"]
    """Covariance of the inputs."""
    cross: Float[np.ndarray, "n rows"]
    """Covariance of inputs and wanted outputs."""
    mean_input: Float[np.ndarray, " n"]
    mean_output: Float[np.ndarray, " rows"]


def regression(parts: tuple[Part, ...], samples: Samples, skip: Stream | None, rows: Rows) -> Regression:
    """The moments of a node whose slots' members differ by their gains alone, in float64.

    The output that is wanted of a row is the target's, biases included, less what a carried skip brings.
    """
    outputs = rows.columns.reshape(-1)
    reads = tuple((part.layer, part.read.flat) for part in parts)
    streams = tuple(part.stream for part in parts)
    weights = tuple(np.float32(share_weights(part)).reshape(-1, part.weight.shape[2]) for part in parts)
    total = len(samples.image)
    pieces = list(samples.pieces(SAMPLED))
    count = sum(weight.shape[0] for weight in weights)
    # Products in float32 of values about their means: of the first piece, which are near those of all.
    about = np.zeros(count + 1 + len(outputs), np.float32)
    arguments = reads, streams, weights
    first = np.asarray(_products(*arguments, pieces[0], skip, outputs, about)[-1]) / len(pieces[0].image)
    about = np.where(np.arange(len(about)) == count, 0, first).astype(np.float32)
    products = sum(np.asarray(_products(*arguments, one, skip, outputs, about), np.float64) for one in pieces)
    products = np.asarray(products) / total
    mean, mean_output = products[-1, :count], products[-1, count + 1 :]
    gram = products[:count, :count] - np.outer(mean, mean)
    cross = products[:count, count + 1 :] - np.outer(mean, mean_output)
    bias = np.repeat(rows.bias, rows.columns.shape[1])
    return Regression(gram, cross, mean + about[:count], mean_output + about[count + 1 :] + bias)


@partial(jax.jit, static_argnums=0)
def _products(reads, streams, weights, samples, carried, outputs, about) -> Array:
    """Sums of products of (inputs, 1) with (inputs, 1, wanted outputs), less ``about``, over some samples."""
    count = len(samples.image)
    inputs, wanted = [], jnp.zeros((count, len(outputs)))
    for (layer, flat), stream, weight in zip(reads, streams, weights, strict=True):
        slots = stream.slots
        largest = jnp.abs(slots.gain).argmax(1)
        member = jnp.take_along_axis(slots.members, largest[:, None], 1)[:, 0]
        gain = jnp.take_along_axis(slots.gain, largest[:, None], 1)[None, None, :, 0]
        # Less phi(0) before it is padded: what constants cancel tap by tap is not there in the padding.
        held = patches(layer, stream.ticket[..., member] - slots.base, samples, flat)
        inputs.append(jnp.where(gain == 0, 0, held / jnp.where(gain == 0, 1, gain)).reshape(count, -1))
        x = slot_values(patches(layer, stream.x, samples, flat), slots.channel, slots.sign)
        wide = jnp.repeat(weight, len(outputs) // weight.shape[1], 1)
        wanted = wanted + jnp.dot(x.reshape(count, -1), wide, precision=HIGHEST)
    if carried is not None:
        here = (samples.image, *samples.place.T)
        x, ticket = carried.x[here], carried.ticket[here]
        wanted = wanted + jnp.repeat(x, len(outputs) // x.shape[1], 1) - ticket[:, outputs]
    every = jnp.concatenate([*inputs, jnp.ones((count, 1)), wanted], 1) - about[None]
    return jnp.dot(every[:, : -len(outputs)].T, every, precision=HIGHEST)
