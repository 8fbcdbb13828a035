"""Scales that activations ask for, and those read off a target: against their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest

from slth import Source, Target
from slth.nn.activations import ACTIVATIONS, activation_info
from slth.nn.graph import linear_maps
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Pool
from slth.source import layer_scale
from slth.source.scales import OFFSET_ERROR, choose_alpha, missed_share, slope_factors, smaller_slope
from tests.construction.nets import RESIDUAL, random_params, target_of
from tests.construction.reference import leaves

SMOOTH = sorted(name for name in ACTIVATIONS if not activation_info(name).homogeneous)


@pytest.mark.parametrize("reach", [0.5, 2.5])
@pytest.mark.parametrize("kind", SMOOTH)
def test_alpha_is_small_enough_and_no_smaller(kind, reach):
    info = activation_info(kind)

    def missed(a):
        return (info.remainder(a * reach) + OFFSET_ERROR * info.offset) / (smaller_slope(info) * a * reach)

    alpha = choose_alpha(info, reach)
    least = min(missed(2.0 ** (-k / 4)) for k in range(80))
    assert missed(alpha) <= max(1e-3, 1.1 * least)
    assert alpha == 1 or missed(alpha * 2**0.25) > max(1e-3, 1.1 * least)
    assert missed_share(info, alpha, reach) <= missed(alpha)


def network_of(kind, last=None):
    act = Activation(kind)
    layers = (Conv("a", 3, (3, 3)), act, Conv("b", 4, (3, 3)), last or act, Flatten(), Dense("out", 3))
    return Network((5, 6, 2), layers)


def source_of(network, m=5, **options):
    return Source.of(Target(network, random_params(network, np.random.default_rng(0))), m, **options)


def test_products_of_the_first_two_layers_are_as_large_as_weights_between_copies():
    small = source_of(network_of("sigmoid"), scale=3.0, reach=2.0)
    alpha = choose_alpha(activation_info("sigmoid"), 2.0)
    assert layer_scale(small, "univariate") == pytest.approx(alpha)
    assert layer_scale(small, "a") * alpha / 4 == pytest.approx(3 * math.sqrt(6 / (9 * 2)))
    assert layer_scale(small, "b") == layer_scale(replace(small, scales=()), "b")


def test_behind_each_activation_weights_are_as_much_larger_as_its_slope_is_smaller():
    """One activation of slope 1/4, or two that differ: behind a flat one stand equal weights."""
    same, mixed = source_of(network_of("sigmoid")), source_of(network_of("sigmoid", Activation("tanh")))
    assert layer_scale(mixed, "b") == pytest.approx(layer_scale(same, "b"))
    assert 4 * layer_scale(mixed, "out") == pytest.approx(layer_scale(same, "out"))
    assert slope_factors(mixed.network)["b"] == 4


def test_slopes_go_through_pooling_and_end_at_a_sum():
    act, other = Activation("sigmoid"), Activation("gelu")
    block = Residual("r", (Conv("u", 2, (1, 1)), other, Conv("v", 2, (1, 1))), (ChannelScale("w"),))
    tail = (Conv("c", 2, (1, 1)), Conv("d", 2, (1, 1)), Flatten(), Dense("e", 2))
    layers = (Conv("a", 2, (1, 1)), act, Pool("mean", (2, 2)), block, *tail)
    found = slope_factors(Network((4, 4, 1), layers))
    wanted = {"a": 1, "r/branch/u": 4, "r/branch/v": 2, "r/skip/skip": 4, "c": 1, "d": 1, "e": 1}
    assert found == wanted


@pytest.mark.parametrize(
    "act, factor",
    [
        (Activation("relu"), 1),
        (Activation("leaky_relu", 0.01), 1),  # half of all inputs pass as they are: weights are not 100 He's
        (Activation("leaky_relu", 4.0), 0.25),
        (Activation("identity"), 1),
        (Activation("selu"), 1 / 1.0507009873554805),
        (Activation("hard_tanh"), 1),
    ],
    ids=repr,
)
def test_the_slope_of_an_activation_is_that_of_most_of_its_inputs(act, factor):
    network = Network((3,), (Dense("a", 3), act, Dense("b", 3)))
    assert slope_factors(network) == {"a": 1, "b": pytest.approx(factor)}


@pytest.mark.parametrize("init", ["he_uniform", "uniform"])
def test_scales_read_off_the_target_are_shares_of_its_largest_weights(init):
    network, params = target_of(RESIDUAL["dense block, projection"][0])
    target = Target(network, params)
    options = {"init": init, "constants": 0, "scales": {"d": 0.25}, "univariate": 4}
    plain, fitted = (Source.of(target, 4, target_scale=share, **options) for share in (None, 0.5))
    assert (plain.knows_target, fitted.knows_target) == (False, True)
    ratios = {}
    for path, values in leaves(params):
        if path.endswith("/kernel") and (layer := path.removesuffix("/kernel")) != "d":
            ratios[layer] = layer_scale(fitted, layer) / (0.5 * np.abs(values).max())
    first, *others = ratios
    assert len(others) > 2
    np.testing.assert_allclose([ratios[name] for name in others], 1, rtol=1e-6)
    like = replace(plain, network=network, multiplicity=1, scales=(), layout=None)
    products = layer_scale(plain, first) / layer_scale(like, first)
    assert ratios[first] == pytest.approx(products)  # as much smaller as products of two layers ask for
    assert layer_scale(fitted, "d") == layer_scale(plain, "d"), "what was asked for stays"
    assert set(ratios) | {"d"} == set(linear_maps(network))
