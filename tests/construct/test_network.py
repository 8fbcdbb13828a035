"""Whole constructions: the ticket computes the sums it claims, recomputed in NumPy from mask and source."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from slth import nn
from slth.construct import Solver, construct
from slth.construct import network as walk
from slth.construct.compensate import Compensation
from slth.source import parameter_shapes, parameters, sha256
from tests.construct.nets import ODD, PLAIN, RESIDUAL, images, source_of, target_of
from tests.construct.realised import Walk
from tests.construct.reference import forward, leaves, masked

SOLVERS = {
    "smallest": Solver(objective="smallest"),
    "best": Solver(objective="best"),
    "robust": Solver(objective="robust"),
    "robust, measured": Solver(objective="robust", noise="measured"),
    "robust, fixed": Solver(objective="robust", noise="fixed"),
    "compensated": Solver(method="compensated", compensation=Compensation(sweeps=2)),
}
M, COUNT = 5, 6
apply = jax.jit(nn.apply, static_argnums=0)


def prepared(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else ((PLAIN | ODD)[name], "carried")
    target, params = target_of(network)
    return target, params, source_of(target, M, skip=skip), images(target, COUNT)


@pytest.fixture
def before_pruning(monkeypatch):
    """Masks as they were before channels that nothing reads were dropped: what the records speak of."""
    masks, real = [], walk.prune

    def remember(network, mask):
        masks.append(mask)
        return real(network, mask)

    monkeypatch.setattr(walk, "prune", remember)
    return masks


def check_records(made, seen, solver):
    independent = solver.method == "independent"
    assert sorted(record.path for record in made.records) == sorted(seen.nodes)
    for record in made.records:
        node, stats = seen.nodes[record.path], record.stats
        wanted, realised, sizes = node.problems(bias=independent)
        off = np.abs(wanted - realised)
        assert stats.problems == len(off)
        assert stats.unsolved + stats.deviating == (off > solver.tolerance).sum()
        assert stats.size == sizes.sum()
        assert np.array_equal(np.trim_zeros(stats.sizes, "b"), np.trim_zeros(np.bincount(sizes), "b"))
        np.testing.assert_allclose(
            [stats.error, stats.max_error], [off.sum(), off.max()], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(stats.source_power, node.power, rtol=1e-5)
        np.testing.assert_allclose(stats.target_power, node.target_power, rtol=1e-5)
        assert (record.kept, record.parameters) == (node.kept, node.parameters)
        if record.copy_error is not None:
            measured = (record.copy_error, record.mean_error)
            np.testing.assert_allclose(measured, seen.errors(record.path), rtol=1e-3, atol=1e-5)
        if independent and solver.objective != "robust":
            for t, r, s in zip(node.wanted, node.realised, node.sizes, strict=True):
                assert not r[t == 0].any(), "a weight of zero keeps none"
                assert not s[t == 0].any()


FEW = ("pooled", "one axis", "vectors", "weights on the skip", "pre-activation", "blocks on one axis")
CASES = [
    *((name, choice) for name in [*PLAIN, *RESIDUAL] for choice in ("smallest", "best", "robust")),
    *((name, choice) for name in FEW for choice in ("robust, measured", "robust, fixed", "compensated")),
    *((name, "compensated") for name in ("one layer", "option A, random", "dense block, projection")),
    *((name, "best") for name in ODD),
]


@pytest.mark.parametrize("name, choice", CASES)
def test_the_ticket_computes_the_sum_that_it_claims(name, choice, before_pruning):
    target, params, source, x = prepared(name)
    solver, random = SOLVERS[choice], parameters(source)
    hash_before = sha256(source)
    made = construct(target, params, source, solver, x)
    assert sha256(source) == hash_before

    # The balanced target is the target, and the mask is a mask of the source and of nothing else.
    y = forward(target, params, x)[""]
    balanced = forward(target, made.params, x)[""]
    np.testing.assert_allclose(made.factor * balanced, y, atol=1e-5 * np.abs(y).max())
    shapes = {path: values.shape for path, values in leaves(made.mask)}
    assert shapes == parameter_shapes(source.network)
    assert all(values.dtype == bool for _, values in leaves(made.mask))

    # Each copy of each node, in NumPy; then the outputs, also as JAX computes them.
    seen = Walk(target, made.params, source, random, before_pruning[0], made.columns, x)
    check_records(made, seen, solver)
    kept = masked(made.mask, random)
    size = np.abs(seen.ticket).max()
    np.testing.assert_allclose(forward(source.network, kept, x)[""], seen.ticket, atol=1e-9 * size)
    ticket = apply(source.network, jax.tree.map(np.float32, kept), x)
    np.testing.assert_allclose(ticket, seen.ticket, atol=2e-5 * size)
    expected = np.abs(made.factor * seen.ticket - y).max()
    assert abs(np.abs(made.factor * np.asarray(ticket) - y).max() - expected) <= 2e-5 * made.factor * size


def _same(a, b):
    return all(np.array_equal(p, q) for (_, p), (_, q) in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.parametrize("choice", ["best", "compensated"])
def test_two_runs_are_identical_and_two_seeds_are_not(choice):
    target, params, source, x = prepared("strided")
    one, two = (construct(target, params, source, SOLVERS[choice], x) for _ in range(2))
    assert _same(one.mask, two.mask)
    assert one.factor == two.factor
    without_time = [[r._replace(seconds=0.0) for r in made.records] for made in (one, two)]
    assert without_time[0] == without_time[1]
    other = construct(target, params, replace(source, seed=1), SOLVERS[choice], x)
    assert not _same(one.mask, other.mask)


def relative_error(target, params, source, solver, x, calibration=None):
    made = construct(target, params, source, solver, x if calibration is None else calibration)
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    y = forward(target, params, x)[""]
    return np.linalg.norm(ticket - y) / np.linalg.norm(y - y.mean(0))


@pytest.mark.parametrize("name", ["strided", "one axis", "vectors"])
def test_many_copies_leave_a_small_error(name):
    target, params = target_of(PLAIN[name])
    x = images(target, 20)
    few, many = (
        relative_error(target, params, source_of(target, m, constants=15), Solver(objective="robust"), x)
        for m in (M, 15)
    )
    assert many < 0.03
    assert many < few / 10


@pytest.mark.parametrize("name", ["option A, random", "weights on the skip"])
def test_compensated_tickets_of_residual_networks_are_near(name):
    network, skip = RESIDUAL[name]
    target, params = target_of(network)
    source = source_of(target, 8, skip=skip, constants=16, copies_per_sign=16)
    x, calibration = images(target, 30), images(target, 120, seed=1)
    compensated = relative_error(target, params, source, Solver(method="compensated"), x, calibration)
    alone = relative_error(target, params, source, Solver(objective="best"), x, calibration)
    assert compensated < 0.55
    assert compensated < alone / 4


def test_copies_of_the_input_in_two_groups_of_variables():
    target, params = target_of(PLAIN["one layer"])
    x = images(target, 30)
    one, two = (
        relative_error(target, params, source_of(target, 8, copies_per_sign=n), Solver(), x) for n in (8, 16)
    )
    assert two < one / 10


def test_an_input_that_is_not_negative_needs_one_sign():
    target, params = target_of(PLAIN["pooled"])
    x = np.abs(images(target, 20))
    source = source_of(target, 15)
    made = construct(target, params, source, Solver(objective="robust", inputs="nonnegative"), x)
    random = parameters(source)
    kernel = masked(made.mask, random)["univariate"]["kernel"]
    assert (kernel >= 0).all()
    ticket = made.factor * forward(source.network, masked(made.mask, random), x)[""]
    y = forward(target, params, x)[""]
    assert np.linalg.norm(ticket - y) < 0.05 * np.linalg.norm(y - y.mean(0))


def test_a_target_of_zeros_keeps_nothing():
    target, params = target_of(PLAIN["strided"])
    zero = jax.tree.map(np.zeros_like, params)
    made = construct(target, zero, source_of(target, M), Solver())
    assert not any(values.any() for _, values in leaves(made.mask))


def test_a_source_without_constants_has_no_biases():
    target, params = target_of(PLAIN["one axis"])
    source = source_of(target, M, constants=0)
    assert "univariate/bias" not in parameter_shapes(source.network)
    made = construct(target, params, source, Solver())
    asked = {record.path: record.stats for record in made.records}
    biases = np.count_nonzero(made.params["a"]["bias"])
    assert asked["a"].problems == M * (2 * made.params["a"]["kernel"].size + biases)
    assert asked["a"].unsolved >= M * (np.abs(made.params["a"]["bias"]) > 0.05).sum()


@pytest.mark.parametrize(
    "solver",
    [Solver(method="compensated"), Solver(objective="robust"), Solver(objective="robust", noise="measured")],
    ids=["compensated", "propagated", "measured"],
)
def test_what_needs_calibration_says_so(solver):
    target, params, source, _ = prepared("one layer")
    with pytest.raises(
        ValueError, match="needs calibration images: set solver.calibration, or solver.noise=fixed"
    ):
        construct(target, params, source, solver)


def test_a_fixed_price_needs_none():
    target, params, source, x = prepared("strided")
    solver = SOLVERS["robust, fixed"]
    with_images, without = (construct(target, params, source, solver, c) for c in (x, None))
    assert _same(with_images.mask, without.mask)


def test_progress_ends_at_all_problems_of_each_layer():
    target, params, source, _ = prepared("vectors")
    seen = {}

    def report(path, done, total):
        assert 0 <= done <= total
        seen[path] = (done, total)

    construct(target, params, source, Solver(), report=report)
    assert list(seen) == ["a", "b", "c"]
    assert all(done == total for done, total in seen.values())


def test_biases_behind_constants_that_no_tap_reads_everywhere_are_unsolved():
    for name, path in (("padded mean", "b"), ("no safe tap", "a")):
        target, params, source, _ = prepared(name)
        made = construct(target, params, source, Solver())
        record = next(record for record in made.records if record.path == path)
        values = made.params[path]
        copies = made.columns[path].shape[1]
        slots = 2 if path == "a" else 1
        weights = copies * slots * np.count_nonzero(values["kernel"])
        assert record.stats.problems == weights + copies * np.count_nonzero(values["bias"])
        kept = made.mask[path]["kernel"]
        constants = slice(-M, None) if path == "b" else slice(4 * M, None)  # of the source's channels read
        assert not kept[..., constants, :].any()
        assert record.stats.unsolved >= copies * (np.abs(values["bias"]) > 0.05).sum()
