"""ReLU6, hard swish and hard sigmoid: targets that clip, in the units of the target."""

import pytest

from slth import Source, Target
from slth.construction import balance
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean
from slth.source.ranges import input_ranges
from tests.construction.nets import PAD, images, target_of
from tests.construction.published import SOLVERS, case, check_case
from tests.construction.reference import forward
from tests.dealt import dealt

KINDS = ("relu6", "hard_swish", "hard_sigmoid")
# Hard swish leaves biases at the tolerance (`test_mixed_activations`), and its alpha is small: large numbers
# cancel.
LARGEST = {"relu6": 0.03, "hard_swish": 0.12, "hard_sigmoid": 0.12}
ROUNDING = {"relu6": 1e-4, "hard_swish": 0.02, "hard_sigmoid": 1e-3}


def network(kind, first="relu6", projected=False):
    """Inputs are of size 4 here, so that a good part of what enters the activations is clipped."""
    act = Activation(kind)
    branch = (Conv("u", 3, (3, 3), padding=PAD), act, Conv("v", 3, (3, 3), padding=PAD))
    block = Residual("r", branch, (Conv("w", 3, (1, 1)),) if projected else ())
    layers = (Conv("a", 3, (3, 3), padding=PAD), Activation(first), block, act, GlobalMean(), Dense("o", 4))
    return Network((5, 5, 2), layers)


SLOW = pytest.mark.slow
ALL = [(kind, depth, skip) for kind in KINDS for depth in ("L+1", "2L") for skip in ("carried", "random")]
QUICK = {("relu6", "L+1", "carried"), ("hard_swish", "2L", "carried"), ("hard_sigmoid", "L+1", "random")}


@pytest.mark.parametrize(
    "kind, depth, skip", [pytest.param(*one, marks=() if one in QUICK else SLOW) for one in ALL]
)
def test_tickets_clip_where_their_targets_do(kind, depth, skip, tmp_path):
    made, x = case(network(kind, kind), depth=depth, skip=skip, size=4.0)
    first = forward(made.target.network, made.target.params, x)["a"]
    assert (first > 6).mean() > 0.05
    assert (first < -3).mean() > 0.05
    check_case(made, x, LARGEST[kind], tmp_path, rounding=ROUNDING[kind])


@SLOW
@pytest.mark.parametrize(
    "solver, depth", dealt([one for one in SOLVERS if one != "robust"], ["L+1", "2L"], 2)
)
def test_every_solver_does(solver, depth, tmp_path):
    check_case(*case(network("relu6", projected=True), solver, depth=depth, size=4.0), 0.2, tmp_path)


def test_a_relu_in_front_has_exact_univariate_channels(tmp_path):
    """Univariate layers have the network's first activation."""
    made, x = case(network("relu6", "relu"), size=4.0)
    assert made.source.network.layers[1] == Activation("relu")
    check_case(made, x, 0.03, tmp_path)


def test_no_channel_is_scaled_through_a_clip():
    target, params = target_of(network("relu6"))
    balanced = balance(target, params, dict.fromkeys(("a", "r/branch/u", "r/branch/v", "o"), 0.1))
    assert balanced.factor == 1
    assert all((d == 1).all() for d in balanced.scales.values())


def test_what_a_clip_has_made_is_bounded_and_not_negative():
    target, params = target_of(network("relu6"))
    ranges = input_ranges(target, params, images(target, 3), 4.0)
    found = {path: ranges[path] for path in ("a", "r/branch/u", "r/branch/v", "o")}
    assert {path: one.reach for path, one in found.items()} == {
        "a": 4.0,
        "r/branch/u": 6.0,
        "r/branch/v": 6.0,
        "o": 6.0,
    }
    assert found["r/branch/u"].exact
    wide = Source.of(
        Target(target, params), 5, depth="2L", univariate_signs="positive", images=images(target, 3)
    )
    positive = {one.path.removesuffix(".univariate") for one in wide.layout.univariate if one.positive}
    assert positive == {"r/branch/u", "r/branch/v", "o"}
