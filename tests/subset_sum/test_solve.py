"""All objectives against brute force in float64, and `solve` as a function of its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.subset_sum import Objective, solve, solve_one, stages, unpack
from slth.subset_sum.stages import compiled, plan
from tests.subset_sum.problems import forms, lattices, on_grid, prices, problems
from tests.subset_sum.reference import brute_force, costs, subsets

MANY = {1: 400, 5: 2400, 8: 12000, 12: 1600}


def attained(x, t, objective, mask, **terms):
    return costs(x, t, objective, **terms)[0][mask.astype(np.int64), np.arange(mask.size)]


@pytest.mark.parametrize("m", MANY)
@pytest.mark.parametrize("objective", ["best", "smallest"])
def test_masks_equal_brute_force(objective, m):
    x, t = problems(m, MANY[m], seed=m)
    out = solve(x, t, objective)
    np.testing.assert_array_equal(out.mask, brute_force(x, t, objective))


@pytest.mark.parametrize("objective", ["best", "smallest"])
def test_tolerance_zero(objective):
    x, t = problems(8, 2000, seed=7)
    out = solve(x, t, objective, tolerance=0)
    np.testing.assert_array_equal(out.mask, brute_force(x, t, objective, tolerance=0))
    assert 200 < out.solved.sum() < 1800  # targets on the lattice and reached exactly, not the others


def test_large_tolerance_takes_nothing_or_the_nearest_single():
    x, t = problems(8, 2000, seed=3)
    out = solve(x, t, "smallest", tolerance=0.5)
    np.testing.assert_array_equal(out.mask, brute_force(x, t, "smallest", tolerance=0.5))


@pytest.mark.parametrize("m", [1, 5, 8, 12])
def test_robust_equals_brute_force(m):
    n = MANY[m]
    x, t = problems(m, n, seed=m)
    terms = prices(x, t, seed=m)
    out = solve(x, t, "robust", **terms)
    least = costs(x, t, "robust", **terms)[0].min(0)
    cost = attained(x, t, "robust", out.mask, **terms)
    np.testing.assert_array_less(cost, least * (1 + 1e-6) + 1e-13)
    assert not (unpack(out.mask, m) & (x == 0)).any()


def test_robust_without_prices_is_best():
    x, t = problems(8, 2000, seed=9)
    inside = np.abs(t) <= 8  # beyond, the two use different grids
    robust, best = solve(x, t, "robust"), solve(x, t, "best")
    np.testing.assert_array_equal(robust.mask[inside], best.mask[inside])


def test_robust_breaks_ties_by_size_then_mask():
    """Lattice values and prices: many subsets cost exactly the same."""
    rng = np.random.default_rng(0)
    x, t = on_grid(rng.uniform(-1, 1, (8, 2000)), 1 / 8), on_grid(rng.uniform(-1, 1, 2000), 1 / 8)
    price = on_grid(rng.uniform(0, 0.1, (8, 2000)), 1 / 64)
    out = solve(x, t, "robust", price=price)
    np.testing.assert_array_equal(out.mask, brute_force(x, t, "robust", price=price))


@pytest.mark.parametrize("m", [1, 5, 8, 12])
def test_quadratic_equals_brute_force(m):
    terms = forms(m, MANY[m], seed=m)
    out = solve(None, None, "quadratic", **terms)
    mass = np.abs(terms["gram"]).sum((0, 1)) + 2 * np.abs(terms["linear"]).sum(0)
    least = costs(None, None, "quadratic", **terms)[0].min(0)
    cost = attained(None, None, "quadratic", out.mask, **terms)
    assert (cost <= least + m * m * 2.0**-29 * mass).all()
    np.testing.assert_allclose(out.value, cost, atol=1e-3, rtol=1e-4)
    whole = slice(None, None, 4)  # integers: exact, so the rule for ties decides
    exact = {k: v[..., whole] for k, v in terms.items()}
    np.testing.assert_array_equal(out.mask[whole], brute_force(None, None, "quadratic", **exact))


def test_quadratic_contains_best():
    x, t = problems(8, 800, seed=1)
    near = np.abs(t) < 2
    gram, linear = x[:, None] * x[None], t * x
    out = solve(x, t, "quadratic", gram=gram, linear=linear)
    best = solve(x, t, "best")
    assert (np.abs(out.error[near]) <= np.abs(best.error[near]) + 1e-3).all()
    np.testing.assert_allclose(out.value, (x * unpack(out.mask, 8)).sum(0), atol=1e-6)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("size", [2])
def test_fixed_size(objective, size):
    x, t = problems(7, 700, seed=size)
    terms = {"robust": {"price": on_grid(np.abs(x) / 64)}, "quadratic": forms(7, 700)}.get(objective, {})
    terms = {k: np.rint(v) if k in ("gram", "linear") else v for k, v in terms.items()}
    data = (None, None) if objective == "quadratic" else (x, t)
    out = solve(*data, objective, size=size, **terms)
    assert (out.size == size).all()
    wanted = brute_force(*data, objective, size=size, **terms)
    if objective == "robust":
        cost = attained(*data, objective, out.mask, **terms)
        assert (cost <= attained(*data, objective, wanted, **terms) * (1 + 1e-6) + 1e-13).all()
    else:
        np.testing.assert_array_equal(out.mask, wanted)


def test_fixed_size_takes_the_cheaper_of_dear_variables():
    """Prices of up to half the largest allowed, and some that are larger than any exact cost."""
    rng = np.random.default_rng(0)
    x, t = on_grid(rng.uniform(-1, 1, (7, 700)), 1 / 8), on_grid(rng.uniform(-1, 1, 700), 1 / 8)
    price = rng.choice(np.float32([256, 512, 1000, 2.0**40]), (7, 700))
    price[:2] = 1000
    out = solve(x, t, "robust", size=2, price=price)
    np.testing.assert_array_equal(out.mask, brute_force(x, t, "robust", size=2, price=price))


def test_the_solution_describes_its_mask():
    m = 12
    x, t = problems(m, 2000, seed=4)
    out = solve(x, t)
    kept = unpack(out.mask, m)
    total = (x.astype(np.float64) * kept).sum(0)
    np.testing.assert_allclose(out.value, total, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(out.error, t - total, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(out.size, kept.sum(0))
    np.testing.assert_array_equal(out.solved, np.abs(t - total) <= np.float32(0.01))
    assert not (kept & (x == 0)).any()


@pytest.mark.parametrize("m", [1, 8])
@pytest.mark.parametrize("objective", list(Objective))
@settings(max_examples=25)
@given(data=st.data(), tolerance=st.sampled_from([0.0, 0.25, 0.3]))
def test_ties_on_a_lattice(objective, m, data, tolerance):
    problem = data.draw(lattices(objective, m))
    out = solve(**problem, objective=objective, tolerance=tolerance)
    terms = {"tolerance": tolerance} if objective == "smallest" else {}
    np.testing.assert_array_equal(out.mask, brute_force(**problem, objective=objective, **terms))


@pytest.mark.parametrize("m", [1, 7])
@pytest.mark.parametrize("objective", list(Objective))
def test_one_problem_eager_jit_and_vmap_agree_with_the_batch(objective, m):
    x, t = problems(m, 64, seed=5)
    terms = {"robust": prices(x, t), "quadratic": forms(m, 64)}.get(objective, {})
    arguments = {"x": x, "t": t, **terms}
    batch = solve(**arguments, objective=objective)

    def one(arguments):
        return solve_one(**arguments, objective=objective)

    jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(one, in_axes=-1))(arguments), batch)
    jitted = jax.jit(one)
    for i in (0, 11, 63):
        single = {name: jnp.asarray(a[..., i]) for name, a in arguments.items()}
        wanted = jax.tree.map(lambda a, i=i: a[..., i], batch)
        for function in (one, jitted):
            jax.tree.map(np.testing.assert_array_equal, function(single), wanted)


def test_any_split_into_batches_gives_the_same():
    x, t = problems(12, 5000, seed=6)
    whole = solve(x, t, "smallest")
    parts = [solve(x[:, a:b], t[a:b], "smallest") for a, b in ((0, 1), (1, 4098), (4098, 5000))]
    jax.tree.map(np.testing.assert_array_equal, whole, jax.tree.map(lambda *p: np.concatenate(p), *parts))


@pytest.mark.parametrize("objective", ["best", "smallest", "robust"])
def test_compiles_once_for_any_number_of_problems(objective):
    x, t = problems(12, 9001, seed=8)
    devices = tuple(jax.local_devices())
    kernels = [compiled(stage, devices) for stage in plan(Objective(objective), 12, None, 9001)]
    solve(x, t, objective)
    traces = [kernel._cache_size() for kernel in kernels]
    assert min(traces) >= 1  # every kernel was needed
    for n, tolerance in ((1, 0.01), (77, 0.1), (4096, 0.0), (9000, 0.02)):
        solve(x[:, :n], t[:n], objective, tolerance=tolerance)
    assert [kernel._cache_size() for kernel in kernels] == traces


@pytest.mark.parametrize("objective", ["best", "smallest", "robust"])
def test_few_problems_have_the_solutions_that_they_have_among_many(objective, monkeypatch):
    """They are solved by the exact search alone, whose program compiles soonest."""
    x, t = problems(8, 2000, seed=5)
    terms = prices(x, t, seed=5) if objective == "robust" else {}
    many = solve(x, t, objective, **terms)
    monkeypatch.setattr(stages, "FEW", dict.fromkeys(Objective, stages.effort(8, 2**16)))
    kernels = [len(plan(Objective(objective), 8, None, n)) for n in (2**16, 2**16 + 1)]
    assert kernels[0] == 1 < kernels[1]
    jax.tree.map(np.testing.assert_array_equal, solve(x, t, objective, **terms), many)


@pytest.mark.parametrize("objective", list(Objective), ids=str)
@pytest.mark.parametrize("usual", [False, True], ids=["every kernel", "usual"])
def test_no_problem_has_no_solution(objective, usual, monkeypatch):
    if usual:
        monkeypatch.setattr(stages, "FEW", {o: 2**24 for o in Objective if o is not Objective.QUADRATIC})
    empty = np.zeros((8, 0), np.float32)
    terms = {"gram": np.zeros((8, 8, 0), np.float32), "linear": empty}
    x, t = (None, None) if objective is Objective.QUADRATIC else (empty, empty[0])
    out = solve(x, t, objective, **(terms if x is None else {}))
    assert [len(a) for a in out] == [0] * 5


def test_values_off_the_source_grid_are_rounded_to_it():
    x = np.array([[0.5 + 2.0**-26], [2.0**-26]], np.float32)
    out = solve(x, np.array([0.5], np.float32), "best")
    assert out.mask == 1
    assert out.value == 0.5
    assert out.error == 0


def test_large_values_neither_overflow_nor_lose_the_source_grid():
    rng = np.random.default_rng(1)
    x, t = on_grid(rng.uniform(-8, 8, (8, 2000))), on_grid(rng.uniform(-8, 8, 2000))
    x[:, ::2] = on_grid(x[:, ::2], 0.5)
    for objective in ("best", "smallest", "robust"):
        out = solve(x, t, objective)
        if objective != "robust":
            fits = np.abs(x).sum(0) < 62
            np.testing.assert_array_equal(out.mask[fits], brute_force(x, t, objective)[fits])
        cost = attained(x, t, objective, out.mask)
        if objective == "best":
            assert (cost <= costs(x, t, objective)[0].min(0) + 1e-6).all()


def test_no_problems():
    out = solve(np.zeros((5, 0), np.float32), np.zeros(0, np.float32))
    assert out.mask.shape == (0,)


def test_progress_ends_with_all_problems():
    x, t = problems(12, 9000)
    seen = []
    solve(x, t, "smallest", progress=lambda done, n: seen.append((done, n)))
    assert seen == sorted(seen)
    assert seen[-1] == (9000, 9000)


def test_unpack_inverts_packing():
    masks = np.arange(2**6, dtype=np.uint32)
    np.testing.assert_array_equal(unpack(masks, 6), subsets(6).T == 1)
