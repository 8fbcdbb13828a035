"""Runs killed at any time and started again end with the ticket of an undisturbed run, bit for bit."""

import os
import random
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


def test_killed_runs_end_with_the_same_ticket(root: Path, tmp_path: Path):
    trained, _ = finish(start(root, tmp_path / "trained"))
    target = f"target.checkpoint={trained / 'target.safetensors'}"
    began = time.perf_counter()
    whole, _ = finish(start(root, tmp_path / "whole", target))
    seconds = time.perf_counter() - began
    draw, taken_over = random.Random(0), 0
    for attempt in range(4):
        folder = tmp_path / f"killed{attempt}"
        for _ in range(2):
            process = start(root, folder, target)
            time.sleep(draw.uniform(0.2, 0.9) * seconds)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        found, said = finish(start(root, folder, target))
        taken_over += "taken over" in said
        assert (found / "ticket.safetensors").read_bytes() == (whole / "ticket.safetensors").read_bytes()
        assert {path.name for path in found.iterdir()} == {path.name for path in whole.iterdir()}
        assert [path.name for path in found.parent.iterdir()] == [found.name]
    assert taken_over, "some run was killed between its first node and its last"
