"""The layout of a source: what `source_network` says, what widths and names alone imply, what adds up."""

from dataclasses import replace

import pytest

from slth import nn
from slth.nn.graph import linear_maps, sums
from slth.nn.layers import Activation, Dense
from slth.nn.network import Network
from slth.source import layout_of, source_network
from slth.source.layout import MOST_CONSTANTS, Univariate
from tests.construction.nets import ODD, PLAIN, RESIDUAL, target_of

NETWORKS = PLAIN | ODD
POSITIVE = {"univariate_signs": "positive"}
OPTIONS = {  # settings of a source: m, then the options
    "plain": (3, {"copies_per_sign": 4, "constants": 5}),
    "without constants": (3, {"copies_per_sign": 2, "constants": 0}),
    "own biases": (2, {"copies_per_sign": 4, "constants": 6, "own_biases": True}),
    "2L": (3, {"copies_per_sign": 4, "constants": 1, "depth": "2L"}),
    "2L, many": (3, {"copies_per_sign": 40, "constants": 1, "depth": "2L"}),
    "2L, without constants": (3, {"copies_per_sign": 4, "constants": 0, "depth": "2L"}),
    "2L, positive": (3, {"copies_per_sign": 4, "constants": 1, "depth": "2L", **POSITIVE}),
}


def wide_of(name, options):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (NETWORKS[name], "carried")
    target, _ = target_of(network)
    m, settings = OPTIONS[options]
    return target, m, source_network(target, m, skip=skip, **settings)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", [*NETWORKS, *RESIDUAL])
def test_widths_and_names_imply_the_layout(name, options):
    target, m, wide = wide_of(name, options)
    positive = any(one.positive for one in wide.layout.univariate)
    implied = layout_of(target, wide.network, m, positive=positive)
    if len(sums(target)) == 1 and options in ("plain", "own biases"):
        # No hidden layer says how many constants there are: as few as leave whole copies, and at least m.
        assert implied.nodes == wide.layout.nodes
        assert implied.first.width == wide.layout.first.width
        assert m <= implied.first.constants < m + implied.first.inputs
    else:
        assert implied == wide.layout


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", [*NETWORKS, *RESIDUAL])
def test_widths_add_up(name, options):
    target, m, wide = wide_of(name, options)
    layout, layers, steps = wide.layout, linear_maps(wide.network), nn.graph(target)
    named = {one.path for one in layout.univariate}
    for node in layout.nodes:
        step = steps[node.step]
        last = node is layout.nodes[-1]
        assert node.copies == (1 if last or layout.depth == "2L" else m)
        for entry in node.maps:
            named.add(entry.path)
            assert layers[entry.path].layer.features == step.features * node.copies + node.constants
            assert (entry.front is None) == (layout.depth == "L+1")
    assert named == set(layers), "every layer stands for something"
    for one in layout.univariate:
        layer = layers[one.path].layer
        channels = one.copies * one.inputs * (1 if one.positive else 2)
        assert layer.features == one.width == channels + 2 * one.constants
        assert layer.use_bias == (one.constants > 0)
        assert layer.kernel == (1,) * len(layer.kernel) if isinstance(layer, nn.Conv) else True
    assert [node.step for node in layout.nodes] == [n for n, s in enumerate(steps) if isinstance(s, nn.Sum)]
    solved = [len(node.maps) - len(steps[node.step].maps) for node in layout.nodes]
    assert set(solved) <= {0, 1}
    assert layout.depth == OPTIONS[options][1].get("depth", "L+1")


@pytest.mark.parametrize("copies, cin", [(1, 1), (32, 3), (33, 3), (400, 1)])
def test_widths_of_univariate_layers_say_how_they_are_split(copies, cin):
    target = Network((cin,), (Dense("a", 3), Activation("relu"), Dense("b", 2)))
    for constants, many in ((0, 0), (1, min(2 * copies, MOST_CONSTANTS))):
        wide = source_network(target, 2, copies_per_sign=copies, constants=constants, depth="2L")
        found = layout_of(target, wide.network, 2).nodes[0].maps[0].front
        assert found == Univariate("a.univariate", cin, copies, many)


@pytest.mark.parametrize("copies, cin", [(1, 1), (32, 3), (33, 3), (400, 1)])
def test_the_same_where_the_first_layer_stands_behind_a_relu(copies, cin):
    target = Network((cin,), (Activation("relu"), Dense("a", 3), Activation("relu"), Dense("b", 2)))
    for depth, constants in (("2L", 0), ("2L", 1), ("L+1", 5)):
        options = {"copies_per_sign": copies, "constants": constants, "depth": depth, **POSITIVE}
        wide = source_network(target, 2, **options)
        assert all(one.positive for one in wide.layout.univariate)
        assert layout_of(target, wide.network, 2, positive=True) == wide.layout


def test_weights_are_positive_where_what_they_read_cannot_be_negative():
    relu, leaky, tanh = Activation("relu"), Activation("leaky_relu", 0.2), Activation("tanh")
    block = nn.Residual("r", (Dense("u", 3), relu, Dense("v", 3)))
    ends = (Dense("b", 3), leaky, Dense("c", 3), relu, Dense("d", 2))
    target = Network((4,), (Dense("a", 3), relu, block, *ends))
    options = {"copies_per_sign": 3, "constants": 1, "depth": "2L", **POSITIVE}
    layout = source_network(target, 2, **options).layout
    # v and u read values of a ReLU; a reads the input, b a block's sum, c those of a leaky ReLU.
    positive = [one.path.removesuffix(".univariate") for one in layout.univariate if one.positive]
    assert positive == ["r/branch/u", "r/branch/v", "d"]
    # tanh has one slope at 0: both signs of alpha are of use.
    smooth = Network((4,), (Dense("a", 3), tanh, Dense("b", 3), relu, Dense("c", 2)))
    assert not any(one.positive for one in source_network(smooth, 2, **options).layout.univariate)


def test_a_layout_is_a_static_value():
    target = NETWORKS["vectors"]
    one, two = (source_network(target, 3, copies_per_sign=3, constants=2).layout for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert replace(one, multiplicity=4) != one
