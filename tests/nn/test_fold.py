"""Folded networks: no batch norm left, and the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import nn
from slth.nn import zoo

BN, RELU = nn.BatchNorm, nn.Activation("relu")


def conv(name: str, **options) -> nn.Conv:
    return nn.Conv(name, 3, (3, 3), padding=nn.same_padding((3, 3)), **options)


NETWORKS = {
    "no bias": nn.Network((5, 5, 2), (conv("c", use_bias=False), BN("n"), RELU)),
    "bias": nn.Network((5, 5, 2), (conv("c"), BN("n", epsilon=1e-2), RELU)),
    "dense": nn.Network((4,), (nn.Dense("d", 3, use_bias=False), BN("n"), nn.Activation("tanh"))),
    "one dimension": nn.Network((6, 2), (nn.Conv("c", 3, (3,), (2,)), BN("n"))),
    "norm first": nn.Network((5, 5, 2), (BN("n"), RELU, conv("c"))),
    "norm first, flat": nn.Network((4,), (BN("n"), nn.Dense("d", 2))),
    "norm, then scale": nn.Network((5, 5, 2), (conv("c", use_bias=False), BN("n"), nn.ChannelScale("s"))),
    "norm after an activation": nn.Network((5, 5, 2), (conv("c"), RELU, BN("n"))),
    "option A": zoo.resnet_cifar(8, (8, 8, 3), 4, width=4),
    "projection": zoo.resnet_cifar(8, (8, 8, 3), 4, width=4, skip="projection"),
    "scaled": zoo.resnet_cifar(8, (8, 8, 3), 4, width=4, skip="scaled", activation="sigmoid"),
    "pre-activation": zoo.resnet_cifar(8, (8, 8, 3), 4, width=4, pre_activation=True),
}  # fmt: skip


def drawn(net: nn.Network, key: jax.Array):
    """Parameters none of which is neutral; variances positive."""
    params = nn.init(net, key)
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = []
    for index, (path, leaf) in enumerate(paths):
        noise = jax.random.normal(jax.random.fold_in(key, index), leaf.shape)
        leaves.append(0.5 + noise**2 if path[-1].key == "var" else leaf + 0.3 * noise)
    return jax.tree.unflatten(structure, leaves)


def kinds(layers) -> set[type]:
    found = set()
    for layer in layers:
        found.add(type(layer))
        if isinstance(layer, nn.Residual):
            found |= kinds(layer.branch) | kinds(layer.skip)
    return found


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS.keys())
def test_folding_changes_no_output(net: nn.Network, getkey):
    params = drawn(net, getkey())
    folded, values = nn.fold_batch_norm(net, params)
    assert nn.BatchNorm in kinds(net.layers)
    assert nn.BatchNorm not in kinds(folded.layers)
    assert folded.output_shape == net.output_shape
    x = jax.random.normal(getkey(), (16, *net.input_shape))
    truth = np.asarray(jax.jit(nn.apply, static_argnums=0)(net, params, x))
    got = np.asarray(jax.jit(nn.apply, static_argnums=0)(folded, values, x))
    np.testing.assert_allclose(got, truth, atol=3e-6 * max(1.0, np.abs(truth).max()), rtol=3e-6)
    # The tree is that of the folded spec.
    shapes = jax.eval_shape(lambda: nn.init(folded, jax.random.key(0)))
    assert jax.tree.map(np.shape, values) == jax.tree.map(np.shape, shapes)
    assert {np.asarray(leaf).dtype for leaf in jax.tree.leaves(values)} == {np.dtype(np.float32)}


def test_the_folded_numbers_are_those_of_the_formula():
    net = nn.Network((1,), (nn.Dense("d", 1), BN("n", epsilon=0.25)))
    layers = {"kernel": jnp.array([[3.0]]), "bias": jnp.array([5.0])}
    norm = {"scale": [6.0], "bias": [-1.0], "mean": [2.0], "var": [2.0]}
    params = {"d": layers, "n": {key: jnp.array(value) for key, value in norm.items()}}
    folded, values = nn.fold_batch_norm(net, params)
    # gamma / sqrt(var + epsilon) = 6 / 1.5 = 4
    assert values["d"]["kernel"].tolist() == [[12.0]]
    assert values["d"]["bias"].tolist() == [(5 - 2) * 4 - 1.0]
    assert folded.layers == (nn.Dense("d", 1),)


def test_a_scaled_skip_stays_a_scale():
    net = NETWORKS["scaled"]
    folded, _ = nn.fold_batch_norm(net, drawn(net, jax.random.key(0)))
    blocks = [layer for layer in folded.layers if isinstance(layer, nn.Residual)]
    assert [tuple(map(type, block.skip)) for block in blocks] == [
        (nn.ChannelScale,),
        (nn.Conv,),
        (nn.Conv,),
    ]


def test_folding_leaves_its_arguments_alone(getkey):
    net = NETWORKS["no bias"]
    params = drawn(net, getkey())
    before = jax.tree.map(np.array, params)
    nn.fold_batch_norm(net, params)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_an_empty_skip_may_stand_in_the_tree(getkey):
    net = nn.Network((4,), (nn.Residual("r", (nn.Dense("d", 4), BN("n"))),))
    params = drawn(net, getkey())
    params["r"]["skip"] = {}
    folded, values = nn.fold_batch_norm(net, params)
    x = jax.random.normal(getkey(), (3, 4))
    np.testing.assert_allclose(nn.apply(folded, values, x), nn.apply(net, params, x), atol=1e-5)
