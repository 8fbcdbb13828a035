"""The largest of several arrays, compiled, are those that a sort finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth.pruning import top, top_by_layer
from slth.pruning.largest import top as top_on_the_host
from slth.pruning.topk import top_with_floor


def sorted_top(values: np.ndarray, count: int) -> np.ndarray:
    """By a stable sort: of equals, the first."""
    kept = np.zeros(values.size, bool)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return kept


CASES = {
    "normal": lambda rng: rng.normal(size=101),
    "equals": lambda rng: rng.integers(-2, 3, 101) / 4,
    "all equal": lambda rng: np.full(7, -0.5),
    "zeros of both signs": lambda rng: np.array([0.0, -0.0, 1.0, -0.0, 0.0, -1.0]),
    "far apart": lambda rng: np.array([1e-38, -1e38, 3e38, -1e-38, np.inf, -np.inf, 0.0]),
}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("draw", CASES.values(), ids=CASES.keys())
def test_the_largest_are_those_of_a_sort(draw, kind):
    values = draw(np.random.default_rng(0)).astype(kind)
    with jax.enable_x64(kind is np.float64):
        for count in {0, 1, values.size // 2, values.size - 1, values.size}:
            kept = np.asarray(jax.jit(top)({"a": jnp.asarray(values)}, count)["a"])
            assert np.array_equal(kept, sorted_top(values, count))
            if np.isfinite(values).all():
                assert np.array_equal(kept, top_on_the_host(values, np.ones(values.size, bool), count))


def test_several_arrays_are_ranked_together_or_each_by_itself():
    rng = np.random.default_rng(1)
    shapes = {"b": (3, 4), "a": (2, 2, 5), "c": (7,)}  # not in the order of the alphabet
    values = {path: (rng.integers(0, 4, shape) / 2).astype(np.float32) for path, shape in shapes.items()}
    flat = np.concatenate([own.ravel() for own in values.values()])
    kept = top(values, 17)
    found = np.concatenate([np.asarray(kept[path]).ravel() for path in shapes])
    assert np.array_equal(found, sorted_top(flat, 17))
    assert {path: own.shape for path, own in kept.items()} == shapes

    counts = {"b": 0, "a": 20, "c": 3}
    for path, own in top_by_layer(values, counts).items():
        assert np.array_equal(np.asarray(own).ravel(), sorted_top(values[path].ravel(), counts[path]))


def test_a_floor_keeps_the_largest_of_each_and_the_total():
    values = {"a": jnp.arange(10.0) + 100, "b": jnp.arange(3.0), "c": jnp.array([-5.0])}
    kept = top_with_floor(values, 8, 2)
    assert {path: np.flatnonzero(own).tolist() for path, own in kept.items()} == {
        "a": [5, 6, 7, 8, 9],
        "b": [1, 2],
        "c": [0],
    }
