"""Tickets that never change: their bits, as stored in tests/fixtures/tickets.json.

The file holds, by the name of a case below, the SHA-256 of the ticket's packed mask: what `digest` gives.
It was made in November 2026. The code before networks were graphs, which knew no mixed activations, gives the
same hashes for all cases but "smooth". No case reads images, so that no statistics in float32 decide, whose
last bits may differ from one processor to another. A change of a hash is a change of published tickets: it
needs a new version of the file format, not a new fixture.
"""

import hashlib
import json

import pytest

from slth import Best, Robust, Single, Smallest, Source, Target, construct
from slth.source import source_network
from tests.construction.nets import PLAIN, RESIDUAL, target_of
from tests.construction.test_mixed_activations import dense

FIXTURE = "tests/fixtures/tickets.json"
FIXED = Robust(noise="fixed")

# Network, solver, and what differs of the source: m = 5 copies, as many constants and univariate channels.
CASES = {
    "dense, best": ("vectors", Best(), {}),
    "dense, smallest": ("vectors", Smallest(), {}),
    "dense, robust": ("vectors", FIXED, {}),
    "dense, single": ("vectors", Single(), {"copies_per_sign": 40}),
    "dense, three of each": ("vectors", Best(size=3), {}),
    "dense, own biases": ("vectors", Best(), {"own_biases": True}),
    "dense, 2L": ("vectors", FIXED, {"depth": "2L", "copies_per_sign": 10}),
    "pooled, best": ("pooled", Best(), {}),
    "strided, smallest": ("strided", Smallest(), {}),
    "flattened, robust": ("flat images", FIXED, {"copies_per_sign": 12}),
    "carried, robust": ("blocks on one axis", FIXED, {}),
    "carried, 2L": ("blocks on one axis", Best(), {"depth": "2L", "copies_per_sign": 10}),
    "projection, best": ("dense block, projection", Best(), {"own_biases": True}),
    "solved skip, smallest": ("dense block, random", Smallest(), {"skip": "random"}),
    "smooth": ("tanh, softplus", Best(), {"own_biases": True, "copies_per_sign": 10}),
}


def digest(name, solver, options):
    """SHA-256 of the packed mask of a case."""
    network = dense(*name.split(", ")) if name.startswith("tanh") else (PLAIN | BLOCKS)[name]
    target = Target(*target_of(network))
    options = {"copies_per_sign": 5, "constants": 5, **options}
    wide = source_network(target.network, 5, **options)
    source = Source(wide.network, 0, 5, "he_uniform", bias_scale=4.0, layout=wide.layout)
    if name.startswith("tanh"):
        source = Source.of(target, 5, univariate=10, constants=20)
    return hashlib.sha256(construct(target, source, solver).ticket.bits).hexdigest()


BLOCKS = {name: network for name, (network, _) in RESIDUAL.items()}


@pytest.fixture(scope="module")
def stored(root):
    return json.loads((root / FIXTURE).read_text())


@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_a_ticket_do_not_change(case, stored):
    assert digest(*CASES[case]) == stored[case]


def test_every_stored_ticket_is_one_of_the_cases(stored):
    assert stored.keys() == CASES.keys()
    assert len(set(stored.values())) == len(stored)
