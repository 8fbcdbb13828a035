"""Theorem 2: its amplification against networks that attain it, its guarantee against real tickets."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import slth
from slth import Best, Robust, Target, construct, nn
from slth.certificate import box, examples, theorem
from slth.certificate.budgets import Reads, log_growth, reads_of, setting_of
from slth.certificate.theorem import Wish, log_budgets
from slth.construction import Construction
from slth.nn.layers import Residual
from slth.source import layer_scale
from slth.subset_sum.theory import required_multiplicity
from tests.certificate.pairs import ticket_of
from tests.construction.nets import PLAIN, RESIDUAL, images, source_of, target_of
from tests.construction.reference import forward, linear

NETS = {name: (network, "carried") for name, network in PLAIN.items()} | RESIDUAL
# Kernels that meet no padding on some way to an output: there the worst case is attained.
ATTAINED = (
    *("one axis", "vectors", "flat images", "convolution last", "one layer"),
    *("dense block", "dense block, random", "dense block, projection"),
)
TICKETS = ("one axis", "vectors", "option A", "projection, random", "dense block, random")
M = 10


@cache
def built(name: str, m: int = M, seed: int = 0) -> Construction:
    network, skip = NETS[name]
    target = Target(*target_of(network, seed))
    source = source_of(target.network, m, seed=seed, skip=skip, copies_per_sign=16, constants=16)
    return construct(target, source, Best())


@cache
def unsolved(name: str, m: int = 2) -> Construction:
    """A target and a source, as budgets know them; nothing is chosen."""
    network, skip = NETS[name]
    return pending(Target(*target_of(network)), m, skip=skip)


def pending(target: Target, m: int, **options) -> Construction:
    source = source_of(target.network, m, **options)
    return Construction(target, source, {}, 1.0, (), target.params, {}, {})


def checked(made: Construction, domain):
    return domain.check(made.target.network.input_shape)


def error_of(made: Construction, x) -> float:
    return float(ticket_of(made).error(x).max())


@pytest.mark.parametrize("name", TICKETS)
def test_a_ticket_within_its_budgets_is_within_epsilon(name: str):
    made = built(name)
    x = images(made.target.network, 8)
    first = theorem(made, examples(x), epsilon=1.0, delta=0.01)
    # Budgets grow with epsilon: the least epsilon that this ticket satisfies.
    least = max(b.reached / b.tolerance for b in first.layers if b.reached is not None) * (1 + 1e-9)
    proof = theorem(made, examples(x), epsilon=least, delta=0.01)
    assert proof.satisfied
    assert not theorem(made, examples(x), epsilon=0.999 * least, delta=0.01).satisfied
    assert proof.guaranteed is not None
    assert 0 < error_of(made, x) <= proof.guaranteed <= least


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["flat images", "vectors"])
def test_what_is_guaranteed_on_a_box_holds_at_its_corners(name: str, seed: int):
    made = built(name, seed=seed)
    proof = theorem(made, box(-1.0, 0.5), epsilon=1.0, delta=0.01)
    corners = np.random.default_rng(seed).choice([-1.0, 0.5], (200, *made.target.network.input_shape))
    assert proof.guaranteed is not None
    assert error_of(made, corners) <= proof.guaranteed


def test_two_layers_are_guaranteed_what_the_formula_says():
    made = built("flat images")
    x = images(made.target.network, 30)
    first, second = made.records
    scales = [layer_scale(made.source, path) for path in ("a", "b")]
    hidden = np.maximum(forward(made.target.network, made.params, x)["a"], 0)
    read = [np.abs(x).reshape(len(x), -1).sum(1).max(), hidden.sum(1).max()]  # no weight is zero
    errors = [record.stats.max_error * scale for record, scale in zip(made.records, scales, strict=True)]
    gain = scales[1] * min(len(second.stats.sizes) - 1, M) * 6
    formula = errors[0] * (1 + read[0]) * gain + errors[1] * (1 + read[1])
    proof = theorem(made, examples(x), epsilon=1.0, delta=0.01)
    assert proof.guaranteed == pytest.approx(made.factor * formula, rel=1e-6)
    assert proof.layers[0].reached == first.stats.max_error
    budgets = [layer.tolerance * scale for layer, scale in zip(proof.layers, scales, strict=True)]
    share = 1 / made.factor / 2
    assert budgets[1] == pytest.approx(share / (1 + read[1]), rel=1e-6)
    assert budgets[0] == pytest.approx(share / (1 + read[0]) / (scales[1] * M * 6), rel=1e-6)


@pytest.mark.parametrize(
    "kind, own_biases",
    [("relu", True), ("relu", False), ("leaky_relu", False), ("tanh", True), ("sigmoid", False)],
)
def test_offsets_and_means_that_constants_carry_are_counted(kind: str, own_biases: bool):
    act = nn.Activation(kind)
    layers = (nn.Conv("a", 3, (3, 3), padding=nn.same_padding((3, 3))), act)
    layers += (nn.Conv("b", 3, (3, 3), (2, 2), nn.same_padding((3, 3))), act, nn.Flatten(), nn.Dense("c", 3))
    target = Target(*target_of(nn.Network((4, 4, 2), layers)))
    options = {"univariate": 16, "constants": 30, "own_biases": own_biases}
    source = slth.Source.of(target, M, reach=1.0, scale=1.0, bias_scale=1.0, **options)
    calibration = np.clip(images(target.network, 64, seed=5), -1, 1)
    made = construct(target, source, Robust(), calibration)
    x = np.clip(images(target.network, 8), -1, 1)
    proof = theorem(made, examples(x), epsilon=1.0, delta=0.01, calibration=calibration)
    assert proof.guaranteed is not None
    assert error_of(made, x) <= proof.guaranteed
    for node, record in zip(setting_of(made).nodes, made.records, strict=True):
        assert record.stats.problems <= node.problems * (M if node.copied else 1)


def worst_case(network, nodes, sizes):
    """The target with all weights sigma q: with them an error grows as much as the theorem allows."""
    layers = {}
    for node in nodes:
        for entry in node.maps:
            layers[entry.path] = {"kernel": entry.sigma * sizes[entry.path] * (entry.weight != 0)}
        layers[node.path]["bias"] = np.zeros(node.features)
    solved = {entry.path: entry.layer for node in nodes for entry in node.maps[1:]}

    def biased(place, before):
        layer = place.layer
        if hasattr(layer, "use_bias"):
            layer = replace(layer, use_bias="/skip/" not in place.path)
        return (*before, layer)

    def with_solved_skip(place, block, value):
        skip = [layer for path, layer in solved.items() if path.startswith(f"{place.path}/skip/")]
        return block._replace(skip=tuple(replace(layer, use_bias=False) for layer in skip) or block.skip)

    return nn.rewrite(network, biased, with_solved_skip), layers


@pytest.mark.parametrize("name", NETS)
def test_no_error_grows_more_than_the_amplification_and_the_worst_network_attains_it(name: str):
    made = unsolved(name, 3)
    setting = setting_of(made)
    sizes = setting.sizes(3)
    grown = log_growth(setting, sizes)
    assert list(grown) == [node.path for node in setting.nodes]
    worst, layers = worst_case(made.target.network, setting.nodes, sizes)
    x = np.zeros((1, *worst.input_shape))
    for node in setting.nodes:
        moved = {**layers[node.path], "bias": layers[node.path]["bias"] + 1}
        change = forward(worst, nn.nested(layers | {node.path: moved}), x)[""].max()
        allowed = math.exp(grown[node.path])
        assert change <= allowed * (1 + 1e-9)
        if name in ATTAINED:
            assert change == pytest.approx(allowed, rel=1e-9)


def test_every_activation_has_its_own_lipschitz_constant():
    """From a through a ReLU, b, a sigmoid (1/4) and c: an error of b meets one of them, one of a both."""
    layers = (
        nn.Dense("a", 3),
        nn.Activation("relu"),
        nn.Dense("b", 3),
        nn.Activation("sigmoid"),
        nn.Dense("c", 2),
    )
    setting = setting_of(pending(Target(*target_of(nn.Network((2,), layers))), 2))
    grown = log_growth(setting, setting.sizes(2))
    gains = [math.log(node.maps[0].gain(2)) for node in setting.nodes]
    assert grown["c"] == 0
    assert grown["b"] == pytest.approx(math.log(0.25) + gains[2])
    assert grown["a"] == pytest.approx(gains[1] + math.log(0.25) + gains[2])


@pytest.mark.parametrize("name", ["strided", "pooled", "projection", "option A, random"])
def test_input_sums_of_images_are_exact(name: str):
    made = unsolved(name)
    network = made.target.network
    x = images(network, 40)
    setting = setting_of(made)
    sums, reach = reads_of(setting, checked(made, examples(x)))
    assert reach == pytest.approx(np.abs(x).max())
    values = forward(network, made.params, x)
    first = setting.nodes[0].maps[0]
    total = linear(first.layer, 1.0 * (first.weight != 0), np.abs(x).astype(np.float64)).max()
    assert sums[first.path] == pytest.approx(total, rel=1e-8)
    block = next((layer for layer in network.layers if isinstance(layer, Residual)), None)
    if block is not None:  # the branch's first layer reads what the block reads
        read = np.maximum(values["conv1"], 0)
        path = f"{block.name}/branch/{block.branch[0].name}"
        entry = next(entry for node in setting.nodes for entry in node.maps if entry.path == path)
        total = linear(entry.layer, 1.0 * (entry.weight != 0), np.abs(read)).max()
        assert sums[path] == pytest.approx(total, rel=1e-6)


def test_leading_layers_stand_before_what_the_first_layer_reads():
    network = nn.Network(
        (2,), (nn.Activation("tanh"), nn.Dense("a", 2), nn.Activation("relu"), nn.Dense("b", 2))
    )
    made = pending(Target(*target_of(network)), 2)
    sums, reach = reads_of(setting_of(made), checked(made, box(-3, 1)))
    assert reach == pytest.approx(math.tanh(3), rel=1e-6)
    assert sums["a"] == pytest.approx(2 * math.tanh(3), rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_input_sums_of_a_box_bound_those_of_its_points(name: str):
    made = unsolved(name)
    setting = setting_of(made)
    draw = np.random.default_rng(1)
    shape = (30, *made.target.network.input_shape)
    x = np.concatenate([draw.uniform(-0.5, 1, shape), draw.choice([-0.5, 1.0], shape)])
    inside, _ = reads_of(setting, checked(made, examples(x)))
    whole, reach = reads_of(setting, checked(made, box(-0.5, 1)))
    assert reach == pytest.approx(1, rel=1e-12)
    assert all(inside[path] <= whole[path] for path in inside)


@pytest.mark.parametrize("name", TICKETS)
def test_problems_are_those_that_a_construction_counts(name: str):
    made = built(name)
    nodes = setting_of(made).nodes
    assert [node.path for node in nodes] == [record.path for record in made.records]
    counted = {node.path: node.problems * (M if node.copied else 1) for node in nodes}
    assert counted == {record.path: record.stats.problems for record in made.records}


def test_the_required_multiplicity_is_the_least_that_asks_for_no_more():
    made = built("option A")
    setting = setting_of(made)
    proof = theorem(made, box(-1, 1), epsilon=0.1, delta=0.01)
    wish = Wish(setting, reads_of(setting, checked(made, box(-1, 1))), 0.1 / made.factor, 0.01)
    required = proof.required_multiplicity
    assert required is not None

    def needed(m: int) -> int:
        tolerances = []
        for node, log_budget in zip(setting.nodes, log_budgets(wish, m).values(), strict=True):
            tolerances += [math.exp(log_budget) / entry.scale for entry in node.maps if not entry.raw]
        problems = sum(node.problems * (m if node.copied else 1) for node in setting.nodes)
        return required_multiplicity(min(tolerances), 0.01, problems=problems)

    assert needed(required) <= required
    assert all(needed(fewer) > fewer for fewer in range(1, required))
    assert max(b.required_multiplicity or 0 for b in proof.layers[1:]) == required


def test_sparse_sources_need_more_copies():
    """With half of the weights missing, the failure (1 - p + p e^(-1/C))^m falls at most half as fast."""
    target = Target(*target_of(PLAIN["vectors"]))
    needed = []
    for presence in (1.0, 0.5):
        made = construct(target, source_of(target.network, 4, presence=presence), Best())
        proof = theorem(made, box(-1, 1), epsilon=0.1, delta=0.01)
        needed.append(proof.required_multiplicity or 0)
    assert 2 * needed[0] <= needed[1] <= 3 * needed[0]


def test_what_the_first_activation_deviates_is_taken_off_epsilon():
    """tanh(alpha x) is off alpha x by up to u^3 / 3: a wide input range leaves no budget at all."""
    network = nn.Network((3,), (nn.Dense("a", 2), nn.Activation("tanh"), nn.Dense("b", 2)))
    setting = setting_of(pending(Target(*target_of(network)), 4))
    small, large = (
        log_budgets(Wish(setting, Reads({"a": reach, "b": 1.0}, reach), 0.1, 0.01), 4)
        for reach in (1e-3, 10.0)
    )
    assert all(math.isfinite(value) for value in small.values())
    assert set(large.values()) == {-math.inf}


def test_sources_of_two_layers_for_each_are_refused():
    target = Target(*target_of(PLAIN["vectors"]))
    made = replace(pending(target, 2), source=slth.Source.of(target, 2, depth="2L"))
    with pytest.raises(ValueError, match="theorem: budgets are those of the L\\+1 construction"):
        theorem(made, box(-1, 1), epsilon=1.0, delta=0.1)


BAD = [(0.0, 0.1), (-1.0, 0.1), (1.0, 0.0), (1.0, 1.0), (math.inf, 0.5)]


@pytest.mark.parametrize("epsilon, delta", BAD)
def test_impossible_wishes_are_refused(epsilon: float, delta: float):
    with pytest.raises(ValueError, match="epsilon > 0 and 0 < delta < 1"):
        theorem(built("one layer"), box(-1, 1), epsilon=epsilon, delta=delta)
