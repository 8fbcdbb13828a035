"""Errors of copies against a plain NumPy reading of the traces, and comparison of outputs."""

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_squared_error, r2_score

from slth import Best, Source, Target, construct, evaluate, nn, refine
from slth.evaluate import carried_values, compare
from slth.nn.zoo import build
from slth.quantise import quantised


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


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2, 1)])
def test_numbers_are_compared_by_their_errors(shape):
    rng = np.random.default_rng(0)
    goal = 5 + rng.normal(size=(40, *shape))
    found = goal + 0.3 * rng.normal(size=goal.shape)
    one = compare(goal, found, "regression")
    flat = goal.reshape(40, -1), found.reshape(40, -1)
    assert one.agreement is None
    assert one.rmse == pytest.approx(np.sqrt(mean_squared_error(*flat)))
    assert one.r2 == pytest.approx(r2_score(*flat, multioutput="variance_weighted"))


def test_outputs_that_are_no_scores_have_no_agreement():
    column = np.array([[1.0], [2.0]])
    assert compare(column, column).agreement is None  # of one output the largest is always the same
    assert compare(np.ones((3, 2)), np.zeros((3, 2))).r2 is None  # nothing varies
    with pytest.raises(ValueError, match=r"^task: outputs of shape \(1,\) are no scores of classes"):
        compare(column, column, "classes")
    with pytest.raises(
        ValueError, match=r"^compare: expected outputs of equal shape .* got \(2, 1\) and \(2, 2\)"
    ):
        compare(column, np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"^task: expected one of classes, regression, got 'ranks'"):
        compare(np.ones((2, 2)), np.ones((2, 2)), "ranks")  # pyright: ignore
    # Classes by their shape, unless it is said that they are none.
    scores = np.array([[1.0, 2.0], [3.0, 1.0]])
    assert compare(scores, scores).agreement == 1.0
    assert compare(scores, scores, "regression").agreement is None


def test_a_target_says_what_its_outputs_are():
    network = nn.Network((2,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
    params = nn.init(network, jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (20, 2)))
    for task, agrees in ((None, True), ("classes", True), ("regression", False)):
        target = Target.of(network, params, task)
        made = construct(target, Source.of(target, 6), Best())
        assert target.classes is agrees
        assert (made.error(x).agreement is not None) is agrees
        assert quantised(target, 4).target.task == task
    with pytest.raises(ValueError, match=r"^refine\.loss: 'classes' means nothing"):
        refine(made, x)
    one = nn.Network((2,), (nn.Dense("a", 1),))
    with pytest.raises(ValueError, match=r"^task: outputs of shape \(1,\)"):
        Target(one, nn.init(one, jax.random.key(0)), "classes")
    assert not Target(one, nn.init(one, jax.random.key(0))).classes
