"""Networks in four libraries of JAX: for each its parameters, its function and how it is saved and read.

Batch norm is used as it is at inference, with statistics of the untrained network's values, and trained so.
"""

from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import flax.linen as linen
import flax.serialization
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx


class Residuals(linen.Module):
    """A residual network with batch norm and GELU."""

    @linen.compact
    def __call__(self, x, train: bool = False):
        """Logits."""
        x = linen.gelu(linen.Conv(12, (3, 3))(x))
        for width, stride in ((12, 1), (20, 2)):
            y = linen.Conv(width, (3, 3), strides=stride)(x)
            y = linen.gelu(linen.BatchNorm(not train, momentum=0.0)(y))
            y = linen.BatchNorm(not train, momentum=0.0)(linen.Conv(width, (3, 3))(y))
            x = linen.gelu(y + (x if stride == 1 else linen.Conv(width, (1, 1), strides=stride)(x)))
        return linen.Dense(10)(x.mean((1, 2)))


class Plain(linen.Module):
    """Three convolutions, one of a step of two, and softplus."""

    @linen.compact
    def __call__(self, x):
        """Logits."""
        for width, stride in ((12, 1), (16, 2), (24, 2)):
            x = linen.softplus(linen.Conv(width, (3, 3), strides=stride, padding=1)(x))
        return linen.Dense(10)(x.reshape(len(x), -1))


class Fire(nnx.Module):
    """SqueezeNet: two fire modules."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.squeeze = nnx.List([nnx.Conv(n, 8, (1, 1), rngs=rngs) for n in (16, 24)])
        self.narrow = nnx.List([nnx.Conv(8, 12, (1, 1), rngs=rngs) for _ in range(2)])
        self.broad = nnx.List([nnx.Conv(8, 12, (3, 3), rngs=rngs) for _ in range(2)])
        self.last = nnx.Conv(24, 10, (1, 1), rngs=rngs)

    def __call__(self, x):
        """Logits."""
        x = nnx.relu(self.first(x))
        for squeeze, narrow, broad in zip(self.squeeze, self.narrow, self.broad, strict=True):
            x = nnx.relu(squeeze(x))
            x = jnp.concatenate([nnx.relu(narrow(x)), nnx.relu(broad(x))], -1)
            x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.last(x).mean((1, 2))


class Sound(eqx.Module):
    """M5, one-dimensional, of the 64 pixels in a row; channels first, PReLU."""

    convs: list
    slopes: list
    linear: eqx.nn.Linear

    def __init__(self, key) -> None:
        keys = jax.random.split(key, 4)
        shapes = ((1, 16, 9), (16, 24, 3), (24, 32, 3))
        self.convs = [eqx.nn.Conv1d(*shape, key=k) for shape, k in zip(shapes, keys, strict=False)]
        self.slopes = [eqx.nn.PReLU(0.25) for _ in shapes]
        self.linear = eqx.nn.Linear(32, 10, key=keys[3])

    def __call__(self, x):
        """Logits."""
        pool = eqx.nn.MaxPool1d(2, 2)
        for conv, slope in zip(self.convs, self.slopes, strict=True):
            x = pool(slope(conv(x)))
        return self.linear(x.max(-1))


def grouped(x):
    """ResNeXt: residual blocks of grouped convolutions."""
    x = jax.nn.relu(hk.Conv2D(16, 3)(x))
    for _ in range(2):
        y = jax.nn.relu(hk.Conv2D(16, 1)(x))
        y = jax.nn.relu(hk.Conv2D(16, 3, feature_group_count=4)(y))
        x = jax.nn.relu(x + hk.Conv2D(16, 1)(y))
        x = hk.avg_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return hk.Linear(10)(hk.Flatten()(x))


GROUPED = hk.without_apply_rng(hk.transform(grouped))


def linen_residuals(x: np.ndarray) -> tuple:
    """Variables in flax's msgpack."""
    variables = Residuals().init(jax.random.key(0), x[:2])
    _, seen = Residuals().apply(variables, x[:512], train=True, mutable=["batch_stats"])
    return {**variables, **seen}, Residuals().apply, _msgpack


def linen_plain(x: np.ndarray) -> tuple:
    """Parameters in flax's msgpack."""
    return Plain().init(jax.random.key(1), x[:2]), Plain().apply, _msgpack


def nnx_fire(x: np.ndarray) -> tuple:
    """A state of nnx in a folder of orbax."""
    graph, state = nnx.split(Fire(nnx.Rngs(0)))
    return state, lambda p, x: nnx.merge(graph, p)(x), _orbax


def equinox_sound(x: np.ndarray) -> tuple:
    """A tree of equinox."""
    arrays, rest = eqx.partition(Sound(jax.random.key(2)), eqx.is_array)

    def apply(p, x):
        return jax.vmap(eqx.combine(p, rest))(x.reshape(len(x), 1, -1))

    return arrays, apply, lambda folder, name, p: eqx.tree_serialise_leaves(folder / f"{name}.eqx", p)


def haiku_grouped(x: np.ndarray) -> tuple:
    """Parameters of haiku in an .npz, names joined by slashes."""

    def save(folder: Path, name: str, p) -> None:
        flat = {f"{layer}/{leaf}": v for layer, leaves in p.items() for leaf, v in leaves.items()}
        np.savez(folder / f"{name}.npz", **flat)

    return GROUPED.init(jax.random.key(3), x[:2]), GROUPED.apply, save


def _msgpack(folder: Path, name: str, p) -> None:
    (folder / f"{name}.msgpack").write_bytes(flax.serialization.to_bytes(p))


def _orbax(folder: Path, name: str, p) -> None:
    with ocp.StandardCheckpointer() as saver:
        saver.save(folder / name, nnx.to_pure_dict(p), force=True)


NETS: dict[str, Callable] = {
    "linen_residuals": linen_residuals,
    "linen_plain": linen_plain,
    "nnx_fire": nnx_fire,
    "equinox_sound": equinox_sound,
    "haiku_grouped": haiku_grouped,
}
