"""A kernel of the source that is drawn where it is read: single places, on the device that needs them.

A value depends on its place alone (`slth.random`), so a kernel needs no memory: whoever solves a weight draws
the few variables of this weight there and then.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, UInt32

from slth import random
from slth.nn import parameter_shapes
from slth.source.source import Source, layer_scale
from slth.types import AnyArray, Shape

LEAST, MOST = 2**12, 2**20
"""Values that one program draws: a power of 16 times the least, so that few programs are compiled."""
WORD = 2**32


class Law(NamedTuple):
    """How the values of a kernel follow from its recipe: hashable, so it names the compiled code."""

    normal: bool = False
    positive: bool = False
    sparse: bool = False
    held: bool = False
    """Whether the recipe holds the values themselves."""


class Recipe(NamedTuple):
    """What the values of a kernel follow from, beside their places; a pytree."""

    key: UInt32[AnyArray, "2"]
    scale: Float32[AnyArray, ""]
    edges: UInt32[AnyArray, "2"]
    """Key of what is there in a sparse source."""
    most: UInt32[AnyArray, ""]
    """The largest random word of a weight that is there."""
    values: Float32[AnyArray, " held"]
    """Values that are held, row-major; none of a source's kernel."""


def values(law: Law, recipe: Recipe, low: Array, high: Array) -> Array:
    """The kernel's values at the flat indices ``high * 2^32 + low``, for use inside jitted functions."""
    if law.held:
        return jnp.asarray(recipe.values)[low]
    word = random.words(recipe.key, low, high)
    unit = random.as_normal(word) if law.normal else random.as_uniform(word)
    drawn = jnp.asarray(random.snap(recipe.scale * unit))
    drawn = jnp.abs(drawn) if law.positive else drawn
    if not law.sparse:
        return drawn
    return jnp.where(random.words(recipe.edges, low, high) <= recipe.most, drawn, np.float32(0))


class Drawn(NamedTuple):
    """A kernel as (taps, channels, columns), of which nothing is held; or a part of one.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.source.drawn import drawn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> kernel = drawn(source, "a")
      >>> kernel.shape, bool((kernel.whole()[0] == slth.source.parameter(source, "a/kernel")).all())
      ((1, 176, 39), True)
    """

    law: Law
    recipe: Recipe
    width: int
    """Columns of the whole kernel."""
    rows: Int[np.ndarray, "taps cin"]
    """Which row of the kernel, counted over all axes but the last, is read at each tap by each channel."""
    columns: Int[np.ndarray, " cout"]
    """Which columns there are."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Taps, channels, columns."""
        return *self.rows.shape, len(self.columns)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def beyond(self) -> bool:
        """Whether the whole kernel has flat indices of 2^32 and more."""
        return (int(self.rows.max(initial=0)) + 1) * self.width > WORD

    def some(
        self, channels: slice | np.ndarray = slice(None), columns: slice | np.ndarray = slice(None)
    ) -> "Drawn":
        """The kernel of some channels and columns."""
        return self._replace(rows=self.rows[:, channels], columns=self.columns[columns])

    def at(
        self, tap: int | np.ndarray, channel: int | np.ndarray, column: int | np.ndarray
    ) -> Float32[np.ndarray, "..."]:
        """The weights at some places, of broadcast numbers of tap, channel and column."""
        places = self.rows[tap, channel] * self.width + self.columns[column]
        return self._at(places.reshape(-1)).reshape(places.shape)

    def whole(self) -> Float32[np.ndarray, "taps cin cout"]:
        """All weights."""
        found = np.empty(self.shape, np.float32)
        flat = found.reshape(-1, len(self.columns))
        rows, some = self.rows.reshape(-1, 1) * self.width, max(1, MOST // max(1, len(self.columns)))
        for start in range(0, len(rows), some):
            here = rows[start : start + some] + self.columns
            flat[start : start + some] = self._at(here.reshape(-1)).reshape(here.shape)
        return found

    def _at(self, places: Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        found = np.empty(len(places), np.float32)
        for start, count, block in _blocks(len(places)):
            here = np.zeros(block, np.int64)
            here[:count] = places[start : start + count]
            drawn = _drawn(self.law, self.recipe, *split(here, beyond=self.beyond))
            found[start : start + count] = np.asarray(drawn)[:count]
        return found


def split(
    places: Int[np.ndarray, "*n"], *, beyond: bool
) -> tuple[UInt32[np.ndarray, "*n"], UInt32[np.ndarray, "..."]]:
    """Flat indices as their lower and upper 32 bits.

    Args:
      beyond: whether any has upper bits; otherwise these are one 0 for all.
    """
    high = places >> 32 if beyond else np.zeros(())
    return places.astype(np.uint32), high.astype(np.uint32)


def _blocks(count: int) -> Iterator[tuple[int, int, int]]:
    """Pieces of so many values: start, length, and the length that is drawn for them."""
    for start in range(0, count, MOST):
        here = min(MOST, count - start)
        block = LEAST
        while block < here:
            block *= 16
        yield start, here, block


@partial(jax.jit, static_argnums=0)
def _drawn(law: Law, recipe: Recipe, low: Array, high: Array) -> Array:
    return values(law, recipe, low, high)


NOTHING = np.zeros(0, np.float32)


def drawn(source: Source, path: str) -> Drawn:
    """The kernel of the source's layer at ``path``, with a tap for each position of the kernel."""
    shape = parameter_shapes(source.network)[f"{path}/kernel"]
    below = round(source.presence * WORD)
    law = Law(source.init.endswith("normal"), path in source.positive, source.presence < 1)
    key, edges = (random.key(source.seed, path, "kernel", *rest) for rest in ((), ("presence",)))
    scale = layer_scale(source, path) if below else 0.0  # no weight is there
    recipe = Recipe(key, np.array(scale, np.float32), edges, np.array(max(below - 1, 0), np.uint32), NOTHING)
    return Drawn(law, recipe, shape[-1], rows_of(shape), np.arange(shape[-1]))


def rows_of(shape: Shape) -> Int[np.ndarray, "taps cin"]:
    """Numbers of a kernel's rows by tap and channel."""
    return np.arange(math.prod(shape[:-1])).reshape(-1, shape[-2])


def held(weights: Float32[np.ndarray, "taps cin cout"]) -> Drawn:
    """Given weights in the place of drawn ones."""
    none, width = np.zeros(2, np.uint32), weights.shape[2]
    recipe = Recipe(
        none,
        np.ones((), np.float32),
        none,
        np.zeros((), np.uint32),
        np.asarray(weights, np.float32).reshape(-1),
    )
    return Drawn(Law(held=True), recipe, width, rows_of(weights.shape), np.arange(width))
