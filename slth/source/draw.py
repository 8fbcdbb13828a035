"""Drawing a source: any parameter, at any time, with the same bits."""

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from slth import random
from slth.nn import nested, parameter_shapes
from slth.source.source import Source, bias_scale, layer_scale
from slth.types import Params

BLOCK = 2**22
"""Most values that one program draws. Blocks have few sizes, so that few programs are compiled."""
LEAST = 2**10
"""Least size of a block."""


def parameter(source: Source, path: str) -> Float32[Array, "..."]:
    """One parameter of the source, such as ``"conv1/kernel"``, on the grid 2^-24.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> slth.source.parameter(source, "a/kernel").shape
      (176, 39)
    """
    layer, _, leaf = path.rpartition("/")
    shape = parameter_shapes(source.network)[path]
    key = random.key(source.seed, layer, leaf)
    if leaf == "bias" and source.biases == "zero":
        return jnp.zeros(shape, jnp.float32)
    if leaf == "bias":
        return jnp.asarray(_scaled(partial(random.uniform, key), shape, bias_scale(source, layer)))
    draw = random.normal if source.init.endswith("normal") else random.uniform
    values = _scaled(partial(draw, key), shape, layer_scale(source, layer))
    values = np.abs(values) if layer in source.positive else values
    return jnp.asarray(
        values if source.presence == 1 else np.where(_edges(source, path), values, np.float32(0))
    )


def _scaled(draw: Callable[..., Array], shape: tuple[int, ...], scale: float) -> Float32[np.ndarray, "..."]:
    """scale times a draw, on the grid."""
    return np.asarray(random.snap(np.float32(scale) * _drawn(draw, shape)))


def _drawn(draw: Callable[..., Array], shape: tuple[int, ...]) -> np.ndarray:
    """Random values of a shape, row-major. A block may be longer than what is left to draw: a value depends
    on its own place alone."""
    size = math.prod(shape)
    parts = []
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        block = max(LEAST, 2 ** (count - 1).bit_length())
        parts.append(np.asarray(draw((block,), start=start))[:count])
    return np.concatenate(parts).reshape(shape)


def _edges(source: Source, path: str) -> Bool[np.ndarray, "..."]:
    """Which weights of a kernel are there: a stream of its own, so that p changes no value."""
    layer, _, leaf = path.rpartition("/")
    key = random.key(source.seed, layer, leaf, "presence")
    return _drawn(partial(random.bernoulli, key, source.presence), parameter_shapes(source.network)[path])


def parameters(source: Source) -> Params:
    """All parameters as the nested dict that `slth.nn.apply` reads.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> sorted(slth.source.parameters(source))
      ['a', 'b', 'univariate']
    """
    layers: dict[str, Params] = {}
    for path in parameter_shapes(source.network):
        layer, _, leaf = path.rpartition("/")
        layers.setdefault(layer, {})[leaf] = parameter(source, path)
    return nested(layers)


def layers(source: Source) -> Iterator[tuple[str, Float32[np.ndarray, "..."]]]:
    """(path, parameter) one at a time, in the order of `parameter_shapes`: never two layers in memory.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> for path, array in slth.source.layers(source):
      ...     print(path, array.shape)
      univariate/bias (176,)
      univariate/kernel (4, 176)
      a/kernel (176, 39)
      b/kernel (39, 2)
    """
    for path in parameter_shapes(source.network):
        yield path, np.asarray(parameter(source, path))


def present(source: Source) -> int:
    """Number of parameters that are there: all of them, or those that a sparse source did not leave out.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> whole, sparse = (slth.Source.of(target, copies=5, presence=p) for p in (1.0, 0.5))
      >>> slth.source.present(whole), slth.source.present(sparse)
      (7822, 4026)
    """
    if source.presence == 1:
        return sum(math.prod(shape) for shape in parameter_shapes(source.network).values())
    return sum(
        int(_edges(source, path).sum()) if path.endswith("/kernel") else math.prod(shape)
        for path, shape in parameter_shapes(source.network).items()
    )


def sha256(source: Source) -> str:
    """Hash of all parameters: little-endian float32, row-major, in the order of `parameter_shapes`.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> slth.source.sha256(source)[:8]
      'f824a0db'
    """
    digest = hashlib.sha256()
    for _, values in layers(source):
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
