"""Targets: batch norm folded, parameters checked, outputs those of the network."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import Target, nn
from slth.target import check_params
from tests.construction.nets import random_params
from tests.construction.reference import forward

NET = nn.Network(
    (6, 6, 2),
    (
        nn.Conv("a", 3, (3, 3), use_bias=False),
        nn.BatchNorm("n"),
        nn.Activation("relu"),
        nn.Residual("r", (nn.Conv("u", 3, (1, 1)), nn.BatchNorm("n")), (nn.ChannelScale("s"),)),
        nn.GlobalMean(),
        nn.Dense("d", 4),
    ),
)


def params() -> dict:
    return random_params(NET, np.random.default_rng(0))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 6, 6, 2)).astype(np.float32)


GIVEN = {
    "NumPy": params(),
    "JAX": jax.tree.map(jnp.asarray, params()),
    "float64": jax.tree.map(lambda leaf: leaf.astype(np.float64), params()),
    "flax": flax.core.freeze(params()),
    "flax, JAX": flax.core.freeze(jax.tree.map(jnp.asarray, params())),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN.keys())
def test_batch_norm_is_folded_and_the_outputs_stay(given):
    target = Target.of(NET, given)
    layers = [step.layer for step in nn.graph(target.network) if isinstance(step, nn.Apply)]
    assert not any(isinstance(layer, nn.BatchNorm) for layer in layers)
    x = images(5)
    np.testing.assert_allclose(target(x), forward(NET, params(), x)[""], atol=1e-5)
    np.testing.assert_allclose(target(x), nn.apply(target.network, target.params, x), atol=1e-6)
    truth = Target.of(NET, params()).params
    assert jax.tree.structure(target.params) == jax.tree.structure(truth)
    jax.tree.map(np.testing.assert_array_equal, target.params, truth)
    leaves = jax.tree.leaves(target.params)
    assert {(type(leaf), leaf.dtype) for leaf in leaves} == {(np.ndarray, np.dtype(np.float32))}


def test_a_network_without_batch_norm_is_taken_as_it_is():
    network = nn.Network((3,), (nn.Dense("a", 4), nn.Activation("tanh"), nn.Dense("b", 2)))
    held = nn.init(network, jax.random.key(0))
    target = Target(network, held)
    assert (target.network, target.params) == (network, held)
    again = Target.of(network, held)
    assert again.network == network
    jax.tree.map(np.testing.assert_array_equal, again.params, held)


def test_any_number_of_images_goes_through_in_batches():
    target = Target.of(NET, params())
    x = images(1100)  # more than two batches
    np.testing.assert_allclose(target(x)[[0, 511, 512, 1099]], target(x[[0, 511, 512, 1099]]), atol=1e-6)
    assert target(x).shape == (1100, 4)
    with pytest.raises(ValueError, match="images: there are none to evaluate"):
        target(x[:0])


def changed(path: str, value: object) -> dict:
    """The parameters with one array replaced, added, or (None) taken away."""
    layers = {layer: dict(held) for layer, held in nn.by_layer(params()).items()}
    layer, _, name = path.rpartition("/")
    layers.setdefault(layer, {})[name] = value
    if value is None:
        del layers[layer][name]
    return nn.nested(layers)


REFUSED = {
    "an array missing": (
        changed("a/kernel", None),
        r"^params: a/kernel of shape \(3, 3, 2, 3\) is missing: give",
    ),
    "a layer missing": (
        {name: held for name, held in params().items() if name != "r"},
        r"^params: r/branch/u/bias of shape \(3,\) is missing",
    ),
    "an array left over": (changed("a/bias", np.zeros(3)), r"^params: the network has no a/bias: are these"),
    "a layer left over": (changed("r/skip/t/scale", np.ones(3)), r"the network has no r/skip/t/scale"),
    "another shape": (
        changed("d/kernel", np.ones((4, 3))),
        r"^params: d/kernel has shape \(4, 3\), and the network's has \(3, 4\): are these",
    ),
    "a number for an array": (
        changed("n/scale", 1.0),
        r"n/scale has shape \(\), and the network's has \(3,\)",
    ),
    "NaN": (changed("n/var", np.array([1.0, np.nan, 1.0])), r"^params: n/var holds NaN or infinite numbers"),
    "infinity": (
        changed("d/bias", np.array([1, 2, -np.inf, 0])),
        r"d/bias holds NaN or infinite numbers: train",
    ),
    "both infinities": (
        changed("d/bias", np.array([1, np.inf, -np.inf, 0])),
        r"d/bias holds NaN or infinite",
    ),
}


@pytest.mark.parametrize("given, message", REFUSED.values(), ids=REFUSED.keys())
def test_parameters_of_another_network_are_refused_in_one_line(given: dict, message: str):
    for refuse in (check_params, Target, Target.of):
        with pytest.raises(ValueError, match=message) as caught:
            refuse(NET, given)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [None, [np.ones(3)], np.ones(3)])
def test_what_is_no_tree_is_refused(given):
    with pytest.raises(
        ValueError, match=r"^params: expected a dict of arrays by layer, got (NoneType|list|ndarray)$"
    ):
        Target.of(NET, given)
