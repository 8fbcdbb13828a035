"""Single layers against PyTorch's, closed forms and stated shapes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import nn
from slth.interop import fit

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures" / "layers.npz")


def reference(case: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(f"{case}/"): REFERENCE[name]
        for name in REFERENCE.files
        if name.startswith(f"{case}/")
    }


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def of_pytorch(case: str, *layers) -> tuple[nn.Network, dict, np.ndarray, dict]:
    """The network of these layers, its parameters from PyTorch's, the input, and all of the case."""
    held = reference(case)
    x = channels_last(held["input"])
    net = nn.Network(x.shape[1:], layers)
    kinds = ("weight", "bias", "running_mean", "running_var")
    state = {
        f"{getattr(layer, 'name', '')}.{kind}": held[key]
        for layer in layers
        for kind in kinds
        for key in (kind, f"1.{kind}")  # "1." inside a Sequential
        if key in held and hasattr(layer, "name")
    }
    return net, fit(net, state), x, held


LAYERS = {
    "conv": [nn.Conv("l", 4, (3, 2), (2, 1), ((1, 1), (2, 2)), (1, 2))],
    "conv_1d": [nn.Conv("l", 4, (3,), (2,), ((2, 2),), (2,), use_bias=False)],
    "flatten": [nn.Flatten("chw"), nn.Dense("l", 5)],
    "relu": [nn.Activation("relu")],
    "leaky_relu": [nn.Activation("leaky_relu", 0.1)],
    "tanh": [nn.Activation("tanh")],
    "sigmoid": [nn.Activation("sigmoid")],
    "norm": [nn.BatchNorm("l", epsilon=1e-3, momentum=0.75)],
    "norm_1d": [nn.BatchNorm("l")],
}


@pytest.mark.parametrize("case", LAYERS)
def test_pytorch_computes_the_same(case: str):
    net, params, x, held = of_pytorch(case, *LAYERS[case])
    truth = held["output"]
    truth = channels_last(truth) if truth.ndim > 2 else truth
    got = np.asarray(nn.apply(net, params, jnp.asarray(x)))
    assert got.shape == (len(x), *net.output_shape)
    np.testing.assert_allclose(got, truth, atol=2e-6)


def test_the_flattening_order_matters():
    net, params, x, held = of_pytorch("flatten", nn.Flatten("hwc"), nn.Dense("l", 5))
    assert np.abs(np.asarray(nn.apply(net, params, jnp.asarray(x))) - held["output"]).max() > 0.01


@pytest.mark.parametrize("case", ["norm", "norm_1d"])
def test_training_batch_norm_is_pytorchs(case: str):
    net, params, x, held = of_pytorch(case, *LAYERS[case])
    got, moved = nn.apply_train(net, params, jnp.asarray(x))
    np.testing.assert_allclose(got, channels_last(held["train_output"]), atol=5e-6)
    for key in ("mean", "var"):
        np.testing.assert_allclose(moved["l"][key], held[f"train_{key}"], rtol=1e-5)
    for key in ("scale", "bias"):
        np.testing.assert_array_equal(moved["l"][key], params["l"][key])


def test_running_statistics_have_no_gradient(getkey):
    net = nn.Network((3,), (nn.BatchNorm("bn"),))
    params = nn.init(net, getkey())
    x = jax.random.normal(getkey(), (5, 3))

    def through_statistics(params):
        _, moved = nn.apply_train(net, params, x * params["bn"]["scale"][None])
        return moved["bn"]["var"].sum() + moved["bn"]["mean"].sum()

    gradient = jax.grad(through_statistics)(params)["bn"]
    np.testing.assert_array_equal(gradient["bias"], 0)
    np.testing.assert_array_equal(gradient["scale"], 0)


def test_channel_scale_multiplies_channels(getkey):
    net = nn.Network((2, 2, 3), (nn.ChannelScale("s"),))
    x = jax.random.normal(getkey(), (4, 2, 2, 3))
    scale = np.array([2.0, 0.0, -1.0], np.float32)
    got = np.asarray(nn.apply(net, {"s": {"scale": jnp.asarray(scale)}}, x))
    for channel in range(3):
        np.testing.assert_array_equal(got[..., channel], np.asarray(x)[..., channel] * scale[channel])


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 12),
    taps=st.integers(1, 4),
    stride=st.integers(1, 4),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_the_stated_length_is_the_number_of_windows_that_fit(size, taps, stride, before, after, dilation):
    layer = nn.Conv("l", 1, (taps,), (stride,), ((before, after),), (dilation,))
    padded, reach = size + before + after, dilation * (taps - 1)
    starts = range(0, padded - reach, stride)
    if len(starts) == 0:
        with pytest.raises(ValueError, match=r"l: kernel \(\d,\) is larger than its padded input"):
            layer.output_shape((size, 2))
    else:
        assert layer.output_shape((size, 2)) == (len(starts), 1)


@given(taps=st.integers(1, 9), dilation=st.integers(1, 3), size=st.integers(1, 20))
def test_same_padding_keeps_the_length(taps, dilation, size):
    padding = nn.same_padding((taps,), dilation)
    layer = nn.Conv("l", 1, (taps,), padding=padding, dilation=(dilation,))
    assert layer.output_shape((size, 1)) == (size, 1)
    (before, after) = padding[0]
    assert 0 <= after - before <= 1
    assert before == after or dilation * (taps - 1) % 2 == 1


def test_initial_kernels_have_the_variance_of_he(getkey):
    conv = nn.Conv("c", 64, (3, 3)).init(getkey(), (8, 8, 32))
    dense = nn.Dense("d", 128).init(getkey(), (200,))
    # Sample variances of 18,432 and 25,600 normal values: five standard errors are 5.3 % and 4.5 %.
    assert abs(conv["kernel"].var() * 9 * 32 / 2 - 1) < 0.053
    assert abs(dense["kernel"].var() * 200 / 2 - 1) < 0.045
    assert conv["kernel"].shape == (3, 3, 32, 64)
    assert not conv["bias"].any()
    assert "bias" not in nn.Conv("c", 4, (1,), use_bias=False).init(getkey(), (5, 2))


def test_layers_of_one_network_start_differently(getkey):
    net = nn.Network((4,), (nn.Dense("a", 4), nn.Dense("b", 4), nn.Residual("r", (nn.Dense("a", 4),))))
    params = nn.init(net, getkey())
    kernels = [params["a"]["kernel"], params["b"]["kernel"], params["r"]["branch"]["a"]["kernel"]]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 3


def test_a_residual_block_adds_branch_and_skip(getkey):
    branch, skip = nn.Dense("b", 3), nn.Dense("s", 3, use_bias=False)
    x = jax.random.normal(getkey(), (6, 4))
    net = nn.Network((4,), (nn.Residual("r", (branch, nn.Activation("relu")), (skip,)),))
    params = nn.init(net, getkey())
    inner = params["r"]
    truth = np.maximum(np.asarray(x, float) @ np.asarray(inner["branch"]["b"]["kernel"], float), 0)
    truth = truth + np.asarray(x, float) @ np.asarray(inner["skip"]["s"]["kernel"], float)
    np.testing.assert_allclose(nn.apply(net, params, x), truth, atol=1e-5)
    assert np.asarray(nn.apply(net, params, x)).min() < 0  # no activation after the sum of its own


REFUSED = {  # behaviour: (what is built, message)
    "3-D kernel": (
        lambda: nn.Conv("c", 1, (1, 1, 1)),
        r"c: kernel must have 1 or 2 axes, got \(1, 1, 1\)",
    ),
    "stride of another rank": (
        lambda: nn.Conv("c", 1, (3, 3), (2,)),
        r"c: stride \(2,\) does not fit a 2-D kernel",
    ),
    "padding of another rank": (
        lambda: nn.Conv("c", 1, (3,), padding=((1, 1), (1, 1))),
        r"c: padding \(\(1, 1\), \(1, 1\)\) does not fit a 1-D kernel",
    ),
    "no features": (lambda: nn.Conv("c", 0, (1,)), r"c: features must be at least 1, got 0"),
    "stride 0": (lambda: nn.Conv("c", 1, (1,), (0,)), r"c: stride must be at least 1, got \(0,\)"),
    "dense of nothing": (lambda: nn.Dense("d", 0), r"d: features must be at least 1, got 0"),
    "dense on images": (
        lambda: nn.Network((2, 2, 1), (nn.Dense("d", 1),)),
        r"d: a dense layer reads flat features, got \(2, 2, 1\): put Flatten before it",
    ),
    "2-D on a line": (
        lambda: nn.Network((5, 1), (nn.Conv("c", 1, (3, 3)),)),
        r"c: a 2-D convolution cannot read an input of shape \(5, 1\)",
    ),
    "unequal sum": (
        lambda: nn.Network((4,), (nn.Residual("r", (nn.Dense("a", 3),)),)),
        r"r: branch gives \(3,\), skip gives \(4,\); a sum needs equal shapes",
    ),
    "two layers of a name": (
        lambda: nn.init(nn.Network((4,), (nn.Dense("a", 4), nn.Dense("a", 4))), jax.random.key(0)),
        r"two layers are named 'a'",
    ),
}


@pytest.mark.parametrize("build, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
