"""A folder of images by class: ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``, or ``.png``."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from slth.data.formats import Archive, Arrays, Index, Part, Reading, without_images
from slth.data.kept import Kept
from slth.progress import bar

LOG = logging.getLogger(__name__)
SUFFIXES = (".jpg", ".jpeg", ".png")
GREY = ("L", "1")  # modes of Pillow
MODES = (*GREY, "RGB", "P", "CMYK", "YCbCr")  # those that become RGB and have no more than that

LAYOUT = "train/CLASS/*.jpg and test/CLASS/*.jpg (or .jpeg, .png)"


class Folder:
    """The images, all of one size. Classes are numbered in the order of their folders' names.

    Images are in a random order that depends on their number alone, because the first images of a part, which
    much is measured on, would else be of one class. Decoded pixels are kept in the user's cache
    (`slth.data.kept.Kept`).
    """

    @property
    def wanted(self) -> str:
        """The folder."""
        return f"a folder with {LAYOUT}"

    def files(self, place: Path | None) -> list[Path] | None:
        """One file that stands for all images, their places and their contents."""
        place = _checked(place)
        return [Kept(place, _images(place)).listing()]

    def read(self, place: Path | None, reading: Reading) -> Archive:
        """Both parts; a training part that is not there has no images.

        Raises: ValueError naming the image that is not like the others.
        """
        place = _checked(place)
        classes = _classes(place)
        images = _images(place)
        kept = Kept(place, images)
        test = _part(place, "test", images, classes, kept)
        if not (place / "train").is_dir():
            shape = test.read(slice(0))[0].shape[1:]
            return Archive(without_images(shape, test.labels()), test, len(classes))
        train = _part(place, "train", images, classes, kept)
        shapes = [part.read(slice(0))[0].shape[1:] for part in (train, test)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"data folder {place}: images of train have the shape {shapes[0]}, of test {shapes[1]}: "
                "make them alike"
            )
        return Archive(train, test, len(classes))


def _checked(place: Path | None) -> Path:
    """The folder.

    Raises: ValueError or FileNotFoundError saying what to do where it is none with parts and classes.
    """
    if place is None:
        raise ValueError(f"data folder needs a place: set its directory to a folder with {LAYOUT}")
    if not place.is_dir():
        raise FileNotFoundError(f"data folder {place} is not there: name a folder with {LAYOUT}")
    if not (place / "test").is_dir():
        other = next((one for one in ("val", "valid", "validation") if (place / one).is_dir()), None)
        todo = f"rename {other} to test" if other else "divide the images of each class between the two"
        if place.name == "train" and (place.parent / "test").is_dir():
            todo = f"the folder to name is {place.parent}"
        raise ValueError(f"data folder {place} has no test part: expected {LAYOUT}: {todo}")
    return place


def _folders(place: Path) -> list[Path]:
    return sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))


def _classes(place: Path) -> list[str]:
    """Names of the classes, those of the training part where there is one.

    Raises: ValueError where there are none, where an image is in none, or where the test part has others.
    """
    parts = [part for part in (place / "train", place / "test") if part.is_dir()]
    for path in (one for part in parts for one in part.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            raise ValueError(f"data file {path} is in no class: expected {LAYOUT}")
    test = [one.name for one in _folders(place / "test")]
    train = [one.name for one in _folders(place / "train")] if (place / "train").is_dir() else test
    if more := sorted(set(test) - set(train)):
        raise ValueError(f"data folder {place}: test has classes that train lacks: {', '.join(more)}")
    if not test or not train:
        raise ValueError(f"data folder {place}: test has no folders of classes: expected {LAYOUT}")
    return train


def _images(place: Path) -> list[str]:
    """All images by their places in the folder, such as train/cat/1.jpg, sorted by part, class and name.

    Raises: ValueError for a class without images, or with folders in place of them.
    """
    found, others = [], 0
    for part in ("train", "test"):
        for folder in _folders(place / part) if (place / part).is_dir() else ():
            with os.scandir(folder) as entries:
                own = [(one.name, one.is_dir()) for one in entries if not one.name.startswith(".")]
            if inner := next((name for name, is_folder in own if is_folder), None):
                raise ValueError(f"data folder {folder / inner}: expected images, not a folder: {LAYOUT}")
            images = sorted(name for name, _ in own if name.lower().endswith(SUFFIXES))
            if not images:
                raise ValueError(f"data folder {folder} has no {', '.join(SUFFIXES)}: expected {LAYOUT}")
            others += len(own) - len(images)
            found += [f"{part}/{folder.name}/{name}" for name in images]
    if others:
        LOG.info("%s: %d files are not %s and are left out", place, others, ", ".join(SUFFIXES))
    return found


def _part(place: Path, part: str, images: Sequence[str], classes: Sequence[str], kept: Kept) -> Part:
    names = [name for name in images if name.startswith(f"{part}/")]
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name.split("/")[1]] for name in names], np.int32)
    order = np.random.default_rng(0).permutation(len(names))
    example = _pixels(place / names[0], None).shape

    def read(index: Index) -> Arrays:
        places = order[index]
        if len(places) == len(names) or kept.has(part):
            pixels = kept.pixels(part, partial(_decoded, place, names, example))[places]
        else:
            pixels = _decoded(place, [names[number] for number in places], example)
        return pixels, labels[places]

    return Part(len(names), lambda: labels[order], read)


def _decoded(place: Path, names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """Pixels (n, *shape) of images."""
    pixels = np.empty((len(names), *shape), np.uint8)
    if len(names) > 10_000:
        LOG.info("decoding %d images, once", len(names))
    with bar(len(names)) as advance:
        for number, name in enumerate(names):
            pixels[number] = _pixels(place / name, shape)
            if advance is not None:
                advance(name)
    return pixels


def _pixels(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """Pixels (h, w, c) of one image: grey ones have one channel, all others three.

    Raises: ValueError where it cannot be read, has another shape, or would lose something.
    """
    from PIL import Image

    where = f"data file {path}"
    try:
        with Image.open(path) as image:
            mode, alpha = image.mode, "transparency" in image.info
            grey = mode in GREY and (shape is None or shape[-1] == 1)
            pixels = None
            if mode in MODES and not alpha:
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:  # whatever a damaged file makes of Pillow
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where} cannot be read as an image ({said}): replace or remove it") from error
    if pixels is None:
        kind = "transparency" if alpha else f"mode {mode}"
        raise ValueError(f"{where}: expected 8 bits of grey or RGB, got {kind}: convert it")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if shape is not None and pixels.shape != shape:
        raise ValueError(
            f"{where}: expected {shape} (height, width, channels) as the first image, got {pixels.shape}: "
            "make them alike"
        )
    return pixels
