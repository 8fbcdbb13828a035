"""Run folders: a name for each content of the settings and of the files that they name."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from omegaconf import OmegaConf

from experiments.run_folder import config_hash, execute, read_by
from experiments.targets import data_of, target_of
from tests.experiments.test_compose import composed
from tests.interop.onnx_nets import Net


def counted(tmp_path: Path, **settings):
    """How often a run with these settings is computed, and where it ends."""
    runs = []

    def run(cfg, folder):
        runs.append(1)
        return {"runs": len(runs)}

    cfg = OmegaConf.create({"output_dir": str(tmp_path / "runs"), **settings})
    return runs, lambda: execute(run, cfg, "x")


NAMED = {  # setting: (settings of a run, the file that is changed)
    "checkpoint": ({"target": {"checkpoint": "{dir}/net.npz"}}, "net.npz"),
    "checkpoint that is a folder": ({"target": {"checkpoint": "{dir}/net"}}, "net/1/array"),
    "file of data": ({"data": {"name": "npz", "dir": "{dir}/data.npz"}}, "data.npz"),
    "folder of mnist": ({"data": {"name": "mnist", "dir": "{dir}"}}, "mnist_test.npz"),
    "prepared folder": ({"data": {"name": "cifar10", "dir": "{dir}"}}, "cifar10/3.0.2/test"),
    "targets": ({"targets": "{dir}/weights.npz"}, "weights.npz"),
}


@pytest.mark.parametrize("settings, file", NAMED.values(), ids=NAMED.keys())
def test_a_file_overwritten_at_its_path_is_another_run(tmp_path: Path, settings, file: str):
    def filled(value):
        return (
            {k: filled(v) for k, v in value.items()}
            if isinstance(value, dict)
            else value.format(dir=tmp_path)
        )

    runs, go = counted(tmp_path, **filled(settings))
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"first")
    first = go()
    assert go() == first
    assert len(runs) == 1
    path.write_bytes(b"other")  # as long as before
    other = go()
    assert (other != first, len(runs)) == (True, 2)
    path.write_bytes(b"first")
    assert go() == first
    assert len(runs) == 2


def test_settings_of_what_has_no_recorded_defaults_are_hashed_alone():
    cfg = OmegaConf.create({"b": 1, "a": [2], "targets": "uniform", "output_dir": "here", "force": True})
    assert config_hash(cfg, "x") == config_hash(
        OmegaConf.create({"targets": "uniform", "a": [2], "b": 1}), "x"
    )
    # sha256 of {"a": [2], "b": 1, "targets": "uniform"}
    assert config_hash(cfg, "x") == "42e268d764f5"


def test_a_target_is_trained_again_on_other_images(tmp_path: Path):
    path, found = tmp_path / "own.npz", []
    for seed in (0, 1, 0):
        images = np.random.default_rng(seed).random((20, 4, 4))
        labels = np.arange(20) % 3
        np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
        cfg, _, _ = composed(
            "data=npz", f"data.dir={path}", "train.epochs=1", "target.widths=[4]", f"output_dir={tmp_path}"
        )
        (folder := tmp_path / "run").mkdir(exist_ok=True)
        found.append(target_of(cfg, data_of(cfg), folder).target.params["linear"]["kernel"])
        shutil.rmtree(folder)
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 0
    assert len(list((tmp_path / "target").iterdir())) == 2


def test_tensors_beside_an_onnx_file_are_part_of_it(tmp_path: Path):
    net, path = Net((4,)), tmp_path / "net.onnx"
    model = net.model(net.dense("x", 4, 3), (3,))
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    cfg = OmegaConf.create({"target": {"checkpoint": str(path)}})
    assert read_by(cfg) == {"target.checkpoint": [path, tmp_path / "net.data"]}
    path.write_bytes(b"damaged")
    assert read_by(cfg) == {"target.checkpoint": [path]}
