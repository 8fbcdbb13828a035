"""Enumeration of all subsets as rows times columns, shaped so that XLA keeps it in vector registers.

A subset is a row (its *high* variables, a loop) and a column (its *low* variables, unrolled in one kernel of
a few hundred operations). All arrays hold one number a problem, problems last. Three rules make XLA's CPU
code fast: a kernel has one output (several would each compute it anew), its inputs are whole arrays in memory
(`apart`), and it neither slices nor concatenates at a variable offset. So a row's result is carried to the
next iteration and compared there, and the variables of a row are added under scalar conditions.

The two least results of different rows and the number of columns that attain the least are recorded: where
they leave a doubt the exact search decides by the rule for ties.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Integer

from slth.types import AnyArray

NEVER = np.int32(2**31 - 1)
COUNT = np.int32(1 << 16)  # one match, above the index of the latest

State = TypeVar("State")
Variable = TypeVar("Variable")


def apart(always: Bool[Array, ""], function: Callable, *arguments):
    """``function(*arguments)``, compiled as a unit of its own, given a value ``always`` that is true.

    Without it XLA merges a computation into each of its users and repeats it there, or builds kernels of
    thousands of operations that compile for minutes; it removes ``optimization_barrier`` too early to help.
    """
    function = jax.jit(function)  # so that it is traced once
    shapes = jax.eval_shape(function, *arguments)

    def nothing(*_):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return lax.cond(always, function, nothing, *arguments)


def add_selected(base: Array, values: Iterable[Array], bits: Integer[AnyArray, "*n"]) -> Array:
    """``base`` plus the values whose bit is set in ``bits``, a scalar or one number a problem."""
    for k, value in enumerate(values):
        base = base + jnp.where(((bits >> k) & 1) == 1, value, jnp.zeros_like(value))
    return base


def leaves(
    state: State, variables: Sequence[Variable], branch: Callable[[State, Variable], State], index: int = 0
) -> Iterator[tuple[int, State]]:
    """Depth first over all subsets of ``variables``: index and state of each, few states alive.

    ``branch(state, variable)`` is the state with the variable added; bit k of the index is variable k.
    """
    if not variables:
        yield index, state
        return
    k = len(variables) - 1
    yield from leaves(state, variables[:k], branch, index)
    yield from leaves(branch(state, variables[k]), variables[:k], branch, index | 1 << k)


def with_zeros(x: Iterable[Array]) -> tuple[list[Array], list[Array]]:
    """The variables, and 1 for each that is zero (it repeats every sum), else 0."""
    return list(x), [(v == 0).astype(jnp.int32) for v in x]


def residuals(
    t: Array, x: Sequence[Array], zero: Sequence[Array], row: Int[Array, "*n"], low: int
) -> Iterator[tuple[int, tuple[Array, Array]]]:
    """`leaves` of the first ``low`` variables: ``t`` minus the subset's sum; whether an x in it is zero.

    ``zero`` holds ``x == 0`` as integers; the variables of ``row`` count for the sum alone.
    """
    start = (add_selected(t, [-v for v in x[low:]], row), jnp.zeros_like(t))
    pairs = list(zip(x[:low], zero[:low], strict=True))
    return leaves(start, pairs, lambda s, v: (lax.sub(s[0], v[0]), lax.bitwise_or(s[1], v[1])))


def least_subset(
    always: Bool[Array, ""],
    n: int,
    high: int,
    low: int,
    kernel: Callable[[Int[Array, "*n"]], Int[Array, " n"]],
    matches: Callable[[Int[Array, " n"], Int[Array, " n"]], Iterator[tuple[int, Bool[Array, " n"]]]],
    window: Callable[[Int[Array, " n"]], Int[Array, " n"]] = lambda least: least,
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The subset of the least value, row above column, and whether it is surely the one within the window.

    Args:
      n: number of problems; ``high, low``: there are ``2**high`` rows and ``2**low`` columns.
      kernel: maps a row to the least value of its columns, non-negative and below `NEVER`.
      matches: maps a row and a limit to every column's index and whether its value is at most the limit.
      window: maps the least value to the limit within which another subset leaves a doubt.
    """

    def merge(state, value, row):
        least, second, best = state
        return (
            jnp.minimum(least, value),
            jnp.minimum(second, jnp.maximum(least, value)),
            jnp.where(value < least, row, best),
        )

    def step(row, carry):
        value, state = carry
        return kernel(row), merge(state, value, row - 1)

    never = jnp.full(n, NEVER)
    start = (never, (never, never, jnp.zeros(n, jnp.int32)))
    value, state = lax.fori_loop(0, 2**high, step, start)
    least, second, best = merge(state, value, 2**high - 1)
    limit = window(least)

    def columns(row, limit):
        code = jnp.zeros(n, jnp.int32)  # the index of the latest match, above it how many there are
        count, below = jnp.full(n, COUNT), jnp.full(n, -COUNT)
        for index, match in matches(row, limit):
            found = lax.bitwise_or(
                lax.bitwise_and(lax.add(code, count), below), jnp.full(n, index, jnp.int32)
            )
            code = lax.select(match, found, code)
        return code

    code = apart(always, columns, best, limit)
    return (best << low) | (code & ((1 << low) - 1)), (second > limit) & (code >> 16 == 1)
