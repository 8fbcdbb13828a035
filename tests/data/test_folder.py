"""Folders of images by class: order, modes, damage, and what is kept of them."""

import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from slth import data
from slth.data.sets import files_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


CLASSES = ("ant", "bee", "cow")
COUNTS = {"train": 8, "test": 4}


def pixels_of(part: str, kind: int, number: int, channels: int = 3) -> np.ndarray:
    """A picture of 6 x 5 pixels that says which one it is."""
    image = np.full((6, 5, channels), 10 * number + (part == "test"), np.uint8)
    image[0, :, 0] = kind
    return image


@pytest.fixture
def folder(tmp_path):
    """Three classes of PNG files, which lose nothing."""
    for part, count in COUNTS.items():
        for kind, name in enumerate(CLASSES):
            for number in range(count):
                write(tmp_path / "set" / part / name / f"{number}.png", pixels_of(part, kind, number))
    return tmp_path / "set"


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)


def test_images_and_labels_belong_together(folder):
    for _ in range(2):  # decoded, then from what was kept
        held = data.load("folder", folder)
        assert (held.classes, held.shape) == (3, (6, 5, 3))
        parts = {
            "train": (held.train_images, held.train_labels),
            "test": (held.test_images, held.test_labels),
        }
        for part, (images, labels) in parts.items():
            raw = np.rint(images * 255).astype(np.uint8)
            numbers = raw[:, 1, 0, 0] // 10
            assert sorted(zip(labels.tolist(), numbers.tolist(), strict=True)) == [
                (kind, number) for kind in range(3) for number in range(COUNTS[part])
            ]
            for image, kind, number in zip(raw, labels, numbers, strict=True):
                np.testing.assert_array_equal(image, pixels_of(part, kind, number))


def test_the_first_images_are_not_of_one_class(folder):
    held = data.load("folder", folder)
    assert len(set(held.train_labels[:8].tolist())) > 1
    np.testing.assert_array_equal(held.train_labels, data.load("folder", folder).train_labels)


def test_a_limit_decodes_no_more_than_it_takes(folder):
    (folder / "train" / "bee" / "7.png").write_bytes(b"no image")
    limited = data.load("folder", folder, train_limit=6, limit=3, seed=2)
    assert np.bincount(limited.train_labels).tolist() == [2, 2, 2]
    assert np.bincount(limited.test_labels).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"data file .*bee/7\.png cannot be read as an image"):
        data.load("folder", folder)


def test_kept_pixels_give_the_same_subset(folder):
    before = data.load("folder", folder, train_limit=6)
    data.load("folder", folder)
    after = data.load("folder", folder, train_limit=6)
    np.testing.assert_array_equal(before.train_images, after.train_images)
    np.testing.assert_array_equal(before.train_labels, after.train_labels)


def test_a_changed_image_is_seen(folder):
    before = data.load("folder", folder).test_images.sum()
    path = folder / "test" / "ant" / "0.png"
    write(path, pixels_of("test", 0, 9))
    os.utime(path, ns=(1, 1))
    assert data.load("folder", folder).test_images.sum() != before


def contents(folder):
    return [path.read_text() for path in files_of("folder", folder)]


def test_the_files_of_a_run_say_contents_and_places(folder, tmp_path):
    first = contents(folder)
    assert len(first[0].splitlines()) == 36
    shutil.copytree(folder, tmp_path / "copy")
    assert contents(tmp_path / "copy") == first  # neither place nor time of change matters
    # The same contents in the same order, but one image is of the next class.
    (folder / "test" / "ant" / "3.png").rename(folder / "test" / "bee" / "-.png")
    assert contents(folder) != first
    (folder / "test" / "bee" / "-.png").rename(folder / "test" / "ant" / "3.png")
    assert contents(folder) == first
    write(folder / "test" / "ant" / "3.png", pixels_of("train", 0, 3))
    assert contents(folder) != first


def test_grey_images_have_one_channel_and_grey_among_colours_three(folder):
    write(folder / "train" / "cow" / "0.png", pixels_of("train", 2, 0, 1))
    held = data.load("folder", folder)
    assert held.shape == (6, 5, 3)
    for part, count in COUNTS.items():
        for kind, name in enumerate(CLASSES):
            for number in range(count):
                write(folder / part / name / f"{number}.png", pixels_of(part, kind, number, 1))
    assert data.load("folder", folder).shape == (6, 5, 1)


def test_other_files_are_left_out_and_said(folder, caplog):
    (folder / "train" / "ant" / "notes.txt").write_text("x")
    (folder / "train" / "ant" / ".DS_Store").write_text("x")
    (folder / "train" / "ant" / "7.png").rename(folder / "train" / "ant" / "7.PNG")
    with caplog.at_level("INFO", "slth.data"):
        assert len(data.load("folder", folder).train_images) == 24
    assert "1 files are not .jpg, .jpeg, .png and are left out" in caplog.text


def test_a_test_part_alone(folder):
    shutil.rmtree(folder / "train")
    held = data.load("folder", folder)
    assert (len(held.train_images), len(held.test_images), held.shape) == (0, 12, (6, 5, 3))


def transparent(folder):
    Image.new("RGBA", (5, 6)).save(folder / "test" / "cow" / "1.png")


def sixteen_bits(folder):
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "test" / "cow" / "1.png")


def truncated(folder):
    path = folder / "test" / "cow" / "1.png"
    write(path, np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-60])


def colour_among_grey(folder):
    for part in COUNTS:
        for path in (folder / part / "ant").iterdir():
            write(path, np.zeros((6, 5, 1), np.uint8))


REFUSED = {
    "no split": (
        lambda folder: [shutil.rmtree(folder / "test"), (folder / "train").rename(folder / "all")],
        r"has no test part: expected train/CLASS/\*\.jpg and test/.*: divide the images",
    ),
    "val": (lambda f: (f / "test").rename(f / "val"), r"has no test part: .*: rename val to test"),
    "no class": (
        lambda f: [shutil.rmtree(f / "test"), write(f / "test" / "1.png", pixels_of("test", 0, 0))],
        r"1\.png is in no class: expected train/CLASS",
    ),
    "no classes": (
        lambda f: [shutil.rmtree(f / "test"), (f / "test").mkdir()],
        r"test has no folders of classes",
    ),
    "other classes": (
        lambda f: (f / "test" / "cow").rename(f / "test" / "dog"),
        r"test has classes that train lacks: dog",
    ),
    "an empty class": (lambda f: (f / "train" / "dog").mkdir(), r"dog has no \.jpg, \.jpeg, \.png"),
    "a folder in a class": (
        lambda f: (f / "train" / "cow" / "more").mkdir(),
        r"more: expected images, not a folder",
    ),
    "another size": (
        lambda f: write(f / "train" / "cow" / "1.png", np.zeros((6, 6, 3), np.uint8)),
        r"cow/1\.png: expected \(6, 5, 3\) \(height, .* got \(6, 6, 3\)",
    ),
    "colour among grey": (colour_among_grey, r"bee/0\.png: expected \(6, 5, 1\) .* got \(6, 5, 3\)"),
    "transparent": (transparent, r"cow/1\.png: expected 8 bits of grey or RGB, got mode RGBA: convert"),
    "16 bits": (sixteen_bits, r"cow/1\.png: expected 8 bits of grey or RGB, got mode I;16"),
    "truncated": (truncated, r"cow/1\.png cannot be read as an image"),
    "empty": (lambda f: (f / "test" / "cow" / "1.png").write_bytes(b""), r"cow/1\.png cannot be read"),
}


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_named(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message) as raised:
        data.load("folder", folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_must_be_named(tmp_path):
    with pytest.raises(ValueError, match=r"data folder needs a place"):
        data.load("folder")
    with pytest.raises(FileNotFoundError, match=r"data folder .*none is not there"):
        data.load("folder", tmp_path / "none")
    assert files_of("folder", tmp_path / "none") == []


def test_one_part_is_not_the_folder(folder):
    with pytest.raises(ValueError, match=rf"has no test part: .*: the folder to name is {folder}$"):
        data.load("folder", folder / "train")


def test_a_cache_that_cannot_be_written_is_said(folder, cache):
    cache.write_text("a file")
    with pytest.raises(OSError, match=r"cannot be written .*: set XDG_CACHE_HOME"):
        files_of("folder", folder)
    assert len(data.load("folder", folder).test_images) == 12  # and nothing is kept


@pytest.mark.slow
def test_the_real_images(data_dir, tmp_path):
    wanted = ("test/cat/", "test/dog/", "train/cat/", "train/dog/")
    with tarfile.open(data_dir / "cifar10_jpeg.tar.xz") as archive:
        members = [one for one in archive if one.name.removeprefix("./").startswith(wanted)]
        archive.extractall(tmp_path / "set", members, filter="data")
    held = data.load("folder", tmp_path / "set", limit=100)
    assert (len(held.train_images), held.classes, held.shape) == (10_000, 2, (32, 32, 3))
    assert np.bincount(held.test_labels).tolist() == [50, 50]
    # Pixels of the whole set have a mean near .47; that of cats and dogs is near it.
    assert held.train_images.mean() == pytest.approx(0.47, abs=0.02)
