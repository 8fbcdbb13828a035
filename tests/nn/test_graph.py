"""The lowered network: the same function as the tree of layers, and facts that a reader may rely on."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import nn
from slth.nn.graph import (
    activations,
    flattening,
    is_homogeneous,
    last_reads,
    linear_maps,
    named_layers,
    sums,
    value_shapes,
)
from slth.types import Params
from tests.construction.nets import PLAIN
from tests.construction.reference import forward, one
from tests.nn.nets import BLOCKS, NETWORKS, inputs_of, params_of

each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def values_of(network: nn.Network, params: Params, x: np.ndarray) -> list[np.ndarray]:
    """Every value of the graph, in NumPy and float64."""
    layers, values = nn.by_layer(params), [x]

    def term(layer: nn.Layer | None, path: str, reads: int) -> np.ndarray:
        return values[reads] if layer is None else one(layer, layers.get(path, {}), values[reads])

    for step in nn.graph(network):
        match step:
            case nn.Sum(maps=maps, skips=skips):
                values.append(np.sum([term(t.layer, t.path, t.reads) for t in (*maps, *skips)], axis=0))
            case nn.Join(reads=reads):
                values.append(np.concatenate([values[value] for value in reads], -1))
            case nn.Apply(layer, value, path=path):
                values.append(term(layer, path, value))
    return values


@each_network
def test_the_graph_computes_what_the_tree_of_layers_does(network: nn.Network):
    params, x = params_of(network), inputs_of(network)
    truth, values = forward(network, params, x), values_of(network, params, x)
    np.testing.assert_allclose(values[-1], truth[""], rtol=1e-12, atol=1e-12)
    names = [step.path if isinstance(step, nn.Apply) else step.name for step in nn.graph(network)]
    for name, value in zip(names, values[1:], strict=True):
        if name:
            np.testing.assert_allclose(value, truth[name], rtol=1e-12, atol=1e-12)
    assert value_shapes(network) == tuple(value.shape[1:] for value in values)
    assert value_shapes(network)[-1] == network.output_shape


# A compilation each, so not all of them.
@pytest.mark.parametrize("network", (BLOCKS | PLAIN).values(), ids=(BLOCKS | PLAIN).keys())
def test_jax_computes_the_same_and_traces_the_same_values(network: nn.Network):
    params, x = params_of(network), inputs_of(network)
    truth = forward(network, params, x)
    y, values = jax.jit(nn.trace, static_argnums=0)(network, params, x)
    assert set(values) == set(truth) - {""}
    for name, value in {**values, "": y}.items():
        scale = max(1.0, float(np.abs(truth[name]).max()))
        np.testing.assert_allclose(value, truth[name], atol=2e-5 * scale, rtol=2e-5)


@each_network
def test_steps_read_what_stands_before_them_and_every_value_is_read(network: nn.Network):
    steps = nn.graph(network)
    for number, step in enumerate(steps):
        assert all(0 <= value <= number for value in step.reads)  # step i makes value i + 1
    readers = [[i for i, step in enumerate(steps) if v in step.reads] for v in range(len(steps) + 1)]
    last = [max(numbers, default=-1) for numbers in readers]
    assert last_reads(network) == tuple(last)
    assert [value for value, number in enumerate(last) if number < 0] == [len(steps)]


@each_network
def test_a_flattening_is_found_from_every_value_behind_it(network: nn.Network):
    found, shapes = [None], value_shapes(network)
    for step in nn.graph(network):
        if not isinstance(step, nn.Apply):
            found.append(None)
        elif isinstance(step.layer, nn.Flatten):
            found.append((step.layer, step.value, shapes[step.value]))
        else:
            found.append(found[step.value])
    assert [flattening(network, value) for value in range(len(found))] == found


def layers_of(layers: tuple[nn.Layer, ...], path: str = "") -> Iterator[tuple[str, nn.Layer]]:
    """Path (that of what is around it, for a layer without a name) and layer, blocks aside."""
    for layer in layers:
        if isinstance(layer, nn.Residual):
            for side in ("branch", "skip"):
                yield from layers_of(getattr(layer, side), f"{path}{layer.name}/{side}/")
        elif isinstance(layer, nn.Concat):
            for number, part in enumerate(layer.parts):
                yield from layers_of(part, f"{path}{layer.name}/{number}/")
        else:
            yield path + getattr(layer, "name", ""), layer


@each_network
def test_every_layer_stands_in_the_graph_exactly_once(network: nn.Network):
    tree = [(path if hasattr(layer, "name") else "", layer) for path, layer in layers_of(network.layers)]
    lowered = []
    for step in nn.graph(network):
        if isinstance(step, nn.Join):
            continue
        terms = (*step.maps, *step.skips) if isinstance(step, nn.Sum) else (step,)
        lowered += [(term.path, term.layer) for term in terms if term.layer is not None]
    assert Counter(lowered) == Counter(tree)
    named = [(path, layer) for path, layer in tree if path]
    assert list(named_layers(network).items()) == named
    assert len({path for path, _ in named}) == len(named)
    linear = {path: layer for path, layer in named if isinstance(layer, nn.Conv | nn.Dense)}
    assert {path: entry.layer for path, entry in linear_maps(network).items()} == linear
    functions = [layer for _, layer in tree if isinstance(layer, nn.Activation)]
    assert Counter(activations(network)) == Counter(functions)
    assert is_homogeneous(network) == all(act.kind in ("relu", "leaky_relu", "identity") for act in functions)


@each_network
def test_a_sum_is_called_by_its_first_map(network: nn.Network):
    for node in sums(network):
        assert node.features == node.shape[-1]
        ends = [one.path for one in node.maps if not one.path.startswith(f"{node.name}/skip/")]
        assert node.path == (ends[0] if ends else node.name)
        if node.name != node.path:  # the end of a block
            assert node.path.startswith(f"{node.name}/branch/")
    paths = [node.path for node in sums(network)]
    assert len(set(paths)) == len(paths)


@each_network
def test_parameters_by_layer_and_nested_are_the_same(network: nn.Network):
    params = nn.init(network, jax.random.key(0))
    layers = nn.by_layer(params)
    again = nn.nested(layers)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True))
    assert nn.by_layer(again) == layers
    assert nn.by_layer(flax.core.freeze(params)) == layers
    shapes = {f"{path}/{name}": leaf.shape for path, held in layers.items() for name, leaf in held.items()}
    assert shapes == nn.parameter_shapes(network)
    places = [path.rpartition("/")[0] for path in nn.parameter_shapes(network)]
    assert list(dict.fromkeys(places)) == [path for path in named_layers(network) if path in layers]


def test_equal_networks_have_one_graph_and_others_another():
    network = NETWORKS["digits_resnet"]
    again = nn.Network(network.input_shape, (*network.layers,))
    assert again is not network
    assert nn.graph(again) is nn.graph(network)
    assert len({nn.graph(each) for each in NETWORKS.values()}) == len(set(NETWORKS.values()))
    wider = replace(network, layers=(*network.layers[:-1], nn.Dense("linear", 9)))
    assert nn.graph(wider) != nn.graph(network)
    assert nn.graph(wider)[:-1] == nn.graph(network)[:-1]


def test_a_graph_is_a_static_argument():
    traced = []

    def read(steps: tuple[nn.Step, ...], x: jax.Array) -> jax.Array:
        traced.append(len(steps))
        return x * len(steps)

    run = jax.jit(read, static_argnums=0)
    for name in ("vectors", "vectors", "one layer"):
        run(nn.graph(NETWORKS[name]), jnp.ones(2))
    assert traced == [5, 1]


# The layers themselves, their export, their lowering, their rewriting, and a writer of networks.
MAY_NAME_BLOCKS = {
    *("nn/__init__.py", "nn/graph.py", "nn/layers.py", "nn/rewrite.py"),
    *("nn/zoo/mobile.py", "nn/zoo/residual.py"),
    *(
        "interop/jaxpr/chart.py",
        "interop/onnx/sequence.py",
        "interop/selections.py",
    ),  # they make networks of other programs' graphs
}


def naming_blocks(root: Path) -> set[str]:
    """Modules of slth whose code, not their prose, names the class of residual blocks or their sides."""
    found = set()
    for path in (root / "slth").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, field, None) for field in ("id", "attr", "name")]
            if "Residual" in names:
                found.add(str(path.relative_to(root / "slth")))
    return found


def test_no_reader_asks_how_blocks_nest(root: Path):
    assert naming_blocks(root) == MAY_NAME_BLOCKS


@pytest.mark.parametrize(
    "text", ["from slth.nn import Conv, Residual", "x = nn.Residual", "class Residual: pass", "Residual()"]
)
def test_a_reader_that_asks_is_seen(tmp_path: Path, text: str):
    (tmp_path / "slth").mkdir()
    (tmp_path / "slth" / "new.py").write_text(f'"""Residual."""\n{text}\n')
    (tmp_path / "slth" / "other.py").write_text('"""Of `Residual` blocks."""\n')
    assert naming_blocks(tmp_path) == {"new.py"}
