"""Pruned masks: the same outputs bit for bit, and not a weight more than outputs depend on (by gradients)."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slth import nn
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.nn.prune import prune, read_channels
from slth.source import source_network
from tests.construction.nets import PLAIN, RELU, images
from tests.construction.reference import leaves, masked

SIGMOID = Activation("sigmoid")
PAD = ((1, 1), (1, 1))


def _block(name, act, skip, wide, stride=(1, 1)):
    return Residual(name, (Conv("u", 4, (3, 3), stride, PAD), act, Conv("v", wide, (1, 1))), skip)


def _blocks(act):
    """Carried, subsampled and projected skips in one network, behind a first layer with biases."""
    option_a = Subsample((2, 2), (-1, 0, 1, 2, 3, -1))
    return Network(
        (6, 6, 2),
        (
            *(Conv("a", 4, (1, 1)), act, _block("r", act, (), 4), act),
            *(_block("s", act, (option_a,), 6, (2, 2)), act),
            *(_block("t", act, (Conv("w", 3, (1, 1), use_bias=False),), 3), act),
            *(Pool("mean", (2, 2), (1, 1)), Flatten("chw"), Dense("d", 3)),
        ),
    )


NETWORKS = {
    "blocks": _blocks(RELU),
    "blocks, phi(0) is not 0": _blocks(SIGMOID),
    "plain, hwc": Network(
        (5, 4, 2),
        (
            Conv("a", 5, (2, 2)),
            RELU,
            Conv("b", 4, (2, 2)),
            RELU,
            Flatten("hwc"),
            Dense("c", 5),
            RELU,
            Dense("d", 2),
        ),
    ),
    "tanh": Network(
        (7, 2), (Conv("a", 5, (3,)), Activation("tanh"), GlobalMean(), Dense("b", 6), SIGMOID, Dense("c", 3))
    ),
    "source": source_network(PLAIN["vectors"], 2, copies_per_sign=2, constants=2).network,
}
apply = jax.jit(nn.apply, static_argnums=0)
gradient = jax.jit(jax.grad(lambda params, network, x: nn.apply(network, params, x).sum()), static_argnums=1)


def random_mask(params, rng, density):
    """Weights at random; some channels get or give nothing, so that there is something to prune."""

    def draw(path, values):
        kept = rng.random(values.shape) < density
        if path[-1].key == "kernel":
            kept &= (rng.random(values.shape[-1]) < 0.7) & (rng.random((values.shape[-2], 1)) < 0.7)
        return kept

    return jax.tree_util.tree_map_with_path(draw, params)


def initial(network):
    params = flatten_dict(nn.init(network, jax.random.key(0)))  # without the empty dicts of empty skips
    return jax.tree.map(np.asarray, unflatten_dict(params))


def as_dict(tree):
    return dict(leaves(tree))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("density", [0.15, 0.5])
def test_pruning_keeps_the_outputs_and_only_what_they_depend_on(name, density):
    network = NETWORKS[name]
    rng = np.random.default_rng(len(name))
    params = initial(network)
    # Positive weights and inputs: nothing cancels and no unit is off, so a weight on a path has a gradient.
    positive = jax.tree.map(
        lambda a: rng.uniform(0.5, 1.0, a.shape).astype(np.float32) / a.shape[-1] ** 0.5, params
    )
    signed = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), params)
    x = images(network, 3)
    pruned_some = False
    for _ in range(6):
        mask = random_mask(params, rng, density)
        pruned = prune(network, mask)
        before, after = as_dict(mask), as_dict(pruned)
        assert before.keys() == after.keys()
        assert all((before[path] | ~after[path]).all() for path in before), "only drops"
        whole, rest = (jax.tree.map(np.float32, masked(m, signed)) for m in (mask, pruned))
        assert np.array_equal(apply(network, whole, x), apply(network, rest, x))
        slope = as_dict(gradient(jax.tree.map(np.float32, masked(mask, positive)), network, np.abs(x)))
        for path, kept in after.items():
            assert np.array_equal(kept, before[path] & (slope[path] != 0)), path
        again = as_dict(prune(network, pruned))
        assert all(np.array_equal(again[path], after[path]) for path in after)
        pruned_some |= any((before[path] != after[path]).any() for path in before)
    assert pruned_some


def test_pruning_leaves_its_argument_alone():
    network = NETWORKS["blocks"]
    mask = random_mask(initial(network), np.random.default_rng(0), 0.3)
    before = {path: values.copy() for path, values in leaves(mask)}
    prune(network, mask)
    assert all(np.array_equal(values, before[path]) for path, values in leaves(mask))


def test_read_channels_are_those_that_outputs_depend_on():
    network = NETWORKS["blocks"]
    rng = np.random.default_rng(1)
    params = initial(network)
    mask = random_mask(params, rng, 0.3)
    positive = jax.tree.map(lambda a: rng.uniform(0.5, 1.0, a.shape).astype(np.float32), params)
    reads = read_channels(network, mask)
    # A channel is read where its bias, kept or not, has a gradient.
    x = np.abs(images(network, 2))
    slope = as_dict(gradient(jax.tree.map(np.float32, masked(mask, positive)), network, x))
    named = {path.removesuffix("/kernel") for path in slope if path.endswith("/kernel")}
    assert reads.keys() == named
    for path, read in reads.items():
        if f"{path}/bias" in slope:
            assert np.array_equal(read, slope[f"{path}/bias"] != 0), path
