"""Archives in the layouts that the authors of the sets describe, written byte by byte."""

import gzip
import io
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slth.data.cifar import CIFAR10, CIFAR100, Cifar

PYTHON10, BINARY10 = CIFAR10
PYTHON100, BINARY100 = CIFAR100
COUNTS = (4, 3)  # images in each training file and in the test file


def images_of(count: int, seed: int) -> np.ndarray:
    """Pictures (n, 32, 32, 3), no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes(image: np.ndarray) -> bytes:
    """3,072 bytes: all red ones row by row, then all green ones, then all blue ones."""
    return b"".join(
        bytes([int(image[row, column, channel])])
        for channel in range(3)
        for row in range(32)
        for column in range(32)
    )


def string(text: bytes) -> bytes:
    """A string of Python 2, as protocol 2 of pickle has it: BINSTRING, its length, its bytes."""
    return b"T" + struct.pack("<i", len(text)) + text


def number(value: int) -> bytes:
    """BININT."""
    return b"J" + struct.pack("<i", value)


def numbers(values: Sequence[int]) -> bytes:
    """A list: EMPTY_LIST, MARK, its numbers, APPENDS."""
    return b"](" + b"".join(map(number, values)) + b"e"


def pickle_2(rows: Sequence[bytes], **lists: Sequence[int]) -> bytes:
    """The pickle that Python 2 writes of {"data": uint8 array, name: list, ...}: global names, then BUILD."""
    width = len(rows[0])
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + (b"cnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"\x87R")
        + (b"(" + number(1) + number(len(rows)) + number(width) + b"\x86")
        + (b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R")
        + (b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb")
        + (b"\x89" + string(b"".join(rows)) + b"tb")
    )
    items = string(b"data") + array
    for name, values in lists.items():
        items += string(name.encode()) + numbers(values)
    return b"\x80\x02}(" + string(b"batch_label") + string(b"testing batch") + items + b"u."


def content(form: Cifar, images: np.ndarray, labels: Sequence[int]) -> bytes:
    """One file of a CIFAR set."""
    rows = [planes(image) for image in images]
    if form == PYTHON10:
        return pickle_2(rows, labels=labels)
    if form == PYTHON100:
        return pickle_2(rows, coarse_labels=[label // 5 for label in labels], fine_labels=labels)
    coarse = [bytes([label // 5]) if form == BINARY100 else b"" for label in labels]
    return b"".join(
        first + bytes([label]) + row for first, label, row in zip(coarse, labels, rows, strict=True)
    )


def small(form: Cifar) -> Cifar:
    """The form with few images a file."""
    counts = (dict.fromkeys(form.train, COUNTS[0]), dict.fromkeys(form.test, COUNTS[1]))
    return replace(form, train=counts[0], test=counts[1])


def files_of(form: Cifar) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """The files of a small set, and its images and labels in order, training part first."""
    files, images, labels = {}, [], []
    for place, batch in enumerate((*form.train, *form.test)):
        own = images_of(COUNTS[batch in form.test], place)
        kinds = [(7 * place + 3 * index) % form.classes for index in range(len(own))]
        files[batch] = content(form, own, kinds)
        images.append(own)
        labels += kinds
    return files, np.concatenate(images), np.array(labels)


def tar(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    """A .tar.gz of a folder with these files and one that nobody asked for."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"readme.html": b"<html>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def idx(array: np.ndarray, *, magic: int | None = None) -> bytes:
    """An idx file of bytes: 0, 0, type 8, the number of axes; their lengths; the bytes. All big-endian."""
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic.to_bytes(4, "big")
    return head + b"".join(length.to_bytes(4, "big") for length in array.shape) + array.tobytes()


def idx_files(train: int, test: int, zipped: bool) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The four files of a set like MNIST, and their arrays by file."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    files = {name: idx(array) for name, array in arrays.items()}
    if zipped:
        files = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    return files, arrays
