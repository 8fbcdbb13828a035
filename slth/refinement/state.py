"""Where a refinement is, on disk and in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from slth.kept import keep
from slth.refinement.steps import Kernels, State

STATE = "refinement.safetensors"
"""File of a refinement that is under way, in its folder."""
KEPT_EACH = 20.0
"""Seconds, at least, between two states kept: one is five times as large as the layers that are refined."""


class Look(NamedTuple):
    """What a look at the held-out images saw.

    Example:
      >>> from slth import refinement
      >>> refinement.Look(step=25, steps=1000, loss=0.3, least=0.2, taken_over=0).step
      25
    """

    step: int
    """Steps done."""
    steps: int
    loss: float
    """Of the mask as it is now."""
    least: float
    """Of the best mask so far."""
    taken_over: int
    """Steps that an earlier process did."""


class Progress(NamedTuple):
    """Where a refinement is."""

    state: State
    best: Kernels
    """The bits with the smallest loss so far."""
    least: float
    """Their loss."""
    loss: float
    """Of the bits as they are."""
    steps: int
    """Steps done."""
    before: float
    """Loss of the mask that was given."""


NUMBERS = ("least", "loss", "steps", "before")


def keep_progress(file: Path, progress: Progress, identity: str) -> None:
    """Write where a refinement is, whole or not at all."""
    parts = progress.state._asdict() | {"best": progress.best}
    arrays = {f"{part}:{path}": np.asarray(leaf) for part, own in parts.items() for path, leaf in own.items()}
    keep(file, arrays, identity, {name: getattr(progress, name) for name in NUMBERS})


def progress_of(arrays: Mapping[str, np.ndarray], text: Mapping[str, Any]) -> Progress:
    """What `keep_progress` wrote."""
    parts: dict[str, Kernels] = {}
    for name, leaf in arrays.items():
        part, _, path = name.partition(":")
        parts.setdefault(part, {})[path] = jnp.asarray(leaf)
    best = parts.pop("best")
    return Progress(State(**parts), best, **{name: text[name] for name in NUMBERS})
