r"""Relaxed masks: gates between 0 and 1 with derivatives of their own, no gradient straight through a choice."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from slth.pruning.protocol import prunable
from slth.pruning.search import Kernels, Search, Searching, schedule
from slth.pruning.weights import layer_key
from slth.target import checked_positive, checked_word
from slth.train import Settings

Gates = Literal["sigmoid", "concrete"]
LOW, HIGH = -0.1, 1.1
"""What the hard concrete gate is stretched to before it is cut to [0, 1]."""
WIDTH = 0.01
"""Standard deviation of the first scores."""


@dataclass(frozen=True, kw_only=True)
class Relaxed(Search):
    r"""Weights :math:`w \odot g(s)` with gates g in [0, 1], whose mean is held at the density d by
    :math:`\kappa\, (\bar g / d - 1)^2` in the loss; in the end the largest s are kept. With
    :math:`b = \log(d / (1 - d))`, the gates are

    * "sigmoid": :math:`g = \sigma(\beta s + b)`, where :math:`\beta` rises from 1 to ``steepness``
      exponentially with the steps, so that gates end near 0 and 1;
    * "concrete", a Bernoulli variable relaxed: with u uniform, drawn anew in each step,
      :math:`g = \mathrm{clip}(1.2\, \sigma((\log u - \log(1 - u) + s + b) / T) - 0.1, 0, 1)`, and
      :math:`\bar g` the mean probability that g > 0.

    Args:
      settings: of the descent, here Adam's on a half cosine, without decay of scores; ``momentum`` is that of
        its first moments.
      loss: `slth.pruning.Labels` or `slth.pruning.Distilled`.
      scope: "layer": the mean of each layer's gates is held, and d kept in each; "global": that of all.
      floor: least number of weights that each layer keeps.
      gates: "sigmoid" or "concrete".
      steepness: last beta of "sigmoid"; 200 is the original's.
      temperature: T of "concrete"; 2/3 is the original's.
      hold: kappa.

    Example:
      >>> from slth import pruning
      >>> pruning.Relaxed(gates="concrete").temperature
      0.667

    Source: Savarese et al., "Winning the lottery with continuous sparsification", NeurIPS 2020
      (arXiv:1912.04427), for the sigmoid; Louizos et al., "Learning sparse networks through L0
      regularization", ICLR 2018 (arXiv:1712.01312), for the hard concrete gate. Both penalise the number of
      gates, train weights too, and have no given density: the held mean, b and Adam are this project's.
    """

    settings: Settings = field(
        default_factory=lambda: Settings(epochs=100, batch=128, rate=0.02, warmup=0.0, weight_decay=0.0)
    )
    gates: Gates = "sigmoid"
    steepness: float = 200.0
    temperature: float = 2 / 3
    hold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_word("gates", self.gates, get_args(Gates))
        for name in ("steepness", "temperature", "hold"):
            checked_positive(name, getattr(self, name))
        if self.settings.weight_decay:
            raise ValueError(
                f"settings.weight_decay: scores of Relaxed do not decay, got {self.settings.weight_decay:g}: "
                "choose 0"
            )

    def begin(self, task: Searching, key: Key[Array, ""]) -> Kernels:
        """Small normal scores: all gates are near the density."""
        shapes = prunable(task.network).items()
        return {path: WIDTH * jax.random.normal(layer_key(key, path), shape) for path, shape in shapes}

    def gated(self, task: Searching, scores: Kernels, kernels: Kernels, step: Array, key: Array) -> Kernels:
        """w * g."""
        if self.gates == "sigmoid":
            return {path: w * self._sigmoid(task, scores[path], step) for path, w in kernels.items()}
        gated = {}
        for path, w in kernels.items():
            u = jax.random.uniform(layer_key(key, path), w.shape, w.dtype, minval=1e-6, maxval=1 - 1e-6)
            logit = (jnp.log(u) - jnp.log1p(-u) + scores[path] + _offset(task)) / self.temperature
            gated[path] = w * jnp.clip(LOW + (HIGH - LOW) * jax.nn.sigmoid(logit), 0, 1)
        return gated

    def penalty(self, task: Searching, scores: Kernels, step: Array) -> Float[Array, ""]:
        """How far the mean gate is from the density."""
        open_ = {path: self._open(task, own, step) for path, own in scores.items()}
        if self.scope == "global":
            sizes = sum(own.size for own in open_.values())
            means = jnp.stack([own.sum() / sizes for own in open_.values()]).sum()
        else:
            means = jnp.stack([own.mean() for own in open_.values()])
        return self.hold * ((means / task.density - 1) ** 2).mean()

    def optimiser(self, steps: int) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(schedule(self.settings, steps), b1=self.settings.momentum)

    def _sigmoid(self, task: Searching, scores: Array, step: Array) -> Array:
        beta = self.steepness ** (step / max(task.steps - 1, 1))
        return jax.nn.sigmoid(beta * scores + _offset(task))

    def _open(self, task: Searching, scores: Array, step: Array) -> Array:
        """The gate; of "concrete", the probability that it is not 0."""
        if self.gates == "sigmoid":
            return self._sigmoid(task, scores, step)
        return jax.nn.sigmoid(scores + _offset(task) - self.temperature * math.log(-LOW / HIGH))


def _offset(task: Searching) -> float:
    """b; a density of 1 would make it infinite, and asks for nothing."""
    d = min(task.density, 0.999)
    return math.log(d / (1 - d))
