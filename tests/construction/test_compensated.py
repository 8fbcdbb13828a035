"""Rows chosen against calibration data: exact blocks, falling objective, compiled once a shape."""

import os
import subprocess
import sys
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slth
from slth import nn
from slth.construction import compensated, multiples
from slth.construction import moments as moments_module
from slth.construction.compensated import Compensated, solve_rows
from slth.construction.moments import columns_of, moments
from slth.construction.samples import draw_samples, patches
from slth.construction.solvers import Best
from slth.construction.state import copied_stream
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import Flatten
from tests.construction.nets import images, target_of
from tests.construction.parts import make_part, problem_of

M = 5


def form(rng, n, rows, inputs):
    """A Gram matrix of correlated variables, random rows, and targets that the variables can nearly make."""
    z = rng.normal(size=(4 * n, n)) + rng.normal(size=(4 * n, 1))
    x = z[:, :inputs] + 0.1 * rng.normal(size=(4 * n, inputs))
    gram, shares = z.T @ z / len(z), z.T @ x / len(z)
    weights = rng.uniform(-1, 1, (n, rows))
    share_weights = rng.uniform(-1, 1, (inputs, rows))
    return (a.astype(np.float32) for a in (gram, weights, shares, share_weights))


def objective(gram, kept, linear):
    gram, kept, linear = (np.asarray(a, np.float64) for a in (gram, kept, linear))
    return (kept * (gram @ kept - 2 * linear)).sum(0)


def blocks_of(n, block):
    group = block * moments_module.GROUP
    return -(-n // group) * group


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    n, rows, inputs, block = 32, 6, 4, 4
    gram, weights, shares, share_weights = form(rng, n, rows, inputs)
    share = np.full((n // block, 1), -1)
    share[:inputs, 0] = np.arange(inputs)
    rest = 0.1 * rng.normal(size=(n, rows)).astype(np.float32)

    def solve(sweeps):
        mask = solve_rows(gram, weights, shares, share_weights, rest, share, pieces=(block,), sweeps=sweeps)
        return np.where(mask, weights, 0)

    return gram, weights, shares @ share_weights + rest, block, solve


def test_some_weights_are_kept(problem):
    *_, solve = problem
    assert 0 < (solve(2) != 0).mean() < 1


def test_rows_solved_few_at_a_time_are_the_same(problem, monkeypatch):
    *_, solve = problem
    whole = solve(4)
    monkeypatch.setattr(compensated, "ROWS", 4)  # 6 rows: two panels of three
    np.testing.assert_array_equal(solve(4), whole)
    monkeypatch.setattr(compensated, "ROWS", 5)
    np.testing.assert_array_equal(solve(4), whole)


def test_wider_groups_of_blocks_choose_as_well(problem):
    """One group over all blocks, against two: products are summed in another order."""
    rng = np.random.default_rng(3)
    gram, weights, shares, share_weights = form(rng, 64, 6, 4)
    share = np.full((16, 1), -1)
    share[:4, 0] = np.arange(4)
    found = []
    for group in (8, 16):
        mask = solve_rows(
            gram, weights, shares, share_weights, None, share, pieces=(4,), sweeps=3, group=group
        )
        found.append(objective(gram, np.where(mask, weights, 0), shares @ share_weights))
    np.testing.assert_allclose(*found, rtol=1e-4)


@pytest.mark.parametrize("q", [1, 2, 7])
def test_the_least_subset_is_that_of_all(q):
    rng = np.random.default_rng(q)
    gram, weights, _, _ = form(rng, q, 9, 1)
    linear = rng.normal(size=(q, 9)).astype(np.float32)
    gram, weights, linear, always = (jnp.asarray(a) for a in (gram, weights, linear, True))
    found = compensated.least_subset(gram, weights, linear, always)
    masks = (np.arange(2**q)[:, None] >> np.arange(q)) & 1
    values = [objective(gram, mask[:, None] * weights, linear) for mask in masks]
    np.testing.assert_array_equal(np.asarray(found), masks[np.argmin(values, 0)].T * weights)


def test_no_sweep_makes_the_objective_larger(problem):
    gram, weights, linear, _, solve = problem
    values = [objective(gram, np.zeros_like(weights), linear)] + [
        objective(gram, solve(s), linear) for s in range(1, 7)
    ]
    for before, after in pairwise(values[1:]):
        assert (after <= before + 1e-4 * np.abs(before)).all()
    assert (values[-1] < values[0]).all()
    assert values[2].sum() < values[1].sum(), "the second sweep repairs the first"


def test_each_block_is_optimal_given_the_others(problem):
    gram, weights, linear, block, solve = problem
    kept = solve(12)
    assert np.array_equal(kept, solve(13)), "nothing moves any more"
    best = objective(gram, kept, linear)
    masks = (np.arange(2**block)[:, None] >> np.arange(block)) & 1
    for start in range(0, len(weights), block):
        for mask in masks:
            other = kept.copy()
            other[start : start + block] = mask[:, None] * weights[start : start + block]
            assert (objective(gram, other, linear) >= best - 1e-4).all()


def test_one_block_over_all_variables_is_the_exhaustive_optimum():
    rng = np.random.default_rng(1)
    block, rows = 8, 5
    n = blocks_of(block, block)  # the rest of the group is empty
    gram, weights, shares, share_weights = form(rng, block, rows, 3)

    def padded(a):
        return np.pad(a, ((0, n - block), (0, 0)))

    full = np.eye(n, dtype=np.float32)
    full[:block, :block] = gram
    share = np.full((n // block, 3), -1)
    share[0] = range(3)
    arguments = full, padded(weights), padded(shares), share_weights, None, share
    kept = np.where(solve_rows(*arguments, pieces=(block,), sweeps=1), padded(weights), 0)
    assert not kept[block:].any()
    masks = (np.arange(2**block)[:, None] >> np.arange(block)) & 1
    values = [objective(gram, mask[:, None] * weights, shares @ share_weights) for mask in masks]
    found = objective(gram, kept[:block], shares @ share_weights)
    np.testing.assert_allclose(found, np.min(values, 0), rtol=1e-4, atol=1e-5)


def places_of(columns, parts):
    """(part, tap, channel) of each variable; part -1 for a place that is empty."""
    of = [
        (number, tap, channel)
        for number, part in enumerate(parts)
        for tap, channel in np.ndindex(part.random.shape[:2])
    ]
    return np.array([*of, (-1, 0, 0)])[columns.place]


def test_columns_are_whole_taps_and_every_variable_once():
    parts = (make_part(0, m=3, constants=(1.0, 2.0)), make_part(1, m=3, cin=3, taps=1))
    columns = columns_of(parts, most=8)
    at = places_of(columns, parts)
    places = [tuple(place) for place in at.tolist() if place[0] >= 0]
    expected = [(0, tap, c) for tap in range(3) for c in range(6)] + [(1, 0, c) for c in range(9)]
    expected += [(0, 1, 6), (0, 1, 7)]  # constants, through the safe tap
    assert len(places) == len(set(places))
    assert set(places) == set(expected)
    assert columns.block == 6
    assert len(at) % (columns.block * moments_module.GROUP) == 0
    assert len(columns.share) == len(at) // columns.block
    brought = columns.share[columns.share >= 0]
    assert sorted(brought) == list(range(3 * 2 + 3 + 1)), "each input of the target once, and the bias"
    for block, shares in enumerate(columns.share):
        part, source_tap, channel = at[block * columns.block : (block + 1) * columns.block].T
        for number in shares[shares >= 0]:
            if number < 6:  # (slot, tap) of the first part
                slot, tap = divmod(int(number), 3)
                here = (part == 0) & (source_tap == tap)
                assert set(channel[here]) >= set(range(3 * slot, 3 * slot + 3))


def test_a_tap_of_many_copies_is_one_block_of_equal_pieces():
    part = make_part(2, m=20, cin=1, taps=1)
    columns = columns_of((part,), most=8)
    assert columns.pieces == (7, 7, 6)
    assert columns.block == 20
    assert places_of(columns, (part,))[:20].tolist() == [[0, 0, channel] for channel in range(20)]
    assert (columns.share >= 0).sum(1).tolist() == [1, *[0] * 7], "one input, and no constant"


def test_several_splits_of_a_block_reach_what_one_does_not():
    """Blocks of 10 variables in two pieces: near the exhaustive search over 2^10 subsets, from below."""
    rng = np.random.default_rng(4)
    n, rows = 160, 40
    base = rng.normal(size=(4 * n, n // 10))
    z = np.repeat(base, 10, 1) + 0.1 * rng.normal(size=(4 * n, n))  # copies: ten variables of one value
    gram, shares = ((z.T @ a / len(z)).astype(np.float32) for a in (z, base))
    weights = rng.uniform(-1, 1, (n, rows)).astype(np.float32)
    share_weights = rng.uniform(-1, 1, (n // 10, rows)).astype(np.float32)
    share = np.arange(n // 10)[:, None]

    def solved(pieces, sweeps):
        arguments = gram, weights, shares, share_weights, None, share
        mask = solve_rows(*arguments, pieces=pieces, sweeps=sweeps)
        return objective(gram, np.where(mask, weights, 0), shares @ share_weights).sum()

    exact, once, often = solved((10,), 8), solved((5, 5), 1), [solved((5, 5), n) for n in (4, 8, 16)]
    assert exact < often[2] <= often[1] + 1e-4 <= often[0] + 2e-4 < once
    assert (often[2] - exact) < 0.1 * (once - exact)


@pytest.mark.parametrize("pieces", [(1, 1), (3, 2, 2), (4, 3)])
def test_each_round_leaves_no_row_worse(pieces: tuple[int, ...]):
    rng = np.random.default_rng(5)
    q, rows = sum(pieces), 30
    gram, v, _, _ = form(rng, q, rows, 1)
    linear = rng.normal(size=(q, rows)).astype(np.float32)
    before = np.where(rng.random((q, rows)) < 0.5, v, 0)
    orders = compensated._splits(q)
    values = [objective(gram, before, linear)]
    for rounds in (1, 2, 8):
        g, u, c, b, order = (jnp.asarray(a) for a in (gram, v, linear, before, orders))
        found = np.asarray(
            compensated._in_rounds(g, u, c, b, order, jnp.asarray(rounds), jnp.asarray(True), pieces)
        )
        assert set(np.unique(found[v != 0] / v[v != 0])) <= {0, 1}
        values.append(objective(gram, found, linear))
    for one, next_ in pairwise(values):
        assert (next_ <= one + 1e-5).all()
    assert values[-1].sum() < values[1].sum() < values[0].sum()


def test_orders_of_a_block_are_permutations_and_begin_with_its_own():
    orders = compensated._splits(15)
    assert orders.shape == (compensated.SPLITS, 15)
    assert orders[0].tolist() == list(range(15))
    assert (np.sort(orders, 1) == np.arange(15)).all()
    assert len({tuple(order) for order in orders.tolist()}) == len(orders)


LAYERS = {
    "strided": (Conv("a", 3, (3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2)), (5, 6, 2), None),
    "one axis": (Conv("a", 3, (3,), (2,), ((2, 1),)), (7, 2), None),
    "dense": (Dense("a", 3), (4,), None),
    "flattened": (Dense("a", 3), (2, 2, 2), Flatten("hwc")),
}


@pytest.mark.parametrize("layer, shape, flat", LAYERS.values(), ids=LAYERS.keys())
def test_patches_are_what_the_layer_reads(layer, shape, flat):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, *shape)).astype(np.float32))
    inside = (int(np.prod(shape)),) if flat else shape
    taps = (*layer.kernel, shape[-1], 3) if isinstance(layer, Conv) else (*inside, 3)
    kernel = rng.normal(size=taps).astype(np.float32)
    y = layer.apply({"kernel": kernel, "bias": np.zeros(3, np.float32)}, x.reshape(3, -1) if flat else x)
    samples = draw_samples(layer, inside, 3, 10**6)
    assert len(samples.image) == y.size // 3
    seen = patches(layer, x, samples, flat)
    direct = np.asarray(seen).reshape(len(seen), -1) @ kernel.reshape(-1, 3)
    np.testing.assert_allclose(direct, np.asarray(y).reshape(-1, 3), atol=1e-5)


def test_samples_are_drawn_without_replacement():
    layer = Conv("a", 2, (3,))
    samples = draw_samples(layer, (8, 1), 10, 40)
    places = set(zip(samples.image.tolist(), samples.place[:, 0].tolist(), strict=True))
    assert len(places) == 40
    assert {image for image, _ in places} <= set(range(10))
    assert {place for _, place in places} <= set(range(6))


@pytest.mark.parametrize(
    "size, images, most, window",
    [
        ((16, 16), 256, 16384, (8, 8)),
        ((20, 6), 10, 500, (8, 6)),
        ((9,), 40, 120, (3,)),
        ((5, 5), 4, 7, (1, 1)),
    ],
)
def test_windows_show_every_image_and_every_position_as_often(size, images, most, window):
    layer = Conv("a", 2, (3,) * len(size), padding=((1, 1),) * len(size))
    samples = draw_samples(layer, (*size, 3), images, most, windows=True)
    assert samples.window == window
    each = np.prod(window)
    assert np.bincount(samples.image).tolist() == [each] * images
    place = samples.place.reshape(images, -1, len(size))
    inside = np.stack(np.unravel_index(np.arange(each), window), 1)
    assert (place - place[:, :1] == inside).all(), "side by side"
    assert (place >= 0).all()
    assert (place < size).all()
    counts = np.zeros(size, int)
    np.add.at(counts, tuple(samples.place.T), 1)
    if not np.any(np.mod(size, window)):
        assert counts.max() - counts.min() <= 1


def test_windows_are_of_few_images_of_some_size_and_strides_of_1_alone():
    plain, strided = Conv("a", 2, (3,)), Conv("a", 2, (3,), (2,))
    assert draw_samples(plain, (34, 1), 5, 5, windows=True).window == (1,)
    assert draw_samples(plain, (35, 1), 5, 5, windows=True).window is None, "less than a part of 32"
    assert draw_samples(plain, (8, 1), 10, 60, windows=True).window == (6,), "all of them"
    assert draw_samples(plain, (8, 1), 10, 9, windows=True).window is None
    assert draw_samples(strided, (9, 1), 10, 20, windows=True).window is None
    assert draw_samples(Dense("a", 2), (4,), 10, 20, windows=True).window is None
    assert len(draw_samples(Dense("a", 2), (4,), 30, 20, windows=True).image) == 20


def calibrated(seed, n=40, **options):
    """A part whose copies carry noise on calibration data, and the data."""
    rng = np.random.default_rng(seed + 50)
    x = np.maximum(rng.normal(size=(n, 9, 2)), 0).astype(np.float32)
    copies = np.repeat(x, M, -1) + 0.15 * rng.normal(size=(n, 9, 2 * M))
    constants = (1.5, -0.8, 0.6)
    ticket = np.concatenate([copies, np.broadcast_to(constants, (n, 9, 3))], -1).astype(np.float32)
    return make_part(seed, constants=constants, x=jnp.asarray(x), ticket=jnp.asarray(ticket), **options)


def carried(x, ticket):
    """A carried skip: what it should add and what it adds."""
    columns = np.arange(x.shape[-1] * M).reshape(-1, M)
    none = np.zeros(columns.shape)
    return copied_stream(columns, np.zeros(3), none, none == 0, jnp.asarray(x), jnp.asarray(ticket))


def test_moments_are_means_of_products(monkeypatch):
    monkeypatch.setattr(moments_module, "PIECE", 128)
    part = calibrated(0)
    columns = columns_of((part,), 8)
    samples = draw_samples(part.layer, part.read.shape, 40, 300)
    rng = np.random.default_rng(0)
    wanted, realised = (rng.normal(size=(40, 9, c)).astype(np.float32) for c in (3, 15))
    found = moments((part,), columns, samples, carried(wanted, realised), np.arange(15))
    skip = np.repeat(wanted, M, -1) - realised
    x, ticket = (
        np.pad(np.asarray(a, np.float64), ((0, 0), (1, 1), (0, 0)))
        for a in (part.stream.x, part.stream.ticket)
    )
    place = samples.place[:, 0]
    z = np.stack(
        [
            ticket[samples.image, place + tap, channel] if number >= 0 else 0 * place
            for number, tap, channel in places_of(columns, (part,))
        ],
        1,
    )
    inputs = [x[samples.image, place + tap, i] for i in range(2) for tap in range(3)] + [np.ones(300)]
    np.testing.assert_allclose(found.gram, z.T @ z / 300, atol=1e-5)
    np.testing.assert_allclose(found.inputs, z.T @ np.stack(inputs, 1) / 300, atol=1e-5)
    np.testing.assert_allclose(found.skip, z.T @ skip[samples.image, place] / 300, atol=1e-5)


@pytest.mark.parametrize("kind", ["relu", "leaky_relu"])
def test_moments_of_multiples_are_those_of_all_variables(kind: str, monkeypatch):
    """In 2L the channels of one input and sign are multiples of one of them: few have to be multiplied."""
    act, pad = nn.Activation(kind, 0.2), ((1, 1), (1, 1))
    branch = (nn.Conv("b", 4, (3, 3), padding=pad), act, nn.Conv("c", 4, (3, 3), padding=pad))
    layers = (nn.Conv("a", 4, (3, 3), padding=pad), act, nn.Residual("r", branch), act, nn.Flatten())
    target = slth.Target(*target_of(nn.Network((4, 4, 2), (*layers, nn.Dense("d", 3)))))
    x = images(target.network, 64)
    source, sizes = slth.Source.of(target, depth="2L", univariate=4, images=x), []

    def both(parts, columns, *arguments):
        monkeypatch.setattr(multiples, "MANY", 10**9)
        assert multiples.multiples_of(parts, columns.place) is None
        whole = moments(parts, columns, *arguments)
        monkeypatch.setattr(multiples, "MANY", 1)
        few = multiples.multiples_of(parts, columns.place)
        assert few is not None
        for a, b in zip(moments(parts, columns, *arguments), whole, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * float(np.abs(b).max(initial=0)))
        sizes.append((len(few.place), len(columns.place)))
        return whole

    monkeypatch.setattr(compensated, "moments", both)
    slth.construct(target, source, slth.Compensated(sweeps=1), x)
    assert len(sizes) == 4
    assert all(4 * few < every for few, every in sizes)


def test_copies_are_no_multiples_of_each_other(monkeypatch):
    monkeypatch.setattr(multiples, "MANY", 1)
    part = calibrated(0)
    assert part.stream.slots.carried
    assert multiples.multiples_of((part,), columns_of((part,), 8).place) is None


def errors(part, mask, columns, bias):
    """Mean squared error of each row on the calibration images."""
    x, ticket = (
        np.pad(np.asarray(a, np.float64), ((0, 0), (1, 1), (0, 0)))
        for a in (part.stream.x, part.stream.ticket)
    )
    v = np.where(mask, part.random.whole(), 0)[:, :, columns.reshape(-1)]
    y = sum(x[:, tap : tap + 9] @ part.weight[tap] for tap in range(3)) + bias
    z = sum(ticket[:, tap : tap + 9] @ v[tap] for tap in range(3))
    return ((z - np.repeat(y, M, -1)) ** 2).mean((0, 1))


def test_compensation_beats_independent_choices_on_the_calibration_images():
    part = calibrated(1)
    bias = np.array([0.3, -0.4, 0.0])
    problem = problem_of([part], bias=bias)
    solvers = (Best(), Compensated(sweeps=1), Compensated(sweeps=8))
    masks = (solver.solve(problem).masks[0] for solver in solvers)
    alone, after, more = (errors(part, mask, problem.rows.columns, bias) for mask in masks)
    assert (more < alone).all()
    assert more.mean() < 0.75 * alone.mean()
    assert more.mean() < after.mean(), "the later sweeps repair what the first left"


def test_a_skip_error_is_compensated_too():
    part = calibrated(2)
    # what the skip lacks is the same everywhere: a bias
    skip = carried(np.full((40, 9, 3), 0.7, np.float32), np.zeros((40, 9, 15), np.float32))
    columns = np.arange(15).reshape(3, M)
    solved, blind = (Compensated().solve(problem_of([part], carried=one)) for one in (skip, None))
    after, before = (errors(part, s.masks[0], columns, 0.7 * np.ones(3)) for s in (solved, blind))
    assert after.mean() < before.mean() / 3


def test_layers_of_one_shape_are_compiled_once():
    Compensated(sweeps=3).solve(problem_of([calibrated(0)]))
    compiled = []

    def listen(event, duration_secs, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        Compensated(sweeps=3).solve(problem_of([calibrated(1)]))
        assert not compiled
        Compensated(sweeps=3, block=4).solve(problem_of([calibrated(1)]))
        assert compiled, "another shape shows that compilations are seen"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


FOUR_DEVICES = """
import sys
import jax, numpy as np
assert len(jax.devices()) == 4
from tests.construction.test_compensated import on_devices
np.savez(sys.argv[1], **on_devices())
"""


def on_devices():
    """Moments and masks of a node whose rows make four panels, the last one not full."""
    compensated.ROWS = 4
    part = calibrated(4)
    columns = columns_of((part,), 8)
    samples = draw_samples(part.layer, part.read.shape, 40, 300)
    rng = np.random.default_rng(0)
    wanted, realised = (rng.normal(size=(40, 9, c)).astype(np.float32) for c in (3, 15))
    skip = carried(wanted, realised)
    found = moments((part,), columns, samples, skip, np.arange(15))
    masks = Compensated(sweeps=3).solve(problem_of([part], carried=skip)).masks
    return {name: np.asarray(value) for name, value in found._asdict().items()} | {"mask": masks[0]}


def test_four_devices_give_the_same_bits(tmp_path, monkeypatch, root):
    monkeypatch.setattr(compensated, "ROWS", compensated.ROWS)  # restored afterwards
    file = tmp_path / "four.npz"
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", FOUR_DEVICES, str(file)], check=True, env=environment, cwd=root)
    four = np.load(file)
    for name, value in on_devices().items():
        np.testing.assert_array_equal(four[name], value)
