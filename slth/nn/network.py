"""A network: an input shape and a tuple of layers, with pure functions from parameters to outputs.

Target, source and ticket are all of this one kind: a static spec beside a nested dict of arrays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Key

from slth.nn.layers import BatchNorm, Layer, Residual, init_layers
from slth.types import Batch, Params, Shape

Record = Callable[[str, Batch], None]


@dataclass(frozen=True)
class Network:
    """A static, hashable network spec.

    Args:
      input_shape: shape of one example, channels last: ``(h, w, c)``, ``(length, c)`` or ``(features,)``.
      layers: the layers in their order; residual blocks nest.
    Raises: ValueError where two layers do not fit together, naming the layer and the shape it got.
    """

    input_shape: Shape
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        _ = self.output_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output."""
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape


def init(network: Network, key: Key[Array, ""]) -> Params:
    """Initial parameters for training: He-normal kernels, zero biases, neutral batch norm."""
    return init_layers(key, network.layers, network.input_shape)


def apply(network: Network, params: Params, x: Batch) -> Float[Array, "n *out"]:
    """The network's outputs for a batch, in inference mode.

    Args:
      params: the tree `init` makes; for a ticket, the masked parameters of the source.
      x: shape (n, *network.input_shape).
    Raises: ValueError if the batch does not have the network's input shape.
    """
    _check_input(network, x)
    return _forward(network.layers, params, x, lambda name, value: None, train=False)[0]


def apply_train(network: Network, params: Params, x: Batch) -> tuple[Float[Array, "n *out"], Params]:
    """The outputs in training mode, and the parameters with batch norm's running statistics moved."""
    _check_input(network, x)
    return _forward(network.layers, params, x, lambda name, value: None, train=True)


def trace(network: Network, params: Params, x: Batch) -> tuple[Float[Array, "n *out"], dict[str, Batch]]:
    """The outputs and every named layer's output (a linear layer's output is its pre-activation).

    Names of nested layers are joined by "/": ``"layer1.0/branch/conv1"``; a block's own name holds its sum.
    """
    _check_input(network, x)
    values: dict[str, Batch] = {}
    y, _ = _forward(network.layers, params, x, values.__setitem__, train=False)
    return y, values


def _check_input(network: Network, x: Batch) -> None:
    if x.shape[1:] != network.input_shape:
        raise ValueError(f"the network reads batches of shape (n, *{network.input_shape}), got {x.shape}")


def _forward(
    layers: tuple[Layer, ...],
    params: Params,
    x: Batch,
    record: Record,
    *,
    train: bool,
    path: str = "",
) -> tuple[Batch, Params]:
    moved = dict(params)
    for layer in layers:
        name = getattr(layer, "name", None)
        values = {} if name is None else params[name]
        if isinstance(layer, Residual):
            inside = f"{path}{name}/"
            parts = {"branch": layer.branch, "skip": layer.skip}
            outs = {
                part: _forward(inner, values.get(part, {}), x, record, train=train, path=f"{inside}{part}/")
                for part, inner in parts.items()
            }
            x = outs["branch"][0] + outs["skip"][0]
            moved[layer.name] = {part: out[1] for part, out in outs.items()}
        elif train and isinstance(layer, BatchNorm):
            x, moved[layer.name] = layer.apply_train(values, x)
        else:
            x = layer.apply(values, x)
        if name is not None:
            record(f"{path}{name}", x)
    return x, moved


class Row(NamedTuple):
    """One line of the summary: a layer, the shape of its output, its parameters."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int


def summary(network: Network, params: Params) -> list[Row]:
    """Shapes and numbers of parameters, layer by layer, residual blocks unfolded (branch, skip, sum)."""
    return list(_rows(network.layers, params, network.input_shape, ""))


def _rows(layers: tuple[Layer, ...], params: Params, shape: Shape, path: str) -> Iterator[Row]:
    for layer in layers:
        name = getattr(layer, "name", "")
        values = params.get(name, {})
        if isinstance(layer, Residual):
            for part, inner in (("branch", layer.branch), ("skip", layer.skip)):
                yield from _rows(inner, values.get(part, {}), shape, f"{path}{name}/{part}/")
            values = {}
        shape = layer.output_shape(shape)
        yield Row(path + name, type(layer).__name__, shape, count(values))


def format_summary(rows: list[Row]) -> str:
    """The summary as an aligned text table, with a last line for the total."""
    lines = [("name", "layer", "output shape", "parameters")]
    lines += [(row.name, row.kind, str(row.output_shape), f"{row.parameters:,}") for row in rows]
    lines.append(("total", "", "", f"{sum(row.parameters for row in rows):,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in lines
    )


def count(params: Params) -> int:
    """Number of entries of all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
