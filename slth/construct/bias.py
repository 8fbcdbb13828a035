"""Constants and biases: constant channels with exactly known values, read through safe taps only."""

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.construct.node import Part, Stats, Stream
from slth.nn.layers import Conv, Dense
from slth.subset_sum import solve, unpack

CHUNK = 15
"""Most variables of one bias problem; further constants solve what the first ones left."""
CHUNKS = 4


def safe_taps(layer: Conv | Dense, stream: Stream) -> Bool[np.ndarray, " taps"]:
    r"""Taps that never read zero padding: a constant channel contributes the same at every output position.

    Per axis, with input length n, output length O, stride s, dilation d, left padding p, tap r is safe iff
    :math:`p \le d r \le n - 1 + p - s (O - 1)`. A dense layer has no padding.
    """
    if isinstance(layer, Dense):
        return np.ones(stream.positions, bool)
    output = layer.output_shape(stream.shape)
    axes = []
    for axis, taps in enumerate(layer.kernel):
        place = layer.dilation[axis] * np.arange(taps)
        left = layer.padding[axis][0]
        last = stream.shape[axis] - 1 + left - layer.stride[axis] * (output[axis] - 1)
        axes.append((left <= place) & (place <= last))
    return np.array([all(safe) for safe in itertools.product(*axes)])


def constant_variables(
    parts: tuple[Part, ...], limit: int = CHUNK * CHUNKS
) -> tuple[list[tuple[int, int, int]], Float[np.ndarray, " variables"]]:
    """The (part, tap, channel) through which constants reach a node, and the constants' values.

    Channels change fastest, so that the first ``limit`` variables read many constants rather than many taps.
    """
    places = [
        (number, int(tap), int(channel), float(value))
        for number, part in enumerate(parts)
        for tap in np.flatnonzero(part.safe)
        for channel, value in zip(part.stream.constant_channels, part.stream.constants, strict=True)
        if value != 0
    ][:limit]
    return [place[:3] for place in places], np.array([place[3] for place in places])


def solve_biases(
    parts: tuple[Part, ...],
    wanted: Float[np.ndarray, " rows"],
    columns: Int[np.ndarray, " rows"],
    masks: tuple[Bool[np.ndarray, "taps source_cin source_cout"], ...],
    *,
    objective: str,
    tolerance: float,
) -> tuple[Float[np.ndarray, " rows"], Stats]:
    r"""Subsets of :math:`u \hat c` (random weight times exact constant) that sum to the wanted biases.

    Variables are taken in chunks; each chunk solves what the ones before it left. The chosen weights are set
    in ``masks``.

    Args:
      wanted: bias of each source output channel of ``columns``.
      objective: "smallest" or "best"; constants carry no noise, so robust construction uses "best".
      tolerance: in units of the source's scale.
    Returns: the realised biases (float64, exact products of what the mask keeps) and the statistics.
    """
    places, values = constant_variables(parts)
    scale = parts[0].scale
    left = wanted.astype(np.float64).copy()
    sizes = np.zeros(len(wanted), int)
    power = 0.0
    asked = wanted != 0
    for start in range(0, len(places), CHUNK) if asked.any() else ():
        chunk = places[start : start + CHUNK]
        weights = np.stack([parts[p].random[tap, channel, columns] for p, tap, channel in chunk])
        x = np.zeros((CHUNK, len(wanted)))
        x[: len(chunk)] = weights * values[start : start + CHUNK, None]
        solution = solve(x, np.where(asked, left, 0), objective, tolerance=tolerance * scale)
        kept = unpack(solution.mask, CHUNK)[: len(chunk)]
        for row, (p, tap, channel) in enumerate(chunk):
            masks[p][tap, channel, columns] |= kept[row]
        left -= (kept * x[: len(chunk)]).sum(0)
        sizes += solution.size
        power += float(((kept * weights) ** 2).sum())
    off = np.abs(left[asked]) / scale
    stats = Stats(
        problems=int(asked.sum()),
        unsolved=int((off > tolerance).sum()),
        size=float(sizes.sum()),
        error=float(off.sum()),
        max_error=float(off.max(initial=0)),
        sizes=tuple(np.bincount(sizes[asked])),
    )
    return wanted - left, stats
