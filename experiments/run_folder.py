"""Where a run leaves its results.

A run lives in ``<output_dir>/<experiment>/<hash of its settings and of the files they name>``. It is
written beside that folder, in ``.<hash>``, by the one process that holds ``.<hash>.lock``, and renamed at
the end. So a folder that exists is complete: the same settings and files are then skipped, a broken run
goes on where it was broken off, and no run overwrites another.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.defaults import ELSEWHERE, changes, counted, drawn, text
from experiments.locks import held
from experiments.pages import write_report
from slth.data.sets import files_of
from slth.interop.onnx import files_of as tensors_of

LOG = logging.getLogger(__name__)
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)


def settings(cfg: DictConfig) -> dict:
    """The resolved config without `ELSEWHERE`: what a run computes, not where it is put."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k not in ELSEWHERE}


FILES = ("target.checkpoint", "targets")
"""Settings that name a file or folder to read; ``data.dir`` is another. (A ticket is verified each time.)"""


def read_by(cfg: DictConfig) -> dict[str, list[Path]]:
    """The files that exist and that a run with these settings reads, by setting."""
    named = {key: OmegaConf.select(cfg, key) for key in FILES}
    found = {key: _inside(Path(path).expanduser()) for key, path in named.items() if isinstance(path, str)}
    data = cfg.get("data")
    if isinstance(data, DictConfig) and data.get("dir") is not None:
        found["data.dir"] = files_of(data.name, data.dir)
    return {key: paths for key, paths in found.items() if paths}


def _inside(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix == ".onnx" and path.is_file():
        return tensors_of(path)
    return [path] if path.is_file() else []


def content_hashes(cfg: DictConfig) -> dict[str, list[str]]:
    """SHA-256 of every file that a run with these settings reads, by setting."""
    return {
        key: [_sha256(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
        for key, paths in read_by(cfg).items()
    }


@lru_cache(maxsize=4096)
def _sha256(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_hash(cfg: DictConfig, experiment: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the settings that count and of the files that they name.

    What counts is what differs from the first defaults (`experiments.defaults`). The order of keys does not
    matter.
    """
    files = content_hashes(cfg)
    return digest({**counted(drawn(settings(cfg)), experiment), **({"files": files} if files else {})})


def digest(plain: dict) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a dict of plain values."""
    return hashlib.sha256(text(plain).encode()).hexdigest()[:12]


def folder_of(cfg: DictConfig, experiment: str) -> Path:
    """The folder that a run with these settings ends in, an absolute path."""
    return runs_of(cfg, experiment) / config_hash(cfg, experiment)


def runs_of(cfg: DictConfig, experiment: str) -> Path:
    """The folder of an experiment's run folders, an absolute path."""
    return Path(cfg.get("output_dir") or "outputs").expanduser().resolve() / experiment


def finished(folder: Path) -> bool:
    """Whether a run ended in this folder: ``metrics.json`` is the last file that a run writes."""
    return (folder / "metrics.json").is_file()


@contextmanager
def run_folder(
    cfg: DictConfig, experiment: str, *, force: bool = False, again: bool = False, wait: bool = True
) -> Iterator[Path]:
    """A folder to write a run into, moved to `folder_of` when the block ends; only one process has it at a
    time.

    What a broken run of the same settings has left is taken over: a run finds its own half-made files
    there. A folder with no more than ``config.yaml`` and, from the root logger, ``log.txt``, which are
    written here, goes where the settings are refused (`USER_ERRORS`); whatever else ends the block leaves
    it for the next attempt.

    Args:
      force: do a finished run anew; its folder stays until the new one is whole.
      again: the same for a run whose old result is no proof any more: its folder goes first.
      wait: for another process that has it; otherwise `Busy` is raised.

    Raises: Busy; Finished where another process has just finished the run.
    """
    final = folder_of(cfg, experiment)
    final.parent.mkdir(parents=True, exist_ok=True)
    work = final.parent / f".{final.name}"
    with held(final.parent / f".{final.name}.lock", f"{experiment}/{final.name}", wait=wait):
        if finished(work):  # its process was killed before it moved it
            _move(work, final)
        if again:
            shutil.rmtree(final, ignore_errors=True)
        if finished(final) and not force:
            raise Finished
        work.mkdir(exist_ok=True)
        (work / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings(cfg)), sort_keys=True))
        log = logging.FileHandler(work / "log.txt")
        log.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(log)
        try:
            yield work
            _move(work, final)
        except USER_ERRORS:
            if {path.name for path in work.iterdir()} <= {"config.yaml", "log.txt"}:
                shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            logging.getLogger().removeHandler(log)
            log.close()


class Finished(Exception):
    """Another process has finished a run."""


def _move(work: Path, final: Path) -> None:
    """Put a whole folder into its place; what was there goes once it is."""
    old = final.parent / f".{final.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    work.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def write_metrics(folder: Path, metrics: dict) -> None:
    """``metrics.json`` in strict JSON: NumPy values as numbers and lists, what is not finite as null."""
    part = folder / ".metrics.json"
    part.write_text(json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n")
    part.replace(folder / "metrics.json")  # a run whose metrics.json is there is whole


def _plain(value):
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def execute(
    run: Callable[[DictConfig, Path], dict],
    cfg: DictConfig,
    experiment: str,
    *,
    again: bool = False,
    wait: bool = True,
) -> Path:
    """The finished run folder of these settings, computed unless it is there; prints it.

    Args:
      run: computes the metrics of one configuration and writes its other files into the folder given.
      cfg: the settings; with ``force`` a finished run is done anew.
      experiment: names the folder under ``output_dir``.
      again: the same, and a finished run is removed first: its result is no proof any more.
      wait: for another process that does the same run; otherwise `experiments.locks.Busy` is raised.
    """
    force = cfg.get("force", False)
    if type(force) is not bool:
        raise ValueError(f"force: expected true or false, got {force!r}")
    final = folder_of(cfg, experiment)
    try:
        if finished(final) and not (force or again):
            raise Finished
        with run_folder(cfg, experiment, force=force, again=again, wait=wait) as folder:
            write_metrics(folder, run(cfg, folder))
            write_report(folder, experiment, final)
    except Finished:
        _check_same(final, cfg)
        LOG.info("already finished: %s", final)
    print(final, flush=True)
    return final


def _check_same(folder: Path, cfg: DictConfig) -> None:
    """Refuse a finished run that has the same name by a default that was not recorded before it was changed.

    Raises: ValueError.
    """
    old = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(old, dict)
    for name, before, now in changes({str(k): v for k, v in old.items()}, settings(cfg)):
        raise ValueError(
            f"{name}: {now!r} here and {before!r} in {folder}, whose name is the same: the default was "
            "changed before experiments.defaults recorded it: force=true does the run anew"
        )
