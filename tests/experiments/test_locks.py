"""Two processes that want the same run: one works, the other waits or goes on, and none corrupts it."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.locks import Busy, held
from experiments.run_folder import execute, folder_of

HOLD = "import sys; from pathlib import Path; from experiments.locks import held\n"
HOLDER = HOLD + "with held(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"
ADDER = HOLD + (
    "for _ in range(60):\n"
    "    with held(Path(sys.argv[1]), 'x'):\n"
    "        count = Path(sys.argv[2]); count.write_text(str(int(count.read_text()) + 1))\n"
)


def start(root: Path, program: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_lock_ends_with_its_process_however_it_ends(root: Path, tmp_path: Path):
    path = tmp_path / ".lock"
    process = start(root, HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=f"process {process.pid} on {socket.gethostname()} works on it"):
        held(path, "it", wait=False).__enter__()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists(), "killed before it could remove it"
    with held(path, "it", wait=False):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not path.exists()


def test_only_one_of_many_processes_holds_a_lock_whose_file_comes_and_goes(root: Path, tmp_path: Path):
    count = tmp_path / "count"
    count.write_text("0")
    processes = [start(root, ADDER, tmp_path / ".lock", count) for _ in range(6)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 6
    assert count.read_text() == "360"


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ValueError, match=r"^output_dir: the file system of .* has no locks \(No locks avail"):
        held(tmp_path / ".lock", "it").__enter__()


class Runs:
    """A run that begins, waits until it may end, and is counted."""

    def __init__(self, folder: Path) -> None:
        self.cfg = OmegaConf.create({"output_dir": str(folder), "a": 1})
        self.final = folder_of(self.cfg, "x")
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.count = 0

    def __call__(self, cfg, folder: Path) -> dict:
        self.count += 1
        (folder / "part").write_text(str(self.count))
        self.begun.set()
        assert self.go_on.wait(30)
        return {"runs": self.count}


def test_the_same_run_twice_at_a_time_is_done_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    runs, found = Runs(tmp_path), []

    def work():
        found.append(execute(runs, runs.cfg, "x"))

    first, second = threading.Thread(target=work), threading.Thread(target=work)
    with caplog.at_level(logging.INFO):
        first.start()
        assert runs.begun.wait(30)
        with pytest.raises(Busy, match=f"works on x/{runs.final.name}"):
            execute(runs, runs.cfg, "x", wait=False)
        second.start()
        while not any(message.startswith("waiting: process") for message in caplog.messages):
            second.join(0.01)
        runs.go_on.set()
        first.join(30)
        second.join(30)
    assert found == [runs.final] * 2
    assert runs.count == 1
    assert f"already finished: {runs.final}" in caplog.messages
    assert [path.name for path in runs.final.parent.iterdir()] == [runs.final.name]


def test_force_does_a_run_anew_and_keeps_the_old_result_until_then(tmp_path: Path):
    runs = Runs(tmp_path)
    runs.go_on.set()
    execute(runs, runs.cfg, "x")
    forced = OmegaConf.merge(runs.cfg, {"force": True})

    def broken(cfg, folder: Path):
        (folder / "part").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        execute(broken, forced, "x")
    assert (runs.final / "part").read_text() == "1"
    assert execute(runs, runs.cfg, "x") == runs.final
    assert runs.count == 1, "not without force"
    seen = []

    def anew(cfg, folder: Path):
        seen.append(((folder / "part").read_text(), (runs.final / "part").read_text()))
        return runs(cfg, folder)

    assert execute(anew, forced, "x") == runs.final
    assert seen == [("half", "1")], "goes on with what was half made, beside the old result"
    assert json.loads((runs.final / "metrics.json").read_text()) == {"runs": 2}
    assert [path.name for path in runs.final.parent.iterdir()] == [runs.final.name]
    with pytest.raises(ValueError, match="force: expected true or false, got 'yes'"):
        execute(runs, OmegaConf.merge(runs.cfg, {"force": "yes"}), "x")


def test_a_run_killed_before_its_folder_was_moved_is_finished(tmp_path: Path):
    runs = Runs(tmp_path)
    runs.go_on.set()
    execute(runs, runs.cfg, "x")
    runs.final.rename(runs.final.parent / f".{runs.final.name}")
    assert execute(runs, runs.cfg, "x") == runs.final
    assert runs.count == 1


def test_bad_luck_of_a_run_that_has_begun_takes_nothing_away(tmp_path: Path):
    runs = Runs(tmp_path)
    runs.go_on.set()

    def full(cfg, folder: Path):
        (folder / "part").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        execute(full, runs.cfg, "x")
    assert (runs.final.parent / f".{runs.final.name}" / "part").read_text() == "half"
    execute(runs, runs.cfg, "x")

    def refused(cfg, folder: Path):
        raise ValueError("a: no")

    other = OmegaConf.merge(runs.cfg, {"a": 2})
    with pytest.raises(ValueError, match="a: no"):
        execute(refused, other, "x")
    assert [path.name for path in runs.final.parent.iterdir()] == [runs.final.name]
