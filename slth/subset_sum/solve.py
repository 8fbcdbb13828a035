"""Millions of problems: checked on the host, streamed through the device in chunks of one shape."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import jax
import numpy as np
from jaxtyping import Float

from slth.precision import in_32_bits
from slth.subset_sum import stages
from slth.subset_sum.checks import check
from slth.subset_sum.problem import MAX_ENUMERATED, Objective, Solution
from slth.subset_sum.stages import IN_USE, MANY, Stage, compiled, effort, plan
from slth.types import AnyArray

Progress = Callable[[int, int], None]
Where = slice | np.ndarray
Make = Callable[[Where, int], dict[str, AnyArray]]
"""The terms of some problems by the names that `solve` has for them, padded to so many."""

ENOUGH = 8
"""So many times `FEW`, call after call, takes the exact search longer than loading other kernels takes."""
TRIED: dict[tuple[Objective, int, int | None], int] = {}
"""What the exact search took (`effort`), because the problems of each call were few."""
AHEAD = 3
"""Chunks that a GPU has before it while the host reads one."""


@in_32_bits()
def solve(
    x: Float[AnyArray, "m n"] | None,
    t: Float[AnyArray, " n"] | None,
    objective: Objective | str = Objective.BEST,
    *,
    tolerance: float = 0.01,
    size: int | None = None,
    residual_price: Float[AnyArray, " n"] | None = None,
    price: Float[AnyArray, "m n"] | None = None,
    gram: Float[AnyArray, "m m n"] | None = None,
    linear: Float[AnyArray, "m n"] | None = None,
    progress: Progress | None = None,
) -> Solution:
    r"""Optimal subsets of ``n`` problems, :math:`S_i \subseteq \{1, ..., m\}` for :math:`(x_{\cdot i},
    t_i)` (see `Objective`).

    Work is done in chunks of a fixed padded size, so a second call of the same ``(m, objective)`` compiles
    nothing. Chunks are sharded over this process's devices; under ``jax.distributed`` every process passes
    its own slice of the problems and gets their solutions, and nothing is exchanged.

    Args:
      x: variables, shape ``(m, n)``, ``1 <= m <= 32`` (20 for ``robust`` and ``quadratic``); a variable of
        zero means an absent one.
      t: targets, shape ``(n,)``, in the same units; may be out of reach. Magnitudes at most ``2**20``.
      tolerance: a problem is solved if its error is at most this, in the same units, 0 to 32.
      size: only subsets of exactly this many variables (random fixed-size subset sum, Natale et al. 2024).
        With ``robust`` the cheapest of them must cost less than exact costs have room for, about 4,000 r.
      residual_price, price: ``r``, shape ``(n,)``, and ``q``, shape ``(m, n)``, of ``robust``; default 1
        and 0.
      gram, linear: ``G``, shape ``(m, m, n)``, symmetric, and ``c``, shape ``(m, n)``, of ``quadratic``. With
        them ``x`` and ``t`` may be None; then ``value`` is the objective's and ``error`` NaN.
      progress: called as ``progress(done, n)`` from the calling thread, ending with ``progress(n, n)``.
    Returns: a `Solution` of NumPy arrays. Values are rounded to the grid of `slth.subset_sum.grid` (exact for
      values on 2**-24 of moderate size), so masks are the same on every device and for every split into
      batches.
    Raises: ValueError for shapes, ranges and values that cannot be solved, naming the first index.

    Example:
      >>> import numpy as np
      >>> from slth import subset_sum
      >>> x = np.random.default_rng(0).uniform(-1, 1, (15, 1000))      # 15 variables, 1000 problems
      >>> out = subset_sum.solve(x, np.full(1000, 0.3), "best", tolerance=0.001)
      >>> float(out.solved.mean()), float(np.abs(out.error).max())
      (0.98, 0.01)
    """
    objective = Objective(objective)
    terms = {"residual_price": residual_price, "price": price, "gram": gram, "linear": linear}
    arrays = check(objective, tolerance, size, x=x, t=t, **terms)
    m, n = arrays["linear" if "linear" in arrays else "x"].shape
    if "residual_price" in arrays:
        arrays["price"] = arrays["price"] / arrays.pop("residual_price")

    def make(where: Where, chunk: int) -> dict[str, AnyArray]:
        return {name: padded(array[..., where], chunk) for name, array in arrays.items()}

    return solve_made(make, m, n, objective, tolerance=tolerance, size=size, progress=progress)


@in_32_bits()
def solve_made(
    make: Make,
    m: int,
    n: int,
    objective: Objective,
    *,
    tolerance: float,
    size: int | None = None,
    progress: Progress | None = None,
) -> Solution:
    """`solve` for problems that are made where they are solved, of terms in range: nothing is checked.

    Args:
      make: gives x, t and the other terms of the problems at a slice or at some indices, on the device or in
        NumPy; called from several threads, and again for problems that a first kernel leaves in doubt.
      m, n: number of variables and of problems.
    """
    dtypes = {"mask": np.uint32, "value": np.float32, "error": np.float32, "size": np.int32, "solved": bool}
    out = Solution(**{name: np.empty(n, dtype) for name, dtype in dtypes.items()})
    left, sure = None, 0  # None: all
    for stage in _stages(objective, m, size, n):
        unsure = [np.empty(0, np.int64)]
        for count, rest in _run(stage, make, np.float32(tolerance), left, out):
            unsure.append(rest)
            sure += count - rest.size
            if progress is not None:
                progress(sure, n)
        left = np.concatenate(unsure)
        if left.size == 0:
            break
    return out


def _stages(objective: Objective, m: int, size: int | None, n: int) -> tuple[Stage, ...]:
    """The stages for ``n`` problems.

    Those for many are faster for few as well, once they are compiled. And few problems that come again and
    again are worth the kernels of the least call that is not few.
    """
    many = plan(objective, m, size, max(n, (MANY >> m) + 1), platform())
    few = plan(objective, m, size, n, platform())
    if few == many or all(stage in IN_USE for stage in many):
        return many
    if len(few) > 1 or m > MAX_ENUMERATED:
        return few
    kind, most = (objective, m, size), stages.FEW[objective]
    TRIED[kind] = TRIED.get(kind, 0) + effort(m, n)
    least = most // effort(m, 1) + 1
    return plan(objective, m, size, least, platform()) if TRIED[kind] > ENOUGH * most else few


def platform() -> str:
    """What this process's devices are, as JAX names it: cpu, gpu or tpu."""
    return jax.local_devices()[0].platform


def _run(
    stage: Stage, make: Make, tolerance: np.float32, chosen: np.ndarray | None, out: Solution
) -> Iterator[tuple[int, np.ndarray]]:
    """Solve the chosen problems (None: all) into ``out``; a chunk's size and what is unsure in it."""
    devices = tuple(jax.local_devices())
    run, chunk_size = compiled(stage, devices), stage.chunk * len(devices)
    total = out.mask.shape[0] if chosen is None else chosen.size

    def send(start):
        where = slice(start, min(start + chunk_size, total))
        where = where if chosen is None else chosen[where]
        chunk = make(where, chunk_size)
        return start, where, run(True, chunk.pop("x", None), chunk.pop("t", None), tolerance, chunk)

    def receive(sent):
        start, where, (solution, sure) = sent
        count = min(chunk_size, total - start)
        for whole, part in zip(out, solution, strict=True):
            whole[where] = np.asarray(part)[:count]
        rest = np.flatnonzero(~np.asarray(sure)[:count])
        return count, rest + start if isinstance(where, slice) else where[rest]

    return streamed(send, receive, range(0, total, chunk_size))


def padded(a: np.ndarray, count: int, value: float = 1.0) -> np.ndarray:
    """An array whose last axis is filled up to a length; ones are harmless in every role."""
    if a.shape[-1] == count:
        return a
    full = np.full((*a.shape[:-1], count), value, a.dtype)
    full[..., : a.shape[-1]] = a
    return full


def streamed(send: Callable, receive: Callable, items: range) -> Iterator:
    """``receive(send(item))`` of every item in order, so that the devices always have something to do.

    On a CPU one item a core is in work: a compiled kernel runs outside Python's lock, on one core. A GPU
    computes what is sent beside Python, so the next items are sent before one is received.
    """
    send, receive = in_32_bits()(send), in_32_bits()(receive)  # in the thread that runs them
    if platform() != "cpu":
        yield from _ahead(send, receive, items)
        return
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(items) <= 1 or workers == 1:
        yield from (receive(send(item)) for item in items)
        return
    yield from _pool(workers, os.getpid()).map(lambda item: receive(send(item)), items)


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads for all calls; a forked process has none of its parent's, so it makes its own."""
    return ThreadPoolExecutor(workers)


def _ahead(send: Callable, receive: Callable, items: range) -> Iterator:
    """As `streamed`, with `AHEAD` items sent before one is received."""
    sent = deque()
    for item in items:
        sent.append(send(item))
        if len(sent) > AHEAD:
            yield receive(sent.popleft())
    while sent:
        yield receive(sent.popleft())
