"""Larger tensors of ONNX: upsampling to the nearest neighbour by whole factors.

At position p of an axis that grows from n to f n, ONNX rounds a coordinate x(p) to a position of the
input; rules for x and for rounding are attributes. What slth has is position floor(p / f), so a file is
read where its rules say the same at every position.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from slth.interop.onnx.model import Node
from slth.interop.onnx.values import (
    Tensor,
    View,
    constant_of,
    integers_of,
    made,
    numbers_of,
    spatial,
    view_of,
)
from slth.nn.pooling import Upsample

Tensors = list[Tensor | None]
Coordinates = Float[np.ndarray, " p"]
MOST = 64
"""Largest factor."""

HALF = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
"""Rules that are the same where an axis grows by a whole factor."""
COORDINATES: dict[str, Callable[[Coordinates, int], Coordinates]] = {
    "asymmetric": lambda p, factor: p / factor,
    **dict.fromkeys(HALF, lambda p, factor: (p + 0.5) / factor - 0.5),
    "tf_half_pixel_for_nn": lambda p, factor: (p + 0.5) / factor,
}
ROUNDINGS: dict[str, Callable[[Coordinates], Coordinates]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def upsample(node: Node, tensors: Tensors) -> View:
    """Resize, and Upsample as it was called before."""
    view = view_of(node, tensors)
    rank = len(view.axes)
    axes, held = spatial(node, view, rank - 2)
    factors = _factors(node, tensors, view)
    if factors[:2] != (1, 1):
        raise node.refused(f"it makes the batch or the channels {max(factors[:2])} times as many")
    if any(factors[2 + i] > 1 for i in set(range(rank - 2)) - set(held)):
        raise node.refused("it repeats an axis of length 1, which slth does not have")
    chosen = tuple(factors[2 + i] for i in held)
    if set(chosen) <= {1}:
        return view
    _check_rules(node, view, chosen, old=node.op == "Upsample" or len(tensors) == 2)
    return View(made(node, View(view.value, axes), Upsample(chosen)), axes)


def _factors(node: Node, tensors: Tensors, view: View) -> tuple[int, ...]:
    """How many times as long each axis of the tensor becomes."""
    rank = len(view.axes)
    asked = [a % rank for a in node.integers("axes") or range(rank)]
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refused("keep_aspect_ratio_policy: expected stretch")
    sizes = integers_of(node, tensors, 3, "sizes") if len(tensors) > 3 else None
    if sizes is None:
        place = 1 if len(tensors) == 2 else 2  # of three or four inputs the second is a region of interest
        given = node.attributes.get("scales") if len(tensors) == 1 else constant_of(node, tensors, place)
        found = numbers_of(node, given, "scales").ravel().tolist()
    else:
        old = [node.batch or n if a == 0 else n for a, n in enumerate(view.sizes)]
        found = [
            1 if n in (old[a], view.sizes[a]) else n / max(old[a], 1)
            for a, n in zip(asked, sizes, strict=False)
        ]
    if len(found) != len(asked) or len(set(asked)) != len(asked):
        raise node.refused(f"it has {len(found)} factors for the axes {asked} of {rank}")
    if not all(n == round(n) and 1 <= n <= MOST for n in found):
        said = ", ".join(f"{n:g}" for n in found)
        raise node.refused(f"it resizes by {said}: whole factors from 1 to {MOST} are read")
    factors = dict(zip(asked, map(int, found), strict=True))
    return tuple(factors.get(a, 1) for a in range(rank))


def _check_rules(node: Node, view: View, factors: tuple[int, ...], *, old: bool) -> None:
    """Refuse what is not floor(p / factor). Before opset 11 nothing else was there."""
    mode = node.text("mode", "nearest")
    if mode != "nearest":
        raise node.refused(f"mode {mode!r}: it interpolates, and upsampling to the nearest neighbour is read")
    rule = node.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = node.text("nearest_mode", "floor" if old else "round_prefer_floor")
    if rule not in COORDINATES or rounding not in ROUNDINGS:
        raise node.refused(f"coordinate_transformation_mode {rule!r}, nearest_mode {rounding!r}: not read")
    for size, factor in zip(view.value.shape[:-1], factors, strict=True):
        places: Int[np.ndarray, " p"] = np.arange(size * factor)
        found = ROUNDINGS[rounding](COORDINATES[rule](places.astype(np.float64), factor)).clip(0, size - 1)
        if not np.array_equal(found, places // factor):
            raise node.refused(
                f"coordinate_transformation_mode {rule!r} with nearest_mode {rounding!r} and factor {factor} "
                "is not every position so many times, which is read"
            )
