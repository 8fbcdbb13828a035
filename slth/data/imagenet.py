"""ImageNet (ILSVRC 2012): folders of photographs by class, or what TFDS prepared of them.

The validation images are the test part. Classes are numbered in the order of their WordNet identifiers
(n01440764 is 0), as torchvision's and TFDS's are. Photographs are decoded when they are asked for.

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115 (2015) 211-252.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from slth.data.folder import SUFFIXES
from slth.data.formats import Archive, Arrays, Index, Part, Reading, without_images
from slth.data.kept import listing_of
from slth.data.photographs import Cut, cut_of, photographs
from slth.data.prepared import Prepared, quiet

CLASSES = 1000
VALIDATION = 50_000
VAL = ("val", "validation")
PREFIX = "ILSVRC2012_val_"
"""Of the names of validation images; the number that follows says the class."""
LAYOUT = "val/WNID/*.JPEG (or val/ILSVRC2012_val_*.JPEG as the archive has them) and train/WNID/*.JPEG"
PAGE = "https://image-net.org/download-images"
MOST_LABELS = 100_000
"""Prepared images at most that are all read to know their labels."""


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet identifiers of the classes, in order; TFDS has the list."""
    return tuple(_of_tfds("labels.txt"))


@cache
def validation_labels() -> tuple[int, ...]:
    """The class of each validation image, by the number in its name less 1; TFDS has the list."""
    numbers = {wnid: number for number, wnid in enumerate(wnids())}
    return tuple(numbers[wnid] for wnid in _of_tfds("validation_labels.txt"))


def _of_tfds(name: str) -> list[str]:
    spec = find_spec("tensorflow_datasets")  # which does not import it
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "datasets" / "imagenet2012" / name).read_text().split()


class Found(NamedTuple):
    """The photographs of a part: their places in the folder, in order, and their classes."""

    names: list[str]
    labels: list[int]


class Photographs:
    """Folders of photographs as ImageNet's archives hold them, with the validation images by class or not.

    Images are in a random order that depends on their number alone, as those of `slth.data.folder.Folder`.
    Where there is no ``train``, there are no training images.
    """

    @property
    def wanted(self) -> str:
        """The folder."""
        return f"a folder with {LAYOUT}"

    def files(self, place: Path | None) -> list[Path] | None:
        """One file that stands for the names of all photographs, which say what they are."""
        if place is None or not place.is_dir():
            return None
        parts = _parts(place)
        if not parts:
            return None
        if "val" not in parts:
            raise ValueError(
                f"data folder {place} has train and no val: expected {LAYOUT}: add the validation images"
            )
        return [listing_of([name for part in parts.values() for name in _found(place, part).names])]

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts.

        Raises: ValueError for a folder that is no class of ImageNet, or has no photographs.
        """
        assert place is not None
        cut, parts = cut_of(reading), _parts(place)
        test = _part(place, _found(place, parts["val"]), cut)
        if "train" not in parts:
            return Archive(without_images(cut.shape, np.empty(0, np.int32)), test, CLASSES)
        return Archive(_part(place, _found(place, parts["train"]), cut), test, CLASSES)


def _parts(place: Path) -> dict[str, Path]:
    """The folders of the parts; a folder of validation images is its own ``val``."""
    parts = {"train": place / "train"} if (place / "train").is_dir() else {}
    val = next((place / name for name in VAL if (place / name).is_dir()), None)
    if val is None and any(place.glob(f"{PREFIX}*")):
        val = place
    return parts if val is None else {"val": val, **parts}


def _found(place: Path, part: Path) -> Found:
    """The photographs of a part: by class, or validation images whose names have numbers."""
    folders = sorted(one for one in part.iterdir() if one.is_dir() and not one.name.startswith("."))
    if part == place or not folders:
        return _numbered(place, part)
    numbers = {wnid: number for number, wnid in enumerate(wnids())}
    names, labels = [], []
    for folder in folders:
        if folder.name not in numbers:
            raise ValueError(
                f"data folder {folder}: expected a class of ImageNet such as {wnids()[0]}, got "
                f"{folder.name!r}: images of classes of your own are read with data=folder"
            )
        own = _images(folder)
        if not own:
            raise ValueError(f"data folder {folder} has no {', '.join(SUFFIXES)}: expected {LAYOUT}")
        names += [f"{part.name}/{folder.name}/{name}" for name in own]
        labels += [numbers[folder.name]] * len(own)
    return Found(names, labels)


def _numbered(place: Path, part: Path) -> Found:
    """Validation images as their archive has them."""
    names, labels = _images(part), []
    if not names:
        raise ValueError(f"data folder {part} has no {', '.join(SUFFIXES)}: expected {LAYOUT}")
    for name in names:
        number = name.removeprefix(PREFIX).partition(".")[0]
        if not (name.startswith(PREFIX) and number.isdecimal() and 1 <= int(number) <= VALIDATION):
            raise ValueError(
                f"data file {part / name}: expected {PREFIX}00000001 to {VALIDATION:08} as names of images "
                f"outside of folders of classes: put it into its class, as in {LAYOUT}"
            )
        labels.append(validation_labels()[int(number) - 1])
    prefix = "" if part == place else f"{part.name}/"
    return Found([prefix + name for name in names], labels)


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [one.name for one in entries if not one.name.startswith(".")]
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def _part(place: Path, found: Found, cut: Cut) -> Part:
    order = np.random.default_rng(0).permutation(len(found.names))
    labels = np.array(found.labels, np.int32)[order]

    def read(index: Index) -> Arrays:
        paths = [place / found.names[number] for number in order[index]]
        return photographs([f"data file {path}" for path in paths], paths.__getitem__, cut), labels[index]

    return Part(len(labels), lambda: labels, read)


@dataclass(frozen=True)
class PreparedPhotographs(Prepared):
    """Photographs that TFDS prepared, as the files hold them.

    Images of a part of more than `MOST_LABELS` are drawn without regard to their classes: each of its records
    would have to be read for a label, 150 GB in all.
    """

    def files(self, place: Path | None) -> list[Path] | None:
        """What describes the set; the records themselves are 150 GB."""
        found = super().files(place)
        return None if found is None else [path for path in found if path.suffix in (".json", ".txt")]

    def _part(self, builder: Any, split: str, place: Path | None, reading: Reading) -> Part:
        cut, lock = cut_of(reading), Lock()
        if split not in builder.info.splits:
            if split == self.splits[0]:
                return without_images(cut.shape, np.empty(0, np.int32))
            raise ValueError(
                f"{self.name} in {builder.data_path} has no split {split!r}: prepare it with "
                "ILSVRC2012_img_val.tar in downloads/manual, or name a folder with " + LAYOUT
            )
        with quiet(), self._readable(place):
            records = self._source(builder, split, decoded=False)

        def record(number: int) -> Mapping[str, Any]:
            with lock, quiet(), self._readable(place):
                return records[number]

        def read(index: Index) -> Arrays:
            numbers = np.arange(len(records))[index].tolist()
            names = [f"image {number} of {split} in {builder.data_path}" for number in numbers]
            labels = np.empty(len(numbers), np.int32)

            def content(at: int) -> bytes:
                held = record(numbers[at])
                labels[at] = held["label"]
                return held["image"]

            return photographs(names, content, cut), labels

        return Part(len(records), self._labels(records, place), read, plain=len(records) > MOST_LABELS)
