"""Ten thousand random tickets: no bound is exceeded by an error that ascent finds, and a wrong one is."""

import numpy as np
import pytest

from slth.certificate import interval
from slth.nn.activations import ACTIVATIONS
from tests.certificate.test_network import ABOVE, METHODS, shares, summed

pytestmark = pytest.mark.slow
NETWORKS, DRAWS, SOLVED = 100, 100, 8
KINDS = [kind for kind in ACTIVATIONS if kind != "identity"]


@pytest.mark.parametrize("number", range(NETWORKS))
def test_no_input_exceeds_the_bound(number):
    rng = np.random.default_rng([7, number])
    bounds, found, network = shares(rng, KINDS[number % len(KINDS)], DRAWS, SOLVED)
    assert (found <= ABOVE).all(), network
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


def test_most_networks_refute_a_wrong_recursion(monkeypatch):
    monkeypatch.setattr(interval, "amplified", summed)
    refuted = [
        shares(np.random.default_rng([8, number]), "relu", 20, 2)[1][METHODS.index("interval")] > ABOVE
        for number in range(10)
    ]
    assert np.mean(refuted) > 0.5
