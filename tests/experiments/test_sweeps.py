"""Depth and width: the points are ticket runs, and the tables and figures say what those say."""

import csv
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments import depth, width
from experiments.points import metrics_of, point
from experiments.run_folder import execute

SMALL = (
    "data.limit=60",
    "data.train_limit=256",
    "target=digits_cnn",
    "target.width=3",
    "train.epochs=4",
    "solver.calibration=32",
    "~solvers.compensated",
    "~solvers.smallest",
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def config(root: Path, name: str, folder: Path, *overrides: str):
    with initialize_config_dir(str(root / "conf"), version_base=None):
        return compose(name, [f"output_dir={folder}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def test_width_has_a_point_for_each_solver_and_multiplicity(root: Path, outputs: Path):
    cfg = config(root, "width", outputs, "multiplicities=[2,6]")
    folder = execute(width.run, cfg, "width")
    rows = rows_of(folder / "width.csv")
    assert [(r["solver"], r["multiplicity"]) for r in rows] == [
        *(("best", "2"), ("robust", "2"), ("best", "6"), ("robust", "6"))
    ]
    for row in rows:
        metrics = metrics_of(point(cfg, row["solver"], 0, int(row["multiplicity"])))  # found, not run again
        assert float(row["accuracy"]) == pytest.approx(metrics["ticket"]["accuracy"], abs=1e-5)
        assert float(row["agreement"]) == pytest.approx(metrics["ticket"]["agreement"], abs=1e-5)
        assert metrics["subset_sum"]["objective"] == row["solver"]
    assert (folder / "width.png").stat().st_size > 10_000
    assert float(rows[3]["mean_error"]) < float(rows[1]["mean_error"]), "wider is better"


def test_depth_has_the_errors_of_every_layer(root: Path, outputs: Path):
    cfg = config(root, "depth", outputs, "source.multiplicity=6")
    folder = execute(depth.run, cfg, "depth")
    rows = rows_of(folder / "depth.csv")
    for solver in ("best", "robust"):
        own = rows_of(point(cfg, solver, 0, 6) / "layers.csv")
        mine = [row for row in rows if row["solver"] == solver]
        assert [row["layer"] for row in mine] == [row["layer"] for row in own]
        assert [row["copy_error_test"] for row in mine] == [row["copy_error_test"] for row in own]
    assert (folder / "depth.png").stat().st_size > 10_000
