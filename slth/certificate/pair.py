r"""Target and ticket as one list of steps: what each source channel should hold, and how its weights miss.

At every place of the network source channel c holds

    z_c(p) = sum_k gain[k, c] u_{owner[k, c]}(p) + constant_c(p) + delta_c(p)

with u the target's values, scaled so that copies need no gain (`slth.construct.scale`), and delta the error
that certificates are about. Behind a linear map with kept weights v, with v~ their sums over the copies of
each input, and with the target's weights w and bias b,

    delta_c' = sum_j (v~ - w)_jc' u_j + (sum of the constants - b)_c' + sum_c v_cc' delta_c.

At the input the target's values are x alone where no input is negative, else x+ = max(x, 0) and
x- = max(-x, 0): phi(alpha x) is near phi(0) plus a multiple of each.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from slth.nn.layers import Activation, Conv, Dense
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.types import Shape

Array = np.ndarray


class Place(NamedTuple):
    """One point of the network: what the ticket's channels stand for.

    A channel of gain 0 carries no value of the target, only its constant; that is 0 for all copies.
    """

    shape: Shape
    """Of the target's values."""
    owner: Int[Array, "k channels"]
    gain: Float[Array, "k channels"]
    constant: Float[Array, "*space channels"]

    @property
    def owned(self) -> Array:
        """Which channels carry a value of the target."""
        return (self.gain != 0).any(0)

    def carried(self, values: Float[Array, "n *space references"]) -> Float[Array, "n *space channels"]:
        """For copies (gain 1) the target's value they stand for; 0 for constants."""
        values = values[..., self.owner[0]]
        return values if self.owned.all() else values * self.owned


class Map(NamedTuple):
    """A linear map of target and ticket."""

    layer: Conv | Dense
    reads: int
    wanted: Float[Array, "*taps references cout"]
    kept: Float[Array, "*taps channels out_channels"]
    error: Float[Array, "*taps references out_channels"]


class Carry(NamedTuple):
    """A carried skip: output channels of target and ticket are input channels, or 0 for -1."""

    reads: int
    stride: tuple[int, ...]
    target: Int[Array, " cout"]
    ticket: Int[Array, " out_channels"]


class Sum(NamedTuple):
    """A sum of linear maps and of what a skip carries: the copies' pre-activations."""

    path: str
    maps: tuple[Map, ...]
    carry: Carry | None
    bias: Float[Array, " cout"]
    offset: Float[Array, "*space out_channels"]
    """By how much the constants miss the bias; zero for a channel that carries no value of the target."""
    rounding: Float[Array, "*space out_channels"]
    """Bound of the rounding of ``offset`` and of the constants behind it."""


class Pointwise(NamedTuple):
    """An activation; ``rounding`` bounds that of the constants behind it."""

    reads: int
    layer: Activation
    rounding: Float[Array, "*space channels"]


class Pooling(NamedTuple):
    """Max or mean pooling."""

    reads: int
    layer: Pool | GlobalMean
    rounding: Float[Array, "*space channels"]


class Reshape(NamedTuple):
    """All features in one axis."""

    reads: int
    layer: Flatten


Step: TypeAlias = Sum | Pointwise | Pooling | Reshape


class Univariate(NamedTuple):
    """The extra first layer: channel c is phi(alpha_c x_input), or a constant where alpha is 0."""

    layer: Activation
    alpha: Float[Array, " channels"]
    input: Int[Array, " channels"]
    rounding: Float[Array, " channels"]


class Pair(NamedTuple):
    """Target and ticket; step i leads to place i + 1, and place 0 stands behind the extra first layer."""

    signed: bool
    """Whether place 0 has the values x+ and x-, not x alone."""
    first: Univariate
    places: tuple[Place, ...]
    steps: tuple[Step, ...]
    factor: float
    """lambda."""
