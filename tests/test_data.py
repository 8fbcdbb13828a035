"""Data sets: splits, scale, normalisation, and one line for whatever is wrong or absent."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from slth import data
from slth.data.__main__ import main


def test_digits_are_split_once_and_for_all():
    held = data.load("digits")
    assert held.train_images.shape == (1437, 8, 8, 1)
    assert held.test_images.shape == (360, 8, 8, 1)
    assert (held.shape, held.classes, held.name) == ((8, 8, 1), 10, "digits")
    # A stratified fifth: each digit has 34 to 37 of its 174 to 183 images there.
    assert set(np.bincount(held.test_labels)) <= set(range(34, 38))
    assert held.test_labels[:12].tolist() == data.load("digits").test_labels[:12].tolist()


def test_digits_parts_are_the_bundled_images_and_never_mix():
    held = data.load("digits")
    grey = [
        np.rint((part * held.std + held.mean)[..., 0] * 16).astype(int).reshape(-1, 64)
        for part in (held.train_images, held.test_images)
    ]
    labelled = [
        {(*row.tolist(), int(y)) for row, y in zip(rows, labels, strict=True)}
        for rows, labels in zip(grey, (held.train_labels, held.test_labels), strict=True)
    ]
    bundle = load_digits(return_X_y=True)
    whole = {(*r.astype(int).tolist(), int(y)) for r, y in zip(*bundle, strict=True)}
    assert labelled[0] | labelled[1] == whole
    assert not labelled[0] & labelled[1]


def test_training_digits_have_mean_0_and_deviation_1():
    images = data.load("digits").train_images
    assert abs(images.mean()) < 1e-3
    assert abs(images.std() - 1) < 1e-3


def test_limits_without_a_seed_take_the_first_of_each_part():
    whole, part = data.load("digits"), data.load("digits", limit=7, train_limit=5, seed=None)
    np.testing.assert_array_equal(part.test_images, whole.test_images[:7])
    np.testing.assert_array_equal(part.train_labels, whole.train_labels[:5])


def test_limits_take_images_of_every_class():
    whole, part = data.load("digits"), data.load("digits", limit=40, train_limit=70)
    assert set(np.bincount(part.test_labels)) <= {3, 4, 5}
    assert set(np.bincount(part.train_labels)) <= {6, 7, 8}
    own = {(*image.ravel().tolist(), int(label)) for image, label in zip(*part[1:3], strict=True)}
    every = {(*image.ravel().tolist(), int(label)) for image, label in zip(*whole[1:3], strict=True)}
    assert own <= every
    other = data.load("digits", limit=40, seed=1)
    assert not np.array_equal(other.test_images, part.test_images)


@pytest.fixture
def archive(tmp_path: Path):
    def write(**arrays) -> Path:
        path = tmp_path / "own.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_npz_normalises_by_channel(archive):
    images = np.arange(2 * 2 * 3 * 2, dtype=np.uint8).reshape(2, 2, 3, 2)
    path = archive(images=images, labels=np.array([0, 4]))
    held = data.load("npz", path, mean=(0.25, 0.5), std=(2.0, 4.0), layout="channels_last")
    for channel, (mean, std) in enumerate([(0.25, 2.0), (0.5, 4.0)]):
        truth = (images[..., channel].astype(np.float64) / 255 - mean) / std
        np.testing.assert_array_equal(held.test_images[..., channel], truth.astype(np.float32))
    assert held.test_labels.tolist() == [0, 4]
    assert held.classes == 5
    assert len(held.train_images) == len(held.train_labels) == 0
    assert held.train_images.shape == (0, 2, 3, 2)


def test_npz_with_two_parts_and_floats(archive):
    rng = np.random.default_rng(0)
    train, test = rng.random((5, 3)), rng.random((2, 3))
    path = archive(x_train=train, y_train=np.arange(5)[:, None], x_test=test, y_test=np.array([1, 0]))
    held = data.load("npz", path)
    np.testing.assert_array_equal(held.train_images, train.astype(np.float32))
    assert (held.classes, held.shape, held.std.tolist()) == (5, (3,), [1.0, 1.0, 1.0])


def test_an_excerpt_of_a_known_set_has_its_classes(archive):
    path = archive(images=np.zeros((3, 28, 28), np.uint8), labels=np.array([0, 2, 1]))
    assert data.load("mnist", path).classes == 10
    assert data.load("npz", path).classes == 3


LAYOUTS = {  # name: (shape of an image in the file, the layout named, shape as networks read it)
    "colour, last": ((32, 32, 3), None, (32, 32, 3)),
    "colour, first": ((3, 32, 32), None, (32, 32, 3)),
    "colour, first, not square": ((3, 20, 30), None, (20, 30, 3)),
    "one channel, first": ((1, 28, 28), None, (28, 28, 1)),
    "grey": ((28, 28), None, (28, 28, 1)),
    "grey, said": ((28, 28), "grey", (28, 28, 1)),
    "a signal with channels": ((28, 5), "channels_last", (28, 5)),
    "a signal, channels first": ((5, 28), "channels_first", (28, 5)),
    "many channels, last": ((8, 8, 16), None, (8, 8, 16)),
    "many channels, first": ((16, 8, 8), None, (8, 8, 16)),
    "small, last": ((4, 4, 1), None, (4, 4, 1)),
    "either, said": ((3, 3, 3), "channels_first", (3, 3, 3)),
    "flat": ((64,), None, (64,)),
}


@pytest.mark.parametrize("shape, layout, wanted", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_channels_of_an_npz_file_end_last(archive, shape, layout, wanted):
    images = np.random.default_rng(0).random((2, *shape))
    held = data.load("npz", archive(images=images, labels=np.arange(2)), layout=layout)
    assert held.shape == wanted
    first = (shape != wanted and len(shape) == len(wanted)) or layout == "channels_first"
    truth = np.stack([images[:, c] for c in range(shape[0])], -1) if first else images.reshape(2, *wanted)
    np.testing.assert_array_equal(held.test_images, truth.astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 28, 1), (32, 32, 32), (5, 7, 9), (3, 20, 4)])
def test_a_layout_that_may_be_either_is_asked_for(archive, shape):
    path = archive(images=np.zeros((2, *shape)), labels=np.arange(2))
    with pytest.raises(
        ValueError, match=r"channels\? Say layout=channels_last or .*data\.layout\)"
    ) as raised:
        data.load("npz", path)
    assert "\n" not in str(raised.value)


def test_the_number_of_classes_may_be_said(archive):
    path = archive(images=np.zeros((3, 4)), labels=np.array([0, 2, 1]))
    assert data.load("npz", path).classes == 3
    held = data.load("npz", path, classes=10)
    assert held.classes == 10
    assert held.accuracy(np.eye(10)[[0, 2, 5]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"npz has labels up to 2, so at least 3, got 2"):
        data.load("npz", path, classes=2)
    with pytest.raises(ValueError, match=r"labels up to 2, and the network has 2 outputs"):
        held.accuracy(np.zeros((3, 2)))


def test_calibration_images_are_training_images():
    held = data.load("digits", train_limit=9)
    np.testing.assert_array_equal(held.calibration(4), held.train_images[:4])
    assert len(held.calibration(0)) == 0
    with pytest.raises(ValueError, match=r"10 calibration images asked of digits, which has 9"):
        held.calibration(10)


BAD = {  # behaviour: (arguments of load, their keywords, error, message)
    "unknown name": (("imagenette",), {}, ValueError, r"data 'imagenette' is unknown: choose one of digits"),
    "limit": (("digits",), {"limit": 0}, ValueError, r"data limit must be at least 1 .* got 0"),
    "negative limit": (("digits",), {"train_limit": -1}, ValueError, r"train_limit .* got -1"),
    "seed": (("digits",), {"seed": -1}, ValueError, r"data seed must be at least 0 .* got -1"),
    "mean": (("digits",), {"mean": (1, 2)}, ValueError, r"data mean needs 1 finite numbers.* \(1, 2\)"),
    "not finite": (("digits",), {"mean": (float("nan"),)}, ValueError, r"data mean needs 1 finite"),
    "std": (("digits",), {"std": (0.0,)}, ValueError, r"data std must be positive, got \[0.0\]"),
    "npz without a file": (("npz",), {}, ValueError, r"data npz needs a file"),
    "layout": (("digits",), {"layout": "nchw"}, ValueError, r"layout 'nchw' is unknown: choose one of"),
    "classes": (("digits",), {"classes": 0}, ValueError, r"data classes must be at least 1"),
    "absent file": (("npz", "none.npz"), {}, FileNotFoundError, r"data file none\.npz is not there"),
}  # fmt: skip


@pytest.mark.parametrize("arguments, keywords, error, message", BAD.values(), ids=BAD.keys())
def test_bad_fields_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=message) as raised:
        data.load(*arguments, **keywords)
    assert "\n" not in str(raised.value)


IMAGES, LABELS = np.zeros((2, 4), np.uint8), np.array([0, 1])
ARCHIVES = {
    "other keys": ({"a": IMAGES}, r"holds a: expected test_images and test_labels"),
    "lengths differ": (
        {"images": IMAGES, "labels": np.array([1])},
        r"\(2, 4\) and labels \(1,\) must",
    ),
    "no image": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"with n >= 1"),
    "labels whole, but floats": (
        {"images": IMAGES, "labels": LABELS * 1.0},
        r"may be classes or numbers: say",
    ),
    "labels one hot": (
        {"images": IMAGES, "labels": np.eye(2)},
        r"labels \(2, 2\) of float64 may be classes or",
    ),
    "labels with names": ({"images": IMAGES, "labels": np.array(["a", "b"])}, r"integers or floats, got <U1"),
    "labels not finite": ({"images": IMAGES, "labels": LABELS + np.nan}, r"labels must be finite numbers"),
    "labels below 0": ({"images": IMAGES, "labels": LABELS - 1}, r"labels must be integers"),
    "images not scaled": ({"images": IMAGES + 2.0, "labels": LABELS}, r"got values from 2 to 2"),
    "NaN": ({"images": IMAGES + np.nan, "labels": LABELS}, r"got values from nan to nan"),
    "wide integers": (
        {"images": IMAGES.astype(int), "labels": LABELS},
        r"must be uint8, floats, or int16 of signals",
    ),
    "parts differ": (
        {
            "train_images": IMAGES[:, :3],
            "train_labels": LABELS,
            "test_images": IMAGES,
            "test_labels": LABELS,
        },
        r"training images \(3,\) and test images \(4,\) differ",
    ),
    "pickled": (
        {"images": np.array([{}], object), "labels": LABELS[:1]},
        r"cannot be read as \.npz",
    ),
}


@pytest.mark.parametrize("arrays, message", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_bad_archives_are_named(archive, arrays, message):
    path = archive(**arrays)
    with pytest.raises(ValueError, match=message) as raised:
        data.load("npz", path)
    assert str(raised.value).startswith(f"data file {path}")
    assert "\n" not in str(raised.value)


def test_damaged_archives_are_named(tmp_path: Path):
    path = tmp_path / "x.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    for content in (b"", b"text", path.read_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz (is not an \.npz file|cannot be read)"):
            data.load("npz", path)


def test_an_absent_folder_says_what_to_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as raised:
        data.load("cifar10", tmp_path)
    message = str(raised.value)
    assert message.startswith(f"cifar10 is not in {tmp_path}")
    assert f"python -m slth.data cifar10 --dir {tmp_path}`" in message
    assert "\n" not in message


@pytest.mark.parametrize("given", ["sets/cifar10", "sets/cifar10/3.0.2", "."])
def test_a_folder_too_deep_or_too_shallow_says_which_is_meant(tmp_path: Path, data_dir: Path, given: str):
    shutil.copytree(data_dir / "tensorflow_datasets", tmp_path / "sets")
    with pytest.raises(FileNotFoundError, match=rf": the folder to name is {tmp_path}/sets$"):
        data.load("cifar10", tmp_path / given)


def test_another_format_says_what_to_run(tmp_path: Path, data_dir: Path):
    whole = data_dir / "tensorflow_datasets" / "cifar10" / "3.0.2"
    copy = tmp_path / "cifar10" / "3.0.2"
    copy.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json", "label.labels.txt"):
        text = (whole / name).read_text(encoding="utf-8")
        (copy / name).write_text(text.replace("array_record", "riegeli"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"prepared as riegeli, which needs TensorFlow to read: run"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("damaged", ["dataset_info.json", "cifar10-test.array_record-00000-of-00001"])
def test_a_damaged_folder_says_what_to_run(tmp_path: Path, data_dir: Path, damaged: str):
    shutil.copytree(data_dir / "tensorflow_datasets", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cifar10" / "3.0.2" / damaged
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()  # the copy may be write-protected
    path.write_bytes(half)
    with pytest.raises(ValueError, match=r"cifar10 in .* cannot be read \(.*\): remove it and run") as raised:
        data.load("cifar10", tmp_path, train_limit=1)
    assert "\n" not in str(raised.value)


def test_cifar10_is_read_without_tensorflow(data_dir: Path, capfd: pytest.CaptureFixture[str]):
    held = data.load("cifar10", data_dir / "tensorflow_datasets", limit=40, train_limit=30)
    assert held.test_images.shape == (40, 32, 32, 3)
    assert held.train_images.shape == (30, 32, 32, 3)
    assert held.classes == 10
    pixels = (held.test_images * held.std + held.mean) * 255
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
    assert pixels.min() > -0.5
    assert pixels.max() < 255.5
    assert "tensorflow" not in sys.modules
    assert "OpenCV" not in "".join(capfd.readouterr())


def test_mnist_is_read_from_a_file_or_its_folder(data_dir: Path):
    held = data.load("mnist", data_dir / "mnist_test.npz", limit=20, seed=None)
    again = data.load("mnist", data_dir, limit=20, seed=None)
    np.testing.assert_array_equal(held.test_images, again.test_images)
    assert held.shape == (28, 28, 1)
    assert held.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert held.test_images.min() == np.float32(-0.1307 / 0.3081)


def test_the_module_loads_nothing_that_it_may_not_need(root: Path):
    program = "import slth.data, sys; print('tensorflow_datasets' in sys.modules, 'sklearn' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False", "False"]


def test_preparing_needs_tensorflow_and_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert main(["cifar10"]) == 1
    assert 'needs TensorFlow (reading does not): pip install -e ".[prepare]"' in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"data 'digits' cannot be prepared"):
        data.prepare("digits")


def test_labels_that_are_numbers_are_told_by_their_type(archive):
    images = np.zeros((4, 3))
    one, two = np.array([0.5, 1, 2, 3]), np.arange(8).reshape(4, 2) / 4
    held = data.load("npz", archive(images=images, labels=one))
    assert (held.task, held.classes, held.outputs) == ("regression", None, (1,))
    np.testing.assert_array_equal(held.test_labels, one[:, None].astype(np.float32))
    held = data.load(
        "npz", archive(train_images=images, train_labels=two, test_images=images, test_labels=two)
    )
    assert (held.outputs, held.test_labels.dtype, held.train_labels.shape) == ((2,), np.float32, (4, 2))
    with pytest.raises(ValueError, match=r"npz have numbers as labels, no classes"):
        held.accuracy(two)
    with pytest.raises(ValueError, match=r"classes: npz has numbers as labels, got 3"):
        data.load("npz", archive(images=images, labels=one), classes=3)


@pytest.mark.parametrize("shape, wanted", [((5, 5), (5, 5, 1)), ((3, 6, 6), (6, 6, 3)), ((1, 9), (9, 1))])
def test_pictures_as_labels_have_their_channels_last(archive, shape, wanted):
    labels = np.random.default_rng(0).random((4, *shape))
    held = data.load("npz", archive(images=np.zeros((4, 8, 8)), labels=labels))
    assert held.outputs == wanted
    moved = np.moveaxis(labels, 1, -1) if len(shape) == 3 or shape[0] == 1 else labels[..., None]
    np.testing.assert_array_equal(held.test_labels, moved.astype(np.float32))


def test_the_task_of_labels_may_be_said(archive):
    images, labels = np.zeros((4, 3)), np.array([0, 2, 1, 2])
    assert data.load("npz", archive(images=images, labels=labels)).task == "classes"
    held = data.load("npz", archive(images=images, labels=labels), task="regression")
    assert (held.task, held.test_labels[:, 0].tolist()) == ("regression", [0.0, 2.0, 1.0, 2.0])
    for said in (labels * 1.0, np.eye(3)[labels], np.eye(3, dtype=int)[labels]):
        held = data.load("npz", archive(images=images, labels=said), task="classes")
        assert (held.test_labels.tolist(), held.classes) == ([0, 2, 1, 2], 3)
    with pytest.raises(
        ValueError, match=r"labels must be integers 0, 1, .*data\.task=regression\), got float64"
    ):
        data.load("npz", archive(images=images, labels=labels + 0.5), task="classes")
    with pytest.raises(ValueError, match=r"data task: expected one of classes, regression, got 'ranks'"):
        data.load("npz", archive(images=images, labels=labels), task="ranks")  # pyright: ignore


def test_signals_are_floats_from_minus_1_to_1_or_16_bits(archive):
    numbers = np.array([[-32768, 0, 16384], [1, 2, 3]], np.int16)
    for shape in ((2, 1, 3), (2, 3, 1)):
        held = data.load("npz", archive(images=numbers.reshape(shape), labels=np.arange(2)))
        assert (held.shape, held.low, held.high) == ((3, 1), -1.0, 1.0)
        np.testing.assert_array_equal(held.test_images[0, :, 0], [-1.0, 0.0, 0.5])
    held = data.load("npz", archive(images=numbers / 2.0**15, labels=np.arange(2)), layout="grey")
    assert (held.shape, held.low) == ((3, 1), -1.0)
    flat = archive(images=numbers / 2.0**15, labels=np.arange(2))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\] .*data\.low.* got values from -1 to 0\.5"):
        data.load("npz", flat)
    assert data.load("npz", flat, low=-2).low == -2
    with pytest.raises(ValueError, match=r"data low must be below data high, got 2 and 1"):
        data.load("npz", flat, low=2)


def test_a_file_may_hold_mean_and_deviation(archive):
    path = archive(
        images=np.full((2, 4, 4, 3), 0.5), labels=np.arange(2), mean=np.array([0.5, 0.25, 0]), std=0.5
    )
    held = data.load("npz", path)
    np.testing.assert_allclose(held.test_images[0, 0, 0], [0, 0.5, 1])
    np.testing.assert_allclose(data.load("npz", path, mean=(0,), std=(1,)).test_images, 0.5)
    assert data.load("npz", path).std.tolist() == [0.5, 0.5, 0.5]
