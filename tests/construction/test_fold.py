"""Whole constructions: the ticket computes the sums it claims, recomputed in NumPy from mask and source."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from slth import Target, nn
from slth.construction import Best, Compensated, Robust, Smallest, construct, fold, nodes_of, plan_of
from slth.source import parameters, sha256
from tests.construction.nets import ODD, PLAIN, RESIDUAL, images, source_of, target_of
from tests.construction.realised import Walk
from tests.construction.reference import forward, leaves, masked
from tests.construction.solvers import Counting

SOLVERS = {
    "smallest": Smallest(),
    "best": Best(),
    # What means add to constants differs from tap to tap; tests/construction/test_means.py looks at it.
    "robust": Robust(means=False),
    "robust, measured": Robust(noise="measured", means=False),
    "robust, fixed": Robust(noise="fixed", means=False),
    "compensated": Compensated(sweeps=2),
}
M, COUNT = 5, 6
apply = jax.jit(nn.apply, static_argnums=0)


def prepared(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else ((PLAIN | ODD)[name], "carried")
    target = Target(*target_of(network))
    return target, source_of(target.network, M, skip=skip), images(target.network, COUNT)


@pytest.fixture
def before_pruning(monkeypatch):
    """Masks as they were before channels that nothing reads were dropped: what the records speak of."""
    masks, real = [], fold.prune

    def remember(network, mask):
        masks.append(mask)
        return real(network, mask)

    monkeypatch.setattr(fold, "prune", remember)
    return masks


def check_records(made, seen, solver):
    independent = not isinstance(solver, Compensated)
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
        if isinstance(solver, Smallest | Best):
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
    target, source, x = prepared(name)
    solver, random = SOLVERS[choice], parameters(source)
    hash_before = sha256(source)
    made = construct(target, source, solver, x)
    assert sha256(source) == hash_before
    spec = target.network

    # The balanced target is the target, and the mask is a mask of the source and of nothing else.
    y = forward(spec, target.params, x)[""]
    balanced = forward(spec, made.params, x)[""]
    np.testing.assert_allclose(made.factor * balanced, y, atol=1e-5 * np.abs(y).max())
    shapes = {path: values.shape for path, values in leaves(made.mask)}
    assert shapes == nn.parameter_shapes(source.network)
    assert all(values.dtype == bool for _, values in leaves(made.mask))

    # Each copy of each node, in NumPy; then the outputs, also as JAX computes them.
    seen = Walk(spec, made.params, source, random, before_pruning[0], made.columns, x, measured=made.measured)
    check_records(made, seen, solver)
    kept = masked(made.mask, random)
    size = np.abs(seen.ticket).max()
    np.testing.assert_allclose(forward(source.network, kept, x)[""], seen.ticket, atol=1e-9 * size)
    ticket = apply(source.network, jax.tree.map(np.float32, kept), x)
    np.testing.assert_allclose(ticket, seen.ticket, atol=2e-5 * size)
    expected = np.abs(made.factor * seen.ticket - y).max()
    assert abs(np.abs(made.factor * np.asarray(ticket) - y).max() - expected) <= 2e-5 * made.factor * size


def _same(a, b):
    one, other = dict(leaves(a)), dict(leaves(b))
    return one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)


@pytest.mark.parametrize("choice", ["best", "compensated"])
def test_two_runs_are_identical_and_two_seeds_are_not(choice):
    target, source, x = prepared("strided")
    one, two = (construct(target, source, SOLVERS[choice], x) for _ in range(2))
    assert _same(one.mask, two.mask)
    assert one.factor == two.factor
    without_time = [[r._replace(seconds=0.0) for r in made.records] for made in (one, two)]
    assert without_time[0] == without_time[1]
    other = construct(target, replace(source, seed=1), SOLVERS[choice], x)
    assert not _same(one.mask, other.mask)


def relative_error(target, source, solver, x, calibration=None):
    made = construct(target, source, solver, x if calibration is None else calibration)
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    y = forward(target.network, target.params, x)[""]
    return np.linalg.norm(ticket - y) / np.linalg.norm(y - y.mean(0))


@pytest.mark.parametrize("name", ["strided", "one axis", "vectors"])
def test_many_copies_leave_a_small_error(name):
    target = Target(*target_of(PLAIN[name]))
    x = images(target.network, 20)
    few, many = (
        relative_error(target, source_of(target.network, m, constants=15), Robust(), x) for m in (M, 15)
    )
    assert many < 0.03
    assert many < few / 10


@pytest.mark.parametrize("name", ["option A, random", "weights on the skip"])
def test_compensated_tickets_of_residual_networks_are_near(name):
    network, skip = RESIDUAL[name]
    target = Target(*target_of(network))
    source = source_of(target.network, 8, skip=skip, constants=16, copies_per_sign=16)
    x, calibration = images(target.network, 30), images(target.network, 120, seed=1)
    compensated, alone = (
        relative_error(target, source, solver, x, calibration) for solver in (Compensated(), Best())
    )
    assert compensated < 0.55
    assert compensated < alone / 4


def test_copies_of_the_input_in_two_groups_of_variables():
    target = Target(*target_of(PLAIN["one layer"]))
    x = images(target.network, 30)
    one, two = (
        relative_error(target, source_of(target.network, 8, copies_per_sign=n), Best(), x) for n in (8, 16)
    )
    assert two < one / 10


def test_an_input_that_is_not_negative_needs_one_sign():
    target = Target(*target_of(PLAIN["pooled"]))
    x = np.abs(images(target.network, 20))
    source = source_of(target.network, 15)
    made = construct(target, source, Robust(), x, nonnegative=True)
    random = parameters(source)
    kernel = masked(made.mask, random)["univariate"]["kernel"]
    assert (kernel >= 0).all()
    ticket = made.factor * forward(source.network, masked(made.mask, random), x)[""]
    y = forward(target.network, target.params, x)[""]
    assert np.linalg.norm(ticket - y) < 0.05 * np.linalg.norm(y - y.mean(0))


def test_a_target_of_zeros_keeps_nothing():
    network, params = target_of(PLAIN["strided"])
    zero = jax.tree.map(np.zeros_like, params)
    made = construct(Target(network, zero), source_of(network, M), Best())
    assert not any(values.any() for _, values in leaves(made.mask))


def test_a_source_without_constants_has_no_biases():
    target = Target(*target_of(PLAIN["one axis"]))
    source = source_of(target.network, M, constants=0)
    assert "univariate/bias" not in nn.parameter_shapes(source.network)
    made = construct(target, source, Best())
    asked = {record.path: record.stats for record in made.records}
    biases = np.count_nonzero(made.params["a"]["bias"])
    assert asked["a"].problems == M * (2 * made.params["a"]["kernel"].size + biases)
    assert asked["a"].unsolved >= M * (np.abs(made.params["a"]["bias"]) > 0.05).sum()


def test_a_fixed_price_needs_none():
    target, source, x = prepared("strided")
    solver = SOLVERS["robust, fixed"]
    with_images, without = (construct(target, source, solver, c) for c in (x, None))
    assert _same(with_images.mask, without.mask)


def test_nodes_come_one_after_the_other_as_they_are_solved():
    """What a progress line reads: a node is solved when it is asked for, and not before."""
    target, source, _ = prepared("vectors")
    solver = Counting(Best())
    nodes = nodes_of(plan_of(target, source, solver))
    seen = [(node.record.path, solver.count) for node in nodes]
    assert seen == [("a", 1), ("b", 2), ("c", 3)]


def test_the_records_of_a_construction_add_up():
    target, source, x = prepared("vectors")
    made = construct(target, source, Best(), x)
    assert made.unsolved == sum(record.stats.unsolved for record in made.records) > 0
    assert made.stats.problems == sum(record.stats.problems for record in made.records)
    assert made.stats.max_error == max(record.stats.max_error for record in made.records)
    sizes = np.zeros(40, int)
    for record in made.records:
        sizes[: len(record.stats.sizes)] += record.stats.sizes
    assert np.array_equal(np.trim_zeros(sizes, "b"), np.trim_zeros(made.stats.sizes, "b"))


def test_a_construction_has_its_ticket_and_its_error():
    target, source, x = prepared("pooled")
    made = construct(target, source, Best())
    assert made.ticket.source == source
    assert (made.ticket.factor, made.ticket.target) == (made.factor, target.network)
    assert _same(made.ticket.mask, made.mask)
    y = forward(target.network, target.params, x)[""]
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    found = made.error(x)
    np.testing.assert_allclose(found.max, np.abs(ticket - y).max(), rtol=1e-3)
    np.testing.assert_allclose(found.relative, np.linalg.norm(ticket - y) / np.linalg.norm(y), rtol=1e-3)
    assert found.examples == COUNT


def test_an_output_scale_of_another_size_is_the_same_function():
    target, source, x = prepared("vectors")
    one, other = (construct(target, source, Best(), fit=fit) for fit in (1.25, 2.5))
    assert one.factor == pytest.approx(2**3 * other.factor, rel=0.01), "each of three layers takes its share"
    y = forward(target.network, target.params, x)[""]
    for made in (one, other):
        balanced = forward(target.network, made.params, x)[""]
        np.testing.assert_allclose(made.factor * balanced, y, atol=1e-5 * np.abs(y).max())


def test_biases_behind_constants_that_no_tap_reads_everywhere_are_unsolved():
    for name, path in (("padded mean", "b"), ("no safe tap", "a")):
        target, source, _ = prepared(name)
        made = construct(target, source, Best())
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
