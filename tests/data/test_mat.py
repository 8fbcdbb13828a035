"""SVHN in .mat files, whole and damaged."""

import numpy as np
import pytest
from scipy.io import savemat

from slth import data
from slth.data import checksums
from slth.data.formats import Reading
from slth.data.known import KNOWN
from slth.data.mat import Mat
from tests.data.originals import images_of

SMALL = Mat(train=6, test=4)
DIGITS = np.array([1, 10, 9, 2, 10, 5], np.uint8)


@pytest.fixture
def unpublished(monkeypatch):
    monkeypatch.setattr(checksums, "PUBLISHED", {})


def write(path, images, labels, **names):
    savemat(path, {names.get("x", "X"): images.transpose(1, 2, 3, 0), names.get("y", "y"): labels[:, None]})


def write_both(folder):
    images = images_of(10, 0)
    write(folder / "train_32x32.mat", images[:6], DIGITS)
    write(folder / "test_32x32.mat", images[6:], DIGITS[:4])
    return images


def test_mat_files_are_read_and_ten_is_nought(tmp_path, monkeypatch, unpublished):
    images = write_both(tmp_path)
    monkeypatch.setitem(KNOWN, "svhn", KNOWN["svhn"]._replace(formats=(SMALL,)))
    held = data.load("svhn", tmp_path, mean=(0,), std=(1,))
    assert (held.shape, held.classes) == ((32, 32, 3), 10)
    np.testing.assert_array_equal(np.rint(held.train_images * 255), images[:6])
    np.testing.assert_array_equal(np.rint(held.test_images * 255), images[6:])
    assert held.train_labels.tolist() == [1, 0, 9, 2, 0, 5]
    assert [path.name for path in data.sets.files_of("svhn", tmp_path)] == [
        "train_32x32.mat",
        "test_32x32.mat",
    ]


def test_a_test_part_alone(tmp_path, unpublished):
    write_both(tmp_path)
    (tmp_path / "train_32x32.mat").unlink()
    held = SMALL.read(tmp_path, Reading())
    assert (held.train.count, held.test.count, held.train.read(slice(None))[0].shape) == (
        0,
        4,
        (0, 32, 32, 3),
    )
    (tmp_path / "test_32x32.mat").rename(tmp_path / "train_32x32.mat")
    with pytest.raises(ValueError, match=r"lacks test_32x32\.mat"):
        data.load("svhn", tmp_path)


DAMAGED = {
    "fewer": (lambda path: write(path, images_of(3, 0), DIGITS[:3]), r"X of shape \(32, 32, 3, 4\)"),
    "labels fewer": (lambda path: write(path, images_of(4, 0), DIGITS[:3]), r"y of shape \(4, 1\)"),
    "label 0": (lambda path: write(path, images_of(4, 0), DIGITS[:4] * 0), r"from 1 to 10, got 0 to 0"),
    "label 11": (lambda path: write(path, images_of(4, 0), DIGITS[:4] + 1), r"from 1 to 10, got 2 to 11"),
    "floats": (lambda path: write(path, images_of(4, 0) / 255, DIGITS[:4]), r"uint8 .* in float64"),
    "other names": (lambda path: write(path, images_of(4, 0), DIGITS[:4], y="labels"), r"expected X and y"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:9000]), r"cannot be read as \.mat"),
    "empty": (lambda path: path.write_bytes(b""), r"cannot be read as \.mat"),
    "text": (lambda path: path.write_bytes(b"text" * 100), r"cannot be read as \.mat"),
}


@pytest.mark.parametrize("change, message", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_named(tmp_path, unpublished, change, message):
    write_both(tmp_path)
    change(tmp_path / "test_32x32.mat")
    with pytest.raises(ValueError, match=message) as raised:
        SMALL.read(tmp_path, Reading())
    assert str(raised.value).startswith(f"data file {tmp_path / 'test_32x32.mat'}")
    assert "\n" not in str(raised.value)


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    write_both(tmp_path)
    with pytest.raises(ValueError, match=r"train_32x32\.mat is damaged or another file: expected SHA256"):
        data.load("svhn", tmp_path)
