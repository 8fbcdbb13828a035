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
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
import jax
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.defaults import CONF
from experiments.locks import Busy
from experiments.messages import register_help, said
from experiments.run_folder import USER_ERRORS, execute, runs_of
from experiments.stages import kept_of
from experiments.sweep import Sweep, Watch
from slth.precision import in_32_bits

LOG = logging.getLogger(__name__)
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of programs that the signal ends."""
Run = Callable[[DictConfig, Path], dict]


def refuse(error: Exception, config: str | None = None) -> NoReturn:
    """One line, and exit code 2."""
    print("error: " + said(error, config), file=sys.stderr)
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


def main(
    run: Run,
    experiment: str,
    config: str | None = None,
    *,
    again: bool = False,
    verdict: Callable[[dict], str | None] = lambda metrics: None,
) -> None:
    """The command line of an experiment: Hydra's overrides and sweeps, one line and exit code 2 for bad
    input, exit code 1 for a run whose results contradict a claim, 130 after Ctrl-C. A sweep goes on after
    such a point, and ends with its exit code; a point that another process works on waits for its end.

    Args:
      run: computes the metrics of one configuration and writes its other files into the folder given.
      experiment: names the folder under ``output_dir``.
      config: primary config in ``conf/``; by default the experiment's name.
      again: do a finished run anew, for a check whose old result is no proof.
      verdict: what is wrong with a finished run's metrics, None if nothing is.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's many lines
    sweep = Watch.sweep = Sweep(experiment)

    def job(cfg: DictConfig) -> Any:
        logging.getLogger("jax").setLevel(logging.WARNING)
        hydra_cfg = HydraConfig.get()
        if hydra_cfg.mode != RunMode.MULTIRUN:
            return single(cfg)
        if not sweep.here:
            os.chdir(sweep.folder)  # paths are relative to it
        name = f"{' '.join(hydra_cfg.overrides.task)}: "
        note = partial(sweep.note, hydra_cfg.sweep.dir, hydra_cfg.job.num)
        try:
            return point(cfg, name, note, wait=not sweep.here or cfg.returns is not None)
        except Busy as busy:
            LOG.info("%s: going on to the next point, this one comes last", busy)
            sweep.later.append(lambda: point(cfg, name, note))

    def single(cfg: DictConfig) -> None:
        try:
            wrong = verdict(metrics_of(cfg))
        except USER_ERRORS as error:
            if full:
                raise
            refuse(error)  # here: Hydra would print lines of its own first
        if wrong is not None:
            print(f"FAILED: {wrong}", file=sys.stderr)
            sys.exit(1)

    def point(cfg: DictConfig, name: str, note: Callable[..., None], wait: bool = True) -> float | None:
        """One point of a sweep, and the number that ``returns`` names."""
        try:
            metrics = metrics_of(cfg, wait)
            number = None if cfg.returns is None else number_of(metrics, cfg.returns)
        except USER_ERRORS as error:
            if full:
                raise
            note("refused", f"error: {name}{said(error)}")
            return None
        wrong = verdict(metrics)
        note(*(() if wrong is None else ("failed", f"FAILED: {name}{wrong}")))
        return number

    def metrics_of(cfg: DictConfig, wait: bool = True) -> dict:
        check_device()
        sweep.runs = runs_of(cfg, experiment)
        with in_32_bits():
            folder = execute(run, cfg, experiment, again=again, wait=wait)
        return json.loads((folder / "metrics.json").read_text())

    job.__module__ = f"experiments.{experiment}"  # Hydra names the job after it
    register_help()
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config or experiment)(job)()
    except USER_ERRORS as error:
        if full:
            raise
        refuse(error, config or experiment)
    except KeyboardInterrupt as stop:
        print(interrupted(sweep, *map(str, stop.args[:1])), file=sys.stderr)
        sys.exit(INTERRUPTED)
    if code := sweep.exit_code():
        sys.exit(code)


def number_of(metrics: dict, name: str) -> float:
    """A number of a run's metrics by its dotted name.

    Raises: ValueError where there is no such number.
    """
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if type(value) not in (int, float):
        raise ValueError(f"returns: expected the name of a number in metrics.json, {name} is {value!r}")
    return float(value)


def interrupted(sweep: Sweep, stage: str | None = None) -> str:
    """What is kept after Ctrl-C, and how to go on.

    Args:
      stage: of the run, where it is known (`experiments.stages`).
    """
    if sweep.runs is None:
        return "interrupted before any run began"
    kept = "" if stage is None else kept_of(stage, sweep.runs.parent / "target")
    return (
        f"interrupted{'' if stage is None else f' in the stage {stage}'}: finished runs and what this one "
        f"has made{kept and f' ({kept})'} are kept in {sweep.runs}: the same command goes on"
    )
