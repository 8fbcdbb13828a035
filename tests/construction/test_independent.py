"""Every subset of a node against brute force in NumPy; counts; copies set aside."""

import numpy as np
import pytest

from slth.construction.independent import deviations
from slth.construction.solvers import Best, Robust, Smallest
from tests.construction.parts import make_part, problem_of
from tests.subset_sum.reference import brute_force, costs, subsets

M, TOLERANCE = 5, 0.02


SOLVERS = {  # the solver, and what it minimises
    "smallest": (Smallest(TOLERANCE), "smallest"),
    "best": (Best(TOLERANCE), "best"),
    "robust": (Robust(TOLERANCE), "robust"),
    "fixed price": (Robust(TOLERANCE, noise="fixed", price=0.01), "robust"),
}


def problems(part, columns):
    """(index of the kernel, variables, target) for each weight that is not 0 and each copy of its output."""
    for tap, i, j in np.argwhere(part.weight):
        for column in columns[j]:
            members = part.stream.slots.members[i]
            yield (tap, i, j, column), part.random.whole()[tap, members, column], part.weight[tap, i, j]


def noise_of(seed, cin=2):
    return np.random.default_rng(seed).uniform(0, 0.2, (cin, M))


@pytest.mark.parametrize("name", SOLVERS)
def test_every_subset_is_the_optimal_one(name):
    part = make_part(1, noise=noise_of(1))
    solver, objective = SOLVERS[name]
    problem = problem_of([part])
    columns = problem.rows.columns
    solved = solver.solve(problem)
    (mask,) = solved.masks
    kept = np.zeros(mask.shape, bool)
    unsolved = deviating = 0
    noise = np.zeros(columns.shape)
    for (tap, i, j, column), x, t in problems(part, columns):
        terms = {}
        if name == "robust":
            price = x.astype(np.float64) ** 2 * part.stream.noise[i]
            terms = {"residual_price": part.rms[i] ** 2, "price": price[:, None]}
        elif name == "fixed price":
            terms = {"price": 0.01 * x[:, None].astype(np.float64) ** 2}
        cost = costs(x[:, None], np.array([t]), objective, tolerance=TOLERANCE, **terms)
        best = brute_force(x[:, None], np.array([t]), objective, tolerance=TOLERANCE, **terms)[0]
        chosen = mask[tap, part.stream.slots.members[i], column]
        number = int((chosen << np.arange(M)).sum())
        for values in cost:  # equal in all that the objective minimises, whatever the rounding
            np.testing.assert_allclose(values[number], values[best], rtol=1e-5, atol=1e-7)
        kept[tap, part.stream.slots.members[i], column] = chosen
        left = float(t) - float((chosen * x.astype(np.float64)).sum())
        reachable = np.abs(t - subsets(M) @ x.astype(np.float64)).min() <= TOLERANCE
        unsolved += abs(left) > TOLERANCE and not reachable
        deviating += abs(left) > TOLERANCE and reachable
        error = (chosen * x.astype(np.float64) ** 2 * part.stream.noise[i]).sum()
        noise[j, list(columns[j]).index(column)] += left**2 * part.rms[i] ** 2 + error
    assert np.array_equal(mask, kept), "nothing but the problems' own variables"
    assert (solved.stats.unsolved, solved.stats.deviating) == (unsolved, deviating)
    assert unsolved > 0
    assert (deviating > 0) == (objective == "robust")
    np.testing.assert_allclose(solved.noise, noise, rtol=1e-5)


@pytest.mark.parametrize("size", [2.0**-30, 2.0**25])
def test_the_size_of_the_activations_does_not_matter(size):
    part = make_part(1, noise=noise_of(1))
    large = make_part(1, noise=noise_of(1) * size**2)
    large = large._replace(rms=part.rms * size)
    one, other = (Robust(TOLERANCE).solve(problem_of([p])) for p in (part, large))
    assert np.array_equal(one.masks[0], other.masks[0])


def test_counts_of_a_mask_are_those_of_the_solver_that_made_it():
    part = make_part(2, noise=noise_of(2))
    problem = problem_of([part])
    solved = Robust(TOLERANCE).solve(problem)
    counted = deviations(part, solved.masks[0], problem.rows.columns, TOLERANCE)
    np.testing.assert_allclose(counted.error, solved.stats.error, rtol=1e-6)
    assert counted._replace(error=0, source_power=0) == solved.stats._replace(error=0, source_power=0)
    np.testing.assert_allclose(counted.source_power, solved.stats.source_power, rtol=1e-5)


def test_a_copy_set_aside_is_read_only_where_nothing_else_will_do():
    usable = np.ones((2, M), bool)
    usable[0, 2] = usable[1, 0] = usable[1, 4] = False
    part = make_part(3, cout=8, usable=usable)
    problem = problem_of([part])
    solved = Best(TOLERANCE).solve(problem)
    read = spared = 0
    for (tap, i, _, column), x, t in problems(part, problem.rows.columns):
        aside = ~usable[i]
        chosen = solved.masks[0][tap, part.stream.slots.members[i], column]
        without = np.abs(t - subsets(M) @ np.where(aside, 0, x).astype(np.float64)).min()
        if without <= TOLERANCE - 1e-6:
            assert not (chosen & aside).any()
            spared += 1
        read += (chosen & aside).any()
    assert read > 0
    assert spared > 0


def test_a_copy_set_aside_is_read_among_more_than_prices_allow_for():
    usable = np.ones((2, 24), bool)
    usable[:, ::2] = False
    part = make_part(4, m=24, usable=usable)
    solved = Best(1e-12).solve(problem_of([part], m=24))
    assert solved.stats.unsolved > 0
    assert solved.stats.max_error < 1e-4
    assert solved.masks[0][:, ::2].any()


def test_biases_stand_beside_the_weights_in_the_counts():
    part = make_part(4, constants=(1.5, -0.7, 0.4))
    bias = np.array([0.5, 0.0, -0.25])
    alone = Best(TOLERANCE).solve(problem_of([part]))
    both = Best(TOLERANCE).solve(problem_of([part], bias=bias))
    assert both.stats.problems == alone.stats.problems + 2 * M
    extra = both.masks[0] & ~alone.masks[0]
    assert (alone.masks[0] <= both.masks[0]).all()
    assert not extra[:, : 2 * M].any()
    assert not extra[[0, 2]].any()


def test_two_maps_into_one_sum_share_their_rows():
    parts = (make_part(5), make_part(6, cin=3, taps=1))
    together = Best(TOLERANCE).solve(problem_of(parts))
    for part, mask in zip(parts, together.masks, strict=True):
        assert np.array_equal(mask, Best(TOLERANCE).solve(problem_of([part])).masks[0])


def test_constant_rows_come_near_their_values_and_carried_ones_stay_pruned():
    constants = tuple(np.linspace(0.5, 2, 8))
    part = make_part(7, constants=constants)
    asked = np.full(8, 1.5)
    asked[3] = np.nan
    solved = Best(TOLERANCE).solve(problem_of([part], constant=asked))
    rows = solved.masks[0][1, 2 * M :, 3 * M :]
    sums = (
        rows * part.random.whole()[1, 2 * M :, 3 * M :].astype(np.float64) * np.array(constants)[:, None]
    ).sum(0)
    np.testing.assert_allclose(solved.constants, sums, atol=1e-12)
    assert not rows[:, 3].any()
    assert np.median(np.abs(sums[asked > 0] - 1.5)) < 0.1
