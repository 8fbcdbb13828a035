r"""Binary tickets: edge-popup on signs, each layer with one gain."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from slth.pruning.edge_popup import EdgePopup
from slth.pruning.search import Kernels, Searching, straight_through


@dataclass(frozen=True, kw_only=True)
class Biprop(EdgePopup):
    r"""Weights :math:`\alpha\, m \odot \mathrm{sign}(w)` with one gain a layer, the mean of the kept
    magnitudes,

    .. math:: \alpha = \|m \odot w\|_1 / \|m\|_1,

    and m as in `slth.pruning.EdgePopup`. The gradient of :math:`\alpha m` is taken as that of :math:`|w||s|`,
    so that scores move as there, :math:`\partial L / \partial s = \partial L / \partial w_{\mathrm{eff}}
    \odot w \odot \mathrm{sign}(s)`. The parameters of the result are :math:`\alpha\,\mathrm{sign}(w)`.

    Args:
      settings, loss, densities, floor, absolute, scale: as of `slth.pruning.EdgePopup`. The original has
        250 epochs on CIFAR-10.

    Example:
      >>> from slth import pruning
      >>> pruning.Biprop().densities
      Uniform()

    Source: Diffenderfer & Kailkhura, "Multi-prize lottery ticket hypothesis", ICLR 2021 (arXiv:2103.09377).
      Activations stay real numbers: MPT-1/32.
    """

    def gated(self, task: Searching, scores: Kernels, kernels: Kernels, step: Array, key: Array) -> Kernels:
        """alpha * m * sign(w)."""
        ranks = self.ranks(scores)
        kept = task.kept(jax.lax.stop_gradient(ranks))
        gated = {}
        for path, w in kernels.items():
            size = jnp.where(kept[path], gain(w, kept[path]), 0)
            gated[path] = jnp.sign(w) * straight_through(size, jnp.abs(w) * ranks[path])
        return gated

    def final(self, kernels: Kernels, kept: Mapping[str, Bool[np.ndarray, "..."]]) -> Kernels:
        """alpha * sign(w)."""
        return {
            path: np.asarray(gain(jnp.asarray(w), jnp.asarray(kept[path])) * jnp.sign(w))
            for path, w in kernels.items()
        }


def gain(w: Array, kept: Bool[Array, "..."]) -> Array:
    """The mean of |w| where it is kept."""
    return jnp.where(kept, jnp.abs(w), 0).sum() / jnp.maximum(kept.sum(), 1)
