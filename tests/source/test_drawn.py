"""A kernel drawn place by place has the values of the kernel drawn whole."""

import jax
import numpy as np
import pytest

from slth import Source, Target, nn, random
from slth.source import parameter
from slth.source.drawn import Drawn, drawn, held

NETWORK = nn.Network(
    (6, 6, 2),
    (
        nn.Conv("a", 3, (3, 3)),
        nn.Activation("relu"),
        nn.Conv("b", 4, (2, 2)),
        nn.Activation("relu"),
        nn.GlobalMean(),
        nn.Dense("c", 2),
    ),
)
TARGET = Target(NETWORK, nn.init(NETWORK, jax.random.key(0)))
SETTINGS = {
    "uniform": {},
    "normal": {"init": "he_normal"},
    "sparse": {"presence": 0.6},
    "positive": {"univariate_signs": "positive", "depth": "2L"},
    "all at once": {"init": "normal", "presence": 0.3, "univariate_signs": "positive", "depth": "2L"},
    "nothing there": {"presence": 1e-12},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_whole_kernel_is_that_of_the_source(settings):
    source = Source.of(TARGET, copies=4, seed=3, **settings)
    for path in ("a", "b", "c", *source.positive):
        kernel = np.asarray(parameter(source, f"{path}/kernel"))
        found = drawn(source, path)
        assert found.shape == (kernel[..., 0, 0].size, *kernel.shape[-2:])
        np.testing.assert_array_equal(found.whole().reshape(kernel.shape), kernel)


def test_some_places_have_their_values():
    source = Source.of(TARGET, copies=4, init="he_normal", presence=0.8)
    kernel = drawn(source, "b")
    whole, rng = kernel.whole(), np.random.default_rng(0)
    tap, channel, column = (rng.integers(0, n, 3000) for n in kernel.shape)
    np.testing.assert_array_equal(kernel.at(tap, channel, column), whole[tap, channel, column])
    np.testing.assert_array_equal(kernel.at(1, np.arange(3)[:, None], np.arange(5)), whole[1, :3, :5])
    part = kernel.some(np.array([4, 1]), slice(2, 9)).some(columns=np.array([6, 0, 3]))
    np.testing.assert_array_equal(part.whole(), whole[:, [4, 1]][..., 2:9][..., [6, 0, 3]])
    assert part.size == part.whole().size


def test_flat_indices_beyond_32_bits():
    """Rows around a multiple of 2^32 have what the generator draws there."""
    source = Source.of(TARGET, copies=4, init="normal")
    kernel = drawn(source, "b")
    width, row = 2**20 + 7, 4096
    wide = Drawn(kernel.law, kernel.recipe, width, np.array([[row - 1, row, 0]]), np.arange(width - 3, width))
    assert wide.beyond
    key = random.key(source.seed, "b", "kernel")
    for channel, number in enumerate((row - 1, row, 0)):
        start = number * width + width - 3
        values = random.snap(np.float32(1) * np.asarray(random.normal(key, (3,), start=start)))
        np.testing.assert_array_equal(wide.whole()[0, channel] / kernel.recipe.scale, values)


def test_held_weights_are_what_they_are():
    weights = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(held(weights).whole(), weights)
    np.testing.assert_array_equal(held(weights).at(1, 2, np.arange(5)), weights[1, 2])
