"""Seconds and peak memory of the stages of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS = Path("/proc/self")
KEPT = {
    "prepare": "epochs of the training of a target in {targets}",
    "construct": "layers",
    "refine": "the refinement's last state that was kept, of the last minute",
    "evaluate": "evaluated batches but those of the last second",
    "prune": "epochs of the search, for a method that trains",
}
"""What a run keeps of a stage that is broken off, beside what the stages before have made."""


class Stages:
    """What each stage took; a stage that did not run is not in it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float | None] = {}
        """Most memory of the process in the stage, in 10^9 bytes; None where the system does not say."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        begun, known = time.perf_counter(), forget_peak()
        try:
            yield
        except KeyboardInterrupt as stop:
            stop.args = stop.args or (name,)  # what `experiments.command_line` says of it
            raise
        self.seconds[name] = time.perf_counter() - begun
        self.memory[name] = memory("VmHWM") / 1e9 if known else None


def kept_of(stage: str, targets: Path) -> str:
    """What is kept of a stage, in words; empty where nothing is.

    Args:
      targets: the folder of trained targets.
    """
    return KEPT.get(stage, "").format(targets=targets)


def forget_peak() -> bool:
    """Have Linux count the peak of this process's memory anew; False where that cannot be done."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory(field: str) -> int:
    """Bytes of a field of Linux's account of this process: VmRSS now, VmHWM its peak since `forget_peak`."""
    lines = (PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
