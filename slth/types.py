"""Names of the array types and trees that every module shares.

Axes by name: ``n`` images or problems, ``h w`` rows and columns, ``c`` channels, ``kh kw`` kernel taps,
``cin cout`` channels going in and out of a layer, ``m`` copies (the multiplicity).
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Array, Float

Shape: TypeAlias = tuple[int, ...]
"""Shape of one example without the batch axis: ``(h, w, c)``, ``(length, c)`` or ``(features,)``."""

Task: TypeAlias = Literal["classes", "regression"]
"""What outputs are: scores of classes, of which the largest is the answer, or numbers."""

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""Padding before and after each spatial axis."""

Params: TypeAlias = dict[str, Any]
"""Nested dict of arrays: ``{layer name: {"kernel": ..., "bias": ...}}``; residual blocks nest."""

Mask: TypeAlias = dict[str, Any]
"""A tree of the structure of `Params` with boolean leaves: True = the source's parameter is kept."""

AnyArray: TypeAlias = Array | np.ndarray
"""On a device or in NumPy."""

Batch: TypeAlias = Float[AnyArray, "n ..."]
"""Inputs of n examples; the other axes are those of one input, of a network or of a layer inside it."""

Values: TypeAlias = Float[Array, "n ..."]
"""What a layer makes of a `Batch`."""
