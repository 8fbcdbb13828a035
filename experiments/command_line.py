"""How an experiment starts, and what it says where it fails.

An experiment is

    def run(cfg, folder):            # folder: a Path to write into
        ...
        return metrics               # a dict; becomes metrics.json

    if __name__ == "__main__":
        main(run, "subset_sum")      # also the name of the config in conf/

and prints its run folder as the last line of standard output.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
import jax
from hydra.core.hydra_config import HydraConfig
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.run_folder import USER_ERRORS, execute
from slth.precision import in_32_bits

CONF = Path(__file__).resolve().parent.parent / "conf"


def said(error: Exception) -> str:
    """What a user is told of an error: of an override that Hydra cannot read, how to quote it."""
    if not isinstance(error, OverrideParseException):
        return " ".join(str(error).split())
    name, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: expected a setting and its value, NAME=VALUE"
    value = value.strip("\"'")
    return (
        f"{name}: cannot read {value}: a value with one of = ~ ( [ {{ or quotes in it needs quotes within "
        f"quotes, '{name}=\"{value}\"'"
    )


def refuse(error: Exception) -> NoReturn:
    """One line, and exit code 2."""
    print("error: " + said(error), file=sys.stderr)
    sys.exit(2)


def check_device() -> None:
    """Refuse a JAX that has no device to compute on.

    Raises: ValueError.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise ValueError(
            f"JAX_PLATFORMS={asked}: jax finds no such device here ({said(error) or 'no reason given'}): "
            "choose JAX_PLATFORMS=cpu, or leave it out"
        ) from error


class Faults:
    """What went wrong in the points of a sweep, which goes on; a single run ends at its fault."""

    def __init__(self) -> None:
        self.refused = self.failed = self.points = 0

    def exit_code(self) -> int:
        """2 where a point was refused, else 1 where one contradicts a claim, else 0; says how many."""
        if self.refused or self.failed:
            text = "of {} points {} were refused and {} failed: see the lines above"
            print(text.format(self.points, self.refused, self.failed), file=sys.stderr)
        return 2 if self.refused else int(bool(self.failed))


def main(
    run: Callable[[DictConfig, Path], dict],
    experiment: str,
    config: str | None = None,
    *,
    again: bool = False,
    verdict: Callable[[dict], str | None] = lambda metrics: None,
) -> None:
    """The command line of an experiment: Hydra's overrides and sweeps, one line and exit code 2 for bad
    input, exit code 1 for a run whose results contradict a claim. A sweep goes on after such a point, and
    ends with its exit code.

    Args:
      run: computes the metrics of one configuration and writes its other files into the folder given.
      experiment: names the folder under ``output_dir``.
      config: primary config in ``conf/``; by default the experiment's name.
      again: do a finished run anew, for a check whose old result is no proof.
      verdict: what is wrong with a finished run's metrics, None if nothing is.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's many lines
    faults = Faults()

    def job(cfg: DictConfig) -> str | None:
        logging.getLogger("jax").setLevel(logging.WARNING)
        hydra_cfg = HydraConfig.get()
        sweep, faults.points = hydra_cfg.mode == RunMode.MULTIRUN, faults.points + 1
        point = f"{' '.join(hydra_cfg.overrides.task)}: " if sweep else ""
        try:
            check_device()
            with in_32_bits():
                folder = execute(run, cfg, experiment, again=again)
        except USER_ERRORS as error:
            if full:
                raise
            if not sweep:
                refuse(error)  # here: Hydra would print lines of its own first
            print(f"error: {point}{said(error)}", file=sys.stderr)
            faults.refused += 1
            return None
        wrong = verdict(json.loads((folder / "metrics.json").read_text()))
        if wrong is not None:
            print(f"FAILED: {point}{wrong}", file=sys.stderr)
            faults.failed += 1
            if not sweep:
                sys.exit(1)
        return str(folder)

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config or experiment)(job)()
    except USER_ERRORS as error:
        if full:
            raise
        refuse(error)
    if code := faults.exit_code():
        sys.exit(code)
