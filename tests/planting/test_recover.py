"""Overlap of masks against chance, and scores."""

from itertools import combinations

import numpy as np
import pytest

from slth import nn, planting

NETWORK = nn.Network((3,), (nn.Dense("a", 4), nn.Activation("relu"), nn.Dense("b", 2)))


def mask(draw: np.random.Generator, share: float) -> dict:
    shapes = nn.parameter_shapes(NETWORK)
    return {
        layer: {name: draw.random(shapes[f"{layer}/{name}"]) < share for name in ("kernel", "bias")}
        for layer in ("a", "b")
    }


@pytest.mark.parametrize(
    "n, a, b", [(5, 2, 3), (6, 1, 1), (6, 6, 2), (4, 0, 2), (7, 4, 5), (3, 0, 0), (3, 3, 3)]
)
def test_chance_is_the_mean_over_all_masks(n: int, a: int, b: int):
    one, values = set(range(a)), []
    for other in combinations(range(n), b):
        either = len(one | set(other))
        values.append(len(one & set(other)) / either if either else 1.0)
    assert planting.chance(n, a, b) == pytest.approx(np.mean(values), abs=1e-12)


def test_chance_of_many_weights_is_that_of_densities():
    for d, e in ((0.5, 0.5), (0.02, 0.1), (0.9, 0.3)):
        n = 1_000_000
        assert planting.chance(n, round(d * n), round(e * n)) == pytest.approx(
            d * e / (d + e - d * e), rel=1e-4
        )


def test_overlap_counts_kernels_alone_and_adds_up_by_layer():
    draw = np.random.default_rng(0)
    one, other = mask(draw, 0.6), mask(draw, 0.4)
    sets = [
        {(layer, *index) for layer in m for index in np.argwhere(m[layer]["kernel"]).tolist()}
        for m in (one, other)
    ]
    whole = planting.overlap(NETWORK, one, other)
    assert whole == (20, len(sets[0]), len(sets[1]), len(sets[0] & sets[1]))
    assert whole.jaccard == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert whole.recall == len(sets[0] & sets[1]) / len(sets[1])
    layers = planting.overlap_by_layer(NETWORK, one, other)
    assert tuple(np.sum(list(layers.values()), 0)) == whole


def test_random_masks_overlap_by_chance():
    draw = np.random.default_rng(1)
    found = [
        planting.Overlap(400, 80, 40, int((draw.permutation(400)[:80] < 40).sum())).jaccard
        for _ in range(4000)
    ]
    wanted = planting.chance(400, 80, 40)
    spread = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - wanted) < 5 * spread  # false alarm 6e-7


def test_masks_that_do_not_fit_are_refused():
    draw = np.random.default_rng(2)
    one, other = mask(draw, 0.5), mask(draw, 0.5)
    other["b"]["kernel"] = other["b"]["kernel"][:1]
    with pytest.raises(ValueError, match="overlap: b: expected boolean masks of one shape"):
        planting.overlap(NETWORK, one, other)
    with pytest.raises(ValueError, match="chance found: expected an integer in"):
        planting.chance(4, 5, 1)


def test_scores_have_a_free_factor_that_is_not_negative():
    y = np.random.default_rng(3).normal(size=(50, 2))
    noisy = y + 0.3 * np.random.default_rng(4).normal(size=y.shape)
    fitted = min(((y - f * noisy) ** 2).sum() for f in np.linspace(0, 2, 20001))
    assert planting.score(7 * noisy, y) == pytest.approx(1 - fitted / (y**2).sum(), abs=1e-6)
    assert planting.score(-y, y) == planting.score(0 * y, y) == 0
    assert planting.score(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([1, 1])) == 0.5
    with pytest.raises(ValueError, match="score: expected labels of shape"):
        planting.score(y, y[:, :1])


def test_a_found_mask_is_compared_with_the_ticket():
    data = planting.samples("circle", 8, 300)
    planted = planting.plant(planting.circle(3), density=0.3)
    none = {layer: {name: np.zeros_like(a) for name, a in own.items()} for layer, own in planted.mask.items()}
    found = planting.recovery(planted, none, data.test_images, data.test_labels)
    assert found.whole.jaccard == 0
    assert found.found == (data.test_labels == 0).mean()
    assert found.planted == planting.score(planting.circle(3)(data.test_images), data.test_labels)
    assert found.gap == found.planted - found.found
