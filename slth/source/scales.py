r"""Scales of a source's layers that depend on the target's activations, or on the target itself.

Behind a univariate layer: with :math:`\hat\phi` the two lines of an activation :math:`\phi` at 0 and x in
[-R, R], a univariate channel :math:`\phi(\alpha x)` misses at most :math:`r(|\alpha| R)` of
:math:`\mu |\alpha| R`. So where phi is not piecewise linear alpha must be small, and the weights that read it
large in turn; too small an alpha would leave the sums to the resolution of float32.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.graph import Join, Sum, graph
from slth.nn.layers import Activation
from slth.nn.network import Network
from slth.source.layout import Layout, terms_of

REMAINDER = 1e-3
"""Share of a univariate channel's value that phi may miss, where no smaller alpha is the better one."""
OFFSET_ERROR = 2e-5
"""Share of what univariate channels hold at 0 that their constants leave."""
STEPS = 80

LayerScale = Callable[[str], float]
"""Scale of a source's layer by its path, before any factor that this module chooses."""


def smaller_slope(info: ActivationInfo) -> float:
    r"""The smaller non-zero one of \|mu+\| and \|mu-\|."""
    return min(abs(mu) for mu in (info.mu_plus, info.mu_minus) if mu != 0)


def larger_slope(info: ActivationInfo) -> float:
    r"""The larger one of \|mu+\| and \|mu-\|."""
    return max(abs(info.mu_plus), abs(info.mu_minus))


def missed_share(info: ActivationInfo, alpha: float, reach: float) -> float:
    r"""The share of a univariate channel's value that is not on its two lines, :math:`r(a R) / (\mu a R)`.

    Args:
      alpha: a, the largest |alpha|.
      reach: R > 0, the largest |input|.
    """
    return info.remainder(alpha * reach) / (smaller_slope(info) * alpha * reach)


def choose_alpha(info: ActivationInfo, reach: float) -> float:
    r"""The scale a of the weights alpha for inputs in [-R, R].

    A channel misses :math:`r(a R)` of :math:`\mu a R`, and what it holds at 0, d, is cancelled to a part in
    50,000: the largest :math:`a = 2^{-k/4} \le 1` whose share of both is near the least or below 1/1000.

    Args:
      info: of phi; mu is the smaller non-zero slope.
      reach: R > 0, the largest |input|.
    """
    slope = smaller_slope(info)
    alphas = [2.0 ** (-step / 4) for step in range(STEPS)]
    missed = [
        (info.remainder(a * reach) + OFFSET_ERROR * abs(info.offset)) / (slope * a * reach) for a in alphas
    ]
    accepted = max(REMAINDER, 1.1 * min(missed))
    return next(a for a, share in zip(alphas, missed, strict=True) if share <= accepted)


def alpha_factors(
    target: Network,
    layout: Layout,
    info: ActivationInfo,
    reach: float | Mapping[str, float],
    scale: LayerScale,
    *,
    he: bool,
) -> dict[str, float]:
    """Factors of univariate layers, and of those that read them, that make both fit the activation phi.

    alpha's scale is `choose_alpha`; the layer behind has 1 / (mu a) times the scale it would have if it
    read copies of the inputs, so that the products v alpha mu are as large as its weights would be.

    Args:
      info: of phi, the activation of univariate layers.
      reach: R of the network's inputs; in 2L, of the inputs of each linear layer by its path.
      scale: scales before these factors.
      he: whether scales are He's, which a wide univariate layer makes smaller.
    """
    factors: dict[str, float] = {}
    for entry, term in layout.terms(target):
        front = layout.front_of(target, entry, term)
        if front is None:
            continue
        alpha = choose_alpha(info, reach[entry.path] if isinstance(reach, Mapping) else reach)
        width = front.width if front.groups == 1 else front.first_constant
        copied = math.sqrt(width / (layout.multiplicity * front.inputs)) if he else 1.0
        factors[front.path] = alpha / scale(front.path)
        factors[entry.path] = copied / (smaller_slope(info) * alpha)
    return factors


def slope_factors(target: Network) -> dict[str, float]:
    """1 / mu for every linear map, mu the smaller slope at 0 of the activation that its input passed last.

    Training finds weights about so much larger behind a flat activation. Of a positively homogeneous one mu
    is the larger slope, which leaky ReLU has for half of all inputs whatever the other one is. 1 where no
    activation stands between a map and the sum (or the input) before it. Of a concatenation, the largest.
    """
    slopes = [1.0]
    factors: dict[str, float] = {}
    for step in graph(target):
        if isinstance(step, Sum):
            factors |= {path: 1 / slopes[term.reads] for path, term in terms_of(step).items()}
            slopes.append(1.0)
        elif isinstance(step, Join):
            slopes.append(max(slopes[value] for value in step.reads))
        elif isinstance(step.layer, Activation):
            info = activation_info(step.layer.kind, step.layer.slope)
            slopes.append(larger_slope(info) if info.homogeneous else smaller_slope(info))
        else:
            slopes.append(slopes[step.value])
    return factors


def target_factors(
    weights: Mapping[str, Float[np.ndarray, "..."]], share: float, scale: LayerScale
) -> dict[str, float]:
    """Factors that make every layer's scale ``share`` times the target's largest |w| there.

    Args:
      weights: kernels of the target by path.
      share: positive; 1/2 leaves the largest weight to two variables.
      scale: scales of a source of the target's own widths (multiplicity 1), before these factors.
    """
    largest = {path: float(np.abs(np.asarray(kernel)).max()) for path, kernel in weights.items()}
    return {path: share * w / scale(path) for path, w in largest.items() if w > 0}
