"""Runs killed at any time and started again end with the ticket of an undisturbed run, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SETTINGS = ("data.limit=60", "target=digits_resnet", "solver=compensated", "source.multiplicity=8")


def start(
    root: Path, folder: Path, *overrides: str, settings: tuple[str, ...] = SETTINGS
) -> subprocess.Popen[str]:
    """``python -m experiments.ticket`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.ticket", f"output_dir={folder}", *settings, *overrides],
        cwd=root,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background shell
    )


def finish(process: subprocess.Popen[str]) -> tuple[Path, str]:
    """The run's folder, and what it said."""
    out, said = process.communicate()
    assert process.returncode == 0, said[-2000:]
    return Path(out.splitlines()[-1]), said


def kill_after(process: subprocess.Popen[str], folder: Path, count: int, kept: str = "node*") -> None:
    """SIGKILL as soon as the run keeps so many files of its construction (or of what else), or has ended."""
    while process.poll() is None and len(list(folder.glob(f"ticket/.*/*/{kept}"))) < count:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_runs_end_with_the_same_ticket(root: Path, tmp_path: Path):
    trained, _ = finish(start(root, tmp_path / "trained"))
    target = f"target.checkpoint={trained / 'target.safetensors'}"
    whole, _ = finish(start(root, tmp_path / "whole", target))
    for attempt, stops in enumerate([(1, 4, 6)]):
        folder = tmp_path / f"killed{attempt}"
        for nodes in stops:
            kill_after(start(root, folder, target), folder, nodes)
        found, said = finish(start(root, folder, target))
        assert "took over" in said
        assert (found / "ticket.safetensors").read_bytes() == (whole / "ticket.safetensors").read_bytes()
        assert {path.name for path in found.iterdir()} == {path.name for path in whole.iterdir()}
        assert [path.name for path in found.parent.iterdir()] == [found.name]


LONG = (
    *("data.limit=300", "data.train_limit=200", "target=mlp", "target.widths=[16]", "train.epochs=20"),
    *("solver=independent", "solver.objective=best", "source.multiplicity=3"),
    *("evaluation.batch=1", "evaluation.layers=100", "evaluation.images=250"),
)
REFINED = ("refine.steps=100", "refine.batch=16", "refine.images=200", "refine.rate=0.01")


def numbers(folder: Path) -> dict:
    """The metrics without what depends on the clock and on who did what."""
    metrics = json.loads((folder / "metrics.json").read_text())
    apart = {"images_per_second", "taken_over"}
    about = {name: value for name, value in metrics["evaluation"].items() if name not in apart}
    return {k: v for k, v in metrics.items() if k not in ("seconds", "memory")} | {"evaluation": about}


def test_runs_killed_in_refinement_and_evaluation_end_with_the_same_numbers(root: Path, tmp_path: Path):
    begin = partial(start, root, settings=(*LONG, *REFINED))
    whole, _ = finish(begin(tmp_path / "whole"))
    folder = tmp_path / "killed"
    for count, files in ((1, "refinement.safetensors"), (1, "*/from*"), (2, "*/from*")):
        kill_after(begin(folder), folder, count, files)
    assert list(folder.glob("ticket/.*/evaluation/*/from*")), "killed before it was done"
    found, said = finish(begin(folder))
    assert "refinement: took over 100 of 100 steps" in said
    assert "images from a run that was broken off" in said
    assert numbers(found) == numbers(whole)
    assert numbers(found)["refinement"]["changed"] > 0
    names = ("ticket.safetensors", "target.safetensors")
    assert all((found / name).read_bytes() == (whole / name).read_bytes() for name in names)
    assert {path.name for path in found.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize(
    "stage, kept",
    [("prepare", "target/*/training.safetensors"), ("evaluate", "ticket/.*/evaluation/*/from*")],
)
def test_ctrl_c_names_the_stage_and_what_is_kept(root: Path, tmp_path: Path, stage: str, kept: str):
    process = start(root, tmp_path, settings=("train.epochs=4000",) if stage == "prepare" else LONG)
    while process.poll() is None and not list(tmp_path.glob(kept)):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said[-2000:]
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("interrupted")]
    assert line.startswith(f"interrupted in the stage {stage}: ")
    assert line.endswith(f"kept in {tmp_path / 'ticket'}: the same command goes on")
