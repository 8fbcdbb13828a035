r"""Relaxed masks: gates between 0 and 1 with derivatives of their own, no gradient looks through a choice."""

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
    :math:`b = \log(d / (1 - d))`, d that of the layer where densities are given by layer, the gates are

    * "sigmoid": :math:`g = \sigma(\beta s + b)`, where :math:`\beta` rises from 1 to ``steepness``
      exponentially with the steps, so that gates end near 0 and 1;
    * "concrete", a Bernoulli variable relaxed: with u uniform, drawn anew in each step,
      :math:`g = \mathrm{clip}(1.2\, \sigma((\log u - \log(1 - u) + s + b) / T) - 0.1, 0, 1)`, and
      :math:`\bar g` the mean probability that g > 0.

    Args:
      settings: of the descent, here Adam's on a half cosine, without decay of scores; ``momentum`` is that of
        its first moments. A score moves by the rate in a step, and "concrete" gates are quiet only where s is
        some units from -b: few steps need a larger rate there.
      loss: `slth.pruning.Labels` or `slth.pruning.Distilled`.
      densities: the rule that gives each layer its density; each layer's mean gate is held at
        its own. None: the mean of all gates is held, and the largest of all layers are kept.
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
        default_factory=lambda: Settings(epochs=100, batch=128, rate=0.1, warmup=0.0, weight_decay=0.0)
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
            gates = self._open(task, scores, step)
            return {path: w * gates[path] for path, w in kernels.items()}
        gated, shares = {}, _shares(task)
        for path, w in kernels.items():
            u = jax.random.uniform(layer_key(key, path), w.shape, w.dtype, minval=1e-6, maxval=1 - 1e-6)
            logit = (jnp.log(u) - jnp.log1p(-u) + scores[path] + _offset(shares[path])) / self.temperature
            gated[path] = w * jnp.clip(LOW + (HIGH - LOW) * jax.nn.sigmoid(logit), 0, 1)
        return gated

    def penalty(self, task: Searching, scores: Kernels, step: Array) -> Float[Array, ""]:
        """How far the mean gate is from the density."""
        gates = self._open(task, scores, step)
        if not task.counts:
            mean = jnp.stack([own.sum() for own in gates.values()]).sum() / sum(
                own.size for own in gates.values()
            )
            return self.hold * (mean / task.density - 1) ** 2
        off = [gates[path].mean() / share - 1 for path, share in _shares(task).items()]
        return self.hold * (jnp.stack(off) ** 2).mean()

    def optimiser(self, steps: int) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(schedule(self.settings, steps), b1=self.settings.momentum)

    def _open(self, task: Searching, scores: Kernels, step: Array) -> Kernels:
        """The gates; of "concrete", the probabilities that they are not 0."""
        shift = {path: _offset(share) for path, share in _shares(task).items()}
        if self.gates == "sigmoid":
            beta = self.steepness ** (step / max(task.steps - 1, 1))
            return {path: jax.nn.sigmoid(beta * scores[path] + shift[path]) for path in task.paths}
        zero = self.temperature * math.log(-LOW / HIGH)
        return {path: jax.nn.sigmoid(scores[path] + shift[path] - zero) for path in task.paths}


def _shares(task: Searching) -> dict[str, float]:
    """d of each layer."""
    shapes = prunable(task.network)
    if not task.counts:
        return dict.fromkeys(shapes, task.density)
    return {path: n / math.prod(shape) for n, (path, shape) in zip(task.counts, shapes.items(), strict=True)}


def _offset(share: float) -> float:
    """b; a density of 1 would make it infinite, and asks for nothing."""
    share = min(share, 0.999)
    return math.log(share / (1 - share))
