"""Signals of four classes, tones in noise, as a file of sound would hold them."""

from pathlib import Path

import numpy as np

LENGTH = 1000
CYCLES = (20, 45, 80, 130)
"""Of the tone of each class, in a signal."""


def write_tones(path: Path, train: int, test: int) -> Path:
    """An .npz file of signals (n, 1, length) in [-1, 1], channels first, and their classes."""
    rng = np.random.default_rng(0)
    held = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % len(CYCLES)
        phases = rng.random((count, 1)) + np.array(CYCLES)[labels][:, None] * np.arange(LENGTH) / LENGTH
        tones = 0.4 * np.sin(2 * np.pi * phases) + 0.15 * rng.normal(size=(count, LENGTH))
        held[f"{part}_images"] = np.clip(tones, -1, 1)[:, None].astype(np.float32)
        held[f"{part}_labels"] = labels
    np.savez(path, **held)
    return path


M5 = ("target=m5", "target.width=4", "target.taps=16", "target.stride=2")
"""An M5 for them."""
