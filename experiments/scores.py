"""How far outputs are what the test labels say."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.data import Data
from slth.evaluate import Comparison, compare


class Score(NamedTuple):
    """As classes or as numbers; the other is None."""

    accuracy: float | None
    errors: Comparison | None


def score_of(data: Data, outputs: Float[np.ndarray, "n *outputs"]) -> Score:
    """Outputs for the test images against their labels.

    Raises: ValueError where there are other outputs than labels.
    """
    if data.task == "classes":
        return Score(data.accuracy(outputs), None)
    if outputs.shape[1:] != data.outputs:
        raise ValueError(
            f"data: the labels of {data.name} are numbers of shape {data.outputs}, the network has outputs "
            f"of shape {outputs.shape[1:]}: say data.task=classes if they are classes"
        )
    return Score(None, compare(data.test_labels, outputs, data.task))
