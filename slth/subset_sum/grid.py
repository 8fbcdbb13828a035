r"""The fixed-point grid: sums of snapped values are integers, the same on every device.

A problem lives on the grid :math:`2^{-g}` with the finest :math:`g \le 24` for which
:math:`(\sum_k |x_k| + \epsilon) 2^g \le 63 \cdot 2^{24}`, so twice any residual fits in an int32. Values on
:math:`2^{-24}` (the source's grid) are therefore exact while :math:`\sum_k |x_k| \le 63 - \epsilon`; others
move by at most half a grid step. The grid depends on its own problem only, never on the batch.

A target that no subset reaches is moved towards the reach until it is just more than the tolerance away
from it: every residual then shrinks by the same amount, which changes no decision of ``smallest`` or
``best``. For ``robust`` the size of the residual matters, so there :math:`|t|` joins the sum that decides
the grid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SOURCE_BITS = 24
REACH = 63.0


class Snapped(NamedTuple):
    """Problems in grid units, batch axes last."""

    x: Int[Array, "m *n"]
    t: Int[Array, "*n"]
    tolerance: Int[Array, "*n"]
    exponent: Int[Array, "*n"]  # one grid step is 2**-exponent


def power_of_two(exponent: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """``2.0 ** exponent`` exactly, for -126 <= exponent <= 127."""
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def exponent_above(value: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """The least ``e`` with ``value < 2**e`` for a positive normal ``value`` (-126 for zero)."""
    return (jax.lax.bitcast_convert_type(value, jnp.int32) >> 23) - 126


def grid_exponent(
    x: Float[Array, "m *n"], t: Float[Array, "*n"], tolerance: Float[Array, ""], far: bool
) -> Int[Array, "*n"]:
    """``g`` of every problem's grid; with ``far`` the target's size counts (see the module)."""
    total = tolerance + (jnp.abs(t) if far else jnp.zeros_like(t))
    for row in x:  # a fixed order of additions: the same bits everywhere
        total = total + jnp.abs(row)
    return SOURCE_BITS - jnp.maximum(exponent_above(total * jnp.float32(64 / REACH)) - 6, 0)


def snap(
    x: Float[Array, "m *n"],
    t: Float[Array, "*n"],
    tolerance: Float[Array, ""],
    exponent: Int[Array, "*n"],
    far: bool,
) -> Snapped:
    """Problems rounded to grids of their `grid_exponent`."""
    scale = power_of_two(exponent)
    xi = jnp.rint(x * scale[None]).astype(jnp.int32)
    steps = jnp.floor(tolerance * scale).astype(jnp.int32)
    ti = jnp.rint(jnp.clip(t * scale, -(2.0**30), 2.0**30)).astype(jnp.int32)
    if not far:
        below, above = -steps - 1, steps + 1
        for row in xi:
            below, above = below + jnp.minimum(row, 0), above + jnp.maximum(row, 0)
        ti = jnp.clip(ti, below, above)
    return Snapped(xi, ti, steps, exponent)
