"""Grouped convolutions and concatenations: what their tickets compute, and what their sources hold."""

import jax
import numpy as np
import pytest

import slth
from slth import Target, nn
from slth.construction import Best, Compensated, Robust, Rounded, construct, groups, nodes_of, plan_of
from slth.nn.graph import linear_maps
from slth.nn.layers import Concat, Conv, Dense
from slth.source import layer_scale, layout_of, parameter, parameters
from tests.construction.nets import GROUPED, JOINED, PAD, RELU, images, target_of
from tests.construction.reference import forward, leaves, masked

NETS = GROUPED | {f"{name}, joined": network for name, network in JOINED.items()}
each_net = pytest.mark.parametrize("name", NETS)
M = 6


def prepared(name, *, bias=True, depth="L+1", copies=M, **options):
    network, params = target_of(NETS[name])
    if not bias:
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: 0 * leaf if path[-1].key == "bias" else leaf, params
        )
    target = Target(network, params)
    x = images(network, 24)
    return target, slth.Source.of(target, copies=copies, depth=depth, images=x, **options), x


@each_net
def test_a_record_counts_the_sums_of_the_group(name):
    """Each output's weights, from the channels of its own group, summed over copies with a loop."""
    target, source, _ = prepared(name, bias=False)
    plan = plan_of(target, source, Best())
    balanced, maps = nn.by_layer(plan.balanced.params), linear_maps(target.network)
    checked = 0
    for node in nodes_of(plan):
        path, parts = node.record.path, plan.nodes[node.number].maps
        entry = maps[path]
        if len(parts) > 1 or entry.reads == 0 or isinstance(entry.layer, Dense):
            continue  # sums of two maps, univariate channels, flattened values
        weight, scale = balanced[path]["kernel"], layer_scale(source, path)
        kept = np.where(node.masks[f"{path}/kernel"], parameter(source, f"{path}/kernel"), 0)
        off = []
        for (*tap, row, j), w in np.ndenumerate(weight):
            for column in node.columns[j]:
                own = sum(float(kept[(*tap, row * M + k, column)]) for k in range(M))
                off += [abs(own - w) / scale] if w else []
        stats = node.record.stats
        missed = stats.unsolved + stats.deviating
        assert (stats.problems, missed) == (len(off), sum(o > 0.01 for o in off))
        np.testing.assert_allclose([stats.error, stats.max_error], [sum(off), max(off)], rtol=1e-3)
        checked += 1
    assert checked or name in ("grouped branch and skip", "vectors, joined")


SOLVERS = {"robust": (Robust(), "L+1"), "2L": (Robust(), "2L"), "compensated": (Compensated(sweeps=2), "L+1")}
CASES = [(name, "robust") for name in NETS] + [
    *((name, "2L") for name in ("depthwise", "grouped branch and skip", "dense blocks, joined")),
    *((name, "compensated") for name in ("groups of several channels", "inception, joined")),
]


@pytest.mark.parametrize("name, choice", CASES)
def test_the_ticket_is_the_masked_source_and_near_its_target(name, choice):
    solver, depth = SOLVERS[choice]
    target, source, x = prepared(name, depth=depth, copies=12)
    made = construct(target, source, solver, x)
    shapes = {path: values.shape for path, values in leaves(made.mask)}
    assert shapes == nn.parameter_shapes(source.network)
    y = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    np.testing.assert_allclose(made.ticket(x), y, atol=3e-5 * np.abs(y).max())
    assert made.error(x).relative < 0.3
    assert layout_of(target.network, source.network, source.multiplicity) == source.layout
    small = slth.compact.compact(source.network, made.ticket.params, made.mask)
    assert nn.count(small.params) < made.ticket.parameters
    again = made.factor * nn.apply(*small, x)
    np.testing.assert_allclose(again, y, atol=3e-5 * np.abs(y).max())
    assert slth.ticket.from_bytes(slth.ticket.to_bytes(made.ticket))(x).tolist() == made.ticket(x).tolist()


def test_a_depthwise_layer_of_the_source_is_no_dense_one():
    _, source, _ = prepared("depthwise", constants=7)
    layer = linear_maps(source.network)["d"].layer
    assert layer == Conv("d", 4 * M + 7, (3, 3), (2, 1), PAD, use_bias=False, groups=4, beside=(7, 7))
    assert nn.parameter_shapes(source.network)["d/kernel"] == (3, 3, M + 7, 4 * M + 7)


def test_groups_do_not_see_each_other():
    """Other weights in one group leave the subsets of the other group as they were."""
    network = nn.Network(
        (4, 4, 2),
        (
            *(Conv("a", 4, (1, 1)), nn.Activation("tanh"), Conv("g", 4, (3, 3), padding=PAD, groups=2)),
            *(nn.Activation("tanh"), nn.GlobalMean(), Dense("c", 2)),
        ),
    )
    params = target_of(network)[1]
    source = slth.Source.of(Target(network, params), copies=4, constants=5)
    moved = {
        **params,
        "g": {**params["g"], "kernel": params["g"]["kernel"] * np.array([1, 1, 2, 2], np.float32)},
    }
    one, other = (construct(Target(network, p), source, Best()).mask["g"]["kernel"] for p in (params, moved))
    assert np.array_equal(one[..., :8], other[..., :8])
    assert not np.array_equal(one[..., 8:16], other[..., 8:16])


def test_a_concatenation_keeps_constants_that_are_the_same_everywhere():
    """The last side's mean counts its padding, so its constants are of no use; those of another side are."""
    target, source, x = prepared("inception, joined")
    made = construct(target, source, Robust(), x)
    (picked,) = [layer for layer in source.network.layers if isinstance(layer, nn.Subsample)]
    count = source.layout.nodes[0].constants
    widths = [2 * M + count, 2 * M + count, 3 * M + count]
    assert picked.channels[-count:] == tuple(range(sum(widths[:2]) - count, sum(widths[:2])))
    assert made.error(x).relative < 0.3


REFUSED = {
    "a concatenation last": (
        (Conv("a", 2, (1, 1)), Concat("i", ((), (Conv("b", 2, (1, 1)),)))),
        "L+1",
        "target: it ends in a concatenation",
    ),
    "the input in a concatenation": (
        (Concat("i", ((), (Conv("b", 2, (1, 1)),))), Conv("c", 2, (1, 1))),
        "L+1",
        "target: i concatenates the network's input",
    ),
    "flattened values": (
        (
            *(Conv("a", 2, (1, 1)), Concat("i", ((nn.Flatten(),), (nn.Flatten(), Dense("b", 2))))),
            Dense("c", 2),
        ),
        "2L",
        "target: i concatenates a flattened value",
    ),
    "two kinds of groups in one sum": (
        (
            Conv("a", 4, (1, 1)),
            nn.Residual("r", (Conv("b", 4, (1, 1), groups=2),), (Conv("w", 4, (1, 1), groups=4),)),
            *(RELU, Conv("c", 2, (1, 1))),
        ),
        "L+1",
        "target: the layers that r adds have different groups",
    ),
}


@pytest.mark.parametrize("layers, depth, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_source_holds_is_refused_by_name(layers, depth, message):
    network = nn.Network((4, 4, 2), layers)
    with pytest.raises(ValueError, match=message):
        slth.Source.of(Target(*target_of(network)), copies=4, depth=depth)


def test_the_input_may_be_concatenated_in_2L():
    network = nn.Network(
        (4, 4, 2), (*REFUSED["the input in a concatenation"][0][:1], RELU, Conv("c", 2, (1, 1)))
    )
    target, x = Target(*target_of(network)), images(network, 16)
    source = slth.Source.of(target, copies=10, depth="2L", images=x)
    assert construct(target, source, Robust(), x).error(x).relative < 0.2


def test_groups_are_rounded_too():
    target, source, x = prepared("depthwise", depth="2L", copies=5)
    made = construct(target, source, Rounded(bits=5), x)
    assert made.error(x).relative < 0.2
    assert "d/kernel" not in dict(made.ticket.steps), "the file says the subsets of groups one by one"


@pytest.mark.parametrize("name", ["depthwise", "groups of several channels", "grouped branch and skip"])
def test_groups_that_are_solved_at_once_are_solved_alike(name, monkeypatch):
    target, source, x = prepared(name)
    made = []
    for most in (1, 2 * M, 10**6):
        monkeypatch.setattr(groups, "TOGETHER", most)
        made.append(construct(target, source, Robust(), x))
    for other in made[1:]:
        for (path, one), (_, two) in zip(leaves(made[0].mask), leaves(other.mask), strict=True):
            assert np.array_equal(one, two), path
        np.testing.assert_allclose(other.stats[:6], made[0].stats[:6], rtol=1e-9)
        assert other.stats.sizes == made[0].stats.sizes
