r"""Which subset stands for a multiple of a step: the nearest of all 2^N sums, in exact integers.

A sum S lies in the cell of :math:`q = \lfloor S / D + 1/2 \rfloor`. Of the subsets in a cell the one with the
least :math:`|S - q D|` *stands for* q, of equals the one of smallest number (bit k of the number: variable k
is kept). A cell that no sum lies in has none. So q says which subset is meant: whoever knows the variables
finds it again.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt16

from slth.coding.rounded import multiples

CHUNK = 1024
"""Problems looked at together."""


class Cells(NamedTuple):
    """The subsets that stand for q = -Q, ..., Q in n problems."""

    sums: Int64[np.ndarray, "cells n"]
    """Their sums; `NONE` for an empty cell."""
    subsets: UInt16[np.ndarray, "cells n"]
    """Their numbers."""


NONE = np.iinfo(np.int64).max


def all_sums(variables: Int64[np.ndarray, "N n"]) -> Int64[np.ndarray, "subsets n"]:
    """The sums of all subsets, in the order of their numbers."""
    sums = np.zeros((1, variables.shape[1]), np.int64)
    for variable in variables:
        sums = np.concatenate([sums, sums + variable])
    return sums


def cells(variables: Int64[np.ndarray, "N n"], step: int, most: int) -> Cells:
    """The subsets that stand for every |q| <= ``most``.

    Args:
      variables: whole numbers, N of at most 16; sums and multiples of the step must stay below 2^61.
      step: D, at least 1.
      most: Q.

    Example:
      >>> import numpy as np
      >>> from slth.subset_sum.cells import cells
      >>> found = cells(np.array([[3], [10], [-4]]), step=4, most=1)
      >>> found.sums[:, 0].tolist(), found.subsets[:, 0].tolist()      # -4, the empty sum, 3
      ([-4, 0, 3], [4, 0, 1])
    """
    count = variables.shape[1]
    sums = np.full((2 * most + 1, count), NONE)
    subsets = np.zeros(sums.shape, np.uint16)
    for start in range(0, count, CHUNK):
        here = slice(start, start + CHUNK)
        every = all_sums(variables[:, here])
        place = multiples(every, step)
        error = np.abs(every - place * step)
        least = np.full((2 * most + 1, every.shape[1]), NONE)
        place += most
        inside = (place >= 0) & (place <= 2 * most)
        problem = np.arange(every.shape[1])
        for number in range(len(every)):
            at = np.where(inside[number], place[number], 0)
            better = np.flatnonzero(inside[number] & (error[number] < least[at, problem]))
            cell = at[better]
            least[cell, better] = error[number, better]
            sums[cell, start + better] = every[number, better]
            subsets[cell, start + better] = number
    return Cells(sums, subsets)
