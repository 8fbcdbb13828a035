"""Steps as they are read from a function, and the nested network that they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, count
from typing import Any

import numpy as np

from slth.interop.joins import Joins, sides_of
from slth.interop.selections import without_selections
from slth.nn.layers import BatchNorm, Concat, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.target import Target
from slth.types import Pairs, Shape


@dataclass(frozen=True)
class Zeros:
    """Zeros around an image, which the convolution behind takes as its padding."""

    padding: Pairs


@dataclass(frozen=True)
class Joined:
    """The channels of several values, one after the other."""


@dataclass(frozen=True)
class Node:
    """One value: what is done to earlier ones. Two are added, or several joined; without any it is the
    network's input."""

    reads: tuple[int, ...]
    shape: Shape
    """Of one example, channels last."""
    layer: Layer | Zeros | Joined | None = None
    name: str = ""
    """Of the block that ends in a sum or a concatenation."""
    params: dict[str, np.ndarray] = field(default_factory=dict)
    """Float64."""
    dominator: int = 0
    """Number of the last value through which everything goes that this one is made of."""


class Chart:
    """The values of a function in the order in which they are made; value 0 is its input."""

    def __init__(self, shape: Shape) -> None:
        self.nodes = [Node((), shape)]
        self.names: set[str] = set()
        self.joins: Joins[int] = Joins()

    def named(self, name: str | None, kind: str) -> str:
        """A layer's name that no other has: its parameter's, or its kind and a number."""
        base = (name or "").replace("/", ".")
        numbered = (f"{base}_{number}" if base else f"{kind}{number}" for number in count(2 if base else 1))
        found = next(one for one in chain([base] if base else [], numbered) if one not in self.names)
        self.names.add(found)
        return found

    def add(self, reads: tuple[int, ...], shape: Shape, layer: Any = None, **params: np.ndarray) -> int:
        """One more value; its number."""
        dominator = reduce(self.common, reads)
        held = {name: np.asarray(value, np.float64) for name, value in params.items()}
        name = self.named(None, "concat" if isinstance(layer, Joined) else "block") if len(reads) > 1 else ""
        self.nodes.append(Node(reads, shape, layer, name, held, dominator))
        return len(self.nodes) - 1

    def apply(self, layer: Any, value: int, **params: np.ndarray) -> int:
        """A layer of one value."""
        return self.add((value,), layer.output_shape(self.nodes[value].shape), layer, **params)

    def join(self, values: Sequence[int]) -> int:
        """The channels of several values, one after the other."""
        reads = self.joins.grouped(values)
        if len(reads) == 1:
            return reads[0]
        number = self._joined(reads)
        self.joins.keep(number, values)
        return number

    def _joined(self, reads: Sequence[int]) -> int:
        """A concatenation, and those within it."""
        sides = [run[0] if len(run) == 1 else self._joined(run) for run in sides_of(reads, self.common)]
        *places, _ = self.nodes[sides[0]].shape
        channels = sum(self.nodes[one].shape[-1] for one in sides)
        return self.add(tuple(sides), (*places, channels), Joined())

    def common(self, a: int, b: int) -> int:
        """The last value through which everything goes that two values are made of."""
        while a != b:
            a, b = (self.nodes[a].dominator, b) if a > b else (a, self.nodes[b].dominator)
        return a

    def affine(self, value: int, scale: np.ndarray | float, shift: np.ndarray | float) -> int:
        """scale * x + shift for each channel; of an affine map of another value one of that value, where that
        is not a linear layer, whose bias others may read as well."""
        node = self.nodes[value]
        scale, shift = (np.broadcast_to(np.asarray(v, np.float64), node.shape[-1:]) for v in (scale, shift))
        if isinstance(node.layer, BatchNorm) and not self._is_linear(node.reads[0]):
            inner = node.params
            scale, shift = scale * inner["scale"], scale * inner["bias"] + shift
            value = node.reads[0]
        if (scale == 1).all() and not shift.any():
            return value
        layer = BatchNorm(self.named(None, "scale"), epsilon=0.0)
        return self.apply(layer, value, scale=scale, bias=shift, mean=0 * scale, var=0 * scale + 1)

    def ratio(self, value: int, other: int) -> np.ndarray | None:
        """What each channel of another value is multiplied with to be this one; None where nothing is."""
        a, b = self.nodes[value], self.nodes[other]
        if not isinstance(a.layer, BatchNorm):
            return None
        if a.reads[0] == other:
            return a.params["scale"] if not a.params["bias"].any() else None
        if not isinstance(b.layer, BatchNorm) or a.reads != b.reads or not b.params["scale"].all():
            return None
        found = a.params["scale"] / b.params["scale"]
        return (
            found if np.allclose(found * b.params["bias"], a.params["bias"], rtol=1e-5, atol=1e-7) else None
        )

    def _is_linear(self, value: int) -> bool:
        return isinstance(self.nodes[value].layer, Conv | Dense)

    def linear(self, value: int, layer: Conv | Dense, kernel: np.ndarray) -> int:
        """A linear layer without a bias; an affine map before it goes into it where no padding forbids."""
        node = self.nodes[value]
        if isinstance(node.layer, Zeros) and isinstance(layer, Conv):
            pairs = zip(layer.padding, node.layer.padding, strict=True)
            layer = replace(layer, padding=tuple((a + c, b + d) for (a, b), (c, d) in pairs))
            value, node = node.reads[0], self.nodes[node.reads[0]]
        inner, channels = node, slice(None)
        if isinstance(node.layer, Flatten):
            inner = self.nodes[node.reads[0]]
            channels = node.layer.sources(inner.shape)
        if (
            not isinstance(inner.layer, BatchNorm)
            or self._is_linear(inner.reads[0])  # which takes it in
            or (isinstance(layer, Conv) and any(map(any, layer.padding)))
        ):
            return self.apply(layer, value, kernel=kernel)
        read = layer.inputs(node.shape[-1])
        scale, shift = (inner.params[name][channels][read] for name in ("scale", "bias"))
        source = inner.reads[0] if inner is node else self.apply(node.layer, inner.reads[0])
        made = self.apply(layer, source, kernel=scale * kernel)
        return self.affine(made, 1.0, (shift * kernel.sum(tuple(range(kernel.ndim - 2)))).sum(0))

    def flatten(self, value: int, order: str) -> int:
        """All features in one axis."""
        flat = len(self.nodes[value].shape) == 1
        return value if flat else self.apply(Flatten("chw" if order == "chw" else "hwc"), value)

    def target(self, output: int) -> Target:
        """The network of the values behind an output, affine maps folded.

        Raises: ValueError where paths cross so that no nesting of blocks says it, or zeros are left over.
        """
        used: dict[int, int] = {}
        layers, params = self._sequence(output, 0, used)
        if any(count > 1 for count in used.values()):
            raise ValueError(
                "the function's branches cross: a value inside a branch is also read outside of it. Blocks "
                "are read whose sides start at one value and end in one sum or concatenation"
            )
        return Target.of(*without_selections(Network(self.nodes[0].shape, layers), params))

    def _sequence(
        self, end: int, start: int, used: dict[int, int]
    ) -> tuple[tuple[Layer, ...], dict[str, Any]]:
        """The layers from one value to another and their parameters."""
        layers: list[Layer] = []
        params: dict[str, Any] = {}
        while end != start:
            node = self.nodes[end]
            used[end] = used.get(end, 0) + 1
            if isinstance(node.layer, Joined):
                sides = [self._sequence(value, node.dominator, used) for value in node.reads]
                layers.append(Concat(node.name, tuple(inner for inner, _ in sides)))
                params[node.name] = {str(k): values for k, (_, values) in enumerate(sides) if values}
                end = node.dominator
                continue
            if len(node.reads) == 2:
                sides = [self._sequence(value, node.dominator, used) for value in node.reads]
                sides.sort(key=lambda side: -len(side[0]))
                layers.append(Residual(node.name, sides[0][0], sides[1][0]))
                held = zip(("branch", "skip"), sides, strict=True)
                params[node.name] = {side: values for side, (_, values) in held if values}
                end = node.dominator
                continue
            layer = node.layer
            if layer is None or isinstance(layer, Zeros):
                raise ValueError(
                    "the function pads an image with zeros for what is no convolution: only that is read"
                )
            layers.append(layer)
            if node.params:
                held = {name: value.astype(np.float32) for name, value in node.params.items()}
                params[getattr(layer, "name", "")] = held
            end = node.reads[0]
        return tuple(reversed(layers)), params
