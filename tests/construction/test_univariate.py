"""Tickets of activations that are no cones: the first layer, borders, biases of every layer."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from slth import Compensated, Robust, Source, Target, construct, nn
from slth.nn.activations import ACTIVATIONS, activation_info
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.nn.prune import read_channels
from slth.source import layer_scale, parameters, source_network
from slth.source.scales import alpha_factors
from tests.construction.nets import images, target_of

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
    target = Target(*target_of(network))
    info = activation_info(network.layers[1].kind)
    x = images(network, 24)
    wide = source_network(network, m, copies_per_sign=2 * m, constants=60, own_biases=True, **options)
    source = Source(wide.network, seed, m, "he_uniform", scale=2.0, bias_scale=8.0, layout=wide.layout)
    reach = float(np.abs(x).max())
    factors = alpha_factors(network, wide.layout, info, reach, partial(layer_scale, source), he=True)
    source = replace(source, scales=factors)
    return target, source, construct(target, source, solver or Robust(), x), x


def outputs(target, source, made, x):
    ticket = jax.tree.map(lambda mask, v: np.where(mask, v, 0), made.mask, parameters(source))
    found = made.factor * np.asarray(apply(source.network, ticket, x))
    return np.asarray(apply(target.network, target.params, x)), found


@pytest.mark.parametrize("net", [plain, residual])
@pytest.mark.parametrize("kind", SMOOTH)
def test_a_ticket_of_every_smooth_activation_computes_its_target(kind, net):
    target, source, made, _ = made_of(net(kind))
    wanted, found = outputs(target, source, made, images(target.network, 16, seed=1))
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", ["sigmoid", "softplus"])
def test_offsets_are_cancelled_at_borders_as_inside(kind):
    """phi(0) != 0 reads as a constant that padding cuts off: cancelled at each tap, it leaves no edge."""
    network = plain(kind)
    target, source, made, x = made_of(replace_layers(network, network.layers[:2], Conv("z", 2, (1, 1))))
    ticket = jax.tree.map(lambda mask, v: np.where(mask, v, 0), made.mask, parameters(source))
    first = Network(source.network.input_shape, source.network.layers[:3])
    read = made.columns["a"][read_channels(source.network, made.mask)["a"][made.columns["a"]]]
    channel = np.nonzero(read_channels(source.network, made.mask)["a"][made.columns["a"]])[0]
    realised = np.asarray(apply(first, ticket, x))[..., read]
    alone = Network(network.input_shape, network.layers[:1])
    wanted = np.asarray(apply(alone, target.params, x))[..., channel]
    error = np.sqrt(((realised - wanted) ** 2).mean((0, 3)))
    assert error.max() < 0.05 * wanted.std()
    assert error[0].mean() < 3 * error[1:-1, 1:-1].mean()


def replace_layers(network, layers, last):
    return Network(network.input_shape, (*layers, last))


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_rows_compensate_about_means_with_biases_of_every_layer(kind):
    solver = Compensated(sweeps=3)
    if kind == "relu":
        target = Target(*target_of(residual(kind)))
        wide = source_network(target.network, 8, copies_per_sign=16, constants=30, own_biases=True)
        source = Source(wide.network, 0, 8, "he_uniform", bias_scale=4.0, layout=wide.layout)
        made = construct(target, source, solver, images(target.network, 64))
    else:
        target, source, made, _ = made_of(residual(kind), 8, solver)
    wanted, found = outputs(target, source, made, images(target.network, 16, seed=1))
    assert np.linalg.norm(found - wanted) < 0.2 * np.linalg.norm(wanted)
    kept = made.mask["block"]["branch"]["c"]["bias"]
    constants = source.network.layers[2].features - 8 * 3
    assert np.asarray(kept)[:-constants].any(), "a neuron's own bias is a variable"


def test_every_layer_that_reads_the_input_has_the_factor_of_small_alpha():
    """In a first block the branch and the projection of the skip both read the univariate channels."""
    branch = (nn.Dense("u", 6), nn.Activation("tanh"), nn.Dense("v", 5))
    block = nn.Residual("r", branch, (nn.Dense("w", 5, use_bias=False),))
    network = nn.Network((4,), (block, nn.Activation("tanh"), nn.Dense("out", 3)))
    target = Target(network, nn.init(network, jax.random.key(0)))
    source = Source.of(target, 12)
    plain = replace(source, scales=())
    factors = [
        layer_scale(source, path) / layer_scale(plain, path) for path in ("r/branch/u", "r/skip/w", "out")
    ]
    assert factors[0] == factors[1] > 10 > factors[2]
    x = jax.random.normal(jax.random.key(1), (200, 4))
    assert construct(target, source, Robust(), x[:100]).error(x[100:]).relative < 0.1
