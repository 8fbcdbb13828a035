"""What becomes of the points of a sweep, in whatever process or machine a launcher has them computed.

A point whose run another process works on is put off to the end of the sweep. Points that are computed
elsewhere leave a note of their fault in ``<hydra.sweep.dir>/.<token>``, which the process that the sweep
began in reads.
"""

import json
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments.run_folder import runs_of


class Sweep:
    """The points of one command: how many there are, and which were refused or failed.

    It travels to other processes with the job. There it only leaves notes.
    """

    def __init__(self, experiment: str) -> None:
        self.process = (socket.gethostname(), os.getpid())
        self.experiment = experiment
        self.folder, self.token = Path.cwd(), uuid.uuid4().hex[:12]
        self.points = 0
        self.faults: list[str] = []
        self.later: list[Callable[[], Any]] = []
        self.runs: Path | None = None
        """The folder of the run folders, once it is known."""

    @property
    def here(self) -> bool:
        """Whether this is the process that the command began in."""
        return self.process == (socket.gethostname(), os.getpid())

    def note(self, notes: str, number: int, kind: str = "", line: str = "") -> None:
        """What has become of a point: ``kind`` is empty, or refused, or failed, and ``line`` says why."""
        if self.here:
            self._count(kind, line)
            return
        folder = _notes(notes, self.token)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{number}"
        part.write_text(json.dumps([kind, line]))
        part.rename(folder / f"{number}.json")

    def _count(self, kind: str, line: str) -> None:
        self.points += 1
        if kind:
            self.faults.append(kind)
            print(line, file=sys.stderr)

    def finish(self, notes: str) -> None:
        """Do what was put off, and read the notes of other processes."""
        while self.later:
            self.later.pop(0)()
        folder = _notes(notes, self.token)
        for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem)):
            self._count(*json.loads(path.read_text()))
        shutil.rmtree(folder, ignore_errors=True)

    def exit_code(self) -> int:
        """2 where a point was refused, else 1 where one contradicts a claim, else 0; says how many."""
        if self.faults:
            refused, failed = self.faults.count("refused"), self.faults.count("failed")
            text = "of {} points {} were refused and {} failed: see the lines above"
            print(text.format(self.points, refused, failed), file=sys.stderr)
        return 2 if "refused" in self.faults else int(bool(self.faults))


def _notes(folder: str, token: str) -> Path:
    return Path(folder).expanduser() / f".{token}"


class Watch(Callback):
    """Hydra's callback: a sweep ends with what was put off and with the notes of other processes."""

    sweep: Sweep | None = None
    """That of the command that runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before any point is given to the launcher."""
        if Watch.sweep is not None:
            Watch.sweep.runs = runs_of(config, Watch.sweep.experiment)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Once all points were given to the launcher and have come back."""
        if Watch.sweep is not None:
            configure_log(config.hydra.job_logging, config.hydra.verbose)
            Watch.sweep.finish(config.hydra.sweep.dir)
