"""Data sets: the embedded digits, MNIST, CIFAR-10 and arrays of your own, scaled and normalised.

``python -m slth.data cifar10 --dir DIR`` downloads and prepares a set; reading it back needs no TensorFlow.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias
from zipfile import BadZipFile, is_zipfile

import numpy as np
from jaxtyping import Float, Int

Images: TypeAlias = Float[np.ndarray, "n *shape"]
Labels: TypeAlias = Int[np.ndarray, " n"]
Part: TypeAlias = tuple[np.ndarray, np.ndarray]

CLASSES = {"cifar10": 10, "mnist": 10}
"""The sets that TFDS prepares, and their numbers of classes."""

FORMAT = "array_record"  # the one format of TFDS that is read without TensorFlow

NAMES = ("digits", *CLASSES, "npz")

# Mean and standard deviation of each channel. Those of CIFAR-10 are what its published ReLU networks were
# trained with; a checkpoint with others says so through `load(mean=, std=)`.
NORMALISATION: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "digits": ((0.3053,), (0.3761,)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# The names under which an .npz file may hold its parts, in the order in which they are looked for.
KEYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}


class Data(NamedTuple):
    r"""Images :math:`(x - \mu) / \sigma` with x in [0, 1], and their labels, in two parts that never mix.

    A set without training images has arrays of length 0 there.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    mean: Float[np.ndarray, " c"]
    """mu, one for each channel, in units of the scaled image."""
    std: Float[np.ndarray, " c"]
    classes: int

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


def load(
    name: str,
    directory: str | Path | None = None,
    *,
    limit: int | None = None,
    train_limit: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Data:
    r"""A data set by name, every image scaled to [0, 1] and then normalised, :math:`(x - \mu) / \sigma`.

    Args:
      name: "digits" (1,797 images of 8x8 pixels that come with scikit-learn; a stratified fifth, 360, is
        the test part, drawn with seed 0), "mnist", "cifar10" or "npz".
      directory: the folder that TFDS prepared (its default if None); for "mnist" also an .npz file or a
        folder with mnist.npz or mnist_test.npz; for "npz" the file. Files hold ``train_images``,
        ``train_labels`` (optional) and ``test_images``, ``test_labels`` or ``images``, ``labels``: uint8, or
        floats in [0, 1].
      limit, train_limit: take only the first so many test, training images.
      mean, std: mu and sigma, one for each channel or one for all; the defaults are in `NORMALISATION`, and
        0 and 1 for "npz".
    Raises:
      FileNotFoundError: the data are not there; the message says what to run.
      ValueError: a field is out of range, or a file does not hold what it should.
    """
    if name not in NAMES:
        raise ValueError(f"data {name!r} is unknown: choose one of {', '.join(NAMES)}")
    for field, value in (("limit", limit), ("train_limit", train_limit)):
        if value is not None and value < 1:
            raise ValueError(f"data {field} must be at least 1 (or none), got {value}")
    if name == "digits":
        train, test, classes = _digits()
    else:
        archive = _archive(name, directory)
        if archive is not None:
            train, test, classes = _npz(archive, flat_channels=name == "mnist")
        else:
            train, test, classes = _tfds(name, directory, limit, train_limit)
    train = (train[0][:train_limit], train[1][:train_limit])
    test = (test[0][:limit], test[1][:limit])
    channels = test[0].shape[-1]
    defaults = NORMALISATION.get(name, ((0.0,), (1.0,)))
    mu = _per_channel("mean", defaults[0] if mean is None else mean, channels)
    sigma = _per_channel("std", defaults[1] if std is None else std, channels)
    if not (sigma > 0).all():
        raise ValueError(f"data std must be positive, got {sigma.tolist()}")
    return Data(
        name=name,
        train_images=_normalised(train[0], mu, sigma),
        train_labels=train[1].astype(np.int32),
        test_images=_normalised(test[0], mu, sigma),
        test_labels=test[1].astype(np.int32),
        mean=mu.astype(np.float32),
        std=sigma.astype(np.float32),
        classes=classes,
    )


def _per_channel(field: str, values: Sequence[float], channels: int) -> np.ndarray:
    array = np.asarray(values, np.float64).reshape(-1)
    if array.size not in (1, channels) or not np.isfinite(array).all():
        raise ValueError(
            f"data {field} needs {channels} finite numbers, one a channel (or one for all), got {values}"
        )
    return np.broadcast_to(array, (channels,)).copy()


def _normalised(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Images:
    # In float64 as the published pipelines' references, block by block: no second copy of the whole set.
    out = np.empty(images.shape, np.float32)
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    for start in range(0, len(images), 1024):
        block = images[start : start + 1024]
        out[start : start + 1024] = (block / scale - mean) / std
    return out


def _digits() -> tuple[Part, Part, int]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels).reshape(-1, 8, 8, 1) / 16  # grey values 0..16
    labels = np.asarray(labels)
    # Drawn, because the file's order follows its writers and partly the digits themselves.
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    return (images[train], labels[train]), (images[test], labels[test]), 10


def _archive(name: str, directory: str | Path | None) -> Path | None:
    """The .npz file that is meant, or None where the data are a prepared TFDS folder."""
    if name == "npz":
        if directory is None:
            raise ValueError("data npz needs a file: set its directory to the path of an .npz file")
        path = Path(directory).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"data file {path} is not there: name an existing .npz file")
        return path
    if directory is None:
        return None
    path = Path(directory).expanduser()
    if path.is_file():
        if path.suffix != ".npz":
            raise ValueError(f"data file {path} is not an .npz file")
        return path
    if name == "mnist" and not (path / name).is_dir():
        found = [path / file for file in ("mnist.npz", "mnist_test.npz") if (path / file).is_file()]
        return found[0] if found else None
    return None


def _npz(path: Path, *, flat_channels: bool) -> tuple[Part, Part, int]:
    if not is_zipfile(path):
        raise ValueError(f"data file {path} is not an .npz file (a zip of arrays)")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise ValueError(f"data file {path} cannot be read as .npz: {error}") from error
    parts: dict[str, Part | None] = {}
    for part, candidates in KEYS.items():
        pair = next((pair for pair in candidates if set(pair) <= set(held)), None)
        parts[part] = _checked(path, pair, held, flat_channels) if pair else None
    test, train = parts["test"], parts["train"]
    if test is None:
        raise ValueError(
            f"data file {path} holds {', '.join(sorted(held)) or 'nothing'}: expected test_images and "
            "test_labels (or images and labels), and train_images and train_labels for training"
        )
    if train is None:
        train = (np.empty((0, *test[0].shape[1:]), np.uint8), np.empty(0, np.int32))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"data file {path}: training images {train[0].shape[1:]} and test images "
            f"{test[0].shape[1:]} differ in shape"
        )
    return train, test, int(max(test[1].max(initial=0), train[1].max(initial=0))) + 1


def _checked(path: Path, keys: tuple[str, str], held: Mapping[str, np.ndarray], flat_channels: bool) -> Part:
    image_key, label_key = keys
    images, labels = held[image_key], held[label_key]
    if flat_channels and images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if images.ndim < 2 or labels.shape != images.shape[:1] or len(images) == 0:
        raise ValueError(
            f"data file {path}: {image_key} {images.shape} and {label_key} {labels.shape} must be "
            "(n, *shape) and (n,) with n >= 1"
        )
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


def _tfds(
    name: str, directory: str | Path | None, limit: int | None, train_limit: int | None
) -> tuple[Part, Part, int]:
    with _quiet():
        import tensorflow_datasets as tfds

        folder = None if directory is None else Path(directory).expanduser()
        with _readable(name, "the folder of TFDS" if folder is None else str(folder), directory):
            builder = tfds.builder(name, data_dir=folder)
        if not builder.is_prepared():
            raise FileNotFoundError(
                f"{name} is not in {builder.data_path}: run `{_command(name, directory)}`"
            )
        found = getattr(builder.info.file_format, "value", None)
        if found != FORMAT:
            raise ValueError(
                f"{name} in {builder.data_path} was prepared as {found}, which needs TensorFlow to read: "
                f"run `{_command(name, 'ANOTHER_FOLDER')}`"
            )
        with _readable(name, str(builder.data_path), directory):
            parts = [
                _read(builder.as_data_source(split), count)  # pyright: ignore[reportCallIssue]
                for split, count in (("train", train_limit), ("test", limit))
            ]
    return parts[0], parts[1], CLASSES[name]


@contextlib.contextmanager
def _readable(name: str, place: str, directory: str | Path | None) -> Iterator[None]:
    """Turn whatever a damaged folder makes TFDS raise into one line."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} in {place} cannot be read ({said}): remove it and run `{_command(name, directory)}`"
        ) from error


def _read(source: Sequence[Mapping[str, np.ndarray]], limit: int | None) -> Part:
    count = len(source) if limit is None else min(limit, len(source))
    images = labels = None
    for index in range(count):
        example = source[index]
        if images is None or labels is None:
            images = np.empty((count, *example["image"].shape), np.uint8)
            labels = np.empty(count, np.int32)
        images[index], labels[index] = example["image"], example["label"]
    if images is None or labels is None:
        raise ValueError("the prepared data set holds no images: prepare it again")
    return images, labels


def prepare(name: str, directory: str | Path | None = None) -> Path:
    """Download a data set and write it as array_record, which is read without TensorFlow.

    Needs the extra ``prepare`` and the internet. An existing prepared folder is left as it is.

    Returns: the folder with the prepared set.
    Raises: ValueError for a set that is not one of `CLASSES`; ImportError without TensorFlow.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m slth.data NAME [--dir DIR]``: prepare a data set; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m slth.data", description=f"Download a data set and write it as {FORMAT}."
    )
    parser.add_argument("name", choices=sorted(CLASSES))
    parser.add_argument("--dir", default=None, help="folder for data sets (default: that of TFDS)")
    chosen = parser.parse_args(arguments)
    try:
        print(prepare(chosen.name, chosen.dir))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
