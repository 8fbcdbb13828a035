"""Variables of a node that are multiples of a few among them, whose moments are those of the few."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slth.construction.state import Part

MANY = 2048
"""Variables whose products take long enough to look for multiples among them."""


class Multiples(NamedTuple):
    """Variables that are multiples of a few among them, at every sample: moments of those are moments of all.

    So are univariate channels of a positively homogeneous activation, phi(alpha x) = alpha phi(x), and
    constants through one tap.
    """

    channels: tuple[Int[np.ndarray, " _"], ...]
    """Source channels that each part reads for the few."""
    place: Int[np.ndarray, " few"]
    """Number of each of the few among all (part, tap, channel), where parts read these channels alone."""
    index: Int[np.ndarray, " n"]
    """Which of the few each variable is a multiple of."""
    ratio: Float[np.ndarray, " n"]
    """What it is times that one; 0 for an empty place."""


def multiples_of(parts: tuple[Part, ...], place: Int[np.ndarray, " n"]) -> Multiples | None:
    """The few that all variables of a node are multiples of; None where they are not, or are not `MANY`.

    Args:
      place: of each variable, as in `slth.construction.moments.Columns`.
    """
    slots = [part.stream.slots for part in parts]
    exact = not any(own.carried or own.base or part.priced for own, part in zip(slots, parts, strict=True))
    if len(place) < MANY or not exact:
        return None
    kinds, sizes, kind_count = [], [], 0
    for part, own in zip(parts, slots, strict=True):
        taps, width, _ = part.random.shape
        kind, size = np.full(width, len(own.channel)), np.zeros(width)
        there = own.gain != 0
        kind[own.members[there]] = np.nonzero(there)[0]
        size[own.members[there]] = own.gain[there]
        size[part.stream.constant_channels] = np.nan_to_num(part.stream.constants)
        each = len(own.channel) + 1
        kinds.append((kind_count + each * np.arange(taps)[:, None] + kind).reshape(-1))
        sizes.append(np.tile(size, taps))
        kind_count += each * taps
    # Of every variable in its place its kind and its size, which is 0 where the place is empty.
    places = np.minimum(place, sum(map(len, kinds)))
    kind, size = (np.append(np.concatenate(a), 0)[places] for a in (kinds, sizes))
    # Of each kind the largest, which is the most exact.
    order = np.lexsort((-np.abs(size), kind))
    order = order[size[order] != 0]
    first = order[np.unique(kind[order], return_index=True)[1]]
    index = np.searchsorted(kind[first], kind).clip(0, len(first) - 1)
    ratio = np.where(size == 0, 0, size / size[first[index]])
    channels, narrow, before, start = [], [], 0, 0
    for part in parts:
        taps, width, _ = part.random.shape
        here = place[first] - before
        tap, channel = np.divmod(here[(here >= 0) & (here < taps * width)], width)
        used, number = np.unique(channel, return_inverse=True)
        channels.append(used)
        narrow.append(start + len(used) * tap + number)
        before, start = before + taps * width, start + taps * len(used)
    return Multiples(tuple(channels), np.concatenate(narrow), index, ratio)
