"""Which kernels solve an objective, in order: each leaves what it is not sure of to the next.

The last stage is the exact search, which is always sure; the others are faster and decide nearly all
problems. What comes out is the same whichever stage decides.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from slth.devices import AXIS, SPLIT, WHOLE, Devices, over_devices
from slth.subset_sum.best import best_chunk
from slth.subset_sum.enumerate import exact_chunk
from slth.subset_sum.grid import grid_exponent, snap
from slth.subset_sum.large import large_chunk
from slth.subset_sum.one import describe, describe_quadratic
from slth.subset_sum.problem import MAX_ENUMERATED, Objective, Solution
from slth.subset_sum.quadratic import quadratic_chunk
from slth.subset_sum.robust import robust_chunk
from slth.subset_sum.rows import apart
from slth.subset_sum.smallest import every_size_chunk, level_chunk

MAX_UNROLLED = 8192
MAX_FOLDED = 24  # beyond, meeting in the middle is faster than enumeration
FEW = {Objective.BEST: 2**29, Objective.SMALLEST: 2**29, Objective.ROBUST: 2**24}
"""The `effort` that takes the exact search less time than other kernels take to compile."""
FEW_LONG = 512
"""Problems of more than `MAX_ENUMERATED` variables of which the same is true."""
MANY = 2**31
"""Subsets of all problems together from which on the variables of use are worth a kernel that finds them."""
HUGE = 2**35
"""Subsets of all problems together from which on kernels of longer chunks are worth compiling."""
MAX_REDUCED = 12  # variables that most problems have of use, however many they have
MIN_REDUCED = 13  # below, enumerating all variables takes less time than finding those of use
BUSY = 2**18  # problems that keep the cores of a large GPU busy
CHUNK_BYTES = 2**30  # of all arrays of a chunk, where no cache bounds it


class Stage(NamedTuple):
    """One kernel: hashable, so it names the compiled code."""

    objective: Objective
    kernel: Callable  # of (problems, always, *options, **terms), to masks and whether they are sure
    chunk: int  # problems in one call
    options: tuple = ()


def chunk_size(platform: str, cached: int, numbers: int) -> int:
    """Problems in one call of a kernel.

    Args:
      platform: of the devices, as JAX names it.
      cached: problems whose arrays stay in a CPU core's second-level cache.
      numbers: four-byte numbers that a problem takes in all arrays together.
    Returns: ``cached`` on a CPU; elsewhere as many as keep every core busy, within `CHUNK_BYTES`.
    """
    if platform == "cpu":
        return cached
    return min(BUSY, 2 ** int(math.log2(CHUNK_BYTES / (4 * numbers))))


def effort(m: int, n: int) -> int:
    """What the exact search takes, in subsets tried: each problem takes 2^11 of them besides."""
    return n * (2**m + 2**11)


def plan(objective: Objective, m: int, size: int | None, n: int, platform: str = "cpu") -> tuple[Stage, ...]:
    """The stages for ``n`` problems of ``m`` variables, the exact search alone where the problems are few.

    A chunk is computed whole, however few problems are in it: that of the exact search, which mostly sees
    few, is small where a problem is long. Solutions do not depend on the sizes of chunks, so not on the
    platform.
    """
    quadratic = objective is Objective.QUADRATIC
    numbers = 4 * m * m if quadratic else 8 * m + 64

    def stage(kernel: Callable, cached: int, *options) -> Stage:
        return Stage(objective, kernel, chunk_size(platform, cached, numbers), options)

    table = chunk_size(platform, 512, 64 * 8 + numbers)
    longest = 2**21 if platform == "cpu" else 2**30
    exact = Stage(objective, exact_chunk, max(longest >> 16, min(table, longest >> m)), (objective, size))
    if m > MAX_ENUMERATED:  # one problem after the other on every platform
        exact = Stage(objective, large_chunk, 8, (objective is Objective.SMALLEST,))
    few = n <= FEW_LONG if m > MAX_ENUMERATED else effort(m, n) <= FEW.get(objective, -1)
    if size is not None or m < 6 or few:
        return (exact,)
    huge = n << m > HUGE
    usual = max(64, min(4096 if huge else 1024, 2**28 >> m))
    stages = {
        Objective.BEST: [
            (12 <= m <= MAX_FOLDED, stage(best_chunk, usual, 4, 6)),
            (m <= MAX_ENUMERATED, stage(best_chunk, max(64, usual // (2 if huge else 4)), 1, 6)),
        ],
        Objective.SMALLEST: [
            (True, stage(level_chunk, 16384, 0, 1, 2, 3)),
            (math.comb(m, 4) <= MAX_UNROLLED, stage(level_chunk, 4096, 4)),
            (m <= MAX_FOLDED, stage(every_size_chunk, 1024, 6)),
        ],
        Objective.ROBUST: [
            (m >= MIN_REDUCED and n << m > MANY, stage(robust_chunk, 4096, 6, min(m - 4, MAX_REDUCED))),
            (True, stage(robust_chunk, max(512, min(4096, 2**26 >> m)), 6, m)),
        ],
        Objective.QUADRATIC: [(True, stage(quadratic_chunk, 2048, 7))],
    }
    return (*(stage for fits, stage in stages[objective] if fits), exact)


def run_stage(
    stage: Stage,
    always: Bool[Array, ""],
    x: Float[Array, "m n"] | None,
    t: Float[Array, " n"] | None,
    tolerance: Float[Array, ""],
    terms: dict[str, Array],
) -> tuple[Solution, Bool[Array, " n"]]:
    """Solutions of one chunk, and for which problems they are sure; ``always`` is true (see `apart`)."""
    if x is None or t is None:
        mask, sure = stage.kernel(None, always, *stage.options, **terms)
        return describe_quadratic(mask, **terms), sure
    far = stage.objective is Objective.ROBUST
    exponent = apart(always, functools.partial(grid_exponent, far=far), x, t, tolerance)
    p = apart(always, functools.partial(snap, far=far), x, t, tolerance, exponent)
    mask, sure = stage.kernel(p, always, *stage.options, **terms)
    return describe(p, t, mask), sure


def compiler_options(platform: str) -> dict[str, int] | None:
    """What XLA is told: on a CPU to use its widest vectors; other backends refuse that word."""
    return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else None


IN_USE: set[Stage] = set()
"""Stages that this process has compiled, or is about to."""


@functools.cache
def compiled(
    stage: Stage,
    devices: Devices,
) -> Callable:
    """`run_stage` for one shape of arguments; on several devices each takes its share of the problems.

    Problems are independent, so a device computes what it would compute alone: results do not depend on how
    many there are.
    """
    IN_USE.add(stage)
    terms = {
        Objective.ROBUST: {"price": VARIABLES},
        Objective.QUADRATIC: {"gram": PartitionSpec(None, None, AXIS), "linear": VARIABLES},
    }
    specs = (WHOLE, VARIABLES, SPLIT, WHOLE, terms.get(stage.objective, {}))
    return of_problems(functools.partial(run_stage, stage), devices, specs, SPLIT)


VARIABLES = PartitionSpec(None, AXIS)
"""Of an array with a row for each variable, whose problems the devices share."""


def of_problems(function: Callable, devices: Devices, in_specs: tuple, out_specs: object) -> Callable:
    """A compiled function of problems (`slth.devices.over_devices`)."""
    options = compiler_options(devices[0].platform)
    return over_devices(function, devices, in_specs, out_specs, compiler_options=options)


def compile_stages(objective: Objective | str, m: int, size: int | None = None) -> None:
    """Compile every kernel that `slth.subset_sum.solve` may use for many problems of ``m`` variables."""
    objective = Objective(objective)
    device = jax.local_devices()[0]
    for stage in plan(objective, m, size, MANY, device.platform):
        x, t, terms = jnp.ones((m, stage.chunk)), jnp.ones(stage.chunk), {}
        if objective is Objective.ROBUST:
            terms = {"price": x}
        if objective is Objective.QUADRATIC:
            x, t, terms = None, None, {"gram": jnp.ones((m, m, stage.chunk)), "linear": x}
        compiled(stage, (device,)).lower(True, x, t, jnp.float32(0.01), terms).compile()
