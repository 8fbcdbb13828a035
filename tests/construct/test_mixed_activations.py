"""Targets whose activations differ: balanced, given a source, constructed, made compact."""

import itertools

import jax
import numpy as np
import pytest

from slth import Best, Robust, Source, Target, construct, nn
from slth.compact import compact
from slth.construction import balance, plan_of
from slth.nn import ACTIVATIONS
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Pool
from slth.source import layer_scale, parameters
from slth.source.scales import smaller_slope
from tests.construct.nets import images, target_of
from tests.construct.reference import forward, masked

KINDS = tuple(ACTIVATIONS)
PAIRS = list(itertools.product(KINDS, repeat=2))


def dense(first, second, slope=0.01):
    layers = (Dense("a", 5), Activation(first, slope), Dense("b", 5), Activation(second, slope), Dense("c", 3))
    return Network((6,), layers)


@pytest.mark.parametrize("first, second", PAIRS)
def test_a_balanced_target_computes_the_target(first, second):
    """Scales go through an activation only where it is positively homogeneous: elsewhere they stay 1."""
    network, params = target_of(dense(first, second))
    scales = {"a": 0.3, "b": 2.0, "c": 0.7}
    balanced = balance(network, params, scales)
    x = images(network, 40)
    wanted, found = (forward(network, values, x)[""] for values in (params, balanced.params))
    np.testing.assert_allclose(balanced.factor * found, wanted, atol=1e-6 * np.abs(wanted).max())
    free = {kind: nn.activation_info(kind).homogeneous for kind in (first, second)}
    assert (balanced.factor != 1) == all(free.values())
    for path, kind in (("a", first), ("b", second)):
        assert (balanced.scales[path] != 1).any() == free[kind]


def error_of(target, source, made, x):
    """Relative error of a ticket's outputs, in NumPy and float64."""
    wanted = forward(target.network, target.params, x)[""]
    kept = masked(made.mask, parameters(source))
    found = made.factor * forward(source.network, kept, x)[""]
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("first, second", PAIRS)
def test_a_ticket_of_every_pair_computes_its_target_on_other_inputs(first, second):
    target = Target(*target_of(dense(first, second)))
    source = Source.of(target, copies=15)
    made = construct(target, source, Robust(), images(target.network, 64))
    assert error_of(target, source, made, images(target.network, 256, seed=7)) < 0.05
