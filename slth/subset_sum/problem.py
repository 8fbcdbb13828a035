"""What a subset-sum problem asks and what its solution says."""

import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from slth.types import AnyArray

MAX_ENUMERATED = 20
MAX_VARIABLES = 32


class Objective(enum.StrEnum):
    r"""Which subset :math:`S \subseteq \{1, ..., m\}` solves ``(x, t)``; :math:`E = t - \sum_{k \in S} x_k`.

    * ``SMALLEST``: least :math:`|S|` with :math:`|E| \le \epsilon`, then least :math:`|E|`; if there is
      none, the subset of ``BEST`` (reported unsolved).
    * ``BEST``: least :math:`|E|`.
    * ``ROBUST``: least :math:`r E^2 + \sum_{k \in S} q_k` with :math:`r > 0, q_k \ge 0`.
    * ``QUADRATIC``: least :math:`b^T G b - 2 c^T b` over :math:`b \in \{0, 1\}^m`.

    Ties: first fewer variables, then the smaller mask read as an integer. Hence a variable that is zero
    is never chosen.

    Example:
      >>> import numpy as np
      >>> from slth import subset_sum
      >>> x, t = np.array([[0.5], [0.25], [0.3]]), np.array([0.56])      # one problem of three variables
      >>> for objective in ("best", "smallest"):
      ...     out = subset_sum.solve(x, t, objective, tolerance=0.1)
      ...     print(objective, subset_sum.unpack(out.mask, 3)[:, 0].tolist(), round(float(out.error[0]), 2))
      best [False, True, True] 0.01
      smallest [True, False, False] 0.06
    """

    SMALLEST = "smallest"
    BEST = "best"
    ROBUST = "robust"
    QUADRATIC = "quadratic"


class Solution(NamedTuple):
    """Chosen subsets of ``n`` problems, values in the units of ``x``; a pytree.

    An unsolved problem keeps its best subset: nothing is hidden and nothing raises.

    Example:
      >>> import numpy as np
      >>> from slth import subset_sum
      >>> out = subset_sum.solve(np.array([[0.5], [0.25]]), np.array([0.8]), tolerance=0.1)
      >>> out.value.tolist(), out.size.tolist(), out.solved.tolist()
      ([0.75], [2], [True])
    """

    mask: UInt32[AnyArray, "*n"]  # bit k set: variable k is kept
    value: Float[AnyArray, "*n"]  # sum of the kept variables
    error: Float[AnyArray, "*n"]  # t - value
    size: Int[AnyArray, "*n"]  # number of kept variables
    solved: Bool[AnyArray, "*n"]  # |error| <= tolerance


def unpack(mask: UInt32[AnyArray, "*n"], m: int) -> Bool[AnyArray, "m *n"]:
    """Bits ``(mask >> k) & 1`` for ``k < m`` as booleans, variables first; the inverse of packing.

    Args:
      mask: shape (n,), as of a `Solution`; bit k says whether variable k is kept.
      m: number of variables.

    Example:
      >>> import numpy as np
      >>> from slth import subset_sum
      >>> subset_sum.unpack(np.array([5], np.uint32), 3)[:, 0].tolist()      # 5 = 2^0 + 2^2
      [True, False, True]
    """
    bits = np.arange(m, dtype=np.uint32).reshape((m,) + (1,) * mask.ndim)
    return ((mask[None] >> bits) & np.uint32(1)).astype(bool)
