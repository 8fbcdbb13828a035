r"""Error statistics of the copies: what a variable of the robust objective costs.

The price of variable k is :math:`v_k^2 E_{ik}^2`, E the root mean square error that copy k of channel i
carries, against :math:`R_i^2`, the mean square of the channel. E is *propagated* from layer to layer with
statistics of the target alone,

    E² of a pre-activation = sum e² R² + e_b² + sum_S v² E² + E_skip²,   E² after phi = E² mean(phi'²),

or *measured* by running the ticket beside the target on calibration images. Measured copies have gains too:
copy k carries :math:`g_{ik} x_i` and an error that x_i does not explain, which is what E then counts.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from slth.construction.state import Slots, Stream
from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.forward import each_value
from slth.nn.graph import Apply, graph
from slth.nn.layers import Activation
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.types import AnyArray, Batch, Params

IMAGES = 32
"""Images that the target's statistics are taken of at a time."""
SAMPLED = 4096
"""Positions at which remainders are looked at."""
FLAT = 1e-9
"""Share of a channel's power below which its variance is rounding."""
LEAST_GAIN = 0.25
"""Measured gains are at least this and at most its inverse: what a copy has beyond counts as its error."""


def slot_values(
    x: Float[Array, "... c"], channel: Int[Array, " slots"], sign: Int[Array, " slots"]
) -> Float[Array, "... slots"]:
    """What each slot's members should carry: x, or its positive or negative part."""
    values = x[..., channel]
    sign = jnp.reshape(sign, (1,) * (x.ndim - 1) + (-1,))
    return jnp.where(sign == 0, values, jnp.maximum(values * sign, 0))


class Value(NamedTuple):
    """One value of the target over images and positions, by channel."""

    power: Float[AnyArray, " c"]
    """mean(x²)."""
    mean: Float[AnyArray, " c"]
    positive_power: Float[AnyArray, " c"]
    """mean((x⁺)²)."""
    positive_mean: Float[AnyArray, " c"]
    negative_power: Float[AnyArray, " c"]
    negative_mean: Float[AnyArray, " c"]


class Seen(NamedTuple):
    """The target on the calibration images."""

    values: tuple[Value, ...]
    """By number; a flattened value as it was before."""
    slopes: dict[int, Float[AnyArray, " c"]]
    """mean(phi'(x)²) by channel of every activation, by number of its step: for ReLU the share above 0."""


def seen_on(network: Network, params: Params, images: Batch) -> Seen:
    """The statistics of a target on some images.

    They decide the prices of the robust objective, and so a ticket's bits. So they are computed by the host's
    processor, whatever other devices there are.
    """
    with jax.default_device(host()):
        found = _seen_on(network, params, np.asarray(images, np.float32))
    values, slopes = jax.tree.map(partial(np.asarray, dtype=np.float64), found)
    for number, step in enumerate(graph(network)):
        if isinstance(step, Apply) and isinstance(step.layer, Flatten):
            values[number + 1] = values[step.value]
    return Seen(tuple(values), slopes)


def host() -> jax.Device | None:  # pyright: ignore[reportInvalidTypeForm]  # a plain variable in jax
    """The processor, as a device; None, which is the usual device, where JAX is told to use others alone."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


@partial(jax.jit, static_argnums=0)
def _seen_on(network: Network, params: Params, images: Array) -> tuple[list[Value], dict[int, Array]]:
    def value_of(x: Array) -> Value:
        x = x.reshape(-1, x.shape[-1])
        parts = x, jnp.maximum(x, 0), jnp.maximum(-x, 0)
        return Value(*(a for part in parts for a in ((part**2).mean(0), part.mean(0))))

    def slope_of(x: Array, activation: Activation) -> Array:
        slope = jax.vmap(jax.grad(activation_info(activation.kind, activation.slope).phi))(x.reshape(-1))
        return (slope**2).reshape(-1, x.shape[-1]).mean(0)

    def of_image(x: Array) -> tuple[list[Value], dict[int, Array]]:
        values = each_value(network, params, x[None], lambda value: value)
        slopes = {
            number: slope_of(values[step.value], step.layer)
            for number, step in enumerate(graph(network))
            if isinstance(step, Apply) and isinstance(step.layer, Activation)
        }
        return [value_of(value) for value in values], slopes

    # A few images at a time: what all of them make of a layer may be large.
    by_image = lax.map(of_image, images, batch_size=IMAGES)
    return jax.tree.map(lambda a: a.mean(0), by_image)


def slot_size(
    seen: Value, slots: Slots, info: ActivationInfo, *, center: bool
) -> tuple[Float[np.ndarray, " slots"], Float[np.ndarray, " slots"]]:
    r"""R of every slot's value over images and positions, and the mean of what a unit of its sum brings.

    R is the root mean square; about the mean with ``center``, without which the mean counts as 0. A copy
    brings its channel x; univariate channels of the sign s bring the two lines of phi at s x,
    :math:`\mu_+ (s x)^+ - \mu_- (s x)^-`.
    """
    powers = {0: seen.power, 1: seen.positive_power, -1: seen.negative_power}
    means = {0: seen.mean, 1: seen.positive_mean, -1: seen.negative_mean}

    def of_sign(values: dict[int, AnyArray], sign: np.ndarray) -> np.ndarray:
        return np.select(
            [sign == one for one in values], [np.asarray(a)[slots.channel] for a in values.values()]
        )

    power, mean = of_sign(powers, slots.sign), of_sign(means, slots.sign)
    if not center:
        return np.sqrt(power), np.zeros_like(mean)
    rms = np.sqrt(np.maximum(power - mean**2, 0))
    if slots.carried:
        return rms, mean
    other = of_sign(means, -slots.sign)
    negative = np.where(slots.sign == 0, 0.0, info.mu_minus * other)
    return rms, info.mu_plus * mean - negative


def remainder_power(
    x: Float[Array, "n *space c"] | None, slots: Slots, info: ActivationInfo
) -> Float[np.ndarray, "slots copies"]:
    r"""Mean square of :math:`\phi(\alpha x) - \hat\phi(\alpha x)`, what each univariate channel misses of its
    two lines; of the bound r at \|x\| = 1 where there are no images.
    """
    alpha = slots.gain * np.where(slots.sign == 0, 1, slots.sign)[:, None]
    if info.homogeneous:
        return np.zeros(alpha.shape)
    if x is None:
        return np.vectorize(lambda a: info.remainder(abs(a)) ** 2)(alpha)
    values = np.asarray(x).reshape(-1, x.shape[-1])[:, slots.channel].T
    values = values[:, :: max(1, values.shape[1] // SAMPLED), None].astype(np.float64)  # (slots, samples, 1)
    u = alpha[:, None] * values
    missed = np.asarray(info.phi(jnp.asarray(u, jnp.float32)), np.float64) - info.offset
    missed -= np.where(u >= 0, info.mu_plus, info.mu_minus) * u
    return (missed**2).mean(1)


@jax.jit
def copy_errors(
    x: Float[Array, "n *space c"],
    ticket: Float[Array, "n *space source_c"],
    columns: Int[Array, "c copies"],
) -> tuple[Float[Array, "c copies"], Float[Array, " c"], Float[Array, " c"]]:
    """Mean squares over images and positions: of each copy's error, of their mean's, and of the target."""
    axes = tuple(range(x.ndim - 1))

    def step(total: Array, column: Array) -> tuple[Array, Array]:
        error = ticket[..., column] - x
        return total + error, (error**2).mean(axes)

    # A loop, one copy at a time: XLA would gather all copies first, as much as all of the ticket's values.
    total, errors = lax.scan(step, jnp.zeros_like(x), columns.T)
    return errors.T, ((total / columns.shape[1]) ** 2).mean(axes), (x**2).mean(axes)


def measured(stream: Stream, *, center: bool) -> Stream:
    """The copies of a stream with the gains and the errors that they have on the calibration images.

    Args:
      center: whether constants make up for means, so that gains and errors are those about the means.
    """
    if stream.x is None or stream.ticket is None:
        return stream
    gain, noise = _gains(stream.x, stream.ticket, stream.slots.members, center)
    gain, noise = (np.asarray(a, np.float64) for a in (gain, noise))
    return stream._replace(slots=stream.slots._replace(gain=gain), noise=noise)


@partial(jax.jit, static_argnums=3)
def _gains(
    x: Float[Array, "n *space c"],
    ticket: Float[Array, "n *space source_c"],
    columns: Int[Array, "c copies"],
    center: bool,
) -> tuple[Float[Array, "c copies"], Float[Array, "c copies"]]:
    """The gain of each copy z, E[z x] / E[x x], and the mean square of z - gain x. A channel that is the same
    everywhere has no gain that could be measured: 1."""

    def about(a: Array) -> Array:
        a = a.reshape(-1, len(columns))
        return a - a.mean(0)[None] if center else a

    least = FLAT * (x**2).mean(tuple(range(x.ndim - 1)))
    x = about(x)
    power = (x**2).mean(0)
    varies = power > least

    def step(_: None, column: Array) -> tuple[None, tuple[Array, Array]]:
        copy = about(ticket[..., column])
        gain = jnp.where(varies, (copy * x).mean(0) / jnp.where(varies, power, 1), 1)
        gain = jnp.clip(gain, LEAST_GAIN, 1 / LEAST_GAIN)
        return None, (gain, ((copy - gain[None] * x) ** 2).mean(0))

    # A loop, one copy at a time, as in `copy_errors`.
    _, (gain, noise) = lax.scan(step, None, columns.T)
    return gain.T, noise.T
