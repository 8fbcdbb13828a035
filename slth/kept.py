"""What long work keeps on disk, so that a killed process goes on: arrays, and a hash of what decides them.

A file is written whole or not at all. One that is damaged, or was made of something else, is as good as
none: the work is done again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from slth.interop.files import write_whole
from slth.nn.forward import check_some, each_batch
from slth.types import Batch

FORMAT = "slth kept 1"
Arrays = dict[str, np.ndarray]
SECONDS = 1.0
"""Batches are kept together until so much time has gone by: what is quick leaves few files."""


def identity_of(*facts: Any, arrays: Iterable[Any]) -> str:
    """A hash of facts, by their text, of arrays, by their content, and of the version of JAX."""
    found = [np.ascontiguousarray(array) for array in arrays]
    shapes = [(array.shape, array.dtype.str) for array in found]
    digest = hashlib.sha256(repr((jax.__version__, facts, shapes)).encode())
    for array in found:
        digest.update(array.data)
    return digest.hexdigest()


class Found(NamedTuple):
    """What an earlier process has kept."""

    arrays: Arrays
    text: Any
    """Plain values."""


def keep(path: Path, arrays: Mapping[str, np.ndarray], identity: str, text: Any = None) -> None:
    """Write arrays and plain values (JSON, in which NumPy's numbers are Python's), whole or not at all."""
    as_json = json.dumps(text, default=np.generic.item)
    metadata = {"format": FORMAT, "identity": identity, "text": as_json}
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, safetensors.numpy.save(content, metadata))


def find(path: Path, identity: str) -> Found | None:
    """What `keep` has written there with this identity; None where there is nothing of it."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("identity") != identity:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, safetensors.SafetensorError):
        return None
    return Found(arrays, json.loads(metadata["text"]))


def in_kept_batches(
    function: Callable[[Batch], Mapping[str, Any]],
    images: Batch,
    batch: int,
    folder: Path | None,
    identity: str,
    tell: Callable[[int, int], None] = lambda done, before: None,
) -> Arrays:
    """What a function makes of any number of images, batch by batch; a killed process loses the last second.

    Args:
      function: makes of a batch arrays by name, whose first axis is that of the images.
      folder: where they are kept, and where those of an earlier process are; None: nowhere.
      identity: of `identity_of`: of all that decides the arrays, images and size of a batch among it.
      tell: is called after each batch with the numbers of images done, and of those taken over from an
        earlier process; first of all with the latter alone, if there are any.
    Raises: ValueError if there is no image.
    """
    check_some(images)
    parts: list[Arrays] = []
    done = 0
    while folder is not None and done < len(images):
        before = find(_part(folder, done), identity)
        if before is None:
            break
        parts.append(before.arrays)
        done += len(next(iter(before.arrays.values())))
    taken_over = done
    if taken_over:
        tell(done, taken_over)
    new: list[Arrays] = []
    first, since = done, time.monotonic()
    for made in each_batch(function, images, batch, done):
        new.append(made)
        done += len(next(iter(made.values())))
        if folder is not None and (done == len(images) or time.monotonic() - since >= SECONDS):
            parts.append(_joined(new))
            keep(_part(folder, first), parts[-1], identity)
            new, first, since = [], done, time.monotonic()
        tell(done, taken_over)
    return _joined([*parts, *new])


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(folder: Path, first: int) -> Path:
    """The file of the batches from this image on."""
    return folder / f"from{first:08d}.safetensors"
