"""Ranges and secants of every activation of the table, against points drawn at random."""

import numpy as np
import pytest

from slth.certificate.slopes import evaluate, reach, slopes
from slth.nn.activations import ACTIVATIONS
from slth.nn.layers import Activation
from tests.nn.functions import phi

COUNT = 20_000


def intervals(rng):
    """Narrow and wide, near 0 and far from it, some a single point, some with ends on the table's grid."""
    middle = rng.normal(size=COUNT) * np.exp(rng.uniform(-4, 4, COUNT))
    half = np.exp(rng.uniform(-12, 4, COUNT)) * (rng.random(COUNT) < 0.95)
    low, high = middle - half, middle + half
    on_grid = rng.random(COUNT) < 0.3
    low, high = (np.where(on_grid, np.round(a * 256) / 256, a) for a in (low, high))
    return np.minimum(low, high), np.maximum(low, high)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_values_and_secants_lie_within(kind):
    rng = np.random.default_rng(1)
    layer = Activation(kind, 0.3)
    low, high = intervals(rng)
    least, most = slopes(layer, low, high)
    below, above = reach(layer, low, high)
    for _ in range(8):
        # Points often at the ends, and pairs often close together.
        x = np.clip(low + (high - low) * rng.uniform(-0.3, 1.3, COUNT), low, high)
        y = np.clip(x + (high - low) * rng.normal(size=COUNT) * np.exp(rng.uniform(-8, 0, COUNT)), low, high)
        at_x, at_y = evaluate(layer, x), evaluate(layer, y)
        assert (below <= at_x).all()
        assert (at_x <= above).all()
        rise, run = at_y - at_x, y - x
        noise = 1e-14 * (1 + np.abs(at_x))
        assert (rise <= np.where(run > 0, most, least) * run + noise).all()
        assert (rise >= np.where(run > 0, least, most) * run - noise).all()


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_narrow_intervals_have_narrow_bounds(kind):
    layer = Activation(kind, 0.3)
    x = np.linspace(-5, 5, 1001) + 1e-4
    least, most = slopes(layer, x - 1e-6, x + 1e-6)
    assert np.quantile(most - least, 0.98) < 0.01
    below, above = reach(layer, x - 1e-6, x + 1e-6)
    assert np.quantile(above - below, 0.98) < 1e-5


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_values_are_those_of_numpy(kind):
    x = np.random.default_rng(2).normal(size=(3, 700)) * 4
    np.testing.assert_allclose(evaluate(Activation(kind, 0.3), x), phi(kind, 0.3, x), rtol=1e-14, atol=1e-15)


def test_stable_pieces_are_exact():
    layer = Activation("leaky_relu", 0.3)
    low, high = np.array([-2.0, 0.0, -1.0]), np.array([-1.0, 3.0, 1.0])
    least, most = slopes(layer, low, high)
    assert least.tolist() == [0.3, 1.0, 0.3]
    assert most.tolist() == [0.3, 1.0, 1.0]


def test_slopes_of_a_parabola_reach_to_the_ends_of_its_cells():
    layer = Activation("hard_swish")
    low, high = np.arange(-700, 700) / 256, np.arange(-690, 710) / 256  # phi' = (2 x + 3) / 6
    least, most = slopes(layer, low, high)
    assert (least <= (2 * low + 3) / 6).all()
    assert (most >= (2 * high + 3) / 6).all()
    assert (most - least <= (high - low + 1 / 256) / 3 + 1e-8).all(), "an upper end on a node: one cell more"


def test_a_relu6_is_exact_on_each_of_its_three_pieces():
    layer = Activation("relu6")
    low, high = np.array([-2.0, 0.0, 6.0, 5.0, -1.0]), np.array([-0.1, 5.9, 90.0, 7.0, 7.0])
    least, most = slopes(layer, low, high)
    assert (least.tolist(), most.tolist()) == ([0, 1, 0, 0, 0], [0, 1, 0, 1, 1])
    below, above = reach(layer, low, high)
    np.testing.assert_allclose([below, above], [[0, 0, 6, 5, 0], [0, 5.9, 6, 6, 6]], atol=1e-13)
