"""The arrays that layers compute with: masks multiplied in, weight norm multiplied out."""

import itertools
import re
from typing import Any

import numpy as np

# Names of a direction, its magnitude and their product in torch.nn.utils.weight_norm and in parametrizations.
NORMS = (
    (re.compile(r"^(.+)_v$"), r"\1_g", r"\1"),
    (
        re.compile(r"^(.*?)parametrizations\.([^.]+)\.original1$"),
        r"\1parametrizations.\2.original0",
        r"\1\2",
    ),
)


def effective(held: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    r"""The arrays with every mask multiplied in, and with :math:`g v / \\|v\\|` for every weight norm.

    Args:
      held: arrays by dotted name.
      wrong: gets a line for each pair that does not fit together.
    """
    return _normed(_masked(held, wrong), wrong)


def _masked(held: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    out = dict(held)
    for name in [name for name in held if name.endswith("_mask")]:
        base = name.removesuffix("_mask")
        values = next((n for n in (base, f"{base}_orig") if n in held), None)
        if values is None:
            continue  # reported as left over
        mask, value = np.asarray(out.pop(name)), np.asarray(out.pop(values))
        if mask.shape == value.shape:
            out[base] = value * mask
        else:
            wrong.append(f"{name} has shape {mask.shape}, expected {value.shape}")
            out[base] = value
    return out


def _normed(held: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    out = dict(held)
    for name, (pattern, magnitude, product) in itertools.product(held, NORMS):
        if pattern.match(name) and (scale := pattern.sub(magnitude, name)) in held:
            v, g = np.asarray(out.pop(name)), np.asarray(out.pop(scale))
            out[pattern.sub(product, name)] = _product(name, v, g, wrong)
    return out


def _product(name: str, v: np.ndarray, g: np.ndarray, wrong: list[str]) -> np.ndarray:
    g = g.reshape((1,) * v.ndim) if g.size == 1 else g
    if g.ndim != v.ndim or any(n not in (1, m) for n, m in zip(g.shape, v.shape, strict=True)):
        wrong.append(f"{name} has shape {v.shape}, its magnitude {g.shape}")
        return v
    exact = v.astype(np.float64)
    axes = tuple(axis for axis, n in enumerate(g.shape) if n == 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return g.astype(np.float64) * exact / np.sqrt((exact**2).sum(axis=axes, keepdims=True))
