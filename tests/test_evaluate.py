"""Errors of copies against a plain NumPy reading of the traces, and comparison of outputs."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_squared_error, r2_score

from slth import Best, Construction, Source, Target, construct, evaluate, kept, nn, refine
from slth.compact import thinned
from slth.data import load
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


def grouped() -> nn.Network:
    """Groups behind a layer, and a block whose skip is carried."""
    pad = nn.same_padding((3, 3))
    block = nn.Residual("r", (nn.Conv("b", 4, (3, 3), padding=pad, groups=4), nn.Activation("relu")))
    return nn.Network(
        (6, 6, 2),
        (
            nn.Conv("a", 4, (3, 3), padding=pad),
            nn.Activation("relu"),
            block,
            nn.GlobalMean(),
            nn.Dense("c", 3),
        ),
    )


@cache
def made_of(name: str) -> Construction:
    network = {"blocks": build("digits_resnet", (8, 8, 1), 4, width=3), "groups": grouped()}.get(
        name, nn.Network((5,), (nn.Dense("a", 4), nn.Activation("relu"), nn.Dense("b", 3)))
    )
    target = Target.of(network, nn.init(network, jax.random.key(3)))
    if name == "2L":
        x = np.asarray(jax.random.normal(jax.random.key(5), (20, 5)))
        return construct(target, Source.of(target, 3, depth="2L", univariate=6, images=x), Best())
    made = construct(target, Source.of(target, 4), Best())
    if name in ("pruned", "silent"):
        kernel = np.array(made.mask["a"]["kernel"])
        draw = np.random.default_rng(0)
        kernel &= draw.random(kernel.shape) < 0.3
        if name == "silent":
            kernel[:, made.columns["a"][0]] = False  # nothing is kept of all copies of a channel
        made = made.with_kernels({"a": {"kernel": kernel}})
    return made


WIDE = [pytest.param(name, marks=pytest.mark.slow) for name in ("blocks", "groups", "2L")]


@pytest.mark.parametrize("name", ["pruned", "silent", *WIDE])
def test_the_compact_form_has_the_errors_of_the_whole(name):
    made = made_of(name)
    network, params = made.source.network, made.ticket.params
    x = np.asarray(jax.random.normal(jax.random.key(0), (9, *network.input_shape)))
    thin = thinned(network, made.mask)
    small = thin.params(params)
    assert nn.count(small) < nn.count(params)
    assert nn.multiply_adds(thin.network) < nn.multiply_adds(network)
    copies = made.copies()
    whole = evaluate.run(network, params, x, copies=copies, batch=4)
    found = evaluate.run(thin.network, small, x, copies=copies._replace(held=thin.columns), batch=4)
    np.testing.assert_allclose(found.logits, whole.logits, rtol=1e-4, atol=1e-5 * np.abs(whole.logits).max())
    for path, error in whole.layers.items():
        np.testing.assert_allclose(found.layers[path], error, rtol=1e-4, atol=1e-6)
    if name == "silent":
        assert whole.layers["a"].unread > 0


class Killed(Exception):
    """What ends an evaluation in the middle."""


def kill_at(images: int):
    """What ends an evaluation once so many images are done."""

    def tell(done: int, before: int) -> None:
        if done >= images:
            raise Killed

    return tell


@pytest.fixture
def keeps_all(monkeypatch: pytest.MonkeyPatch):
    """Each batch is kept as soon as it is there."""
    monkeypatch.setattr(kept, "SECONDS", 0.0)


@pytest.mark.usefixtures("keeps_all")
@pytest.mark.parametrize("layers", [False, True])
def test_a_killed_evaluation_goes_on_to_the_same_bits(tmp_path, layers):
    made = made_of("pruned")
    network, params = made.source.network, made.ticket.params
    x = np.array(jax.random.normal(jax.random.key(0), (23, *network.input_shape)))
    x[9] = np.nan  # an image on which all outputs are no numbers
    copies = made.copies() if layers else None
    whole = evaluate.run(network, params, x, copies=copies, batch=4)
    assert np.isnan(whole.logits).all(1).tolist() == [number == 9 for number in range(23)]
    for stop in (4, 13):
        with pytest.raises(Killed):
            evaluate.run(network, params, x, copies=copies, batch=4, folder=tmp_path, tell=kill_at(stop))
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 4, "batches up to the one in which the second kill was"
    told = []
    run = partial(evaluate.run, network, params, x, copies=copies, folder=tmp_path)
    found = run(batch=4, tell=lambda *given: told.append(given))
    assert told == [(16, 16), (20, 16), (23, 16)]
    assert found.logits.tobytes() == whole.logits.tobytes()
    np.testing.assert_equal(found.layers, whole.layers)
    told.clear()
    run(batch=4, tell=lambda *given: told.append(given))
    assert told == [(23, 23)], "nothing is left to do"
    told.clear()
    other = run(batch=8, tell=lambda *given: told.append(given))  # other batches round otherwise
    assert told == [(8, 0), (16, 0), (23, 0)]
    np.testing.assert_allclose(other.logits, whole.logits, rtol=1e-5, atol=1e-5)


OTHERS = {
    "images": lambda network, params, x: (network, params, x + np.float32(2**-10)),
    "weights": lambda network, params, x: (network, jax.tree.map(lambda leaf: 2 * leaf, params), x),
    "fewer": lambda network, params, x: (network, params, x[:8]),
}


@pytest.mark.usefixtures("keeps_all")
@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_batches_of_something_else_are_not_taken_over(tmp_path, change):
    made = made_of("pruned")
    given = made.source.network, made.ticket.params, np.ones((12, 5), np.float32)
    evaluate.run(*given, batch=4, folder=tmp_path)
    told = []
    other = change(*given)
    found = evaluate.run(*other, batch=4, folder=tmp_path, tell=lambda *given: told.append(given))
    assert told[0] == (4, 0)
    np.testing.assert_array_equal(found.logits, evaluate.run(*other, batch=4).logits)


@pytest.mark.usefixtures("keeps_all")
@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b""])
def test_a_damaged_batch_is_evaluated_again(tmp_path, damage):
    made = made_of("pruned")
    given = made.source.network, made.ticket.params, np.ones((12, 5), np.float32)
    whole = evaluate.run(*given, batch=4, folder=tmp_path)
    path = sorted(tmp_path.glob("*/*"))[1]
    path.write_bytes(damage(path.read_bytes()))
    told = []
    found = evaluate.run(*given, batch=4, folder=tmp_path, tell=lambda *given: told.append(given))
    assert told == [(4, 4), (8, 4), (12, 4)]
    np.testing.assert_array_equal(found.logits, whole.logits)


def test_what_is_quick_leaves_one_file(tmp_path):
    made = made_of("pruned")
    evaluate.run(
        made.source.network, made.ticket.params, np.ones((12, 5), np.float32), batch=4, folder=tmp_path
    )
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_outputs_that_are_no_numbers_agree_with_nothing():
    goal = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = np.array([[np.nan, np.nan], [np.inf, 0.0], [2.0, 0.0], [0.0, 2.0]])
    one = compare(goal, found)  # argmax alone would call the first two right
    assert (one.agreement, one.not_finite) == (0.5, 2)
    assert np.isnan(one.mean)
    data = load("digits")._replace(test_images=np.zeros((4, 8, 8, 1)), test_labels=np.array([0, 0, 0, 1]))
    assert data.accuracy(found) == 0.5
