"""From a composed config to data and target: a checkpoint that is read, or a training."""

import logging
import re
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from experiments.defaults import counted, drawn
from experiments.locks import held
from experiments.run_folder import content_hashes, digest
from experiments.settings import field, pairs_of, plain
from slth import Target
from slth.data import Data, load
from slth.interop import CheckpointMismatch, load_checkpoint, load_target
from slth.interop.files import outputs_of
from slth.nn.network import Network
from slth.nn.zoo import BUILDERS, build
from slth.train import SETTINGS, TARGET, Settings, train
from slth.types import Params, Shape

LOG = logging.getLogger(__name__)
READING = ("key", "rename", "ignore")
"""Settings of ``target`` that say how its checkpoint is read."""

SIZES = (8, 28, 32, 64, 96, 224)
"""Sides of the pictures that published networks are trained on."""
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
    with field("data" if data.name == "digits" else "data.dir"):
        held = load(
            data.name,
            data.dir,
            limit=data.limit,
            train_limit=data.train_limit,
            seed=data.seed,
            mean=mean,
            std=std,
            **{
                name: data.get(name)
                for name in ("layout", "classes", "task", "low", "high", "resize", "crop")
            },
        )
    still = not held.mean.any() and (held.std == 1).all()
    own = data.name in ("npz", "folder")
    if own and target.get("checkpoint") and mean is None and still and len(held.shape) == 3:
        LOG.warning(
            "data.mean, data.std: nothing says them, so pictures are read as they are, from %g to %g: give "
            "those that the target was trained with (data.mean=0 data.std=1 if it had none)",
            held.low,
            held.high,
        )
    return held


def spec_of(cfg: DictConfig, data: Data) -> Network:
    """The spec of the target, with batch norm.

    A checkpoint that says itself what its network is must fit the data. Any other has an output for each
    class, or for each number of a label. Where nothing but the labels of a file says how many classes there
    are, a checkpoint that has more outputs is believed.
    """
    if data.classes == 1:
        raise ValueError(
            f"data: all labels of {data.name} are 0, one class: say data.classes=N, or data.task=regression"
        )
    if cfg.target.name == FILE:
        return _fitting(cfg, data)
    options = _options(cfg)
    with field("target"):
        if cfg.target.name not in BUILDERS:
            raise ValueError(f"{cfg.target.name!r} is unknown: choose one of {', '.join(BUILDERS)}, {FILE}")
        if len(data.outputs) != 1:
            raise ValueError(
                f"{cfg.target.name} computes a vector, and the labels of data={data.name} have the shape "
                f"{data.outputs}: choose target={FILE}, or flat labels"
            )
        try:
            network = build(cfg.target.name, data.shape, *data.outputs, **options)
        except ValueError as error:
            raise ValueError(f"{error} (data={data.name} are {described(data.shape)})") from error
    if cfg.target.checkpoint is None:
        return network
    with field("target.checkpoint"):
        outputs = outputs_of(cfg.target.checkpoint, network, **reading_of(cfg))
    if (
        data.name == "npz"
        and cfg.data.get("classes") is None
        and outputs
        and outputs > (data.classes or outputs)
    ):
        network = build(cfg.target.name, data.shape, outputs, **options)
    return network


def _options(cfg: DictConfig) -> dict[str, Any]:
    """What the builder of a named target is given beside its shape and classes."""
    known = ("name", "checkpoint", *READING, "mean", "std")
    options = {k: v for k, v in plain(cfg.target).items() if k not in known and v is not None}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def described(shape: Shape) -> str:
    """What images of a shape are, in words."""
    match shape:
        case (height, width, channels):
            colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
            return f"pictures of {height} x {width} pixels, {colours}"
        case (length, channels):
            return f"signals of {length} numbers, channels: {channels}"
    return f"rows of {shape[0]} numbers: signals of one channel need data.layout=grey"


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
    opened = _opened(cfg)
    network, task = opened.network, opened.task
    shape, outputs = network.input_shape, network.output_shape
    if shape != data.shape:
        raise ValueError(
            f"target.checkpoint: {cfg.target.checkpoint} reads images of shape {shape}, channels last, and "
            f"those of data={data.name} have the shape {data.shape}: {described(data.shape)}"
        )
    if data.classes is None:
        if task == "classes":
            raise ValueError(
                f"target.checkpoint: {cfg.target.checkpoint} ends in a softmax: its outputs are classes, "
                f"and the labels of data={data.name} are numbers: say data.task=classes if they are too"
            )
        if outputs != data.outputs:
            raise ValueError(
                f"target.checkpoint: {cfg.target.checkpoint} has outputs of shape {outputs}, and the labels "
                f"of data={data.name} are numbers of shape {data.outputs}"
            )
        return network
    more = data.name == "npz" and cfg.data.get("classes") is None  # its labels may lack the last classes
    if len(outputs) != 1 or not ((outputs[0] > data.classes and more) or outputs[0] == data.classes):
        raise ValueError(
            f"target.checkpoint: {cfg.target.checkpoint} has outputs of shape {outputs}, and "
            f"data={data.name} has {data.classes} classes: if the outputs are no classes, say "
            "data.task=regression"
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
    """The parameters in ``target.checkpoint``.

    Raises: ValueError where they are not those of the network; it says so where they would be those of the
      named network for images of another size or colour.
    """
    if cfg.target.name == FILE:
        return _opened(cfg).params
    reading = reading_of(cfg)
    with field("target.checkpoint"):
        try:
            return load_checkpoint(cfg.target.checkpoint, network, **reading)
        except CheckpointMismatch as error:
            shape = _trained_on(cfg, network)
            if shape is None:
                raise
            raise ValueError(
                f"checkpoint {cfg.target.checkpoint} reads {described(shape)}, and data={cfg.data.name} are "
                f"{described(network.input_shape)}: convert them"
            ) from error


def _trained_on(cfg: DictConfig, network: Network) -> Shape | None:
    """Pictures of another size or colour for which the named network has the parameters of its checkpoint."""
    if len(network.input_shape) != 3:
        return None
    sizes = (network.input_shape[:2], *((size, size) for size in SIZES))
    for shape in ((*size, channels) for size in sizes for channels in (1, 3)):
        try:
            spec = build(cfg.target.name, shape, *network.output_shape, **_options(cfg))
            load_checkpoint(cfg.target.checkpoint, spec, **reading_of(cfg))
        except ValueError:
            continue
        return shape
    return None


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
        asked = counted(drawn(asked), None)
        if files := content_hashes(cfg):
            asked["files"] = files
        kept = Path(cfg.output_dir).expanduser().resolve() / "target" / digest(asked)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with field("train"), held(kept.parent / f".{kept.name}.lock", f"target/{kept.name}"):
            settings = Settings(**{**vars(SETTINGS[data.name]), **chosen})
            params = train(network, data, settings, folder=kept).params
            shutil.copyfile(kept / TARGET, folder / TARGET)
        seconds = time.perf_counter() - started
    return Trained(Target.of(network, params, data.task), seconds)
