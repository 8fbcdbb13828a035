r"""Error statistics of the copies: what a variable of the robust objective costs.

The price of variable k is :math:`v_k^2 E_{ik}^2`, E the root mean square error that copy k of channel i carries,
against :math:`R_i^2`, the mean square of the channel. E is *propagated* from layer to layer with statistics of the
target alone,

    E² of a pre-activation = sum e² R² + e_b² + sum_S v² E² + E_skip²,   E² after phi = E² mean(phi'²),

or *measured* by running the ticket beside the target on calibration images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slth.construct.layout import Slots
from slth.nn.activations import Elementwise


def slot_values(x: Float[Array, "... c"], slots: Slots) -> Float[Array, "... slots"]:
    """What each slot's members should carry: x, or its positive or negative part."""
    values = x[..., slots.channel]
    sign = jnp.asarray(slots.sign)
    return jnp.where(sign == 0, values, jnp.maximum(values * sign, 0))


def slot_rms(x: Float[Array, "n *space c"], slots: Slots) -> Float[np.ndarray, " slots"]:
    """R: root mean square of every slot's value over images and positions."""
    values = slot_values(x, slots)
    return np.asarray(jnp.sqrt((values**2).mean(tuple(range(values.ndim - 1)))), np.float64)


def slope_power(pre: Float[Array, "n *space c"], phi: Elementwise) -> Float[np.ndarray, " c"]:
    """mean(phi'(pre)²) by channel: for ReLU the share of positive pre-activations."""
    slope = jax.vmap(jax.grad(lambda a: phi(a)))(pre.reshape(-1))
    return np.asarray((slope**2).reshape(-1, pre.shape[-1]).mean(0), np.float64)


def measured(
    x: Float[Array, "n *space c"], ticket: Float[Array, "n *space source_c"], slots: Slots
) -> Float[np.ndarray, "slots copies"]:
    """Mean squared error of every member on the calibration images."""
    errors = [
        ((ticket[..., slots.members[:, k]] - slot_values(x, slots)) ** 2).mean(tuple(range(x.ndim - 1)))
        for k in range(slots.members.shape[1])
    ]
    return np.asarray(jnp.stack(errors, 1), np.float64)


def relative_errors(
    x: Float[Array, "n *space c"],
    ticket: Float[Array, "n *space source_c"],
    columns: Int[np.ndarray, "c copies"],
) -> tuple[float, float]:
    """Relative L2 error against the target of one copy (root mean square over copies) and of the copies' mean."""
    power = float((x**2).sum())
    mean = jnp.zeros_like(x)
    single = 0.0
    for k in range(columns.shape[1]):
        copy = ticket[..., columns[:, k]]
        single += float(((copy - x) ** 2).sum()) / columns.shape[1]
        mean = mean + copy / columns.shape[1]
    return (single / power) ** 0.5, (float(((mean - x) ** 2).sum()) / power) ** 0.5
