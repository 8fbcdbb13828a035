"""CIFAR archives in their published layout, whole and damaged."""

import pickle

import numpy as np
import pytest

from slth import data
from slth.data import checksums
from slth.data.formats import Reading
from slth.data.known import KNOWN
from tests.data.originals import (
    BINARY10,
    BINARY100,
    COUNTS,
    PYTHON10,
    PYTHON100,
    content,
    files_of,
    images_of,
    pickle_2,
    planes,
    small,
    tar,
    write,
)

FORMS = {"10 python": PYTHON10, "10 binary": BINARY10, "100 python": PYTHON100, "100 binary": BINARY100}


@pytest.fixture
def unpublished(monkeypatch):
    """No file has a checksum: those of the tests are not the published ones."""
    monkeypatch.setattr(checksums, "PUBLISHED", {})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("lies", ["folder", "inside", "archive", "archive's folder"])
def test_every_form_is_read_in_every_place(tmp_path, monkeypatch, unpublished, form, lies):
    files, images, labels = files_of(form)
    if lies == "folder":
        place = write(tmp_path, files)
    elif lies == "inside":
        place = write(tmp_path / form.folder, files).parent
    else:
        path = tar(tmp_path / form.archive, form.folder, files)
        place = path if lies == "archive" else tmp_path
    known = KNOWN[form.name]
    monkeypatch.setitem(KNOWN, form.name, known._replace(formats=(*known.formats[:2], small(form))))
    held = data.load(form.name, place, mean=(0,), std=(1,))
    assert (held.classes, held.shape) == (form.classes, (32, 32, 3))
    train = COUNTS[0] * len(form.train)
    parts = ((held.train_images, held.train_labels), (held.test_images, held.test_labels))
    for (found, kinds), own in zip(parts, (slice(train), slice(train, None)), strict=True):
        np.testing.assert_array_equal(np.rint(found * 255), images[own])
        np.testing.assert_array_equal(kinds, labels[own])
    assert data.sets.files_of(form.name, place) == (
        [tmp_path / form.archive]
        if "archive" in lies
        else [(tmp_path if lies == "folder" else tmp_path / form.folder) / name for name in files]
    )


def test_a_pixel_lies_where_the_page_says(unpublished):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 2, 5, 1] = 9  # green, third row, sixth column: byte 1024 + 2 * 32 + 5
    row = np.frombuffer(planes(image[0]), np.uint8)
    assert row.nonzero()[0].tolist() == [1024 + 69]
    labels, pixels = BINARY10.decode("", content(BINARY10, image, [7]))
    assert (labels.tolist(), pixels[0, 1093]) == ([7], 9)
    labels, _ = BINARY100.decode("", bytes([19, 99]) + row.tobytes())
    assert labels.tolist() == [99]  # the fine one


def test_the_pickle_is_that_of_python_2():
    rows = [planes(image) for image in images_of(2, 0)]
    held = pickle.loads(pickle_2(rows, labels=[3, 4]), encoding="bytes")
    assert held[b"data"].tobytes() == b"".join(rows)
    assert (held[b"data"].shape, held[b"data"].dtype) == ((2, 3072), np.uint8)
    assert held[b"labels"] == [3, 4]


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def files_with(form, batch, change):
    files, _, _ = files_of(form)
    return {**files, batch: change(files[batch])}


ROWS = [planes(image) for image in images_of(4, 0)]
DAMAGED = {
    "truncated binary": (BINARY10, "data_batch_2.bin", lambda b: b[:-1], r"records of 3073 bytes, got 12291"),
    "a record less": (BINARY10, "test_batch.bin", lambda b: b[:-3073], r"expected 3 images, got 2"),
    "truncated pickle": (PYTHON10, "data_batch_1", lambda b: b[:-900], r"expected a pickled dict with data"),
    "label too large": (
        *(BINARY10, "data_batch_5.bin", lambda b: bytes([10]) + b[1:]),
        r"expected labels from 0 to 9, got 1 to 10",
    ),
    "label below 0": (
        *(PYTHON10, "test_batch", lambda b: pickle_2(ROWS[:3], labels=[0, -1, 2])),
        r"expected labels from 0 to 9, got -1 to 2",
    ),
    "other key": (PYTHON100, "train", lambda b: pickle_2(ROWS, labels=[1] * 4), r"data and fine_labels"),
    "rows and labels differ": (
        *(PYTHON10, "test_batch", lambda b: pickle_2(ROWS[:3], labels=[0, 1])),
        r"shape \(2, 3072\), one row a label, got \(3, 3072\)",
    ),
    "a program": (PYTHON10, "test_batch", lambda b: pickle.dumps(Evil(), 2), r"exec, which is not run"),
}


@pytest.mark.parametrize("form, batch, change, message", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_named(tmp_path, unpublished, form, batch, change, message):
    files = files_with(form, batch, change)
    for place in (write(tmp_path / "x", files), tar(tmp_path / form.archive, form.folder, files)):
        with pytest.raises(ValueError, match=message) as raised:
            small(form).read(place, Reading())
        assert batch in str(raised.value)
        assert str(raised.value).startswith(f"data file {place}")
        assert "\n" not in str(raised.value)


def test_a_truncated_archive_and_one_that_lacks_a_file(tmp_path, unpublished):
    files, _, _ = files_of(BINARY10)
    path = tar(tmp_path / BINARY10.archive, BINARY10.folder, files)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read as \.tar\.gz .*: download it again"):
            small(BINARY10).read(path, Reading())
    del files["data_batch_3.bin"]
    tar(path, BINARY10.folder, files)
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-bin/data_batch_3\.bin: download"):
        small(BINARY10).read(path, Reading())
    with pytest.raises(ValueError, match=r"data folder .* lacks data_batch_3\.bin: extract"):
        small(BINARY10).files(write(tmp_path / "y", files))


def test_the_published_counts_are_asked_for(tmp_path, unpublished):
    files, _, _ = files_of(BINARY100)
    with pytest.raises(ValueError, match=r"train\.bin: expected 50000 images, got 4"):
        BINARY100.read(write(tmp_path, files), Reading())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path, form):
    files, _, _ = files_of(form)
    path = tar(tmp_path / form.archive, form.folder, files)
    kind = "MD5 [0-9a-f]{32} \\(published by https" if "python" in form.archive else "SHA256 [0-9a-f]{64} "
    with pytest.raises(ValueError, match=rf"{form.archive} is damaged or another file: expected {kind}"):
        small(form).read(path, Reading())


def test_batches_of_the_form_for_python_have_checksums(tmp_path):
    files, _, _ = files_of(PYTHON100)
    with pytest.raises(ValueError, match=r"train is damaged .* \(published by torchvision\)"):
        small(PYTHON100).read(write(tmp_path, files), Reading())
    for form in (PYTHON10, PYTHON100):
        assert {(form.name, batch) for batch in (*form.train, *form.test)} <= checksums.PUBLISHED.keys()
