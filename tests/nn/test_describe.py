"""A user's own function, described numerically: against the table, and refused where it is of no use."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import nn
from slth.nn import ACTIVATIONS, activation_info, describe_activation, register_activation, zoo
from slth.nn.serial import decode, encode
from tests.nn.functions import phi

SLOPES = {"leaky_relu": (0.01, -0.5, 2.0)}
ROWS = [(name, slope) for name in ACTIVATIONS for slope in SLOPES.get(name, (0.01,))]
REACH = 8.0


@pytest.mark.parametrize("name, slope", ROWS, ids=[f"{n}-{s}" for n, s in ROWS])
def test_what_is_found_is_what_the_table_says(name: str, slope: float):
    known = activation_info(name, slope)
    found = describe_activation(known.phi, reach=REACH)
    assert found.phi is known.phi
    assert (found.mu_plus, found.mu_minus) == pytest.approx((known.mu_plus, known.mu_minus), abs=1e-10)
    assert (found.mu_plus == found.mu_minus) == (known.mu_plus == known.mu_minus)
    assert found.offset == pytest.approx(known.offset, abs=1e-15)
    assert found.homogeneous == known.homogeneous
    # On the reach: softplus, say, has its largest slope at its end.
    x = np.linspace(-REACH, REACH, 200_001)
    largest = np.abs(np.diff(phi(name, slope, x)) / np.diff(x)).max()
    assert largest * (1 - 1e-9) <= found.lipschitz <= known.lipschitz * (1 + 1e-6)
    assert found.lipschitz == pytest.approx(largest, rel=1e-4)
    for u in np.geomspace(1e-3, REACH, 60):
        exact = max(
            abs(phi(name, slope, s * u) - known.offset - s * mu * u)
            for s, mu in ((1, known.mu_plus), (-1, known.mu_minus))
        )
        assert exact - 1e-15 <= found.remainder(float(u)) <= 1.02 * exact + 2e-14
    assert math.isinf(found.remainder(1.001 * REACH)) or found.homogeneous
    assert found.reach == (math.inf if found.homogeneous else REACH)


@settings(max_examples=25)
@given(
    right=st.floats(-2, 2),
    left=st.floats(-2, 2),
    curve=st.floats(-1, 1),
    offset=st.floats(-2, 2),
    share=st.floats(-1, 1),
)
def test_bent_lines_are_described(right: float, left: float, curve: float, offset: float, share: float):
    def function(x, m=jnp):
        return offset + m.where(x >= 0, right, left) * x + curve * x**2 + 0.1 * m.sin(3 * x) ** 3

    if abs(right + left) < 1e-3:
        return
    found = describe_activation(function, reach=2.0)
    assert (found.mu_plus, found.mu_minus) == pytest.approx((right, left), abs=1e-9)
    assert found.offset == pytest.approx(offset, abs=1e-15)
    x = np.linspace(-2, 2, 4001)
    assert np.abs(np.diff(function(x, np)) / np.diff(x)).max() <= found.lipschitz * (1 + 1e-9)
    u = 2 * abs(share)
    lines = found.offset + np.where(x >= 0, found.mu_plus, found.mu_minus) * x
    distance = np.abs(function(x, np) - lines)[np.abs(x) <= u]
    assert distance.max() <= found.remainder(u) + 1e-15


REFUSED = {  # (function, options, message)
    "absolute value": (jnp.abs, {}, r"mu\+ \+ mu- = 0 \(mu\+ = 1, mu- = -1\).*x and -x look alike"),
    "square": (lambda x: x * x, {}, r"mu\+ \+ mu- = 0 \(mu\+ = 0, mu- = 0\)"),
    "constant": (lambda x: 0 * x + 1, {}, r"mu\+ \+ mu- = 0"),
    "root at 0": (lambda x: x + jnp.sqrt(jnp.abs(x)), {}, r"no derivative at 0 from the right"),
    "jump at 0": (lambda x: x - (x < 0), {}, r"no derivative at 0 from the left"),
    "jump": (lambda x: x + (x > 3), {}, r"no Lipschitz constant: .* near x = 3 "),
    "root": (lambda x: x + jnp.sqrt(jnp.abs(x - 1)), {}, r"no Lipschitz constant: .* near x = 1 "),
    "logarithm": (jnp.log, {}, r"phi\(-10\) is not finite; lower reach"),
    "pole": (lambda x: x / (x - 2), {"reach": 4}, r"phi\(2\) is not finite"),
    "too large": (jnp.exp, {"reach": 800}, r"is not finite"),
    "softmax": (jax.nn.softmax, {}, r"not elementwise"),
    "reversed": (lambda x: x[::-1], {}, r"not elementwise"),
    "a sum": (lambda x: x.sum(), {}, r"expected a float32 array of shape \(2, 3\) from one, got float32 of"),
    "a pair": (lambda x: (x, x), {}, r"expected a float32 array of shape \(2, 3\) from one, got tuple"),
    "whole numbers": (lambda x: x.astype(int), {}, r"from one, got int32"),
    "complex": (lambda x: x + 1j, {}, r"from one, got complex64"),
    "no function": (5, {}, r"expected a JAX function"),
    "not of JAX": (lambda x: math.tanh(x), {}, r"expected a JAX function .* it fails with"),
    "reach 0": (jnp.tanh, {"reach": 0}, r"reach must be a positive number, got 0"),
    "reach true": (jnp.tanh, {"reach": True}, r"reach must be a positive number, got True"),
    "no number": (jnp.tanh, {"reach": "1"}, r"reach must be a positive number, got '1'"),
    "endless reach": (jnp.tanh, {"reach": math.inf}, r"reach must be a positive number, got inf"),
}


@pytest.mark.parametrize("function, options, message", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("unchecked")
def test_what_is_of_no_use_is_refused_with_the_reason(function, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        describe_activation(function, name="mine", **options)
    assert str(caught.value).startswith("activation 'mine'")
    assert "\n" not in str(caught.value)


def test_an_activation_of_single_precision_inside_is_described_as_far_as_it_goes():
    found = describe_activation(lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype), reach=3.0)
    assert (found.mu_plus, found.mu_minus) == pytest.approx((1, 1), abs=1e-5)
    assert found.lipschitz == pytest.approx(1, rel=0.05)


def test_a_tiny_activation_is_not_taken_for_a_line():
    found = describe_activation(lambda x: 1e-9 * jnp.tanh(x), reach=3.0)
    assert not found.homogeneous
    assert found.remainder(1.0) == pytest.approx(1e-9 * (1 - math.tanh(1)), rel=1e-2)


@pytest.fixture
def softsign() -> Iterator[nn.Activation]:
    register_activation("softsign", jax.nn.soft_sign, reach=20.0)
    yield nn.Activation("softsign")
    del ACTIVATIONS["softsign"]


def test_a_registered_function_is_an_activation_like_any_other(softsign: nn.Activation, getkey):
    network = nn.Network((3,), (nn.Dense("a", 4), softsign, nn.Dense("b", 2)))
    params = nn.init(network, getkey())
    x = jax.random.normal(getkey(), (5, 3))
    hidden = np.asarray(x) @ np.asarray(params["a"]["kernel"])
    wanted = (hidden / (1 + np.abs(hidden))) @ np.asarray(params["b"]["kernel"])
    out = jax.jit(nn.apply, static_argnums=0)(network, params, x)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)
    assert decode(encode(network)) == network
    assert hash(decode(encode(network))) == hash(network)
    assert zoo.build("mlp", (3,), 2, activation="softsign").layers[1] == softsign


@pytest.mark.usefixtures("unchecked")
def test_registering_twice_is_the_same_and_another_function_is_refused(softsign: nn.Activation):
    assert register_activation("softsign", jax.nn.soft_sign).reach == 20.0
    with pytest.raises(ValueError, match="the name 'softsign' is taken"):
        register_activation("softsign", jnp.tanh)
    with pytest.raises(ValueError, match="the name 'relu' is taken"):
        register_activation("relu", jnp.tanh)
    for name in ("", "two words", "1x", "a/b", None):
        with pytest.raises(ValueError, match="must be an identifier"):
            register_activation(name, jnp.tanh)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"activation 'norm' has mu\+ \+ mu- = 0"):
        register_activation("norm", jnp.abs)
    assert "norm" not in ACTIVATIONS


def test_a_file_that_names_an_activation_nobody_registered_is_refused():
    plain = encode(nn.Network((3,), (nn.Dense("a", 4), nn.Activation("tanh"))))
    plain["layers"][1]["kind"] = "swoosh"
    with pytest.raises(ValueError, match=r"network.layers\[1\]: activation 'swoosh' is unknown: .*register"):
        decode(plain)
