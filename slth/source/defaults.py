"""What a source is like where nobody asks for anything else: numbers that depend on the activations alone."""

from typing import NamedTuple

from slth.nn.graph import activations, is_homogeneous
from slth.nn.network import Network
from slth.source.scales import smaller_slope
from slth.source.widths import first_info

# Products of two random numbers miss more than uniform ones do, so what is built from them (the first layer
# and the biases) has twice the variables of other problems, and no fewer than these where m is small.
LEAST_UNIVARIATE = 16
LEAST_CONSTANTS = 24

# Where an activation is not positively homogeneous, no channel around it can be scaled to fit: a wider source
# (times 1 / mu, as are the weights that training finds behind a flat phi), more constants, larger biases.
SMOOTH_SCALE, SMOOTH_BIAS_SCALE, SMOOTH_CONSTANTS = 1.5, 12.0, 60


class Defaults(NamedTuple):
    """Settings of a source that its target's activations decide."""

    scale: float
    bias_scale: float
    univariate: int
    constants: int
    own_biases: bool


def defaults_of(target: Network, multiplicity: int) -> Defaults:
    """The defaults for a target and m copies of its channels.

    With several different activations the scale is 1.5, and each layer has a factor 1 / mu of its own
    (`slth.source.scales.slope_factors`).
    """
    m, univariate = multiplicity, max(2 * multiplicity, LEAST_UNIVARIATE)
    if is_homogeneous(target):
        return Defaults(1.0, 4.0, univariate, max(2 * m, LEAST_CONSTANTS), False)
    slope = smaller_slope(first_info(target)) if len(set(activations(target))) == 1 else 1.0
    return Defaults(SMOOTH_SCALE / slope, SMOOTH_BIAS_SCALE, univariate, max(4 * m, SMOOTH_CONSTANTS), True)
