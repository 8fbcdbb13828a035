"""One data set by name: its two parts, limited, scaled to [0, 1] and normalised."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int

from slth.data.formats import Reading
from slth.data.known import KNOWN, find
from slth.data.npz import LAYOUTS
from slth.data.subset import taken
from slth.target import checked_word
from slth.types import Shape, Task

Images: TypeAlias = Float[np.ndarray, "n *shape"]
Labels: TypeAlias = Int[np.ndarray, " n"] | Float[np.ndarray, "n *outputs"]

NAMES = tuple(KNOWN)
"""The data sets that `load` knows."""

NORMALISATION: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    name: (known.mean, known.std) for name, known in KNOWN.items()
}
"""Mean and standard deviation of each channel; 0 and 1 where a set has none of its own. Those of CIFAR-10 are
what its published ReLU networks were trained with; a checkpoint with others says so through
`load(mean=, std=)`."""


class Data(NamedTuple):
    r"""Images :math:`(x - \mu) / \sigma` with x in [low, high], and their labels, in two parts that never
    mix.

    Labels are classes, whole numbers of shape (n,), or numbers that a network is to compute, of shape
    (n, *outputs). A set without training images has arrays of length 0 there.

    Example:
      >>> import slth.data
      >>> data = slth.data.load("digits")
      >>> data.shape, data.classes, len(data.train_images), len(data.test_images)
      ((8, 8, 1), 10, 1437, 360)
      >>> data.calibration(256).shape
      (256, 8, 8, 1)
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    mean: Float[np.ndarray, " c"]
    """mu, one for each channel, in units of the scaled image."""
    std: Float[np.ndarray, " c"]
    classes: int | None
    """How many, which is more than the largest label + 1 where the last classes have no image here; None
    where labels are numbers."""
    low: float = 0.0
    """No number of an image is less before it is normalised."""
    high: float = 1.0
    """None is larger."""

    @property
    def task(self) -> Task:
        """What the labels are."""
        return "regression" if self.classes is None else "classes"

    @property
    def outputs(self) -> Shape:
        """Shape of what a network is to make of one image."""
        return self.test_labels.shape[1:] if self.classes is None else (self.classes,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, channels last."""
        return self.test_images.shape[1:]

    def calibration(self, count: int) -> Images:
        """The first ``count`` training images, shape (count, *shape).

        Raises: ValueError if there are not so many.
        """
        if count > len(self.train_images):
            raise ValueError(
                f"{count} calibration images asked of {self.name}, which has {len(self.train_images)} "
                "training images: lower the number (0 = none) or name data with a training part"
            )
        return self.train_images[:count]

    def accuracy(self, outputs: Float[np.ndarray, "n classes"]) -> float:
        """Share of the test images whose largest output is the label's, in [0, 1].

        Outputs that are infinite or not numbers name no class.

        Raises: ValueError where a label has no output, or is no class.
        """
        if self.classes is None:
            raise ValueError(
                f"data {self.name} have numbers as labels, no classes: compare them (slth.evaluate)"
            )
        count = outputs.shape[-1]
        if self.test_labels.max() >= count:
            raise ValueError(
                f"data {self.name} have labels up to {self.test_labels.max()}, and the network has {count} "
                "outputs: are these the data of this network?"
            )
        right = (outputs.argmax(-1) == self.test_labels) & np.isfinite(outputs).all(-1)
        return float(right.mean())


def load(
    name: str,
    directory: str | Path | None = None,
    *,
    limit: int | None = None,
    train_limit: int | None = None,
    seed: int | None = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
    classes: int | None = None,
    task: Task | None = None,
    low: float | None = None,
    high: float | None = None,
    resize: int | None = None,
    crop: int | None = None,
) -> Data:
    r"""A data set by name, every image scaled to [0, 1] and then normalised, :math:`(x - \mu) / \sigma`.

    Args:
      name: "digits" (1,797 images of 8x8 pixels that come with scikit-learn; a stratified fifth, 360, is
        the test part, drawn with seed 0), "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet"
        (its validation images are the test part), "folder" (images by class) or "npz" (arrays of your own).
      directory: the folder with the set in one of its forms (docs/data.md): what TFDS prepared (its default
        folder if None), the original archives, or an .npz file; for "folder" that with ``train/CLASS/`` and
        ``test/CLASS/``; for "npz" the file. Files hold ``train_images``,
        ``train_labels`` (optional) and ``test_images``, ``test_labels`` or ``images``, ``labels``, and may
        hold ``mean`` and ``std``. Images are uint8, or floats in [low, high]; signals (n, length, channels)
        may be int16, which are divided by 2^15. Labels are classes (n,), or numbers (n,) or (n, *outputs).
      limit, train_limit: take only so many test, training images: a random subset with each class in its
        share, in random order, that a larger limit only adds to. What takes all takes them in their order.
      seed: of these subsets; None: the first so many images, not drawn.
      mean, std: mu and sigma, one for each channel or one for all; the defaults are those of the file, then
        those in `NORMALISATION`.
      layout: of the images in an .npz file: "channels_last" (n, h, w, c), "channels_first" (n, c, h, w) or
        "grey" (n, h, w), or (n, length) of a signal. None: seen from their shape, and an error where that may
        be either.
      classes: how many there are; None: the set's own number, for an .npz file the largest label + 1.
      task: what the labels in an .npz file are. None: integers (n,) are classes, floats that are not whole
        are numbers ("regression"), and all else is an error.
      low, high: range of floats in an .npz file; None: 0 and 1, of signals -1 and 1.
      resize, crop: of "imagenet", pixels of a photograph's shorter side, and of the square that is cut from
        its middle; None: 256 and 224, those of torchvision's first weights.
    Raises: FileNotFoundError where the data are not there (the message says what to run); ValueError where
      a field is out of range, or a file does not hold what it should.

    Example:
      >>> import tempfile, slth.data
      >>> import numpy as np
      >>> file = tempfile.mkdtemp() + "/mine.npz"
      >>> np.savez(file, images=np.zeros((10, 8, 8, 3), np.uint8), labels=np.arange(10))
      >>> slth.data.load("npz", file, limit=6).test_images.shape
      (6, 8, 8, 3)
    """
    if name not in NAMES:
        raise ValueError(f"data {name!r} is unknown: choose one of {', '.join(NAMES)}")
    for field, value in (
        *(("limit", limit), ("train_limit", train_limit), ("classes", classes)),
        *(("resize", resize), ("crop", crop)),
    ):
        if value is not None and value < 1:
            raise ValueError(f"data {field} must be at least 1 (or none), got {value}")
    if task is not None:
        checked_word("data task", task, get_args(Task))
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"data layout {layout!r} is unknown: choose one of {', '.join(LAYOUTS)}")
    if seed is not None and seed < 0:
        raise ValueError(f"data seed must be at least 0 (or none), got {seed}")
    if name != "imagenet" and (resize, crop) != (None, None):
        raise ValueError(
            f"data resize and crop: they are for photographs of any size, data=imagenet; images of {name} "
            "are taken as they are: leave them out"
        )
    folder = None if directory is None else Path(directory).expanduser()
    held = find(name, folder).read(folder, Reading(layout, task, low, high, resize, crop))
    own = held.classes
    if classes is not None and (own is None or classes < own):
        said = "numbers as labels" if own is None else f"labels up to {own - 1}, so at least {own}"
        raise ValueError(f"data classes: {name} has {said}, got {classes}")
    shape = held.test.read(slice(0))[0].shape[1:]
    asked = {"train_limit": (held.train, train_limit), "limit": (held.test, limit)}
    _check_memory(
        name, shape, {field: min(part.count, most or part.count) for field, (part, most) in asked.items()}
    )
    channels = shape[-1]
    known_mean, known_std = NORMALISATION[name]
    mu = _per_channel("mean", _first(mean, held.mean, known_mean), channels)
    sigma = _per_channel("std", _first(std, held.std, known_std), channels)
    if not (sigma > 0).all():
        raise ValueError(f"data std must be positive, got {sigma.tolist()}")
    train, test = (
        _scaled(*taken(part, most, seed, own is not None), mu, sigma, own is not None)
        for part, most in asked.values()
    )
    ends = (mu.astype(np.float32), sigma.astype(np.float32), classes or own, held.low, held.high)
    return Data(name, *train, *test, *ends)


def _first(*given: Sequence[float] | np.ndarray | None) -> Sequence[float] | np.ndarray:
    return next(one for one in given if one is not None)


def _check_memory(name: str, shape: Shape, counts: Mapping[str, int]) -> None:
    """Refuse more images than this machine's memory has room for, before one is read.

    Args:
      counts: images of each part, by the field that limits them.
    Raises: ValueError, with a limit that has room.
    """
    each = (np.dtype(np.float32).itemsize + np.dtype(np.uint8).itemsize) * math.prod(shape)
    room = _memory()
    if each * sum(counts.values()) <= room:
        return
    field, count = max(counts.items(), key=lambda pair: pair[1])
    raise ValueError(
        f"data {field}: {count:,} images of {name} of shape {shape} take {each * count / 1e9:,.0f} GB, and "
        f"this machine has {room / 1e9:,.0f} GB of memory: choose a {field} of at most {room // (2 * each):,}"
    )


def _memory() -> int:
    """Bytes of this machine's memory; where the system does not say, as many as there may be."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def files_of(name: str, directory: str | Path) -> list[Path]:
    """The files, in order, that `load` reads of a file or folder; none where there are none."""
    place = Path(directory).expanduser()
    try:
        return find(name, place).files(place) or []
    except (ValueError, FileNotFoundError):  # `load` says it, where the data are needed
        return []


def _per_channel(field: str, values: Sequence[float] | np.ndarray, channels: int) -> np.ndarray:
    array = np.asarray(values, np.float64).reshape(-1)
    if array.size not in (1, channels) or not np.isfinite(array).all():
        raise ValueError(
            f"data {field} needs {channels} finite numbers, one a channel (or one for all), got {values}"
        )
    return np.broadcast_to(array, (channels,))


def _scaled(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray, classes: bool
) -> tuple[Images, Labels]:
    """A part as `Data` has it. What was read of it goes before the next part is read."""
    return _normalised(images, mean, std), labels.astype(np.int32 if classes else np.float32)


def _normalised(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Images:
    # In float64 as the published pipelines' references, block by block: no second copy of the whole set.
    out = np.empty(images.shape, np.float32)
    if images.dtype == np.uint8:  # each byte's value is computed once
        values = ((np.arange(256) / 255.0 - mean[:, None]) / std[:, None]).astype(np.float32)
    else:
        values = None
    for start in range(0, len(images), 64):
        block = slice(start, start + 64)
        if values is None:
            out[block] = (images[block] - mean) / std
            continue
        for channel, own in enumerate(values):
            out[block, ..., channel] = np.take(own, images[block, ..., channel], mode="clip")
    return out
