"""The command line of the subset-sum experiment and the run folder it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("multiplicity=[5,8]", "problems=3000", "distribution=[uniform]")


def command(*overrides):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "Agg",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    }
    program = [sys.executable, "-m", "experiments.subset_sum", *overrides]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_leaves_a_complete_folder_and_skips_it_next_time(tmp_path):
    first = command(*SMALL, f"output_dir={tmp_path}")
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.splitlines()[-1])
    assert folder.parent == tmp_path / "subset_sum"
    names = {f.name for f in folder.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.json",
        "subset_sum.csv",
        "log.txt",
        "subset_sum.png",
    }
    rows = json.loads((folder / "metrics.json").read_text())["subset_sum"]
    assert [r["m"] for r in rows] == [5, 8]
    assert 0.25 < rows[1]["failure"] < 0.33
    assert list(pd.read_csv(folder / "subset_sum.csv")["failures"]) == [r["failures"] for r in rows]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]  # nothing half-done stays behind

    stamp = (folder / "metrics.json").stat().st_mtime_ns
    again = command(*SMALL, f"output_dir={tmp_path}")
    assert again.stdout.splitlines()[-1] == str(folder)
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp

    (folder / "metrics.json").unlink()  # broken: done again
    assert command(*SMALL, f"output_dir={tmp_path}").returncode == 0
    assert (folder / "metrics.json").is_file()


@pytest.mark.parametrize(
    "override, message",
    [
        ("problems=0", "problems must be a positive integer, got 0"),
        ("distribution=[cauchy]", "unknown distribution 'cauchy'"),
        ("multiplicity=[40]", "multiplicity must be integers from 1 to 24, got 40"),
        ("targets=no/such/file.npz", "there is no file no/such/file.npz"),
        ("problem=3", "problem: there is no such setting: did you mean problems?"),
    ],
)
def test_bad_settings_give_one_line(tmp_path, override, message):
    out = command(override, f"output_dir={tmp_path}")
    assert out.returncode == 2
    assert out.stdout == ""
    assert out.stderr.count("\n") == 1
    assert message in out.stderr
    assert not list(tmp_path.glob("*/[!.]*"))
