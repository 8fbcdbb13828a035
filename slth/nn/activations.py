"""The table of activation functions and of what the construction needs to know of each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Elementwise = Callable[[Float[Array, "..."]], Float[Array, "..."]]
Bound = Callable[[float], float]


class ActivationInfo(NamedTuple):
    r"""An activation :math:`\phi` and its behaviour at 0.

    :math:`\phi(x) \approx \hat\phi(x) = d + \mu_+ x` for :math:`x \ge 0` and :math:`d + \mu_- x` for
    :math:`x < 0`, so that :math:`\hat\phi(x) - \hat\phi(-x) = (\mu_+ + \mu_-) x`.

    Example:
      >>> from slth import nn
      >>> gelu = nn.activation_info("gelu")
      >>> gelu.mu_plus, gelu.offset, gelu.homogeneous, round(gelu.remainder(0.1), 4)
      (0.5, 0.0, False, 0.004)

    Source: Burkholz, NeurIPS 2022 (arXiv:2205.02321), assumption on the activation functions.
    """

    phi: Elementwise
    mu_plus: float
    """One-sided derivative at 0 from the right."""
    mu_minus: float
    """One-sided derivative at 0 from the left."""
    offset: float
    """d = phi(0)."""
    lipschitz: float
    """T, the least Lipschitz constant on [-reach, reach]."""
    remainder: Bound
    """r(u) >= max |phi(x) - phi_hat(x)| over |x| <= u; infinite beyond the reach."""
    homogeneous: bool
    """Whether phi(s x) = s phi(x) for every s > 0."""
    reach: float = math.inf
    """T and r hold for |x| <= reach."""
    least: float = -math.inf
    """No value of phi is below it."""
    most: float = math.inf
    """No value of phi is above it."""


def check_slopes(name: str, mu_plus: float, mu_minus: float, error: float = 0.0) -> None:
    r"""Refuse an activation without a linear part that subsets could use: :math:`\mu_+ + \mu_- = 0`.

    Args:
      error: what the sum may differ from 0 by and still count as 0.
    Raises: ValueError.
    """
    if abs(mu_plus + mu_minus) <= error:
        raise ValueError(
            f"activation {name!r} has mu+ + mu- = 0 (mu+ = {mu_plus:g}, mu- = {mu_minus:g}), as |x| and x^2 "
            "have: phi(x) - phi(-x) has no linear part, so x and -x look alike and no subset of its channels "
            "can carry a weight; choose one whose one-sided slopes at 0 do not cancel"
        )


def _exact(u: float) -> float:
    return 0.0


def _bound(taylor: Bound, distance: Bound) -> Bound:
    """r from a bound of Taylor's near 0, where a difference of nearly equal numbers loses its digits, and
    the distance itself, up to its rounding, elsewhere."""

    def remainder(u: float) -> float:
        return taylor(u) if u < 0.01 else min(taylor(u), distance(u) * (1 + 1e-9))

    return remainder


def _log_cosh(u: float) -> float:
    return u + math.log1p(math.exp(-2 * u)) - math.log(2)


def _softplus_number(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _mish_distance(u: float) -> float:
    slopes = (math.tanh(_softplus_number(x)) for x in (u, -u))
    return u * max(abs(slope - 0.6) for slope in slopes)


def _exponential_branch(u: float) -> float:
    """Distance of e^x - 1 from x at x = -u."""
    return math.expm1(-u) + u


def _leaky_relu(slope: float) -> ActivationInfo:
    check_slopes("leaky_relu", 1.0, slope)

    def phi(x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.where(x >= 0, x, slope * x)

    least = 0.0 if slope <= 0 else -math.inf
    return ActivationInfo(phi, 1.0, slope, 0.0, max(1.0, abs(slope)), _exact, True, least=least)


def _gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.gelu(x, approximate=False)


def _gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.gelu(x, approximate=True)


def _gelu_tanh_argument(u: float) -> float:
    return math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)


_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU = _SELU_SCALE * _SELU_ALPHA


def constant_row(info: ActivationInfo) -> Callable[[float], ActivationInfo]:
    """The row of an activation that no slope changes."""
    return lambda slope: info


def _row(
    phi: Elementwise,
    mu_plus: float,
    mu_minus: float,
    offset: float,
    lipschitz: float,
    remainder: Bound,
    least: float = -math.inf,
    most: float = math.inf,
) -> Callable[[float], ActivationInfo]:
    """A row; what is exactly its two lines through 0 is homogeneous."""
    homogeneous = remainder is _exact and offset == 0
    facts = phi, mu_plus, mu_minus, offset, lipschitz, remainder, homogeneous
    return constant_row(ActivationInfo(*facts, least=least, most=most))


# phi, mu+, mu-, d, T, r, least and largest value. Where the distance from the two lines grows with |x| on
# both sides, r is that distance. T of GELU is phi'(sqrt 2); of SiLU 1/2 + x/4 at x tanh(x/2) = 2; of Mish
# phi'(1.49057...), of GELU by tanh phi'(1.41850...).
ACTIVATIONS: dict[str, Callable[[float], ActivationInfo]] = {
    "relu": _row(jax.nn.relu, 1.0, 0.0, 0.0, 1.0, _exact, 0.0),
    "leaky_relu": _leaky_relu,
    "relu6": _row(jax.nn.relu6, 1.0, 0.0, 0.0, 1.0, lambda u: max(u - 6.0, 0.0), 0.0, 6.0),
    "tanh": _row(
        *(jnp.tanh, 1.0, 1.0, 0.0, 1.0),
        *(_bound(lambda u: u**3 / 3, lambda u: u - math.tanh(u)), -1.0, 1.0),
    ),
    "sigmoid": _row(
        *(jax.nn.sigmoid, 0.25, 0.25, 0.5, 0.25),
        *(_bound(lambda u: u**3 / 48, lambda u: u / 4 - math.tanh(u / 2) / 2), 0.0, 1.0),
    ),
    "gelu": _row(
        *(_gelu, 0.5, 0.5, 0.0, (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)),
        _bound(lambda u: u**2 / math.sqrt(2 * math.pi), lambda u: u * math.erf(u / math.sqrt(2)) / 2),
    ),
    "gelu_tanh": _row(
        *(_gelu_tanh, 0.5, 0.5, 0.0, 1.1289930686587717),
        _bound(
            lambda u: u * _gelu_tanh_argument(u) / 2,
            lambda u: u * math.tanh(_gelu_tanh_argument(u)) / 2,
        ),
    ),
    "silu": _row(
        *(jax.nn.silu, 0.5, 0.5, 0.0, 0.5 + 2.3993572805154677 / 4),
        _bound(lambda u: u**2 / 4, lambda u: u * math.tanh(u / 2) / 2),
    ),
    "softplus": _row(
        *(jax.nn.softplus, 0.5, 0.5, math.log(2), 1.0),
        *(_bound(lambda u: u**2 / 8, lambda u: _log_cosh(u / 2)), 0.0),
    ),
    "elu": _row(jax.nn.elu, 1.0, 1.0, 0.0, 1.0, _bound(lambda u: u**2 / 2, _exponential_branch), -1.0),
    "selu": _row(
        *(jax.nn.selu, _SELU_SCALE, _SELU, 0.0, _SELU),
        *(_bound(lambda u: _SELU * u**2 / 2, lambda u: _SELU * _exponential_branch(u)), -_SELU),
    ),
    "hard_tanh": _row(jax.nn.hard_tanh, 1.0, 1.0, 0.0, 1.0, lambda u: max(u - 1.0, 0.0), -1.0, 1.0),
    "hard_sigmoid": _row(
        jax.nn.hard_sigmoid, 1 / 6, 1 / 6, 0.5, 1 / 6, lambda u: max(u - 3.0, 0.0) / 6, 0.0, 1.0
    ),
    "hard_swish": _row(jax.nn.hard_swish, 0.5, 0.5, 0.0, 1.5, lambda u: u * min(u, 3.0) / 6, -0.375),
    "mish": _row(
        *(jax.nn.mish, 0.6, 0.6, 0.0, 1.0884981612517287),
        _bound(lambda u: 0.3215 * u**2, _mish_distance),
    ),
    "identity": _row(lambda x: x, 1.0, 1.0, 0.0, 1.0, _exact),
}
"""One row an activation: name -> (slope -> its facts); ``slope`` matters to leaky ReLU alone.
`slth.nn.register_activation` adds rows."""


def activation_info(name: str, slope: float = 0.01) -> ActivationInfo:
    r"""The row of the activation table: :math:`\phi, \mu_+, \mu_-, d, T, r` and homogeneity.

    Args:
      name: one of `ACTIVATIONS`.
      slope: :math:`\alpha` of leaky ReLU, its derivative on the negative half-line; finite, not -1.
    Raises: ValueError for an unknown name, or a slope that is not finite or cancels that of x >= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> info = nn.activation_info("leaky_relu", slope=0.1)
      >>> info.mu_plus, info.mu_minus, round(float(info.phi(jnp.array(-2.0))), 4)
      (1.0, 0.1, -0.2)
    """
    if name == "prelu" and name not in ACTIVATIONS:
        raise ValueError(
            "activation 'prelu' has trained slopes, and nothing of a source is trained: where all are equal "
            "take leaky_relu with that slope, else write it as ReLUs of x and -x (docs/activations.md)"
        )
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation {name!r} is unknown: choose one of {', '.join(ACTIVATIONS)}, or make it known "
            "with slth.nn.register_activation"
        )
    if not isinstance(slope, int | float) or not math.isfinite(slope):
        raise ValueError(f"activation slope must be finite, got {slope!r}")
    return ACTIVATIONS[name](slope)
