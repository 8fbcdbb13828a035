"""Rounded rows: subsets that stand for whole numbers, feedback that helps, files that hold the numbers."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import slth
from slth import Rounded, Source, Target, coding, construct, nn, ticket
from slth.coding.bits import Reader
from slth.coding.head import read_head
from slth.construction import rounded
from slth.construction.regression import regression
from slth.construction.rounded import Levels, _keep
from slth.construction.samples import draw_samples, patches
from slth.construction.steps import LARGEST_INTEGER, entropy, sensitivities, steps
from slth.nn.graph import by_layer, linear_maps
from slth.nn.layers import Activation, Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean
from tests.construction.nets import PLAIN, RESIDUAL, images, target_of
from tests.construction.solvers import Counting, Interrupted

WIDE = {"depth": "2L", "univariate": 12, "scale": 2.0}


def net(kind: str = "relu", width: int = 12) -> Network:
    act = Activation(kind, 0.2 if kind == "leaky_relu" else 0.0)
    pad = ((1, 1), (1, 1))
    return Network(
        (6, 6, 2),
        (
            *(Conv("a", width, (3, 3), padding=pad), act),
            *(Conv("b", width, (3, 3), padding=pad), act, GlobalMean(), Dense("c", 5)),
        ),
    )


def prepared(network: Network, count: int = 64) -> tuple[Target, np.ndarray, np.ndarray]:
    target = Target(*target_of(network))
    x = images(target.network, count)
    return target, x[: count // 2], x[count // 2 :]


def made_of(target: Target, x: np.ndarray, bits: float, **options):
    source = Source.of(target, images=x, **WIDE)
    return construct(target, source, Rounded(bits=bits, positions=4096, **options), x)


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_every_mask_is_one_of_whole_numbers(name: str):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, x, _ = prepared(network, 16)
    made = construct(target, Source.of(target, images=x, skip=skip, **WIDE), Rounded(bits=4), x)
    # Groups are solved one by one, and their masks written bit by bit.
    one_group = [
        path for path, map in linear_maps(target.network).items() if getattr(map.layer, "groups", 1) == 1
    ]
    assert [path for path, _ in made.steps] == [
        path
        for path in nn.parameter_shapes(made.source.network)
        if path.endswith("/kernel") and not path.endswith(".univariate/kernel")
        if path.removesuffix("/kernel") in one_group or "/skip/" in path
    ]
    coded = ticket.to_bytes(made.ticket)
    assert ticket.from_bytes(coded) == made.ticket
    seen = ticket._Seen(made.source)
    code = coding.encode(seen.shapes, seen.masks(made.ticket), dict(made.steps), seen.values)
    blocks = read_head(seen.shapes, Reader(code), seen.values)[1]
    assert all(blocks[path].rounding for path, _ in made.steps)
    plain = ticket.make(made.source, made.mask, made.factor, target.network)
    assert (plain.bits, plain.steps) == (made.ticket.bits, ())


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "identity", "sigmoid", "tanh", "gelu", "softplus"])
def test_more_bits_are_nearer_whatever_the_activation(kind: str):
    target, x, held = prepared(net(kind))
    errors = [made_of(target, x, bits).error(held).relative for bits in (1.5, 6)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.12


def test_offsets_stay_within_the_reach_of_few_constants(monkeypatch: pytest.MonkeyPatch):
    target, x, held = prepared(net("sigmoid", width=32))
    source = Source.of(target, images=x, depth="2L", univariate=8, bias_scale=12.0)
    found = {}
    for price in (0.0, rounded.OFFSET_PRICE):
        monkeypatch.setattr(rounded, "OFFSET_PRICE", price)
        made = construct(target, source, Rounded(bits=3, constants=14, positions=4096), x)
        found[price] = made.error(held).relative
        assert ticket.from_bytes(ticket.to_bytes(made.ticket)) == made.ticket
    assert found[rounded.OFFSET_PRICE] < 0.1 < 0.4 < found[0.0]


def test_a_row_reads_so_many_constants_at_a_tap():
    target, x, _ = prepared(net("sigmoid"))
    source = Source.of(target, images=x, depth="2L", univariate=8)
    made = construct(target, source, Rounded(bits=3, constants=5), x)
    front = next(one for one in source.layout.univariate if one.path == "b.univariate")
    kept = made.ticket.arrays["b/kernel"][:, :, front.first_constant :].any((0, 1, 3))
    assert 0 < kept.sum() <= 5


def test_feedback_is_better_than_the_nearest_multiples():
    target, x, held = prepared(net(), 256)
    fed = made_of(target, x, 2.0).error(held).relative
    alone = made_of(target, x, 2.0, ridge=1e6, dense_ridge=1e6, sweeps=0).error(held).relative
    assert fed < 0.8 * alone


def test_as_many_bits_as_were_asked_for():
    target, x, _ = prepared(net(width=32), 64)
    for bits in (1.0, 2.0, 4.0):
        made = made_of(target, x, bits)
        whole = len(ticket.to_bytes(made.ticket)) - len(ticket.to_bytes(made_of(target, x, 0.01).ticket))
        weights = sum(np.asarray(own["kernel"]).size for own in by_layer(target.params).values())
        assert 8 * whole / weights == pytest.approx(bits, rel=0.15, abs=0.3)


def test_a_broken_construction_ends_with_the_same_bits(tmp_path):
    target, x, _ = prepared(net())
    source, solver = Source.of(target, images=x, **WIDE), Rounded(bits=3)
    whole = construct(target, source, solver, x)
    with pytest.raises(Interrupted):
        construct(target, source, Counting(solver, 2), x, folder=tmp_path)
    again = construct(target, source, solver, x, folder=tmp_path)
    assert again.ticket == whole.ticket
    assert again.steps == whole.steps


def test_sources_of_one_more_layer_are_refused():
    target, x, _ = prepared(net())
    with pytest.raises(ValueError, match=r"^solver: Rounded chooses among univariate channels.*depth='2L'"):
        construct(target, Source.of(target, copies=6), Rounded(), x)


@pytest.mark.parametrize(
    ("option", "value"), [("bits", 0), ("bits", 9), ("variables", 11), ("rate", -1), ("ridge", 0)]
)
def test_options_out_of_range_are_refused(option: str, value: float):
    with pytest.raises(ValueError, match=f"^solver.{option}: "):
        Rounded(**{option: value})


def test_whole_numbers_cost_less_than_their_subsets():
    target, x, _ = prepared(net(width=32), 64)
    made = made_of(target, x, 2.0)
    plain = ticket.make(made.source, made.mask, made.factor, target.network)
    assert 1.5 * len(ticket.to_bytes(made.ticket)) < len(ticket.to_bytes(plain))


def test_a_refined_mask_is_rounded_no_more():
    target, x, _ = prepared(net(), 256)
    made = made_of(target, x, 1.0)
    found = slth.refine(made, x, steps=300, rate=0.01, loss="outputs")
    assert found.changed
    assert found.made.steps == ()
    assert ticket.from_bytes(ticket.to_bytes(found.made.ticket)) == found.made.ticket


def test_regression_is_that_of_the_samples():
    """Moments in NumPy, from what the ticket's univariate channels hold and what the target computes."""
    target, x, _ = prepared(net(), 16)
    seen = []

    class Spy(Rounded):
        def solve(self, problem):
            seen.append(problem)
            return super().solve(problem)

    construct(target, Source.of(target, images=x, **WIDE), Spy(bits=2), x)
    problem = seen[1]
    part, rows = problem.parts[0], problem.rows
    samples = draw_samples(part.layer, part.read.shape, len(x), 10**6)
    found = regression(problem.parts, samples, None, rows)
    slots = part.stream.slots
    read = np.asarray(patches(part.layer, part.stream.ticket, samples), np.float64)
    best = np.abs(slots.gain).argmax(1)
    each = np.arange(len(best))
    z = (read[..., slots.members[each, best]] / slots.gain[each, best]).reshape(len(read), -1)
    kernel = part.weight.reshape(3, 3, *part.weight.shape[1:])
    wanted = np.asarray(
        replace(part.layer, use_bias=False).apply({"kernel": kernel}, part.stream.x),
        np.float64,
    ).reshape(len(read), -1)
    both = np.cov(np.concatenate([z, wanted], 1).T, bias=True)
    n = z.shape[1]
    np.testing.assert_allclose(found.gram, both[:n, :n], atol=1e-5 * np.abs(both).max())
    np.testing.assert_allclose(found.cross, both[:n, n:], atol=1e-5 * np.abs(both).max())
    np.testing.assert_allclose(found.mean_output, wanted.mean(0) + rows.bias, atol=1e-4)


def test_sensitivities_are_fisher_information():
    network = Network((4,), (Dense("a", 6), Activation("tanh"), Dense("b", 3)))
    target, x, _ = prepared(network, 40)
    factor = 1.7

    def log_p(params, image):
        return jax.nn.log_softmax(factor * nn.apply(network, params, image[None])[0])

    exact = dict.fromkeys(linear_maps(network), 0.0)
    for image in x:
        p = np.exp(np.asarray(log_p(target.params, image)))
        slopes = by_layer(jax.jacrev(log_p)(target.params, image))
        for path in exact:
            squares = (np.asarray(slopes[path]["kernel"]) ** 2).reshape(3, -1).mean(1)
            exact[path] += float(p @ squares) / len(x)
    tries = [sensitivities(network, target.params, factor, x, seed) for seed in range(1000)]
    for path in exact:
        assert np.mean([one[path] for one in tries]) == pytest.approx(exact[path], rel=0.1)


def test_steps_share_bits_by_sensitivity():
    rng = np.random.default_rng(0)
    kernels = {"a": rng.normal(size=(40, 50)), "b": 3 * rng.normal(size=(60, 50)), "idle": np.zeros((4, 4))}
    price = {"a": 4.0, "b": 0.25, "idle": 1.0}
    found = steps(kernels, price, 3.0)
    assert price["a"] * found["a"] ** 2 == pytest.approx(price["b"] * found["b"] ** 2)
    spent = sum(kernels[path].size * entropy(kernels[path], found[path]) for path in ("a", "b"))
    assert spent / (kernels["a"].size + kernels["b"].size) == pytest.approx(3.0, abs=0.01)
    assert entropy(np.array([0.0, 1, 1, 2]), 1.0) == 1.5


def test_weights_of_less_entropy_than_asked_for_get_the_finest_steps():
    kernels = {"a": np.ones((3, 3)), "b": np.full((3, 3), 2.0)}
    found = steps(kernels, {"a": 0.0, "b": 1.0}, 2.0)
    assert found == pytest.approx({"a": 1 / (LARGEST_INTEGER - 1), "b": 2 / (LARGEST_INTEGER - 1)})


@pytest.mark.parametrize("weights", ["sparse", "signs"])
def test_targets_of_little_entropy_are_computed(weights: str):
    network = Network((16,), (Dense("a", 48), Activation("relu"), Dense("b", 10)))
    params, rng = target_of(network)[1], np.random.default_rng(0)
    for own in params.values():
        kernel = np.asarray(own["kernel"])
        kept = rng.random(kernel.shape) < 0.1
        own["kernel"] = np.where(kept, kernel, 0) if weights == "sparse" else 0.2 * np.sign(kernel)
    target, x = Target(network, params), images(network, 256)
    assert made_of(target, x[:128], 2.0).error(x[128:]).relative < 0.15


def test_a_missing_member_erases_nothing():
    """Its place in the list is that of channel 0, which another slot may keep."""
    subsets = np.array([[[1], [0]]], np.uint16)
    members, there = np.array([[0], [0]]), np.array([[True], [False]])
    level = Levels(np.zeros((2, 1)), members, there, 1, np.zeros((1, 2, 1)), subsets, np.zeros(1))
    mask = np.zeros((1, 3, 1), bool)
    _keep(level, np.zeros((2, 1), int), (1, 2), np.array([0]), mask)
    assert mask[0, :, 0].tolist() == [True, False, False]
