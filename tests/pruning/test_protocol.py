"""Masks from scores: exact numbers, ties by place, nothing emptied in silence."""

from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slth import nn, pruning
from slth.nn.layers import BatchNorm, Conv, Dense
from slth.nn.network import Network
from tests.pruning.nets import CASES, PLAIN, RELU, batch_of, params_of

PAIR = Network((2,), (Dense("a", 3), Dense("b", 2)))  # 6 weights each
SCORES = {"a": np.array([[5.0, 1, 5], [2, 5, 0]]), "b": np.array([[5.0, 3], [4, 5], [6, 7]])}


def kept(mask):
    return mask["a"]["kernel"].astype(int).tolist(), mask["b"]["kernel"].astype(int).tolist()


TABLE = {  # behaviour: (density, options, kept of a, kept of b)
    "everything": (1.0, {}, [[1, 1, 1], [1, 1, 1]], [[1, 1], [1, 1], [1, 1]]),
    "ties go to the first": (5 / 12, {}, [[1, 0, 1], [0, 1, 0]], [[0, 0], [0, 0], [1, 1]]),
    "one tie more": (6 / 12, {}, [[1, 0, 1], [0, 1, 0]], [[1, 0], [0, 0], [1, 1]]),
    "the nearest number": (0.45, {}, [[1, 0, 1], [0, 1, 0]], [[0, 0], [0, 0], [1, 1]]),
    "a floor": (4 / 12, {"floor": 2}, [[1, 0, 1], [0, 0, 0]], [[0, 0], [0, 0], [1, 1]]),
    "by layer": (
        5 / 12,
        {"densities": {"a": 1 / 6, "b": 4 / 6}},
        [[1, 0, 0], [0, 0, 0]],
        [[1, 0], [0, 1], [1, 1]],
    ),
    "the larger remainder is rounded up": (
        5 / 12,
        {"densities": {"a": 2.4 / 6, "b": 2.6 / 6}},
        [[1, 0, 1], [0, 0, 0]],
        [[1, 0], [0, 0], [1, 1]],
    ),
    "a floor in the densities": (
        4 / 12,
        {"densities": {"a": 0.0, "b": 4 / 6}, "floor": 1},
        [[1, 0, 0], [0, 0, 0]],
        [[1, 0], [0, 0], [1, 1]],
    ),
}


@pytest.mark.parametrize("density, options, a, b", TABLE.values(), ids=TABLE)
def test_known_masks(density, options, a, b):
    mask = pruning.keep(PAIR, SCORES, density, **options)
    assert kept(mask) == (a, b)
    assert mask["a"]["bias"].all()
    assert mask["b"]["bias"].all()


def test_what_was_pruned_stays_pruned():
    first = pruning.keep(PAIR, SCORES, 0.5)
    last = {path: -values for path, values in SCORES.items()}
    second = pruning.keep(PAIR, last, 4 / 12, within=first)
    assert kept(second) == ([[1, 0, 1], [0, 1, 0]], [[1, 0], [0, 0], [0, 0]])
    with pytest.raises(ValueError, match="density: 0.75 keeps 9 weights; .* 6 are there"):
        pruning.keep(PAIR, last, 0.75, within=first)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(0, 2))
def test_the_kept_are_those_that_sorting_keeps(seed, count, floor):
    """Compared with a plain sort; few distinct scores, so that most are ties."""
    rng = np.random.default_rng(seed)
    scores = {path: rng.integers(0, 4, shape).astype(float) for path, shape in pruning.prunable(PAIR).items()}
    places = [(path, place) for path in scores for place in range(6)]
    value = {(path, place): scores[path].reshape(-1)[place] for path, place in places}
    order = sorted(places, key=lambda one: -value[one])  # stable, so ties by place
    chosen = [one for path in scores for one in [own for own in order if own[0] == path][:floor]]
    chosen += [one for one in order if one not in chosen][: max(count - len(chosen), 0)]
    empty = {path for path in scores if not any(one[0] == path for one in chosen)}
    if len(chosen) != count or empty:
        with pytest.raises(ValueError, match="density"):
            pruning.keep(PAIR, scores, count / 12, floor=floor)
        return
    mask = pruning.keep(PAIR, scores, count / 12, floor=floor)
    found = {one for one in places if mask[one[0]]["kernel"].reshape(-1)[one[1]]}
    assert found == set(chosen)


BAD = {  # behaviour: (scores, density, options, message)
    "no density": (SCORES, 0.0, {}, "density: expected a number above 0 and of at most 1, got 0.0"),
    "a percentage": (SCORES, 50, {}, "density: .* got 50"),
    "a truth value": (SCORES, True, {}, "density: .* got True"),
    "a number that is none": (
        SCORES | {"b": np.where(SCORES["b"] == 7, np.nan, SCORES["b"])},
        0.5,
        {},
        "scores: b: 1 of 6 are not finite",
    ),
    "an infinite score": (SCORES | {"a": np.full((2, 3), np.inf)}, 0.5, {}, "scores: a: 6 of 6"),
    "another shape": (SCORES | {"a": np.ones((3, 2))}, 0.5, {}, r"scores: a: .* got \(3, 2\)"),
    "no score": ({"a": SCORES["a"]}, 0.5, {}, r"scores: b: .* got None"),
    "an emptied layer": (
        SCORES,
        2 / 12,
        {},
        r"^a: has density 0, none of its 6 weights, at density 0.16.* \(empty: 1 of 2 layers\): give a",
    ),
    "an emptied layer by densities": (SCORES, 0.5, {"densities": {"a": 0.0, "b": 1.0}}, "^a: has density 0"),
    "a floor too high": (SCORES, 0.5, {"floor": 4}, "keeps 6 .* floor of 4 asks for 8 and 12 are"),
    "a floor that is no number": (SCORES, 0.5, {"floor": 1.5}, "floor: expected a whole number .* got 1.5"),
    "densities of another total": (SCORES, 0.5, {"densities": {"a": 0.2, "b": 0.2}}, "densities: keep 2 "),
    "a density above 1": (SCORES, 0.75, {"densities": {"a": 0.3, "b": 1.2}}, "densities: expected a"),
    "a layer without density": (SCORES, 0.5, {"densities": {"a": 1.0}}, r"for each of \['a', 'b'\]"),
}


@pytest.mark.parametrize("scores, density, options, message", BAD.values(), ids=BAD)
def test_what_is_refused(scores, density, options, message):
    with pytest.raises(ValueError, match=message) as error:
        pruning.keep(PAIR, scores, density, **options)
    assert "\n" not in str(error.value)


def test_masks_have_the_structure_of_the_parameters():
    network = CASES["batch norm"].network
    params = params_of(network)
    mask = pruning.Magnitude(pruning.Uniform()).prune(network, params, 0.5).mask
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == bool for leaf in jax.tree.leaves(mask))
    assert jax.tree.map(np.shape, mask) == jax.tree.map(np.shape, params)
    assert all(leaf.all() for leaf in mask["n"].values())
    x = batch_of(network).images
    cut = {path: {"kernel": np.where(mask[path]["kernel"], params[path]["kernel"], 0)} for path in ("a", "b")}
    expected = nn.apply(network, params | cut, x)
    assert np.array_equal(nn.apply(network, pruning.masked(params, mask), x), expected)


def test_a_masked_weight_has_no_gradient():
    params = params_of(PLAIN)
    mask = pruning.Magnitude().prune(PLAIN, params, 0.5).mask

    def total(own):
        return nn.apply(PLAIN, pruning.masked(own, mask), jnp.ones((1, 4))).sum()

    gradient = jax.grad(total)(params)
    assert not np.asarray(gradient["a"]["kernel"])[~mask["a"]["kernel"]].any()
    assert np.asarray(gradient["c"]["bias"]).all()


ALL = (
    *(pruning.Magnitude(floor=1), pruning.Lamp(), pruning.Random(pruning.Uniform()), pruning.Snip(floor=1)),
    *(pruning.Grasp(floor=1), pruning.Synflow(rounds=3)),
)


@pytest.mark.parametrize("method", ALL, ids=lambda method: type(method).__name__)
def test_what_every_method_does(method):
    network = CASES["residual"].network
    params, batch = params_of(network), batch_of(network)
    given = {"key": jax.random.key(0), "batch": batch}
    assert isinstance(method, pruning.Method)
    hash(method)
    with pytest.raises(FrozenInstanceError):
        method.floor = 3
    found = method.prune(network, params, 0.3, **given)
    total = sum(np.prod(shape) for shape in pruning.prunable(network).values())
    assert found.density == round(0.3 * total) / total
    assert list(found.densities) == ["r/branch/u", "r/branch/v", "c"]
    assert found.densities == pruning.densities(network, found.mask)
    assert found.params is params
    again = method.prune(network, params, 0.3, **given)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.mask, again.mask))
    needed = {"key": method.needs_key, "batch": method.needs_batch}
    method.prune(network, params, 0.3, **{name: given[name] for name in given if needed[name]})
    for name in (name for name in needed if needed[name]):
        with pytest.raises(ValueError, match=f"^{name}: {type(method).__name__} .* got none: give"):
            method.prune(network, params, 0.3, **(given | {name: None}))
    with pytest.raises(ValueError, match="density: .* got 1.5"):
        method.prune(network, params, 1.5, **given)
    with pytest.raises(ValueError, match="floor: .* got -1"):
        type(method)(floor=-1)


CHECKS = {  # behaviour: (change of parameters or batch, message)
    "parameters of another shape": (
        lambda p, b: (p | {"a": p["a"] | {"kernel": p["a"]["kernel"].T}}, b),
        r"params: a/kernel: expected shape \(4, 6\), got \(6, 4\)",
    ),
    "parameters that are missing": (
        lambda p, b: ({name: p[name] for name in "ab"}, b),
        "params: c/bias: .* got None",
    ),
    "parameters too many": (lambda p, b: (p | {"d": {"bias": np.ones(1)}}, b), "params: d/bias: expected"),
    "parameters that are infinite": (
        lambda p, b: (p | {"b": p["b"] | {"bias": np.array([0, np.inf, 0])}}, b),
        "params: b/bias: holds numbers that are not finite",
    ),
    "images of another shape": (
        lambda p, b: (p, b._replace(images=b.images[:, :3])),
        r"batch: images: expected \(n, \*\(4,\)\) with n > 0, got \(8, 3\)",
    ),
    "no images": (lambda p, b: (p, pruning.Batch(b.images[:0], b.labels[:0])), "batch: images"),
    "images that are infinite": (
        lambda p, b: (p, b._replace(images=b.images / np.float32(0))),
        "batch: holds numbers that are not finite",
    ),
    "labels too few": (
        lambda p, b: (p, b._replace(labels=b.labels[:7])),
        r"batch: labels: expected classes of shape \(8,\), got \(7,\)",
    ),
    "labels of no class": (
        lambda p, b: (p, b._replace(labels=b.labels + 5)),
        "batch: labels: expected classes from 0 to 1, got 5 to 6",
    ),
    "numbers of another shape": (
        lambda p, b: (p, b._replace(labels=np.ones(8, np.float32))),
        r"batch: labels: expected numbers of shape \(8, 2\), got \(8,\)",
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("change, message", CHECKS.values(), ids=CHECKS)
def test_what_does_not_fit_is_refused_before_any_work(change, message):
    params, batch = change(params_of(PLAIN), batch_of(PLAIN))
    with pytest.raises(ValueError, match=message):
        pruning.Snip().prune(PLAIN, params, 0.5, batch=batch)


def test_a_network_without_kernels_is_refused():
    with pytest.raises(ValueError, match="network: has no convolution and no dense layer that Lamp"):
        pruning.Lamp().prune(Network((3,), (RELU,)), {}, 0.5)


OPTIONS = {  # behaviour: (method, message)
    "a temperature of 0": (
        lambda: pruning.Grasp(temperature=0),
        "temperature: expected a finite",
    ),
    "a temperature that is no number": (
        lambda: pruning.Grasp(temperature="hot"),
        "temperature: .* 'hot'",
    ),
    "no round": (lambda: pruning.Synflow(rounds=0), "rounds: expected a whole number of at least 1, got 0"),
    "a rule by name": (lambda: pruning.Random("erk"), "densities: expected a rule such as .* got 'erk'"),
}


@pytest.mark.parametrize("make, message", OPTIONS.values(), ids=OPTIONS)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_live_weights_are_those_on_a_path():
    network = Network((4, 4, 2), (Conv("a", 3, (1, 1)), BatchNorm("n"), Conv("b", 2, (1, 1))))
    a = np.array([[[[1, 1, 0], [0, 0, 0]]]], bool)  # into channels 0 and 1
    b = np.array([[[[1, 0], [0, 0], [1, 1]]]], bool)  # out of channels 0 and 2
    mask = pruning.mask_of(network, {"a": a, "b": b})
    assert pruning.densities(network, mask) == {"a": 2 / 6, "b": 3 / 6}
    assert pruning.live_densities(network, mask) == {"a": 1 / 6, "b": 1 / 6}


def test_random_masks_are_alike_everywhere():
    """Rows and columns of a random mask of 64 x 64 at density 1/4 have 16 of 64 each, a deviation of 3.4.

    128 sums within 5 deviations: one key in 13,000 would fail.
    """
    network = Network((64,), (Dense("a", 64), Dense("b", 64)))
    params = nn.init(network, jax.random.key(0))
    mask = pruning.Random(pruning.Uniform()).prune(network, params, 0.25, key=jax.random.key(1)).mask
    for axis in (0, 1):
        assert abs(mask["a"]["kernel"].sum(axis) - 16).max() < 17.4
    both = (mask["a"]["kernel"] & mask["b"]["kernel"]).sum()  # 256 expected, a deviation of 12
    assert abs(int(both) - 256) < 60
