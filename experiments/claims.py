"""What the paper's figures claim, and what a run's numbers say of it, in words written by the program."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slth.report import Band
from slth.report.words import percent

POINT = 0.01
"""Accuracies that differ by no more count as equal: one point in a hundred."""
RELATIVE = 0.05
"""Of targets without classes: the relative error up to which outputs count as equal."""


class Claim(NamedTuple):
    """A statement, and whether the run's numbers support it."""

    text: str
    """As a sentence."""
    supported: bool | None
    """None where the run has no number that could tell."""
    found: str
    """The numbers that say so, as a sentence without its full stop."""


VERDICTS = {True: "supported", False: "contradicted", None: "open"}


def caption(what: str, claims: Sequence[Claim]) -> str:
    """What a figure shows, then each claim with its verdict and numbers."""
    return " ".join(
        [what, *(f"{VERDICTS[one.supported].title()}: {one.text} {one.found}." for one in claims)]
    )


def recorded(claims: Sequence[Claim], captions: Mapping[str, str]) -> dict[str, Any]:
    """What ``metrics.json`` holds of them.

    Args:
      captions: by the name of the picture, without ``.png``.
    """
    return {
        "captions": dict(captions),
        "claims": [one._asdict() | {"verdict": VERDICTS[one.supported]} for one in claims],
    }


def listed(words: Sequence[Any]) -> str:
    """Words as a sentence lists them.

    >>> from experiments.claims import listed
    >>> listed([6]), listed([6, 10, 15])
    ('6', '6, 10 and 15')
    """
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def seeds_said(seeds: Sequence[int]) -> str:
    """Of how many seeds a curve is the mean, and what its band is."""
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Curves are means over {len(seeds)} seeds, bands reach from the least to the largest."


def close(row: Mapping[str, Any], target: float | None) -> bool:
    """Whether a ticket counts as good as its target: by its accuracy, or by its error if there is none."""
    return row["relative_error"] <= RELATIVE if target is None else row["accuracy"] >= target - POINT


def as_good(target: float | None) -> str:
    """What `close` asks for, in words."""
    if target is None:
        return f"with a relative error of at most {percent(RELATIVE)}"
    return f"within one point of the target's {percent(target)}"


def number_of(row: Mapping[str, Any], target: float | None) -> str:
    """What `close` looks at."""
    return percent(row["relative_error"] if target is None else row["accuracy"])


def means_of(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The means of some numbers over the rows that are equal in ``by``, in order; None where one is."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return [
        dict(zip(by, key, strict=True)) | {name: _mean([row[name] for row in own]) for name in names}
        for key, own in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def band_of(
    label: str, rows: Sequence[Mapping[str, Any]], x: str, y: str, scale: float = 1, **look: Any
) -> Band:
    """The mean of some rows' numbers against a setting, with their least and largest."""
    places = sorted({row[x] for row in rows})
    values = [[scale * row[y] for row in rows if row[x] == place] for place in places]
    means, low, high = ([float(f(one)) for one in values] for f in (np.mean, min, max))
    return Band(label, places, means, low, high, **look)
