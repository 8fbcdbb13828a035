"""Where a run leaves its results.

A run lives in ``<output_dir>/<experiment>/<hash of its settings and of the files they name>``. It is
written beside that folder and renamed at the end, so a folder that exists is complete: the same settings and
files are then skipped, a broken run goes on where it was broken off, and no run overwrites another.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.pages import write_report
from slth.data.sets import files_of
from slth.interop.onnx import files_of as tensors_of

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)


def settings(cfg: DictConfig) -> dict:
    """The resolved config without ``output_dir``: what a run computes, not where it is put."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {k: v for k, v in plain.items() if k != "output_dir"}


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


def config_hash(cfg: DictConfig) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the settings and of the files that they name.

    The order of keys does not matter; settings without files have the hash of the settings alone.
    """
    return digest({**settings(cfg), **({"files": files} if (files := content_hashes(cfg)) else {})})


def digest(plain: dict) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a dict of plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(cfg: DictConfig, experiment: str) -> Path:
    """The folder that a run with these settings ends in, an absolute path."""
    return Path(cfg.get("output_dir") or "outputs").expanduser().resolve() / experiment / config_hash(cfg)


def finished(folder: Path) -> bool:
    """Whether a run ended in this folder: ``metrics.json`` is the last file that a run writes."""
    return (folder / "metrics.json").is_file()


@contextmanager
def run_folder(cfg: DictConfig, experiment: str) -> Iterator[Path]:
    """A folder to write a run into, moved to `folder_of` when the block ends.

    What a broken run of the same settings has left is taken over: a run finds its own half-made files there.
    The folder goes where the settings are refused (`USER_ERRORS`); whatever else ends the block leaves it for
    the next attempt. ``config.yaml`` and, from the root logger, ``log.txt`` are written here.
    """
    final = folder_of(cfg, experiment)
    final.parent.mkdir(parents=True, exist_ok=True)
    work = final.parent / f".{final.name}.{os.getpid()}"
    for left in final.parent.glob(f".{final.name}.*"):
        if left != work and not _alive(left.suffix[1:]):
            _take_over(left, work)
    work.mkdir(exist_ok=True)
    (work / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings(cfg)), sort_keys=True))
    log = logging.FileHandler(work / "log.txt")
    log.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(log)
    try:
        yield work
        if final.exists() and not finished(final):
            shutil.rmtree(final)
        if final.exists():  # another process has just finished the same run
            shutil.rmtree(work)
        else:
            work.rename(final)
    except USER_ERRORS:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        logging.getLogger().removeHandler(log)
        log.close()


def _take_over(left: Path, work: Path) -> None:
    """Make a dead process's folder our own; where several are left one is enough."""
    if work.exists():
        shutil.rmtree(left, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        left.rename(work)


def _alive(pid: str) -> bool:
    """Whether a process of this number runs; a suffix that is no number belongs to nobody."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_metrics(folder: Path, metrics: dict) -> None:
    """``metrics.json`` in strict JSON: NumPy values as numbers and lists, what is not finite as null."""
    (folder / "metrics.json").write_text(json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n")


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
    run: Callable[[DictConfig, Path], dict], cfg: DictConfig, experiment: str, *, again: bool = False
) -> Path:
    """The finished run folder of these settings, computed unless it is there or ``again``; prints it."""
    final = folder_of(cfg, experiment)
    if again:
        shutil.rmtree(final, ignore_errors=True)
    if finished(final):
        logging.getLogger(__name__).info("already finished: %s", final)
    else:
        with run_folder(cfg, experiment) as folder:
            write_metrics(folder, run(cfg, folder))
            write_report(folder, experiment, final)
    print(final, flush=True)
    return final
