"""Certificates where activations differ, or stand before the first layer or behind the last one."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

import slth
from slth.certificate import ball, box, certify, difference, examples, theorem
from slth.certificate.build import build
from slth.certificate.pair import Node
from slth.certificate.prove import with_exact_output
from slth.nn.activations import ACTIVATIONS
from slth.nn.graph import is_homogeneous
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Pool
from tests.certificate.pairs import drawn_target, drawn_ticket, random_ticket, ticket_of
from tests.construction.nets import PAD, RELU, images, source_of

TANH, GELU, SIGMOID = Activation("tanh"), Activation("gelu"), Activation("sigmoid")


def pair_network(outside, inside):
    block = Residual("r", (Dense("u", 3), inside, Dense("v", 4)))
    return Network((2,), (Dense("a", 4), outside, block, outside, Dense("b", 2)))


KINDS = list(ACTIVATIONS)
# Every pair with ReLU and with itself; of the others one in three.
PAIRS = [
    (kind, other)
    for kind, other in product(KINDS, repeat=2)
    if kind == other or "relu" in (kind, other) or (KINDS.index(kind) + 2 * KINDS.index(other)) % 3 == 1
]
OF_TWO_LAYERS = [(kind, other) for kind, other in PAIRS if kind in ("relu", other)]
QUICK = {(kind, other) for kind, other in PAIRS if kind == other or "relu" in (kind, other)}


@pytest.mark.parametrize(
    "depth, kinds",
    [
        *(pytest.param("L+1", kinds, marks=[] if kinds in QUICK else pytest.mark.slow) for kinds in PAIRS),
        *(("2L", kinds) for kinds in OF_TWO_LAYERS),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_bounds_hold_for_any_two_activations(depth, kinds):
    rng = np.random.default_rng([3, *(list(ACTIVATIONS).index(kind) for kind in kinds)])
    outside, inside = (Activation(kind, 0.3) for kind in kinds)
    network = pair_network(outside, inside)
    factor = 0.7 if is_homogeneous(network) else 1.0
    # Channels that enter an activation are scaled where that is allowed: u by any d, a and v by a common one.
    d = {"r/branch/u": np.exp(rng.normal(size=3))} if is_homogeneous(Network((2,), (inside,))) else {}
    if is_homogeneous(Network((2,), (outside,))):
        d["a"] = d["r/branch/v"] = np.exp(rng.normal(size=4))
    target = drawn_target(rng, network)
    source = source_of(network, 3, constants=3, bias_scale=2.0, depth=depth)
    ticket = drawn_ticket(rng, target, source, factor, d)
    x = rng.uniform(-1, 1, (60, 2))
    error = ticket.error(x)
    np.testing.assert_allclose(
        certify(ticket.made, examples(x), "linear", slack=0.0).bound, error, rtol=1e-8, atol=1e-11
    )
    for method in ("interval", "linear"):
        bound = certify(ticket.made, box(-1, 1), method, slack=0.0).bound
        assert (error <= bound).all()
        small = certify(ticket.made, ball(x[:3], 1e-7), method, slack=0.0).bound
        assert (error[:3] <= small).all()
    assert (small <= 1.1 * error[:3] + 1e-3).all(), "signs are kept, so that a small ball costs little"


NETS = {
    "two layers": Network((3,), (Dense("a", 4), RELU, Dense("b", 4), TANH, Dense("c", 2))),
    "the other order": Network((3,), (Dense("a", 4), TANH, Dense("b", 4), RELU, Dense("c", 2))),
    "another in the block": Network(
        (5, 5, 2),
        (
            *(Conv("a", 3, (3, 3)), RELU),
            *(Residual("r", (Conv("u", 3, (3, 3), padding=PAD), GELU, Conv("v", 3, (1, 1)))), RELU),
            *(Flatten(), Dense("b", 3)),
        ),
    ),
    "activation first": Network((3,), (TANH, Dense("a", 4), RELU, Dense("b", 2))),
    "relu first": Network((3,), (RELU, Dense("a", 4), RELU, Dense("b", 2))),
    "pooled first": Network(
        (4, 4, 2),
        (
            *(Pool("max", (2, 2), (1, 1)), Activation("softplus"), Pool("mean", (2, 2), (1, 1))),
            *(Conv("a", 3, (2, 2)), Activation("leaky_relu", 0.3), Flatten("chw"), Dense("b", 2)),
        ),
    ),
    "flattened, then an activation": Network(
        (2, 2, 2), (Flatten("chw"), SIGMOID, Dense("a", 4), RELU, Dense("b", 2))
    ),
    "sigmoid last": Network((3,), (Dense("a", 4), TANH, Dense("b", 2), SIGMOID)),
    "relu last": Network((3,), (Dense("a", 4), RELU, Dense("b", 2), RELU)),
    "pooled last": Network(
        (4, 4, 1), (Conv("a", 3, (2, 2)), RELU, Conv("b", 2, (1, 1)), Pool("max", (3, 3)))
    ),
}


@cache
def built(name, depth="L+1"):
    """A ticket of the source that suits the activations; its hidden layers may have biases of their own."""
    target = drawn_target(np.random.default_rng(1), NETS[name])
    seen = images(NETS[name], 40) if depth == "2L" else None
    source = slth.Source.of(target, copies=3, reach=2.0, depth=depth, images=seen)
    return ticket_of(slth.construct(target, source, slth.Best()))


@pytest.mark.parametrize("depth", ["L+1", "2L"])
@pytest.mark.parametrize("name", NETS)
def test_certificates_of_constructed_tickets_hold(name, depth):
    ticket = built(name, depth)
    x = np.clip(images(NETS[name], 40), -1, 1)
    error = ticket.error(x)
    single = certify(ticket.made, examples(x), "linear", slack=0.0)
    np.testing.assert_allclose(single.bound, error, rtol=1e-7, atol=1e-11)
    for method in ("interval", "linear"):
        assert (error <= certify(ticket.made, box(-1, 1), method, slack=0.0).bound).all()
        single = certify(ticket.made, examples(x), method, slack=0.0)
        assert (error <= single.bound * (1 + 1e-9) + 1e-11).all()
        near = certify(ticket.made, ball(x[:4], 1e-6), method, slack=0.0).bound
        assert (error[:4] <= near).all()
    assert (near <= 1.1 * error[:4] + 1e-3).all()


@pytest.mark.parametrize("name", NETS)
def test_theorem_2_guarantees_what_constructed_tickets_reach(name):
    ticket = built(name)
    x = np.clip(images(NETS[name], 40), -1, 1)
    proof = theorem(ticket.made, examples(x), epsilon=1.0, delta=0.01)
    assert proof.guaranteed is not None
    assert 0 < ticket.error(x).max() <= proof.guaranteed
    records = {record.path: record.stats.max_error for record in ticket.made.records}
    assert {budget.layer: budget.reached for budget in proof.layers} == records


def test_drawn_tickets_behind_a_leading_layer():
    """A mask that has not seen the target leaves no room for a leading layer that is forgotten."""
    rng = np.random.default_rng(4)
    for name in ("activation first", "relu first", "pooled first", "flattened, then an activation"):
        network = NETS[name]
        ticket = random_ticket(rng, network, solved=False)
        x = rng.uniform(-1, 1, (30, *network.input_shape))
        for method in ("interval", "linear"):
            share = ticket.error(x) / certify(ticket.made, box(-1, 1), method, slack=0.0).bound
            assert share.max() <= 1
        assert share.max() > 0.05
        single = certify(ticket.made, examples(x), "linear", slack=0.0).bound
        np.testing.assert_allclose(single, ticket.error(x), rtol=1e-8, atol=1e-11)


def test_no_negative_part_is_followed_behind_a_relu():
    made = built("relu first").made
    pair, split = (build(made, signed=signed) for signed in (False, True))
    for built_of, inputs in ((pair, 3), (split, 6)):
        first = next(step for step in built_of.steps if isinstance(step, Node) and step.target.path)
        assert len(first.target.maps[0].weight) == inputs
    np.testing.assert_allclose(
        certify(made, box(-1, 1), slack=0.0).bound, certify(made, box(0, 1), slack=0.0).bound, rtol=1e-9
    )


def test_a_scaled_channel_of_another_activation_is_refused():
    rng = np.random.default_rng(5)
    network = pair_network(TANH, RELU)
    target, source = drawn_target(rng, network), source_of(network, 3, constants=3)
    scales = {"a": np.full(4, 2.0), "r/branch/v": np.full(4, 2.0)}
    with pytest.raises(ValueError, match="tanh is not positively homogeneous, and its input is scaled"):
        certify(drawn_ticket(rng, target, source, 1.0, scales).made, box(0, 1), slack=0.0)


def test_scales_that_differ_on_the_two_sides_of_a_carried_skip_are_an_error_like_any_other():
    """The ticket carries d_a u where the target wants d_v u: what it misses is bounded, exactly at images."""
    rng = np.random.default_rng(5)
    network = pair_network(RELU, RELU)
    target, source = drawn_target(rng, network), source_of(network, 3, constants=3)
    ticket = drawn_ticket(rng, target, source, scales={"r/branch/v": np.full(4, 2.0)})
    x = rng.uniform(-1, 1, (60, 2))
    error = ticket.error(x)
    single = certify(ticket.made, examples(x), "linear", slack=0.0).bound
    np.testing.assert_allclose(single, error, rtol=1e-8, atol=1e-11)
    for method in ("interval", "linear"):
        assert (error <= certify(ticket.made, box(-1, 1), method, slack=0.0).bound).all()


def test_a_source_of_another_target_is_refused():
    rng = np.random.default_rng(6)
    made = random_ticket(rng, pair_network(RELU, RELU), solved=False).made
    other = drawn_target(rng, pair_network(RELU, TANH))
    with pytest.raises(
        ValueError, match="what r/branch/v reads is .*relu.* and for this target should be .*tanh"
    ):
        certify(replace(made, target=other), box(0, 1), slack=0.0)


def test_an_exact_output_layer_before_a_last_sigmoid():
    """The sigmoid's slope is at most 1/4: no bound by absolute values comes through it larger than that."""
    x = np.random.default_rng(8).uniform(-1, 1, (50, 3))
    domain = box(-1, 1).check((3,))
    last = built("sigmoid last").made
    target, wide = (
        Network((3,), network.layers[:-1]) for network in (last.target.network, last.source.network)
    )
    source = replace(last.source, network=wide)
    before = replace(last, target=slth.Target(target, last.target.params), source=source)
    behind, signed, logits = (
        certify(made, domain, method, slack=0.0, exact_output=True).bound
        for made, method in ((last, "interval"), (last, "linear"), (before, "interval"))
    )
    assert (behind <= logits / 4 * (1 + 1e-9)).all()
    assert (signed <= behind).all()
    error = np.abs(difference.at(with_exact_output(build(last, signed=True), domain), x)[1][-1])
    assert (error <= signed).all()
    assert error.max() > 0.01 * signed.max()
