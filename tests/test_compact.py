"""Compacted networks: the same function of fewer channels, none of which could still be left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import Best, Smallest, Source, Target, construct, nn
from slth.compact import compact
from slth.interop import load_checkpoint, load_network, save_network
from slth.nn.graph import Sum, graph
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.nn.prune import count_channels, needed, prune
from slth.source import parameters, source_network
from tests.construction.nets import PAD, PLAIN, RELU, RESIDUAL, images, source_of, target_of
from tests.construction.reference import leaves, masked, run

SIGMOID = Activation("sigmoid")


def block(name, act, skip, wide, stride=(1, 1)):
    return Residual(name, (Conv("u", 4, (3, 3), stride, PAD), act, Conv("v", wide, (1, 1))), skip)


def blocks(act, order="chw"):
    """Identity, option A, a projection and a per-channel skip, and a block before any activation."""
    option_a = Subsample((2, 2), (-1, 0, 3, 2, 1, -1))
    return Network(
        (6, 6, 2),
        (
            *(Conv("a", 4, (1, 1)), block("p", act, (), 4), act, block("r", act, (), 4), act),
            *(block("s", act, (option_a,), 6, (2, 2)), act, block("q", act, (ChannelScale("g"),), 6)),
            *(block("t", act, (Conv("w", 5, (1, 1), use_bias=False),), 5), act),
            *(Pool("mean", (2, 2), (1, 1)), Flatten(order), Dense("d", 3)),
        ),
    )


NETWORKS = {
    "blocks, chw": blocks(RELU),
    "blocks, hwc": blocks(RELU, "hwc"),
    "blocks, phi(0) is not 0": blocks(SIGMOID),
    "vectors": Network(
        (3,),
        (
            *(Dense("a", 5), RELU, Residual("r", (Dense("u", 4), RELU, Dense("v", 5))), RELU),
            *(Residual("s", (Dense("u", 4), SIGMOID, Dense("v", 5)), (Subsample((), (1, -1, 4, 0, 2)),)),),
            *(RELU, Dense("d", 2)),
        ),
    ),
    "plain, hwc": Network(
        (5, 4, 2),
        (
            *(Conv("a", 5, (2, 2)), RELU, Pool("max", (2, 2), (1, 1)), Conv("b", 4, (2, 2)), SIGMOID),
            *(Flatten("hwc"), Dense("c", 5), RELU, Dense("d", 2)),
        ),
    ),
    "one axis": Network(
        (7, 2),
        (
            *(Conv("a", 5, (3,), padding=((2, 1),)), Subsample((2,), (3, -1, 0, 4)), RELU),
            *(Conv("c", 6, (2,)), SIGMOID, Flatten("chw"), Dense("b", 6), SIGMOID),
            Dense("e", 3),
        ),
    ),
    "pooled": Network((4, 4, 1), (Conv("a", 6, (2, 2)), RELU, GlobalMean(), Dense("b", 3))),
    "one layer": Network((4,), (Dense("a", 3),)),
}
apply = jax.jit(nn.apply, static_argnums=0)


def drawn(network, rng):
    shapes = jax.eval_shape(lambda: nn.init(network, jax.random.key(0)))
    params = unflatten_dict(flatten_dict(shapes))
    return jax.tree.map(lambda a: (rng.normal(size=a.shape) / a.shape[0] ** 0.5).astype(np.float32), params)


def random_mask(params, rng, density):
    """Weights at random; some channels get or give nothing."""

    def draw(path, values):
        kept = rng.random(values.shape) < density
        if path[-1].key == "kernel":
            kept &= (rng.random(values.shape[-1]) < 0.7) & (rng.random((values.shape[-2], 1)) < 0.7)
        return kept if path[-1].key != "scale" else np.ones(values.shape, bool)

    return jax.tree_util.tree_map_with_path(draw, params)


def plain_mask(mask):
    """The mask without per-channel weights, which no ticket masks."""
    flat = flatten_dict(mask)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if path[-1] != "scale"})


def check_equal(network, params, mask, small):
    """Both in float64, by loops: equal up to the order of the sums."""
    x = images(network, 2)
    whole = run(network.layers, masked(mask, params), np.asarray(x, np.float64))
    less = run(small.network.layers, jax.tree.map(np.float64, with_empty(small)), np.asarray(x, np.float64))
    np.testing.assert_allclose(less, whole, rtol=1e-12, atol=1e-12)


def with_empty(small):
    """Parameters with the empty dicts of parts without any, which the reference asks for."""
    shapes = jax.eval_shape(lambda: nn.init(small.network, jax.random.key(0)))
    flat = flatten_dict(shapes, keep_empty_nodes=True)
    return unflatten_dict({path: flatten_dict(small.params).get(path, leaf) for path, leaf in flat.items()})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("density", [0.1, 0.3, 0.7])
def test_the_function_is_the_same_and_nothing_more_can_go(name, density):
    network = NETWORKS[name]
    rng = np.random.default_rng(len(name))
    for _ in range(8):
        params = drawn(network, rng)
        mask = random_mask(params, rng, density)
        small = compact(network, params, plain_mask(mask))
        check_equal(network, params, mask, small)
        kernels = dict(leaves(small.params))
        again = compact(small.network, small.params, nonzero(small.params))
        assert again.network == small.network
        assert all(np.array_equal(value, kernels[path]) for path, value in leaves(again.params))


def nonzero(params):
    return plain_mask(jax.tree.map(lambda a: a != 0, params))


def test_channels_that_are_left_have_a_gradient():
    """Positive weights: a channel that outputs depend on has one; the others are gone."""
    network = blocks(RELU)
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda a: np.abs(a) + 0.1, drawn(network, rng))
    x = np.abs(images(network, 2))
    for _ in range(5):
        mask = random_mask(params, rng, 0.3)
        small = compact(network, params, plain_mask(mask))
        found = needed(network, plain_mask(mask))
        values_of = {  # the value that each linear layer goes into
            entry.path: number
            for number, step in enumerate(graph(network), start=1)
            if isinstance(step, Sum)
            for entry in step.maps
        }
        shifts = {path: jnp.zeros(found.read[number].shape) for path, number in values_of.items()}
        values = jax.tree.map(np.float32, masked(mask, params))

        def shifted(shifts, values=values):
            tree = jax.tree.map(jnp.asarray, values)
            flat = flatten_dict(tree, sep="/")
            for path, shift in shifts.items():
                if f"{path}/bias" in flat:
                    flat[f"{path}/bias"] = flat[f"{path}/bias"] + shift
            return nn.apply(network, unflatten_dict(flat, sep="/"), x).sum()

        slopes = jax.grad(shifted)(shifts)
        counts = {path: leaf.shape[-1] for path, leaf in leaves(small.params) if path.endswith("/kernel")}
        for path, slope in slopes.items():
            if f"{path}/bias" not in flatten_dict(params, sep="/"):
                continue
            # A channel has a slope where something reads it; and it stays unless it is silent as well.
            alive = (np.asarray(slope) != 0) & (found.state[values_of[path]] > 0)
            assert alive.sum() <= counts[f"{path}/kernel"] <= max(1, int((np.asarray(slope) != 0).sum()))


TARGETS = {
    "strided": PLAIN["strided"],
    "pooled": PLAIN["pooled"],
    **{name: network for name, (network, skip) in RESIDUAL.items() if skip == "carried"},
}


@pytest.mark.parametrize("name", [*TARGETS, "option A, random"])
def test_a_compact_ticket_gives_the_ticket_s_outputs(name, tmp_path):
    network, skip = RESIDUAL.get(name, (TARGETS.get(name), "carried"))
    target = Target(*target_of(network))
    source = source_of(target.network, 5, skip=skip, constants=6)
    mask = construct(target, source, Smallest()).mask
    values = parameters(source)
    small = compact(source.network, values, mask)
    x = images(target.network, 6)
    wanted = apply(source.network, jax.tree.map(lambda keep, v: jnp.where(keep, v, 0), mask, values), x)
    save_network(tmp_path / "c.safetensors", *small, factor=2.5)
    read, arrays, factor = load_network(tmp_path / "c.safetensors")
    assert (read, factor) == (small.network, 2.5)
    found = apply(read, arrays, x)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6 * float(np.abs(wanted).max()))
    fewer = sum(leaf.size for _, leaf in leaves(small.params))
    assert fewer < sum(leaf.size for _, leaf in leaves(values))
    counts = count_channels(source.network, mask)
    assert counts.kept < counts.channels
    assert 0 < counts.constants < counts.kept
    kept = sum(int(np.asarray(leaf).sum()) for _, leaf in leaves(prune(source.network, mask)))
    assert sum(int(np.count_nonzero(leaf)) for _, leaf in leaves(small.params)) == kept


@pytest.mark.parametrize("name", ["pooled", "flat images", "dense block, projection"])
def test_a_compact_ticket_of_two_layers_for_each_holds_no_dead_univariate_channel(name):
    """Behind a ReLU phi(alpha x) with alpha < 0 is 0, as is phi(beta) with beta < 0: they are gone."""
    network, skip = RESIDUAL.get(name, (PLAIN.get(name), "carried"))
    target = Target(*target_of(network))
    source = source_of(target.network, 5, skip=skip, copies_per_sign=10, depth="2L")
    made = construct(target, source, Smallest())
    small = compact(source.network, parameters(source), made.mask)
    x = images(target.network, 6)
    wanted = made.ticket(x)
    np.testing.assert_allclose(
        made.factor * apply(*small, x), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max()
    )
    layers = nn.by_layer(small.params)
    constants = 0
    for one in source.layout.univariate:
        own = layers[one.path]
        alpha = own["kernel"].reshape(one.inputs, -1)
        beta = own.get("bias", np.zeros(alpha.shape[1]))
        assert ((alpha != 0).sum(0) + (beta != 0) == 1).all(), "an input or a constant, and nothing else"
        assert (beta >= 0).all()
        first = one.path == source.layout.univariate[0].path  # images are of either sign
        assert (alpha < 0).any() == first
        assert first or alpha.shape[1] <= one.width / 2
        constants += int((beta != 0).sum())
    assert count_channels(source.network, made.mask).constants == constants > 0
    again = compact(*small, nonzero(small.params))
    assert again.network == small.network, "each is read"


def test_a_compact_ticket_of_a_smooth_target_with_biases_everywhere():
    act = Activation("softplus")
    layers = (*(Conv("a", 3, (3, 3), padding=PAD), act, Residual("r", (Conv("b", 3, (1, 1)),)), act),)
    network = Network((4, 4, 1), (*layers, Flatten("chw"), Dense("d", 2)))
    target = Target(network, drawn(network, np.random.default_rng(0)))
    wide = source_network(network, 4, copies_per_sign=6, constants=8, own_biases=True)
    source = Source(wide.network, 0, 4, init="he_uniform", scale=3.0, layout=wide.layout)
    mask = construct(target, source, Best()).mask
    small = compact(source.network, parameters(source), mask)
    x = images(network, 4)
    values = jax.tree.map(lambda keep, v: jnp.where(keep, v, 0), mask, parameters(source))
    wanted = np.asarray(apply(wide.network, values, x))
    found = apply(small.network, small.params, x)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6 * float(np.abs(wanted).max()))
    assert nn.count(small.params) < nn.count(values)


def test_counts_of_a_network_counted_by_hand():
    network = Network(
        (2,), (Dense("a", 4), RELU, Residual("r", (Dense("u", 3), RELU, Dense("v", 4))), RELU, Dense("d", 1))
    )
    shapes = jax.eval_shape(lambda: nn.init(network, jax.random.key(0)))
    mask = jax.tree.map(lambda a: np.zeros(a.shape, bool), shapes)
    mask["a"]["kernel"][0, 0] = True  # channel 0 varies
    mask["a"]["bias"][1] = True  # 1 is constant, 2 and 3 are silent
    mask["r"]["branch"]["u"]["kernel"][1, 0] = True  # reads the constant: u0 is constant
    mask["r"]["branch"]["u"]["kernel"][2, 1] = True  # reads silence: u1 is silent
    mask["r"]["branch"]["v"]["kernel"][0, 2] = True  # sum 2 is constant by the branch alone
    mask["r"]["branch"]["v"]["kernel"][1, 3] = True  # sum 3 is silent
    mask["d"]["kernel"][[0, 2, 3], 0] = True  # sum 1, the carried constant, is not read
    counts = count_channels(network, mask)
    # a: 0 (carried on) and 1 (read by u); u: 0; sum: 0 and 2. Constants: a1, u0, sum 2.
    assert counts == (4 + 3 + 4, 2 + 1 + 2, 3)
    small = compact(network, jax.tree.map(lambda a: np.ones(a.shape, np.float32), shapes), mask)
    assert small.network.layers[2].skip == (Subsample((), (0, -1)),)


def test_a_bias_the_mask_does_not_name_is_dropped():
    network = Network((2,), (Dense("a", 3), RELU, Dense("b", 2)))
    params = drawn(network, np.random.default_rng(0))
    mask = {"a": {"kernel": np.ones((2, 3), bool)}, "b": {"kernel": np.ones((3, 2), bool)}}
    pruned = prune(network, mask)
    assert not pruned["a"]["bias"].any()
    assert not pruned["b"]["bias"].any()
    small = compact(network, params, mask)
    assert [layer.use_bias for layer in (small.network.layers[0], small.network.layers[2])] == [False, False]


def test_an_empty_mask_leaves_a_network_of_single_channels():
    network = blocks(RELU)
    params = drawn(network, np.random.default_rng(0))
    mask = plain_mask(jax.tree.map(lambda a: np.zeros(a.shape, bool), params))
    small = compact(network, params, mask)
    assert {leaf.shape[-1] for path, leaf in leaves(small.params) if path.endswith("kernel")} == {1, 3}
    assert not apply(small.network, small.params, images(network, 2)).any()
    assert count_channels(network, mask)[1:] == (0, 0)


def test_batch_norm_is_refused():
    network = Network((2,), (Dense("a", 3), nn.BatchNorm("bn"), Dense("b", 2)))
    params = nn.init(network, jax.random.key(0))
    mask = jax.tree.map(lambda a: np.ones(a.shape, bool), params)
    with pytest.raises(ValueError, match="bn: fold batch norm"):
        compact(network, params, mask)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**20), density=st.floats(0.02, 0.9), order=st.sampled_from(["hwc", "chw"]))
def test_random_masks(seed, density, order):
    network, rng = blocks(RELU if seed % 2 else SIGMOID, order), np.random.default_rng(seed)
    params = drawn(network, rng)
    mask = random_mask(params, rng, density)
    check_equal(network, params, mask, compact(network, params, plain_mask(mask)))


def test_files_of_other_kinds_are_refused(tmp_path):
    network = Network((2,), (Dense("a", 3),))
    params = nn.init(network, jax.random.key(0))
    path = tmp_path / "n.safetensors"
    with pytest.raises(FileNotFoundError, match="is not there"):
        load_network(path)
    save_network(path, network, params)
    assert np.array_equal(load_checkpoint(path, network)["a"]["kernel"], params["a"]["kernel"])
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="damaged"):
        load_network(path)
    save_network(path, Network((2,), (Dense("a", 4),)), params)
    with pytest.raises(ValueError, match="arrays are not those of its spec"):
        load_network(path)
    path.write_bytes(content.replace(b"Dense", b"Dance"))
    with pytest.raises(ValueError, match="expected a layer of type"):
        load_network(path)
    path.write_bytes(content.replace(b"slth network", b"some network"))
    with pytest.raises(ValueError, match="expected a file of the format 'slth network'"):
        load_network(path)
