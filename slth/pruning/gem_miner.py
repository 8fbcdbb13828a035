r"""Gem-miner: scores in [0, 1] that are rounded, and frozen at 0 a few at a time."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from slth.pruning.layer_densities import LayerDensities
from slth.pruning.protocol import check_whole, prunable
from slth.pruning.search import Kernels, Search, Searching, schedule, straight_through
from slth.pruning.weights import layer_key
from slth.train import Settings

FROZEN = -jnp.inf
"""Score of a weight that is out for good: no step moves it."""


@dataclass(frozen=True, kw_only=True)
class GemMiner(Search):
    r"""Weights :math:`w \odot q \odot r(p)` with :math:`r(p) = 1` where :math:`p \ge 1/2`, else 0, and q = 0
    where p is frozen; the gradient of r(p) is taken as that of p.

    A step is projected onto [0, 1]. After each of ``rounds`` equal parts of all steps, the smallest p are
    frozen: after round j of R the share :math:`d^{j/R}` is left, in the end the density d. Those left are the
    mask, as in the original's program; p below 1/2 among them count as kept, of which there are many only at
    densities near 1/2 and above.

    Args:
      settings: of the descent. ``weight_decay`` is that of :math:`\lambda / 2\, \|p\|^2` in the loss, of
        scores that are not frozen. The default is the original's for ResNet-20 on CIFAR-10 at density 0.037:
        150 epochs of batches of 128, rate 0.1 on a half cosine, momentum 0.9, lambda 6e-5.
      loss: `slth.pruning.Labels` or `slth.pruning.Distilled`.
      densities: the rule that gives each layer its density, after each round too; the default None is the
        original's, the smallest of all layers are frozen.
      floor: least number of weights that each layer keeps.
      rounds: R, how often scores are frozen.

    Example:
      >>> from slth import pruning
      >>> pruning.GemMiner(rounds=10).settings.weight_decay
      6e-05

    Source: Sreenivasan et al., "Rare gems: finding lottery tickets at initialization", NeurIPS 2022
      (arXiv:2202.12002), algorithm 1.
    """

    settings: Settings = field(
        default_factory=lambda: Settings(epochs=150, batch=128, rate=0.1, warmup=0.0, weight_decay=6e-5)
    )
    densities: LayerDensities | None = None
    rounds: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("rounds", self.rounds, 1)

    def begin(self, task: Searching, key: Key[Array, ""]) -> Kernels:
        """Uniform scores in [0, 1]."""
        if self.rounds > task.steps:
            raise ValueError(
                f"rounds: {self.rounds} in {task.steps} steps: choose fewer, or more epochs in the settings"
            )
        shapes = prunable(task.network).items()
        return {path: jax.random.uniform(layer_key(key, path), shape) for path, shape in shapes}

    def ranks(self, scores: Kernels) -> Kernels:
        """p; -1 where it is frozen."""
        return {path: jnp.maximum(own, -1) for path, own in scores.items()}

    def gated(self, task: Searching, scores: Kernels, kernels: Kernels, step: Array, key: Array) -> Kernels:
        """w * q * r(p)."""
        gated = {}
        for path, w in kernels.items():
            alive = scores[path] > FROZEN
            p = jnp.where(alive, scores[path], 0)
            gated[path] = w * jnp.where(alive, straight_through(p >= 0.5, p), 0)
        return gated

    def penalty(self, task: Searching, scores: Kernels, step: Array) -> Float[Array, ""] | float:
        """The squares of the scores that are not frozen."""
        squares = [jnp.where(own > FROZEN, own, 0) ** 2 for own in scores.values()]
        return self.settings.weight_decay / 2 * jnp.stack([own.sum() for own in squares]).sum()

    def settle(self, task: Searching, scores: Kernels, steps: Array) -> Kernels:
        """Projected, and frozen where a round ends."""
        inside = {path: jnp.where(own > FROZEN, jnp.clip(own, 0, 1), FROZEN) for path, own in scores.items()}
        ends = jnp.asarray(np.round(task.steps * np.arange(1, self.rounds + 1) / self.rounds), jnp.int32)
        round_ = jnp.searchsorted(ends, steps)

        def frozen() -> Kernels:
            share = (round_ + 1) / jnp.float32(self.rounds)
            kept = task.kept(inside, share)
            return {path: jnp.where(kept[path], own, FROZEN) for path, own in inside.items()}

        return jax.lax.cond(ends[jnp.minimum(round_, self.rounds - 1)] == steps, frozen, lambda: inside)

    def optimiser(self, steps: int) -> optax.GradientTransformation:
        """Plain momentum and a half cosine; the decay is in the loss."""
        return optax.sgd(schedule(self.settings, steps), self.settings.momentum)
