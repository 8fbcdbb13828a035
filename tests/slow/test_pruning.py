"""Grounds that take a training or a construction, and a sweep of runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import when_do_pruners_succeed
from experiments.grounds import ground_of
from experiments.points import metrics_of
from experiments.run_folder import execute
from slth import planting, pruning
from tests.experiments.test_pruning import composed, sweep

pytestmark = pytest.mark.slow


def test_constructed_tickets_of_written_down_targets_are_grounds(tmp_path: Path):
    options = ("planted.kind=constructed", "planted.of=relu", "planted.density=null", "source.multiplicity=6")
    cfg = composed(*options, "+planted.options.depth=2", "samples.train=300", "solver=independent")
    ground = ground_of(cfg, tmp_path)
    assert ground.planted is not None
    assert ground.planted.kind == "constructed L+1"
    score = planting.score(ground.planted(ground.data.test_images), ground.data.test_labels)
    assert score > 0.99


def test_a_trained_target_is_pruned_and_planted_exactly(tmp_path: Path):
    cfg = composed(
        *("planted.kind=trained", "planted.density=0.05", "planted.own_density=0.5", "target.widths=[6]"),
        *("data.train_limit=256", "train.epochs=1", f"output_dir={tmp_path}"),
    )
    ground = ground_of(cfg, tmp_path)
    assert ground.planted is not None
    target = ground.planted.target
    own = pruning.kernels(target.network, target.params)
    assert sum(np.count_nonzero(w) for w in own.values()) == ground.planted.kept == round(0.5 * (64 * 6 + 60))
    images = ground.data.test_images[:20]
    assert np.abs(ground.planted(images) - target(images)).max() < 1e-4


def test_a_sweep_is_its_runs(tmp_path: Path):
    cfg = sweep(tmp_path)
    folder = execute(when_do_pruners_succeed.run, cfg, "when_do_pruners_succeed")
    with open(folder / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2
    for row in rows:
        own = json.loads((tmp_path / "prune" / row["run"] / "metrics.json").read_text())
        assert float(row["jaccard"]) == pytest.approx(own["overlap"]["jaccard"], abs=1e-5)
        assert float(row["gap"]) == pytest.approx(own["planted"]["score"] - own["found"]["score"], abs=1e-5)
    densities = {(row["ground"], row["density"]): float(row["planted_density"]) for row in rows}
    assert densities["seen", "0.15"] == densities["seen", "0.3"], "planted once, pruned to every density"
    assert densities["circle", "0.15"] < densities["circle", "0.3"]
    means = {(row["ground"], row["density"], row["pruner"]): row for row in metrics_of(folder)["means"]}
    assert means["seen", 0.3, "told"]["recall"] > 0.9, "large weights are found by their size"
    assert means["circle", 0.3, "told"]["recall"] < 0.6
    pair = [
        float(row["score"])
        for row in rows
        if (row["ground"], row["density"], row["pruner"]) == ("circle", "0.3", "random")
    ]
    assert means["circle", 0.3, "random"]["score"] == pytest.approx(np.mean(pair), abs=1e-5)
    for name in ("strong.png", "overlap.png"):
        assert (folder / name).stat().st_size > 10_000
