"""The counter-based generator: (seed, names, flat index) -> value.

Every random number of a source network is a pure function of its place, so any slice can be drawn
on any device, in any order, with the same bits. Let M be the 32-bit finaliser lowbias32 (xor-shift,
multiply, xor-shift, multiply, xor-shift; C. Wellons, "Prospecting for hash functions", 2018), a
bijection of the 32-bit words. With the key (k0, k1) and the index (high, low) = (index >> 32,
index mod 2^32), all sums modulo 2^32,

    s1 = M(high ^ k1),    s0 = M(s1 + k0),    a = M(low ^ s0),    bits = M(a + s1) + a.

Two rounds keyed in between decorrelate neighbours, keys and blocks; adding ``a`` makes the map of
one block of 2^32 indices a function with the collisions of a random one, where M(a + s1) alone
would be a permutation. The subkeys cost nothing when ``high`` is a scalar. The generator is built
for statistics, not secrecy.

Values lie on the grid 2^-24: exact in float32 and, times 2^24, in int32. Only integer operations, a
conversion of int32 to float32 and products by powers of two are used, so no device, compiler or
batch split changes a bit.
"""

import hashlib
import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist
from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from slth.types import AnyArray

GRID = 2.0**-24  # every value is an integer multiple of this

Key = UInt32[AnyArray, "2"]
Words = UInt32[Array, "..."]

_WORD = 2**32
_SEGMENTS = 256  # linear pieces in each octave of the tail probability


def key(seed: SupportsIndex, *names: str) -> UInt32[np.ndarray, "2"]:
    """The key of a named stream: the first 64 bits of BLAKE2b(seed, names), as two words.

    Args:
      seed: 0 <= seed < 2^64.
      names: what the stream is for, from coarse to fine, such as ``"conv1", "kernel"``; hashed with
        their lengths, so ``("ab", "c")`` and ``("a", "bc")`` differ.
    Returns: shape (2,), uint32, in NumPy: made on the host, a plain argument of jitted functions.
    Raises: TypeError or ValueError if the seed is no such integer or a name is no string.

    >>> key(0, "conv1", "kernel")
    array([ 442838487, 2318130997], dtype=uint32)
    """
    number = operator.index(seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed must be in [0, 2^64), got {number}")
    digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"names of a key must be strings, got {name!r}")
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return np.frombuffer(digest.digest(), dtype="<u4").astype(np.uint32)


def uniform(key: Key, shape: Sequence[int], start: int = 0) -> Float32[Array, "*shape"]:
    """U[-1, 1) on the grid at the flat indices start, start + 1, ..., filling ``shape`` row-major.

    A value is k 2^-24, k uniform on {-2^24, ..., 2^24 - 1}: mean -2^-25, variance 1/3 to within 2^-49. It
    depends on the key and its own index only. ``start`` is any integer in [0, 2^64), and no new value of it
    compiles anew; at most 2^32 values at once.

    >>> whole = uniform(key(0, "conv1"), (4, 3))
    >>> bool((whole[2:] == uniform(key(0, "conv1"), (2, 3), start=6)).all())
    True
    """
    return _draw(key, _words(shape, start), tuple(shape), as_uniform)


def normal(key: Key, shape: Sequence[int], start: int = 0) -> Float32[Array, "*shape"]:
    """N(0, 1) on the grid at the flat indices start, start + 1, ..., filling ``shape`` row-major.

    By inversion in integers: one bit is the sign; 31 bits, plus one, are t in {1, ..., 2^31}, and |x| is
    Q^-1((t - 1/2) 2^-32), Q the upper tail probability, by linear interpolation in a table of 256
    pieces for each octave of t, computed in float64.

    Accuracy: |x| within 1e-6 of the exact quantile up to |x| = 6.33, the largest value (probability
    2^-31); beyond |x| = 1 the step of float32, a multiple of the grid, adds up to 2^-22.
    Kolmogorov distance to N(0, 1) below 4e-7. ``start`` and ``shape`` as for `uniform`.
    Source: hierarchical segmentation of the inverse CDF, Lee et al., IEEE FPL 2006.
    """
    return _draw(key, _words(shape, start), tuple(shape), as_normal)


def bernoulli(key: Key, probability: float, shape: Sequence[int], start: int = 0) -> Bool[Array, "*shape"]:
    """True with a probability (to within 2^-33), at the flat indices start, start + 1, ..., row-major.

    The 32 bits at an index, as an integer, lie below probability 2^32; so at equal keys what is True at one
    probability is True at every larger one. ``start`` and ``shape`` as for `uniform`.
    Raises: ValueError if the probability is not in [0, 1].

    >>> drawn = bernoulli(key(0, "edges"), 0.25, (100, 100))
    >>> round(float(drawn.mean()), 2)
    0.25
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability lies in [0, 1], got {probability}")
    below = round(probability * _WORD)
    if below == 0:
        return jnp.zeros(tuple(shape), bool)
    return _draw(key, _words(shape, start), tuple(shape), _as_bits) <= np.uint32(below - 1)


def words(key: Key, low: Words, high: Words) -> Words:
    """The 32 random bits at any flat indices, ``high * 2^32 + low``: for use inside jitted functions.

    `as_uniform` and `as_normal` make of them the values that `uniform` and `normal` have at these indices.

    >>> import jax.numpy as jnp
    >>> places = jnp.array([7, 2], jnp.uint32)
    >>> found = as_uniform(words(key(0, "a"), places, jnp.uint32(0)))
    >>> bool((found == uniform(key(0, "a"), (10,))[places]).all())
    True
    """
    return _hash(low, *_subkeys(key, high))


def snap(x: Float32[AnyArray, "*shape"]) -> Float32[AnyArray, "*shape"]:
    """The nearest multiple of 2^-24, ties to even: what a draw times a scale needs.

    Exact, and the same on every device: float32 values of 1 and more are multiples already.
    """
    return (x.astype(np.float32, copy=False) * np.float32(1 / GRID)).round() * np.float32(GRID)


@partial(jax.jit, static_argnames=("shape", "convert"))
def _draw(
    key: Key, start: tuple[Words, Words], shape: tuple[int, ...], convert: Callable[[Words], Array]
) -> Array:
    low, high = start
    place = low + jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    here, beyond = _subkeys(key, high), _subkeys(key, high + np.uint32(1))
    carried = place < low  # a slice may cross one multiple of 2^32
    s0, s1 = (jnp.where(carried, b, h) for h, b in zip(here, beyond, strict=True))
    return convert(_hash(place, s0, s1))


def _words(shape: Sequence[int], start: int) -> tuple[UInt32[np.ndarray, ""], UInt32[np.ndarray, ""]]:
    start, size = operator.index(start), math.prod(shape)
    if any(n < 0 for n in shape) or size > _WORD:
        raise ValueError(
            f"a draw has at most 2^32 values and no negative length, got {tuple(shape)}: slice it"
        )
    if not 0 <= start <= _WORD**2 - max(size, 1):
        raise ValueError(f"flat indices must lie in [0, 2^64), got start {start} and {size} values")
    return np.array(start % _WORD, np.uint32), np.array(start // _WORD, np.uint32)


def _mix(x: Words) -> Words:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _subkeys(key: Key, high: Words) -> tuple[Words, Words]:
    k0, k1 = jnp.asarray(key, jnp.uint32)
    s1 = _mix(high ^ k1)
    return _mix(s1 + k0), s1


def _hash(low: Words, s0: Words, s1: Words) -> Words:
    a = _mix(low ^ s0)
    return _mix(a + s1) + a


def _as_bits(word: Words) -> Words:
    return word


def as_uniform(word: Words) -> Float32[Array, "..."]:
    """U[-1, 1) on the grid, of the random bits (see `uniform`)."""
    return _on_grid(jax.lax.bitcast_convert_type(word, jnp.int32) >> 7)  # the upper 25 bits, signed


def as_normal(word: Words) -> Float32[Array, "..."]:
    """N(0, 1) on the grid, of the random bits (see `normal`)."""
    tail = (word & np.uint32(_WORD // 2 - 1)) + np.uint32(1)
    shift = jax.lax.clz(tail)
    mantissa = tail << shift  # leading one at bit 31, then 8 bits of piece, then the place within it
    piece = (mantissa >> 23) & np.uint32(_SEGMENTS - 1)
    place = (mantissa >> 7) & np.uint32(0xFFFF)
    index = (((np.uint32(31) - shift) << 8) | piece).astype(jnp.int32)
    table = jnp.asarray(_TABLE)
    start = table.at[index].get(mode="promise_in_bounds")
    stop = table.at[index + 1].get(mode="promise_in_bounds")
    drop = ((start - stop).astype(jnp.uint32) * place) >> 16  # below 2^16 times below 2^16
    units = start - drop.astype(jnp.int32)
    return _on_grid(jnp.where(word >> 31 == 1, -units, units))


def _on_grid(units: Int32[Array, "*index"]) -> Float32[Array, "*index"]:
    return units.astype(jnp.float32) * np.float32(GRID)


def _quantiles() -> Int32[np.ndarray, " entries"]:
    """Q^-1((t - 1/2) 2^-32) 2^24, rounded, at t = 2^e (1 + j/256), e < 31, then at 2^31 twice."""
    inverse = NormalDist().inv_cdf
    octaves = [2**e * (1 + j / _SEGMENTS) for e in range(31) for j in range(_SEGMENTS)]
    tails = [*octaves, 2**31, 2**31]
    return np.array([round(-inverse((t - 0.5) / _WORD) / GRID) for t in tails], dtype=np.int32)


_TABLE = _quantiles()
