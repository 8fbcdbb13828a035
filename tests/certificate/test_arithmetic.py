"""Linear maps in float64 against the layers of `slth.nn`, and their transposes against themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth.certificate.arithmetic import correlate, is_max, moved, moved_transposed, transposed
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Upsample

CONVOLUTIONS = [
    (Conv("a", 4, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2)), (6, 5, 3)),
    (Conv("a", 30, (2, 3), (1, 2), ((1, 1), (2, 1))), (5, 7, 2)),  # many outputs: all taps at once
    (Conv("a", 3, (3,), (2,), ((2, 0),), (2,)), (9, 2)),
    (Dense("a", 5), (7,)),
]
POOLS = [
    (Pool("mean", (2, 3), (2, 1), ((1, 0), (1, 2))), (6, 5, 3)),
    (Pool("mean", (2, 3), (2, 2), ((0, 1), (1, 2)), incomplete=True), (5, 6, 2)),
    (Pool("mean", (3, 2), (2, 1), ((1, 2), (0, 1)), incomplete=True, count_padding=True), (6, 6, 2)),
    (Pool("mean", (3,), (4,)), (6, 2)),
    (GlobalMean(), (4, 5, 3)),
    (GlobalMax(), (4, 5, 3)),
    (Upsample((2, 3)), (4, 2, 3)),
    (Upsample((3,)), (4, 2)),
    (Pool("max", (2, 3), (2, 2), ((0, 1), (1, 2)), incomplete=True), (5, 6, 2)),
    (Pool("max", (3,), (4,), ((1, 1),)), (6, 2)),
]


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.parametrize("layer, shape", CONVOLUTIONS, ids=lambda a: str(a)[:24])
def test_linear_maps_and_their_transposes(layer, shape):
    taps = layer.kernel if isinstance(layer, Conv) else ()
    kernel, x = drawn(*taps, shape[-1], layer.features), drawn(3, *shape)
    y = correlate(layer, x, kernel)
    with jax.enable_x64(True):
        right = layer.apply(
            {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(layer.features)}, jnp.asarray(x)
        )
    np.testing.assert_allclose(y, right, atol=1e-12)
    z = drawn(3, *y.shape[1:])
    np.testing.assert_allclose((y * z).sum(), (x * transposed(layer, z, kernel, shape)).sum(), rtol=1e-12)


@pytest.mark.parametrize("layer, shape", POOLS, ids=lambda a: str(a)[:40])
def test_pooling_and_its_transpose(layer, shape):
    x = drawn(3, *shape)
    with jax.enable_x64(True):
        right = layer.apply({}, jnp.asarray(x))
    y = moved(layer, x)
    np.testing.assert_allclose(y, right, atol=1e-14)
    if not is_max(layer):
        z = drawn(*y.shape)
        np.testing.assert_allclose((y * z).sum(), (x * moved_transposed(layer, z, shape)).sum(), rtol=1e-12)


@pytest.mark.parametrize("order", ["hwc", "chw"])
def test_flattening_and_its_transpose(order):
    layer, x = Flatten(order), drawn(2, 3, 4, 5)
    y = moved(layer, x)
    np.testing.assert_allclose(y, layer.apply({}, jnp.asarray(x)), rtol=1e-6)
    assert np.array_equal(moved_transposed(layer, y, (3, 4, 5)), x)
