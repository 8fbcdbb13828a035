"""Certificates of grouped convolutions and concatenations: against dense kernels, images and brute force."""

from dataclasses import replace

import numpy as np
import pytest

from slth import nn
from slth.certificate import ball, box, certify, difference, examples, linear
from slth.certificate.arithmetic import correlate, sizes_by_input, transposed
from slth.certificate.build import build
from slth.certificate.pair import Node, inputs
from slth.certificate.prove import with_exact_output
from slth.certificate.steps import follow
from slth.construction import prune
from slth.nn.layers import Concat, Conv, Dense
from slth.nn.network import Network
from tests.certificate.pairs import branching_network, drawn_target, drawn_ticket, random_ticket, ticket_of
from tests.certificate.test_prove import ABOVE, METHODS, shares
from tests.construction import reference
from tests.construction.nets import PAD, RELU, source_of

KINDS = [["relu"], ["leaky_relu", "relu"], ["relu6"], ["tanh", "relu"]]


def spread(entry, channels):
    """A map with a dense kernel: 0 between groups."""
    if entry.inputs is None:
        return entry
    kernel = np.zeros((*entry.weight.shape[:-2], channels, entry.weight.shape[-1]))
    for row, read in enumerate(entry.inputs):
        for output, channel in enumerate(read):
            kernel[..., channel, output] += entry.weight[..., row, output]
    return replace(entry, weight=kernel, inputs=None)


def expanded(pair):
    """The pair with dense kernels."""
    steps = list(pair.steps)
    for number, step in enumerate(steps):
        if isinstance(step, Node):
            values = [place.shape[-1] for place in pair.places]
            channels = [len(place.owner[0]) for place in pair.places]
            sides = zip(step, (values, values, channels), strict=True)
            steps[number] = Node(
                *(
                    side._replace(maps=tuple(spread(entry, widths[entry.reads]) for entry in side.maps))
                    for side, widths in sides
                )
            )
    return pair._replace(steps=tuple(steps))


def bounds_of(pair, domain):
    low, high = domain.low, domain.high
    values = follow(pair.target, inputs(pair, low, high))
    whole = difference.propagate(pair, values, signed=False)[-1].size
    return whole, linear.bounds(pair, values, difference.propagate(pair, values, signed=True))


@pytest.mark.parametrize("depth, seed", [("L+1", 0), ("L+1", 1), ("2L", 2), ("2L", 3)])
def test_bounds_are_those_of_dense_kernels(seed, depth):
    rng = np.random.default_rng([2, seed])
    network, skip = branching_network(rng, *KINDS[seed])
    ticket = random_ticket(rng, network, skip, solved=False, depth=depth)
    image = rng.normal(size=(1, *network.input_shape))
    pair = build(ticket.made, signed=True)
    grouped = [entry for step in pair.steps if isinstance(step, Node) for entry in step.kept.maps]
    for domain in (box(-1, 1.5), ball(image, 0.1)):
        domain = domain.check(network.input_shape)
        own, dense = (bounds_of(one, domain) for one in (pair, expanded(pair)))
        np.testing.assert_allclose(own, dense, rtol=1e-9)
    assert any(entry.inputs is not None for entry in grouped) or "Concat" in str(network)


@pytest.mark.parametrize("depth, seed", [("L+1", 0), ("2L", 1), ("L+1", 2), ("2L", 3), ("L+1", 6), ("2L", 7)])
def test_single_images_are_exact(seed, depth):
    rng = np.random.default_rng([3, seed])
    network, skip = branching_network(rng, *KINDS[seed % 4])
    ticket = random_ticket(rng, network, skip, solved=False, depth=depth)
    x = rng.normal(size=(5, *network.input_shape))
    single = certify(ticket.made, examples(x), "linear", slack=0.0)
    np.testing.assert_allclose(single.bound, ticket.error(x), rtol=1e-9, atol=1e-11)
    assert (single.bound <= certify(ticket.made, examples(x), slack=0.0).bound).all()


@pytest.mark.parametrize(
    "depth, seed, kinds",
    [("L+1", 6, ["relu"]), pytest.param("2L", 3, ["leaky_relu", "tanh"], marks=pytest.mark.slow)],
)
def test_no_input_exceeds_the_bound(depth, seed, kinds):
    bounds, worst, network = shares(np.random.default_rng(seed), kinds, 4, 0, depth, branching_network)
    assert (worst <= ABOVE).all(), network
    assert worst.max() > 0.1, "the search for large errors finds some"
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


def _line(name, features, **options):
    return Conv(name, features, (1,), **options)


TINY = {
    "concatenation": (Dense("a", 2), RELU, Concat("i", ((), (Dense("u", 2), RELU))), Dense("c", 1)),
    "groups": (_line("a", 2), RELU, _line("g", 4, groups=2), RELU, nn.Flatten(), Dense("c", 1)),
}


@pytest.mark.parametrize("depth", ["L+1", "2L"])
@pytest.mark.parametrize("name", TINY)
def test_every_breakpoint_of_a_tiny_ticket_is_below_the_bound(name, depth):
    """On one input both networks are piecewise linear: the largest error is at a kink or at an end."""
    shape = (1,) if name == "concatenation" else (1, 1)
    network, rng = Network(shape, TINY[name]), np.random.default_rng(14)
    grid = np.linspace(-1, 1, 10_001)
    x = grid.reshape(-1, *shape)
    near = ball(((grid[:-1:100] + grid[100::100]) / 2).reshape(-1, *shape), 0.01)
    for _ in range(2):
        ticket = random_ticket(rng, network, solved=False, depth=depth)
        largest = ticket.error(x).max()
        whole, signed = (certify(ticket.made, box(-1, 1), method, slack=0.0).bound for method in METHODS)
        assert 0 < largest <= signed[0, 0] <= whole[0, 0]
        split = certify(ticket.made, near, "linear", slack=0.0).bound.max()
        assert largest <= split * ABOVE
        assert split <= 1.2 * largest, "bounds of small intervals are nearly exact"


def test_kernels_of_groups_and_their_transposes():
    rng = np.random.default_rng(1)
    layer = Conv("g", 7, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), groups=3, beside=(2, 1))
    kernel, x = rng.normal(size=(3, 2, 4, 7)), rng.normal(size=(3, 6, 5, 8))
    alone, index = replace(layer, groups=1, beside=(0, 0)), layer.inputs(8)
    y = correlate(alone, x, kernel, index)
    np.testing.assert_allclose(y, reference.linear(layer, kernel, x), atol=1e-12)
    z = rng.normal(size=y.shape)
    back = transposed(alone, z, kernel, x.shape[1:], index)
    np.testing.assert_allclose((y * z).sum(), (x * back).sum(), rtol=1e-12)
    whole = np.abs(layer.whole(kernel, 8)).reshape(-1, 8, 7).sum((0, 2))
    np.testing.assert_allclose(sizes_by_input(kernel, index, 8), whole)


def test_an_exact_output_layer_of_groups():
    rng = np.random.default_rng(9)
    layers = (Conv("a", 4, (3, 3), padding=PAD), RELU, Conv("g", 4, (2, 2), groups=2))
    ticket = random_ticket(rng, Network((4, 4, 2), layers), solved=True)
    domain = box(0, 1).check((4, 4, 2))
    whole, hidden = (certify(ticket.made, domain, slack=0.0, exact_output=only) for only in (False, True))
    assert (hidden.bound <= whole.bound).all()
    # The network that this is: the ticket's hidden layer, and the target's weights on one copy of each value.
    pair = with_exact_output(build(ticket.made, signed=False), domain)
    kept = pair.steps[-1].kept.maps[0]
    copies = pair.places[-2].owner[0]
    values = np.repeat(np.arange(4).reshape(2, 2).T, 2, 1)
    assert np.array_equal(copies[kept.inputs], values), "each row reads a copy of what the target reads"
    x = rng.random((40, 4, 4, 2))
    off = pair.factor * np.abs(difference.at(pair, x)[1][-1])
    assert (off <= hidden.bound).all()
    assert (off.max(0) > 0.01 * hidden.bound).all()


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_groups_of_which_nothing_is_kept(depth):
    rng = np.random.default_rng(6)
    layers = (
        Conv("a", 2, (2, 2)),
        RELU,
        Conv("d", 2, (2, 2), groups=2),
        RELU,
        nn.GlobalMean(),
        Dense("c", 2),
    )
    network = Network((4, 4, 1), layers)
    made = drawn_ticket(rng, drawn_target(rng, network), source_of(network, 3, constants=3, depth=depth)).made
    mask = nn.by_layer(made.mask)
    mask["d"]["kernel"] = np.zeros_like(mask["d"]["kernel"])
    ticket = ticket_of(replace(made, mask=prune(made.source.network, nn.nested(mask))))
    x = rng.normal(size=(5, 4, 4, 1))
    single = certify(ticket.made, examples(x), "linear", slack=0.0)
    np.testing.assert_allclose(single.bound, ticket.error(x), rtol=1e-9, atol=1e-11)
    for method in METHODS:
        bound = certify(ticket.made, box(-1, 1), method, slack=0.0).bound
        assert (ticket.error(np.clip(x, -1, 1)) <= bound).all()


def test_a_copy_in_another_group_is_refused():
    rng = np.random.default_rng(5)
    layers = (
        Conv("a", 4, (2, 2)),
        RELU,
        Conv("d", 4, (2, 2), groups=4),
        RELU,
        nn.GlobalMean(),
        Dense("c", 2),
    )
    network = Network((4, 4, 1), layers)
    made = drawn_ticket(rng, drawn_target(rng, network), source_of(network, 3, constants=3)).made
    columns = made.columns | {"a": made.columns["a"][::-1]}
    with pytest.raises(ValueError, match="certificate: d reads a copy of a value of another group"):
        certify(replace(made, columns=columns), box(0, 1), slack=0.0)
