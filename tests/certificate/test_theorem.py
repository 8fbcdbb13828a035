"""Theorem 2: its amplification against networks that attain it, its guarantee against real tickets."""

import math
from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from slth import nn
from slth.certificate import theorem as module
from slth.certificate.domain import box, examples
from slth.certificate.growth import log_growth, subset_sizes
from slth.certificate.nodes import nodes_of
from slth.certificate.reads import input_sums
from slth.certificate.theorem import theorem
from slth.construct import Solver, construct, source_network
from slth.construct.univariate import with_small_alpha
from slth.nn.layers import Residual
from slth.source import Source, layer_scale, parameters
from slth.subset_sum.theory import required_multiplicity
from tests.construct.nets import PLAIN, RESIDUAL, images, source_of, target_of
from tests.construct.reference import forward, linear, masked

NETS = {name: (network, "carried") for name, network in PLAIN.items()} | RESIDUAL
# Kernels that meet no padding on some way to an output: there the worst case is attained.
ATTAINED = (
    *("one axis", "vectors", "flat images", "convolution last", "one layer"),
    *("dense block", "dense block, random", "dense block, projection"),
)
TICKETS = ("one axis", "vectors", "option A", "projection, random", "dense block, random")
M = 10


@cache
def built(name: str, m: int = M, seed: int = 0):
    network, skip = NETS[name]
    target, params = target_of(network, seed)
    source = source_of(target, m, seed=seed, skip=skip, copies_per_sign=16, constants=16)
    made = construct(target, params, source, Solver(objective="best"))
    return target, params, source, made


def error_of(target, params, source, made, x) -> float:
    """Largest |target - ticket| in float64."""
    kept = masked(made.mask, parameters(source))
    found = made.factor * forward(source.network, kept, x)[""]
    return float(np.abs(found - forward(target, params, x)[""]).max())


@pytest.mark.parametrize("name", TICKETS)
def test_a_ticket_within_its_budgets_is_within_epsilon(name: str):
    target, params, source, made = built(name)
    x = images(target, 8)
    one = theorem(target, made, source, examples(x), epsilon=1.0, delta=0.01)
    # Budgets grow with epsilon: the least epsilon that this ticket satisfies.
    least = max(b.reached / b.tolerance for b in one.layers if b.reached is not None) * (1 + 1e-9)
    kept = theorem(target, made, source, examples(x), epsilon=least, delta=0.01)
    assert kept.satisfied
    assert not theorem(target, made, source, examples(x), epsilon=0.999 * least, delta=0.01).satisfied
    error = error_of(target, params, source, made, x)
    assert kept.guaranteed is not None
    assert 0 < error <= kept.guaranteed <= least


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["flat images", "vectors"])
def test_what_is_guaranteed_on_a_box_holds_at_its_corners(name: str, seed: int):
    target, params, source, made = built(name, seed=seed)
    found = theorem(target, made, source, box(-1.0, 0.5), epsilon=1.0, delta=0.01)
    corners = np.random.default_rng(seed).choice([-1.0, 0.5], (200, *target.input_shape))
    assert found.guaranteed is not None
    assert error_of(target, params, source, made, corners) <= found.guaranteed


def test_two_layers_are_guaranteed_what_the_formula_says():
    target, _, source, made = built("flat images")
    x = images(target, 30)
    first, second = made.records
    scales = [layer_scale(source, path) for path in ("a", "b")]
    hidden = np.maximum(forward(target, made.params, x)["a"], 0)
    read = [np.abs(x).reshape(len(x), -1).sum(1).max(), hidden.sum(1).max()]  # no weight is zero
    errors = [record.stats.max_error * scale for record, scale in zip(made.records, scales, strict=True)]
    gain = scales[1] * min(len(second.stats.sizes) - 1, M) * 6
    wanted = errors[0] * (1 + read[0]) * gain + errors[1] * (1 + read[1])
    found = theorem(target, made, source, examples(x), epsilon=1.0, delta=0.01)
    assert found.guaranteed == pytest.approx(made.factor * wanted, rel=1e-6)
    assert found.layers[0].reached == first.stats.max_error
    budgets = [layer.tolerance * scale for layer, scale in zip(found.layers, scales, strict=True)]
    share = 1 / made.factor / 2
    assert budgets[1] == pytest.approx(share / (1 + read[1]), rel=1e-6)
    assert budgets[0] == pytest.approx(share / (1 + read[0]) / (scales[1] * M * 6), rel=1e-6)


@pytest.mark.parametrize("kind, own_biases", [("relu", True), ("tanh", True), ("sigmoid", False)])
def test_offsets_and_means_that_constants_carry_are_counted(kind: str, own_biases: bool):
    act = nn.Activation(kind)
    layers = (nn.Conv("a", 3, (3, 3), padding=nn.same_padding((3, 3))), act)
    layers += (nn.Conv("b", 3, (3, 3), (2, 2), nn.same_padding((3, 3))), act, nn.Flatten(), nn.Dense("c", 3))
    target, params = target_of(nn.Network((4, 4, 2), layers))
    wide = source_network(target, M, copies_per_sign=16, constants=30, own_biases=own_biases)
    source = with_small_alpha(Source(wide, 0, M, init="he_uniform"), nn.activation_info(kind), 1.0)
    calibration = np.clip(images(target, 64, seed=5), -1, 1)
    solver = Solver(objective="robust")
    made = construct(target, params, source, solver, jnp.asarray(calibration))
    x = np.clip(images(target, 8), -1, 1)
    found = theorem(target, made, source, examples(x), epsilon=1.0, delta=0.01, calibration=calibration)
    assert found.guaranteed is not None
    assert error_of(target, params, source, made, x) <= found.guaranteed
    for node, record in zip(nodes_of(target, made.params, source), made.records, strict=True):
        assert record.stats.problems <= node.problems * (M if node.copied else 1)


def worst_case(target, nodes, sizes):
    """The target with all weights sigma q: with them an error grows as much as the theorem allows."""
    flat = {}
    for node in nodes:
        for entry in node.maps:
            kernel = entry.sigma * sizes[entry.path] * (entry.kernel != 0)
            flat[f"{entry.path}/kernel"] = kernel
        flat[f"{node.path}/bias"] = np.zeros(node.features)
    solved = {entry.path: entry.layer for node in nodes for entry in node.maps[1:]}

    def rebuilt(layers, path):
        out = []
        for layer in layers:
            if isinstance(layer, Residual):
                inside = f"{path}{layer.name}/"
                skip = [one for at, one in solved.items() if at.startswith(f"{inside}skip/")]
                skip = tuple(replace(one, use_bias=False) for one in skip) or layer.skip
                layer = replace(layer, branch=rebuilt(layer.branch, f"{inside}branch/"), skip=skip)
            elif hasattr(layer, "use_bias"):
                layer = replace(layer, use_bias=True)
            out.append(layer)
        return tuple(out)

    return nn.Network(target.input_shape, rebuilt(target.layers, "")), flat


@pytest.mark.parametrize("name", NETS)
def test_no_error_grows_more_than_the_amplification_and_the_worst_network_attains_it(name: str):
    network, skip = NETS[name]
    target, params = target_of(network)
    source = source_of(target, 3, skip=skip)
    nodes = nodes_of(target, params, source)
    sizes = subset_sizes(nodes, source, 3)
    grown = log_growth(target, nodes, sizes)
    assert list(grown) == [node.path for node in nodes]
    worst, flat = worst_case(target, nodes, sizes)
    x = np.zeros((1, *target.input_shape))
    for node in nodes:
        shifted = flat | {f"{node.path}/bias": flat[f"{node.path}/bias"] + 1}
        change = forward(worst, tree(shifted), x)[""].max()
        allowed = math.exp(grown[node.path])
        assert change <= allowed * (1 + 1e-9)
        if name in ATTAINED:
            assert change == pytest.approx(allowed, rel=1e-9)


def tree(flat):
    return unflatten_dict({tuple(path.split("/")): value for path, value in flat.items()})


@pytest.mark.parametrize("name", ["strided", "pooled", "projection", "option A, random"])
def test_input_sums_of_images_are_exact(name: str):
    network, skip = NETS[name]
    target, params = target_of(network)
    x = images(target, 40)
    nodes = nodes_of(target, params, source_of(target, 2, skip=skip))
    sums, reach = input_sums(target, params, nodes, examples(x))
    assert reach == pytest.approx(np.abs(x).max())
    values = forward(target, params, x)
    first = nodes[0].maps[0]
    wanted = linear(first.layer, 1.0 * (first.kernel != 0), np.abs(x).astype(np.float64)).max()
    assert sums[first.path] == pytest.approx(wanted, rel=1e-8)
    block = next((layer for layer in target.layers if isinstance(layer, Residual)), None)
    if block is not None:  # the branch's first layer reads what the block reads
        read = np.maximum(values["conv1"], 0)
        path = f"{block.name}/branch/{block.branch[0].name}"
        entry = next(entry for node in nodes for entry in node.maps if entry.path == path)
        wanted = linear(entry.layer, 1.0 * (entry.kernel != 0), np.abs(read)).max()
        assert sums[path] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_input_sums_of_a_box_bound_those_of_its_points(name: str):
    network, skip = NETS[name]
    target, params = target_of(network)
    nodes = nodes_of(target, params, source_of(target, 2, skip=skip))
    draw = np.random.default_rng(1)
    shape = (30, *target.input_shape)
    x = np.concatenate([draw.uniform(-0.5, 1, shape), draw.choice([-0.5, 1.0], shape)])
    inside, _ = input_sums(target, params, nodes, examples(x))
    whole, reach = input_sums(target, params, nodes, box(-0.5, 1))
    assert reach == 1
    assert all(inside[path] <= whole[path] for path in inside)


@pytest.mark.parametrize("name", TICKETS)
def test_problems_are_those_that_a_construction_counts(name: str):
    target, _, source, made = built(name)
    nodes = nodes_of(target, made.params, source)
    assert [node.path for node in nodes] == [record.path for record in made.records]
    counted = {node.path: node.problems * (M if node.copied else 1) for node in nodes}
    assert counted == {record.path: record.stats.problems for record in made.records}


def test_the_required_multiplicity_is_the_least_that_asks_for_no_more():
    target, _, source, made = built("option A")
    nodes = nodes_of(target, made.params, source)
    inputs = input_sums(target, made.params, nodes, box(-1, 1))
    found = theorem(target, made, source, box(-1, 1), epsilon=0.1, delta=0.01)
    setting = module._Setting(target, nodes, source, *inputs, 0.1 / made.factor, 0.01)
    m = found.required_multiplicity
    assert m is not None

    def asked(m: int) -> int:
        tolerances = []
        for node, log_budget in zip(nodes, module._log_budgets(setting, m).values(), strict=True):
            tolerances += [math.exp(log_budget) / entry.scale for entry in node.maps if not entry.raw]
        problems = sum(node.problems * (m if node.copied else 1) for node in nodes)
        return required_multiplicity(min(tolerances), 0.01, problems=problems)

    assert asked(m) <= m
    assert all(asked(fewer) > fewer for fewer in range(1, m))
    assert max(b.required_multiplicity or 0 for b in found.layers[1:]) == m


def test_sparse_sources_need_more_copies():
    """With half of the weights missing, the failure (1 - p + p e^(-1/C))^m falls at most half as fast."""
    target, params = target_of(PLAIN["vectors"])
    dense, sparse = (source_of(target, 4, presence=p) for p in (1.0, 0.5))
    needed = []
    for source in (dense, sparse):
        made = construct(target, params, source, Solver(objective="best"))
        found = theorem(target, made, source, box(-1, 1), epsilon=0.1, delta=0.01)
        needed.append(found.required_multiplicity or 0)
    assert 2 * needed[0] <= needed[1] <= 3 * needed[0]


def test_what_the_first_activation_deviates_is_taken_off_epsilon():
    """tanh(alpha x) is off alpha x by up to u^3 / 3: a wide input range leaves no budget at all."""
    target = nn.Network((3,), (nn.Dense("a", 2), nn.Activation("tanh"), nn.Dense("b", 2)))
    target, params = target_of(target)
    source = source_of(target, 4)
    nodes = nodes_of(target, params, source)
    small, large = (
        module._log_budgets(
            module._Setting(target, nodes, source, {"a": reach, "b": 1.0}, reach, 0.1, 0.01), 4
        )
        for reach in (1e-3, 10.0)
    )
    assert all(math.isfinite(value) for value in small.values())
    assert set(large.values()) == {-math.inf}


def test_sources_of_two_layers_for_each_are_refused():
    target, params = target_of(PLAIN["vectors"])
    wide = source_network(target, 2, copies_per_sign=4, constants=4, depth="2L")
    with pytest.raises(ValueError, match="L\\+1 construction"):
        nodes_of(target, params, Source(wide, 0, 2))


BAD = [(0.0, 0.1), (-1.0, 0.1), (1.0, 0.0), (1.0, 1.0), (math.inf, 0.5)]


@pytest.mark.parametrize("epsilon, delta", BAD)
def test_impossible_wishes_are_refused(epsilon: float, delta: float):
    target, _, source, made = built("one layer")
    with pytest.raises(ValueError, match="epsilon > 0 and 0 < delta < 1"):
        theorem(target, made, source, box(-1, 1), epsilon=epsilon, delta=delta)
