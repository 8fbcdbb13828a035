"""Tickets of activations that are no cones: the first layer, borders, biases of every layer."""

import math

import jax
import numpy as np
import pytest

from slth import nn
from slth.construct import Compensation, Solver, construct
from slth.construct.layout import source_network
from slth.construct.prune import read_channels
from slth.construct.univariate import OFFSET_ERROR, choose_alpha, smaller_slope, with_small_alpha
from slth.nn.activations import ACTIVATIONS, activation_info
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.source import Source, layer_scale, parameters
from tests.construct.nets import images, target_of

SMOOTH = sorted(name for name in ACTIVATIONS if not activation_info(name).homogeneous)
ALL = ((1, 1), (1, 1))
apply = jax.jit(nn.apply, static_argnums=0)


def plain(kind):
    act = Activation(kind)
    first, second = Conv("a", 3, (3, 3), padding=ALL), Conv("b", 4, (3, 3), (2, 2), padding=ALL)
    return Network((5, 6, 2), (first, act, second, act, Flatten(), Dense("out", 3)))


def residual(kind):
    act = Activation(kind)
    branch = (Conv("c", 3, (3, 3), padding=ALL), act, Conv("d", 3, (3, 3), padding=ALL))
    block = Residual("block", branch, ())
    return Network(
        (5, 5, 2), (Conv("a", 3, (3, 3), padding=ALL), act, block, act, Flatten("chw"), Dense("out", 3))
    )


def made_of(network, m=12, solver=None, seed=0, **options):
    target, params = target_of(network)
    info = activation_info(network.layers[1].kind)
    x = images(target, 24)
    spec = source_network(target, m, copies_per_sign=2 * m, constants=60, own_biases=True, **options)
    source = Source(spec, seed, m, "he_uniform", scale=2.0, bias_scale=8.0)
    source = with_small_alpha(source, info, float(np.abs(x).max()))
    solver = Solver(objective="robust") if solver is None else solver
    return target, params, source, construct(target, params, source, solver, x), x


def outputs(target, params, source, made, x):
    ticket = jax.tree.map(lambda mask, v: np.where(mask, v, 0), made.mask, parameters(source))
    return np.asarray(apply(target, params, x)), made.factor * np.asarray(apply(source.network, ticket, x))


@pytest.mark.parametrize("net", [plain, residual])
@pytest.mark.parametrize("kind", SMOOTH)
def test_a_ticket_of_every_smooth_activation_computes_its_target(kind, net):
    target, params, source, made, _ = made_of(net(kind))
    wanted, found = outputs(target, params, source, made, images(target, 16, seed=1))
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)
    assert all(np.isin(np.asarray(mask), (0, 1)).all() for mask in jax.tree.leaves(made.mask))


@pytest.mark.parametrize("kind", ["sigmoid", "softplus"])
def test_offsets_are_cancelled_at_borders_as_inside(kind):
    """phi(0) != 0 reads as a constant that padding cuts off: cancelled at each tap, it leaves no edge."""
    network = plain(kind)
    target, params, source, made, x = made_of(
        replace_layers(network, network.layers[:2], Conv("z", 2, (1, 1)))
    )
    ticket = jax.tree.map(lambda mask, v: np.where(mask, v, 0), made.mask, parameters(source))
    first = Network(source.network.input_shape, source.network.layers[:3])
    read = made.columns["a"][read_channels(source.network, made.mask)["a"][made.columns["a"]]]
    channel = np.nonzero(read_channels(source.network, made.mask)["a"][made.columns["a"]])[0]
    realised = np.asarray(apply(first, ticket, x))[..., read]
    wanted = np.asarray(apply(Network(target.input_shape, target.layers[:1]), params, x))[..., channel]
    error = np.sqrt(((realised - wanted) ** 2).mean((0, 3)))
    assert error.max() < 0.05 * wanted.std()
    assert error[0].mean() < 3 * error[1:-1, 1:-1].mean()


def replace_layers(network, layers, last):
    return Network(network.input_shape, (*layers, last))


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_rows_compensate_about_means_with_biases_of_every_layer(kind):
    solver = Solver(method="compensated", compensation=Compensation(sweeps=3))
    if kind == "relu":
        target, params = target_of(residual(kind))
        spec = source_network(target, 8, copies_per_sign=16, constants=30, own_biases=True)
        source, x = Source(spec, 0, 8, "he_uniform", bias_scale=4.0), images(target, 64)
        made = construct(target, params, source, solver, x)
    else:
        target, params, source, made, _ = made_of(residual(kind), 8, solver)
    wanted, found = outputs(target, params, source, made, images(target, 16, seed=1))
    assert np.linalg.norm(found - wanted) < 0.2 * np.linalg.norm(wanted)
    kept = made.mask["block"]["branch"]["c"]["bias"]
    constants = source.network.layers[2].features - 8 * 3
    assert np.asarray(kept)[:-constants].any(), "a neuron's own bias is a variable"


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


def test_products_of_the_first_two_layers_are_as_large_as_weights_between_copies():
    target, _ = target_of(plain("sigmoid"))
    source = Source(source_network(target, 5, copies_per_sign=10, constants=4), 0, 5, "he_uniform", scale=3.0)
    small = with_small_alpha(source, activation_info("sigmoid"), 2.0)
    alpha = choose_alpha(activation_info("sigmoid"), 2.0)
    assert layer_scale(small, "univariate") == pytest.approx(alpha)
    assert layer_scale(small, "a") * alpha / 4 == pytest.approx(3 * math.sqrt(6 / (9 * 2)))
    assert layer_scale(small, "b") == layer_scale(source, "b")
