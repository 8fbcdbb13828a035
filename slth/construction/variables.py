r"""The subset-sum problems of a part, made on the device that solves them.

A problem is a pair of a tap and a slot, and a row: one weight of the target for one copy of its output. Its
variables :math:`x_k = v_k g_k` are random weights times gains. All that differs between the problems of a
pair is which column the random weights are drawn from, so a part needs tables with one column for each pair,
and of each problem three numbers: pair, row and what is wanted. Nothing of the size of a layer of the source
is held.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from slth.construction.biases import unit_of
from slth.construction.state import Part
from slth.devices import SPLIT, WHOLE
from slth.source.drawn import Law, Recipe, split, values
from slth.subset_sum import Objective, Solution, solve
from slth.subset_sum.solve import Where, padded, solve_made, streamed
from slth.subset_sum.stages import VARIABLES, chunk_size, of_problems
from slth.types import AnyArray

TOGETHER = 2**20
"""Most problems that are looked at together."""
LEAST = 1024
"""Least columns of a table; others have this times a power of 16, so that few programs are compiled."""
CHUNK = 4096
"""Problems whose sums one program takes on a CPU."""
WORD = 32
DEAREST = 2.0**40
LARGEST = 8.0
"""Above the largest random number in units of its scale."""


class Tables(NamedTuple):
    """The variables of all pairs of a part; a pytree."""

    recipe: Recipe
    low: UInt32[AnyArray, "m pairs"]
    """Flat index of the first weight of the variable's row of the kernel, lower 32 bits."""
    high: UInt32[AnyArray, "..."]
    """Upper 32 bits; one 0 where no index has any."""
    columns: UInt32[AnyArray, " rows"]
    """Column of the kernel that each row reads."""
    gain: Float32[AnyArray, "m pairs"]
    """0 for a variable that is not there."""
    error: Float32[AnyArray, "m pairs"]
    """E² of each variable."""


class Weights(NamedTuple):
    """Problems of n weights of one part, m variables each."""

    path: str
    """Of the part."""
    law: Law
    tables: Tables
    gain: Float32[np.ndarray, "m pairs"]
    """Those of the tables; 0 for a variable that cannot be chosen."""
    noise: Float32[np.ndarray, "m pairs"]
    """E² / R² of each variable."""
    pair: Int[np.ndarray, " n"]
    """Number of the tap times the number of slots, and that of the slot."""
    row: Int[np.ndarray, " n"]
    """Number of the copy among all of the node."""
    t: Float[np.ndarray, " n"]
    """What is wanted."""
    tolerance: float
    """Epsilon in the units of x and t."""
    priced: bool
    """Whether the variables are univariate channels that are not exact."""

    @property
    def variables(self) -> int:
        """m."""
        return len(self.gain)

    def some(self, index: np.ndarray) -> "Weights":
        """Some of the problems."""
        return self._replace(pair=self.pair[index], row=self.row[index], t=self.t[index])

    def with_all(self) -> "Weights":
        """The problems with all variables that are there."""
        return self._replace(gain=self.tables.gain)


def weights_of(part: Part, columns: Int[np.ndarray, " rows"], tolerance: float) -> Iterator[Weights]:
    """The problems of a part's weights that are not 0, some pairs at a time, all variables of a slot each.

    Args:
      columns: source channel of each copy of each output.
    Raises: ValueError for weights that are infinite or no numbers.
    """
    slots, random = part.stream.slots, part.random
    if not np.isfinite(part.weight).all():
        raise ValueError(f"{part.path}: the target has weights that are infinite or no numbers")
    taps, count = len(random.rows), len(slots.channel)
    copies = len(columns) // part.weight.shape[2]
    width = _size(taps * count)

    def table(by_slot: Float[np.ndarray, "slots m"]) -> Float32[np.ndarray, "m pairs"]:
        return padded(np.tile(by_slot.T, taps).astype(np.float32), width, 0.0)

    place = random.rows[:, slots.members].reshape(taps * count, -1).T * random.width
    low, high = split(padded(place, width, 0), beyond=random.beyond)
    own = padded(random.columns[columns].astype(np.uint32), _size(len(columns)), 0)
    gain = table(slots.gain)
    tables = Tables(random.recipe, low, high, own, gain, table(part.stream.noise))
    ratio = part.stream.noise / np.maximum(part.rms**2, 1e-30)[:, None]
    usable = table(np.where(slots.usable, slots.gain, 0))
    noise = table(np.minimum(ratio, DEAREST))
    goal = part.goal.reshape(taps * count, -1)
    rows = np.arange(len(columns)).reshape(-1, copies)
    some = max(1, TOGETHER // max(1, len(columns)))
    for start in range(0, len(goal), some):
        pair, output = np.nonzero(goal[start : start + some])
        wanted = np.repeat(goal[start + pair, output], copies)
        pair, row = np.repeat(start + pair, copies), rows[output].reshape(-1)
        if len(pair):
            yield Weights(
                *(part.path, random.law, tables, usable, noise, pair, row, wanted),
                *(tolerance * part.scale, part.priced),
            )


def _size(count: int) -> int:
    """Columns of a table."""
    size = LEAST
    while size < count:
        size *= 16
    return size


def grouped(weights: Weights, chosen: slice) -> Weights:
    """The problems with some of the variables of each slot."""
    tables = weights.tables
    high = tables.high[chosen] if np.ndim(tables.high) else tables.high
    own = tables._replace(
        low=tables.low[chosen], high=high, gain=tables.gain[chosen], error=tables.error[chosen]
    )
    return weights._replace(tables=own, gain=weights.gain[chosen], noise=weights.noise[chosen])


def solve_weights(
    weights: Weights,
    objective: Objective,
    *,
    size: int | None = None,
    price: Float32[np.ndarray, "m pairs"] | None = None,
) -> Solution:
    """The subset of each problem that the objective asks for.

    Values of any size are solved in units of a power of 2 that suits the subset-sum engine.

    Args:
      price: of each variable, in units of its squared random weight.
    Raises: ValueError for a price that is infinite or no number.
    """
    if price is not None and not np.isfinite(price).all():
        raise ValueError(
            f"{weights.path}: the errors that its inputs carry are infinite or no numbers: do activations on "
            "the calibration images overflow?"
        )
    recipe = weights.tables.recipe
    most = float(np.abs(recipe.values).max(initial=0)) if weights.law.held else LARGEST * float(recipe.scale)
    largest = max(most * float(np.abs(weights.gain).max(initial=0)), float(np.abs(weights.t).max(initial=0)))
    unit = unit_of(largest, weights.tolerance)
    t, tolerance = (weights.t / unit).astype(np.float32), weights.tolerance / unit
    gain = weights.gain / np.float32(unit)
    tables = weights.tables._replace(gain=gain)
    price = None if price is None else price / np.float32(unit) / np.float32(unit)
    m, n = weights.variables, len(t)
    devices = tuple(jax.local_devices())
    run = _problems(weights.law, devices, price is not None)

    def make(where: Where, chunk: int) -> dict[str, AnyArray]:
        here = (padded(a[where], chunk, 0) for a in (weights.pair, weights.row, t))
        return run(tables, price, *here)

    if size is None:
        return solve_made(make, m, n, objective, tolerance=tolerance)
    # Of a fixed size not every problem has a solution that can be afforded: `solve` looks at them.
    chunk = CHUNK * len(devices)
    chunks = [make(slice(start, start + chunk), chunk) for start in range(0, n, chunk)]
    found = {name: np.concatenate([one[name] for one in chunks], -1)[..., :n] for name in chunks[0]}
    return solve(found["x"], found["t"], objective, tolerance=tolerance, size=size, price=found.get("price"))


@functools.cache
def _problems(law: Law, devices: tuple, priced: bool) -> Callable:
    """The compiled program that makes the terms of some problems."""

    def run(tables: Tables, price: Array | None, pair: Array, row: Array, t: Array) -> dict[str, Array]:
        v, x = _variables(law, tables, pair, row)
        found = {"x": x, "t": t}
        return found if price is None else found | {"price": jnp.minimum(v * v * price[:, pair], DEAREST)}

    specs = (WHOLE, WHOLE, SPLIT, SPLIT, SPLIT)
    terms = {"x": VARIABLES, "t": SPLIT} | ({"price": VARIABLES} if priced else {})
    return of_problems(run, devices, specs, terms)


def _variables(
    law: Law, tables: Tables, pair: Int[Array, " n"], row: Int[Array, " n"]
) -> tuple[Float[Array, "m n"], Float[Array, "m n"]]:
    """Random weights v of some problems, and the variables x."""
    low = jnp.asarray(tables.low)[:, pair]
    place = low + jnp.asarray(tables.columns)[row][None]
    high = jnp.asarray(tables.high)
    if high.ndim:
        high = high[:, pair] + (place < low)  # the sum may cross a multiple of 2^32
    v = values(law, tables.recipe, place, high)
    return v, v * jnp.asarray(tables.gain)[:, pair]


class Sums(NamedTuple):
    """What the chosen subsets of n problems come to."""

    mask: UInt32[np.ndarray, "words n"]
    """The kept variables that are there: bit k mod 32 of word k // 32 says whether variable k is kept."""
    left: Float[np.ndarray, " n"]
    """What is wanted less the sum."""
    size: Int[np.ndarray, " n"]
    noise: Float[np.ndarray, " n"]
    """Sum of v² E²."""
    power: Float[np.ndarray, " n"]
    """Sum of v²."""
    total: Float[np.ndarray, " n"]
    """Sum of v."""


def sums_of(weights: Weights, mask: UInt32[np.ndarray, "words n"]) -> Sums:
    """The sums of subsets, of all variables that are there whether they could be chosen or not."""
    mask, size, *sums = _by_chunk(_sums, (VARIABLES, *(SPLIT,) * 5), weights, mask)
    left, noise, power, total = (a.astype(np.float64) for a in sums)
    return Sums(mask, left, size, noise, power, total)


def nearest_of(weights: Weights) -> tuple[UInt32[np.ndarray, "words n"], Bool[np.ndarray, " n"]]:
    """The nearest variable of each problem, or none where 0 is nearer, the first of equals; and whether it is
    within the tolerance."""
    chosen = weights._replace(tables=weights.tables._replace(gain=weights.gain))
    nearest, error = _by_chunk(_nearest, (SPLIT, SPLIT), chosen)
    words = np.zeros((math.ceil(weights.variables / WORD), len(nearest)), np.uint32)
    kept = np.flatnonzero(nearest >= 0)
    words[nearest[kept] // WORD, kept] = np.uint32(1) << (nearest[kept] % WORD).astype(np.uint32)
    return words, error <= weights.tolerance


def beyond_of(weights: Weights) -> Float[np.ndarray, " n"]:
    """How far what is wanted lies from all sums that the variables have."""
    (found,) = _by_chunk(_beyond, (SPLIT,), weights)
    return found.astype(np.float64)


Program = Callable[..., tuple[Array, ...]]


def _by_chunk(
    function: Program, out: tuple[PartitionSpec, ...], weights: Weights, *mask: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What a function of problems says of all of them; ``out``: how its arrays lie on several devices."""
    devices = tuple(jax.local_devices())
    run = _compiled(function, out, weights.law, devices, len(mask))
    t = weights.t.astype(np.float32)
    chunk = chunk_size(devices[0].platform, CHUNK, 8 * weights.variables) * len(devices)

    def send(start: int) -> tuple[int, tuple[Array, ...]]:
        here = slice(start, start + chunk)
        terms = (padded(a[..., here], chunk, 0) for a in (weights.pair, weights.row, t, *mask))
        return min(chunk, len(t) - start), run(weights.tables, *terms)

    def receive(sent: tuple[int, tuple[Array, ...]]) -> tuple[np.ndarray, ...]:
        count, arrays = sent
        return tuple(np.asarray(a)[..., :count] for a in arrays)

    found = streamed(send, receive, range(0, len(t), chunk))
    return tuple(np.concatenate(parts, -1) for parts in zip(*found, strict=True))


@functools.cache
def _compiled(
    function: Program, out: tuple[PartitionSpec, ...], law: Law, devices: tuple, masks: int
) -> Callable:
    specs = (WHOLE, *(SPLIT,) * 3, *(VARIABLES,) * masks)
    return of_problems(functools.partial(function, law), devices, specs, out)


def _sums(law: Law, tables: Tables, pair: Array, row: Array, t: Array, mask: Array) -> tuple[Array, ...]:
    v, x = _variables(law, tables, pair, row)
    number = np.arange(len(x), dtype=np.uint32)
    on = ((mask[number // WORD] >> (number % WORD)[:, None]) & 1 == 1) & (x != 0)
    kept = jnp.where(on, v, 0)
    bits = on.astype(jnp.uint32) << (number % WORD)[:, None]
    words = [bits[start : start + WORD].sum(0, dtype=jnp.uint32) for start in range(0, len(x), WORD)]
    power = kept * kept
    noise = jnp.where(on, power * jnp.asarray(tables.error)[:, pair], 0)
    sums = (t - jnp.where(on, x, 0).sum(0), noise.sum(0), power.sum(0), kept.sum(0))
    return jnp.stack(words), on.sum(0), *sums


def _nearest(law: Law, tables: Tables, pair: Array, row: Array, t: Array) -> tuple[Array, ...]:
    _, x = _variables(law, tables, pair, row)
    away = jnp.abs(t[None] - x)
    error = away.min(0)
    return jnp.where(error < jnp.abs(t), away.argmin(0), -1), jnp.minimum(error, jnp.abs(t))


def _beyond(law: Law, tables: Tables, pair: Array, row: Array, t: Array) -> tuple[Array, ...]:
    _, x = _variables(law, tables, pair, row)
    return (t - jnp.clip(t, jnp.minimum(x, 0).sum(0), jnp.maximum(x, 0).sum(0)),)
