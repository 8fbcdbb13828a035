"""Whole runs on signals, and of networks whose outputs are numbers, rows of them, or pictures."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hydra import compose, initialize_config_dir

from experiments import bounds, compare_constructions, ticket, verify, width
from experiments.command_line import CONF
from experiments.run_folder import execute
from slth import Ticket
from slth.data import load
from slth.interop import load_network
from slth.nn import apply
from tests.interop.onnx_nets import Net
from tests.signals import M5, write_tones

pytestmark = pytest.mark.slow

PICTURES = {"logits.png", "layers.png", "sizes.png", "kernels.png"}
MLP = ("target=mlp", "target.widths=[8,8]", "train.rate=0.05", "train.epochs=15")


def ran(name: str, module, folder: Path, *overrides: str) -> tuple[Path, dict]:
    """The folder and the metrics of a run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, [f"output_dir={folder}", *overrides])
    found = execute(module.run, cfg, name)
    return found, json.loads((found / "metrics.json").read_text())


def rows(path: Path, outputs: int | None) -> Path:
    """An .npz file of rows of 4 numbers, and what a network is to compute of each: some numbers, or one."""
    x = np.random.default_rng(0).random((320, 4))
    y = np.stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] - x[:, 3] ** 2], 1)
    y = y[:, 0] if outputs is None else y[:, :outputs]
    parts = {"train_images": x[:256], "train_labels": y[:256], "test_images": x[256:], "test_labels": y[256:]}
    np.savez(path, **parts)
    return path


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_a_net_of_sound_from_its_signals_to_its_export(depth: str, tmp_path: Path):
    tones = write_tones(tmp_path / "tones.npz", train=512, test=96)
    given = ("data=npz", f"data.dir={tones}", *M5)
    overrides = ("train.epochs=10", "certificate=data+box", "refine.steps=5", f"construction.depth={depth}")
    wide = ("source.multiplicity=12",) if depth == "L+1" else ("solver=independent",)
    folder, metrics = ran("ticket", ticket, tmp_path, *given, *overrides, *wide)
    assert metrics["target"]["accuracy"] > 0.95
    assert metrics["ticket"]["agreement"] > 0.95
    assert metrics["error"]["relative"] < 0.1
    assert [one["holds"] for one in metrics["certificates"]] == [True, True]
    assert metrics["certificates"][1]["domain"] == "box [-1, 1]"
    assert {path.name for path in folder.iterdir()} > PICTURES

    checkpoint, small = folder / "target.safetensors", tmp_path / "small.safetensors"
    compared = (f"target.checkpoint={checkpoint}", f"compact={small}")
    _, verified = ran("verify", verify, tmp_path, f"ticket={folder / ticket.FILE}", *given, *compared)
    assert verified["ticket"]["agreement"] == metrics["ticket"]["agreement"]
    # The run has evaluated the compact form, and this verification the whole source: float32 sums differ.
    assert verified["error"]["max"] == pytest.approx(metrics["error"]["max"], rel=0.02)

    kept, images = Ticket.load(folder / ticket.FILE), load("npz", tones).test_images[:16]
    wanted = kept(images)
    network, params, factor = load_network(small)
    np.testing.assert_allclose(
        factor * np.asarray(apply(network, params, images)), wanted, rtol=1e-3, atol=1e-4
    )
    kept.export(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    entry = session.get_inputs()[0]
    (found,) = session.run(None, {entry.name: np.moveaxis(images, -1, 1)})
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("outputs", [None, 2])
def test_a_net_of_numbers_is_told_by_its_errors(outputs: int | None, tmp_path: Path, capsys):
    given = ("data=npz", f"data.dir={rows(tmp_path / 'rows.npz', outputs)}", *MLP)
    folder, metrics = ran(
        "ticket", ticket, tmp_path, *given, "certificate=data+box", "refine.steps=5", "source.multiplicity=10"
    )
    data, kept = load("npz", tmp_path / "rows.npz"), Ticket.load(folder / ticket.FILE)
    off = kept(data.test_images).astype(np.float64) - data.test_labels
    spread = ((data.test_labels - data.test_labels.mean(0, dtype=np.float64)) ** 2).sum()
    assert metrics["target"]["task"] == "regression"
    assert metrics["ticket"]["rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
    assert metrics["ticket"]["r2"] == pytest.approx(1 - (off**2).sum() / spread, rel=1e-4)
    assert (
        metrics["target"]["accuracy"]
        is metrics["ticket"]["accuracy"]
        is metrics["ticket"]["agreement"]
        is None
    )
    assert metrics["error"]["r2"] > 0.95
    assert metrics["error"]["rmse"] <= metrics["error"]["max"]
    for proof in metrics["certificates"]:
        assert proof["holds"]
        assert proof["certified_fraction"] is proof["margin"] is None
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "agreement" not in said
    assert "against the target RMSE" in said

    compared = (f"ticket={folder / ticket.FILE}", f"target.checkpoint={folder / 'target.safetensors'}")
    _, verified = ran("verify", verify, tmp_path, *given[:4], *compared)
    assert verified["ticket"]["r2"] == pytest.approx(metrics["ticket"]["r2"], rel=1e-4)
    assert verified["error"]["r2"] == pytest.approx(metrics["error"]["r2"], rel=1e-4)
    with pytest.raises(ValueError, match=r"^data: images of shape|^data: the labels|^target"):
        ran("verify", verify, tmp_path, f"ticket={folder / ticket.FILE}", "data=digits")


def test_sweeps_of_a_net_of_numbers_draw_errors(tmp_path: Path):
    given = ("data=npz", f"data.dir={rows(tmp_path / 'rows.npz', None)}", *MLP)
    short = ("multiplicities=[5,12]", "seeds=[0]")
    best = ("~solvers.smallest", "~solvers.robust")
    folder, metrics = ran("width", width, tmp_path, *given, *short, *best, "~solvers.compensated")
    assert metrics["target_accuracy"] is None
    errors = [point["relative_error"] for point in metrics["points"]]
    assert errors[0] > errors[1] > 0
    assert (folder / "width.png").read_bytes().startswith(b"\x89PNG")
    folder, metrics = ran("bounds", bounds, tmp_path, *given, *short, *best)
    assert all(point["holds"] and point["data_certified"] is None for point in metrics["points"])
    assert (folder / "bounds.png").read_bytes().startswith(b"\x89PNG")
    others = [
        f"~constructions.{name}" for name in ("malach2020", "pensia2020", "dacunha2021", "burkholz2022_fc")
    ]
    only = ("seeds=[0]", "constructions.burkholz2022.widths=[6]", *others)
    _, metrics = ran("compare_constructions", compare_constructions, tmp_path, *given, *only)
    assert metrics["constructions"][0]["agreement"] is None


def test_a_net_of_pictures_is_told_by_its_errors(tmp_path: Path):
    net = Net((1, 8, 8))
    x = net.add("Relu", net.conv("x", 1, 4, 3, 3, pads=[1] * 4))
    onnx.save(net.model(net.conv(x, 4, 1, 3, 3, pads=[1] * 4)), tmp_path / "net.onnx")
    images = np.random.default_rng(0).random((192, 8, 8))
    parts = {"train_images": images[:128], "train_labels": images[:128] ** 2}
    parts |= {"test_images": images[128:], "test_labels": images[128:] ** 2}
    np.savez(tmp_path / "pictures.npz", **parts)
    given = ("data=npz", f"data.dir={tmp_path / 'pictures.npz'}", "target=file")
    folder, metrics = ran(
        *("ticket", ticket, tmp_path, *given, f"target.checkpoint={tmp_path / 'net.onnx'}"),
        *("certificate=data+box", "data.mean=[0]", "data.std=[1]", "source.multiplicity=12"),
    )
    assert metrics["ticket"]["agreement"] is None
    assert metrics["error"]["r2"] > 0.99
    assert [one["holds"] for one in metrics["certificates"]] == [True, True]
    assert {path.name for path in folder.iterdir()} > PICTURES
