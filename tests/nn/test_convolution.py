"""One channel: known answers, SciPy, and the algebra of the two products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from slth.nn.convolution import convolve, correlate, flip, mode_padding, polynomial_product

MODES = ("valid", "same", "full")
PRODUCTS = {
    "convolve": (convolve, signal.convolve),
    "correlate": (correlate, signal.correlate),
}
# Sizes of x and w: odd and even kernels, one tap, kernels as large as x.
SIZES = [
    ((7,), (3,)),
    ((8,), (4,)),
    ((5,), (5,)),
    ((4,), (1,)),
    ((6, 5), (3, 3)),
    ((7, 6), (2, 4)),
    ((4, 5), (4, 1)),
]


def whole_numbers(seed, *shapes):
    """Arrays of integers in [-4, 4], on which float32 is exact, so laws hold to the last bit."""
    generator = np.random.default_rng(seed)
    return [generator.integers(-4, 5, shape).astype(np.float32) for shape in shapes]


def by_definition(x, w):
    """sum_{r + s = i} x[r] w[s], term by term."""
    y = np.zeros([i + r - 1 for i, r in zip(x.shape, w.shape, strict=True)], x.dtype)
    for r in np.ndindex(x.shape):
        for s in np.ndindex(w.shape):
            y[tuple(np.add(r, s))] += x[r] * w[s]
    return y


KNOWN = {  # x, w, mode, x * w, x correlated with w
    "valid": ([1, 2, 4, 8], [1, 10], "valid", [12, 24, 48], [21, 42, 84]),
    "same, even": ([1, 2, 4, 8], [1, 10], "same", [1, 12, 24, 48], [10, 21, 42, 84]),
    "full": ([1, 2, 4, 8], [1, 10], "full", [1, 12, 24, 48, 80], [10, 21, 42, 84, 8]),
    "same, odd": ([1, 2, 4], [1, 10, 100], "same", [12, 124, 240], [210, 421, 42]),
    "one tap": ([1, 2], [3], "valid", [3, 6], [3, 6]),
    "same, wide": ([1, 2], [1, 10, 100, 0, 0], "same", [120, 200], [100, 210]),
    "two axes": ([[1, 2], [3, 4]], [[1, 10]], "valid", [[12], [34]], [[21], [43]]),
}


@pytest.mark.parametrize("x, w, mode, convolved, correlated", KNOWN.values(), ids=KNOWN.keys())
def test_known_answers(x, w, mode, convolved, correlated):
    x, w = jnp.array(x, jnp.float32), jnp.array(w, jnp.float32)
    assert convolve(x, w, mode).tolist() == convolved
    assert correlate(x, w, mode).tolist() == correlated


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("size, taps", SIZES)
def test_equals_scipy_in_float64(name, mode, size, taps):
    ours, theirs = PRODUCTS[name]
    generator = np.random.default_rng(3)
    x, w = generator.normal(size=size), generator.normal(size=taps)
    with jax.enable_x64(True):
        y = ours(x, w, mode)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, theirs(x, w, mode, method="direct"), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size, taps", [*SIZES, ((2,), (5,)), ((2, 3), (4, 2))])
def test_full_is_the_definition(size, taps):
    x, w = whole_numbers(0, size, taps)
    np.testing.assert_array_equal(convolve(x, w, "full"), by_definition(x, w))


# Laws


@st.composite
def problems(draw, arrays):
    """A seed of arrays, and the sizes of so many: few sizes, so that few programs are compiled."""
    rank = draw(st.sampled_from([1, 2]))
    sizes = st.sampled_from([1, 2, 3, 5] if rank == 1 else [1, 2, 3])
    shapes = [tuple(draw(sizes) for _ in range(rank)) for _ in range(arrays)]
    return whole_numbers(draw(st.integers(0, 2**32 - 1)), *shapes)


laws = settings(max_examples=15, deadline=None)


@laws
@given(problems(2))
def test_convolution_commutes(problem):
    x, w = problem
    np.testing.assert_array_equal(convolve(x, w), convolve(w, x))


@laws
@given(problems(3))
def test_convolution_associates(problem):
    x, v, w = problem
    np.testing.assert_array_equal(convolve(convolve(x, v), w), convolve(x, convolve(v, w)))


@laws
@given(problems(2), st.sampled_from(MODES), st.sampled_from(list(PRODUCTS)), st.integers(0, 99))
def test_products_are_linear_in_both(problem, mode, name, seed):
    x, w = problem
    if mode == "valid":
        w = w[tuple(slice(0, i) for i in x.shape)]
    product = PRODUCTS[name][0]
    x2, w2 = whole_numbers(seed, x.shape, w.shape)
    np.testing.assert_array_equal(
        product(3 * x - x2, w, mode), 3 * product(x, w, mode) - product(x2, w, mode)
    )
    np.testing.assert_array_equal(
        product(x, 3 * w - w2, mode), 3 * product(x, w, mode) - product(x, w2, mode)
    )


@laws
@given(problems(2), st.sampled_from(MODES))
def test_convolution_is_correlation_with_the_flipped_kernel(problem, mode):
    x, w = problem
    if mode == "valid":
        w = w[tuple(slice(0, i) for i in x.shape)]
    np.testing.assert_array_equal(convolve(x, w, mode), correlate(x, flip(w), mode))
    np.testing.assert_array_equal(correlate(x, w, mode), convolve(x, flip(w), mode))


@laws
@given(problems(2))
def test_modes_are_parts_of_full_and_valid_on_padded_input(problem):
    x, w = problem
    for product in (convolve, correlate):
        full = np.asarray(product(x, w, "full"))
        padded = np.pad(x, [(r - 1, r - 1) for r in w.shape])
        np.testing.assert_array_equal(product(padded, w, "valid"), full)
        sizes = list(zip(x.shape, w.shape, strict=True))
        # A correlation lists its positions from -(R - 1), a convolution from 0: "same" keeps I
        # values from (R - 1) // 2 of both lists.
        same = tuple(slice((r - 1) // 2, (r - 1) // 2 + i) for i, r in sizes)
        np.testing.assert_array_equal(product(x, w, "same"), full[same])
        if all(r <= i for i, r in sizes):
            valid = tuple(slice(r - 1, i) for i, r in sizes)
            np.testing.assert_array_equal(product(x, w, "valid"), full[valid])


@laws
@given(problems(1), st.sampled_from(MODES))
def test_one_is_the_identity(problem, mode):
    (x,) = problem
    one = np.ones((1,) * x.ndim, np.float32)
    np.testing.assert_array_equal(convolve(x, one, mode), x)
    np.testing.assert_array_equal(correlate(x, one, mode), x)


@laws
@given(problems(2))
def test_exchanging_a_correlation_flips_it(problem):
    x, w = problem
    swapped = correlate(w, x, "full")
    np.testing.assert_array_equal(swapped, flip(correlate(x, w, "full")))


def test_correlation_neither_commutes_nor_associates():
    x, v, w = (jnp.array(a) for a in ([1.0, 2.0], [1.0, 3.0], [1.0, 5.0]))
    assert correlate(x, w, "full").tolist() == [5, 11, 2]
    assert correlate(w, x, "full").tolist() == [2, 11, 5]
    left = correlate(correlate(x, v, "full"), w, "full")
    right = correlate(x, correlate(v, w, "full"), "full")
    assert left.tolist() != right.tolist()


def test_symmetric_padding_belongs_to_odd_kernels():
    for taps in range(1, 8):
        ((before, after),) = mode_padding("same", (taps,))
        assert before + after == taps - 1
        assert before - after == (taps + 1) % 2


def test_flip_is_the_rotation_by_180_degrees():
    w = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(flip(w), np.rot90(w, 2))
    np.testing.assert_array_equal(flip(flip(w)), w)


@laws
@given(problems(2))
def test_polynomials_multiply(problem):
    p, q = problem
    product = np.asarray(polynomial_product(p, q)).astype(np.float64)
    z = (0.5, -0.25)[: p.ndim]  # powers of two: the values are exact
    value = np.polynomial.polynomial.polyval if p.ndim == 1 else np.polynomial.polynomial.polyval2d
    assert value(*z, product) == value(*z, p) * value(*z, q)
    if p.ndim == 1:
        np.testing.assert_array_equal(product, np.convolve(p, q))


# Transforms and refusals


def test_jit_vmap_and_dtype():
    x, w = whole_numbers(5, (3, 7), (3, 4))
    batched = jax.jit(jax.vmap(lambda x, w: convolve(x, w, "same")))(x, w)
    np.testing.assert_array_equal(batched, np.stack([convolve(*xw, "same") for xw in zip(x, w, strict=True)]))
    half = convolve(jnp.asarray(x[0], jnp.bfloat16), jnp.asarray(w[0], jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


REFUSALS = {
    "mode": ((4,), (2,), "SAME", ValueError, r"mode must be one of .* got 'SAME'"),
    "axes": ((4, 4), (2,), "full", ValueError, r"one axis or two, got \(4, 4\) and \(2,\)"),
    "three axes": ((2, 2, 2), (1, 1, 1), "full", ValueError, "one axis or two"),
    "empty": ((4,), (0,), "full", ValueError, r"must not be empty, got \(4,\) and \(0,\)"),
    "too large": ((4, 4), (2, 5), "valid", ValueError, r"needs w inside x, got \(2, 5\)"),
}


@pytest.mark.parametrize("size, taps, mode, error, message", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value(size, taps, mode, error, message):
    with pytest.raises(error, match=message):
        convolve(jnp.ones(size), jnp.ones(taps), mode)


@pytest.mark.usefixtures("unchecked")
def test_dtypes_are_refused_rather_than_converted():
    with pytest.raises(TypeError, match="floating and of one dtype, got int32"):
        convolve(jnp.ones(3, jnp.int32), jnp.ones(2, jnp.int32))
    with pytest.raises(TypeError, match="got float32 and bfloat16"):
        convolve(jnp.ones(3), jnp.ones(2, jnp.bfloat16))
