"""The images that all made files are of: scikit-learn's digits. Needs scikit-learn and NumPy alone."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(NamedTuple):
    """Images (n, 8, 8, 1) of mean 0 and deviation 1, and their classes."""

    x: np.ndarray
    x_test: np.ndarray
    y: np.ndarray
    y_test: np.ndarray


def split() -> Digits:
    """Those to train with, and 360 to test with."""
    digits = load_digits()
    images = ((digits.images[..., None] / 16 - 0.3053) / 0.3761).astype(np.float32)
    return Digits(
        *train_test_split(images, digits.target, test_size=360, random_state=0, stratify=digits.target)
    )


def store(
    folder: Path, name: str, known: np.ndarray, images: np.ndarray, outputs: np.ndarray, labels: np.ndarray
) -> None:
    """Write NAME.outputs.npz, what a program computes from images, and print how often it is right.

    Args:
      known: images it was trained with, of which the first 256 are kept.
      images: of the test part, channels last, with their labels.
    """
    np.savez(folder / f"{name}.outputs.npz", images=images, outputs=outputs, known=known[:256], labels=labels)
    print(name, f"{(outputs.argmax(-1) == labels).mean():.4f}", flush=True)
