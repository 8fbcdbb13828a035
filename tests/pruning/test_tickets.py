"""Masks of sources: tickets, files and compact networks take them as they take constructed ones."""

import jax
import numpy as np
import pytest

from slth import Best, Source, Target, Ticket, compact, construct, nn, pruning, ticket
from slth.certificate import box, certify, examples
from slth.nn.layers import Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.nn.prune import prune
from slth.source import parameters
from tests.construction.nets import images
from tests.pruning.nets import RELU, SAME, params_of

NETWORK = Network(
    (4, 4, 1),
    (
        *(Conv("a", 2, (3, 3), padding=SAME), RELU),
        Residual("r", (Conv("u", 2, (3, 3), padding=SAME), RELU, Conv("v", 2, (1, 1)))),
        *(RELU, Flatten(), Dense("d", 3)),
    ),
)


METHODS = (pruning.Random(), pruning.Synflow(rounds=5), pruning.Lamp())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_pruned_source_is_a_ticket(method, tmp_path):
    target = Target(NETWORK, params_of(NETWORK))
    drawn = Source.of(target, copies=3)
    params = parameters(drawn)
    found = method.prune(drawn.network, params, 0.3, key=jax.random.key(0))
    made = ticket.make(drawn, found.mask, 0.5)
    x = images(drawn.network, 4)
    expected = nn.apply(drawn.network, pruning.masked(params, found.mask), x)
    np.testing.assert_allclose(made(x), 0.5 * np.asarray(expected), rtol=1e-5, atol=1e-6)
    made.save(tmp_path / "net.ticket")
    assert Ticket.load(tmp_path / "net.ticket").bits == made.bits
    small = compact.compact(drawn.network, params, found.mask)
    np.testing.assert_allclose(nn.apply(*small, x), expected, rtol=1e-4, atol=1e-5)
    live = prune(drawn.network, found.mask)
    without = nn.apply(drawn.network, pruning.masked(params, live), x)
    np.testing.assert_allclose(without, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def made():
    target = Target(NETWORK, params_of(NETWORK))
    return construct(target, Source.of(target, copies=4), Best())


@pytest.mark.parametrize("method", [pruning.Random(), pruning.Synflow(rounds=5)], ids=["random", "SynFlow"])
def test_what_a_pruned_source_computes_is_certified(method, made):
    """Bounds against the target hold for a mask that knows nothing of it, and are exact at single images."""
    drawn, x = parameters(made.source), images(NETWORK, 5)
    found = method.prune(made.source.network, drawn, 0.4, key=jax.random.key(1))
    univariate = {one.path for one in made.source.layout_for(NETWORK).univariate}
    found_layers = {path: own for path, own in nn.by_layer(found.mask).items() if path not in univariate}
    pruned = made.with_kernels(nn.nested(found_layers))
    layers, biases = nn.by_layer(drawn), nn.by_layer(made.mask)
    kernels = biases | found_layers
    kept = {
        path: {name: own[name] * (biases if name == "bias" else kernels)[path][name] for name in own}
        for path, own in layers.items()
    }
    expected = made.factor * np.asarray(nn.apply(made.source.network, nn.nested(kept), x))
    np.testing.assert_allclose(pruned.ticket(x), expected, rtol=1e-4, atol=1e-5)
    off = np.abs(np.asarray(made.target(x)) - expected)
    exact = certify(pruned, examples(x), "linear", slack=0.0).bound
    np.testing.assert_allclose(exact, off, rtol=1e-3, atol=1e-4)
    assert off.max() > 10 * np.abs(made.target(x) - made.ticket(x)).max(), "it computes something else"
    everything = box(x.min(), x.max())
    for bound in ("interval", "linear"):
        assert (certify(pruned, everything, bound, slack=0.0).bound >= off * (1 - 1e-4)).all()


def test_kernels_that_are_not_the_sources_are_refused(made):
    wrong = {path: {"kernel": np.ones((1, 2), bool)} for path in nn.by_layer(made.mask)}
    with pytest.raises(ValueError, match=r"mask .*/kernel: expected boolean \(.*\), got bool \(1, 2\)"):
        made.with_kernels(nn.nested(wrong))
    with pytest.raises(ValueError, match=r"mask: the source has no layer 'e': it has univariate, "):
        made.with_kernels({"e": {"kernel": np.ones((1, 2), bool)}})


def test_a_mask_whose_univariate_channels_read_several_inputs_is_not_certified(made):
    found = pruning.Random().prune(made.source.network, parameters(made.source), 0.4, key=jax.random.key(1))
    with pytest.raises(ValueError, match="a channel of the source's layer univariate is not univariate"):
        certify(made.with_kernels(found.mask), box(-1, 1))
