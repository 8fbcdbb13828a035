"""Exact search over all ``2**m`` subsets of one problem by lexicographic integer keys, for every objective.

A subset's key is a short tuple of non-negative integers, the last of which is ``size << m | mask``; the
solution is the subset of the least key. Batch axes come last and all work is elementwise over them, so the
same function serves one problem (no batch axis), ``jit`` and ``vmap``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from slth.subset_sum.grid import Snapped, power_of_two
from slth.subset_sum.problem import Objective
from slth.subset_sum.quadratic import gram_exponent, quantise
from slth.subset_sum.rows import add_selected

LOW_VARIABLES = 6
WORST = np.uint32(0xFFFFFFFF)

Key = tuple[UInt32[Array, "*n"], ...]
Keys = tuple[UInt32[Array, "s *n"], ...]  # of s subsets of each problem


def subset_table(values: Int[Array, "m *n"]) -> Int[Array, "s *n"]:
    """Sums of all ``2**m`` subsets, row ``b`` holding the subset with bits ``b``."""
    table = jnp.zeros((1, *values.shape[1:]), values.dtype)
    for row in values:
        table = jnp.concatenate([table, table + row[None]])
    return table


def least(keys: Keys) -> Key:
    """The lexicographically least key along axis 0."""
    alive, result = None, []
    for word in keys:
        word = word if alive is None else jnp.where(alive, word, WORST)
        lowest = word.min(axis=0)
        alive = (word == lowest[None]) if alive is None else alive & (word == lowest[None])
        result.append(lowest)
    return tuple(result)


def smaller(a: Key, b: Key) -> Key:
    """The lexicographically smaller of two keys, elementwise."""
    less, equal = jnp.zeros(a[0].shape, bool), jnp.ones(a[0].shape, bool)
    for u, v in zip(a, b, strict=True):
        less, equal = less | (equal & (u < v)), equal & (u == v)
    return tuple(jnp.where(less, u, v) for u, v in zip(a, b, strict=True))


def search(
    m: int,
    batch: tuple[int, ...],
    keys_of_row: Callable[[Int[Array, ""], UInt32[Array, "s *n"]], Keys],
    words: int,
    size: int | None,
) -> UInt32[Array, "*n"]:
    """Mask of the least key over all subsets, or over those of exactly ``size`` variables.

    Args:
      keys_of_row: maps a row (the bits of the variables above the first ``LOW_VARIABLES``, a traced scalar)
        and the sizes of the row's subsets, shape (2**low, 1, ...), to the row's leading key words, each of
        shape (2**low, *batch).
      words: how many leading words there are.
    """
    low = min(m, LOW_VARIABLES)
    column = (2**low,) + (1,) * len(batch)
    low_bits = np.arange(2**low, dtype=np.uint32).reshape(column)
    low_size = np.bitwise_count(low_bits).astype(np.uint32)

    def step(row, best):
        bits = row.astype(jnp.uint32)
        sizes = jax.lax.population_count(bits) + low_size
        keys = keys_of_row(row, sizes)
        last = (sizes << m) | (bits << low) | low_bits
        keys = (*keys, jnp.broadcast_to(last, column[:1] + batch))
        if size is not None:
            keys = tuple(jnp.where(sizes == size, word, WORST) for word in keys)
        return smaller(least(keys), best)

    worst = tuple(jnp.full(batch, WORST) for _ in range(words + 1))
    best = jax.lax.fori_loop(0, 2 ** (m - low), step, worst)
    return best[-1] & np.uint32((1 << m) - 1)


def exact_chunk(
    p: Snapped | None, _: Bool[Array, ""], objective: Objective, size: int | None, **terms: Array
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """`exact_mask`, of which it is always sure."""
    mask = exact_mask(p, objective, size, **terms)
    return mask, jnp.ones(mask.shape, bool)


def exact_mask(
    p: Snapped | None, objective: Objective, size: int | None, **terms: Array
) -> UInt32[Array, "*n"]:
    """The optimal mask by full enumeration; ``terms`` are ``price`` (q / r), or ``gram`` and ``linear``."""
    if objective is Objective.QUADRATIC:
        exponent = gram_exponent(terms["gram"], terms["linear"])
        return quadratic_mask(*quantise(terms["gram"], terms["linear"], exponent), size)
    assert p is not None  # only quadratic problems come without x and t
    if objective is Objective.ROBUST:
        return robust_mask(p, price_digits(terms["price"], p.exponent), size)
    return error_mask(p, objective is Objective.SMALLEST, size)


def row_errors(p: Snapped) -> Callable[[Int[Array, ""]], Int[Array, "s *n"]]:
    """The function from a row to the errors of its subsets, in grid steps."""
    table = subset_table(p.x[:LOW_VARIABLES])
    return lambda row: (p.t - add_selected(jnp.zeros_like(p.t), p.x[LOW_VARIABLES:], row))[None] - table


def error_mask(p: Snapped, smallest: bool, size: int | None) -> UInt32[Array, "*n"]:
    r"""Mask of the least :math:`|t - \sum_S x|`, or of the smallest subset within the tolerance.

    Of equally small subsets it is that of the least error; if none is within the tolerance, the best.
    """
    errors, none = row_errors(p), np.uint32(p.x.shape[0] + 1)

    def keys(row, sizes):
        error = jnp.abs(errors(row))
        key = error.astype(jnp.uint32)
        return (jnp.where(error <= p.tolerance[None], sizes, none), key) if smallest else (key,)

    return search(p.x.shape[0], p.t.shape, keys, 2 if smallest else 1, size)


DIGIT = 30  # costs of `robust` are numbers of two digits in base 2**30
Digits = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]  # high, low


def add_digits(a: Digits, b: Digits) -> Digits:
    """Sum of two-digit numbers; the high digit saturates at ``2**30``."""
    low = a[1] + b[1]
    high = jnp.minimum(a[0] + b[0] + (low >> DIGIT), np.uint32(1 << DIGIT))
    return high, low & np.uint32((1 << DIGIT) - 1)


def square_digits(error: Int[Array, "*n"]) -> Digits:
    """``error**2`` for ``|error| <= 2**30``, by half-digits."""
    e = jnp.abs(error).astype(jnp.uint32)
    high, low = e >> 15, e & np.uint32(0x7FFF)
    middle = 2 * high * low
    rest = ((middle & np.uint32(0x7FFF)) << 15) + low * low
    return high * high + (middle >> 15) + (rest >> DIGIT), rest & np.uint32((1 << DIGIT) - 1)


def price_digits(price: Float[Array, "m *n"], exponent: Int[Array, "*n"]) -> Digits:
    """``rint(price * 4**exponent)`` as two digits; saturates at ``2**60``."""
    scale = power_of_two(exponent)[None]
    steps = jnp.minimum(jnp.rint(price * scale * scale), 2.0**60)
    high = jnp.floor(steps * 2.0**-DIGIT)
    return high.astype(jnp.uint32), (steps - high * 2.0**DIGIT).astype(jnp.uint32)


def robust_mask(p: Snapped, price: Digits, size: int | None) -> UInt32[Array, "*n"]:
    r"""Mask of the least :math:`E^2 + \sum_S p_k`, an exact integer of 60 bits.

    ``price`` holds digits (m, *n).
    """
    m = p.x.shape[0]
    split, errors = min(m, LOW_VARIABLES), row_errors(p)
    zero = jnp.zeros((1, *p.t.shape), jnp.uint32)
    table: Digits = (zero, zero)
    for k in range(split):
        more = add_digits(table, (price[0][k][None], price[1][k][None]))
        table = jnp.concatenate([table[0], more[0]]), jnp.concatenate([table[1], more[1]])

    def keys(row, sizes):
        cost = add_digits(square_digits(errors(row)), table)
        for k in range(split, m):
            chosen = ((row >> (k - split)) & 1).astype(jnp.uint32)
            cost = add_digits(cost, (price[0][k][None] * chosen, price[1][k][None] * chosen))
        return cost

    return search(m, p.t.shape, keys, 2, size)


def quadratic_mask(
    gram: Int[Array, "m m *n"], linear: Int[Array, "m *n"], size: int | None
) -> UInt32[Array, "*n"]:
    r"""Mask of the least :math:`b^T G b - 2 c^T b` for integer G and 2c (``linear``)."""
    m, batch = linear.shape[0], linear.shape[1:]
    split = min(m, LOW_VARIABLES)
    gram, linear = gram[:, :, None], linear[:, None]  # an axis for the columns
    own = [gram[i, i] - linear[i] for i in range(m)]
    columns = np.arange(2**split, dtype=np.int32).reshape((-1,) + (1,) * len(batch))
    added = [add_selected(own[i], [2 * gram[i, j] for j in range(i)], columns) for i in range(split)]
    low = add_selected(jnp.full((2**split, *batch), np.int32(1 << 30)), added, columns)

    def keys(row, sizes):
        zero, high = jnp.zeros((1, *batch), jnp.int32), range(split, m)
        added = [add_selected(own[k], [2 * gram[j, k] for j in range(split, k)], row) for k in high]
        slopes = [add_selected(zero, [2 * gram[i, k] for k in high], row) for i in range(split)]
        value = low + add_selected(zero, added, row)
        return (add_selected(value, slopes, columns).astype(jnp.uint32),)

    return search(m, batch, keys, 1, size)
