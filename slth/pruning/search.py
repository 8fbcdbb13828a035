r"""Masks found by gradient descent on a score for each weight, of weights that never move.

Every search minimises a loss of the network with kernels :math:`w \odot g(s)`. Searches differ in g, the
gates of the scores s, and in what else is done to scores. In the end the largest are kept. Batch norm learns
nothing: its scale and bias stay, its running statistics follow the images, in the end under the final mask.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from slth.data import Data
from slth.nn.forward import apply_train
from slth.nn.graph import by_layer
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.pruning.layer_densities import LayerDensities, Uniform, check_rule
from slth.pruning.norms import norms_of, statistics, with_norms
from slth.pruning.objectives import Labels, Loss, Rule
from slth.pruning.protocol import (
    Batch,
    Pruned,
    check,
    check_whole,
    found,
    keep,
    kept_count,
    kept_weights,
    prunable,
    task_of,
    with_kernels,
)
from slth.pruning.topk import Kept, top_by_layer, top_with_floor
from slth.target import kind_of
from slth.train import Epoch, Settings
from slth.train.descent import Labels as LabelArray
from slth.train.descent import Loss as LossValue
from slth.train.descent import Objective, descend
from slth.train.loop import schedule, steps_of
from slth.types import Batch as Images
from slth.types import Mask, Params, Task

Kernels: TypeAlias = Mapping[str, Float[Any, "..."]]
"""Arrays of the kernels' shapes by the path of their layer, in the order of computation."""
UNIFORM, LABELS = Uniform(), Labels()


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """What searches have in common: options, and the loop.

    Args:
      settings: of the descent on scores; the seed is not read.
      loss: `slth.pruning.Labels`, or `slth.pruning.Distilled` from a target's outputs.
      densities: the rule that gives each layer its density; None: the largest of all layers are kept.
      floor: least number of weights that each layer keeps.

    Example:
      >>> from slth import pruning
      >>> all(isinstance(method, pruning.Search) for method in (pruning.EdgePopup(), pruning.GemMiner()))
      True
    """

    settings: Settings = field(
        default_factory=lambda: Settings(epochs=100, batch=128, rate=0.1, warmup=0.0, weight_decay=1e-4)
    )
    loss: Loss = LABELS
    densities: LayerDensities | None = UNIFORM
    floor: int = 0

    needs_batch = True
    needs_key = True

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Settings):
            raise ValueError(f"settings: expected a slth.train.Settings, got {kind_of(self.settings)}")
        if isinstance(self.loss, type) or not isinstance(self.loss, Loss):
            raise ValueError(f"loss: expected Labels() or Distilled(target), got {kind_of(self.loss)}")
        check_rule(self.densities)
        check_whole("floor", self.floor, 0)

    @abstractmethod
    def begin(self, task: "Searching", key: Key[Array, ""]) -> Kernels:
        """The first scores."""

    @abstractmethod
    def gated(self, task: "Searching", scores: Kernels, kernels: Kernels, step: Array, key: Array) -> Kernels:
        """The kernels that the loss sees."""

    def penalty(self, task: "Searching", scores: Kernels, step: Array) -> Float[Array, ""] | float:
        """What is added to the loss."""
        return 0.0

    def settle(self, task: "Searching", scores: Kernels, steps: Array) -> Kernels:
        """The scores after a step, brought back to where they may be."""
        return scores

    def ranks(self, scores: Kernels) -> Kernels:
        """What is compared: the largest are kept."""
        return scores

    def final(self, kernels: Kernels, kept: Mapping[str, Bool[np.ndarray, "..."]]) -> Kernels:
        """The kernels that belong to a mask."""
        return kernels

    def optimiser(self, steps: int) -> optax.GradientTransformation:
        """Plain momentum, a half cosine (behind a rise, if the settings have one), weight decay on scores."""
        return optax.chain(
            optax.add_decayed_weights(self.settings.weight_decay),
            optax.sgd(schedule(self.settings, steps), self.settings.momentum),
        )

    @in_32_bits()
    def prune(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
        folder: str | Path | None = None,
        report: Callable[[Epoch], None] | None = None,
    ) -> Pruned:
        """The mask that the search ends with; its ``record`` is what each epoch gave.

        Args:
          params: the weights of which the mask keeps some; they never move.
          key: of the first scores, orders, augmentation and noise; the seed of the settings is not read.
          batch: all training images.
          folder: keeps the state after each epoch; a broken search goes on to the same mask.
          report: called after each epoch; the default is a progress bar on a terminal, else lines in the log.
        Raises: ValueError, before any work, for what `slth.pruning.Method` refuses and for a loss that does
          not fit the network; if the folder holds another search, or the loss stops being finite;
          without densities by layer, in the end, for a layer that is emptied.
        """
        check(self, network, params, density, key, batch)
        assert key is not None
        assert batch is not None
        data = data_of(network, batch)
        self.loss.check(network, data)
        settings = seeded(self.settings, jax.random.fold_in(key, 0))
        task = self._task(network, data, density)
        layers = by_layer(params)
        scores = self.begin(task, jax.random.fold_in(key, 1))
        start = {
            "scores": {path: {"kernel": np.asarray(own)} for path, own in scores.items()},
            "norms": norms_of(params),
        }
        fixed = jax.tree.map(jnp.asarray, (params, self.loss.arrays, jax.random.fold_in(key, 2)))
        ended, history = descend(
            task,
            start,
            fixed,
            data,
            settings,
            folder=None if folder is None else Path(folder),
            identity=None if folder is None else _identity(task, settings, (start, fixed, data[1:3])),
            report=report,
        )
        scores = {path: ended["scores"][path]["kernel"] for path in task.paths}
        mask = self._mask(network, self.ranks(scores), density)
        kernels = self.final(
            {path: np.asarray(layers[path]["kernel"]) for path in task.paths}, kept_weights(network, mask)
        )
        params = with_kernels(with_norms(params, ended["norms"]), kernels)
        return found(network, statistics(network, params, mask, data, settings), mask, tuple(history))

    def _task(self, network: Network, data: Data, density: float) -> "Searching":
        """What a compiled step depends on: neither arrays nor the seed.

        Raises: ValueError where a layer would be emptied.
        """
        zeros = {path: np.zeros(shape) for path, shape in prunable(network).items()}
        even = replace(self, floor=max(1, self.floor))  # equal scores empty later layers
        kept = kept_weights(network, (self if self.densities else even)._mask(network, zeros, density))
        return Searching(
            method=replace(self, settings=replace(self.settings, seed=0), loss=LABELS, densities=None),
            rule=self.loss.rule,
            network=network,
            task=data.task,
            steps=steps_of(data, self.settings),
            density=float(density),
            counts=tuple(int(own.sum()) for own in kept.values()) if self.densities else (),
        )

    def _mask(self, network: Network, ranks: Kernels, density: float) -> Mask:
        shares = self.densities.of(network, density) if self.densities else None
        return keep(network, ranks, density, shares, floor=self.floor)


@dataclass(frozen=True)
class Searching(Objective):
    """A search on one network, as its compiled step depends on it."""

    method: Search
    rule: Rule
    network: Network
    task: Task
    steps: int
    density: float
    counts: tuple[int, ...]
    """Kept weights of each layer; empty where all layers are ranked together."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the layers, in the order of computation."""
        return tuple(prunable(self.network))

    def kept(self, ranks: Kernels, share: float | Array = 1.0) -> Kept:
        """True at the largest ranks: so many that the density is density^share (the counts', layer by layer).

        The same weights as `slth.pruning.keep` finds.
        """
        ranks = {path: ranks[path] for path in self.paths}  # in the order that decides between equals
        if self.counts:
            sizes = {path: own.size for path, own in ranks.items()}
            return top_by_layer(
                ranks,
                {path: _shared(n, sizes[path], share) for path, n in zip(ranks, self.counts, strict=True)},
            )
        total = sum(own.size for own in ranks.values())
        return top_with_floor(
            ranks, _shared(kept_count(self.network, self.density), total, share), self.method.floor
        )

    def optimiser(self) -> optax.GradientTransformation:
        """The method's."""
        return self.method.optimiser(self.steps)

    def loss(
        self, variables: Params, fixed: Any, x: Images, y: LabelArray, step: Int[Array, ""]
    ) -> LossValue:
        """The loss of a batch with the gated kernels."""
        params, arrays, key = fixed
        layers = by_layer(params)
        scores = {path: variables["scores"][path]["kernel"] for path in self.paths}
        kernels = {path: layers[path]["kernel"] for path in self.paths}
        gated = self.method.gated(self, scores, kernels, step, jax.random.fold_in(key, step))
        params = with_kernels(with_norms(params, variables["norms"]), gated)
        outputs, moved = apply_train(self.network, params, x)
        value, right = self.rule.value(arrays, outputs, x, y, self.task)
        moved = {**variables, "norms": norms_of(moved)}
        return value + self.method.penalty(self, scores, step), (right, moved)

    def settle(self, variables: Params, steps: Int[Array, ""]) -> Params:
        """The method's, of the scores."""
        scores = {path: variables["scores"][path]["kernel"] for path in self.paths}
        settled = self.method.settle(self, scores, steps)
        return variables | {"scores": {path: {"kernel": own} for path, own in settled.items()}}


def straight_through(hard: Array, soft: Array) -> Array:
    """The value of ``hard``, bit by bit, with the derivative of ``soft``."""
    return hard.astype(soft.dtype) + (soft - jax.lax.stop_gradient(soft))


def data_of(network: Network, batch: Batch) -> Data:
    """The batch as the training part of data without a test part."""
    images, labels = np.asarray(batch.images, np.float32), np.asarray(batch.labels)
    classes = network.output_shape[-1] if task_of(labels) == "classes" else None
    channels = network.input_shape[-1]
    return Data(
        "batch", images, labels, images[:0], labels[:0], np.zeros(channels), np.ones(channels), classes
    )


def seeded(settings: Settings, key: Key[Array, ""]) -> Settings:
    """The settings with a seed that the key gives."""
    return replace(settings, seed=int(jax.random.bits(key, dtype=jnp.uint32)) >> 1)


def _shared(count: int, size: int, share: float | Array) -> Int[Array, ""] | int:
    """size * (count / size)^share, rounded."""
    if isinstance(share, float):
        return count if share == 1 else round(size * (count / size) ** share)
    return jnp.round(size * (count / size) ** share).astype(jnp.int32)


def _identity(task: Searching, settings: Settings, arrays: Any) -> dict[str, str]:
    """What must be equal for a search to go on."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        digest.update(np.ascontiguousarray(raw).data)
    return {
        "search": hashlib.sha256(repr(task).encode()).hexdigest(),
        "settings": repr(settings),
        "arrays": digest.hexdigest(),
    }
