"""What was chosen in a node as arrays and text, for a file or for another process."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slth.construction.state import Solved, Stats


def arrays_of(solved: Solved) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a node, masks as packed bits, and what JSON can say: shapes and steps, not the counts."""
    arrays = {f"mask{number}": np.packbits(mask) for number, mask in enumerate(solved.masks)}
    arrays |= {"constants": solved.constants, "noise": solved.noise, "usable": solved.usable}
    if solved.own is not None:
        arrays["own"] = solved.own
    return arrays, {"shapes": [mask.shape for mask in solved.masks], "steps": solved.steps}


def solved_of(arrays: Mapping[str, np.ndarray], text: Mapping[str, Any], stats: Mapping[str, Any]) -> Solved:
    """The inverse of `arrays_of`; ``stats``: the fields of the counts."""
    masks = tuple(
        np.unpackbits(arrays[f"mask{number}"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        for number, shape in enumerate(text["shapes"])
    )
    counts = Stats(**{**stats, "sizes": tuple(stats["sizes"])})
    constants, noise, usable = (arrays[name] for name in ("constants", "noise", "usable"))
    return Solved(masks, constants, noise, usable, counts, arrays.get("own"), tuple(text["steps"]))
