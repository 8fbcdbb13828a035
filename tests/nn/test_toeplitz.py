"""The matrix of a convolution: its product, its pattern, its sparsity and its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from slth.nn.convolution import convolve, correlate, flip
from slth.nn.toeplitz import toeplitz, toeplitz_facts, toeplitz_taps

MODES = ("valid", "same", "full")
SIZES = [
    ((3,), (7,)),
    ((4,), (6,)),
    ((1,), (3,)),
    ((3, 3), (5, 4)),
    ((2, 4), (4, 5)),
    ((1, 2), (3, 3)),
]
# In "same" a kernel far larger than its input has taps that meet no input.
CASES = [(*case, mode) for case in SIZES for mode in MODES]
CASES += [((7,), (2,), "same"), ((7, 2), (2, 3), "same"), ((5,), (2,), "full")]
over_cases = pytest.mark.parametrize("taps, size, mode", CASES)


@over_cases
def test_product_is_the_convolution(taps, size, mode):
    generator = np.random.default_rng(0)
    w, x = generator.normal(size=taps), generator.normal(size=size)
    with jax.enable_x64(True):
        y = np.asarray(toeplitz(w, size, mode)) @ x.ravel()
        np.testing.assert_allclose(y, convolve(x, w, mode).ravel(), atol=1e-13)
        y = np.asarray(toeplitz(flip(w), size, mode)) @ x.ravel()
        np.testing.assert_allclose(y, correlate(x, w, mode).ravel(), atol=1e-13)


def test_one_axis_is_scipys_toeplitz():
    w = np.array([1.0, 2.0, 3.0], np.float32)
    column, row = np.concatenate([w, np.zeros(4)]), np.array([1.0, 0, 0, 0, 0])
    np.testing.assert_array_equal(toeplitz(w, (5,)), linalg.toeplitz(column, row))


def test_blocks_are_toeplitz_in_toeplitz_positions():
    w = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    blocks = np.asarray(toeplitz(w, (4, 5))).reshape(5, 7, 4, 5).swapaxes(1, 2)
    for i, j in np.ndindex(5, 4):
        row = w[i - j] if 0 <= i - j < 2 else np.zeros(3)
        np.testing.assert_array_equal(blocks[i, j], toeplitz(jnp.array(row, "float32"), (5,)))


@pytest.mark.parametrize("taps, size", SIZES)
def test_transpose_of_valid_correlation_is_full_convolution(taps, size):
    w = np.random.default_rng(1).normal(size=taps).astype(np.float32)
    out = tuple(i - r + 1 for i, r in zip(size, taps, strict=True))
    np.testing.assert_array_equal(toeplitz(flip(w), size, "valid").T, toeplitz(w, out, "full"))


@over_cases
def test_facts_are_those_of_the_matrix(taps, size, mode):
    matrix, facts = toeplitz_taps(taps, size, mode), toeplitz_facts(taps, size, mode)
    assert facts.shape == matrix.shape
    assert facts.occupied == (matrix >= 0).sum()
    assert facts.sparsity == pytest.approx((matrix < 0).mean(), abs=1e-15)
    assert facts.weights == len(set(matrix.ravel()) - {-1})
    weights = 1.0 + np.arange(np.prod(taps), dtype=np.float32).reshape(taps)
    assert facts.weights == len(set(np.asarray(toeplitz(weights, size, mode)).ravel()) - {0.0})


def test_sparsity_in_closed_form():
    assert toeplitz_facts((3, 3), (28, 28), "valid").sparsity == pytest.approx(1 - 9 / 784)
    assert toeplitz_facts((3,), (10,), "full").sparsity == pytest.approx(1 - 3 / 12)
    assert toeplitz_facts((7,), (2,), "same").weights == 3  # taps 2, 3 and 4 of seven


def test_gradient_gathers_the_shared_entries():
    # Each tap stands in the full matrix once for each input.
    counts = jax.grad(lambda w: toeplitz(w, (4, 5)).sum())(jnp.ones((2, 3)))
    assert counts.tolist() == [[20.0] * 3] * 2


@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value():
    with pytest.raises(ValueError, match=r"one axis or two, got \(2,\) and \(3, 3\)"):
        toeplitz(jnp.ones(2), (3, 3))
    with pytest.raises(ValueError, match=r"needs w inside x, got \(4,\) and \(3,\)"):
        toeplitz_facts((4,), (3,), "valid")
    with pytest.raises(ValueError, match="mode must be one of"):
        toeplitz_taps((2,), (3,), "circular")  # pyright: ignore[reportArgumentType]
