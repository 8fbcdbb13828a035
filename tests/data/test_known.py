"""The table of sets: checksums, what is said of an absent set, and the command that prepares one."""

import sys
import types
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from omegaconf import OmegaConf

from slth import data
from slth.data import checksums
from slth.data.__main__ import main
from slth.data.known import KNOWN
from tests.data.originals import idx_files, write


def test_sha256_are_those_that_tfds_publishes():
    published = {}
    for path in Path(tfds.__file__).parent.rglob("*.t*"):
        if path.suffix == ".tsv" or "url_checksums" in path.parts:
            for line in path.read_text(encoding="utf-8").splitlines():
                url, _, sha256, *_ = [*line.split("\t"), "", ""]
                published[url] = sha256
    ours = [
        (name, file, own) for (name, file), (who, own) in checksums.PUBLISHED.items() if who == checksums.TFDS
    ]
    assert len(ours) == 12
    for name, file, own in ours:
        places = {"mnist": "cvdf-datasets/mnist/", "fashion_mnist": "http://fashion-mnist"}.get(name, "")
        assert [sha for url, sha in published.items() if url.endswith(file) and places in url] == [own]


def test_every_file_that_is_downloaded_has_a_checksum():
    for name in ("cifar10", "cifar100"):
        for form in KNOWN[name].formats[2:]:
            assert (name, getattr(form, "archive")) in checksums.PUBLISHED  # noqa: B009
    for name in ("mnist", "fashion_mnist"):
        assert sum(one == name for one, _ in checksums.PUBLISHED) == 4
    assert sum(one == "svhn" for one, _ in checksums.PUBLISHED) == 2


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet"])
def test_an_absent_set_is_said_with_all_that_may_be_there(tmp_path, name):
    with pytest.raises(FileNotFoundError) as raised:
        data.load(name, tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{name} is not in {tmp_path}: expected a folder that TFDS prepared")
    assert f"python -m slth.data {name} --dir {tmp_path}`, or download its files from http" in message
    for form in KNOWN[name].formats:
        assert form.wanted in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet"])
def test_without_a_place_the_folder_of_tfds_is_meant(monkeypatch, tmp_path, name):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in TFDS's folder: expected"):
        data.load(name)


def test_the_folder_of_tfds_is_read_without_a_place(monkeypatch, data_dir):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", data_dir / "tensorflow_datasets")
    assert data.load("cifar10", limit=10, train_limit=1).test_images.shape == (10, 32, 32, 3)


def test_the_command_finds_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checksums, "PUBLISHED", {})
    write(tmp_path, idx_files(60_000, 10_000, False)[0])
    assert main(["mnist", "--dir", str(tmp_path)]) == 0
    assert (
        "has mnist: 60,000 training and 10,000 test images; use it as data=mnist" in capsys.readouterr().out
    )
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert main(["mnist", "--dir", str(tmp_path)]) == 1
    assert "error: data file" in capsys.readouterr().err


class Broken:
    data_path = "x"

    def download_and_prepare(self):
        raise ConnectionError("Max retries exceeded:\n name resolution failed")


def test_without_a_network_the_command_says_what_to_get(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setattr(tfds, "builder", lambda *arguments, **named: Broken())
    assert main(["svhn", "--dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: svhn cannot be downloaded (Max retries exceeded: name resolution failed): without"
    )
    assert "get train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers (on" in said
    assert said.endswith(f"put them into {tmp_path} and use data=svhn data.dir={tmp_path}\n")
    assert said.count("\n") == 1


def test_without_tensorflow_the_command_says_what_to_get(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert main(["cifar100"]) == 1
    said = capsys.readouterr().err
    assert 'pip install -e ".[prepare]", or without either: get cifar-100-binary.tar.gz or its folder' in said
    assert "use data=cifar100 data.dir=DIR" in said


def test_every_set_has_its_settings(root):
    folder = root / "conf" / "data"
    assert {path.stem for path in folder.iterdir()} == set(data.NAMES)
    for name in data.NAMES:
        held = OmegaConf.load(folder / f"{name}.yaml")
        assert held.pop("name") == name
        limits = {"limit": 2000, "train_limit": 512} if name == "imagenet" else {}  # all would take 38 GB
        assert {key: value for key, value in held.items() if value is not None} == {"seed": 0, **limits}
        assert {"dir", "limit", "train_limit", "mean", "std"} <= held.keys()
