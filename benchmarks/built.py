"""What `experiments.ticket` would build for some settings, without its files."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.compose import Target, ingredients_of
from slth.construct import Construction, construct
from slth.data import Data
from slth.source import Source

CONF = Path(__file__).parents[1].resolve() / "conf"


class Built(NamedTuple):
    """A ticket in memory, and what it was made from."""

    cfg: DictConfig
    data: Data
    target: Target
    source: Source
    made: Construction


def built(overrides: list[str]) -> Built:
    """The ticket of these settings of `experiments.ticket`."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("ticket", overrides)
    with tempfile.TemporaryDirectory() as folder:
        solver, data, calibration, target, source, _ = ingredients_of(cfg, Path(folder))
    images = None if calibration is None else jnp.asarray(calibration)
    made = construct(target.network, target.params, source, solver, images)
    return Built(cfg, data, target, source, made)
