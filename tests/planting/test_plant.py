"""A planted ticket computes its target exactly, at the density asked for, and does not stand out."""

import jax
import numpy as np
import pytest

import slth
from slth import nn, planting, pruning
from tests.construction.nets import random_params


def with_some_zeros(network: nn.Network, share: float, seed: int = 0) -> slth.Target:
    """Random parameters, biases too, of which a share is 0."""
    draw = np.random.default_rng(seed)
    params = random_params(network, draw)
    return slth.Target.of(network, jax.tree.map(lambda a: a * (draw.random(a.shape) >= share), params))


PAD = nn.same_padding((3, 3))
RELU = nn.Activation("relu")
NETWORKS = {
    "flattened in PyTorch's order": nn.Network(
        (4, 4, 2),
        (
            nn.Conv("a", 3, (3, 3), padding=PAD),
            RELU,
            nn.Pool("max", (2, 2)),
            nn.Flatten("chw"),
            nn.Dense("b", 3),
        ),
    ),
    "a carried skip": nn.Network(
        (4, 4, 1),
        (
            nn.Conv("a", 3, (3, 3), padding=PAD),
            RELU,
            nn.Residual("block", (nn.Conv("b", 4, (3, 3), padding=PAD), RELU, nn.Conv("c", 3, (1, 1)))),
            RELU,
            nn.GlobalMean(),
            nn.Dense("d", 2),
        ),
    ),
    "a projection": nn.Network(
        (4, 4, 1),
        (
            nn.Conv("a", 2, (3, 3), padding=PAD),
            RELU,
            nn.Residual("block", (nn.Conv("b", 4, (3, 3), (2, 2), PAD),), (nn.Conv("c", 4, (1, 1), (2, 2)),)),
            RELU,
            nn.Flatten(),
            nn.Dense("d", 2),
        ),
    ),
    "option A": nn.Network(
        (4, 4, 1),
        (
            nn.Conv("a", 2, (3, 3), padding=PAD),
            RELU,
            nn.Residual(
                "block", (nn.Conv("b", 4, (3, 3), (2, 2), PAD),), (nn.Subsample((2, 2), (-1, 0, 1, -1)),)
            ),
            RELU,
            nn.GlobalMean(),
            nn.Dense("d", 2),
        ),
    ),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_planted_ticket_is_its_target(network: nn.Network):
    target = with_some_zeros(network, 0.3)
    planted = planting.plant(target, ratio=2.5, seed=4)
    x = np.random.default_rng(1).normal(size=(6, *network.input_shape)).astype(np.float32)
    goal = target(x)
    assert np.abs(planted(x) - goal).max() < 2e-5 * np.abs(goal).max()
    wanted = {path: np.count_nonzero(w) for path, w in pruning.kernels(network, target.params).items()}
    assert {path: int(kept.sum()) for path, kept in pruning.kernels(network, planted.mask).items()} == wanted
    kept_biases = pruning.masked(
        planted.params, pruning.mask_of(planted.network, pruning.kept_weights(planted.network, planted.mask))
    )
    assert (
        np.abs(planted.factor * nn.predict(planted.network, kept_biases, x) - goal).max()
        < 2e-5 * np.abs(goal).max()
    ), "every bias may be kept"
    assert np.abs(planted.factor * nn.predict(planted.network, planted.params, x) - goal).max() > 0.01, (
        "the random weights are there"
    )


@pytest.mark.parametrize("density", [0.3, 0.05])
def test_the_density_is_the_largest_that_is_not_above_the_one_asked_for(density: float):
    target = planting.circle(3)
    planted = planting.plant(target, density=density)
    assert planted.density <= density
    assert planted.density == planted.kept / sum(
        np.size(w) for w in pruning.kernels(planted.network, planted.params).values()
    )
    widths = [layer.features for layer in planted.network.layers if isinstance(layer, nn.Dense)]
    narrower = planting.plant(target, ratio=(max(widths) - 1) / 12)
    assert narrower.density > density


@pytest.mark.parametrize("init", ["he_uniform", "he_normal"])
def test_planted_weights_are_as_large_as_random_ones(init: str):
    planted = planting.plant(planting.helix(), density=0.02, init=init, seed=2)
    ratios, largest = [], []
    masks = pruning.kept_weights(planted.network, planted.mask)
    for path, w in pruning.kernels(planted.network, planted.params).items():
        w, kept = np.abs(np.asarray(w)), masks[path]
        rms = np.sqrt((w[~kept] ** 2).mean())
        ratios.append((w[kept] / rms) ** 2)
        largest.append(w[kept].max() / w[~kept].max())
    assert abs(np.sqrt(np.concatenate(ratios).mean()) - 1) < 0.05
    assert max(largest) < 1.0


def test_larger_planted_weights_are_found_by_their_size():
    hidden, seen = (planting.plant(planting.helix(), density=0.1, size=size, seed=3) for size in (1.0, 30.0))
    x = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    assert np.abs(seen(x) - planting.helix()(x)).max() < 1e-4
    found = []
    for one in (hidden, seen):
        method = pruning.Magnitude(pruning.Given(one.densities))
        mask = method.prune(one.network, one.params, one.density).mask
        found.append(planting.overlap(one.network, mask, one.mask).recall)
    assert found[0] < 0.4
    assert found[1] > 0.9


def test_a_seed_is_a_network_and_a_place():
    target = planting.relu()
    one, same, other = (planting.plant(target, ratio=20, seed=seed) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one.params, same.params))
    assert planting.overlap(one.network, one.mask, same.mask).jaccard == 1
    assert planting.overlap(one.network, one.mask, other.mask).jaccard < 1


def test_labels_are_in_the_units_of_the_network():
    planted = planting.plant(planting.relu(), density=0.1)
    data = planting.samples("relu", 10, 100)
    own = nn.predict(planted.network, planted.ticket, data.test_images)
    assert np.abs(own - planted.labels(data.test_labels)).max() < 1e-6
    classes = np.array([0, 1])
    assert planted.labels(classes) is classes


def test_a_constructed_ticket_is_there_without_planting():
    target = with_some_zeros(nn.Network((4,), (nn.Dense("a", 3), RELU, nn.Dense("b", 2))), 0)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    source = slth.Source.of(target, copies=8, depth="2L")
    made = slth.construct(target, source, slth.Best())
    planted = planting.Planted.of(made)
    assert planted.kind == "constructed 2L"
    assert np.abs(planted(x) - made.ticket(x)).max() < 1e-5
    all_biases = pruning.mask_of(source.network, pruning.kept_weights(source.network, made.mask))
    outputs = nn.predict(source.network, pruning.masked(planted.params, all_biases), x)
    assert np.abs(made.factor * outputs - made.ticket(x)).max() < 1e-5


TINY = planting.relu()
GELU = slth.Target(
    nn.Network(
        (1,), (nn.Dense("a", 1, use_bias=False), nn.Activation("gelu"), nn.Dense("b", 1, use_bias=False))
    ),
    {"a": {"kernel": np.ones((1, 1), np.float32)}, "b": {"kernel": np.ones((1, 1), np.float32)}},
)
GROUPED = nn.Network((4, 4, 2), (nn.Conv("a", 2, (3, 3), groups=2), nn.Flatten(), nn.Dense("b", 2)))
FLAT = slth.Target(
    nn.Network((2,), (nn.Dense("a", 2, use_bias=False),)), {"a": {"kernel": np.eye(2, dtype=np.float32)}}
)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: planting.plant(TINY), "expected one of density and ratio"),
        (lambda: planting.plant(TINY, density=0.1, ratio=2), "expected one of density and ratio"),
        (lambda: planting.plant(TINY, ratio=2, size=0.0), "size: expected a positive number"),
        (lambda: planting.plant(TINY, ratio=0.5), "ratio: expected 1 or more"),
        (lambda: planting.plant(TINY, density=-0.5), "density: expected a positive number"),
        (lambda: planting.plant(planting.circle(), density=0.9), "the target itself has the density 0.684"),
        (lambda: planting.plant(GELU, ratio=2), "not positively homogeneous"),
        (lambda: planting.widened(GROUPED, 2, 0), "network: a is a grouped convolution"),
        (lambda: planting.plant(FLAT, density=0.1), "no hidden layer"),
        (lambda: planting.plant(TINY.network, ratio=2), "target: expected a slth.Target, got Network"),
    ],
)
def test_what_is_refused(call, said: str, unchecked: None):
    with pytest.raises(ValueError, match=said):
        call()
