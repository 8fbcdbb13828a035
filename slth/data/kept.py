"""What is kept of a folder of images in the user's cache: a list of their contents, and their pixels."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

MOST = 2 * 10**9
"""Bytes of a part's pixels that are kept at most."""


class Kept:
    """The cache of one folder, below ``$XDG_CACHE_HOME`` or ``~/.cache``.

    The key depends on the folder, on the name, size and time of change of each image, and on the version of
    Pillow: when one changes, the cache is another one. It may be deleted at any time.

    Args:
      place: the folder.
      names: its images by their places in it, sorted.
    """

    def __init__(self, place: Path, names: Sequence[str]) -> None:
        self._place, self._names = place.resolve(), names

    @cached_property
    def folder(self) -> Path:
        """The folder of the cache."""
        import PIL

        digest = hashlib.sha256(f"{PIL.__version__} {self._place}\n".encode())
        for name in self._names:
            found = os.stat(f"{self._place}/{name}")
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
        return _cache() / digest.hexdigest()[:16]

    def listing(self) -> Path:
        """A file with a line for each image: SHA-256 of its content, and its place in the folder.

        Raises: OSError where the cache cannot be written.
        """
        path = self.folder / "files.sha256"
        if not path.is_file():
            contents = ((self._place / name).read_bytes() for name in self._names)
            hashes = [hashlib.sha256(content).hexdigest() for content in contents]
            lines = (f"{found}  {name}\n" for found, name in zip(hashes, self._names, strict=True))
            with _whole(path) as file:
                file.write("".join(lines).encode())
        return path

    def has(self, part: str) -> bool:
        """Whether the pixels of a part are there."""
        return (self.folder / f"{part}.npy").is_file()

    def pixels(self, part: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The pixels of a part, read from the cache or decoded and kept."""
        path = self.folder / f"{part}.npy"
        if not path.is_file():
            pixels = decode()
            if pixels.nbytes > MOST:
                return pixels
            with suppress(OSError), _whole(path) as file:
                np.save(file, pixels)
            return pixels
        return np.load(path, mmap_mode="r")


def listing_of(names: Sequence[str]) -> Path:
    """A file with the SHA-256 of names, which stands for images whose names say what they are.

    Raises: OSError where the cache cannot be written.
    """
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    path = _cache() / f"{digest[:16]}.names"
    if not path.is_file():
        with _whole(path) as file:
            file.write(f"{digest}\n".encode())
    return path


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slth" / "images"


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is there as a whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(
            f"the cache of images {path} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from error
