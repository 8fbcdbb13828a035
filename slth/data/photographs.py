"""Photographs of any size, decoded and brought to one size as torchvision's networks read them.

The shorter side becomes ``resize`` pixels by a bilinear filter that is as wide as a new pixel (antialiasing),
then a square of ``crop`` pixels is cut from the middle. Pillow does the first, as it does for torchvision, so
the pixels are torchvision's.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from slth.data.formats import Reading
from slth.progress import bar

RESIZE, CROP = 256, 224
"""Of torchvision's first weights of ResNet-50; its second ones have 232 and 224."""


class Cut(NamedTuple):
    """The size to which photographs are brought.

    Args:
      resize: pixels of the shorter side.
      crop: pixels of the square in the middle.
    """

    resize: int
    crop: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each photograph then."""
        return self.crop, self.crop, 3


def cut_of(reading: Reading) -> Cut:
    """The size that a reading asks for.

    Raises: ValueError where the square is larger than the photograph.
    """
    cut = Cut(RESIZE if reading.resize is None else reading.resize, reading.crop or CROP)
    if cut.crop > cut.resize:
        raise ValueError(
            f"data crop: a square of {cut.crop} pixels cannot be cut from a photograph whose shorter side "
            f"has {cut.resize}: choose a crop of at most that, or a larger data resize"
        )
    return cut


def pixels_of(content: Path | bytes, cut: Cut, where: str) -> UInt8[np.ndarray, "crop crop 3"]:
    """The pixels of one photograph, RGB.

    Args:
      content: its file, or what is in it: JPEG, PNG or whatever else Pillow reads, grey and CMYK too.
      where: what errors call it.
    Raises: ValueError where it cannot be read.

    Source: torchvision, ``Resize`` and ``CenterCrop``: the longer side is rounded down; half a pixel beside
    the square is rounded to an even number.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            colours = image.convert("RGB")
    except Exception as error:  # whatever a damaged file makes of Pillow
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where} cannot be read as an image ({said}): replace or remove it") from error
    short = min(colours.size)
    width, height = (cut.resize if side == short else int(cut.resize * side / short) for side in colours.size)
    resized = colours.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - cut.crop) / 2), round((height - cut.crop) / 2)
    return np.asarray(resized.crop((left, top, left + cut.crop, top + cut.crop)))


def photographs(
    names: Sequence[str], content: Callable[[int], Path | bytes], cut: Cut
) -> UInt8[np.ndarray, "n crop crop 3"]:
    """The pixels of photographs, of which each is read when its turn comes.

    Args:
      names: what errors call them, one for each.
      content: of the photograph of a number.
    """
    pixels = np.empty((len(names), *cut.shape), np.uint8)

    def put(number: int) -> None:
        pixels[number] = pixels_of(content(number), cut, names[number])

    with ThreadPoolExecutor() as pool, bar(len(names)) as advance:  # Pillow decodes without Python's lock
        for number, _ in enumerate(pool.map(put, range(len(names)))):
            if advance is not None:
                advance(names[number])
    return pixels
