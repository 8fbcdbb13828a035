"""Arrays of your own: the parts of an .npz file, checked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np

from slth.data.formats import Archive, Arrays, Reading, first_folder, part_of
from slth.types import Task

LOG = logging.getLogger(__name__)

LAYOUTS = ("channels_last", "channels_first", "grey")
"""Which axis of an image or a signal holds its channels: the last, the first, or none (one channel)."""
COLOURS = (1, 3, 4)  # channels of a picture: grey, RGB, RGB with alpha

INT16 = 2.0**15  # 16-bit sound lies in [-1, 1) in units of this

# The names under which an .npz file may hold its parts, in the order in which they are looked for.
TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels"))


@dataclass(frozen=True)
class Npz:
    """An .npz file.

    Args:
      name: of the set.
      inside: names of the file in a folder; none: the place is the file, whatever its name.
      classes: of a known set, whose excerpt may lack the last; None: the largest label + 1.
    """

    name: str
    inside: tuple[str, ...] = ()
    classes: int | None = None

    @property
    def wanted(self) -> str:
        """The file."""
        return self.inside[0] if self.inside else "an .npz file"

    def files(self, place: Path | None) -> list[Path] | None:
        """The file."""
        if self.inside:
            if place is not None and place.is_file() and place.suffix == ".npz":
                return [place]
            folder = first_folder(place, (), self.inside)
            return (
                None if folder is None else [next(f for one in self.inside if (f := folder / one).is_file())]
            )
        if place is None:
            raise ValueError("data npz needs a file: set its directory to the path of an .npz file")
        if not place.is_file():
            raise FileNotFoundError(f"data file {place} is not there: name an existing .npz file")
        return [place]

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts."""
        path = (self.files(place) or [])[0]
        if self.classes is None:
            return read_archive(path, reading)
        held = read_archive(path, reading._replace(task="classes"))
        return held._replace(classes=max(held.classes or 0, self.classes))


def read_archive(path: Path, reading: Reading) -> Archive:
    """The parts of an .npz file, and what it says of them.

    Raises: ValueError naming the file and what it should hold.
    """
    if not is_zipfile(path):
        raise ValueError(f"data file {path} is not an .npz file (a zip of arrays)")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise ValueError(f"data file {path} cannot be read as .npz: {error}") from error
    train_keys, test_keys = (
        next((pair for pair in known if set(pair) <= set(held)), None) for known in (TRAIN, TEST)
    )
    if test_keys is None:
        raise ValueError(
            f"data file {path} holds {', '.join(sorted(held)) or 'nothing'}: expected test_images and "
            "test_labels (or images and labels), and train_images and train_labels for training"
        )
    labels = [held[keys[1]] for keys in (train_keys, test_keys) if keys is not None]
    if reading.task is None:
        reading = reading._replace(task=_task(path, labels))
    least = -1.0 if _signal(held[test_keys[0]].shape[1:], reading.layout) else 0.0
    low, high = least if reading.low is None else reading.low, 1.0 if reading.high is None else reading.high
    if not low < high:
        raise ValueError(f"data low must be below data high, got {low:g} and {high:g}")
    ends = (low, high)
    test = _checked(path, test_keys, held, reading, ends)
    train = (test[0][:0], test[1][:0])
    if train_keys is not None:
        train = _checked(path, train_keys, held, reading, ends)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"data file {path}: training images {train[0].shape[1:]} and test images "
            f"{test[0].shape[1:]} differ in shape"
        )
    if train[1].shape[1:] != test[1].shape[1:]:
        raise ValueError(
            f"data file {path}: training labels {train[1].shape[1:]} and test labels {test[1].shape[1:]} "
            "differ in shape"
        )
    classes = None
    if reading.task == "classes":
        classes = int(max(test[1].max(initial=0), train[1].max(initial=0))) + 1
    return Archive(part_of(*train), part_of(*test), classes, low, high, held.get("mean"), held.get("std"))


def _task(path: Path, labels: Sequence[np.ndarray]) -> Task:
    """What labels of this type and shape are.

    Raises: ValueError where they may be either.
    """
    flat = all(array.ndim == 1 or array.shape[1:] == (1,) for array in labels)
    if flat and all(np.issubdtype(array.dtype, np.integer) for array in labels):
        return "classes"
    floats = all(np.issubdtype(array.dtype, np.floating) for array in labels)
    if floats and any((array != np.rint(array)).any() for array in labels):
        return "regression"
    if any(array.dtype.kind not in "iuf" for array in labels):
        raise ValueError(f"data file {path}: labels must be integers or floats, got {labels[-1].dtype}")
    raise ValueError(
        f"data file {path}: labels {labels[-1].shape} of {labels[-1].dtype} may be classes or numbers: say "
        "task=classes or task=regression (in a run: data.task)"
    )


def layout_of(shape: tuple[int, ...]) -> str | None:
    """The layout of images of this shape, None where it may be either.

    Two axes are a grey picture, or a signal of one channel where one has a single entry. Of three, the one
    with 1, 3 or 4 entries is the channels; where that says nothing, height and width are the two that are
    equal.
    """
    if len(shape) == 2 and 1 in shape:
        return "channels_last" if shape[-1] == 1 else "channels_first"
    if len(shape) != 3:
        return "grey" if len(shape) == 2 else "channels_last"
    ends = {"channels_last": (shape[-1], shape[:2]), "channels_first": (shape[0], shape[1:])}
    for fits in (
        lambda channels, sides: channels in COLOURS and sides[0] == sides[1],
        lambda channels, sides: channels in COLOURS,
        lambda channels, sides: sides[0] == sides[1],
    ):
        chosen = [name for name, end in ends.items() if fits(*end)]
        if chosen:
            return chosen[0] if len(chosen) == 1 else None
    return None


def _signal(shape: tuple[int, ...], layout: str | None) -> bool:
    """Whether images of this shape in a file are signals (length, channels)."""
    return len(shape) + ((layout or layout_of(shape)) == "grey") == 2


def _channels_last(where: str, images: np.ndarray, layout: str | None) -> np.ndarray:
    """The images with their channels as the last axis."""
    shape = images.shape[1:]
    layout = layout or layout_of(shape)
    if layout is None:
        raise ValueError(
            f"{where} {images.shape}: which axis holds the channels? Say layout=channels_last or "
            "layout=channels_first (in a run: data.layout)"
        )
    if layout == "channels_first" and len(shape) > 1:
        LOG.info("%s %s: channels first, moved to the end", where, images.shape)
        return np.moveaxis(images, 1, -1)
    return images[..., None] if layout == "grey" else images


def _classes(where: str, labels: np.ndarray) -> np.ndarray:
    """Labels as whole numbers (n,): from integers, from floats that are whole, or from rows of 0 and a 1."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        return labels.argmax(1)
    real = labels.dtype.kind in "iuf" and labels.ndim == 1
    if not real or (labels != np.rint(labels)).any() or labels.min() < 0:
        raise ValueError(
            f"{where} must be integers 0, 1, ... of shape (n,), or numbers (task=regression, in a run "
            f"data.task=regression), got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)


def _numbers(where: str, labels: np.ndarray, layout: str | None) -> np.ndarray:
    """Labels as float32 of shape (n, *outputs): one number for each image is one output, pictures and
    signals have their channels last."""
    if labels.dtype.kind not in "iuf" or not np.isfinite(labels).all():
        raise ValueError(f"{where} must be finite numbers, got {labels.dtype}")
    if labels.ndim == 1:
        labels = labels[:, None]
    elif labels.ndim > 2:
        labels = _channels_last(where, labels, None if layout == "grey" else layout)
    return np.asarray(labels, np.float32)


def _checked(
    path: Path,
    keys: tuple[str, str],
    held: Mapping[str, np.ndarray],
    reading: Reading,
    ends: tuple[float, float],
) -> Arrays:
    image_key, label_key = keys
    images, labels = held[image_key], held[label_key]
    if images.ndim < 2 or labels.shape[:1] != images.shape[:1] or len(images) == 0:
        raise ValueError(
            f"data file {path}: {image_key} {images.shape} and {label_key} {labels.shape} must be "
            "(n, *shape) and (n,) with n >= 1, or (n, *outputs) of numbers"
        )
    images = _channels_last(f"data file {path}: {image_key}", images, reading.layout)
    where = f"data file {path}: {label_key}"
    labels = _classes(where, labels) if reading.task == "classes" else _numbers(where, labels, reading.layout)
    if images.dtype == np.uint8:
        return images, labels
    if images.dtype == np.int16 and images.ndim == 3:
        return (images / INT16).astype(np.float32), labels
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"data file {path}: {image_key} must be uint8, floats, or int16 of signals, got {images.dtype}"
        )
    least, largest = float(images.min()), float(images.max())
    low, high = ends
    if not (least >= low and largest <= high):  # a NaN compares false
        raise ValueError(
            f"data file {path}: {image_key} must lie in [{low:g}, {high:g}] (normalise with mean and std, or "
            "say low and high, in a run data.low and data.high), "
            f"got values from {least:g} to {largest:g}"
        )
    return images, labels
