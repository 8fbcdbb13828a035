r"""Scales of the extra first layer for a phi that is no cone: phi(alpha x) is linear where alpha x is small.

With :math:`\hat\phi` the two lines of phi at 0 and x in [-R, R], a univariate channel misses at most
:math:`r(|\alpha| R)` of :math:`\mu |\alpha| R`. So alpha must be small, and the weights that read it large in
turn; too small an alpha would leave the sums to the resolution of float32.
"""

import math
from dataclasses import replace

from slth.construct.layout import UNIVARIATE
from slth.nn.activations import ActivationInfo
from slth.source import Source, layer_scale, parameter_shapes

REMAINDER = 0.01
"""Largest share of a univariate channel's value that phi may miss."""
WIDE = 4.0
"""Size of the weights that read univariate channels, in units of their layer's scale over alpha's."""
SMALLEST = 2.0**-12


def largest_alpha(info: ActivationInfo, reach: float, share: float = REMAINDER) -> float:
    r"""The largest a = :math:`2^{-k/4}` in :math:`[2^{-12}, 1]` with :math:`r(a R) \le share\, \mu a R`.

    Args:
      info: of phi; mu is the smaller non-zero slope.
      reach: R > 0, the largest |input|.
    Raises: ValueError if no such a is as large as that.
    """
    slope = min(abs(mu) for mu in (info.mu_plus, info.mu_minus) if mu != 0)
    for step in range(48):
        alpha = 2.0 ** (-step / 4)
        if info.remainder(alpha * reach) <= share * slope * alpha * reach:
            return alpha
    raise ValueError(
        f"inputs up to {reach:g} need weights below {SMALLEST:g} in the first layer for phi to be linear to "
        f"{share:g}: scale the inputs down"
    )


def with_small_alpha(source: Source, info: ActivationInfo, reach: float) -> Source:
    """The source with the scales of its first two layers made for phi and inputs up to ``reach``.

    alpha's scale is `largest_alpha`; the layer behind has `WIDE` over that times the scale it would have if
    it read copies of the inputs. Scales that were asked for stay.
    """
    alpha = largest_alpha(info, reach)
    first, second, *_ = [
        p.removesuffix("/kernel") for p in parameter_shapes(source.network) if p.endswith("/kernel")
    ]
    assert first == UNIVARIATE
    *_, cin, width = parameter_shapes(source.network)[f"{first}/kernel"]
    copied = math.sqrt(width / (source.multiplicity * cin)) if source.init.startswith("he") else 1.0
    asked = source.scales
    assert isinstance(asked, tuple)
    scales = (*asked, (first, alpha / layer_scale(source, first)), (second, copied * WIDE / alpha))
    return replace(source, scales=scales)
