"""Tickets of every activation, and of several in one network, by the six lines and their defaults."""

from pathlib import Path

import pytest

from slth import nn
from tests.front_door import network, program, trained_file

pytestmark = pytest.mark.slow

MIXED = [
    *(("relu", "tanh"), ("tanh", "relu"), ("relu", "gelu"), ("gelu", "relu"), ("sigmoid", "relu")),
    *(("relu", "sigmoid"), ("leaky_relu", "tanh"), ("elu", "sigmoid"), ("softplus", "hard_tanh")),
    *(("selu", "mish"), ("silu", "identity"), ("tanh", "softplus")),
]
PAIRS = [*((kind, kind) for kind in nn.ACTIVATIONS), *MIXED]


@pytest.mark.parametrize("first, second", PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_a_ticket_agrees_with_its_target(first: str, second: str, tmp_path: Path):
    spec = network(first, second)
    passed = program(trained_file(spec, tmp_path / "net.safetensors"), spec, tmp_path)
    assert passed.accuracy >= 0.95
    assert passed.agreement >= 0.98
    assert passed.unsolved <= 0.05 * passed.problems
