"""From a composed config to data and target: a checkpoint that is read, or a training."""

import re
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from experiments.run_folder import content_hashes, digest
from experiments.settings import field, pairs_of, plain
from slth import Target
from slth.data import Data, load
from slth.interop import load_checkpoint, load_target
from slth.interop.files import outputs_of
from slth.nn.network import Network
from slth.nn.zoo import BUILDERS, build
from slth.train import SETTINGS, TARGET, Settings, train
from slth.types import Params

READING = ("key", "rename", "ignore")
"""Settings of ``target`` that say how its checkpoint is read."""


FILE = "file"
"""Name of a target whose checkpoint says itself what its network is."""


class Trained(NamedTuple):
    """A target, and how it came about."""

    target: Target
    seconds: float | None
    """Time that training took; None where a checkpoint was loaded."""


def data_of(cfg: DictConfig) -> Data:
    """The data set of the groups ``data`` and ``target`` (a published target has its own normalisation)."""
    data, target = cfg.data, cfg.get("target") or {}
    mean, std = (data[key] if data[key] is not None else target.get(key) for key in ("mean", "std"))
    with field("data.dir" if data.name in ("mnist", "cifar10", "npz") else "data"):
        return load(
            data.name,
            data.dir,
            limit=data.limit,
            train_limit=data.train_limit,
            mean=mean,
            std=std,
            layout=data.get("layout"),
            classes=data.get("classes"),
        )


def spec_of(cfg: DictConfig, data: Data) -> Network:
    """The spec of the target, with batch norm.

    A checkpoint that says itself what its network is must fit the data. Any other has an output for each
    class. Where nothing but the labels of a file says how many these are, a
    checkpoint that has more outputs is believed.
    """
    if cfg.target.name == FILE:
        return _fitting(cfg, data)
    known = ("name", "checkpoint", *READING, "mean", "std")
    options = {k: v for k, v in plain(cfg.target).items() if k not in known and v is not None}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    with field("target"):
        if cfg.target.name not in BUILDERS:
            raise ValueError(f"{cfg.target.name!r} is unknown: choose one of {', '.join(BUILDERS)}, {FILE}")
        network = build(cfg.target.name, data.shape, data.classes, **options)
    if cfg.target.checkpoint is None or data.name != "npz" or cfg.data.get("classes") is not None:
        return network
    with field("target.checkpoint"):
        outputs = outputs_of(cfg.target.checkpoint, network, **reading_of(cfg))
    if outputs is None or outputs <= data.classes:
        return network
    return build(cfg.target.name, data.shape, outputs, **options)


def _opened(cfg: DictConfig) -> Target:
    """The target of a file that says itself what its network is."""
    if cfg.target.checkpoint is None:
        raise ValueError("target.checkpoint: name the file of target=file, such as net.onnx")
    if any(reading_of(cfg).values()):
        raise ValueError(f"target: {', '.join(READING)} choose arrays for a spec, and target=file has none")
    path = Path(cfg.target.checkpoint).expanduser()
    with field("target.checkpoint"):
        return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> Target:
    return load_target(path)


def _fitting(cfg: DictConfig, data: Data) -> Network:
    """The network of a file.

    Raises: ValueError where it reads other images, or has other outputs, than the data ask for.
    """
    network = _opened(cfg).network
    shape, outputs = network.input_shape, network.output_shape
    if shape != data.shape:
        raise ValueError(
            f"target.checkpoint: {cfg.target.checkpoint} reads images of shape {shape}, channels last, and "
            f"those of data={data.name} have the shape {data.shape}"
        )
    more = data.name == "npz" and cfg.data.get("classes") is None  # its labels may lack the last classes
    if len(outputs) != 1 or not ((outputs[0] > data.classes and more) or outputs[0] == data.classes):
        raise ValueError(
            f"target.checkpoint: {cfg.target.checkpoint} has outputs of shape {outputs}, and "
            f"data={data.name} has {data.classes} classes"
        )
    return network


def reading_of(cfg: DictConfig) -> dict[str, Any]:
    """How a checkpoint is read, as `slth.interop.load_checkpoint` takes it."""
    key, rename, ignore = (plain(cfg.target).get(name) for name in READING)
    for name, value in (("rename", rename), ("ignore", ignore)):
        if isinstance(value, str):
            raise ValueError(f"target.{name}: expected a list, got {value!r}: see conf/target/base.yaml")
    pairs = pairs_of(rename or ())
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ValueError(
                f"target.rename: expected pairs of a regular expression and a name, got {pair!r}"
            )
        with field("target.rename"):
            _compiled(pair[0])
    return {"key": key, "rename": pairs, "ignore": tuple(map(str, ignore or ()))}


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def loaded(cfg: DictConfig, network: Network) -> Params:
    """The parameters in ``target.checkpoint``."""
    if cfg.target.name == FILE:
        return _opened(cfg).params
    reading = reading_of(cfg)
    with field("target.checkpoint"):
        return load_checkpoint(cfg.target.checkpoint, network, **reading)


def target_of(cfg: DictConfig, data: Data, folder: Path) -> Trained:
    """The target, from its checkpoint or trained; a trained one leaves its checkpoint in ``folder``.

    A training goes on where it was broken off, and all runs under one ``output_dir`` that ask for the same
    target, data and training share it.
    """
    network = spec_of(cfg, data)
    if cfg.target.checkpoint is not None:
        params, seconds = loaded(cfg, network), None
    else:
        started = time.perf_counter()
        chosen = {k: v for k, v in plain(cfg.train).items() if v is not None}
        asked = {"target": plain(cfg.target), "data": plain(cfg.data), "train": chosen}
        asked["data"]["limit"] = None  # of test images
        if files := content_hashes(cfg):
            asked["files"] = files
        kept = Path(cfg.output_dir).expanduser().resolve() / "target" / digest(asked)
        with field("train"):
            settings = Settings(**{**vars(SETTINGS[data.name]), **chosen})
            params = train(network, data, settings, folder=kept).params
        shutil.copyfile(kept / TARGET, folder / TARGET)
        seconds = time.perf_counter() - started
    return Trained(Target.of(network, params), seconds)
