"""Densities by layer: their formulas, their total, and what full layers pass on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slth import pruning
from slth.nn.layers import Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import Flatten

NETWORK = Network(
    (6, 6, 4),
    (
        *(Conv("a", 16, (3, 3)), Conv("b", 32, (1, 1), groups=4), Conv("c", 8, (3, 3), stride=(2, 2))),
        *(Flatten(), Dense("d", 10)),
    ),
)
SHAPES = {"a": (3, 3, 4, 16), "b": (1, 1, 4, 32), "c": (3, 3, 32, 8), "d": (8, 10)}
SIZES = {path: math.prod(shape) for path, shape in SHAPES.items()}
TOTAL = sum(SIZES.values())

FORMULAS = {  # rule: what a layer's density is proportional to
    pruning.Uniform(): lambda kh, kw, cin, cout: 1.0,
    pruning.ErdosRenyi(): lambda kh, kw, cin, cout: (cin + cout) / (cin * cout),
    pruning.ErdosRenyiKernel(): lambda kh, kw, cin, cout: (cin + cout + kh + kw) / (cin * cout * kh * kw),
    pruning.Balanced(): lambda kh, kw, cin, cout: 1 / (kh * kw * cin * cout),
}
DENSE = {  # the same of the dense layer, which has no taps
    pruning.ErdosRenyiKernel(): lambda cin, cout: (cin + cout) / (cin * cout),
}


def weights_of(rule):
    """r_l of each layer by its formula."""
    weights = {path: FORMULAS[rule](*shape) for path, shape in SHAPES.items() if len(shape) == 4}
    return weights | {"d": DENSE[rule](8, 10) if rule in DENSE else FORMULAS[rule](1, 1, 8, 10)}


def test_the_shapes_are_those_of_the_network():
    assert pruning.prunable(NETWORK) == SHAPES


@pytest.mark.parametrize("rule", FORMULAS, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("density", [0.01, 0.2, 0.9, 1.0])
def test_rules_have_their_formula_below_full(rule, density):
    found, weights = rule.of(NETWORK, density), weights_of(rule)
    kept = sum(found[path] * SIZES[path] for path in SIZES)
    np.testing.assert_allclose(kept, density * TOTAL, rtol=1e-12)
    ratios = {path: found[path] / weights[path] for path in SIZES}
    below = [path for path in SIZES if found[path] < 1]
    np.testing.assert_allclose([ratios[path] for path in below], max(ratios.values()), rtol=1e-12)
    assert max(found.values()) <= 1
    counts = pruning.keep(NETWORK, {p: np.zeros(s) for p, s in SHAPES.items()}, density, found)
    assert sum(own["kernel"].sum() for own in counts.values()) == round(density * TOTAL)


@given(st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4), st.floats(1e-3, 1))
def test_what_full_layers_cannot_take_goes_to_the_others(raw, density):
    """Compared with bisection of the one factor c of min(1, c r)."""
    weights = dict(zip(SIZES, raw, strict=True))
    found = pruning.scaled(NETWORK, weights, density)

    def kept(factor):
        return sum(min(1.0, factor * weights[path]) * size for path, size in SIZES.items())

    low, high = 0.0, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) < density * TOTAL else (low, middle)
    for path in SIZES:
        np.testing.assert_allclose(found[path], min(1.0, high * weights[path]), rtol=1e-6)


def test_given_densities_that_fit_are_kept():
    shares = {"a": 0.5, "b": 0.25, "c": 0.1, "d": 1.0}
    density = sum(shares[path] * SIZES[path] for path in SIZES) / TOTAL
    rule = pruning.Given(shares)
    hash(rule)
    assert rule == pruning.Given(tuple(shares.items()))
    np.testing.assert_allclose(list(rule.of(NETWORK, density).values()), list(shares.values()), rtol=1e-12)


BAD = {  # behaviour: (call, message)
    "a share of 0": (
        lambda: pruning.Given({"a": 0.0}),
        "shares: a: expected a finite number above 0",
    ),
    "a layer twice": (
        lambda: pruning.Given((("a", 1.0), ("a", 2.0))),
        "each layer has one, got",
    ),
    "other layers": (
        lambda: pruning.Given({"a": 1.0}).of(NETWORK, 0.5),
        r"for each of \['a', 'b', 'c', 'd'\]",
    ),
    "no density": (lambda: pruning.Uniform().of(NETWORK, 0), "density: .* got 0"),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
