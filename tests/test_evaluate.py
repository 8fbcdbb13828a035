"""Errors of copies against a plain NumPy reading of the traces, and comparison of outputs."""

import jax
import numpy as np
import pytest

from slth import Best, Source, Target, construct, evaluate, nn
from slth.evaluate import carried_values, compare
from slth.nn.zoo import build


@pytest.fixture(scope="module")
def case():
    """A residual target, its ticket and what is known of it."""
    spec = build("digits_resnet", (8, 8, 1), 4, width=3)
    target = Target.of(spec, nn.init(spec, jax.random.key(3)))
    source = Source.of(target, 5, univariate=10, constants=4, scale=1.5)
    made = construct(target, source, Best())
    return target.network, made.ticket, made.copies()


def test_layer_errors_are_those_of_the_traces(case):
    target, ticket, copies = case
    images = np.asarray(jax.random.normal(jax.random.key(0), (11, 8, 8, 1)))
    found = evaluate.run(ticket.source.network, ticket.params, images, copies=copies, batch=4)
    logits, values = nn.trace(ticket.source.network, ticket.params, images)
    _, goal = nn.trace(target, copies.params, images)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert list(found.layers) == list(copies.columns)
    for path, error in found.layers.items():
        name = path.split("/branch/conv2")[0]
        off, power, mean_off, mean_power, unread = [], [], [], [], 0
        for j, channels in enumerate(copies.columns[path]):
            x = np.asarray(goal[name][..., j], np.float64)
            live = [c for c in channels if copies.reads[path][c]]
            unread += len(channels) - len(live)
            carried = [np.asarray(values[name][..., c], np.float64) for c in live]
            off += [((c - x) ** 2).sum() for c in carried]
            power += [(x**2).sum()] * len(live)
            mean_off += [((np.mean(carried, 0) - x) ** 2).sum()] if live else []
            mean_power += [(x**2).sum()] if live else []
        assert error.unread == unread
        assert error.copy == pytest.approx(np.sqrt(sum(off) / sum(power)), rel=1e-3, abs=1e-6)
        assert error.mean == pytest.approx(np.sqrt(sum(mean_off) / sum(mean_power)), rel=1e-3, abs=1e-6)


def test_batches_do_not_matter(case):
    _, ticket, copies = case
    images = np.asarray(jax.random.normal(jax.random.key(1), (7, 8, 8, 1)))
    one, many = (
        evaluate.run(ticket.source.network, ticket.params, images, copies=copies, batch=b) for b in (7, 4)
    )
    np.testing.assert_allclose(one.logits, many.logits, rtol=1e-5, atol=1e-5)
    for path in one.layers:
        np.testing.assert_allclose(one.layers[path], many.layers[path], rtol=1e-3)


def test_the_last_layer_of_a_branch_carries_the_sum(case):
    names = carried_values(case[0])
    assert names["layer1.0/branch/conv1"] == "layer1.0/branch/conv1"
    assert names["layer1.0/branch/conv2"] == "layer1.0"
    assert names["linear"] == "linear"


def test_no_image_is_refused(case):
    _, ticket, _ = case
    with pytest.raises(ValueError, match="^images: there are none to evaluate$"):
        evaluate.run(ticket.source.network, ticket.params, np.zeros((0, 8, 8, 1), np.float32))


def test_comparison_of_outputs():
    target = np.array([[3.0, 0.0], [0.0, 4.0]])
    ticket = np.array([[3.0, 1.0], [5.0, 4.0]])
    found = compare(target, ticket)
    assert found.agreement == 0.5
    assert (found.max, found.mean, found.examples) == (5.0, 1.5, 2)
    assert found.relative == pytest.approx(np.sqrt(26) / 5)
