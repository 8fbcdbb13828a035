"""The main job from its command line, on the embedded digits and a small target."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import ticket as experiment
from slth import Ticket, nn
from slth.nn.prune import count_channels
from tests.experiments.commands import command

SMALL = (
    "data.limit=60",
    "data.train_limit=256",
    "target=digits_cnn",
    "target.width=3",
    "train.epochs=8",
    "source.multiplicity=10",
)
CONTRACT = {
    "target": {"task", "name", "accuracy", "rmse", "r2", "parameters", "nonzero", "activation", "depth"},
    "source": {
        *("parameters", "depth", "multiplicity", "init", "scale", "knows_target", "seed", "sha256"),
        *("scales", "presence", "present", "biases"),
    },
    "ticket": {
        *(
            "accuracy",
            "rmse",
            "r2",
            "accuracy_interval",
            "nonzero",
            "density",
            "agreement",
            "channels",
            "channels_kept",
            "constants_kept",
        ),
    },
    "subset_sum": {
        *("method", "objective", "tolerance", "calibration", "problems", "unsolved", "deviating"),
        *("mean_size", "mean_error", "max_error"),
    },
    "error": {"max", "mean", "relative", "rmse", "r2", "examples"},
    "certificate": {"bound", "holds", "domain", "certified_fraction"},
    "theorem": {"epsilon", "delta", "required_multiplicity", "C", "satisfied"},
    "seconds": {"train", "construct", "certify", "evaluate", "total"},
    "evaluation": {"images", "of", "target_accuracy", "form", "multiply_adds", "difference", "taken_over"},
    "memory": {"prepare", "construct", "evaluate", "report"},
    "environment": {"jax", "python", "device", "precision", "slth"},
}


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small run."""
    done = command(root, f"output_dir={tmp_path_factory.mktemp('runs')}", *SMALL)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_the_guide_explains_every_number(root: Path, finished: Path):
    rows = [
        line.split(" | ") for line in (root / "docs" / "metrics.md").read_text().splitlines() if "|" in line
    ]
    explained: dict[str, set[str]] = {}
    section: list[str] = []
    for row in rows:
        section = re.findall(r"`(\w+)`", row[0]) or section
        for name in section:
            explained.setdefault(name, set()).update(re.findall(r"`(\w+)`", row[1]) if len(row) > 1 else ())
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) <= set(explained)
    stages = ("seconds", "memory", "refinement")  # by stage, or of docs/bits.md
    missing = {
        (name, field)
        for name, section in metrics.items()
        if name not in stages
        for field in section
        if field not in explained[name]
    }
    assert missing == set()


def test_the_last_line_is_a_folder_with_everything_in_it(finished: Path):
    names = {path.name for path in finished.iterdir()}
    pictures = {"logits.png", "layers.png", "sizes.png", "kernels.png"}
    files = {
        "config.yaml",
        "metrics.json",
        "ticket.safetensors",
        "target.safetensors",
        "layers.csv",
        "log.txt",
        "report.html",
    }
    assert names == files | pictures
    assert all((finished / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_metrics_keep_the_contract(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {name: sorted(fields - set(metrics[name])) for name, fields in CONTRACT.items()} == {
        name: [] for name in CONTRACT
    }
    assert set(metrics["certificate"].values()) == set(metrics["theorem"].values()) == {None}
    assert metrics["error"]["examples"] == 60
    assert metrics["subset_sum"]["calibration"] == 256
    assert metrics["source"]["knows_target"] is False


def test_metrics_and_layers_follow_from_the_ticket_file(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    kept = Ticket.load(finished / "ticket.safetensors")
    assert metrics["ticket"]["nonzero"] == kept.nonzero
    assert metrics["ticket"]["density"] == pytest.approx(kept.nonzero / metrics["source"]["parameters"])
    counts = count_channels(kept.source.network, kept.mask)
    assert counts == tuple(metrics["ticket"][f] for f in ("channels", "channels_kept", "constants_kept"))
    assert 0 < counts.constants < counts.kept < counts.channels
    with open(finished / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "linear"]
    for total in ("problems", "unsolved", "deviating"):
        assert sum(int(row[total]) for row in rows) == metrics["subset_sum"][total]
    assert all(0 <= float(row["copy_error_test"]) < 1 for row in rows)


def test_the_ticket_computes_the_trained_target(finished: Path):
    from slth.data import load
    from slth.interop import load_checkpoint
    from slth.nn.zoo import build

    metrics = json.loads((finished / "metrics.json").read_text())
    data = load("digits", limit=60)
    spec = build("digits_cnn", (8, 8, 1), 10, width=3)
    wanted = nn.apply(spec, load_checkpoint(finished / "target.safetensors", spec), data.test_images)
    kept = Ticket.load(finished / "ticket.safetensors")
    found = kept(data.test_images)
    error = np.abs(found - np.asarray(wanted))
    assert error.max() == pytest.approx(metrics["error"]["max"], rel=1e-3)
    agreement = (found.argmax(1) == np.asarray(wanted).argmax(1)).mean()
    assert agreement == pytest.approx(metrics["ticket"]["agreement"])
    assert agreement > 0.9


def test_equal_settings_are_skipped(root: Path, finished: Path):
    before = (finished / "metrics.json").stat().st_mtime_ns
    assert command(root, f"output_dir={finished.parents[1]}", *SMALL).stdout.splitlines() == [str(finished)]
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_scales_read_off_the_target_are_said_to_be(root: Path, finished: Path):
    lines = command(root, f"output_dir={finished.parents[1]}", *SMALL, "source=target_scaled").stdout
    folder = Path(lines.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["source"]["knows_target"] is True
    assert metrics["ticket"]["agreement"] > 0.9
    assert len(Ticket.load(folder / "ticket.safetensors").source.scales) == 3


def test_the_same_run_elsewhere_gives_equal_bytes(root: Path, finished: Path, tmp_path: Path):
    folder = Path(command(root, f"output_dir={tmp_path}", *SMALL).stdout.splitlines()[-1])
    assert folder.name == finished.name
    assert (folder / "ticket.safetensors").read_bytes() == (finished / "ticket.safetensors").read_bytes()


BAD = {  # what is wrong: (overrides, what the one line names)
    "unknown target": (["target=foo"], "target/foo"),
    "m = 0": (["source.multiplicity=0"], "source.multiplicity"),
    "m = 40": (["source.multiplicity=40"], "source.multiplicity"),
    "m = 25 with robust": (["source.multiplicity=25"], "source.multiplicity: at most 20"),
    "checkpoint that does not fit": (["target.checkpoint={run}/ticket.safetensors"], "target.checkpoint"),
    "no checkpoint": (["target.checkpoint=gone.npz"], "target.checkpoint"),
    "no data": (["data=cifar10", "data.dir={run}"], "data.dir"),
    "unknown key": (["source.foo=1"], "source.foo"),
    "appended key": (
        ["+solver.sweeps=2"],
        "solver.sweeps: there is no such setting: did you mean solver.c",
    ),
    "appended key, far from all": (["+source.foo=1"], "source.foo: there is no such setting"),
    "appended within": (["+solver.rounding.rates=1"], "did you mean solver.rounding.rate?"),
    "unknown objective": (["solver.objective=worst"], "solver.objective"),
    "too much calibration": (["solver.calibration=5000"], "solver.calibration"),
    "negative scale": (["source.scale=-1"], "source.scale"),
    "no probability": (["source.presence=0"], "source.presence"),
    "unknown biases": (["source.biases=some"], "source.biases"),
    "no scales": (["source.scales=2"], "source.scales"),
    "an option of another solver": (["solver.compensation.sweeps=2"], "solver.compensation.sweeps: means"),
    "a price of nothing": (["solver.objective=best", "solver.price=0.1"], "solver.price: means nothing"),
    "no calibration": (["solver.calibration=0"], "solver.calibration: Robust needs training images"),
    "scales of no layer": (["source.scales={{foo*:2}}"], "source.scales: 'foo*' fits no layer"),
    "a scale below 0": (["source.scales={{conv1:-2}}"], "source.scales: expected pairs"),
    "too many to refine on": (["refine.steps=5", "refine.images=5000"], "refine.images: 5000"),
    "no batch to refine on": (["refine.steps=5", "refine.batch=null"], "refine.batch: expected a number"),
    "no fit": (["solver.fit=0"], "solver.fit: expected a positive number, got 0"),
    "no batch": (["evaluation.batch=null"], "evaluation.batch: expected a value, got null"),
    "more images than there are": (
        ["data.limit=60", "evaluation.images=70"],
        "evaluation.images: 70 asked of digits, which has 60",
    ),
    "unknown form": (
        ["evaluation.form=thin"],
        "evaluation.form: 'thin' is unknown: choose one of compact, dense",
    ),
    "no form": (["evaluation.form=null"], "evaluation.form: expected a value, got null"),
    "no layers": (["evaluation.layers=null"], "evaluation.layers: expected a value, got null"),
    "no multiplicity": (["source.multiplicity=null"], "source.multiplicity: expected a value, got null"),
}


# Many command lines in one interpreter, which takes seconds to start.
MANY = """
import contextlib, io, json, os, sys
from experiments import ticket
from experiments.command_line import main
found = []
for overrides in json.loads(sys.argv[1]):
    os.environ.pop("HYDRA_FULL_ERROR", None)  # set by the call before
    sys.argv, out, code = ["ticket", *overrides], io.StringIO(), 0
    with contextlib.redirect_stderr(out):
        try:
            main(ticket.run, "ticket")
        except SystemExit as stopped:
            code = stopped.code
    found.append((code, out.getvalue().splitlines()))
print(json.dumps(found))
"""


def test_each_bad_setting_gives_one_line_that_names_it(root: Path, finished: Path, tmp_path: Path):
    given = [[one.format(run=finished) for one in overrides] for overrides, _ in BAD.values()]
    lines = json.dumps([[f"output_dir={tmp_path}", *overrides] for overrides in given])
    done = subprocess.run(
        [sys.executable, "-c", MANY, lines], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(BAD, json.loads(done.stdout.splitlines()[-1]), strict=True))
    wrong = {
        name: (code, said)
        for name, (code, said) in found.items()
        if code != 2 or len(said) != 1 or not said[0].startswith("error: ") or BAD[name][1] not in said[0]
    }
    assert wrong == {}
    assert list(tmp_path.rglob("metrics.json")) == []
    assert list(tmp_path.glob("target/*")) == []  # nothing was trained before it was refused


def test_a_run_broken_in_the_middle_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from hydra import compose, initialize_config_dir

    from experiments.command_line import CONF
    from experiments.run_folder import execute, folder_of

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("ticket", [f"output_dir={tmp_path}", *SMALL])

    def broken(*arguments, **named):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(experiment.report, "write_csv", broken)
        with pytest.raises(RuntimeError, match="power cut"):
            execute(experiment.run, cfg, "ticket")
    final = folder_of(cfg, "ticket")
    (left,) = final.parent.iterdir()
    assert left.name == f".{final.name}"
    assert len(list((left / experiment.NODES).iterdir())) == 3
    with caplog.at_level("INFO"):
        folder = execute(experiment.run, cfg, "ticket")
    assert "took over 3 of 3 layers from a run that was broken off" in caplog.messages
    assert [path.name for path in final.parent.iterdir()] == [final.name]
    assert {path.name for path in folder.iterdir()} == {path.name for path in finished.iterdir()}
    assert (folder / "ticket.safetensors").read_bytes() == (finished / "ticket.safetensors").read_bytes()


def test_a_refused_run_leaves_no_folder(tmp_path: Path):
    from hydra import compose, initialize_config_dir

    from experiments.command_line import CONF
    from experiments.run_folder import execute, folder_of

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("ticket", [f"output_dir={tmp_path}", *SMALL, "solver.size=3", "solver=compensated"])
    with pytest.raises(ValueError, match="solver.size: means nothing to Compensated"):
        execute(experiment.run, cfg, "ticket")
    assert list(folder_of(cfg, "ticket").parent.iterdir()) == []
