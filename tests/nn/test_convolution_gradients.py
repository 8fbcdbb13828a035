"""Gradients as convolutions against automatic differentiation, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from slth.nn.convolution import (
    convolve,
    correlate,
    correlate_channels,
    flip,
    input_gradient,
    kernel_gradient,
)

# name: size, taps, stride, padding, dilation; n = 2, cin = 3, cout = 4
LAYERS = {
    "valid": ((6, 5), (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "padding 1": ((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "stride 2": ((7, 9), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "stride 2, a row left over": ((8, 8), (3, 3), (2, 2), ((1, 1), (0, 0)), (1, 1)),
    "stride beyond the kernel": ((9, 10), (2, 1), (3, 4), ((0, 0), (1, 0)), (1, 1)),
    "uneven padding": ((5, 6), (3, 4), (2, 1), ((0, 2), (2, 1)), (1, 1)),
    "padding beyond the kernel": ((4, 4), (2, 2), (1, 3), ((3, 2), (4, 5)), (1, 1)),
    "dilation": ((9, 8), (3, 2), (2, 1), ((2, 1), (1, 1)), (2, 3)),
    "one axis": ((11,), (4,), (3,), ((2, 1),), (1,)),
    "one axis, dilation": ((12,), (3,), (2,), ((0, 3),), (3,)),
    "kernel as large as its input": ((3, 3), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
}
over_layers = pytest.mark.parametrize(
    "size, taps, stride, padding, dilation", LAYERS.values(), ids=LAYERS.keys()
)


def by_definition(x, w, stride, padding, dilation):
    """The sum over taps and channels, position by position, in NumPy."""
    taps, pads = w.shape[:-2], [(0, 0), *padding, (0, 0)]
    x = np.pad(x, pads)
    reach = [d * (r - 1) + 1 for r, d in zip(taps, dilation, strict=True)]
    out = [(i - e) // s + 1 for i, e, s in zip(x.shape[1:-1], reach, stride, strict=True)]
    y = np.zeros((len(x), *out, w.shape[-1]))
    for p, r in itertools.product(np.ndindex(*out), np.ndindex(*taps)):
        at = tuple(np.array(stride) * p + np.array(dilation) * r)
        y[(slice(None), *p)] += x[(slice(None), *at)] @ w[r]
    return y


@over_layers
def test_layer_and_gradients(size, taps, stride, padding, dilation):
    generator = np.random.default_rng(1)
    x, w = generator.normal(size=(2, *size, 3)), generator.normal(size=(*taps, 3, 4))
    geometry = (stride, padding, dilation)
    with jax.enable_x64(True):
        y, pullback = jax.vjp(lambda x, w: correlate_channels(x, w, *geometry), x, w)
        np.testing.assert_allclose(y, by_definition(x, w, *geometry), atol=1e-12)
        dy = generator.normal(size=y.shape)
        dx, dw = pullback(jnp.asarray(dy))
        ours_dw = kernel_gradient(x, dy, taps, *geometry)
        ours_dx = input_gradient(dy, w, size, *geometry)
    assert ours_dw.dtype == ours_dx.dtype == np.float64
    np.testing.assert_allclose(ours_dw, dw, atol=1e-12)
    np.testing.assert_allclose(ours_dx, dx, atol=1e-12)


@pytest.mark.parametrize("size, taps", [((9,), (4,)), ((6, 7), (3, 2))])
def test_one_channel(size, taps):
    # dw = x correlated with dy; dx = dy convolved in full with w; against jax.grad and SciPy.
    generator = np.random.default_rng(2)
    x, w = generator.normal(size=size), generator.normal(size=taps)
    with jax.enable_x64(True):
        dy = generator.normal(size=correlate(x, w, "valid").shape)

        def loss(x, w):
            return (correlate(x, w, "valid") * dy).sum()

        dx, dw = jax.grad(loss, argnums=(0, 1))(x, w)
        np.testing.assert_allclose(correlate(x, dy, "valid"), dw, atol=1e-13)
        np.testing.assert_allclose(convolve(dy, w, "full"), dx, atol=1e-13)
        np.testing.assert_allclose(correlate(dy, flip(w), "full"), dx, atol=1e-13)
        many_dw = kernel_gradient(x[None, ..., None], dy[None, ..., None], taps)
        many_dx = input_gradient(dy[None, ..., None], w[..., None, None], size)
    np.testing.assert_allclose(many_dw[..., 0, 0], dw, atol=1e-13)
    np.testing.assert_allclose(many_dx[0, ..., 0], dx, atol=1e-13)
    np.testing.assert_allclose(dw, signal.correlate(x, dy, "valid", "direct"), atol=1e-13)
    np.testing.assert_allclose(dx, signal.convolve(dy, w, "full", "direct"), atol=1e-13)


@pytest.mark.parametrize("mode", ["same", "full"])
@pytest.mark.parametrize("taps", [3, 4])
def test_gradients_of_a_convolution_in_each_mode(mode, taps):
    # y = x * w: dw is part of the correlation of dy with x, dx of that of dy with w.
    generator = np.random.default_rng(4)
    x, w = generator.normal(size=7), generator.normal(size=taps)
    start = {"same": (taps - 1) // 2, "full": 0}[mode]
    with jax.enable_x64(True):
        y, pullback = jax.vjp(lambda x, w: convolve(x, w, mode), x, w)
        dy = generator.normal(size=y.shape)
        dx, dw = pullback(jnp.asarray(dy))
        in_full = np.zeros(7 + taps - 1)
        in_full[start : start + dy.size] = dy
        np.testing.assert_allclose(correlate(in_full, x, "valid"), dw, atol=1e-13)
        np.testing.assert_allclose(correlate(in_full, w, "valid"), dx, atol=1e-13)


def test_jit_of_the_gradients():
    x, w = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 1))
    dy = jnp.ones((1, 3, 3, 1))
    dw = jax.jit(lambda x, dy: kernel_gradient(x, dy, (3, 3), (2, 2), ((1, 1), (1, 1))))(x, dy)
    assert dw[1, 1].tolist() == [[9.0], [9.0]]  # the centre reads no border
    assert dw[0, 0].tolist() == [[4.0], [4.0]]  # the corner reads it in five positions of nine
    dx = jax.jit(lambda dy, w: input_gradient(dy, w, (5, 5), (2, 2), ((1, 1), (1, 1))))(dy, w)
    assert dx[0, :, :, 0].tolist() == [[1, 2, 1, 2, 1], [2, 4, 2, 4, 2]] * 2 + [[1, 2, 1, 2, 1]]


@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value():
    x, w = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
    with pytest.raises(ValueError, match=r"agree in cin .* got \(2, 5, 5, 3\) and \(3, 3, 4, 3\)"):
        correlate_channels(x, jnp.ones((3, 3, 4, 3)))
    with pytest.raises(ValueError, match=r"stride needs one entry for each of 2 axes, got \(2,\)"):
        correlate_channels(x, w, stride=(2,))
    with pytest.raises(ValueError, match=r"must be 1 or more, got \(0, 1\)"):
        correlate_channels(x, w, stride=(0, 1))
    with pytest.raises(ValueError, match=r"taps \(6, 6\) reach beyond an input of size \(5, 5\)"):
        correlate_channels(x, jnp.ones((6, 6, 3, 4)))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3, 4\) of the output, got \(2, 4, 3, 4\)"):
        kernel_gradient(x, jnp.ones((2, 4, 3, 4)), (3, 3))
    with pytest.raises(ValueError, match=r"size \(5,\) does not fit a kernel with taps \(3, 3\)"):
        input_gradient(jnp.ones((2, 3, 3, 4)), w, (5,))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3, 4\) of the output, got \(2, 3, 3, 5\)"):
        input_gradient(jnp.ones((2, 3, 3, 5)), w, (5, 5))
