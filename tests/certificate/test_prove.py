"""Certificates of random tickets against the largest errors that random search and gradient ascent find."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from slth import nn
from slth.certificate import Certificate, ball, box, certify, difference, examples
from slth.certificate.arithmetic import correlate
from slth.certificate.build import build
from slth.certificate.prove import exact_node, with_exact_output
from slth.certificate.steps import Range
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool
from tests.certificate.pairs import largest_share, random_network, random_ticket
from tests.construction.nets import PAD, RELU

METHODS = ("interval", "linear")
ABOVE = 1 + 1e-9  # what float64 adds to an error that reaches its bound
apply = jax.jit(nn.apply, static_argnums=0)


def shares(rng, kinds, draws, solved, depth="L+1", drawn=random_network):
    """By method the bounds, and the largest |error| / bound that search finds: random tickets of one random
    network, over boxes and balls."""
    network, skip = drawn(rng, *kinds)
    tickets = [random_ticket(rng, network, skip, solved=i < solved, depth=depth) for i in range(draws)]
    low, high = [], []
    bounds = {method: [] for method in METHODS}
    for ticket in tickets:
        image = rng.normal(size=(1, *network.input_shape))
        choices = box(-1, 1.5), box(0, 1), ball(image, 0.03), ball(image, 0.3, -1, 1)
        domain = choices[rng.integers(4)].check(network.input_shape)
        low.append(domain.low)
        high.append(domain.high)
        for method in METHODS:
            bounds[method].append(certify(ticket.made, domain, method, slack=0.0).bound)
    stacked = [np.stack(bounds[method]) for method in METHODS]
    worst = largest_share(tickets, np.stack(low), np.stack(high), stacked, seed=int(rng.integers(2**32)))
    return stacked, worst, network


@pytest.mark.parametrize("depth", ["L+1", "2L"])
@pytest.mark.parametrize(
    "seed, kinds",
    [
        *((6, ["relu"]), (9, ["leaky_relu"]), (15, ["tanh"]), (5, ["sigmoid"]), (1, ["gelu"])),
        (3, ["relu", "tanh"]),
    ],
)
def test_no_input_exceeds_the_bound(seed, kinds, depth):
    bounds, worst, network = shares(np.random.default_rng(seed), kinds, draws=6, solved=2, depth=depth)
    assert (worst <= ABOVE).all(), network
    assert worst.max() > 0.3, "the search for large errors finds some"
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


def summed(kept, deltas):
    """The wrong recursion: |sum v E| in place of sum |v| E."""
    sizes = sum(correlate(entry.layer, deltas[entry.reads].rad, entry.weight) for entry in kept.maps)
    total = difference.summed(kept._replace(maps=()), deltas)
    return total + Range(np.zeros_like(sizes), np.abs(sizes))


def test_the_same_search_refutes_a_wrong_recursion(monkeypatch):
    monkeypatch.setattr(difference, "amplified", summed)
    _, worst, network = shares(np.random.default_rng(10), ["relu"], draws=6, solved=2)
    assert worst[METHODS.index("interval")] > 1.01, network


def small(rng, kind="relu"):
    """A convolutional ticket with pooling, constructed."""
    network = Network(
        (6, 6, 2),
        (
            *(Conv("a", 3, (3, 3), padding=((1, 1), (1, 1))), Activation(kind), Pool("max", (2, 2))),
            *(Conv("b", 3, (2, 2)), Activation(kind), Flatten(), Dense("c", 4)),
        ),
    )
    return random_ticket(rng, network, solved=True)


def test_single_images_are_exact():
    rng = np.random.default_rng(5)
    for kind in ("relu", "tanh"):
        ticket = small(rng, kind)
        x = rng.normal(size=(9, 6, 6, 2))
        made = certify(ticket.made, examples(x), "linear", slack=0.0)
        np.testing.assert_allclose(made.bound, ticket.error(x), rtol=1e-9, atol=1e-12)
        together = certify(ticket.made, examples(x), "interval", slack=0.0)
        assert together.bound.shape == (1, 4)
        assert (made.bound <= together.bound).all()
        ball_of_nothing = certify(ticket.made, ball(x, 0.0), "linear", slack=0.0)
        np.testing.assert_allclose(ball_of_nothing.bound, made.bound, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_single_images_are_exact_in_two_layers_for_each(seed):
    rng = np.random.default_rng([1, seed])
    kinds = [["relu"], ["leaky_relu", "relu"], ["tanh"], ["gelu", "relu"]][seed % 4]
    network, skip = random_network(rng, *kinds)
    ticket = random_ticket(rng, network, skip, solved=False, depth="2L")
    x = rng.normal(size=(5, *network.input_shape))
    single = certify(ticket.made, examples(x), "linear", slack=0.0)
    np.testing.assert_allclose(single.bound, ticket.error(x), rtol=1e-9, atol=1e-11)
    assert (single.bound <= certify(ticket.made, examples(x), slack=0.0).bound).all()


def test_every_breakpoint_of_a_tiny_ticket_of_two_layers_is_below_the_bound():
    """On one input both networks are piecewise linear: the largest error is at a kink or at an end."""
    network = Network((1,), (Dense("a", 2), RELU, Dense("b", 2), RELU, Dense("c", 1)))
    rng = np.random.default_rng(14)
    grid = np.linspace(-1, 1, 200_001)[:, None]
    for solved in (True, True, False, False):
        ticket = random_ticket(rng, network, solved=solved, depth="2L")
        largest = ticket.error(grid).max()
        whole, signed = (certify(ticket.made, box(-1, 1), method, slack=0.0).bound for method in METHODS)
        assert 0 < largest <= signed[0, 0] <= whole[0, 0]
        parts = grid[:-1:2000, 0], grid[2000::2000, 0]
        near = ball(np.mean(parts, 0)[:, None], 0.01)
        split = certify(ticket.made, near, "linear", slack=0.0).bound.max()
        assert largest <= split * ABOVE
        assert split <= 1.2 * largest, "bounds of small intervals are nearly exact"


def test_float32_stays_within_the_slack():
    rng = np.random.default_rng(6)
    ticket = small(rng)
    domain = box(0, 1)
    made, real = (certify(ticket.made, domain, slack=slack) for slack in (None, 0.0))
    assert made.slack > 0
    np.testing.assert_allclose(made.bound - made.slack, real.bound, rtol=1e-12)
    x = rng.random((400, 6, 6, 2)).astype(np.float32)
    kept = jax.tree.map(np.float32, ticket.kept)
    single = np.asarray(apply(ticket.target.network, ticket.target.params, x), np.float64)
    single = np.abs(single - np.float32(ticket.made.factor) * np.asarray(apply(ticket.wide, kept, x)))
    rounding = np.abs(single - ticket.error(x)).max()
    assert 0 < rounding <= made.slack
    assert (single <= made.bound).all()


def test_scales_of_the_target_are_inside_the_bound():
    """Whatever positive d the construction names: the certificate is of the target, and d only moves it."""
    ticket = small(np.random.default_rng(7))
    x = np.random.default_rng(8).random((50, 6, 6, 2))
    worse = replace(ticket.made, scales={path: 1.01 * d for path, d in ticket.made.scales.items()})
    right, off = (certify(made, box(0, 1), slack=0.0).bound for made in (ticket.made, worse))
    assert (ticket.error(x) <= right).all()
    assert (right * 1.01 < off).all()


def test_an_exact_output_layer_reads_the_best_copy_of_each_value():
    rng = np.random.default_rng(9)
    ticket = small(rng)
    domain = box(0, 1)
    whole, hidden = (certify(ticket.made, domain, slack=0.0, exact_output=only) for only in (False, True))
    assert hidden.layers[:2] == whole.layers[:2]
    pair = build(ticket.made, signed=False)
    place = pair.places[-2]
    errors = [rng.random(view.constant.shape) for view in pair.places]
    node = exact_node(pair, len(pair.steps) - 1, errors)
    weight, kept = node.target.maps[0].weight, node.kept.maps[0].weight
    assert not node.missed.maps
    for value in range(len(weight)):
        copies = np.flatnonzero((place.owner[0] == value) & place.owned)
        best = copies[errors[-2][copies].argmin()]
        assert np.array_equal(kept[best], weight[value])
        assert not kept[copies[copies != best]].any()
    # The network that this is: the ticket's hidden layers, and the target's weights on some of their copies.
    x = rng.random((40, 6, 6, 2))
    last = with_exact_output(pair, domain.check((6, 6, 2))).steps[-1]
    _, deltas = difference.at(pair, x)
    off = pair.factor * np.abs(deltas[-2] @ last.kept.maps[0].weight)
    assert (off <= hidden.bound).all()
    assert (off.max(0) > 0.01 * hidden.bound).all()


def test_certified_images_lead_by_more_than_both_bounds():
    made = Certificate(np.array([[1.0, 0.1, 0.1]]), (), "interval", "", 0.0)
    logits = np.array([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.5, 0.6], [0.0, 1.2, 0.9], [0.0, 1.2, -1.0]])
    assert made.certified(logits).tolist() == [True, False, False, True, True]
    each = made._replace(bound=np.array([[1.0, 1.0, 1.0], [0.4, 0.4, 0.4]]))
    assert each.certified(logits[:2]).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"shape \(5, 3\) do not fit"):
        each.certified(logits)
    with pytest.raises(ValueError, match=r"^certified: a single output is no class"):
        each.certified(logits[:2, :1])


@pytest.mark.usefixtures("unchecked")
def test_errors_name_what_is_wrong():
    ticket = small(np.random.default_rng(10))
    with pytest.raises(ValueError, match="do not fit inputs of shape"):
        certify(ticket.made, box(np.zeros(5), np.ones(5)))
    with pytest.raises(ValueError, match="method 'exact' is unknown"):
        certify(ticket.made, box(0, 1), "exact")
    with pytest.raises(ValueError, match="no images"):
        examples(np.zeros((0, 6, 6, 2)))
    with pytest.raises(ValueError, match="radius"):
        ball(np.zeros((1, 6, 6, 2)), -1.0)
    with pytest.raises(ValueError, match="exceeds high"):
        box(1, 0)
    with pytest.raises(ValueError, match="finite"):
        box(0, np.inf)


def test_small_balls_cost_little_more_than_the_error_at_their_middle():
    """A residual network, deep enough for absolute sums to be far off."""
    rng = np.random.default_rng(12)
    block = Residual("r", (Conv("u", 3, (3, 3), padding=PAD), RELU, Conv("v", 3, (3, 3), padding=PAD)))
    same = Residual("s", block.branch)
    target = Network(
        (6, 6, 1), (Conv("a", 3, (3, 3)), RELU, block, RELU, same, RELU, GlobalMean(), Dense("c", 3))
    )
    ticket = random_ticket(rng, target, solved=True)
    x = rng.normal(size=(4, 6, 6, 1))
    tiny, wide = (certify(ticket.made, ball(x, radius), "linear", slack=0.0) for radius in (1e-9, 1e-3))
    worst = ticket.error(x)
    np.testing.assert_allclose(tiny.bound, worst, rtol=1e-3, atol=1e-5)
    assert (wide.bound >= worst).all()
    absolute = certify(ticket.made, ball(x, 1e-3), slack=0.0)
    assert (wide.bound < absolute.bound / 10).all()
