"""CIFAR-10 and CIFAR-100 as their authors publish them: an archive for Python, and one of plain bytes.

An image is 3,072 bytes: 1,024 red ones row by row, then green, then blue. The binary form puts one byte for
the label before each image, in CIFAR-100 two, coarse and fine. The form for Python is a pickled dict of an
array (n, 3072) and a list of labels.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slth.data.checksums import check
from slth.data.formats import Archive, Arrays, Part, Reading, check_labels, first_folder, part_of

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """One form of one of the two sets: the archive as it was downloaded, or the folder in it.

    Args:
      name: "cifar10" or "cifar100".
      archive: file name of the archive.
      folder: what the archive holds.
      train, test: files in that folder, each with its number of images.
      decode: labels and pixels (n, 3072) of the bytes of one file.
      classes: how many there are.
    """

    name: str
    archive: str
    folder: str
    train: Mapping[str, int]
    test: Mapping[str, int]
    decode: Callable[[str, bytes], Arrays]
    classes: int

    @property
    def wanted(self) -> str:
        """The archive and its folder."""
        return f"{self.archive} or its folder {self.folder}"

    def files(self, place: Path | None) -> list[Path] | None:
        """The archive; or the files of the folder."""
        if place is not None and place.is_file():
            return [place] if place.name == self.archive else None
        batches = (*self.train, *self.test)
        folder = first_folder(place, (self.folder,), batches)
        if folder is None:
            return [place / self.archive] if place is not None and (place / self.archive).is_file() else None
        missing = [batch for batch in batches if not (folder / batch).is_file()]
        if missing:
            raise ValueError(f"data folder {folder} lacks {', '.join(missing)}: extract {self.archive} again")
        return [folder / batch for batch in batches]

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts."""
        files = self.files(place) or []
        for file in files:
            check(self.name, file)
        if len(files) == 1 and files[0].name == self.archive:
            content = self._extracted(files[0])
        else:
            content = {file.name: (str(file), file.read_bytes()) for file in files}
        return Archive(self._part(self.train, content), self._part(self.test, content), self.classes)

    def _extracted(self, path: Path) -> dict[str, tuple[str, bytes]]:
        """The bytes of each file in the archive, and how errors call it."""
        wanted = {f"{self.folder}/{batch}": batch for batch in (*self.train, *self.test)}
        try:
            with tarfile.open(path, "r:gz") as archive:
                found = dict(_members(archive, wanted))
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"data file {path} cannot be read as .tar.gz ({error}): download it again"
            ) from error
        missing = [name for name, batch in wanted.items() if batch not in found]
        if missing:
            raise ValueError(f"data file {path} lacks {', '.join(missing)}: download {self.archive} again")
        return {batch: (f"{path}, {self.folder}/{batch}", content) for batch, content in found.items()}

    def _part(self, batches: Mapping[str, int], content: Mapping[str, tuple[str, bytes]]) -> Part:
        images, labels = [], []
        for batch, count in batches.items():
            where, data = f"data file {content[batch][0]}", content[batch][1]
            own, pixels = self.decode(where, data)
            if len(own) != count:
                raise ValueError(f"{where}: expected {count} images, got {len(own)}: download it again")
            labels.append(check_labels(where, own, self.classes))
            images.append(pixels.reshape(-1, *SHAPE).transpose(0, 2, 3, 1))
        return part_of(np.concatenate(images), np.concatenate(labels))


def _members(archive: tarfile.TarFile, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for member in archive:  # in the order of the file, so that it is decompressed once
        file = archive.extractfile(member) if member.name in wanted else None
        if file is not None:
            yield wanted[member.name], file.read()


def binary(labels: int) -> Callable[[str, bytes], Arrays]:
    """What reads records of so many bytes of labels, of which the last counts, and an image."""

    def decode(where: str, content: bytes) -> Arrays:
        size = labels + PIXELS
        if len(content) % size:
            raise ValueError(
                f"{where}: expected records of {size} bytes, got {len(content)} bytes: download it again"
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        return rows[:, labels - 1], rows[:, labels:]

    return decode


def pickled(key: str) -> Callable[[str, bytes], Arrays]:
    """What reads a pickled dict with the array ``data`` and a list of labels under ``key``."""

    def decode(where: str, content: bytes) -> Arrays:
        try:
            held = _Unpickler(io.BytesIO(content), encoding="bytes").load()
            pixels, labels = held[b"data"], np.asarray(held[key.encode()], np.int64)
        except Exception as error:  # whatever bytes that are no such pickle make of pickle and NumPy
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{where}: expected a pickled dict with data and {key} ({said}): download it again"
            ) from error
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or labels.ndim != 1:
            raise ValueError(f"{where}: expected data of uint8 and a list of labels: download it again")
        if pixels.shape != (len(labels), PIXELS):
            raise ValueError(
                f"{where}: expected data of shape {(len(labels), PIXELS)}, one row a label, got "
                f"{pixels.shape}: download it again"
            )
        return labels, pixels

    return decode


class _Reconstruct:
    """An empty array, as NumPy's function of this name makes it; the pickle then fills it."""

    __slots__ = ()  # a pickle may set attributes of what it names

    def __call__(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        return np.ndarray(0, np.uint8)


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """A pickle is a program: this one may build arrays and plain containers, and nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is not run")
        return _ALLOWED[module_name, global_name]


CIFAR10 = (
    Cifar(
        "cifar10",
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        {f"data_batch_{number}": 10_000 for number in range(1, 6)},
        {"test_batch": 10_000},
        pickled("labels"),
        10,
    ),
    Cifar(
        "cifar10",
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        {f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
        {"test_batch.bin": 10_000},
        binary(1),
        10,
    ),
)
CIFAR100 = (
    Cifar(
        "cifar100",
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        {"train": 50_000},
        {"test": 10_000},
        pickled("fine_labels"),
        100,
    ),
    Cifar(
        "cifar100",
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        {"train.bin": 50_000},
        {"test.bin": 10_000},
        binary(2),
        100,
    ),
)
