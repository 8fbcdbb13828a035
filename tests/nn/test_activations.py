"""The activation table against limits, differences and grids computed apart from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.nn import ACTIVATIONS, activation_info

SLOPES = {"leaky_relu": (0.01, 0.3, -0.5, 2.0)}
ROWS = [(name, slope) for name in ACTIVATIONS for slope in SLOPES.get(name, (0.01,))]
GRID = np.concatenate([-np.logspace(2, -6, 400), [0.0], np.logspace(-6, 2, 400)])
every_row = pytest.mark.parametrize("name, slope", ROWS, ids=[f"{n}-{s}" for n, s in ROWS])

FUNCTIONS = {  # in NumPy and float64, apart from the table
    "relu": lambda x, a: np.maximum(x, 0),
    "leaky_relu": lambda x, a: np.where(x < 0, a * x, x),
    "tanh": lambda x, a: np.tanh(x),
    "sigmoid": lambda x, a: np.exp(-np.logaddexp(0, -x)),
    "identity": lambda x, a: x,
}


def phi(name: str, slope: float, x: np.ndarray) -> np.ndarray:
    return FUNCTIONS[name](np.asarray(x, np.float64), slope)


def test_every_row_is_tested():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@every_row
def test_the_function_is_that_of_its_name(name: str, slope: float):
    x = GRID.astype(np.float32)
    got = np.asarray(activation_info(name, slope).phi(jnp.asarray(x)))
    np.testing.assert_allclose(got, phi(name, slope, x), rtol=2e-6, atol=1e-7)


@every_row
def test_slopes_and_offset_are_those_at_zero(name: str, slope: float):
    info = activation_info(name, slope)
    h, zero = 1e-7, phi(name, slope, np.float64(0))
    assert info.offset == pytest.approx(float(zero))
    right = (phi(name, slope, np.float64(h)) - zero) / h
    left = (zero - phi(name, slope, np.float64(-h))) / h
    assert info.mu_plus == pytest.approx(float(right), abs=1e-6)
    assert info.mu_minus == pytest.approx(float(left), abs=1e-6)


@every_row
def test_the_lipschitz_constant_is_the_least(name: str, slope: float):
    info = activation_info(name, slope)
    quotients = np.abs(np.diff(phi(name, slope, GRID)) / np.diff(GRID))
    assert quotients.max() <= info.lipschitz * (1 + 1e-6)
    assert quotients.max() >= info.lipschitz * (1 - 1e-3)


@every_row
def test_the_remainder_bounds_the_distance_from_the_two_lines(name: str, slope: float):
    info = activation_info(name, slope)
    lines = info.offset + np.where(GRID >= 0, info.mu_plus, info.mu_minus) * GRID
    distance = np.abs(phi(name, slope, GRID) - lines)
    for u in (0.0, 1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0):
        worst = distance[np.abs(GRID) <= u].max()
        assert worst <= info.remainder(u) + 1e-12
    # Near zero the bound is no idle one: it is the first term that the lines leave out.
    assert info.remainder(0.1) <= 1.2 * distance[np.abs(GRID) <= 0.1].max() + 1e-12


@settings(max_examples=50)
@given(x=st.floats(-50, 50), scale=st.floats(0.01, 100))
def test_homogeneity_holds_where_it_is_claimed(x: float, scale: float):
    for name, slope in ROWS:
        if activation_info(name, slope).homogeneous:
            scaled = phi(name, slope, np.float64(scale * x))
            assert scaled == pytest.approx(scale * float(phi(name, slope, np.float64(x))), rel=1e-12)


def test_homogeneity_is_claimed_of_the_piecewise_linear_ones():
    claimed = {name for name, slope in ROWS if activation_info(name, slope).homogeneous}
    assert claimed == {"relu", "leaky_relu", "identity"}


@every_row
def test_two_signs_add_up_to_a_line_near_zero(name: str, slope: float):
    """phi(x) - phi(-x) = (mu+ + mu-) x up to twice the remainder: what the construction stands on."""
    info = activation_info(name, slope)
    x = np.linspace(-0.2, 0.2, 101)
    difference = phi(name, slope, x) - phi(name, slope, -x)
    line = (info.mu_plus + info.mu_minus) * x
    assert np.abs(difference - line).max() <= 2 * info.remainder(0.2) + 1e-12


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_gradients_exist_at_zero(name: str):
    gradient = jax.grad(lambda x: activation_info(name, 0.1).phi(x))(0.0)
    assert np.isfinite(gradient)


def test_what_is_no_row_is_named():
    with pytest.raises(ValueError, match=r"activation 'gelu' is unknown: choose one of relu, leaky_relu"):
        activation_info("gelu")
    with pytest.raises(ValueError, match=r"activation slope must be finite, got nan"):
        activation_info("leaky_relu", float("nan"))
