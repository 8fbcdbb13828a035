r"""Iterative magnitude pruning: train, prune the smallest weights, rewind, and again."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Key

from slth.data import Data
from slth.interop import save_checkpoint
from slth.nn.network import Network
from slth.pruning.layer_densities import LayerDensities, check_rule
from slth.pruning.magnitude import magnitude_scores
from slth.pruning.protocol import (
    Batch,
    Pruned,
    check,
    check_density,
    check_whole,
    found,
    keep,
    mask_of,
    prunable,
)
from slth.pruning.search import data_of, seeded
from slth.target import checked_word, kind_of
from slth.train import Epoch, Settings, train
from slth.train.loop import check_fit, steps_of
from slth.types import Mask, Params

MASK = "mask.safetensors"
"""File of a level's mask, in its folder."""
Rewinds = Literal["weights", "rate"]


class Level(NamedTuple):
    """A level of iterative magnitude pruning: a mask, and the network that was trained under it.

    Example:
      >>> import jax
      >>> from slth import data, nn, pruning, train
      >>> digits = data.load("digits", train_limit=256)
      >>> network = nn.Network((8, 8, 1), (nn.Flatten(), nn.Dense("a", 10)))
      >>> start, batch = nn.init(network, jax.random.key(0)), pruning.Batch(*digits[1:3])
      >>> method = pruning.IMP(train.Settings(epochs=1), rate=0.5, rewind=1)
      >>> for level in method.levels(network, start, 0.2, key=jax.random.key(1), batch=batch):
      ...     print(level.number, level.density)
      0 1.0
      1 0.5
      2 0.25
      3 0.2
    """

    number: int
    """From 0, the dense network."""
    density: float
    """Kept / total over all kernels."""
    densities: dict[str, float]
    """Kept / total of each kernel."""
    mask: Mask
    start: Params
    """The parameters that training began with at iteration k, dense."""
    params: Params
    """The trained parameters, 0 where the mask drops them."""
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class IMP:
    r"""Levels of training and pruning: with the mask :math:`m_0 = 1` and the weights :math:`W_k` after k
    iterations of the dense training, level l trains :math:`m_l \odot W_k` from iteration k to the end, and
    :math:`m_{l+1}` keeps the largest magnitudes of what m_l keeps. After level l the share
    :math:`\max((1 - r)^{l + 1}, d)` is left, until it is the density d, and the last level trains it.

    Args:
      settings: of each training; None: `slth.train.Settings()`. The seed is not read.
      rate: r, the share of what is left that a level prunes.
      rewind: k; 0 is the original weights, of Frankle & Carbin.
      rewinds: "weights" as above; "rate": weights stay as they are trained, and only the learning rate goes
        back to iteration k (Renda et al.).
      densities: the rule that gives each layer its density, in every level; None: the largest of all layers
        are kept.
      floor: least number of weights that each layer keeps.
    Raises: ValueError for options out of range.

    Example:
      >>> from slth import pruning
      >>> pruning.IMP(rewind=100).schedule(0.5)
      (0.8, 0.64, 0.512, 0.5)

    Source: Frankle & Carbin, ICLR 2019 (arXiv:1803.03635), with k = 0; Frankle et al., ICML 2020
      (arXiv:1912.05671), for k > 0, momentum from 0 at iteration k as in their program; Renda et al., ICLR
      2020 (arXiv:2003.02389), for "rate". Deviations: the last layer is pruned at the rate of all (half of it
      in the first of these), and kernels of shortcuts are pruned too.
    """

    settings: Settings = field(default_factory=Settings)
    rate: float = 0.2
    rewind: int = 0
    rewinds: Rewinds = "weights"
    densities: LayerDensities | None = None
    floor: int = 0

    needs_batch = True
    needs_key = True

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Settings):
            raise ValueError(f"settings: expected a slth.train.Settings, got {kind_of(self.settings)}")
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 < self.rate < 1:
            raise ValueError(f"rate: expected a number between 0 and 1, got {self.rate!r}")
        check_whole("rewind", self.rewind, 0)
        checked_word("rewinds", self.rewinds, get_args(Rewinds))
        check_rule(self.densities)
        check_whole("floor", self.floor, 0)

    def schedule(self, density: float) -> tuple[float, ...]:
        """The density after each pruning; the last is the one asked for."""
        check_density(density)
        count = math.ceil(math.log(density) / math.log1p(-self.rate) - 1e-9)
        return (*((1 - self.rate) ** (level + 1) for level in range(count - 1)), density)

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
        """The mask of the last level, the parameters trained under it, and all levels as ``record``.

        Arguments and errors are those of `IMP.levels`.
        """
        levels = tuple(
            self.levels(network, params, density, key=key, batch=batch, folder=folder, report=report)
        )
        return found(network, levels[-1].params, levels[-1].mask, levels)

    def levels(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
        folder: str | Path | None = None,
        report: Callable[[Epoch], None] | None = None,
    ) -> Iterator[Level]:
        """One level after the other, the dense network first.

        Args:
          params: the original weights, of iteration 0.
          density: of the last level.
          key: of orders and augmentation, the same in every level.
          batch: all training images.
          folder: keeps each level in a folder of its own, ``level00`` and so on: its training as
            `slth.train.train` does, and its mask (`MASK`). A broken run goes on, inside a level too, to the
            same bits.
          report: called after each epoch; the default is a progress bar on a terminal, else lines in the log.
        Raises: ValueError, before any work, for what `slth.pruning.Method` refuses, and where there is no
          iteration k; for a layer that is emptied; if the folder holds another run, or a loss stops being
          finite.
        """
        check(self, network, params, density, key, batch)
        assert key is not None
        assert batch is not None
        data = data_of(network, batch)
        check_fit(network, data)
        settings = seeded(self.settings, key)
        total = steps_of(data, settings)
        if self.rewind >= total:
            raise ValueError(
                f"rewind: iteration {self.rewind} of a training of {total}: choose less, or more epochs"
            )
        plan = (1.0, *self.schedule(density)) if density < 1 else (1.0,)
        place = None if folder is None else Path(folder)
        return self._levels(network, params, plan, data, settings, place, report)

    def _levels(
        self,
        network: Network,
        params: Params,
        plan: tuple[float, ...],
        data: Data,
        settings: Settings,
        folder: Path | None,
        report: Callable[[Epoch], None] | None,
    ) -> Iterator[Level]:
        def part(name: str) -> Path | None:
            return None if folder is None else folder / name

        early = train(
            network, data, settings, start=params, last=self.rewind, folder=part("early"), report=report
        ).params
        start, trained, mask = early, early, _everything(network)
        for number, density in enumerate(plan):
            if number:
                shares = self.densities.of(network, density) if self.densities else None
                scores = magnitude_scores(network, trained)
                mask = keep(network, scores, density, shares, floor=self.floor, within=mask)
                start = trained if self.rewinds == "rate" else early
            place = part(f"level{number:02d}")
            one = train(
                network,
                data,
                settings,
                start=start,
                mask=mask,
                first=self.rewind,
                folder=place,
                report=report,
            )
            if place is not None:
                save_checkpoint(place / MASK, mask)
            trained = one.params
            result = found(network, trained, mask)
            yield Level(number, result.density, result.densities, mask, start, trained, one.history)


def _everything(network: Network) -> Mask:
    """The mask that keeps all."""
    return mask_of(network, {path: np.ones(shape, bool) for path, shape in prunable(network).items()})
