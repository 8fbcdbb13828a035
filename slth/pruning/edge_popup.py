r"""Edge-popup: the weights of largest score, found by a gradient that looks straight through the choice."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from slth.pruning.protocol import prunable
from slth.pruning.search import Kernels, Search, Searching, straight_through
from slth.pruning.weights import fan_in, layer_key
from slth.target import checked_positive


@dataclass(frozen=True, kw_only=True)
class EdgePopup(Search):
    r"""Weights :math:`w \odot m` with m = 1 at the largest :math:`|s|`; the gradient of m is taken as that
    of :math:`|s|`:

    .. math:: \frac{\partial L}{\partial s} = \frac{\partial L}{\partial (w \odot m)} \odot w \odot
        \mathrm{sign}(s).

    Scores start at :math:`U[-c, c]` with :math:`c = \mathrm{scale} / \sqrt n`, n the fan-in. A larger scale
    is a slower search: without weight decay, scale c at rate r finds what scale 1 finds at rate r / c.

    Args:
      settings: of the descent on scores; the default is the original's on CIFAR-10: 100 epochs of batches of
        128, rate 0.1 on a half cosine, momentum 0.9 (not Nesterov's), weight decay 1e-4 on scores.
      loss: `slth.pruning.Labels` or `slth.pruning.Distilled`.
      densities: the rule that gives each layer its density; the default is the original's, the same for all.
        None: the largest of all layers are kept.
      floor: least number of weights that each layer keeps.
      absolute: whether :math:`|s|` is ranked, as in the original's program, or s itself, as in the paper's
        text (then without sign(s)).
      scale: of the first scores; 1 is the original's.

    Example:
      >>> from slth import pruning
      >>> pruning.EdgePopup().settings.rate, pruning.EdgePopup(densities=None).densities
      (0.1, None)

    Source: Ramanujan et al., "What's hidden in a randomly weighted neural network?", CVPR 2020
      (arXiv:1911.13299). Here all kernels have scores, the last layer's too, as there.
    """

    absolute: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_positive("scale", self.scale)

    def begin(self, task: Searching, key: Key[Array, ""]) -> Kernels:
        """Uniform scores, as PyTorch draws the weights of its layers."""
        return {
            path: (self.scale / math.sqrt(fan_in(shape)))
            * jax.random.uniform(layer_key(key, path), shape, minval=-1.0)
            for path, shape in prunable(task.network).items()
        }

    def ranks(self, scores: Kernels) -> Kernels:
        """|s|, or s."""
        return {path: jnp.abs(own) for path, own in scores.items()} if self.absolute else scores

    def gated(self, task: Searching, scores: Kernels, kernels: Kernels, step: Array, key: Array) -> Kernels:
        """w * m."""
        ranks = self.ranks(scores)
        kept = task.kept(jax.lax.stop_gradient(ranks))
        return {path: w * straight_through(kept[path], ranks[path]) for path, w in kernels.items()}
