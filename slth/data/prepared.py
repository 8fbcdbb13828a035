"""Data sets that TFDS prepares: MNIST and CIFAR-10, read without TensorFlow."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slth.data.archive import Archive, Part

CLASSES = {"cifar10": 10, "mnist": 10}
"""The sets that TFDS prepares, and their numbers of classes."""

FORMAT = "array_record"  # the one format of TFDS that is read without TensorFlow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what TFDS and absl warn of: advice on OpenCV, on folders, on Google Cloud."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _command(name: str, directory: str | Path | None) -> str:
    place = f" --dir {directory}" if directory is not None else ""
    return f'pip install -e ".[prepare]" && python -m slth.data {name}{place}'


def read_prepared(name: str, folder: Path | None, limit: int | None, train_limit: int | None) -> Archive:
    """Training part, test part and number of classes out of a folder that `prepare` wrote.

    Raises: FileNotFoundError or ValueError, each with the command that prepares the data.
    """
    with _quiet():
        import tensorflow_datasets as tfds

        with _readable(name, folder or "the folder of TFDS", folder):
            builder = tfds.builder(name, data_dir=folder)
        if not builder.is_prepared():
            nearby = None if folder is None else _nearby(name, folder)
            hint = f"run `{_command(name, folder)}`" if nearby is None else f"the folder to name is {nearby}"
            raise FileNotFoundError(f"{name} is not in {builder.data_path}: {hint}")
        found = getattr(builder.info.file_format, "value", None)
        if found != FORMAT:
            raise ValueError(
                f"{name} in {builder.data_path} was prepared as {found}, which needs TensorFlow to read: "
                f"run `{_command(name, 'ANOTHER_FOLDER')}`"
            )
        with _readable(name, builder.data_path, folder):
            train, test = (
                _read(builder.as_data_source(split), count)  # pyright: ignore[reportCallIssue]
                for split, count in (("train", train_limit), ("test", limit))
            )
    return Archive(train, test, CLASSES[name])


def _nearby(name: str, folder: Path) -> Path | None:
    """The folder that holds a prepared set, where it is some levels above or one below the one named."""
    above = [one for one in (folder.absolute(), *folder.absolute().parents[:2]) if one.name == name]
    below = sorted(folder.glob(f"*/{name}")) if folder.is_dir() else []
    places = (one.parent for one in (*above, *below) if any(one.glob("*/dataset_info.json")))
    return next(places, None)


@contextlib.contextmanager
def _readable(name: str, place: object, folder: Path | None) -> Iterator[None]:
    """Turn whatever a damaged folder makes TFDS raise into one line."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} in {place} cannot be read ({said}): remove it and run `{_command(name, folder)}`"
        ) from error


def _read(source: Any, limit: int | None) -> Part:
    """The first examples of what TFDS reads from, which has a length and gives each by its number."""
    examples = [source[index] for index in range(len(source))[:limit]]
    if not examples:
        raise ValueError("the prepared data set holds no images: prepare it again")
    labels = np.array([example["label"] for example in examples], np.int32)
    return np.stack([example["image"] for example in examples]), labels


def prepare(name: str, directory: str | Path | None = None) -> Path:
    """Download a data set and write it as array_record, which is read without TensorFlow.

    Needs the extra ``prepare`` and the internet. An existing prepared folder is left as it is.

    Returns: the folder with the prepared set.
    Raises: ValueError for a set that is not one of `CLASSES`; ImportError without TensorFlow.

    Example:
      >>> import slth.data
      >>> slth.data.prepare("cifar10", "data")      # doctest: +SKIP
    """
    if name not in CLASSES:
        raise ValueError(f"data {name!r} cannot be prepared: choose one of {', '.join(CLASSES)}")
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'preparing data needs TensorFlow (reading does not): pip install -e ".[prepare]"'
        ) from error
    with _quiet():
        import tensorflow_datasets as tfds

        folder = None if directory is None else Path(directory).expanduser()
        builder = tfds.builder(name, data_dir=folder, file_format=FORMAT)
        builder.download_and_prepare()
    return Path(builder.data_path)
