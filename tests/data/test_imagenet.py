"""ImageNet: its forms on disk, torchvision's pixels, and what is read for a draw."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slth import data
from slth.data import imagenet, sets
from slth.data.__main__ import main
from slth.data.imagenet import validation_labels, wnids
from slth.data.photographs import Cut, pixels_of
from tests.data.imagenet import KINDS, TRAIN, VAL, members, name_of, said, write_folders, write_prepared
from tests.fixtures.make_resnet50 import PHOTOGRAPHS, RESIZE, photograph

STORED = np.load(Path(__file__).parents[1] / "fixtures" / "resnet50.npz")
SMALL = {"resize": 12, "crop": 8}
FORMS = {
    "by class": lambda place: write_folders(place),
    "as the archive has them": lambda place: write_folders(place, by_class=False),
    "validation": lambda place: write_folders(place, val="validation"),
    "array_record": lambda place: write_prepared(place, "array_record"),
    "tfrecord": lambda place: write_prepared(place, "tfrecord"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("crop", [24, 23, 10])
def test_pixels_are_those_of_pytorch(name: str, crop: int):
    whole = STORED[f"photograph/{name}"]
    top, left = (int(round((side - crop) / 2.0)) for side in whole.shape[:2])  # noqa: RUF046
    truth = whole[top : top + crop, left : left + crop]
    pixels = pixels_of(png(photograph(name)), Cut(RESIZE, crop), "it")
    # Pillow rounds to whole numbers behind each of the two axes.
    assert np.abs(pixels.astype(float) - truth).max() < 1.01
    assert np.sqrt(np.square(pixels - truth).mean()) < 0.5


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_photographs_of_other_modes_become_rgb(mode: str):
    file = io.BytesIO()
    image = Image.new("L", (20, 30), 255)
    (image.convert("I;16") if mode == "I;16" else image.convert(mode)).save(
        file, "TIFF" if mode == "CMYK" else "PNG"
    )
    assert pixels_of(file.getvalue(), Cut(10, 10), "it").shape == (10, 10, 3)


def test_the_classes_are_in_torchvisions_order():
    assert list(wnids()) == sorted(set(wnids()))
    assert (len(wnids()), wnids()[0], wnids()[207]) == (1000, "n01440764", "n02099601")  # tench, retriever
    assert np.bincount(validation_labels()).tolist() == [50] * 1000
    assert validation_labels()[0] == 65  # ILSVRC2012_val_00000001 is a sea snake


@pytest.mark.parametrize("form", FORMS)
def test_photographs_and_labels_belong_together(tmp_path: Path, form: str):
    held = data.load("imagenet", FORMS[form](tmp_path / "set"), **SMALL)
    assert (held.classes, held.shape) == (1000, (8, 8, 3))
    assert (held.mean.tolist(), held.std.tolist()) == (
        pytest.approx([0.485, 0.456, 0.406]),
        pytest.approx([0.229, 0.224, 0.225]),
    )
    for part, images, labels in (
        ("train", held.train_images, held.train_labels),
        ("val", held.test_images, held.test_labels),
    ):
        found = said(images, held)
        assert sorted(found) == members(part)
        assert labels.tolist() == [kind for kind, _ in found]


@pytest.mark.parametrize("form", FORMS)
def test_a_limit_has_each_class_in_its_share(tmp_path: Path, form: str):
    place = FORMS[form](tmp_path / "set")
    held = data.load("imagenet", place, limit=6, train_limit=3, **SMALL)
    assert np.bincount(held.test_labels)[[*KINDS]].tolist() == [2, 2, 2]
    assert np.bincount(held.train_labels)[[*KINDS]].tolist() == [1, 1, 1]
    assert [kind for kind, _ in said(held.test_images, held)] == held.test_labels.tolist()
    again = data.load("imagenet", place, limit=3, train_limit=3, **SMALL)
    np.testing.assert_array_equal(again.test_images, held.test_images[:3])
    other = data.load("imagenet", place, limit=6, seed=1, **SMALL)
    assert not np.array_equal(other.test_images, held.test_images)


def test_what_is_not_drawn_is_not_decoded(tmp_path: Path):
    place = write_folders(tmp_path)
    for kind, number in members("train"):
        if number:
            (place / "train" / wnids()[kind] / name_of("train", kind, number)).write_bytes(b"no image")
    seeds = range(200)
    for seed in seeds:  # the one good photograph of a class is drawn by one seed of 5
        try:
            held = data.load("imagenet", place, limit=1, train_limit=1, seed=seed, **SMALL)
        except ValueError as error:
            assert "cannot be read as an image" in str(error)  # noqa: PT017
            continue
        assert said(held.train_images, held)[0][1] == 0
        break
    else:
        pytest.fail("no seed drew a good photograph")


def test_a_large_prepared_part_is_drawn_without_its_labels(tmp_path: Path, monkeypatch):
    place = write_prepared(tmp_path, "tfrecord")
    monkeypatch.setattr(imagenet, "MOST_LABELS", 9)
    held = data.load("imagenet", place, train_limit=4, **SMALL)
    order = np.random.default_rng(0).permutation(len(KINDS) * TRAIN)[:4]
    ordered = sorted(members("train"), key=lambda one: one[::-1])
    assert said(held.train_images, held) == [ordered[at] for at in order]
    assert held.train_labels.tolist() == [ordered[at][0] for at in order]


@pytest.mark.parametrize("by_class", [True, False])
def test_the_validation_images_alone(tmp_path: Path, by_class: bool):
    place = write_folders(tmp_path, by_class=by_class)
    shutil.rmtree(place / "train")
    places = [place] if by_class else [place, place / "val"]
    for one in places:
        held = data.load("imagenet", one, **SMALL)
        assert (held.train_images.shape, len(held.test_images)) == ((0, 8, 8, 3), len(KINDS) * VAL)
        assert held.test_labels.tolist() == [kind for kind, _ in said(held.test_images, held)]


def test_a_prepared_validation_split_alone(tmp_path: Path):
    held = data.load("imagenet", write_prepared(tmp_path, "array_record", ("validation",)), **SMALL)
    assert (held.train_images.shape, len(held.test_images)) == ((0, 8, 8, 3), len(KINDS) * VAL)
    with pytest.raises(ValueError, match=r"has no split 'validation': prepare it with ILSVRC2012_img_val"):
        data.load("imagenet", write_prepared(tmp_path / "other", "array_record", ("train",)), **SMALL)


def test_the_usual_size_is_torchvisions_first(tmp_path: Path):
    assert data.load("imagenet", write_folders(tmp_path), limit=1, train_limit=1).shape == (224, 224, 3)


def photograph_of(part: str, kind: int):
    return lambda place: place / part / wnids()[kind] / name_of(part, kind, 0)


REFUSED = {
    "nothing": (
        lambda p: shutil.rmtree(p / "train") or shutil.rmtree(p / "val"), r"imagenet is not in .*WNID"
    ),
    "no val": (lambda p: shutil.rmtree(p / "val"), r"has train and no val: expected val/WNID.*: add the val"),
    "another class": (
        lambda p: (p / "val" / wnids()[7]).rename(p / "val" / "cat"),
        r"val/cat: expected a class of ImageNet such as n01440764, got 'cat': .*data=folder",
    ),
    "an empty class": (lambda p: (p / "train" / wnids()[5]).mkdir(), r"has no \.jpg, \.jpeg, \.png"),
    "an empty val": (
        lambda p: shutil.rmtree(p / "val") or (p / "val").mkdir(),
        r"val has no \.jpg, \.jpeg, \.png: expected val/WNID",
    ),
    "names without numbers": (
        lambda p: shutil.rmtree(p / "val") or (p / "val").mkdir() or (p / "val" / "1.jpg").write_bytes(b"x"),
        r"val/1\.jpg: expected ILSVRC2012_val_00000001 to 00050000 as names",
    ),
    "no image": (
        lambda p: photograph_of("val", 7)(p).write_bytes(b"x"), r"\.JPEG cannot be read as an image"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_named(tmp_path: Path, change, message: str):
    place = write_folders(tmp_path)
    change(place)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        data.load("imagenet", place, **SMALL)
    assert str(place) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_shard_says_which(tmp_path: Path):
    place = write_prepared(tmp_path, "tfrecord")
    (path,) = place.rglob("*validation*00001-of*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"\({path.name} does not hold 5 whole records\): remove it and run"
    ):
        data.load("imagenet", place, **SMALL)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path):
    place = write_folders(tmp_path)
    with pytest.raises(ValueError, match=r"crop: a square of 224 pixels .* has 100: choose a crop"):
        data.load("imagenet", place, resize=100)
    with pytest.raises(ValueError, match=r"data crop must be at least 1 \(or none\), got 0"):
        data.load("imagenet", place, crop=0)
    with pytest.raises(ValueError, match=r"resize and crop: .*images of digits are taken as they are"):
        data.load("digits", resize=8)


def test_more_images_than_memory_has_room_for_are_refused(tmp_path: Path, monkeypatch):
    place = write_folders(tmp_path)
    (place / "val" / wnids()[0] / name_of("val", 0, 0)).write_bytes(b"not read")
    monkeypatch.setattr(sets, "_memory", lambda: 10 * 5 * 8 * 8 * 3)
    message = r"data train_limit: 15 images of imagenet of shape \(8, 8, 3\) .*a train_limit of at most 5$"
    with pytest.raises(ValueError, match=message):
        data.load("imagenet", place, limit=1, **SMALL)


def test_names_and_descriptions_stand_for_what_a_run_reads(tmp_path: Path):
    place = write_folders(tmp_path / "folders")
    (first,) = sets.files_of("imagenet", place)
    photograph_of("val", 7)(place).rename(place / "val" / wnids()[0] / name_of("val", 7, 0))
    (other,) = sets.files_of("imagenet", place)
    assert first.read_text() != other.read_text()
    prepared = write_prepared(tmp_path / "prepared", "tfrecord")
    names = [path.name for path in sets.files_of("imagenet", prepared)]
    assert names == ["dataset_info.json", "features.json"]


def test_the_command_counts_what_is_there(tmp_path: Path, capsys):
    assert main(["imagenet", "--dir", str(write_folders(tmp_path))]) == 0
    assert "has imagenet: 15 training and 9 test images; use it as data=imagenet" in capsys.readouterr().out
