"""SynFlow: flow is conserved, no depth overflows, layers keep weights at every density."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import nn, pruning
from slth.nn import zoo
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, Pool, Upsample
from tests.pruning.nets import PLAIN, RELU, SAME, params_of

GELU = Activation("gelu")

STRAIGHT = {  # networks in which every path goes through every layer
    "dense": PLAIN,
    "convolutions": Network(
        (6, 6, 2),
        (
            *(Conv("a", 4, (3, 3), padding=SAME), BatchNorm("n"), RELU, Pool("max", (2, 2))),
            *(Conv("b", 4, (3, 3), groups=2, padding=SAME), ChannelScale("s"), GELU, Pool("mean", (2, 2))),
            *(Conv("c", 4, (1, 1)), Upsample((2, 2)), Activation("sigmoid"), Flatten("chw"), Dense("d", 3)),
        ),
    ),
}

BRANCHED = Network(
    (4, 4, 2),
    (
        *(Conv("a", 3, (3, 3), padding=SAME), RELU),
        Residual("r", (Conv("u", 4, (3, 3), padding=SAME), BatchNorm("n"), GELU, Conv("v", 3, (1, 1)))),
        Residual(
            "p", (Conv("u", 3, (1, 1)), RELU, Conv("v", 5, (1, 1), (2, 2))), (Conv("w", 5, (1, 1), (2, 2)),)
        ),
        Concat("c", ((), (Conv("x", 2, (1, 1)), RELU))),
        *(GlobalMax(), Dense("d", 2)),
    ),
)  # fmt: skip


def drawn(network, seed, density):
    """Random parameters, and a mask of them in which each layer keeps a weight or more."""
    rng = np.random.default_rng(seed)
    kept = {path: rng.random(shape) < density for path, shape in pruning.prunable(network).items()}
    return params_of(network, seed), pruning.mask_of(network, kept)


def flow_of(network, params, mask):
    """The scores, or None where the mask lets nothing through."""
    if any(pruning.live_densities(network, mask).values()):
        return pruning.synflow_scores(network, params, mask)
    with pytest.raises(ValueError, match="no path of weights that are not 0 leads"):
        pruning.synflow_scores(network, params, mask)
    return None


def into(score):
    """Flow into each output channel of a layer."""
    return score.sum(tuple(range(score.ndim - 1)))


def out_of(score):
    """Flow out of each input channel of a layer in one group."""
    return score.sum((*range(score.ndim - 2), score.ndim - 1))


@settings(max_examples=20)
@given(st.sampled_from(sorted(STRAIGHT)), st.integers(0, 2**32 - 1), st.floats(0.2, 1))
def test_all_flow_goes_through_every_layer(name, seed, density):
    network = STRAIGHT[name]
    params, mask = drawn(network, seed, density)
    scores = flow_of(network, params, mask)
    if scores is None:
        return
    assert list(scores) == list(pruning.prunable(network))
    for path, score in scores.items():
        assert (score >= 0).all()
        assert not score[~mask[path]["kernel"]].any()
        np.testing.assert_allclose(score.sum(), 1, rtol=1e-12, err_msg=path)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1))
def test_what_flows_into_a_channel_flows_out_of_it(seed, density):
    """By channel, and by cuts: sides of a block share what its neighbours have whole."""
    params, mask = drawn(BRANCHED, seed, density)
    scores = flow_of(BRANCHED, params, mask)
    if scores is None:
        return
    close = {"rtol": 1e-9, "atol": 1e-15}
    for first, second in (("r/branch/u", "r/branch/v"), ("p/branch/u", "p/branch/v")):
        np.testing.assert_allclose(into(scores[first]), out_of(scores[second]), **close)
    # The value behind block r is read by both sides of p; what enters r leaves by its branch or its skip.
    behind = out_of(scores["p/branch/u"]) + out_of(scores["p/skip/w"])
    through_skip = behind - into(scores["r/branch/v"])
    np.testing.assert_allclose(into(scores["a"]), out_of(scores["r/branch/u"]) + through_skip, **close)
    # The value behind p goes on as it is (channels 0 to 4 of the concatenation), and by x (channels 5, 6).
    joined = out_of(scores["d"])
    np.testing.assert_allclose(into(scores["c/1/x"]), joined[5:], **close)
    ends = into(scores["p/branch/v"]) + into(scores["p/skip/w"])
    np.testing.assert_allclose(ends, joined[:5] + out_of(scores["c/1/x"]), **close)
    np.testing.assert_allclose([scores["a"].sum(), scores["d"].sum(), ends.sum()], 1, rtol=1e-12)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_no_depth_leaves_the_range_of_numbers(size):
    """The flow of 14 such layers is 1e400 and more, or less than 1e-400: no double holds it."""
    layers = tuple(Dense(f"l{number}", 3) for number in range(14))
    network = Network((3,), layers)
    plain = params_of(network)
    kernels = {path: np.float32(size) * own["kernel"] for path, own in plain.items()}
    params = pruning.with_kernels(plain, kernels)
    flow = np.ones(3)
    with np.errstate(over="ignore"):
        for layer in layers:
            flow = np.abs(kernels[layer.name]).T.astype(np.float64) @ flow
    assert not 0 < flow.sum() < np.inf
    scores, expected = (pruning.synflow_scores(network, own) for own in (params, plain))
    for path in scores:
        np.testing.assert_allclose(scores[path], expected[path], rtol=1e-5)  # of float32 products
        np.testing.assert_allclose(scores[path].sum(), 1, rtol=1e-12)


def test_flow_knows_neither_biases_nor_means_nor_signs():
    """The variance of batch norm is all that changes something here."""
    network = STRAIGHT["convolutions"]
    params = params_of(network)
    first = pruning.synflow_scores(network, params)
    other = jax.tree_util.tree_map_with_path(
        lambda path, leaf: -leaf if path[-1].key in ("kernel", "scale") else leaf - 5, params
    )
    other["n"]["var"] = params["n"]["var"]
    assert jax.tree.all(jax.tree.map(np.array_equal, first, pruning.synflow_scores(network, other)))
    other = params | {"n": params["n"] | {"var": params["n"]["var"] * np.array([1, 9, 1, 1], np.float32)}}
    assert not np.allclose(first["a"], pruning.synflow_scores(network, other)["a"])


def test_paths_that_end_are_seen():
    params = params_of(PLAIN)
    kept = {path: np.ones(shape, bool) for path, shape in pruning.prunable(PLAIN).items()}
    kept["b"][:] = False
    with pytest.raises(ValueError, match="no path of weights that are not 0 leads"):
        pruning.synflow_scores(PLAIN, params, pruning.mask_of(PLAIN, kept))


def test_rounds_follow_the_exponential_schedule():
    network = zoo.build("digits_cnn", (8, 8, 1), 10, width=4)
    found = pruning.Synflow(rounds=4).prune(network, params_of(network), 0.0625)
    np.testing.assert_allclose([one.density for one in found.record], [0.5, 0.25, 0.125, 0.0625])
    sizes = {path: np.prod(shape) for path, shape in pruning.prunable(network).items()}
    for one in found.record:
        kept = sum(one.densities[path] * sizes[path] for path in sizes)
        assert round(kept) == round(one.density * sum(sizes.values()))
    for before, after in zip(found.record, found.record[1:], strict=False):
        assert all(after.densities[path] <= before.densities[path] for path in sizes)
    assert found.densities == found.record[-1].densities


def test_rounds_revive_nothing():
    """Round 1 drops a's first weight, round 2 the weight behind it and its neighbour, which then tie at 0."""
    network = Network((2,), (Dense("a", 2, use_bias=False), Dense("b", 1, use_bias=False)))
    params = {"a": {"kernel": np.array([[1.0, 3.0], [3.0, 3.0]])}, "b": {"kernel": np.array([[1.0], [1.0]])}}
    mask = pruning.Synflow(rounds=3, floor=0).prune(network, params, 0.62).mask  # 5, 4 and 4 weights
    assert mask["a"]["kernel"].tolist() == [[False, True], [True, True]]
    assert mask["b"]["kernel"].tolist() == [[False], [True]]


def test_straight_networks_keep_their_layers_where_magnitudes_empty_one():
    """Theorem 3 of the paper: pruned little by little, a network without skips keeps all its layers."""
    network = Network((20,), (Dense("a", 60), Dense("b", 60), Dense("c", 60), Dense("d", 3)))
    params = params_of(network)
    params["a"]["kernel"] = params["a"]["kernel"] / 100
    density = 8 / sum(np.prod(shape) for shape in pruning.prunable(network).values())
    with pytest.raises(ValueError, match="^a: has density 0"):
        pruning.Magnitude().prune(network, params, density)
    found = pruning.Synflow(floor=0).prune(network, params, density)
    assert min(found.densities.values()) > 0
    assert found.densities == pruning.live_densities(network, found.mask)


@pytest.mark.slow
def test_resnet20_has_no_empty_layer_at_a_thousandth():
    """ResNet-20 has skips: a draw of four loses no branch without a floor, and seed 0 needs one."""
    network = zoo.build("resnet20", (32, 32, 3), 10)
    total = sum(np.prod(shape) for shape in pruning.prunable(network).values())
    draws = [nn.init(network, jax.random.key(seed)) for seed in range(2)]
    for params in draws:
        found = pruning.Synflow().prune(network, params, 0.001)
        assert min(found.densities.values()) > 0
        assert found.density == round(0.001 * total) / total
    pruning.Synflow(floor=0).prune(network, draws[1], 0.001)
    with pytest.raises(
        ValueError, match=r"layer3.1/branch/conv2: has density 0, .* \(empty: 1 of 20 layers\)"
    ):
        pruning.Synflow(floor=0).prune(network, draws[0], 0.001)
