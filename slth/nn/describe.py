r"""What the construction needs to know of any activation function, found numerically in float64.

A user's own function becomes a row of the table by one call, `register_activation`. The numbers are measured,
not proved: a feature narrower than the grids (2^-14 of the reach) can be missed.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slth.nn.activations import ACTIVATIONS, ActivationInfo, Elementwise, check_slopes, constant_row

Values = Float[np.ndarray, " n"]
Function = Callable[[Values], Values]

EPSILON = float(np.finfo(np.float64).eps)
LEVELS = 28
"""Halvings of the step of a one-sided difference quotient."""
SETTLED = 1e-5
"""A one-sided derivative is accepted with at most this error, absolute or relative."""
CELLS = 2**15
"""Cells of the first grid for the Lipschitz constant; three refinements follow where the slope is largest."""
JUMP = 1.5
"""A slope that grows by more than this under refinement belongs to a jump or a root."""
LEAST = 1e-5
"""Smallest node of the remainder's grid, as a share of the reach."""


def register_activation(name: str, phi: Elementwise, *, reach: float = 10.0) -> ActivationInfo:
    """Make a function an activation of its own name: ``Activation(name)`` then computes it, in any network.

    Specs and ticket files hold the name alone, so who reads such a file registers the same function first.

    Args:
      name: a name that no other activation has; an identifier.
      phi, reach: as for `describe_activation`.
    Returns: what was found of it, as in the table.
    Raises: ValueError as `describe_activation`, or for a name that is none or is taken. (The same function
      may be registered again; another one may not, for compiled networks know it by its name.)

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> info = nn.register_activation("scaled_arctan", lambda x: 2 * jnp.arctan(x))
      >>> info.mu_plus, info.mu_minus, round(info.lipschitz, 5)
      (2.0, 2.0, 2.0)
      >>> nn.Activation("scaled_arctan").apply({}, jnp.ones(1)).tolist()
      [1.5707]
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"an activation's name must be an identifier, such as 'my_phi', got {name!r}")
    if name in ACTIVATIONS:
        known = ACTIVATIONS[name](0.0)
        if known.phi is phi:
            return known
        raise ValueError(f"the name {name!r} is taken by another activation: choose one of your own")
    info = describe_activation(phi, reach=reach, name=name)
    ACTIVATIONS[name] = constant_row(info)
    return info


def describe_activation(phi: Elementwise, *, reach: float = 10.0, name: str = "phi") -> ActivationInfo:
    r"""The facts of a function as the table has them: :math:`\mu_\pm`, d, T, r and homogeneity.

    :math:`\mu_\pm` by Richardson extrapolation of one-sided difference quotients; T as the largest difference
    quotient on [-reach, reach], refined where it is large; r(u) as the largest distance from the two lines on
    a grid, and infinite for u > reach.

    Args:
      phi: an elementwise JAX function that keeps shape and floating type.
      reach: R > 0, the largest |x| that it will be given.
      name: what a message calls it.
    Raises: ValueError, with the reason, if phi is no such function, is not finite on the range, has no
      one-sided derivatives at 0 or no Lipschitz constant, or has :math:`\mu_+ + \mu_- = 0` (as |x|).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> info = nn.describe_activation(lambda x: x / (1 + jnp.abs(x)))
      >>> info.mu_plus, info.mu_minus, round(info.lipschitz, 4)
      (1.0, 1.0, 1.0)
    """
    if isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 < reach < math.inf:
        raise ValueError(f"activation {name!r}: reach must be a positive number, got {reach!r}")
    _check_type(phi, name)
    value = _in_float64(phi, name)
    grid = np.linspace(-reach, reach, CELLS + 1)
    _check_elementwise(value, grid, name)
    offset = float(value(np.zeros(1))[0])
    sides = (_one_sided(value, sign, min(1.0, reach) / 4, name) for sign in (1, -1))
    (mu_plus, error_plus), (mu_minus, error_minus) = sides
    error = error_plus + error_minus
    if abs(mu_plus - mu_minus) <= max(error, 1e-10 * abs(mu_plus)):
        mu_plus = mu_minus = _rounded((mu_plus + mu_minus) / 2, error)
    lipschitz = max(_lipschitz(value, grid, name), abs(mu_plus), abs(mu_minus))
    check_slopes(name, mu_plus, mu_minus, max(error, 1e-6 * lipschitz))
    if abs(offset) <= EPSILON and _homogeneous(phi, mu_plus, mu_minus):
        largest = max(abs(mu_plus), abs(mu_minus))
        return ActivationInfo(phi, mu_plus, mu_minus, 0.0, largest, lambda u: 0.0, True)
    remainder = _remainder(value, offset, mu_plus, mu_minus, lipschitz, float(reach))
    return ActivationInfo(phi, mu_plus, mu_minus, offset, lipschitz, remainder, False, float(reach))


def _check_type(phi: Elementwise, name: str) -> None:
    """The function keeps shape and type of a float32 array."""
    asked = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    try:
        found = jax.eval_shape(phi, asked)
    except Exception as error:  # whatever a user's function may raise
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"activation {name!r}: expected a JAX function of a floating-point array; it fails with "
            f"{type(error).__name__}: {first}"
        ) from error
    kind = (getattr(found, "shape", None), getattr(found, "dtype", None))
    if kind != (asked.shape, asked.dtype):
        raise ValueError(
            f"activation {name!r}: expected a float32 array of shape {asked.shape} from one, got "
            f"{type(found).__name__ if kind == (None, None) else f'{kind[1]} of shape {kind[0]}'}"
        )


def _in_float64(phi: Elementwise, name: str) -> Function:
    """The function in NumPy and float64, its values finite."""

    def value(x: Values) -> Values:
        with jax.enable_x64(True):
            y = np.asarray(phi(jnp.asarray(x, jnp.float64)), np.float64)
        if not np.isfinite(y).all():
            where = x[~np.isfinite(y)][0]
            raise ValueError(
                f"activation {name!r}: phi({where:g}) is not finite; lower reach, or choose a function "
                "that is finite on it"
            )
        return y

    return value


def _check_elementwise(value: Function, grid: Values, name: str) -> None:
    whole = value(grid)
    for part in (slice(None, None, -1), slice(3, None, 7)):
        if not np.allclose(value(grid[part]), whole[part], rtol=1e-9, atol=1e-12 * np.abs(whole).max()):
            raise ValueError(
                f"activation {name!r}: not elementwise: the value of an entry depends on the others"
            )


def _one_sided(value: Function, sign: int, step: float, name: str) -> tuple[float, float]:
    r"""The limit of (phi(sign h) - phi(0)) / (sign h) as h -> 0 by Richardson's extrapolation, and its error.

    Of all extrapolated quotients the one with the least estimated error (against its neighbours, and by the
    rounding of the difference) is taken.
    Source: Ridders, Adv. Eng. Software 4 (1982) 75-76, for the choice of the entry.
    """
    h = step * 0.5 ** np.arange(LEVELS)
    y, y0 = value(sign * h), value(np.zeros(1))[0]
    rounding = 8 * EPSILON * np.maximum(np.abs(y), abs(y0)) / h
    before = (y - y0) / (sign * h)
    slope, least = float(before[-1]), math.inf
    for order in range(1, 9):
        after = before[1:] + (before[1:] - before[:-1]) / (2**order - 1)
        difference = np.maximum(np.abs(after - before[1:]), np.abs(after - before[:-1]))
        error = difference + rounding[order:]
        at = int(error.argmin())
        if error[at] < least:
            slope, least = float(after[at]), float(error[at])
        before = after
    if least > SETTLED * max(1.0, abs(slope)):
        side = "right" if sign > 0 else "left"
        raise ValueError(
            f"activation {name!r} has no derivative at 0 from the {side}: its difference quotients do not "
            f"settle (estimate {slope:g}, error {least:.1g})"
        )
    return _rounded(slope, least), least


def _rounded(value: float, error: float) -> float:
    """The number of nine decimals within the error, where there is one: 1 and not 0.99999999999."""
    near = round(value, 9)
    return near if abs(near - value) <= max(error, 1e-13) else value


def _lipschitz(value: Function, grid: Values, name: str) -> float:
    """The largest slope between neighbours, on the grid and on ever finer grids where it is large.

    What the last refinement added is added once more: so much may still be missing.
    """
    slopes = np.abs(np.diff(value(grid)) / np.diff(grid))
    first = before = fine = float(slopes.max())
    low, high = grid[:-1], grid[1:]
    for _ in range(3):
        steep = slopes.argsort()[-16:]
        width = high[steep] - low[steep]
        nodes = np.linspace(low[steep] - width, high[steep] + width, 65, axis=1).clip(grid[0], grid[-1])
        low, high = nodes[:, :-1].reshape(-1), nodes[:, 1:].reshape(-1)
        low, high = low[high > low], high[high > low]
        slopes = np.abs(value(high) - value(low)) / (high - low)
        before, fine = fine, max(fine, float(slopes.max()))
    if fine > JUMP * first:
        raise ValueError(
            f"activation {name!r} has no Lipschitz constant: its slope grows without bound near "
            f"x = {low[slopes.argmax()]:.6g} (a jump, a root, or a feature too narrow to measure)"
        )
    return fine + (fine - before)


def _homogeneous(phi: Elementwise, mu_plus: float, mu_minus: float) -> bool:
    """Whether phi is its two lines on twelve decades, far beyond any reach."""
    u = np.geomspace(1e-6, 1e6, 241)
    accepted = 1e-9 * max(abs(mu_plus), abs(mu_minus)) * u
    with jax.enable_x64(True):
        right, left = (np.asarray(phi(jnp.asarray(x, jnp.float64))) for x in (u, -u))
    # Infinity and nan are not within any distance.
    distance = np.maximum(np.abs(right - mu_plus * u), np.abs(left + mu_minus * u))
    return bool((distance <= accepted).all())


def _remainder(
    value: Function, offset: float, mu_plus: float, mu_minus: float, lipschitz: float, reach: float
) -> Callable[[float], float]:
    """r as a step function: the largest distance up to the next node, with half the change between nodes and
    the rounding on top; below the first node in proportion to u, since the distance is o(u)."""
    u = np.union1d(reach * np.geomspace(LEAST, 1, 4001), np.linspace(0, reach, 8193)[1:])
    above = np.abs(value(u) - offset - mu_plus * u)
    below = np.abs(value(-u) - offset + mu_minus * u)
    distance = np.maximum(above, below)
    change = np.abs(np.diff(distance, prepend=0.0))
    near = np.maximum(change, np.append(change[1:], 0.0))
    rounding = 8 * EPSILON * (abs(offset) + lipschitz * u)
    bounds = np.maximum.accumulate(distance + near / 2 + rounding)

    def remainder(size: float) -> float:
        if size > reach:
            return math.inf
        if size < u[0]:
            return float(bounds[0] * size / u[0])
        return float(bounds[np.searchsorted(u, size)])

    return remainder
