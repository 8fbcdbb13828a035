"""Sweeps that are killed, or doubled, end with the table of an undisturbed one: nothing is lost or run
twice."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

SMALL = ("multiplicity=[6]", "distribution=[uniform]")
SWEEP = ("problems=1000,1500", "seed=0,1,2,3", "tolerance=0.01,0.02,0.05")
WHOLE = 24
LAUNCHERS = {  # plugin: (its launcher, tolerances of the sweep, runs, finished ones when it is killed)
    "": ((), SWEEP[2], WHOLE, (5, 12)),
    "joblib": (("hydra/launcher=processes", "hydra.launcher.n_jobs=2"), SWEEP[2], WHOLE, (3, 10)),
    "submitit": (
        ("hydra/launcher=slurm_local", "hydra.sweeper.max_batch_size=2"),
        "tolerance=0.05",
        8,
        (1, 3),
    ),
    "ray": (("hydra/launcher=cluster", "hydra.launcher.ray.init.num_cpus=2"), SWEEP[2], WHOLE, (3, 10)),
}
COMPUTED = re.compile(r"^uniform m=6 failure", re.MULTILINE)


def start(root: Path, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """``python -m experiments.subset_sum`` with all that it says in ``said`` of the folder."""
    folder.mkdir(exist_ok=True)
    with open(folder / "said", "a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.subset_sum", *overrides, f"output_dir={folder}"],
            cwd=root,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax"), "MPLBACKEND": "Agg"},
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background shell
        )


def finished(folder: Path) -> dict[str, int]:
    """When each run was finished."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("subset_sum/[!.]*/metrics.json")
    }


def table(folder: Path) -> dict[str, list]:
    """What the runs have found, by their names; not how long it took."""
    rows = {
        name: json.loads((folder / "subset_sum" / name / "metrics.json").read_text())
        for name in finished(folder)
    }
    return {
        name: [{k: v for k, v in row.items() if k != "seconds"} for row in metrics["subset_sum"]]
        for name, metrics in rows.items()
    }


def wait_for(what, process: subprocess.Popen[str], seconds: float = 240) -> None:
    """Until something holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not what() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(root, folder, "-m", *SMALL, *SWEEP).wait() == 0, (folder / "said").read_text()
    found = table(folder)
    assert len(found) == WHOLE
    assert len({json.dumps(rows) for rows in found.values()}) == WHOLE, "runs that differ"
    return found


@pytest.fixture
def killed() -> Iterator[list[int]]:
    """Commands that were killed: what they had started, which lives on, ends with the test."""
    processes: list[int] = []
    yield processes
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


@pytest.mark.parametrize("plugin", LAUNCHERS)
def test_a_sweep_killed_twice_ends_with_the_same_table(
    root: Path, tmp_path: Path, killed: list[int], undisturbed: dict[str, list], plugin: str
):
    if plugin and not importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher"):
        pytest.skip(f"hydra-{plugin}-launcher is not installed: pip install slth[{plugin}]")
    launcher, tolerances, runs, stops = LAUNCHERS[plugin]
    command = ("-m", *SMALL, *SWEEP[:2], tolerances, *launcher)
    done: dict[str, int] = {}
    for stop in stops:
        process = start(root, tmp_path, *command)
        wait_for(lambda stop=stop: len(finished(tmp_path)) >= stop, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "killed before it was done"
        kept = finished(tmp_path)
        assert kept.items() >= done.items(), "what is finished stays as it is"
        done = kept
        killed.append(process.pid)
    assert start(root, tmp_path, *command).wait() == 0, (tmp_path / "said").read_text()
    last = finished(tmp_path)
    assert last.items() >= done.items()
    found = table(tmp_path)
    assert len(found) == runs
    assert found == {name: undisturbed[name] for name in found}
    assert sorted(path.name for path in (tmp_path / "subset_sum").iterdir()) == sorted(found), (
        "nothing half made"
    )
    if not plugin:  # others' processes outlive the command, and say what they say elsewhere
        said = (tmp_path / "said").read_text()
        assert runs <= len(COMPUTED.findall(said)) <= runs + len(stops)
        assert said.count("already finished") >= sum(stops)


def test_two_sweeps_at_a_time_share_the_work(root: Path, tmp_path: Path):
    processes = [start(root, tmp_path, "-m", *SMALL, "problems=1000", *SWEEP[1:]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    said = (tmp_path / "said").read_text()
    assert len(finished(tmp_path)) == len(COMPUTED.findall(said)) == 12
    assert said.count("already finished") == 12
    assert "going on to the next point, this one comes last" in said


@pytest.mark.parametrize("plugin", ["", "joblib"])
def test_ctrl_c_is_one_line_and_the_work_is_kept(root: Path, tmp_path: Path, plugin: str):
    if plugin and not importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher"):
        pytest.skip(f"hydra-{plugin}-launcher is not installed: pip install slth[{plugin}]")
    sweep = ("-m", "seed=0,1", *LAUNCHERS[plugin][0]) if plugin else ()
    process = start(root, tmp_path, *sweep, "problems=100000000", "multiplicity=[12]", SMALL[1])
    wait_for(lambda: list(tmp_path.glob("subset_sum/.*/config.yaml")), process)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("interrupted")]
    assert line.endswith("the same command goes on")
    assert str(tmp_path) in line
    assert list(tmp_path.glob("subset_sum/.*/config.yaml")), "what was made stays"


def test_a_search_makes_the_number_small_that_it_is_told(root: Path, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install slth[optuna]")
    space = ("tolerance=interval(0.01,0.1)", "problems=500", *SMALL)
    wrong = ("hydra/sweeper=search", "hydra.sweeper.n_trials=1", "returns=gone")
    assert start(root, tmp_path / "wrong", "-m", *wrong, *space).wait() == 2
    assert (tmp_path / "wrong" / "said").read_text().count("returns: expected the name of a number") == 1
    right = ("hydra/sweeper=search", "hydra.sweeper.n_trials=3", "returns=tolerance")
    assert start(root, tmp_path / "right", "-m", *right, *space).wait() == 0
    found = yaml.safe_load((tmp_path / "right" / "sweep" / "optimization_results.yaml").read_text())
    tried = [json.loads(path.read_text()) for path in tmp_path.glob("right/subset_sum/*/metrics.json")]
    assert len(tried) == 3
    assert found["best_value"] == min(metrics["tolerance"] for metrics in tried)
