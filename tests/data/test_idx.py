"""MNIST and Fashion-MNIST in idx files, whole and damaged."""

import gzip

import numpy as np
import pytest

from slth import data
from slth.data import checksums
from slth.data.formats import Reading
from slth.data.idx import Idx
from slth.data.known import KNOWN
from tests.data.originals import idx, idx_files, write

SMALL = Idx("mnist", ("MNIST/raw",), 12, 5)
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def unpublished(monkeypatch):
    monkeypatch.setattr(checksums, "PUBLISHED", {})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name, inside", [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion_mnist", ".")])
def test_idx_files_are_read(tmp_path, monkeypatch, unpublished, zipped, name, inside):
    files, arrays = idx_files(12, 5, zipped)
    place = write(tmp_path / inside, files)
    monkeypatch.setitem(KNOWN, name, KNOWN[name]._replace(formats=(SMALL,)))
    held = data.load(name, tmp_path, mean=(0,), std=(1,))
    assert (held.shape, held.classes) == ((28, 28, 1), 10)
    for part, images, labels in (
        ("train", held.train_images, held.train_labels),
        ("t10k", held.test_images, held.test_labels),
    ):
        np.testing.assert_array_equal(np.rint(images[..., 0] * 255), arrays[f"{part}-images-idx3-ubyte"])
        np.testing.assert_array_equal(labels, arrays[f"{part}-labels-idx1-ubyte"])
    assert set(data.sets.files_of(name, tmp_path)) == {place / file for file in files}


def test_the_header_is_that_of_the_format():
    assert idx(np.zeros((2, 28, 28), np.uint8))[:16].hex() == "00000803000000020000001c0000001c"
    assert idx(np.zeros(2, np.uint8))[:8].hex() == "0000080100000002"


def test_files_unpacked_with_a_dot_and_a_test_part_alone(tmp_path):
    files, arrays = idx_files(12, 5, False)
    place = write(tmp_path, {name.replace("-idx", ".idx"): files[name] for name in (IMAGES, LABELS)})
    held = SMALL.read(place, Reading())
    assert (held.train.count, held.test.count) == (0, 5)
    images, labels = held.train.read(slice(None))
    assert (images.shape, labels.shape) == ((0, 28, 28, 1), (0,))
    np.testing.assert_array_equal(held.test.read(slice(None))[0][..., 0], arrays[IMAGES])


DAMAGED = {
    "truncated": (IMAGES, lambda b: b[:-1], r"header says 5 x 28 x 28 bytes, and 3919 follow"),
    "longer": (LABELS, lambda b: b + b"\0", r"header says 5 bytes, and 6 follow"),
    "magic": (IMAGES, lambda b: b"\0\0\x08\x01" + b[4:], r"begin with 0x00000803, got 0x00000801"),
    "type": (LABELS, lambda b: b"\0\0\x0d\x01" + b[4:], r"begin with 0x00000801, got 0x00000d01"),
    "no header": (IMAGES, lambda b: b[:9], r"begin with 0x00000803"),
    "empty": (LABELS, lambda b: b"", r"begin with 0x00000801, got 0x00000000"),
    "label": (LABELS, lambda b: b[:-1] + b"\x0a", r"expected labels from 0 to 9, got 0 to 10"),
    "fewer labels": (LABELS, lambda b: idx(np.zeros(4, np.uint8)), r"expected 5 entries, got 4"),
    "fewer images": (IMAGES, lambda b: idx(np.zeros((4, 28, 28), np.uint8)), r"expected 5 entries, got 4"),
}


@pytest.mark.parametrize("name, change, message", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_named(tmp_path, unpublished, name, change, message, zipped):
    files, _ = idx_files(12, 5, False)
    files[name] = change(files[name])
    if zipped:
        files = {f"{one}.gz": gzip.compress(content) for one, content in files.items()}
    place = write(tmp_path, files)
    with pytest.raises(ValueError, match=message) as raised:
        SMALL.read(place, Reading())
    assert str(raised.value).startswith(f"data file {place / name}")
    assert "\n" not in str(raised.value)


def test_a_damaged_gzip_file_is_named(tmp_path, unpublished):
    files, _ = idx_files(12, 5, True)
    whole = files[f"{IMAGES}.gz"]
    flipped = bytes([*whole[:2000], whole[2000] ^ 255, *whole[2001:]])
    for damaged in (whole[:-20], flipped, b"", b"text"):
        write(tmp_path, {**files, f"{IMAGES}.gz": damaged})
        with pytest.raises(ValueError, match=rf"{IMAGES}\.gz cannot be read as \.gz|\.gz: expected idx"):
            SMALL.read(tmp_path, Reading())


def test_a_file_without_its_other_half_is_named(tmp_path):
    files, _ = idx_files(12, 5, True)
    for missing in (f"{LABELS}.gz", f"{IMAGES}.gz", "train-labels-idx1-ubyte.gz"):
        place = write(tmp_path / missing, {name: own for name, own in files.items() if name != missing})
        with pytest.raises(ValueError, match=rf"lacks {missing.removesuffix('.gz')} \(or \.gz\)"):
            data.load("mnist", place)


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    files, _ = idx_files(12, 5, True)
    write(tmp_path, files)
    for name in ("mnist", "fashion_mnist"):
        with pytest.raises(ValueError, match=r"idx3-ubyte\.gz is damaged or another file: expected SHA256"):
            data.load(name, tmp_path)


def test_the_real_test_part(tmp_path, data_dir):
    with np.load(data_dir / "mnist_test.npz") as file:
        images, labels = file["images"], file["labels"]
    write(tmp_path, {IMAGES: idx(images[..., 0]), LABELS: idx(labels.astype(np.uint8))})
    ours, theirs = data.load("mnist", tmp_path), data.load("mnist", data_dir)
    np.testing.assert_array_equal(ours.test_images, theirs.test_images)
    np.testing.assert_array_equal(ours.test_labels, theirs.test_labels)
