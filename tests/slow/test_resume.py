"""Runs killed at any time and started again end with the ticket of an undisturbed run, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SETTINGS = ("data.limit=60", "target=digits_resnet", "solver=compensated", "source.multiplicity=8")


def start(root: Path, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """``python -m experiments.ticket`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.ticket", f"output_dir={folder}", *SETTINGS, *overrides],
        cwd=root,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[Path, str]:
    """The run's folder, and what it said."""
    out, said = process.communicate()
    assert process.returncode == 0, said[-2000:]
    return Path(out.splitlines()[-1]), said


def kill_after(process: subprocess.Popen[str], folder: Path, nodes: int) -> None:
    """SIGKILL as soon as the run keeps so many nodes of its construction, or has ended."""
    while process.poll() is None and len(list(folder.glob("ticket/.*/construction/node*"))) < nodes:
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
