"""Masks of sources: tickets, files and compact networks take them as they take constructed ones."""

import jax
import numpy as np
import pytest

from slth import Source, Target, Ticket, compact, nn, pruning, ticket
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
