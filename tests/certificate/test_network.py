"""Certificates of random tickets against the largest errors that random search and gradient ascent find."""

import jax
import numpy as np
import pytest

from slth import nn
from slth.certificate import Certificate, ball, box, certify, difference, examples, interval, network
from slth.certificate.arithmetic import correlate
from slth.certificate.build import build
from slth.certificate.network import exact
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool
from tests.certificate.pairs import largest_share, random_network, random_ticket
from tests.construct.nets import PAD, RELU
from tests.construct.reference import forward

METHODS = ("interval", "linear")
ABOVE = 1 + 1e-9  # what float64 adds to an error that reaches its bound
apply = jax.jit(nn.apply, static_argnums=0)


def shares(rng, kind, draws, solved):
    """By method the bounds, and the largest |error| / bound that search finds: random tickets of one random
    network, over boxes and balls."""
    network, skip = random_network(rng, kind)
    tickets = [random_ticket(rng, network, skip, solved=i < solved) for i in range(draws)]
    low, high = [], []
    bounds = {method: [] for method in METHODS}
    for ticket in tickets:
        image = rng.normal(size=(1, *network.input_shape))
        choices = box(-1, 1.5), box(0, 1), ball(image, 0.03), ball(image, 0.3, -1, 1)
        domain = choices[rng.integers(4)].check(network.input_shape)
        low.append(domain.low)
        high.append(domain.high)
        for method in METHODS:
            bounds[method].append(certify(*ticket[:4], domain, method, slack=0.0).bound)
    stacked = [np.stack(bounds[method]) for method in METHODS]
    found = largest_share(tickets, np.stack(low), np.stack(high), stacked, seed=int(rng.integers(2**32)))
    return stacked, found, network


@pytest.mark.parametrize(
    "seed, kind", [(6, "relu"), (9, "leaky_relu"), (15, "tanh"), (5, "sigmoid"), (1, "gelu")]
)
def test_no_input_exceeds_the_bound(seed, kind):
    bounds, found, network = shares(np.random.default_rng(seed), kind, draws=6, solved=2)
    assert (found <= ABOVE).all(), network
    assert found.max() > 0.3, "the search for large errors finds some"
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


def summed(one, error):
    """The wrong recursion: |sum v E| in place of sum |v| E."""
    return np.abs(correlate(one.layer, error, one.kept))


def test_the_same_search_refutes_a_wrong_recursion(monkeypatch):
    monkeypatch.setattr(interval, "amplified", summed)
    _, found, network = shares(np.random.default_rng(10), "relu", draws=6, solved=2)
    assert found[METHODS.index("interval")] > 1.01, network


def small(rng, kind="relu"):
    """A convolutional ticket with pooling, constructed."""
    network = Network(
        (6, 6, 2),
        (
            *(Conv("a", 3, (3, 3), padding=((1, 1), (1, 1))), Activation(kind), Pool("max", (2, 2))),
            *(Conv("b", 3, (2, 2)), Activation(kind), Flatten(), Dense("c", 4)),
        ),
    )
    return random_ticket(rng, network, "carried", solved=True)


def error(ticket, x):
    wanted = forward(ticket.target, ticket.params, x)[""]
    return np.abs(wanted - ticket.made.factor * forward(ticket.source.network, ticket.kept, x)[""])


def test_single_images_are_exact():
    rng = np.random.default_rng(5)
    for kind in ("relu", "tanh"):
        ticket = small(rng, kind)
        x = rng.normal(size=(9, 6, 6, 2))
        made = certify(*ticket[:4], examples(x), "linear", slack=0.0)
        np.testing.assert_allclose(made.bound, error(ticket, x), rtol=1e-9, atol=1e-12)
        together = certify(*ticket[:4], examples(x), "interval", slack=0.0)
        assert together.bound.shape == (1, 4)
        assert (made.bound <= together.bound).all()
        ball_of_nothing = certify(*ticket[:4], ball(x, 0.0), "linear", slack=0.0)
        np.testing.assert_allclose(ball_of_nothing.bound, made.bound, rtol=1e-6, atol=1e-9)


def test_float32_stays_within_the_slack():
    rng = np.random.default_rng(6)
    ticket = small(rng)
    domain = box(0, 1)
    made, real = (certify(*ticket[:4], domain, slack=slack) for slack in (None, 0.0))
    assert made.slack > 0
    np.testing.assert_allclose(made.bound - made.slack, real.bound, rtol=1e-12)
    x = rng.random((400, 6, 6, 2)).astype(np.float32)
    kept = jax.tree.map(np.float32, ticket.kept)
    single = np.asarray(apply(ticket.target, ticket.params, x), np.float64)
    single = np.abs(
        single - np.float32(ticket.made.factor) * np.asarray(apply(ticket.source.network, kept, x))
    )
    rounding = np.abs(single - error(ticket, x)).max()
    assert 0 < rounding <= made.slack
    assert (single <= made.bound).all()


def test_rounding_of_the_balanced_target_is_inside_the_bound():
    ticket = small(np.random.default_rng(7))
    assert ticket.made.factor != 1
    coarse = jax.tree.map(lambda a: np.float32(np.float16(a)), ticket.made.params)
    x = np.random.default_rng(8).random((50, 6, 6, 2))
    rough = ticket.made._replace(params=coarse)
    for made in (ticket.made, rough):
        bound = certify(*ticket[:3], made, box(0, 1), slack=0.0).bound
        assert (error(ticket, x) <= bound).all()


def test_an_exact_output_layer_reads_the_best_copy_of_each_value():
    rng = np.random.default_rng(9)
    ticket = small(rng)
    domain = box(0, 1)
    whole, hidden = (certify(*ticket[:4], domain, slack=0.0, exact_output=only) for only in (False, True))
    assert hidden.layers[:2] == whole.layers[:2]
    pair = build(*ticket[:4], signed=False)
    last, place = pair.steps[-1], pair.places[-2]
    errors = [rng.random(one.constant.shape) for one in pair.places]
    made = exact(last, pair.places, errors)
    wanted, kept = made.maps[0].wanted, made.maps[0].kept
    assert not made.maps[0].error.any()
    for value in range(len(wanted)):
        copies = np.flatnonzero((place.owner[0] == value) & place.owned)
        best = copies[errors[-2][copies].argmin()]
        assert np.array_equal(kept[best], wanted[value])
        assert not kept[copies[copies != best]].any()
    # The network that this is: the ticket's hidden layers, and the target's weights on some of their copies.
    x = rng.random((40, 6, 6, 2))
    last = network._with_exact_output(pair, domain.check((6, 6, 2))).steps[-1]
    _, deltas = difference.at(pair, x)
    off = pair.factor * np.abs(deltas[-2] @ last.maps[0].kept)
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


def test_errors_name_what_is_wrong():
    ticket = small(np.random.default_rng(10))
    with pytest.raises(ValueError, match="do not fit inputs of shape"):
        certify(*ticket[:4], box(np.zeros(5), np.ones(5)))
    with pytest.raises(ValueError, match="method 'exact' is unknown"):
        certify(*ticket[:4], box(0, 1), "exact")
    with pytest.raises(ValueError, match="no images"):
        examples(np.zeros((0, 6, 6, 2)))
    with pytest.raises(ValueError, match="radius"):
        ball(np.zeros((1, 6, 6, 2)), -1.0)
    with pytest.raises(ValueError, match="exceeds high"):
        box(1, 0)
    with pytest.raises(ValueError, match="finite"):
        box(0, np.inf)
    other = ticket.target, {**ticket.params}, ticket.source
    pooled = Network((6, 6, 2), (Pool("max", (1, 1)), *ticket.target.layers))
    wide = Network(
        (6, 6, 2), (*ticket.source.network.layers[:2], Pool("max", (1, 1)), *ticket.source.network.layers[2:])
    )
    with pytest.raises(ValueError, match="put a linear layer before it"):
        certify(pooled, other[1], type(ticket.source)(wide, 1, 3), ticket.made, box(0, 1))


def test_small_balls_cost_little_more_than_the_error_at_their_middle():
    """A residual network, deep enough for absolute sums to be far off."""
    rng = np.random.default_rng(12)
    block = Residual("r", (Conv("u", 3, (3, 3), padding=PAD), RELU, Conv("v", 3, (3, 3), padding=PAD)))
    same = Residual("s", block.branch)
    target = Network(
        (6, 6, 1), (Conv("a", 3, (3, 3)), RELU, block, RELU, same, RELU, GlobalMean(), Dense("c", 3))
    )
    ticket = random_ticket(rng, target, "carried", solved=True)
    x = rng.normal(size=(4, 6, 6, 1))
    tiny, wide = (certify(*ticket[:4], ball(x, radius), "linear", slack=0.0) for radius in (1e-9, 1e-3))
    worst = error(ticket, x)
    np.testing.assert_allclose(tiny.bound, worst, rtol=1e-3, atol=1e-5)
    assert (wide.bound >= worst).all()
    absolute = certify(*ticket[:4], ball(x, 1e-3), slack=0.0)
    assert (wide.bound < absolute.bound / 10).all()
