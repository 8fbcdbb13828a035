"""Seconds and peak memory of the stages of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS = Path("/proc/self")


class Stages:
    """What each stage took; a stage that did not run is not in it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float | None] = {}
        """Most memory of the process in the stage, in 10^9 bytes; None where the system does not say."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        begun, known = time.perf_counter(), _forget_peak()
        yield
        self.seconds[name] = time.perf_counter() - begun
        self.memory[name] = _peak() if known else None


def _forget_peak() -> bool:
    """Have Linux count the peak of this process's memory anew; False where that cannot be done."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> float:
    """Largest resident memory since `_forget_peak`, in GB."""
    lines = (PROCESS / "status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return kilobytes * 1024 / 1e9
