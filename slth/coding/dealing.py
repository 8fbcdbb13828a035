"""Channels dealt to slots: which input each univariate channel of a source serves, by the source's weights.

A *slot* is an input and a sign of its weight alpha, or both signs. A channel has a weight for every input; in
order, each goes to a slot whose sign its alpha has. A construction keeps the largest of each slot, so the
mask of such a layer follows from the source and a few numbers.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from slth.coding.bits import Reader, Writer

SIGNS = ((1,), (1, -1), (0,))
"""Signs of the slots of an input: positive alpha; each sign; one slot for both."""
SIGNS_BITS = 2
MOST_DEALT = 1 << 20
"""Most channels that are dealt in one code, one after the other: a small file asks for little time."""

Candidates = Mapping[str, tuple[int, int]]
"""By kernel: channels that may have been dealt, and members of a slot of one sign at most."""
Inputs = Int[np.ndarray, " columns"]
"""The row whose weight a column keeps; -1 for none."""
Weights = Float32[np.ndarray, "rows columns"]


class Dealing(NamedTuple):
    """What is said of a kernel whose channels are dealt."""

    channels: int
    """The first columns are dealt, so many of them."""
    members: int
    """Most members of a slot."""
    kept: int
    """Those of largest weight are kept of each slot, so many of them."""
    signs: int
    """Number of the entry of `SIGNS`."""


def deal(
    alpha: Float[np.ndarray, "cin width"], members: int, signs: tuple[int, ...]
) -> Int[np.ndarray, " width"]:
    """The slot of each channel: the first of those with the fewest members that it fits.

    Args:
      alpha: weights; one that is 0 fits no slot.
      members: most of a slot.
      signs: of the slots of each input; 0 for both.
    Returns: input * len(signs) + place of the sign, or -1 for a channel that fits no slot that is not full.
    """
    inputs, sign = np.repeat(np.arange(len(alpha)), len(signs)), np.tile(np.array(signs), len(alpha))
    have = np.zeros(len(inputs), int)
    slots = np.full(alpha.shape[1], -1)
    for n, slopes in enumerate(alpha.T):
        value = slopes[inputs]
        fits = (have < members) & (value != 0) & (sign * value >= 0)
        s = int(np.argmin(np.where(fits, have, members)))
        if fits[s]:
            slots[n] = s
            have[s] += 1
    return slots


def find(
    weights: Weights, mask: Bool[np.ndarray, "rows columns"], channels: int, members: int
) -> tuple[Dealing, Int[np.ndarray, " missing"]] | None:
    """The dealing that a mask is of, and the columns of live rows that it keeps and the mask does not.

    Args:
      channels, members: see `Candidates`.
    Returns: the first that there is in the order of `SIGNS`, None where there is none.
    """
    live, rows = np.asarray(mask.any(0)), np.asarray(mask.any(1))
    inputs = np.where(live, mask.argmax(0), -1)
    if not 0 < channels <= len(live) or live[channels:].any() or mask.sum() > live.sum():
        return None
    for number, signs in enumerate(SIGNS):
        most = min(members if signs != (0,) else 2 * members, channels)
        slots = deal(weights[:, :channels], most, signs)
        counts = np.bincount(slots[live[:channels] & (slots >= 0)], minlength=1)
        found = _largest(weights, slots, len(signs), int(counts.max()))
        if np.array_equal(found[live], inputs[live]):
            missing = np.flatnonzero(~live & (found >= 0) & rows[found])
            return Dealing(channels, most, int(counts.max()), number), missing
    return None


def write(dealing: Dealing, missing: Int[np.ndarray, " missing"], columns: int, writer: Writer) -> None:
    """Write what `find` found of a kernel with so many columns."""
    width = columns.bit_length()
    writer.numbers(dealing[:3], width)
    writer.numbers(dealing.signs, SIGNS_BITS)
    writer.numbers([len(missing), *missing], width)


def bits(missing: int, columns: int) -> int:
    """How many `write` writes."""
    return SIGNS_BITS + (4 + missing) * columns.bit_length()


def read(path: str, columns: int, reader: Reader) -> tuple[Dealing, Int[np.ndarray, " missing"]]:
    """What `write` wrote."""
    width = columns.bit_length()
    channels, members, kept = reader.numbers(3, width).tolist()
    found = Dealing(channels, members, kept, reader.number(SIGNS_BITS))
    if not (0 < kept <= members <= channels <= columns and found.signs < len(SIGNS)):
        raise ValueError(
            f"mask: {path} keeps {kept} of {members} members of {channels} channels of {columns}, signs"
            f" {found.signs}: none is dealt so"
        )
    missing = reader.numbers(reader.number(width), width)
    if missing.max(initial=0) >= columns:
        raise ValueError(f"mask: {path} has no column {missing.max()}")
    return found, missing


def inputs_of(weights: Weights, dealing: Dealing) -> Inputs:
    """What a dealing keeps."""
    signs = SIGNS[dealing.signs]
    slots = deal(weights[:, : dealing.channels], dealing.members, signs)
    return _largest(weights, slots, len(signs), dealing.kept)


def _largest(weights: Weights, slots: Int[np.ndarray, " channels"], signs: int, kept: int) -> Inputs:
    """The largest of each slot, of equal ones the first."""
    inputs = slots // signs
    order = np.lexsort((-np.abs(weights[inputs, np.arange(len(slots))]), slots))
    order = order[slots[order] >= 0]
    place = np.arange(len(order)) - np.searchsorted(slots[order], slots[order])
    found, chosen = np.full(weights.shape[1], -1), order[place < kept]
    found[chosen] = inputs[chosen]
    return found
