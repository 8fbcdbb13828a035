"""Small networks, and what they compute written out by hand: the judge of every score."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slth import pruning
from slth.nn.graph import by_layer
from slth.nn.layers import Activation, BatchNorm, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean
from tests.construction.nets import random_params

RELU, TANH = Activation("relu"), Activation("tanh")
SAME = ((1, 1), (1, 1))


class Case(NamedTuple):
    """A network and its function of (kernels by layer, all parameters by layer, images)."""

    network: Network
    outputs: Callable
    flow: Callable
    """Outputs for an input of ones, of absolute kernels and linear activations."""


def _slid(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), SAME, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def _convolution(w, p, x):
    y = jax.nn.relu(_slid(x, w["a"]) + p["a"]["bias"].reshape(1, 1, 1, -1))
    return y.reshape(len(x), -1) @ w["b"] + p["b"]["bias"].reshape(1, -1)


def _convolution_flow(w, p):
    return _slid(jnp.ones((1, 4, 4, 2)), w["a"]).reshape(1, -1) @ w["b"]


def _residual(w, p, x):
    y = jnp.tanh(_slid(x, w["r/branch/u"]))
    y = _slid(y, w["r/branch/v"]) + x
    return jnp.tanh(y).mean((1, 2)) @ w["c"]


def _residual_flow(w, p):
    ones = jnp.ones((1, 4, 4, 2))
    y = _slid(_slid(ones, w["r/branch/u"]), w["r/branch/v"]) + ones
    return y.mean((1, 2)) @ w["c"]


def _batch_norm(w, p, x):
    y, row = x @ w["a"], {name: value.reshape(1, -1) for name, value in p["n"].items()}
    mean = y.mean(0, keepdims=True)
    var = ((y - mean) ** 2).mean(0, keepdims=True)
    y = row["scale"] * (y - mean) / jnp.sqrt(var + 1e-5) + row["bias"]
    return jnp.tanh(y) @ w["b"]


def _batch_norm_flow(w, p):
    factor = jnp.abs(p["n"]["scale"]) / jnp.sqrt(p["n"]["var"] + 1e-5)
    return (jnp.ones((1, 3)) @ w["a"]) * factor.reshape(1, -1) @ w["b"]


CASES = {
    "convolution": Case(
        Network((4, 4, 2), (Conv("a", 3, (3, 3), padding=SAME), RELU, Flatten(), Dense("b", 3))),
        _convolution,
        _convolution_flow,
    ),
    "residual": Case(
        Network(
            (4, 4, 2),
            (
                Residual(
                    "r",
                    (
                        *(Conv("u", 3, (3, 3), padding=SAME, use_bias=False), TANH),
                        Conv("v", 2, (3, 3), padding=SAME, use_bias=False),
                    ),
                ),
                *(TANH, GlobalMean(), Dense("c", 3, use_bias=False)),
            ),
        ),
        _residual,
        _residual_flow,
    ),
    "batch norm": Case(
        Network((3,), (Dense("a", 5, use_bias=False), BatchNorm("n"), TANH, Dense("b", 3, use_bias=False))),
        _batch_norm,
        _batch_norm_flow,
    ),
}

PLAIN = Network((4,), (Dense("a", 6), RELU, Dense("b", 3), RELU, Dense("c", 2)))


def params_of(network, seed=0):
    return random_params(network, np.random.default_rng(seed))


def batch_of(network, seed=0, count=8):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *network.input_shape)).astype(np.float32)
    return pruning.Batch(images, rng.integers(0, network.output_shape[-1], count))


def double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def parts(case, params):
    """The kernels and all parameters by layer, in float64."""
    p = double(by_layer(params))
    return {path: p[path]["kernel"] for path in pruning.prunable(case.network)}, p
