"""The table of activation functions and of what the construction needs to know of each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Elementwise = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class ActivationInfo(NamedTuple):
    r"""An activation :math:`\phi` and its behaviour at 0.

    :math:`\phi(x) \approx \hat\phi(x) = d + \mu_+ x` for :math:`x \ge 0` and :math:`d + \mu_- x` for
    :math:`x < 0`, so that :math:`\hat\phi(x) - \hat\phi(-x) = (\mu_+ + \mu_-) x`.

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
    """T, the least Lipschitz constant on the real line."""
    remainder: Callable[[float], float]
    """r(u) >= max |phi(x) - phi_hat(x)| over |x| <= u."""
    homogeneous: bool
    """Whether phi(s x) = s phi(x) for every s > 0."""


def _exact(u: float) -> float:
    return 0.0


def _relu(slope: float) -> ActivationInfo:
    return ActivationInfo(jax.nn.relu, 1.0, 0.0, 0.0, 1.0, _exact, True)


def _leaky_relu(slope: float) -> ActivationInfo:
    def phi(x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.where(x >= 0, x, slope * x)

    return ActivationInfo(phi, 1.0, slope, 0.0, max(1.0, abs(slope)), _exact, True)


def _tanh(slope: float) -> ActivationInfo:
    return ActivationInfo(jnp.tanh, 1.0, 1.0, 0.0, 1.0, lambda u: min(u**3 / 3, u), False)


def _sigmoid(slope: float) -> ActivationInfo:
    def remainder(u: float) -> float:
        return min(u**3 / 48, u / 4)

    return ActivationInfo(jax.nn.sigmoid, 0.25, 0.25, 0.5, 0.25, remainder, False)


def _identity(slope: float) -> ActivationInfo:
    return ActivationInfo(lambda x: x, 1.0, 1.0, 0.0, 1.0, _exact, True)


ACTIVATIONS: dict[str, Callable[[float], ActivationInfo]] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "identity": _identity,
}
"""One row an activation: name -> (slope -> its facts); ``slope`` matters to leaky ReLU alone."""


def activation_info(name: str, slope: float = 0.01) -> ActivationInfo:
    r"""The row of the activation table: :math:`\phi, \mu_+, \mu_-, d, T, r` and homogeneity.

    Args:
      name: one of `ACTIVATIONS`.
      slope: :math:`\alpha` of leaky ReLU, its derivative on the negative half-line; finite.
    Raises: ValueError for an unknown name or a slope that is not finite.

    >>> info = activation_info("leaky_relu", slope=0.1)
    >>> (info.mu_plus, info.mu_minus, float(info.phi(jnp.float32(-2.0))))
    (1.0, 0.1, -0.2)
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown: choose one of {', '.join(ACTIVATIONS)}")
    if not math.isfinite(slope):
        raise ValueError(f"activation slope must be finite, got {slope}")
    return ACTIVATIONS[name](slope)
