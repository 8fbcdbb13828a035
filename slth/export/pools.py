"""Means of pooling in programs that divide by whole windows."""

import math

import numpy as np
from jaxtyping import Float

from slth.nn.pooling import Pool
from slth.types import Shape


def shares(layer: Pool, shape: Shape) -> Float[np.ndarray, "1 *positions"] | None:
    """What means over whole windows are multiplied by at each position, channels first; None where that is 1.

    Args:
      shape: of one example of what is pooled, channels last.
    """
    found = math.prod(layer.window) / np.moveaxis(np.asarray(layer.divisors(shape))[0], -1, 0)
    return None if (found == 1).all() else found
