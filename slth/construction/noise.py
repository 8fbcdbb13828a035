r"""Error statistics of the copies: what a variable of the robust objective costs.

The price of variable k is :math:`v_k^2 E_{ik}^2`, E the root mean square error that copy k of channel i
carries, against :math:`R_i^2`, the mean square of the channel. E is *propagated* from layer to layer with
statistics of the target alone,

    E² of a pre-activation = sum e² R² + e_b² + sum_S v² E² + E_skip²,   E² after phi = E² mean(phi'²),

or *measured* by running the ticket beside the target on calibration images.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slth.construction.state import Slots
from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.layers import Activation

SAMPLED = 4096
"""Positions at which remainders are looked at."""


def slot_values(
    x: Float[Array, "... c"], channel: Int[Array, " slots"], sign: Int[Array, " slots"]
) -> Float[Array, "... slots"]:
    """What each slot's members should carry: x, or its positive or negative part."""
    values = x[..., channel]
    sign = jnp.reshape(sign, (1,) * (x.ndim - 1) + (-1,))
    return jnp.where(sign == 0, values, jnp.maximum(values * sign, 0))


def slot_size(
    x: Float[Array, "n *space c"], slots: Slots, info: ActivationInfo, *, center: bool
) -> tuple[Float[np.ndarray, " slots"], Float[np.ndarray, " slots"]]:
    r"""R of every slot's value over images and positions, and the mean of what a unit of its sum brings.

    R is the root mean square; about the mean with ``center``, without which the mean counts as 0. A copy
    brings its channel x; univariate channels of the sign s bring the two lines of phi at s x,
    :math:`\mu_+ (s x)^+ - \mu_- (s x)^-`.
    """
    power, mean = (np.asarray(a, np.float64) for a in _slot_size(x, slots.channel, slots.sign))
    if not center:
        return np.sqrt(power), np.zeros_like(mean)
    rms = np.sqrt(np.maximum(power - mean**2, 0))
    if slots.carried:
        return rms, mean
    other = np.asarray(_slot_size(x, slots.channel, -slots.sign)[1], np.float64)
    negative = np.where(slots.sign == 0, 0.0, info.mu_minus * other)
    return rms, info.mu_plus * mean - negative


@jax.jit
def _slot_size(x: Array, channel: Array, sign: Array) -> tuple[Array, Array]:
    values = slot_values(x, channel, sign)
    axes = tuple(range(values.ndim - 1))
    return (values**2).mean(axes), values.mean(axes)


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


@partial(jax.jit, static_argnums=1)
def slope_power(pre: Float[Array, "n *space c"], activation: Activation) -> Float[Array, " c"]:
    """mean(phi'(pre)²) by channel: for ReLU the share of positive pre-activations."""
    phi = activation_info(activation.kind, activation.slope).phi
    slope = jax.vmap(jax.grad(phi))(pre.reshape(-1))
    return (slope**2).reshape(-1, pre.shape[-1]).mean(0)


@jax.jit
def copy_errors(
    x: Float[Array, "n *space c"],
    ticket: Float[Array, "n *space source_c"],
    columns: Int[Array, "c copies"],
) -> tuple[Float[Array, "c copies"], Float[Array, " c"], Float[Array, " c"]]:
    """Mean squares over images and positions: of each copy's error, of their mean's, and of the target."""
    axes = tuple(range(x.ndim - 1))
    total = jnp.zeros_like(x)
    errors = []
    for k in range(columns.shape[1]):  # one copy at a time: memory of one target layer
        error = ticket[..., columns[:, k]] - x
        errors.append((error**2).mean(axes))
        total = total + error
    return jnp.stack(errors, 1), ((total / columns.shape[1]) ** 2).mean(axes), (x**2).mean(axes)
