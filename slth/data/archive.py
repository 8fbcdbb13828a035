"""Arrays of your own: the parts of an .npz file, checked."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile, is_zipfile

import numpy as np

Part: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images (n, *shape) and labels (n,)."""

LOG = logging.getLogger(__name__)

LAYOUTS = ("channels_last", "channels_first", "grey")
"""Which axis of an image holds its channels: the last, the first, or none (one channel)."""
COLOURS = (1, 3, 4)  # channels of a picture: grey, RGB, RGB with alpha

# The names under which an .npz file may hold its parts, in the order in which they are looked for.
TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels"))


def find_archive(name: str, path: Path | None) -> Path | None:
    """The .npz file that is meant, or None where the data are a prepared TFDS folder."""
    if name == "npz":
        if path is None:
            raise ValueError("data npz needs a file: set its directory to the path of an .npz file")
        if not path.is_file():
            raise FileNotFoundError(f"data file {path} is not there: name an existing .npz file")
        return path
    if path is not None and path.is_file():
        if path.suffix != ".npz":
            raise ValueError(f"data file {path} is not an .npz file")
        return path
    if name == "mnist" and path is not None and not (path / name).is_dir():
        files = (path / "mnist.npz", path / "mnist_test.npz")
        return next((file for file in files if file.is_file()), None)
    return None


def read_archive(path: Path, layout: str | None) -> tuple[Part, Part, int]:
    """Training part (perhaps empty), test part and number of classes of an .npz file.

    Args:
      layout: of the images; None: what `layout_of` says.
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
    test = _checked(path, test_keys, held, layout)
    train = (np.empty((0, *test[0].shape[1:]), np.uint8), np.empty(0, np.int32))
    if train_keys is not None:
        train = _checked(path, train_keys, held, layout)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"data file {path}: training images {train[0].shape[1:]} and test images "
            f"{test[0].shape[1:]} differ in shape"
        )
    return train, test, int(max(test[1].max(initial=0), train[1].max(initial=0))) + 1


def layout_of(shape: tuple[int, ...]) -> str | None:
    """The layout of images of this shape, None where it may be either.

    Two axes are a grey picture. Of three, the one with 1, 3 or 4 entries is the channels; where that says
    nothing, height and width are the two that are equal.
    """
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


def _checked(path: Path, keys: tuple[str, str], held: Mapping[str, np.ndarray], layout: str | None) -> Part:
    image_key, label_key = keys
    images, labels = held[image_key], held[label_key]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if images.ndim < 2 or labels.shape != images.shape[:1] or len(images) == 0:
        raise ValueError(
            f"data file {path}: {image_key} {images.shape} and {label_key} {labels.shape} must be "
            "(n, *shape) and (n,) with n >= 1"
        )
    images = _channels_last(f"data file {path}: {image_key}", images, layout)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"data file {path}: {label_key} must be integers 0, 1, ..., got {labels.dtype}")
    if images.dtype == np.uint8:
        return images, labels
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"data file {path}: {image_key} must be uint8 or floats in [0, 1], got {images.dtype}"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # a NaN compares false
        raise ValueError(
            f"data file {path}: {image_key} must lie in [0, 1] (normalise with mean and std), "
            f"got values from {low:g} to {high:g}"
        )
    return images, labels
