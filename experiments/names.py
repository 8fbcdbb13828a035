"""Names of settings, and the one that a misspelt name was meant to be."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def names_of(settings: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of settings, and of those within them."""
    for name, value in settings.items():
        own = f"{prefix}.{name}" if prefix else str(name)
        yield own
        if isinstance(value, Mapping):
            yield from names_of(value, own)


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a setting that is not there, with the one that may have been meant."""
    near = nearest(name, known)
    return f"{name}: there is no such setting" + (f": did you mean {near}?" if near else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted name that is most like another; None if none is.

    Where the group is known its settings come first; the last part of a name may stand for the whole.
    """
    known = list(dict.fromkeys(known))
    group, _, end = name.rpartition(".")
    inside = [one for one in known if one.rpartition(".")[0] == group]
    ends = {one.rpartition(".")[2]: one for one in [*known, *inside]}
    if not inside and (found := _closest(name, known, 0.75)):
        return found
    if end in ends:
        return ends[end]
    own = {one.rpartition(".")[2]: one for one in inside}
    if found := _closest(end, own, 0.6):
        return own[found]
    found = _closest(end, ends, 0.6)
    return ends[found] if found else None


def _closest(word: str, words: Iterable[str], least: float) -> str | None:
    """Of equally close words the one that begins as the given one does."""

    def likeness(other: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, word, other).ratio()
        return round(ratio, 9), len(os.path.commonprefix([word, other]))

    near = difflib.get_close_matches(word, list(words), 8, least)
    return max(sorted(near), key=likeness, default=None)
