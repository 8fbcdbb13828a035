"""What a network computes: its outputs, its values on the way, its initial parameters, its size."""

import math
from collections.abc import Callable, Iterator
from functools import cache, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from slth.devices import spread
from slth.nn.graph import (
    Apply,
    Join,
    Map,
    Skip,
    Sum,
    by_layer,
    graph,
    last_reads,
    named_layers,
    nested,
    value_shapes,
)
from slth.nn.layers import BatchNorm, init_layers
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.types import Batch, Params, Shape, Values

Record = Callable[[str, Values], None]
MOST_IMAGES = 512
MOST_NUMBERS = 2**27
"""In one value of a network for a batch, unless the batch is given."""


def init(network: Network, key: Key[Array, ""]) -> Params:
    """Initial parameters for training: He-normal kernels, zero biases, neutral batch norm.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.init(network, jax.random.key(0))["a"]["kernel"].shape
      (4, 3)
    """
    return init_layers(key, network.layers, network.input_shape)


@cache
def parameter_shapes(network: Network) -> dict[str, Shape]:
    """Shape of every parameter by its path, ``"layer1.0/branch/conv1/kernel"``: by layer, then by name.

    This is the order in which files hold parameters and in which hashes are taken.

    Example:
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.parameter_shapes(network)
      {'a/bias': (3,), 'a/kernel': (4, 3), 'b/bias': (2,), 'b/kernel': (3, 2)}
    """
    layers = by_layer(jax.eval_shape(lambda: init(network, jax.random.key(0))))
    return {
        f"{path}/{name}": layers[path][name].shape
        for path in named_layers(network)
        for name in sorted(layers[path])
    }


def apply(network: Network, params: Params, x: Batch) -> Float[Array, "n *out"]:
    """The network's outputs for a batch, in inference mode.

    Args:
      params: the tree `init` makes; for a ticket, the masked parameters of the source.
      x: shape (n, *network.input_shape).
    Raises: ValueError if the batch does not have the network's input shape.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.apply(network, nn.init(network, jax.random.key(0)), np.ones((5, 4))).shape
      (5, 2)
    """
    return _forward(network, params, x, lambda name, value: None, train=False)[0]


@in_32_bits()
def predict(
    network: Network, params: Params, images: Batch, batch: int | None = None
) -> Float[np.ndarray, "n *out"]:
    """The network's outputs for any number of images, in batches of one compiled shape.

    Args:
      images: shape (n, *network.input_shape), n of at least 1.
      batch: images at a time. None: 512, or as many as keep the largest value of the network within half a
        gigabyte.
    Raises: ValueError if there is no image.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> params = nn.init(network, jax.random.key(0))
      >>> nn.predict(network, params, np.ones((1000, 4), np.float32), batch=64).shape
      (1000, 2)
    """
    if batch is None:
        largest = max(map(math.prod, value_shapes(network)))
        batch = min(MOST_IMAGES, max(1, MOST_NUMBERS // largest))
    return in_batches(lambda x: apply_compiled(network, params, x), images, batch)


def in_batches(function: Callable[[Batch], Any], images: Batch, batch: int) -> Any:
    """What a function makes of any number of images, in batches of one shape.

    Args:
      function: makes of a batch an array, or a tree of them, whose first axis is that of the images.
    Raises: ValueError if there is no image.
    """
    check_some(images)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *each_batch(function, images, batch))


def each_batch(function: Callable[[Batch], Any], images: Batch, batch: int, first: int = 0) -> Iterator[Any]:
    """What a function makes of each batch, without what it makes of the zeros that fill up the last one.

    Args:
      function: as of `in_batches`.
      first: number of the image at which the first of these batches begins.
    """
    size = min(batch, len(images))
    for start in range(first, len(images), size):
        block = np.asarray(images[start : start + size])
        count = len(block)
        padded = np.pad(block, ((0, size - count), *((0, 0),) * (block.ndim - 1)))
        yield jax.tree.map(lambda part, count=count: np.asarray(part)[:count], function(spread(padded)))


def check_some(images: Batch) -> None:
    """Refuse no image at all.

    Raises: ValueError.
    """
    if len(images) == 0:
        raise ValueError("images: there are none to evaluate")


apply_compiled = jax.jit(apply, static_argnums=0)
"""`apply`, compiled once for each network and shape of a batch."""


def apply_train(network: Network, params: Params, x: Batch) -> tuple[Float[Array, "n *out"], Params]:
    """The outputs in training mode, and the parameters with batch norm's running statistics moved.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import nn
      >>> network = nn.Network((1,), (nn.BatchNorm("bn"),))
      >>> x = np.array([[0.0], [2.0]], np.float32)
      >>> y, moved = nn.apply_train(network, nn.init(network, jax.random.key(0)), x)
      >>> y.ravel().round(3).tolist(), moved["bn"]["mean"].round(3).tolist()
      ([-1.0, 1.0], [0.1])
    """
    y, moved = _forward(network, params, x, lambda name, value: None, train=True)
    return y, nested(by_layer(params) | moved)


def trace(network: Network, params: Params, x: Batch) -> tuple[Float[Array, "n *out"], dict[str, Values]]:
    """The outputs and every named layer's output (a linear layer's output is its pre-activation).

    Names of nested layers are joined by "/": ``"layer1.0/branch/conv1"``; a block's own name holds its sum.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> _, values = nn.trace(network, nn.init(network, jax.random.key(0)), np.ones((5, 4), np.float32))
      >>> {name: value.shape for name, value in values.items()}
      {'a': (5, 3), 'b': (5, 2)}
    """
    values: dict[str, Values] = {}
    y, _ = _forward(network, params, x, values.__setitem__, train=False)
    return y, values


def each_value(network: Network, params: Params, x: Batch, function: Callable[[Values], Any]) -> list[Any]:
    """What a function makes of every value, the input first (`slth.nn.graph` has their numbers)."""
    found = [function(jnp.asarray(x))]
    _forward(
        network, params, x, lambda name, value: None, train=False, each=lambda y: found.append(function(y))
    )
    return found


def _forward(
    network: Network,
    params: Params,
    x: Batch,
    record: Record,
    *,
    train: bool,
    each: Callable[[Values], None] = lambda value: None,
) -> tuple[Values, dict[str, Params]]:
    """The outputs, and in training the moved parameters of batch norms by path.

    Args:
      record: told each named layer's output; ``each`` every value behind the input.
    """
    if x.shape[1:] != network.input_shape:
        raise ValueError(f"the network reads batches of shape (n, *{network.input_shape}), got {x.shape}")
    layers, moved, last = by_layer(params), {}, last_reads(network)
    values: dict[int, Values] = {0: jnp.asarray(x)}
    for number, step in enumerate(graph(network)):
        if isinstance(step, Sum):
            terms = [_term(term, layers, values[term.reads], record) for term in (*step.maps, *step.skips)]
            y, name = reduce(add, terms), step.name
        elif isinstance(step, Join):
            y, name = jnp.concatenate([values[value] for value in step.reads], -1), step.name
        elif train and isinstance(step.layer, BatchNorm):
            y, moved[step.path] = step.layer.apply_train(layers[step.path], values[step.value])
            name = step.path
        else:
            y, name = step.layer.apply(layers.get(step.path, {}), values[step.value]), step.path
        if name:
            record(name, y)
        values[number + 1] = y
        each(y)
        for value in step.reads:
            if last[value] == number:
                values.pop(value, None)
    return values[len(graph(network))], moved


def _term(term: Map | Skip, layers: dict[str, Params], x: Values, record: Record) -> Values:
    if term.layer is not None:
        x = term.layer.apply(layers.get(term.path, {}), x)
    if term.path:
        record(term.path, x)
    return x


class Row(NamedTuple):
    """One line of the summary: a layer, the shape of its output, its parameters."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int


def summary(network: Network, params: Params) -> list[Row]:
    """Shapes and numbers of parameters, layer by layer; a residual block is named after its layers.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.summary(network, nn.init(network, jax.random.key(0)))[0]
      Row(name='a', kind='Dense', output_shape=(3,), parameters=15)
    """
    sizes = {path: count(values) for path, values in by_layer(params).items()}
    rows: list[Row] = []
    for step in graph(network):
        match step:
            case Sum(maps=maps, skips=skips):
                parts = (*maps, *skips)
            case Join():
                parts = ()
            case _:
                parts = (step,)
        for part in parts:
            if part.layer is not None:
                rows.append(Row(part.path, type(part.layer).__name__, step.shape, sizes.get(part.path, 0)))
        if not isinstance(step, Apply) and len(step.reads) > 1:
            rows.append(Row(step.name, type(step).__name__, step.shape, 0))
    return rows


def format_summary(rows: list[Row]) -> str:
    """The summary as an aligned text table, with a last line for the total.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> print(nn.format_summary(nn.summary(network, nn.init(network, jax.random.key(0)))))
      name   layer       output shape  parameters
      a      Dense       (3,)                  15
             Activation  (3,)                   0
      b      Dense       (2,)                   8
      total                                    23
    """
    lines = [("name", "layer", "output shape", "parameters")]
    lines += [(row.name, row.kind, str(row.output_shape), f"{row.parameters:,}") for row in rows]
    lines.append(("total", "", "", f"{sum(row.parameters for row in rows):,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in lines
    )


def count(params: Params) -> int:
    """Number of entries of all arrays of a tree.

    Example:
      >>> import numpy as np
      >>> from slth import nn
      >>> nn.count({"a": {"kernel": np.ones((4, 3)), "bias": np.ones(3)}})
      15
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))
