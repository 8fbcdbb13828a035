"""The activation table against limits, differences and grids computed apart from it."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.nn import ACTIVATIONS, Activation, activation_info
from tests.nn.functions import FUNCTIONS, phi

SLOPES = {"leaky_relu": (0.01, 0.3, -0.5, 2.0)}
ROWS = [(name, slope) for name in ACTIVATIONS for slope in SLOPES.get(name, (0.01,))]
GRID = np.unique([*-np.logspace(2, -6, 400), 0.0, *np.logspace(-6, 2, 400), *np.linspace(-7, 7, 14_001)])
every_row = pytest.mark.parametrize("name, slope", ROWS, ids=[f"{n}-{s}" for n, s in ROWS])


def test_every_row_is_tested():
    assert set(FUNCTIONS) == {name for name, _ in ROWS}


@every_row
def test_the_function_is_that_of_its_name(name: str, slope: float):
    x = GRID.astype(np.float32)
    got = np.asarray(activation_info(name, slope).phi(jnp.asarray(x)))
    np.testing.assert_allclose(got, phi(name, slope, x), rtol=2e-6, atol=1e-6)


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
        # No idle bound: up to a series' next term it is the distance itself at one of the ends.
        ends = [
            abs(phi(name, slope, s * u) - info.offset - s * mu * u)
            for s, mu in ((1, info.mu_plus), (-1, info.mu_minus))
        ]
        assert info.remainder(u) <= 1.01 * max(ends) + 1e-12


@settings(max_examples=100)
@given(u=st.floats(1e-6, 60), share=st.floats(-1, 1), slope=st.floats(-0.99, 3))
def test_bounds_hold_everywhere(u: float, share: float, slope: float):
    x = share * u
    for name in FUNCTIONS:
        info = activation_info(name, slope)
        value, zero = phi(name, slope, x), float(phi(name, slope, 0.0))
        line = info.offset + (info.mu_plus if x >= 0 else info.mu_minus) * x
        rounding = 1e-15 * (1 + (info.lipschitz + 1) * u)
        assert abs(value - line) <= info.remainder(u) + rounding
        assert abs(value - zero) <= info.lipschitz * abs(x) + rounding


@every_row
def test_no_value_leaves_the_range(name: str, slope: float):
    info, values = activation_info(name, slope), phi(name, slope, GRID)
    assert info.least - 1e-12 <= values.min()
    assert values.max() <= info.most + 1e-12
    # Where a bound is named it is the best one, a limit or a value that is taken.
    assert not np.isfinite(info.least) or values.min() == pytest.approx(info.least, abs=1e-3)
    assert not np.isfinite(info.most) or values.max() == pytest.approx(info.most, abs=1e-3)


@every_row
def test_the_remainder_grows_and_starts_at_zero(name: str, slope: float):
    info = activation_info(name, slope)
    values = [info.remainder(float(u)) for u in (0.0, *np.geomspace(1e-9, 1e3, 300))]
    assert values[0] == 0
    assert all(a <= b for a, b in pairwise(values))
    power = {"tanh": 3, "sigmoid": 3}.get(name, 2)
    assert info.remainder(1e-4) <= 1e-4**power


@every_row
def test_the_least_lipschitz_constant_is_reached_in_the_limit(name: str, slope: float):
    # phi' by differences of float64 to both sides, far enough out for those whose slope only tends to T.
    x, h = np.linspace(-20, 20, 80_001), 1e-6
    sides = [phi(name, slope, x + step) - phi(name, slope, x) for step in (h, -h)]
    slopes = np.abs(sides) / h
    info = activation_info(name, slope)
    one_sided = max(abs(info.mu_plus), abs(info.mu_minus))
    assert max(slopes.max(), one_sided) == pytest.approx(info.lipschitz, rel=1e-6)


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


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_exist_at_zero(name: str):
    gradient = jax.grad(lambda x: activation_info(name, 0.1).phi(x))(0.0)
    assert np.isfinite(gradient)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_row_is_named():
    with pytest.raises(ValueError, match=r"activation 'cube' is unknown: choose one of relu, leaky_relu"):
        activation_info("cube")
    with pytest.raises(ValueError, match=r"activation slope must be finite, got nan"):
        activation_info("leaky_relu", float("nan"))
    with pytest.raises(ValueError, match=r"activation slope must be finite, got '0.1'"):
        activation_info("leaky_relu", "0.1")  # pyright: ignore[reportArgumentType]


def test_the_absolute_value_is_no_leaky_relu_for_tickets():
    with pytest.raises(ValueError, match=r"mu\+ \+ mu- = 0 .* x and -x look alike"):
        Activation("leaky_relu", -1.0)


def test_a_whole_slope_is_the_same_activation():
    assert Activation("leaky_relu", 2) == Activation("leaky_relu", 2.0)
    assert type(Activation("leaky_relu", 2).slope) is float
