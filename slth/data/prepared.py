"""Sets that TFDS prepares, read without TensorFlow."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slth.data.formats import Archive, Arrays, Index, Part, Reading
from slth.data.records import Records

FORMAT = "array_record"  # what is written here
READ = (FORMAT, "tfrecord")  # the formats of TFDS that are read without TensorFlow


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what TFDS and absl warn of: advice on OpenCV, on folders, on Google Cloud."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def command(name: str, directory: str | Path | None) -> str:
    """What prepares a set."""
    place = f" --dir {directory}" if directory is not None else ""
    return f'pip install -e ".[prepare]" && python -m slth.data {name}{place}'


@dataclass(frozen=True)
class Prepared:
    """A folder that `slth.data.prepare` wrote.

    Args:
      name: of the set.
      classes: how many there are.
      called: the set's name in TFDS.
      splits: what TFDS calls the training and the test part.
    """

    name: str
    classes: int
    called: str
    splits: tuple[str, str] = ("train", "test")

    @property
    def wanted(self) -> str:
        """The folder."""
        return f"a folder that TFDS prepared ({self.called}/VERSION)"

    def files(self, place: Path | None) -> list[Path] | None:
        """All files of the set; none are named where the place is TFDS's own default."""
        if place is None:
            return [] if self._builder(None).is_prepared() else None
        if place.is_file() or not any((place / self.called).glob("[0-9]*.[0-9]*.[0-9]*/")):
            return None
        return sorted(path for path in (place / self.called).rglob("*") if path.is_file())

    def nearby(self, place: Path) -> Path | None:
        """The folder that holds the set, where it is some levels above or one below the one named."""
        above = [one for one in (place.absolute(), *place.absolute().parents[:2]) if one.name == self.called]
        below = sorted(place.glob(f"*/{self.called}")) if place.is_dir() else []
        places = (one.parent for one in (*above, *below) if any(one.glob("*/dataset_info.json")))
        return next(places, None)

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts, read as far as they are asked for.

        Raises: FileNotFoundError or ValueError, each with the command that prepares the data.
        """
        with quiet(), self._readable(place):
            builder = self._builder(place)
            ready, found = builder.is_prepared(), getattr(builder.info.file_format, "value", None)
        if not ready:
            raise FileNotFoundError(
                f"{self.name} is not in {builder.data_path}: run `{command(self.name, place)}`"
            )
        if found not in READ:
            raise ValueError(
                f"{self.name} in {builder.data_path} was prepared as {found}, which needs TensorFlow "
                f"to read: run `{command(self.name, 'ANOTHER_FOLDER')}`"
            )
        train, test = (self._part(builder, split, place, reading) for split in self.splits)
        return Archive(train, test, self.classes)

    def _builder(self, place: Path | None) -> Any:
        with quiet():
            import tensorflow_datasets as tfds

            return tfds.builder(self.called, data_dir=place)

    @contextlib.contextmanager
    def _readable(self, place: Path | None) -> Iterator[None]:
        """Turn whatever a damaged folder makes TFDS raise into one line."""
        try:
            yield
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self.name} in {place or 'the folder of TFDS'} cannot be read ({said}): remove it and run "
                f"`{command(self.name, place)}`"
            ) from error

    def _source(self, builder: Any, split: str, *, decoded: bool) -> Any:
        """The examples of a split by number, dicts: the image is decoded, or as it lies in its file."""
        import tensorflow_datasets as tfds

        decoders = None if decoded else {"image": tfds.decode.SkipDecoding()}
        if builder.info.file_format.value == FORMAT:
            return builder.as_data_source(split, decoders=decoders)
        held, features = builder.info.splits[split], builder.info.features
        files = [Path(path) for path in held.filepaths]
        return Records(files, held.shard_lengths, partial(features.deserialize_example_np, decoders=decoders))

    def _labels(self, unread: Any, place: Path | None) -> Callable[[], np.ndarray]:
        """What reads the labels of all examples."""

        def labels() -> np.ndarray:
            with quiet(), self._readable(place):
                return np.array([unread[index]["label"] for index in range(len(unread))], np.int32)

        return labels

    def _part(self, builder: Any, split: str, place: Path | None, reading: Reading) -> Part:
        with quiet(), self._readable(place):
            whole, unread = (self._source(builder, split, decoded=decoded) for decoded in (True, False))
            if not len(whole):
                raise ValueError("it holds no images")

        def read(index: Index) -> Arrays:
            with quiet(), self._readable(place):
                examples = [whole[int(number)] for number in np.arange(len(whole))[index]]
                if not examples:
                    return np.empty((0, *whole[0]["image"].shape), np.uint8), np.empty(0, np.int32)
                images = np.stack([example["image"] for example in examples])
                return images, np.array([example["label"] for example in examples], np.int32)

        return Part(len(whole), self._labels(unread, place), read)
