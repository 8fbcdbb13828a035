"""What `experiments.ticket` would build for some settings, without its files."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.compose import ingredients_of
from slth import Construction, construct
from slth.data import Data

CONF = Path(__file__).parents[1].resolve() / "conf"


class Built(NamedTuple):
    """A ticket in memory, and what it was made from."""

    cfg: DictConfig
    data: Data
    made: Construction


def built(overrides: list[str]) -> Built:
    """The ticket of these settings of `experiments.ticket`."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("ticket", overrides)
    with tempfile.TemporaryDirectory() as folder:
        target, source, solver, calibration, options, data, _ = ingredients_of(cfg, Path(folder))
    return Built(cfg, data, construct(target, source, solver, calibration, **options))
