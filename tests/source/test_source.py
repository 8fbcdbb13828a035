"""The source: a function of (spec, seed, initialisation), bit by bit; its scales, moments and hash."""

import hashlib
import math

import jax
import numpy as np
import pytest
from scipy.stats import kstest

from slth import random
from slth.nn import parameter_shapes
from slth.nn.convolution import same_padding
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean
from slth.source import (
    Source,
    bias_scale,
    layer_scale,
    layers,
    parameter,
    parameters,
    present,
    sha256,
    source_network,
)
from slth.source import draw as drawing

PAD = same_padding((3, 3))
BLOCK = Residual(
    "a",
    (Conv("y", 4, (3, 3), padding=PAD), Activation("relu"), Conv("b", 4, (3, 3), padding=PAD)),
    (Conv("c", 4, (1, 1), use_bias=False),),
)
# Names against the alphabet: the first layer is the last by name.
NETWORK = Network((5, 5, 2), (Conv("z", 4, (1, 1)), BLOCK, GlobalMean(), Dense("d", 3, use_bias=False)))
WIDE = Network((50,), (Dense("first", 40), Activation("relu"), Dense("second", 600, use_bias=False)))


def test_parameters_stand_in_the_order_of_the_layers():
    assert list(parameter_shapes(NETWORK)) == [
        *("z/bias", "z/kernel", "a/branch/y/bias", "a/branch/y/kernel"),
        *("a/branch/b/bias", "a/branch/b/kernel", "a/skip/c/kernel", "d/kernel"),
    ]
    assert [path for path, _ in layers(Source(NETWORK, 0, 1))] == list(parameter_shapes(NETWORK))


def test_he_scale_counts_the_copies_in_every_layer_but_the_first():
    source = Source(NETWORK, seed=0, multiplicity=4, init="he_uniform", scale=2.0)
    assert layer_scale(source, "z") == 2 * math.sqrt(6 / 2)
    assert layer_scale(source, "a/branch/y") == 2 * math.sqrt(6 * 4 / 36)
    assert layer_scale(source, "a/skip/c") == 2 * math.sqrt(6 * 4 / 4)
    assert layer_scale(source, "d") == 2 * math.sqrt(6 * 4 / 4)
    normal = Source(NETWORK, seed=0, multiplicity=4, init="he_normal")
    assert layer_scale(normal, "a/branch/y") == math.sqrt(2 * 4 / 36)
    for init in ("uniform", "normal"):
        assert layer_scale(Source(NETWORK, 0, 4, init=init, scale=0.3), "a/branch/y") == 0.3


def test_glorot_scale_counts_the_copies_on_both_sides():
    source = Source(NETWORK, seed=0, multiplicity=4, init="glorot_uniform", scale=2.0)
    # Of one copy: 2 inputs and as many outputs; 9 taps of 1 channel each way; 1 channel, then all 3 outputs.
    assert layer_scale(source, "z") == pytest.approx(2 * math.sqrt(6 / (2 + 2)))
    assert layer_scale(source, "a/branch/y") == pytest.approx(2 * math.sqrt(6 / (9 + 9)))
    assert layer_scale(source, "a/skip/c") == pytest.approx(2 * math.sqrt(6 / (1 + 1)))
    assert layer_scale(source, "d") == pytest.approx(2 * math.sqrt(6 / (1 + 3)))
    normal = Source(NETWORK, seed=0, multiplicity=2, init="glorot_normal")
    assert layer_scale(normal, "a/branch/y") == pytest.approx(math.sqrt(2 / (18 + 18)))


def test_scales_by_layer_take_the_first_pattern_that_fits():
    scales = {"a/branch/?": 3.0, "a/*": 0.5, "z/bias": 0.25, "*/bias": 4, "d": 2.0}
    source = Source(NETWORK, 0, 4, init="he_uniform", scale=2.0, bias_scale=8.0, scales=scales)
    plain = Source(NETWORK, 0, 4, init="he_uniform", scale=2.0, bias_scale=8.0)
    factors = {"z": 1, "a/branch/y": 3, "a/branch/b": 3, "a/skip/c": 0.5, "d": 2}
    for path, factor in factors.items():
        assert layer_scale(source, path) == pytest.approx(factor * layer_scale(plain, path))
        values = np.asarray(parameter(source, f"{path}/kernel"))
        assert np.abs(values).max() <= layer_scale(source, path)
        np.testing.assert_allclose(
            values, factor * np.asarray(parameter(plain, f"{path}/kernel")), atol=2**-22
        )
    assert [bias_scale(source, path) for path in ("z", "a/branch/y")] == [2.0, 32.0]
    assert np.abs(parameter(source, "a/branch/y/bias")).max() > 8
    pairs = tuple(scales.items())
    assert source == Source(NETWORK, 0, 4, init="he_uniform", scale=2.0, bias_scale=8.0, scales=pairs)
    assert hash(source) == hash(Source(NETWORK, 0, 4, "he_uniform", 2.0, 8.0, pairs))
    assert len({sha256(source), sha256(plain)}) == 2


def test_weights_of_a_sparse_source_are_there_or_exactly_zero():
    whole = Source(WIDE, seed=3, multiplicity=2, init="he_normal")
    count = 24_000  # within 5 standard errors of p: a false alarm in 6e-7
    before = np.zeros(count, bool)
    for p in (0.1, 0.5, 0.9):
        sparse = Source(WIDE, seed=3, multiplicity=2, init="he_normal", presence=p)
        values, all_values = (np.asarray(parameter(s, "second/kernel")).reshape(-1) for s in (sparse, whole))
        there = values != 0
        assert np.array_equal(values[there], all_values[there]), "p changes no value"
        assert abs(there.mean() - p) < 5 * math.sqrt(p * (1 - p) / count)
        assert (there | ~before).all(), "a larger p only adds"
        before = there
        assert np.array_equal(parameter(sparse, "first/bias"), parameter(whole, "first/bias"))
        assert sha256(sparse) != sha256(whole)
        nonzero = sum(int(np.count_nonzero(v)) for _, v in layers(sparse))
        assert present(sparse) == nonzero
    assert present(whole) == sum(math.prod(shape) for shape in parameter_shapes(WIDE).values())
    # Which weights are there has nothing to do with their values or with another layer's.
    drawn = np.asarray(parameter(whole, "second/kernel")).reshape(-1)
    assert abs(np.corrcoef(before, drawn)[0, 1]) < 5 / math.sqrt(count)
    first = np.asarray(parameter(sparse, "first/kernel")).reshape(-1) != 0
    assert abs(np.corrcoef(first, before[: first.size])[0, 1]) < 5 / math.sqrt(first.size)


@pytest.mark.parametrize("init, law", [("he_uniform", "uniform"), ("he_normal", "halfnorm")])
def test_positive_weights_are_the_absolute_values(init, law):
    plain = Source(WIDE, 3, 2, init=init)
    source = Source(WIDE, 3, 2, init=init, positive=("second",))
    values = np.asarray(parameter(source, "second/kernel"), np.float64).reshape(-1)
    assert values.size == 24_000
    assert np.array_equal(values, np.abs(parameter(plain, "second/kernel")).reshape(-1))
    assert kstest(values / layer_scale(source, "second"), law).pvalue > 1e-3, "U[0, s], or |N(0, s^2)|"
    for path in ("first/kernel", "first/bias"):
        assert np.array_equal(parameter(source, path), parameter(plain, path))
    assert sha256(source) != sha256(plain)
    assert sha256(Source(WIDE, 3, 2, init=init, positive=())) == sha256(plain)
    half = Source(WIDE, 3, 2, init=init, positive=("second",), presence=0.5)
    kept = np.asarray(parameter(half, "second/kernel")).reshape(-1)
    assert np.array_equal(kept[kept != 0], values[kept != 0])
    assert 0.45 < (kept != 0).mean() < 0.55


def test_biases_may_be_zero():
    source = Source(NETWORK, 0, 2, biases="zero", bias_scale=3.0)
    assert bias_scale(source, "z") == 0
    for path, values in layers(source):
        assert values.any() != path.endswith("/bias")
    assert not np.signbit(np.asarray(parameter(source, "z/bias"))).any()


@pytest.mark.parametrize("init", ["uniform", "normal", "he_uniform", "he_normal"])
def test_any_order_and_any_slice_have_the_same_bits(init):
    source = Source(NETWORK, seed=7, multiplicity=3, init=init, bias_scale=2.0)
    whole = parameters(source)
    for path in reversed(parameter_shapes(NETWORK)):
        alone = np.asarray(parameter(source, path))
        tree = whole
        for key in path.split("/"):
            tree = tree[key]
        assert np.array_equal(alone, tree)
        assert alone.dtype == np.float32
        # The last values, drawn on their own from the generator.
        layer, _, leaf = path.rpartition("/")
        draw = random.normal if init.endswith("normal") and leaf == "kernel" else random.uniform
        scale = 2.0 if leaf == "bias" else layer_scale(source, layer)
        count = min(3, alone.size)
        tail = draw(random.key(7, layer, leaf), (count,), start=alone.size - count)
        assert np.array_equal(random.snap(np.float32(scale) * tail), alone.reshape(-1)[-count:])
    for path, values in layers(source):
        assert np.array_equal(values, parameter(source, path))


@pytest.mark.parametrize("presence", [1.0, 0.5])
def test_blocks_of_any_size_have_the_same_bits(monkeypatch, presence):
    network = Network((40,), (Dense("a", 130), Dense("b", 1)))
    source = Source(network, seed=7, multiplicity=3, presence=presence)
    whole = {path: np.asarray(parameter(source, path)) for path in parameter_shapes(network)}
    monkeypatch.setattr(drawing, "BLOCK", 1024)
    monkeypatch.setattr(drawing, "LEAST", 16)
    for path, values in whole.items():
        assert np.array_equal(parameter(source, path), values)


def test_seeds_layers_and_leaves_differ():
    network = Network((6,), (Dense("a", 6), Dense("b", 6)))
    one, two = (Source(network, seed, 2) for seed in (0, 1))
    drawn = [parameter(source, path) for source in (one, two) for path in parameter_shapes(network)]
    flat = [np.asarray(values).reshape(-1)[:6] for values in drawn]
    for i, a in enumerate(flat):
        for b in flat[:i]:
            assert (a != b).all()


def test_the_network_beside_a_layer_does_not_matter():
    other = Network((50,), (Dense("first", 40), Dense("third", 5), Dense("second", 3)))
    same = (parameter(Source(network, 3, 2), "first/kernel") for network in (WIDE, other))
    assert np.array_equal(*same)


@pytest.mark.parametrize("init", ["uniform", "normal", "he_uniform", "he_normal"])
def test_values_lie_on_the_grid(init):
    for _, values in layers(Source(NETWORK, 5, 7, init=init, scale=0.77, bias_scale=3.1)):
        steps = values.astype(np.float64) * 2**24
        assert np.array_equal(steps, np.rint(steps))


def test_moments_and_distribution_of_each_initialisation():
    # 24,000 values: a mean is off by 5 standard errors with a probability of 6e-7; p-values below 1e-4 fail.
    count = 24_000
    for init, factor in (
        ("uniform", 1),
        ("normal", 1),
        ("he_uniform", math.sqrt(6 * 3 / 40)),
        ("he_normal", math.sqrt(2 * 3 / 40)),
        ("glorot_uniform", math.sqrt(6 / (40 / 3 + 600))),
        ("glorot_normal", math.sqrt(2 / (40 / 3 + 600))),
    ):
        source = Source(WIDE, seed=11, multiplicity=3, init=init, scale=1.5)
        values = np.asarray(parameter(source, "second/kernel"), np.float64).reshape(-1) / (1.5 * factor)
        spread = 1 / math.sqrt(3) if init.endswith("uniform") else 1.0
        assert abs(values.mean()) < 5 * spread / math.sqrt(count)
        np.testing.assert_allclose(values.std(), spread, rtol=5 / math.sqrt(count))
        law = ("uniform", (-1, 2)) if init.endswith("uniform") else ("norm", (0, 1))
        assert kstest(values, *law).pvalue > 1e-4
        if init.endswith("uniform"):
            assert np.abs(values).max() <= 1


def test_biases_are_uniform_of_their_own_scale():
    source = Source(Network((2,), (Dense("a", 5000),)), 0, 2, init="he_normal", bias_scale=3.0)
    values = np.asarray(parameter(source, "a/bias"), np.float64) / 3
    assert np.abs(values).max() <= 1
    assert kstest(values, "uniform", (-1, 2)).pvalue > 1e-4


def test_hash_is_of_the_bytes_in_order_and_does_not_change_between_versions():
    source = Source(NETWORK, seed=1, multiplicity=2, init="he_uniform")
    digest = hashlib.sha256()
    for path in parameter_shapes(NETWORK):
        digest.update(np.asarray(parameter(source, path)).astype("<f4").tobytes())
    assert sha256(source) == digest.hexdigest()
    assert sha256(source) == "c8b9f7551a5b24fcb9a949712842cd51542c8411142f092a033b9dd2514280c2"
    assert (
        sha256(Source(NETWORK, seed=1, multiplicity=2, init="normal", scale=0.5))
        == "17a6298ac7c1810eeaaca58fa0de6826bd3636220746abf9799005bafc8e886f"
    )
    assert sha256(source) != sha256(Source(NETWORK, seed=2, multiplicity=2, init="he_uniform"))


def test_widths_are_those_of_the_theorem_with_as_many_constants_as_copies():
    target = Network(
        (4,), (Dense("a", 6), Activation("relu"), Dense("b", 5), Activation("relu"), Dense("c", 3))
    )
    m = 4
    shapes = parameter_shapes(source_network(target, m, copies_per_sign=m, constants=m).network)
    univariate = 2 * m * 4 + 2 * m
    assert shapes == {
        "univariate/bias": (univariate,),
        "univariate/kernel": (4, univariate),
        "a/kernel": (univariate, m * (6 + 1)),
        "b/kernel": (m * (6 + 1), m * (5 + 1)),
        "c/kernel": (m * (5 + 1), 3),
    }


REFUSED = {
    "init": (
        {"init": "xavier"},
        "source.init: expected one of uniform, normal, he_uniform, he_normal, glorot",
    ),
    "scale": ({"scale": 0.0}, "source.scale: expected a positive number, got 0.0"),
    "infinite scale": ({"scale": math.inf}, "source.scale: expected a positive number, got inf"),
    "presence 0": ({"presence": 0}, r"source.presence: expected a probability in \(0, 1\], got 0"),
    "presence 2": ({"presence": 2.0}, r"source.presence: expected a probability in \(0, 1\], got 2.0"),
    "no presence": ({"presence": math.nan}, r"source.presence: expected a probability in \(0, 1\], got nan"),
    "biases": ({"biases": "some"}, "source.biases: expected one of random, zero, got 'some'"),
    "no such layer": (
        {"scales": {"e": 2.0}},
        "source.scales: 'e' fits no layer; there are z/bias, z, a/branch/y/bias",
    ),
    "positive of no layer": (
        {"positive": ("z", "e")},
        "source.positive: expected a tuple of paths of layers, got 'e'; there are z, a/branch/y",
    ),
    "positive a word": ({"positive": "z"}, "source.positive: expected a tuple of paths of layers, got 'z'"),
    "no such bias": ({"scales": {"d/bias": 2.0}}, "source.scales: 'd/bias' fits no layer"),
    "negative factor": ({"scales": {"d": -1}}, r"pattern and a positive number, got \('d', -1\)"),
    "infinite factor": ({"scales": (("d", math.inf),)}, r"and a positive number, got \('d', inf\)"),
    "no pairs": ({"scales": ("d", 2.0)}, "and a positive number, got 'd'"),
    "bias scale": ({"bias_scale": -1.0}, "source.bias_scale: expected a positive number, got -1.0"),
}


@pytest.mark.parametrize("options, message", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("unchecked")
def test_settings_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Source(NETWORK, 0, 2, **options)


def test_a_source_is_a_static_value():
    one, two = Source(NETWORK, 0, 2), Source(NETWORK, 0, 2)
    assert one == two
    assert hash(one) == hash(two)
    traced = []

    @jax.jit
    def use(values):
        traced.append(1)
        return values["kernel"].sum()

    for source in (one, two, Source(NETWORK, 1, 2)):
        use(parameters(source)["d"])
    assert traced == [1]
