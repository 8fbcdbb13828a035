"""What every reader of data gives, and what every format is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from slth.types import Task

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images (n, *shape), and labels: classes (n,) or numbers (n, *outputs)."""
Index: TypeAlias = slice | np.ndarray
"""Which images: a slice, or their numbers."""


class Part(NamedTuple):
    """The training part or the test part of a set, of which as much is read as is asked for."""

    count: int
    labels: Callable[[], np.ndarray]
    """Of all images."""
    read: Callable[[Index], Arrays]
    """Some of the images, and their labels."""
    plain: bool = False
    """Whether a limit draws without regard to classes, because too much would be read for all labels."""


def part_of(images: np.ndarray, labels: np.ndarray) -> Part:
    """A part that is in memory as a whole."""
    return Part(len(labels), lambda: labels, lambda index: (images[index], labels[index]))


def without_images(shape: tuple[int, ...], labels: np.ndarray) -> Part:
    """The training part of data that have none: no image of this shape, no label like these."""
    return part_of(np.empty((0, *shape), np.uint8), labels[:0])


class Archive(NamedTuple):
    """What files hold: uint8 images, or floats in [low, high], channels last."""

    train: Part
    """Perhaps without images."""
    test: Part
    classes: int | None
    """None where labels are numbers."""
    low: float = 0.0
    high: float = 1.0
    mean: np.ndarray | None = None
    """Of the images, where the file says it."""
    std: np.ndarray | None = None


class Reading(NamedTuple):
    """What a user says of arrays; what is None is seen from the arrays themselves."""

    layout: str | None = None
    task: Task | None = None
    low: float | None = None
    """Least and largest number that an image of floats may hold: 0 and 1, of signals -1 and 1."""
    high: float | None = None
    resize: int | None = None
    """Shorter side of a photograph, and the square that is cut from its middle (`slth.data.photographs`)."""
    crop: int | None = None


class Format(Protocol):
    """One form in which a set lies on disk."""

    @property
    def wanted(self) -> str:
        """What it reads, in words that follow "expected"."""
        ...

    def files(self, place: Path | None) -> list[Path] | None:
        """The files that it reads there, in order; None where the place holds nothing of this form.

        Raises: ValueError where the place holds only some of them.
        """
        ...

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """What these files hold.

        Raises: ValueError naming the file, what was expected and what was found.
        """
        ...


def check_labels(where: str, labels: np.ndarray, classes: int) -> np.ndarray:
    """The labels as int32.

    Raises: ValueError where one is not in 0 .. classes - 1.
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"{where}: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}: "
            "the file is damaged or of another data set"
        )
    return labels.astype(np.int32)


def first_folder(place: Path | None, inside: Sequence[str], names: Sequence[str]) -> Path | None:
    """The place itself, or the first of the folders named inside it, that has a file of one of the names."""
    if place is None or not place.is_dir():
        return None
    places = (place, *(place / one for one in inside))
    return next((one for one in places if any((one / name).is_file() for name in names)), None)
