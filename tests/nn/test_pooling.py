"""Pooling against PyTorch's and against windows written out; flatten and subsampling entry by entry."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import nn
from tests.nn.test_layers import channels_last, of_pytorch

PAD = ((1, 1), (1, 1))
CASES = {
    "max": nn.Pool("max", (3, 3), (2, 2), PAD),
    "max_ceil": nn.Pool("max", (2, 3), padding=((1, 1), (0, 0)), incomplete=True),
    "mean": nn.Pool("mean", (3, 3), (2, 2), PAD),
    "mean_counted": nn.Pool("mean", (3, 3), (2, 2), PAD, count_padding=True),
    "mean_ceil": nn.Pool("mean", (3, 3), (2, 2), PAD, incomplete=True),
    "mean_ceil_counted": nn.Pool("mean", (3, 3), (3, 3), PAD, incomplete=True, count_padding=True),
    "mean_1d": nn.Pool("mean", (4,), (3,), ((2, 2),), incomplete=True, count_padding=True),
}


@pytest.mark.parametrize("case", CASES)
def test_pytorch_pools_the_same(case: str):
    net, params, x, held = of_pytorch(case, CASES[case])
    got = np.asarray(nn.apply(net, params, jnp.asarray(x)))
    truth = channels_last(held["output"])
    assert got.shape == truth.shape == (len(x), *net.output_shape)
    np.testing.assert_allclose(got, truth, atol=1e-6)


def windows(size: int, layer: nn.Pool) -> list[list[int]]:
    """The input's positions in each window on one axis; the last may stick out if the layer lets it."""
    (window,), (stride,), ((before, after),) = layer.window, layer.stride, layer.padding
    out = []
    for start in range(-before, size + after, stride):
        end = start + window
        if end <= size + after or (layer.incomplete and start < size):
            out.append([p for p in range(start, end) if 0 <= p < size])
        if end >= size + after:  # all has been seen
            break
    return out


@st.composite
def pools(draw):
    window = draw(st.integers(1, 4))
    layer = nn.Pool(
        draw(st.sampled_from(["max", "mean"])),
        (window,),
        (draw(st.integers(1, 4)),),
        ((draw(st.integers(0, window - 1)), draw(st.integers(0, window - 1))),),
        incomplete=draw(st.booleans()),
    )
    return draw(st.integers(4, 9)), layer


@settings(max_examples=40, deadline=None)
@given(pools())
def test_each_output_is_that_of_its_window(case):
    size, layer = case
    x = np.sin(np.arange(size * 2.0)).reshape(1, size, 2)
    kept = windows(size, layer)
    assert layer.output_shape((size, 2)) == (len(kept), 2)
    take = np.max if layer.kind == "max" else np.mean
    truth = np.stack([take(x[0, w], axis=0) for w in kept])
    got = np.asarray(layer.apply({}, jnp.asarray(x, jnp.float32)))[0]
    np.testing.assert_allclose(got, truth, atol=1e-6)


def test_global_mean_is_the_mean_of_each_channel():
    x = np.arange(24.0, dtype=np.float32).reshape(1, 3, 4, 2)
    assert nn.GlobalMean().apply({}, jnp.asarray(x)).tolist() == [[11.0, 12.0]]
    assert nn.GlobalMean().output_shape((3, 4, 2)) == (2,)


def test_flatten_orders_are_rows_or_channels_first():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    rows = [int(x[0, h, w, c]) for h in range(2) for w in range(3) for c in range(2)]
    channels = [int(x[0, h, w, c]) for c in range(2) for h in range(2) for w in range(3)]
    assert nn.Flatten().apply({}, jnp.asarray(x))[0].tolist() == rows
    assert nn.Flatten("chw").apply({}, jnp.asarray(x))[0].tolist() == channels
    assert nn.Flatten("chw").output_shape((2, 3, 2)) == (12,)


@pytest.mark.parametrize("size", [4, 5])
def test_subsampling_thins_reorders_and_pads_with_zeros(size: int):
    layer = nn.Subsample((2, 3), (-1, 1, 0, -1))
    x = np.arange(1.0, size * 7 * 2 + 1, dtype=np.float32).reshape(1, size, 7, 2)
    got = np.asarray(layer.apply({}, jnp.asarray(x)))[0]
    assert got.shape == layer.output_shape((size, 7, 2)) == (-(-size // 2), 3, 4)
    for row in range(got.shape[0]):
        for column in range(3):
            a, b = x[0, 2 * row, 3 * column]
            assert got[row, column].tolist() == [0, b, a, 0]


REFUSED = {
    "kind": (lambda: nn.Pool("median", (2,)), r"pooling is max or mean, got 'median'"),
    "window 0": (
        lambda: nn.Pool("max", (0,)),
        r"max pooling: window must be at least 1, got \(0,\)",
    ),
    "padding as wide as the window": (
        lambda: nn.Pool("max", (2,), padding=((2, 0),)),
        r"padding \(\(2, 0\),\) must be smaller than the window \(2,\)",
    ),
    "window larger than the input": (
        lambda: nn.Network((2, 2, 1), (nn.Pool("mean", (3, 3)),)),
        r"mean pooling: window \(3, 3\) is larger than its input \(2, 2, 1\)",
    ),
    "another rank": (
        lambda: nn.Network((8, 1), (nn.Pool("max", (2, 2)),)),
        r"max pooling over \(2, 2\) cannot read an input of shape \(8, 1\)",
    ),
    "flatten order": (lambda: nn.Flatten("cwh"), r"flatten order is hwc or chw, got 'cwh'"),
    "absent channel": (
        lambda: nn.Network((4, 4, 2), (nn.Subsample((1, 1), (0, 2)),)),
        r"subsample reads channel 2 of an input of shape \(4, 4, 2\)",
    ),
}


@pytest.mark.parametrize("build, message", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_pooled_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_largest_of_all_positions():
    x = np.random.default_rng(4).normal(size=(3, 4, 5, 2)).astype(np.float32)
    assert np.array_equal(nn.GlobalMax().apply({}, jnp.asarray(x)), x.reshape(3, 20, 2).max(1))
    whole = nn.Pool("max", (4, 5)).apply({}, jnp.asarray(x))
    assert np.array_equal(nn.GlobalMax().apply({}, jnp.asarray(x)), whole[:, 0, 0])
    assert nn.GlobalMax().output_shape((3, 4, 2)) == (2,)


def test_upsampling_repeats_positions():
    x = np.arange(2 * 3 * 2, dtype=np.float32).reshape(1, 2, 3, 2)
    layer = nn.Upsample((2, 3))
    y = np.asarray(layer.apply({}, jnp.asarray(x)))
    assert y.shape[1:] == layer.output_shape(x.shape[1:]) == (4, 9, 2)
    for i in range(4):
        for j in range(9):
            assert y[0, i, j].tolist() == x[0, i // 2, j // 3].tolist()


def test_what_upsampling_refuses():
    with pytest.raises(ValueError, match="upsample: factor must be at least 1, got \\(2, 0\\)"):
        nn.Upsample((2, 0))
    with pytest.raises(ValueError, match="upsampling by \\(2,\\) cannot read an input of shape"):
        nn.Upsample((2,)).output_shape((3, 3, 1))
