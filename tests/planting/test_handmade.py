"""Hand-made targets compute their tasks; samples are what the tasks say."""

import numpy as np
import pytest

from slth import planting
from slth.planting.targets import BOUNDARIES
from slth.pruning import kernels


def grid(inputs: int) -> np.ndarray:
    line = np.linspace(-1, 1, 81, dtype=np.float32)
    return np.stack(np.meshgrid(*[line] * inputs), -1).reshape(-1, inputs)


@pytest.mark.parametrize("pieces", [1, 3, 6])
def test_helix_is_exact_at_its_knots_and_within_the_chords_error(pieces: int):
    pieces *= 8
    knots = np.linspace(-1, 1, pieces + 1, dtype=np.float32)[:, None]
    target = planting.helix(pieces)
    y = np.pi * (5 + 3 * knots.astype(np.float64))
    wanted = np.concatenate([y * np.cos(y), y * np.sin(y), y], 1) / (8 * np.pi)
    assert np.abs(target(knots) - wanted).max() < 1e-4
    x = grid(1)
    y = np.pi * (5 + 3 * x.astype(np.float64))
    error = np.abs(target(x) - np.concatenate([y * np.cos(y), y * np.sin(y), y], 1) / (8 * np.pi))
    bend = (3 * np.pi) ** 2 * (8 * np.pi + 2) / (8 * np.pi)  # of y cos y: at most (y + 2) (3 pi)^2
    assert error.max() <= (2 / pieces) ** 2 / 8 * bend + 1e-4
    assert error[:, 2].max() < 1e-5


def test_circle_is_wrong_near_its_boundaries_alone():
    x = grid(2)
    s = (x.astype(np.float64) ** 2).sum(1)
    wanted = (s > 0.2).astype(int) + (s > 0.5) + (s > 0.7)
    for pieces in (2, 6):
        wrong = planting.circle(pieces)(x).argmax(1) != wanted
        near = np.abs(s[:, None] - BOUNDARIES).min(1)
        assert near[wrong].max() <= 2 / (4 * pieces**2), "a chord is at most h^2 / 4 above x^2"


@pytest.mark.parametrize("name, options", [("relu", {}), ("circle", {"pieces": 2}), ("helix", {"pieces": 5})])
def test_more_depth_changes_nothing_and_costs_a_weight_a_channel(name: str, options: dict):
    short = planting.handmade(name, **options)
    depth = len(kernels(short.network, short.params))
    long = planting.handmade(name, depth=depth + 2, **options)
    x = grid(short.network.input_shape[0])
    assert np.abs(short(x) - long(x)).max() < 2e-6
    counts = [sum(np.count_nonzero(w) for w in kernels(t.network, t.params).values()) for t in (short, long)]
    assert counts[1] - counts[0] == 2 * {"relu": 1, "circle": 1, "helix": 3}[name]


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: planting.relu(1), "relu depth: expected an integer of at least 2, got 1"),
        (lambda: planting.circle(0), "circle pieces: expected an integer of at least 1"),
        (lambda: planting.helix(4, 1), "helix depth: expected an integer of at least 2"),
        (
            lambda: planting.handmade("square"),
            "planted kind: expected one of circle, helix, relu, got 'square'",
        ),
        (lambda: planting.samples("relu", noise=1.0), "samples noise: expected a number in"),
        (lambda: planting.samples("relu", 0), "samples train: expected an integer of at least 1"),
    ],
)
def test_what_is_refused(call, said: str):
    with pytest.raises(ValueError, match=said):
        call()


def test_samples_are_the_same_for_a_seed_and_parts_do_not_mix():
    one, same, other = (planting.samples("circle", 50, 60, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.train_images, same.train_images)
    assert not np.array_equal(one.train_images, other.train_images)
    assert not set(map(tuple, one.train_images.tolist())) & set(map(tuple, one.test_images.tolist()))
    assert np.abs(one.train_images).max() <= 1


def test_noise_is_in_the_training_labels_alone():
    data = planting.samples("circle", 20_000, 500, noise=0.1)
    right = planting.samples("circle", 20_000, 500, noise=0)
    assert np.array_equal(data.test_labels, right.test_labels)
    moved = data.train_labels != right.train_labels
    assert abs(moved.mean() - 0.1) < 0.01  # 20,000 trials: 4.7 standard deviations, false alarm 3e-6
    assert (np.abs(data.train_labels - right.train_labels)[moved] == 1).mean() > 0.95, (
        "to a neighbour, mostly"
    )
    noisy, clean = (planting.samples("helix", 20_000, 10, noise=noise) for noise in (0.05, 0.0))
    assert abs((noisy.train_labels - clean.train_labels).std() - 0.05) < 0.001
