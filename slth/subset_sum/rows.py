"""Enumeration of all subsets as rows times columns, shaped so that XLA keeps it in vector registers.

A subset is a row (its *high* variables, a loop) and a column (its *low* variables, unrolled in one kernel of
a few hundred operations). All arrays hold one number a problem, problems last. Three rules make XLA's CPU
code fast: a kernel has one output (several would each compute it anew), its inputs are whole arrays in memory
(`apart`), and it neither slices nor concatenates at a variable offset. So a row's result is carried to the
next iteration and compared there, and the variables of a row are added under scalar conditions.

The two least results of different rows and the number of columns that attain the least are recorded: where
they leave a doubt the exact search decides by the rule for ties.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

NEVER = np.int32(2**31 - 1)
COUNT = np.int32(1 << 16)  # a match adds this to a code whose lower half holds its index

State = TypeVar("State")
Variable = TypeVar("Variable")


def apart(always: Bool[Array, ""], function: Callable, *arguments):
    """``function(*arguments)``, compiled as a unit of its own, given a value ``always`` that is true.

    Without it XLA merges a computation into each of its users and repeats it there, or builds kernels of
    thousands of operations that compile for minutes; it removes ``optimization_barrier`` too early to help.
    """
    shapes = jax.eval_shape(function, *arguments)

    def nothing(*_):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return jax.lax.cond(always, function, nothing, *arguments)


class TwoLeast(NamedTuple):
    """Least value over the rows, the row that has it, and the least value of any other row."""

    least: Int[Array, " n"]
    second: Int[Array, " n"]
    row: Int[Array, " n"]


def two_least(rows: int, n: int, kernel: Callable[[Int[Array, ""]], Int[Array, " n"]]) -> TwoLeast:
    """`TwoLeast` of ``kernel(row)``, non-negative and below `NEVER`, over ``row`` in ``range(rows)``."""

    def merge(state: TwoLeast, value, row):
        return TwoLeast(
            jnp.minimum(state.least, value),
            jnp.minimum(state.second, jnp.maximum(state.least, value)),
            jnp.where(value < state.least, row, state.row),
        )

    def step(row, carry):
        value, state = carry
        return kernel(row), merge(state, value, row - 1)

    never = jnp.full(n, NEVER)
    value, state = jax.lax.fori_loop(0, rows, step, (never, TwoLeast(never, never, jnp.zeros(n, jnp.int32))))
    return merge(state, value, rows - 1)


def add_selected(base: Array, values: Sequence[Array], bits: Int[Array, "*n"]) -> Array:
    """``base`` plus the values whose bit is set in ``bits``, a scalar or one number a problem."""
    for k, value in enumerate(values):
        base = base + jnp.where(((bits >> k) & 1) == 1, value, jnp.zeros_like(value))
    return base


def leaves(
    states: State,
    variables: Sequence[Variable],
    branch: Callable[[State, Variable], State],
    visit: Callable[[int, State], None],
    index: int = 0,
) -> None:
    """Depth first over all subsets of ``variables``: ``visit(index, state)`` at each, few states alive.

    ``branch(state, variable)`` is the state with the variable added; bit k of ``index`` is variable k.
    """
    if not variables:
        visit(index, states)
        return
    k = len(variables) - 1
    leaves(states, variables[:k], branch, visit, index)
    leaves(branch(states, variables[k]), variables[:k], branch, visit, index | 1 << k)


def record(code: Int[Array, " n"], match: Bool[Array, " n"], index: int) -> Int[Array, " n"]:
    """``code`` with one more match counted in the upper half and the latest match's index in the lower."""
    return jnp.where(match, ((code + COUNT) & -COUNT) | np.int32(index), code)
