"""Samples of the tasks of hand-made targets, as `slth.data.Data`."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from slth import random
from slth.data import Data
from slth.planting.targets import BOUNDARIES, HANDMADE, circle_logits, helix_at
from slth.target import checked_integer, checked_word

Points = Float[np.ndarray, "n inputs"]
INPUTS = {"circle": 2, "helix": 1, "relu": 1}


def samples(name: str, train: int = 4096, test: int = 1024, *, seed: int = 0, noise: float = 0.01) -> Data:
    """Points drawn from U[-1, 1] and what a task makes of them.

    Args:
      name: "circle" (classes), "helix" or "relu" (numbers).
      train, test: how many points; those of the two parts are drawn apart.
      seed: an integer in [0, 2^64).
      noise: of the training labels alone: the deviation of a normal error of numbers; of classes the share
        that is moved to the class whose logit is the second largest. Test labels have none.
    Raises: ValueError for another name, numbers below 1, or noise that is not in [0, 1).

    Example:
      >>> import numpy as np
      >>> from slth import planting
      >>> data = planting.samples("circle", train=8, test=1000)
      >>> data.classes, np.bincount(data.test_labels).tolist()
      (4, [154, 260, 159, 427])

    Source: Fischer and Burkholz, ICLR 2022: U[-1, 1], noise of 0.01 (there of the test labels too).
    """
    checked_word("samples of", name, tuple(HANDMADE))
    train, test = checked_integer("samples train", train, 1), checked_integer("samples test", test, 1)
    if not 0 <= noise < 1:
        raise ValueError(f"samples noise: expected a number in [0, 1), got {noise!r}")
    x, test_images = (
        np.asarray(random.uniform(random.key(seed, name, part), (count, INPUTS[name])))
        for part, count in (("train", train), ("test", test))
    )
    labels, test_labels = LABELS[name](x), LABELS[name](test_images)
    if name == "circle":
        moved = np.asarray(random.bernoulli(random.key(seed, name, "noise"), noise, (train,)))
        labels = np.where(moved, circle_logits(_squared_radius(x)).argsort(1)[:, -2], labels).astype(np.int32)
    else:
        error = np.asarray(random.normal(random.key(seed, name, "noise"), labels.shape))
        labels = (labels + np.float32(noise) * error).astype(np.float32)
    one, zero = np.ones(INPUTS[name], np.float32), np.zeros(INPUTS[name], np.float32)
    classes = len(BOUNDARIES) + 1 if name == "circle" else None
    return Data(name, x, labels, test_images, test_labels, zero, one, classes, -1.0, 1.0)


def _squared_radius(x: Points) -> Float[np.ndarray, " n"]:
    return (x.astype(np.float64) ** 2).sum(1)


def _class(x: Points) -> np.ndarray:
    return np.digitize(_squared_radius(x), BOUNDARIES).astype(np.int32)


def _helix(x: Points) -> np.ndarray:
    return helix_at(x[:, 0].astype(np.float64)).astype(np.float32)


def _relu(x: Points) -> np.ndarray:
    return np.maximum(x, 0)


LABELS: dict[str, Callable[[Points], np.ndarray]] = {"circle": _class, "helix": _helix, "relu": _relu}
