"""Convolutions by tiles against those of XLA and against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slth
from slth import nn
from slth.construction import realise
from slth.nn import winograd
from slth.nn.convolution import correlate_channels
from slth.nn.winograd import apply_tiles, correlate_tiles, suits_tiles, tiles_of

SAME = ((1, 1), (1, 1))


@pytest.mark.parametrize("padding", [SAME, ((0, 0), (0, 0)), ((2, 0), (0, 3))], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 4), (3, 5), (5, 3)], ids=str)
def test_tiles_make_the_same_convolution(size: tuple[int, int], padding):
    rng = np.random.default_rng(sum(size))
    x = rng.normal(size=(3, *size, 5)).astype(np.float32)
    w = rng.normal(size=(3, 3, 5, 4)).astype(np.float32)
    found, expected = correlate_tiles(x, w, padding), correlate_channels(x, w, padding=padding)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(jnp.abs(expected).max()))


def test_rounding_is_that_of_numbers_of_32_bits():
    """Wide layers of positive inputs: errors against float64, in units of the largest output."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(2, 8, 8, 300)), 0).astype(np.float32)
    w = rng.normal(size=(3, 3, 300, 70)).astype(np.float32)
    with jax.enable_x64(True):
        exact = np.asarray(correlate_channels(x.astype(np.float64), w.astype(np.float64), padding=SAME))
    size = np.abs(exact).max()
    by_tiles = np.abs(correlate_tiles(x, w, SAME) - exact).max() / size
    directly = np.abs(correlate_channels(x, w, padding=SAME) - exact).max() / size
    assert by_tiles < 2e-6
    assert by_tiles < 20 * directly


LAYERS = {
    "plain": (nn.Conv("a", 64, (3, 3), padding=SAME), True),
    "no bias": (nn.Conv("a", 64, (3, 3), use_bias=False), True),
    "few outputs": (nn.Conv("a", 8, (3, 3)), False),
    "strides": (nn.Conv("a", 64, (3, 3), (2, 1)), False),
    "dilation": (nn.Conv("a", 64, (3, 3), dilation=(1, 2)), False),
    "groups": (nn.Conv("a", 64, (3, 3), groups=2), False),
    "other taps": (nn.Conv("a", 64, (3, 1)), False),
    "one axis": (nn.Conv("a", 64, (3,)), False),
    "dense": (nn.Dense("a", 64), False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_only_layers_that_suit_are_worked_out_by_tiles(name: str):
    layer, suits = LAYERS[name]
    shape = (64,) if isinstance(layer, nn.Dense) else (*(9, 6)[: len(layer.kernel)], 64)
    assert suits_tiles(layer, shape) == suits
    if suits:
        x = jax.random.normal(jax.random.key(0), (2, *shape))
        params = layer.init(jax.random.key(1), shape)
        if layer.use_bias:
            params["bias"] = jax.random.normal(jax.random.key(2), (64,))
        np.testing.assert_allclose(apply_tiles(layer, params, x), layer.apply(params, x), atol=2e-5)
        assert tiles_of(layer, shape) == np.prod([-(-n // 2) for n in layer.output_shape(shape)[:2]])


def test_a_ticket_runs_by_tiles_as_it_does_without(monkeypatch):
    """The pre-activations that a construction looks at; 5 images, so that a last batch is smaller."""
    layers = (
        nn.Conv("a", 6, (3, 3), padding=SAME),
        nn.Activation("relu"),
        nn.Conv("b", 6, (3, 3), padding=SAME),
    )
    network = nn.Network((6, 6, 2), (*layers, nn.GlobalMean(), nn.Dense("d", 3)))
    target = slth.Target(network, nn.init(network, jax.random.key(0)))
    images = np.asarray(jax.random.normal(jax.random.key(1), (5, 6, 6, 2)))
    source, found, real = slth.Source.of(target, copies=5), [], realise._linear_sum
    used = []

    def both(*arguments):
        assert arguments[-1] is True, "the solver lets it"
        direct, by_tiles = [], []
        for channels, values in ((10**9, direct), (1, by_tiles)):
            monkeypatch.setattr(winograd, "CHANNELS", channels)
            monkeypatch.setattr(realise, "TILES", 2 * 9)  # two images at a time
            real.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
            values.append(real(*arguments))
        np.testing.assert_allclose(direct[0], by_tiles[0], atol=1e-5)
        found.append(bool((direct[0] != by_tiles[0]).any()))
        used.append(direct[0].shape)
        return direct[0]

    monkeypatch.setattr(realise, "_linear_sum", both)
    slth.construct(target, source, slth.Compensated(sweeps=1), images)
    assert len(used) == 6
    assert any(found), "rounding tells that the ways differ"
