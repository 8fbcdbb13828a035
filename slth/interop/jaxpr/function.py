"""A target from any function in JAX."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from slth.interop.jaxpr.chart import Chart
from slth.interop.jaxpr.reader import Reader
from slth.interop.jaxpr.steps import BATCH, Constant, Value
from slth.target import Target, checked_word

CLOSE = 1e-3
"""Largest difference of the outputs that rounding explains, relative to the largest; 50 times as much where
the function computes in half precision."""


def from_jax(
    apply: Callable[[Any, Any], Any],
    params: Any,
    example: Any,
    *,
    layout: Literal["channels_last", "channels_first"] = "channels_last",
) -> Target:
    r"""The target that computes ``apply(params, x)``, whatever library the function is written with.

    The function is traced (`jax.make_jaxpr`) and read: convolutions, products, sums, activations, pooling.
    What depends on parameters alone is computed, so batch norm (not training), weight norm or a kernel made
    of two factors are numbers. Activations are told by their values. Last, target and function are compared
    on random images.

    Args:
      apply: a function of parameters and a batch that returns the outputs, (n, classes).
      params: its parameters, any tree; leaves that are no arrays are left as they are.
      example: at least 2 images such as the function reads, (n, *shape); only shape and type matter.
      layout: where the function's images have their channels; the target has them last.
    Returns: the target; layers have the names of their parameters.
    Raises: ValueError, naming the primitive, the line of the program it comes from, and what can be read.

    Example:
      >>> import jax, jax.numpy as jnp, slth
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["a"] + 1.0) @ params["b"]
      >>> params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))}
      >>> target = slth.from_jax(apply, params, jnp.zeros((8, 4)))
      >>> [type(layer).__name__ for layer in target.network.layers]
      ['Dense', 'Activation', 'Dense']
    """
    checked_word("layout", layout, ("channels_last", "channels_first"))
    shape, dtype = np.shape(example), jnp.result_type(example)
    if len(shape) < 2 or shape[0] < 2 or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"example: expected a batch of at least 2 images of floating-point numbers, got {shape}, {dtype}"
        )
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    arrays = {
        place: leaf for place, (_, leaf) in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)
    }

    def traced(held: dict[int, Any], x: Any) -> Any:
        whole = [held.get(place, leaf) for place, (_, leaf) in enumerate(leaves)]
        return apply(jax.tree_util.tree_unflatten(tree, whole), x)

    closed = jax.make_jaxpr(traced)(arrays, jax.ShapeDtypeStruct(shape, dtype))
    axes = tuple(range(len(shape) - 1))
    axes = axes if layout == "channels_last" else (axes[-1], *axes[:-1])
    sizes = dict(zip(axes, shape[1:], strict=True))
    chart = Chart(tuple(sizes[axis] for axis in sorted(sizes)))
    inputs = [Constant(leaf, _name(leaves[place][0])) for place, leaf in sorted(arrays.items())]
    reader = Reader(chart)
    outputs = reader.run(closed.jaxpr, closed.consts, [*inputs, Value(0, (BATCH, *axes))])
    target = chart.target(_output(reader, outputs))
    _compare(apply, params, target, shape, dtype, axes)
    return target


def _output(reader: Reader, outputs: list[Any]) -> int:
    """The number of the function's only output."""
    if len(outputs) != 1:
        raise ValueError(f"the function returns {len(outputs)} arrays: return the outputs alone")
    (output,) = outputs
    if not isinstance(output, Value):
        raise ValueError("the function's outputs do not depend on its images")
    try:
        number = reader.close(output)
    except ValueError as error:
        raise ValueError(f"the outputs: {error}") from error
    rank = len(reader.chart.nodes[number].shape)
    if output.axes != (BATCH, *range(rank)):
        raise ValueError(
            "the function's outputs are not (n, channels) or (n, *places, channels): transpose or flatten "
            "them"
        )
    return number


def _name(path: Any) -> str | None:
    """What a parameter's layer is called: its place in the tree without the words that every place has."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
    words = ("params", "kernel", "weight", "w", "value", "raw_value", "")
    return ".".join(word for part in parts for word in part.split("/") if word not in words) or None


def _compare(apply: Any, params: Any, target: Target, shape: Any, dtype: Any, axes: tuple[int, ...]) -> None:
    """Refuse a target whose outputs are not the function's on random images."""
    images = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    wanted = np.asarray(apply(params, images), np.float64)
    own = np.asarray(images, np.float32).transpose(0, *(1 + axes.index(axis) for axis in range(len(axes))))
    error = np.abs(target(own) - wanted).max() / max(np.abs(wanted).max(), 1e-30)
    arrays = [*jax.tree.leaves(params), images, apply(params, images)]
    kinds = {leaf.dtype for leaf in arrays if hasattr(leaf, "dtype")}
    close = CLOSE * (50 if kinds & {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)} else 1)
    if not error <= close:
        raise ValueError(
            f"the network that was read differs from the function by {error:.2g} of the largest output on "
            "random images: the function does something that slth reads wrongly; please report it"
        )
