"""Certificates of a run: domains from the config, sections of the metrics, and what a broken bound does."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from experiments import bounds, ticket
from experiments.certificates import domain_of, draw
from experiments.command_line import CONF
from experiments.run_folder import execute
from slth.certificate import ball, box
from slth.data import load
from slth.report import broken_bound

SMALL = (
    *("data=digits", "data.limit=40", "data.train_limit=128", "target=digits_cnn", "target.width=2"),
    *("train.epochs=4", "solver=independent"),
)


def config(name: str, folder: Path, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [f"output_dir={folder}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_a_run_says_what_is_proved_of_its_ticket(outputs: Path):
    cfg = config("ticket", outputs, "certificate=data+box", "source.multiplicity=12")
    folder = execute(ticket.run, cfg, "ticket")
    metrics = json.loads((folder / "metrics.json").read_text())
    data, whole = metrics["certificates"]
    assert metrics["certificate"] == {k: v for k, v in whole.items() if k != "theorem"}
    assert metrics["theorem"] == whole["theorem"]
    assert (data["domain"], data["tried"]) == ("40 images", 40)
    assert data["error"] == pytest.approx(metrics["error"]["max"])
    for one in (data, whole):
        assert one["holds"] is True
        assert 0 < one["error"] <= one["bound"]
        assert one["bound"] <= one["theorem"]["guaranteed"] + one["slack"]
    assert data["bound"] <= whole["bound"]
    assert metrics["seconds"]["certify"] > 0
    assert broken_bound(metrics) is None
    with open(folder / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Every node's budget is above its errors, or Theorem 2 is not satisfied.
    met = [float(row["max_error"]) <= float(row["budget"]) for row in rows]
    assert [row["budget_met"] for row in rows] == [str(one) for one in met]
    assert metrics["theorem"]["satisfied"] is all(met)
    assert float(rows[-1]["bound"]) > 0
    hidden = [row for row in rows if row["layer"] != "linear"]
    required = metrics["theorem"]["required_multiplicity"]
    features = {"conv1": 2, "conv2": 4}
    assert {row["layer"]: int(row["required_width"]) for row in hidden} == {
        name: required * (count + 1) for name, count in features.items()
    }


def test_a_run_with_two_layers_for_each_has_bounds_and_no_theorem(outputs: Path):
    cfg = config("ticket", outputs, "certificate=data+box", "construction.depth=2L", "source.univariate=8")
    folder = execute(ticket.run, cfg, "ticket")
    metrics = json.loads((folder / "metrics.json").read_text())
    for one in metrics["certificates"]:
        assert one["holds"] is True
        assert 0 < one["error"] <= one["bound"]
        assert set(one["theorem"].values()) == {None}
    with open(folder / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "linear"]
    assert all(float(row["bound"]) > 0 and row["budget"] == "" for row in rows)


def test_held_out_images_say_how_much_they_show(outputs: Path):
    folder = execute(ticket.run, config("ticket", outputs, "source.multiplicity=12"), "ticket")
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["ticket"]["agreement_interval"]
    assert low < metrics["ticket"]["agreement"] <= high
    error = metrics["error"]
    assert error["confidence"] == 0.95
    assert error["share_within_max"] == pytest.approx(0.05 ** (1 / 40))
    assert [one["level"] for one in error["quantiles"]] == [0.5, 0.9, 0.99]
    assert error["quantiles"][-1]["bound"] is None  # 40 images are too few
    assert 0 < error["quantiles"][0]["bound"] <= error["quantiles"][1]["bound"] <= error["max"]
    assert "certificates" not in metrics


BROKEN = """
import os
from experiments import certificates, ticket
from experiments.command_line import main
from slth import report
true = certificates.certify
def wrong(*arguments, **named):
    found = true(*arguments, **named)
    return found._replace(bound=found.bound / 1e6)
certificates.certify = wrong
for _ in range(2):  # the second time the run is found finished
    os.environ.pop("HYDRA_FULL_ERROR", None)
    try:
        main(ticket.run, "ticket", verdict=report.broken_bound)
    except SystemExit as stopped:
        print("exit", stopped.code)
"""


def test_a_bound_that_an_error_exceeds_fails_the_run_and_leaves_its_files(root: Path, tmp_path: Path):
    overrides = [f"output_dir={tmp_path}", *SMALL, "certificate=data", "source.multiplicity=12"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax")}
    run = [sys.executable, "-c", BROKEN, *overrides]
    done = subprocess.run(run, cwd=root, env=environment, capture_output=True, text=True, check=True)
    said = [line for line in done.stderr.splitlines() if "FAILED: certificate of 40 images" in line]
    assert len(said) == 2
    *_, first, once, again, twice = done.stdout.splitlines()
    assert (once, again, twice) == ("exit 1", first, "exit 1")
    folder = Path(first)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["certificate"]["holds"] is False
    assert metrics["certificate"]["violations"] > 0
    assert {"layers.csv", "ticket.safetensors", "config.yaml"} <= {path.name for path in folder.iterdir()}


def test_bounds_by_width_and_objective(outputs: Path):
    sweep = ("multiplicities=[8,12]", "tolerances=[0.01,0.05]", "~solvers.robust", "~solvers.smallest")
    cfg = config("bounds", outputs, *sweep)
    folder = execute(bounds.run, cfg, "bounds")
    assert (folder / "bounds.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "bounds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    points = {(row["solver"], row["tolerance"], row["multiplicity"]) for row in rows}
    assert points == {("best", t, m) for t in ("0.01", "0.05") for m in ("8", "12")}
    for row in rows:
        names = ("error_found", "data_bound", "box_bound", "theorem_epsilon")
        found, data, whole, theorem = (float(row[name]) for name in names)
        assert 0 < found <= data <= whole <= theorem
        assert row["holds"] == "True"
    assert len(json.loads((folder / "metrics.json").read_text())["certificates"]) == 2 * len(rows)


@pytest.mark.parametrize("name", ["box", "ball"])
def test_drawn_inputs_lie_in_the_domain(name: str):
    images = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 2)).astype(np.float32)
    domain = (box(-1, [0.0, 2.0]) if name == "box" else ball(images, 0.1, 0, 1)).check((4, 4, 2))
    x, sets = draw(domain)
    low, high = domain.low[sets], domain.high[sets]
    assert ((low - 1e-6 <= x) & (x <= high + 1e-6)).all()
    corners = np.isclose(x[::2], low[::2], atol=1e-6) | np.isclose(x[::2], high[::2], atol=1e-6)
    assert corners.all()
    assert set(sets) == set(range(len(domain.low)))


def test_the_box_is_the_range_of_the_pixels(outputs: Path):
    data = load("digits", limit=40)
    domain = domain_of(config("ticket", outputs, "certificate=box"), "box", data).check(data.shape)
    assert (domain.low <= data.test_images).all()
    assert (domain.high >= data.test_images).all()
    assert np.isclose(domain.low.min(), data.test_images.min(), atol=1e-6)
    assert np.isclose(domain.high.max(), data.test_images.max(), atol=1e-6)


BAD = {  # what is wrong: (group, override, what is said)
    "unknown domain": ("certificate=box", "certificate.name=sphere", "'sphere' is unknown"),
    "narrow box": ("certificate=box", "certificate.high=0.5", "certificate.low, high: 40 of 40"),
    "negative radius": ("certificate=ball", "certificate.radius=-1", "certificate.radius: expected"),
    "unknown method": ("certificate=box", "certificate.method=magic", "certificate.method: 'magic'"),
    "no epsilon": ("certificate=box", "certificate.epsilon=0", "certificate.epsilon"),
    "certain": ("certificate=box", "certificate.delta=1", "certificate.delta"),
    "no image": ("certificate=data", "certificate.images=0", "certificate.images"),
}


@pytest.mark.parametrize("group, override, said", BAD.values(), ids=BAD.keys())
def test_bad_settings_are_named(outputs: Path, group: str, override: str, said: str):
    with pytest.raises(ValueError, match=said):
        execute(ticket.run, config("ticket", outputs, group, override, "source.multiplicity=2"), "ticket")
