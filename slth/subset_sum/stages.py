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
import numpy as np
from jaxtyping import Array, Bool, Float

from slth.subset_sum.best import best_chunk
from slth.subset_sum.grid import grid_exponent, snap
from slth.subset_sum.large import large_chunk
from slth.subset_sum.one import describe, describe_quadratic, exact_mask, gram_exponent, quantise
from slth.subset_sum.problem import MAX_ENUMERATED, Objective, Solution
from slth.subset_sum.quadratic import quadratic_chunk
from slth.subset_sum.robust import robust_chunk
from slth.subset_sum.rows import apart
from slth.subset_sum.smallest import every_size_chunk, level_chunk

MAX_UNROLLED = 8192
MAX_FOLDED = 24  # beyond, meeting in the middle is faster than enumeration


class Stage(NamedTuple):
    """One kernel: hashable, so it names the compiled code."""

    objective: Objective
    kind: str
    chunk: int  # problems in one call
    options: tuple[int, ...] = ()


def plan(objective: Objective, m: int, size: int | None) -> tuple[Stage, ...]:
    """The stages for ``m`` variables; their chunks keep a kernel's arrays in the second-level cache."""
    halves = m > MAX_ENUMERATED
    exact = (
        Stage(objective, "halves", 64)
        if halves
        else Stage(objective, "exact", 512, () if size is None else (size,))
    )
    if size is not None or m < 6:
        return (exact,)
    if objective is Objective.BEST:
        folded = [Stage(objective, "folded", 4096, (4, 6))] if 12 <= m <= MAX_FOLDED else []
        return (*folded, exact) if halves else (*folded, Stage(objective, "folded", 4096, (1, 6)), exact)
    if objective is Objective.SMALLEST:
        levels = [Stage(objective, "levels", 16384, (0, 1, 2, 3))]
        if math.comb(m, 4) <= MAX_UNROLLED:
            levels.append(Stage(objective, "levels", 4096, (4,)))
        every = [Stage(objective, "every size", 1024, (6,))] if m <= MAX_FOLDED else []
        return (*levels, *every, exact)
    if objective is Objective.ROBUST:
        return Stage(objective, "rows", 4096, (6,)), exact
    return Stage(objective, "rows", 2048, (7,)), exact


def run_stage(
    stage: Stage,
    always: Bool[Array, ""],
    x: Float[Array, "m n"] | None,
    t: Float[Array, " n"] | None,
    tolerance: Float[Array, ""],
    terms: dict[str, Array],
) -> tuple[Solution, Bool[Array, " n"]]:
    """Solutions of one chunk, and for which problems they are sure; ``always`` is true (see `apart`)."""
    far = stage.objective is Objective.ROBUST
    p = None
    if x is not None and t is not None:
        exponent = apart(always, functools.partial(grid_exponent, far=far), x, t, tolerance)
        p = apart(always, functools.partial(snap, far=far), x, t, tolerance, exponent)
    mask, sure = _mask(stage, always, p, terms)
    if p is None or t is None:
        return describe_quadratic(mask, terms["gram"], terms["linear"]), sure
    return describe(p, t, mask), sure


def _mask(stage, always, p, terms):
    """Mask and sureness by the stage's kernel."""
    objective, kind, options = stage.objective, stage.kind, stage.options
    if kind == "exact":
        mask = exact_mask(p, objective, options[0] if options else None, **terms)
        return mask, jnp.ones(mask.shape, bool)
    if kind == "halves":
        mask = large_chunk(p, objective is Objective.SMALLEST)
        return mask, jnp.ones(mask.shape, bool)
    if kind == "folded":
        return best_chunk(p, always, folds=options[0], low=options[1])
    if kind == "levels":
        return level_chunk(p, options, always)
    if kind == "every size":
        return every_size_chunk(p, always, low=options[0])
    if objective is Objective.ROBUST:
        return robust_chunk(p, terms["price"], always, low=options[0])
    gram, linear = terms["gram"], terms["linear"]
    exponent = apart(always, gram_exponent, gram, linear)
    gram, linear = apart(always, quantise, gram, linear, exponent)
    return quadratic_chunk(gram, linear, always, low=options[0])


@functools.cache
def compiled(
    stage: Stage,
    devices: tuple[jax.Device, ...],  # pyright: ignore[reportInvalidTypeForm]  # a plain variable in jax
) -> Callable:
    """`run_stage` for one shape of arguments; on several devices each takes its share of the problems.

    Problems are independent, so a device computes what it would compute alone: results do not depend on how
    many there are.
    """
    function = functools.partial(run_stage, stage)
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.array(devices), ("problems",))
        split, same = jax.sharding.PartitionSpec("problems"), jax.sharding.PartitionSpec()
        rows = jax.sharding.PartitionSpec(None, "problems")
        terms = {"price": rows} if stage.objective is Objective.ROBUST else {}
        specs = (same, rows, split, same, terms)
        if stage.objective is Objective.QUADRATIC:
            terms = {"gram": jax.sharding.PartitionSpec(None, None, "problems"), "linear": rows}
            specs = (same, rows, split, same, terms)
        function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return jax.jit(function, compiler_options={"xla_cpu_prefer_vector_width": 512})


def compile_stages(objective: Objective | str, m: int, size: int | None = None) -> None:
    """Compile every kernel that `slth.subset_sum.solve` may use for ``m`` variables."""
    objective = Objective(objective)
    for stage in plan(objective, m, size):
        x, t, terms = jnp.ones((m, stage.chunk)), jnp.ones(stage.chunk), {}
        if objective is Objective.ROBUST:
            terms = {"price": x}
        if objective is Objective.QUADRATIC:
            x, t, terms = None, None, {"gram": jnp.ones((m, m, stage.chunk)), "linear": x}
        compiled(stage, (jax.local_devices()[0],)).lower(True, x, t, jnp.float32(0.01), terms).compile()
