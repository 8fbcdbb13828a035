"""What a bit buys: points are ticket runs, rounded and refined ones too, beside the rounded target."""

import csv
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments import bits
from experiments.points import metrics_of
from experiments.run_folder import execute
from slth import Ticket

SMALL = (
    "data.limit=60",
    "data.train_limit=256",
    "target=digits_cnn",
    "target.width=4",
    "train.epochs=6",
    "solver.calibration=64",
    "tickets.plus_one.points=[{source: {multiplicity: 2, scale: 2}}]",
    "tickets.two_layers.points=[]",
    "tickets.refined.points=[{source: {univariate: 2, scale: 2}, refine: {steps: 30, images: 128}}]",
    "tickets.rounded.points=[{solver: {bits: 1}}, {solver: {bits: 4}}]",
    "quantised.nearest=[4]",
    "quantised.feedback=[4]",
    "rounding_images=64",
)


def config(root: Path, folder: Path, *overrides: str):
    with initialize_config_dir(str(root / "conf"), version_base=None):
        return compose("bits", [f"output_dir={folder}", *SMALL, *overrides])


def test_every_point_is_a_ticket_run_or_a_rounded_target(root: Path, tmp_path: Path):
    folder = execute(bits.run, config(root, tmp_path), "bits")
    with open(folder / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [
        *("L+1", "2L, refined", "2L, rounded", "2L, rounded"),
        *("target rounded, nearest", "target rounded, feedback"),
    ]
    for row in rows[:4]:
        run = tmp_path / "ticket" / row["run"]
        metrics, file = metrics_of(run), run / "ticket.safetensors"
        weights = metrics["target"]["nonzero"]
        assert float(row["bits"]) == pytest.approx(8 * file.stat().st_size / weights, rel=1e-5)
        assert float(row["accuracy"]) == pytest.approx(metrics["ticket"]["accuracy"], abs=1e-5)
    refined, fine = (metrics_of(tmp_path / "ticket" / rows[n]["run"]) for n in (1, 3))
    assert refined["refinement"]["steps"] == 30
    assert refined["refinement"]["after"] <= refined["refinement"]["before"]
    assert fine["refinement"] is None
    assert fine["subset_sum"]["method"] == "rounded"
    assert Ticket.load(tmp_path / "ticket" / rows[3]["run"] / "ticket.safetensors").steps
    assert float(rows[3]["bits"]) - float(rows[2]["bits"]) > 2, "3 bits of entropy apart"
    for name in ("accuracy", "agreement"):
        assert (folder / f"bits_{name}.png").stat().st_size > 10_000
    assert all(math.isfinite(float(row["agreement"])) for row in rows)


def test_a_setting_of_a_point_that_does_not_exist_is_refused(root: Path, tmp_path: Path):
    cfg = config(root, tmp_path, "tickets.rounded.points=[{solver: {bit: 1}}]")
    with pytest.raises(ValueError, match=r"^tickets.rounded: solver.bit: there is no such setting"):
        execute(bits.run, cfg, "bits")
    assert not (tmp_path / "ticket").exists(), "refused before any run"
