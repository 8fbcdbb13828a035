"""Millions of problems: checked on the host, streamed through the device in chunks of one shape."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.subset_sum.one import solve_one
from slth.subset_sum.problem import MAX_ENUMERATED, Objective, Solution

BLOCK = 256  # problems that share one pass over the subsets; their tables fit the first-level cache
CHUNK = 1 << 14  # problems in one call of a compiled kernel, the last one padded


@partial(jax.jit, static_argnames=("objective", "size"))
def _exact_chunk(count, x, t, tolerance, terms, *, objective, size):
    """`solve_one` on the first ``count`` problems of a chunk, block by block."""

    def block(i, out):
        def cut(a):
            return jax.lax.dynamic_slice_in_dim(a, i * BLOCK, BLOCK, axis=a.ndim - 1)

        arrays = jax.lax.optimization_barrier(jax.tree.map(cut, (x, t, terms)))
        solution = solve_one(arrays[0], arrays[1], objective, tolerance=tolerance, size=size, **arrays[2])
        return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, i * BLOCK, 0), out, solution)

    n = t.shape[0]
    empty = Solution(
        jnp.zeros(n, jnp.uint32), jnp.zeros(n), jnp.zeros(n), jnp.zeros(n, jnp.int32), jnp.zeros(n, bool)
    )
    return jax.lax.fori_loop(0, (count + BLOCK - 1) // BLOCK, block, empty)


def solve(
    x: Float[Array, "m n"],
    t: Float[Array, " n"],
    objective: Objective | str = Objective.BEST,
    *,
    tolerance: float = 0.01,
    size: int | None = None,
    residual_price: Float[Array, " n"] | None = None,
    price: Float[Array, "m n"] | None = None,
    gram: Float[Array, "m m n"] | None = None,
    linear: Float[Array, "m n"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    """Optimal subsets of ``n`` problems (see `Objective`), as NumPy arrays.

    Args: as `solve_one`, with the problems along the last axis; ``progress(done, n)`` is called after
      every chunk.
    Raises: ValueError for a shape, a range or a value that cannot be solved, naming the first index.
    """
    objective = Objective(objective)
    x, t = np.asarray(x, np.float32), np.asarray(t, np.float32)
    terms = {"residual_price": residual_price, "price": price, "gram": gram, "linear": linear}
    terms = {k: np.asarray(v, np.float32) for k, v in terms.items() if v is not None}
    _check(x, t, objective, tolerance, size, terms)
    n = t.shape[0]
    out = Solution(
        np.empty(n, np.uint32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32), np.empty(n, bool)
    )
    starts = range(0, n, CHUNK)

    def run(start):
        stop = min(start + CHUNK, n)
        arrays = jax.tree.map(lambda a: _padded(a[..., start:stop]), (x, t, terms))
        solution = _exact_chunk(stop - start, arrays[0], arrays[1], np.float32(tolerance), arrays[2], objective=objective, size=size)
        for whole, part in zip(out, solution, strict=True):
            whole[start:stop] = np.asarray(part)[: stop - start]
        return stop

    with ThreadPoolExecutor(2) as pool:
        for stop in pool.map(run, starts):
            if progress is not None:
                progress(stop, n)
    return out


def _padded(a: np.ndarray) -> np.ndarray:
    if a.shape[-1] == CHUNK:
        return a
    return np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, CHUNK - a.shape[-1])])


def _check(x, t, objective, tolerance, size, terms):
    if x.ndim != 2 or t.shape != x.shape[1:]:
        raise ValueError(f"need x of shape (m, n) and t of shape (n,), got {x.shape} and {t.shape}")
    if not 1 <= x.shape[0] <= MAX_ENUMERATED:
        raise ValueError(f"enumeration takes 1 to {MAX_ENUMERATED} variables, got m = {x.shape[0]}")
