r"""Which entries of several arrays are the k largest, exactly, inside a compiled step.

A float's bits, its sign turned round, are a whole number in the same order. The k-th largest is found bit by
bit: 32 counts of the entries that are no less, no sort.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

Arrays = Mapping[str, Float[Any, "..."]]
Words = dict[str, UInt[Array, "..."]]
Kept = dict[str, Bool[Array, "..."]]


def top(scores: Arrays, count: int | Int[Array, ""]) -> Kept:
    """True at the ``count`` largest of all entries together; of equals, at the first.

    Args:
      scores: finite numbers or infinities; -0 is as large as 0. Arrays come in the order of their names in
        the mapping, entries in row-major order.
      count: from 0 to the number of entries.

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import pruning
      >>> kept = pruning.top({"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}, 3)
      >>> kept["a"].tolist(), kept["b"].tolist()
      ([True, True], [False, True])
    """
    return _kept([_Group({path: _ordered(own) for path, own in scores.items()}, jnp.int32(count))])


def top_by_layer(scores: Arrays, counts: Mapping[str, int | Int[Array, ""]]) -> Kept:
    """True at so many largest entries of each array; of equals, at the first.

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import pruning
      >>> pruning.top_by_layer({"a": jnp.array([3.0, 1.0, 3.0])}, {"a": 1})["a"].tolist()
      [True, False, False]
    """
    return _kept([_Group({path: _ordered(own)}, jnp.int32(counts[path])) for path, own in scores.items()])


def top_with_floor(scores: Arrays, count: int | Int[Array, ""], floor: int) -> Kept:
    """As `top`, but each array keeps ``floor`` of its largest entries at least (all, if it has fewer)."""
    if floor == 0:
        return top(scores, count)
    least = {path: min(floor, own.size) for path, own in scores.items()}
    first = top_by_layer(scores, least)
    rest = {path: jnp.where(first[path], -jnp.inf, own) for path, own in scores.items()}
    more = top(rest, count - sum(least.values()))
    return {path: first[path] | more[path] for path in scores}


def _ordered(values: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Whole numbers in the order of the floats."""
    values = jnp.where(values == 0, 0, values)  # -0 becomes 0; a compiler may leave out a sum with 0
    bits = jax.lax.bitcast_convert_type(values, jnp.uint64 if values.dtype.itemsize == 8 else jnp.uint32)
    sign = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    return jnp.where(bits & sign, ~bits, bits | sign)


class _Group(NamedTuple):
    """Arrays that are ranked together."""

    words: Words
    count: Int[Array, ""]


def _kept(groups: list[_Group]) -> Kept:
    """Which are the largest of each group; all groups share one loop and one branch, quick to compile."""
    kind = next(iter(groups[0].words.values())).dtype
    width = 8 * kind.itemsize

    def with_bit(number: Int[Array, ""], lasts: list[Array]) -> list[Array]:
        bit = jnp.ones((), kind) << (width - 1 - number).astype(kind)
        return [
            jnp.where(
                _count({path: own >= last | bit for path, own in words.items()}) >= count, last | bit, last
            )
            for (words, count), last in zip(groups, lasts, strict=True)
        ]

    lasts = jax.lax.fori_loop(0, width, with_bit, [jnp.zeros((), kind) for _ in groups])
    pairs = list(zip(groups, lasts, strict=True))
    above = [{path: own > last for path, own in words.items()} for (words, _), last in pairs]
    equal = [{path: own == last for path, own in words.items()} for (words, _), last in pairs]
    spare = [count - _count(own) for (_, count), own in zip(groups, above, strict=True)]
    none_over = [left == _count(own) for left, own in zip(spare, equal, strict=True)]
    chosen = jax.lax.cond(
        jnp.stack(none_over).all(),
        lambda: equal,
        lambda: [_first(own, left) for own, left in zip(equal, spare, strict=True)],
    )
    return {path: own[path] | more[path] for own, more in zip(above, chosen, strict=True) for path in own}


def _first(equal: Kept, spare: Int[Array, ""]) -> Kept:
    """The first so many of the entries that are True."""
    found: Kept = {}
    for path, own in equal.items():
        flat = own.reshape(-1)
        found[path] = (flat & (jnp.cumsum(flat, dtype=jnp.int32) <= spare)).reshape(own.shape)
        spare = spare - flat.sum(dtype=jnp.int32)
    return found


def _count(kept: Kept) -> Int[Array, ""]:
    return reduce(add, (own.sum(dtype=jnp.int32) for own in kept.values()))
