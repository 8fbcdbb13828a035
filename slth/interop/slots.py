"""What a spec asks for: each parameter, the names that files may give it, and its array in our layout."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from slth.nn.forward import parameter_shapes
from slth.nn.graph import named_layers
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer
from slth.nn.network import Network
from slth.types import Shape

# What other files call a layer of the zoo; "{k}" is the number of a residual block, from 0.
ALIASES = {
    "conv1": ("conv",),
    "bn1": ("bn",),
    "linear": ("fc",),
    "fc": ("linear",),
    "shortcut.0": ("downsample.0",),
    "shortcut.1": ("downsample.1",),
    "shortcut.scale": ("shortcut",),
    "downsample.0": ("shortcut.0",),
    "downsample.1": ("shortcut.1",),
}
BLOCK = "blocks.{k}"

# Leaves of our tree, which are flax's too, beside PyTorch's and, where they differ, Keras's.
LINEAR = {"kernel": ("weight",), "bias": ("bias",)}
LEAVES: dict[type, dict[str, tuple[str, ...]]] = {
    Conv: LINEAR,
    Dense: LINEAR,
    BatchNorm: {
        "scale": ("weight", "gamma"),
        "bias": ("bias", "beta"),
        "mean": ("running_mean", "moving_mean"),
        "var": ("running_var", "moving_variance"),
    },
    ChannelScale: {"scale": ("weight",)},
}


class Slot(NamedTuple):
    """One parameter that a spec asks for."""

    path: tuple[str, ...]
    """Its keys in our tree."""
    names: tuple[str, ...]
    """The dotted names that a file may hold it under; the first is what a message calls it."""
    shape: Shape
    layer: Layer


def slots_of(network: Network) -> Iterator[Slot]:
    """Every parameter of a spec, with the names that files may give it.

    A layer in a block whose name no other layer has may stand in the file by this name alone, as in Keras's.
    """
    shapes, blocks = parameter_shapes(network), {}
    layers = named_layers(network)
    counts = Counter(path.rpartition("/")[2] for path in layers)
    for path, layer in layers.items():
        *around, name = path.split("/")
        prefixes = [""]
        for block, part in zip(around[::2], around[1::2], strict=True):
            number = blocks.setdefault(block, len(blocks))
            where = (block, BLOCK.format(k=number), block.replace(".", "_"))
            prefixes = [f"{p}{w}{m}." for p, w, m in product(prefixes, where, ("", f".{part}"))]
        called = (name, *ALIASES.get(name, ()))
        for leaf, foreign in LEAVES[type(layer)].items():
            if (shape := shapes.get(f"{path}/{leaf}")) is None:
                continue
            ends = dict.fromkeys((foreign[0], leaf, *foreign[1:]))
            names = [f"{prefix}{module}.{end}" for prefix, module, end in product(prefixes, called, ends)]
            if around and counts[name] == 1:
                names += [f"{name}.{end}" for end in ends]
            yield Slot((*path.split("/"), leaf), tuple(names), shape, layer)


def foreign_shape(slot: Slot) -> Shape:
    """The shape in PyTorch's order: (cout, cin, *taps), of several groups (cout, cin / groups, *taps)."""
    if slot.path[-1] != "kernel":
        return slot.shape
    *taps, cin, cout = slot.shape
    return (cout, cin, *taps)


def as_array(name: str, leaf: Any, wrong: list[str]) -> np.ndarray | None:
    """The array of a leaf; None, and a line in ``wrong``, if its numbers cannot be read."""
    try:
        return np.asarray(leaf)
    except (ValueError, TypeError) as error:
        wrong.append(f"{name}: {error}")
        return None


def placed(slot: Slot, name: str, value: np.ndarray, wrong: list[str]) -> np.ndarray | None:
    """The array in our layout and float32; None, and a line in ``wrong``, if it cannot be."""
    transposed = slot.path[-1] == "kernel" and name.endswith(".weight")
    expected = foreign_shape(slot) if transposed else slot.shape
    if len(expected) == 1 and value.size == expected[0] == max(value.shape, default=0):
        value = value.reshape(expected)  # (1, 1, 1, c) and (c, 1, 1) are c numbers
    if value.shape != expected:
        wrong.append(f"{name} has shape {value.shape}, expected {expected}")
        return None
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        wrong.append(f"{name} has type {value.dtype}, expected real numbers")
        return None
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        wrong.append(f"{name} holds NaN or infinite numbers{_where(value, ~np.isfinite(value))}")
        return None
    if slot.path[-1] == "var" and (value < 0).any():
        wrong.append(f"{name} holds variances below 0{_where(value, value < 0)}")
        return None
    if transposed:
        value = np.transpose(value, (*range(2, value.ndim), 1, 0))
    return np.ascontiguousarray(value)


def _where(value: np.ndarray, bad: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f" ({np.count_nonzero(bad)} of {value.size}, the first {value[index]:g} at {list(index)})"
