"""MNIST and Fashion-MNIST as their authors publish them: idx files, gzipped or not.

All numbers are big-endian. A file of images is the number 0x803, how many, their rows, their columns, and a
byte for each pixel; a file of labels is 0x801, how many, and a byte for each.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slth.data.checksums import check
from slth.data.formats import Archive, Part, Reading, check_labels, first_folder, part_of, without_images

PARTS = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")}
PARTS["test"] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UBYTE = 0x08  # the type of idx that both files have: unsigned bytes
DIMENSIONS = {"images": 3, "labels": 1}


@dataclass(frozen=True)
class Idx:
    """A folder of four files, or of the two of the test part.

    Args:
      name: of the set.
      inside: folders in which other programs put the files.
      train, test: numbers of images.
      classes: how many there are.
    """

    name: str
    inside: tuple[str, ...] = ()
    train: int = 60_000
    test: int = 10_000
    classes: int = 10

    @property
    def wanted(self) -> str:
        """The files of the test part; those of the training part are like them."""
        return "train-images-idx3-ubyte.gz, t10k-images-idx3-ubyte.gz and their labels (gzipped or not)"

    def files(self, place: Path | None) -> list[Path] | None:
        """Images and labels of the training part, where it is there, and of the test part."""
        names = [spelling for part in PARTS.values() for file in part for spelling in _spellings(file)]
        folder = first_folder(place, self.inside, names)
        if folder is None:
            return None
        return [file for pair in self._pairs(folder).values() for file in pair]

    def _pairs(self, folder: Path) -> dict[str, tuple[Path, Path]]:
        """Images and labels of each part that the folder has."""
        pairs = {}
        for part, stems in PARTS.items():
            there = [[one for name in _spellings(stem) if (one := folder / name).is_file()] for stem in stems]
            missing = [stem for stem, found in zip(stems, there, strict=True) if not found]
            if missing and (part == "test" or any(there)):
                raise ValueError(f"data folder {folder} lacks {' and '.join(missing)} (or .gz): add it")
            if not missing:
                pairs[part] = (there[0][0], there[1][0])
        return pairs

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts; a training part that is not there has no images."""
        pairs = self._pairs((self.files(place) or [])[0].parent)
        parts = {
            name: self._part(*pair, self.train if name == "train" else self.test)
            for name, pair in pairs.items()
        }
        test = parts["test"]
        shape = test.read(slice(0))[0].shape[1:]
        return Archive(parts.get("train", without_images(shape, test.labels())), test, self.classes)

    def _part(self, images: Path, labels: Path, count: int) -> Part:
        for path in (images, labels):
            check(self.name, path)
        pixels, numbers = _array(images, "images"), _array(labels, "labels")
        for path, found in ((images, len(pixels)), (labels, len(numbers))):
            if found != count:
                raise ValueError(
                    f"data file {path}: expected {count} entries, got {found}: download it again"
                )
        return part_of(pixels[..., None], check_labels(f"data file {labels}", numbers, self.classes))


def _spellings(stem: str) -> tuple[str, ...]:
    """Names of a file: gzipped as it was downloaded, unpacked, and unpacked with a dot."""
    return (f"{stem}.gz", stem, stem.replace("-idx", ".idx"))


def _array(path: Path, kind: str) -> np.ndarray:
    """The bytes of an idx file in the shape that its header says."""
    where, again = f"data file {path}", "download it again"
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{where} cannot be read as .gz ({error}): {again}") from error
    axes = DIMENSIONS[kind]
    magic, header = UBYTE << 8 | axes, 4 + 4 * axes
    found = int.from_bytes(content[:4], "big")
    if found != magic or len(content) < header:
        raise ValueError(
            f"{where}: expected idx {kind}, which begin with {magic:#010x}, got {found:#010x}: {again}"
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{where}: its header says {' x '.join(map(str, shape))} bytes, and {len(content) - header} "
            f"follow: {again}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
