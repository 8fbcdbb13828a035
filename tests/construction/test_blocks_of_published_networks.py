"""Blocks as published networks have them, from both sides: pooled skips, branches that end in an activation,
bottlenecks, a block in front of all else."""

import numpy as np
import pytest

from slth import Source, Target
from slth.construction import balance
from slth.nn.graph import sums
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from tests.construction.nets import PAD, RELU, images, target_of
from tests.construction.published import OTHERS, case, check_case
from tests.construction.reference import forward
from tests.dealt import dealt

SLOW = pytest.mark.slow
HALF = Pool("mean", (2, 2), incomplete=True)


def conv(name, features=3, taps=3, stride=1, **options):
    return Conv(name, features, (taps, taps), (stride, stride), PAD if taps == 3 else (), **options)


def net(*blocks, act=RELU, stem=True, shape=(5, 5, 2), end=None):
    first = (conv("stem"), act) if stem else ()
    return Network(shape, (*first, *blocks, *(end or (GlobalMean(),)), Dense("out", 4)))


def ends_in_an_activation(act=RELU, skip=(), features=3):
    """x + relu(bn(conv(relu(bn(conv x))))), of the ResNet-9 of many tutorials."""
    own = {"use_bias": False}
    first = (conv("c1", features, **own), BatchNorm("b1"), act)
    return Residual("r", (*first, conv("c2", features, **own), BatchNorm("b2"), act), skip)


WEIGHTS = (ChannelScale("w"),)
WIDER = (Subsample((2, 2), (-1, 0, 1, 2)),)
BRANCH = (conv("u"), RELU, conv("v"))
STRIDED = (conv("u", stride=2), RELU, conv("v", 4))
BOTTLENECK = (conv("u", 2, 1), RELU, conv("w", 2), RELU, conv("v", 8, 1))

BLOCKS = {
    "mean pool, then 1x1": net(Residual("r", STRIDED, (HALF, conv("s", 4, 1))), RELU),
    "mean pool, more channels": net(Residual("r", STRIDED, (HALF, Subsample((1, 1), (0, 1, 2, -1)))), RELU),
    "max pool": net(
        Residual("r", (conv("u", stride=2), RELU, conv("v")), (Pool("max", (2, 2), incomplete=True),)), RELU
    ),
    "padded mean pool": net(
        Residual(
            "r",
            (conv("u"), RELU, conv("v")),
            (Pool("mean", (3, 3), (1, 1), PAD, count_padding=True),),
        ),
        RELU,
        conv("z"),
        RELU,
    ),
    "ends in an activation": net(ends_in_an_activation()),
    "two of them": net(
        ends_in_an_activation(),
        Residual("q", (conv("c"), RELU), ()),
        Pool("max", (2, 2)),
        end=(Flatten("chw"),),
    ),
    "ends in an activation, weights": net(ends_in_an_activation(skip=WEIGHTS)),
    "ends in an activation, projection": net(ends_in_an_activation(skip=(conv("s", 4, 1),), features=4)),
    "ends in a pool, option A": net(
        Residual("r", (conv("u", 4), RELU, Pool("max", (2, 2), incomplete=True)), WIDER), RELU
    ),
    "ends in a block": net(Residual("r", (conv("u"), RELU, Residual("q", BRANCH))), RELU),
    "bottleneck": net(Residual("r", BOTTLENECK, (conv("s", 8, 1),)), RELU),
    "bottleneck, identity": net(conv("t", 8, 1), RELU, Residual("r", BOTTLENECK), RELU, stem=False),
    "leaky": net(ends_in_an_activation(Activation("leaky_relu", 0.2)), act=Activation("leaky_relu", 0.2)),
    "tanh": net(ends_in_an_activation(Activation("tanh")), act=Activation("tanh")),
}
FIRST = {  # what a source of L+1 holds no copies of
    "first, carried": net(Residual("r", (conv("u"), RELU, conv("v", 2))), RELU, stem=False),
    "first, pre-activation": net(Residual("r", (RELU, conv("u"), RELU, conv("v", 2))), RELU, stem=False),
    "first, pooled skip": net(Residual("r", STRIDED, (HALF, conv("s", 4, 1))), RELU, stem=False),
    "first, max pool": net(
        Residual("r", (conv("u", 2, stride=2), RELU), (Pool("max", (2, 2), incomplete=True),)), stem=False
    ),
}
LARGEST = {"tanh": 0.15, "two of them": 0.06, "padded mean pool": 0.3}
KINDS = [(depth, skip) for depth in ("L+1", "2L") for skip in ("carried", "random")]
QUICK = {
    *(("ends in an activation", kind) for kind in KINDS),
    *(
        (name, ("L+1", "carried"))
        for name in ("mean pool, then 1x1", "max pool", "two of them", "bottleneck")
    ),
    *((name, ("2L", "carried")) for name in ("mean pool, more channels", "ends in a pool, option A")),
}


@pytest.mark.parametrize(
    "name, depth, skip",
    [
        pytest.param(name, *kind, marks=() if (name, kind) in QUICK else SLOW)
        for name, kind in dealt(list(BLOCKS), KINDS, 4, QUICK)
    ],
)
def test_tickets_compute_their_targets(name, depth, skip, tmp_path):
    made, x = case(BLOCKS[name], depth=depth, skip=skip)
    check_case(made, x, LARGEST.get(name, 0.03), tmp_path, rounding=0.01 if name == "tanh" else 2e-4)


@SLOW
@pytest.mark.parametrize(
    "name, solver, depth",
    [
        (name, *kind)
        for name, kind in dealt(
            ["two of them", "ends in an activation, projection", "mean pool, then 1x1"], OTHERS, 2
        )
    ],
)
def test_every_solver_takes_them(name, solver, depth, tmp_path):
    largest = 0.8 if solver == "best" else 0.3  # nearest sums multiply the errors of copies
    check_case(*case(BLOCKS[name], solver, depth=depth), largest, tmp_path)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if "pre" in name else SLOW) for name in FIRST])
def test_a_source_of_two_layers_has_the_input_itself(name, tmp_path):
    check_case(*case(FIRST[name], depth="2L"), 0.03, tmp_path)


def test_constants_that_differ_from_place_to_place_are_not_used(tmp_path):
    """A padded mean on the skip makes them so, also where a layer's own biases are added to them."""
    made, x = case(BLOCKS["padded mean pool"], own_biases=True, constants=30)
    check_case(made, x, 0.2, tmp_path)
    records = {record.path: record.stats for record in made.records}
    assert records["z"].unsolved >= 3 * 16, "a bias of each copy, which nothing can make"


def test_scales_of_two_carried_sides_are_one():
    target, params = target_of(BLOCKS["two of them"])
    paths = ("stem", "r/branch/c1", "r/branch/c2", "q/branch/c", "out")
    found = balance(target, params, dict.fromkeys(paths, 0.3))
    assert (found.scales["stem"] != 1).any()
    for path in ("r/branch/c2", "r", "q/branch/c", "q"):
        np.testing.assert_array_equal(found.scales[path], found.scales["stem"])
    x = images(target, 5)
    wanted, balanced = (forward(target, values, x)[""] for values in (params, found.params))
    np.testing.assert_allclose(found.factor * balanced, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_a_sum_without_a_layer_has_no_problems():
    made, _ = case(BLOCKS["ends in an activation"], copies=6)
    assert [step.path for step in sums(made.target.network)] == [
        "stem",
        "r/branch/c1",
        "r/branch/c2",
        "r",
        "out",
    ]
    assert [record.path for record in made.records] == ["stem", "r/branch/c1", "r/branch/c2", "out"]
    assert made.source.checked_layout(made.target.network) == made.source.layout
    assert made.columns["r"].tolist() == np.arange(18).reshape(3, 6).tolist()


@pytest.mark.parametrize("name", FIRST)
def test_a_source_of_one_more_layer_has_no_copies_of_the_input(name):
    target = Target(*target_of(FIRST[name]))
    with pytest.raises(ValueError, match="put a convolution before the block, or choose"):
        Source.of(target, 5)
