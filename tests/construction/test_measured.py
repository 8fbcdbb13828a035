"""Copies as the calibration images show them: their gains, means and errors, and weights for these."""

import jax.numpy as jnp
import numpy as np
import pytest

import slth
from slth import Robust, Source, Target, nn
from slth.certificate import box, theorem
from slth.construction import plan, plan_of
from slth.construction.noise import measured
from slth.construction.state import copied_stream
from tests.construction.nets import images, target_of

PAD = ((1, 1), (1, 1))
COPIES = 6


def deep(kind: str) -> nn.Network:
    """Six layers, the least number of which an error is predicted."""
    layers = [
        layer
        for number in range(6)
        for layer in (nn.Conv(f"c{number}", 6, (3, 3), padding=PAD), nn.Activation(kind))
    ]
    return nn.Network((6, 6, 2), (*layers, nn.GlobalMean(), nn.Dense("out", 4)))


def prepared(kind: str, copies: int = COPIES, depth: str = "L+1") -> tuple[Target, Source, np.ndarray]:
    network = deep(kind)
    x = images(network, 192)
    target = Target(*target_of(network))
    univariate = 12 if depth == "2L" else None
    return target, Source.of(target, copies, depth=depth, images=x, univariate=univariate), x


def error(kind: str, depth: str, noise: str) -> float:
    """Of the outputs on images that the construction has not seen."""
    target, source, x = prepared(kind, depth=depth)
    return slth.construct(target, source, Robust(noise=noise), x[:128]).error(x[128:]).relative


@pytest.mark.parametrize("center", [False, True])
def test_gains_and_errors_are_those_of_a_regression(center: bool):
    random = np.random.default_rng(0)
    x = random.normal(1, 1, (50, 4, 3))
    gains = np.array([[0.5, 1.0, 2.0], [0.9, 1.1, 100.0], [1.0, 1.0, -1.0]])
    copies = x[..., None] * gains + 0.1 * random.normal(size=(50, 4, 3, 3)) + 3
    columns = np.array([[2, 0, 4], [1, 7, 8], [6, 3, 5]])
    ticket = np.zeros((50, 4, 9))
    ticket[..., columns] = copies
    stream = copied_stream(
        *(columns, np.zeros(0), np.zeros((3, 3)), np.ones((3, 3), bool)),
        *(jnp.asarray(x, jnp.float32), jnp.asarray(ticket, jnp.float32)),
    )
    found = measured(stream, center=center)
    if center:
        x, copies = x - x.mean((0, 1)), copies - copies.mean((0, 1))
    wanted = (copies * x[..., None]).mean((0, 1)) / (x**2).mean((0, 1))[:, None]
    wanted = np.clip(wanted, 0.25, 4)
    np.testing.assert_allclose(found.slots.gain, wanted, rtol=1e-4)
    left = ((copies - wanted * x[..., None]) ** 2).mean((0, 1))
    np.testing.assert_allclose(found.noise, left, rtol=1e-3)


@pytest.mark.parametrize("center", [False, True])
def test_a_channel_without_a_gain_counts_as_carried_as_it_is(center: bool):
    x = np.zeros((50, 2), np.float32)
    x[:, 1] = 0.3 if center else 0
    columns = np.arange(4).reshape(2, 2)
    ticket = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)), jnp.float32)
    stream = copied_stream(columns, np.zeros(0), np.zeros((2, 2)), columns >= 0, jnp.asarray(x), ticket)
    assert (measured(stream, center=center).slots.gain == 1).all()


@pytest.mark.parametrize("kind", ["relu", "tanh", "relu6"])
def test_a_deep_ticket_is_better_where_copies_are_measured(kind: str):
    assert error(kind, "L+1", "measured") < 0.75 * error(kind, "L+1", "propagated")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gelu", "sigmoid"])
def test_a_deep_ticket_of_two_layers_each_is_better_too(kind: str):
    assert error(kind, "2L", "measured") < 0.75 * error(kind, "2L", "propagated")


@pytest.mark.parametrize("copies, noise", [(6, "measured"), (15, "propagated")])
def test_copies_are_measured_where_a_large_error_is_predicted(copies: int, noise: str):
    target, source, x = prepared("relu", copies)
    made = slth.construct(target, source, Robust(), x)
    assert made.fit.predicted is not None
    assert (made.fit.predicted > 0.02) == made.measured == (noise == "measured")
    assert made.ticket == slth.construct(target, source, Robust(noise=noise), x).ticket


def test_copies_are_measured_where_nothing_can_be_predicted():
    for kind, fit in (("tanh", None), ("relu", 1.25)):
        target, source, x = prepared(kind, 15)
        found = plan_of(target, source, Robust(), x, fit=fit)
        assert found.fit.predicted is None
        assert found.measured


def test_a_shallow_network_is_not_measured():
    layers = (nn.Conv("a", 4, (3, 3)), nn.Activation("tanh"), nn.Flatten(), nn.Dense("b", 3))
    network = nn.Network((6, 6, 2), layers)
    target = Target(*target_of(network))
    assert not plan_of(target, Source.of(target, 4), Robust(), images(network, 8)).measured


def test_large_images_are_measured_on_some(monkeypatch: pytest.MonkeyPatch):
    target, source, x = prepared("relu")
    largest = 6 * 6 * max(layer.features for layer in source.network.layers if isinstance(layer, nn.Conv))
    monkeypatch.setattr(plan, "ROOM", 4 * largest * 40 + 1)
    some = plan_of(target, source, Robust(noise="measured"), x).images
    every = plan_of(target, source, Robust(noise="propagated"), x).images
    assert some is not None
    assert every is not None
    assert (len(some), len(every)) == (40, 192)


def test_the_theorem_says_nothing_of_weights_that_are_meant_for_other_gains():
    target, source, x = prepared("relu")
    for noise, known in (("propagated", True), ("measured", False)):
        made = slth.construct(target, source, Robust(noise=noise, means=False), x)
        found = theorem(made, box(-1, 1), epsilon=0.1, delta=0.01)
        assert (found.satisfied is not None) == known
        assert (found.guaranteed is not None) == known
        assert all((budget.reached is not None) == known for budget in found.layers)
