"""Which source channels stand for what: univariate channels dealt to inputs and signs, widths, carrying."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.construct.layout import (
    carried_channels,
    copies,
    first_activation,
    output_layer,
    source_network,
    univariate,
)
from slth.nn.activations import activation_info
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Subsample
from tests.construct.nets import PLAIN, RESIDUAL, target_of


@settings(max_examples=40)
@given(
    cin=st.integers(1, 4),
    width=st.integers(1, 40),
    per_slot=st.integers(1, 6),
    signs=st.sampled_from([(1, -1), (1,)]),
    seed=st.integers(0, 1000),
)
def test_univariate_channels_are_dealt_once_each_with_the_right_sign(cin, width, per_slot, signs, seed):
    alpha = np.random.default_rng(seed).normal(size=(cin, width)).astype(np.float32)
    slots = univariate(alpha, per_slot, signs, activation_info("relu"))
    used = slots.gain > 0
    assert slots.members.shape == slots.gain.shape == (cin * len(signs), per_slot)
    assert list(zip(slots.channel, slots.sign, strict=True)) == [(i, s) for i in range(cin) for s in signs]
    members = slots.members[used]
    assert len(set(members)) == len(members), "each channel serves one slot"
    chosen = alpha[np.broadcast_to(slots.channel[:, None], used.shape)[used], members]
    sign = np.broadcast_to(slots.sign[:, None], used.shape)[used]
    np.testing.assert_array_equal(slots.gain[used], sign * chosen)
    assert np.array_equal(used, np.sort(used, 1)[:, ::-1]), "members first"
    assert np.array_equal(slots.usable, used)
    # A channel is left over only where every slot that it fits is full.
    full = used.all(1)
    for n in set(range(width)) - set(members):
        fits = slots.sign * alpha[slots.channel, n] > 0
        assert full[fits].all()


def test_univariate_channels_go_to_the_slot_with_the_fewest_members():
    alpha = np.array([[1, 1, 1, -1, 1], [1, 1, -1, -1, 1]])
    slots = univariate(alpha, 2, (1, -1), activation_info("relu"))
    assert slots.members.tolist() == [[0, 4], [3, 0], [1, 0], [2, 0]]
    assert slots.gain.tolist() == [[1, 1], [1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    "kind, slope, signs, factor",
    [
        ("relu", 0, (1, -1), 1),
        ("leaky_relu", 0.25, (1, -1), 1.25),
        ("leaky_relu", 0.25, (1,), 1),
    ],
)
def test_factors_undo_the_slopes_at_zero(kind, slope, signs, factor):
    slots = univariate(np.ones((2, 4)), 2, signs, activation_info(kind, slope))
    np.testing.assert_allclose(slots.factor, slots.sign / factor)


@pytest.mark.parametrize("signs", [(1, -1), (1,)])
def test_an_activation_of_one_slope_has_one_slot_for_both_signs_of_alpha(signs):
    alpha = np.array([[0.5, -1, 2, -0.25, 0]])
    slots = univariate(alpha, 3, signs, activation_info("sigmoid"))
    assert slots.sign.tolist() == [0]
    assert slots.factor.tolist() == [4]  # 1 / mu
    assert slots.base == 0.5
    assert slots.members[0][slots.gain[0] != 0].tolist() == [0, 1, 2, 3]
    assert slots.gain[0].tolist() == [0.5, -1, 2, -0.25, 0, 0]


def test_copies_are_slots_of_gain_one():
    slots = copies(np.array([[2, 3], [0, 1], [4, 5]]))
    assert slots.members.tolist() == [[2, 3], [0, 1], [4, 5]]
    assert (slots.gain == 1).all()
    assert slots.usable.all()
    assert (slots.channel.tolist(), slots.factor.tolist(), slots.sign.tolist()) == (
        [0, 1, 2],
        [1, 1, 1],
        [0, 0, 0],
    )


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("constants", [0, 2])
def test_option_a_carries_copy_to_copy_and_constants_to_constants(m, constants):
    channels, cin = (-1, 2, 0, -1, 1), 3
    wide = Subsample((2,), carried_channels(channels, cin, m, constants))
    width = cin * m + constants
    x = np.random.default_rng(0).normal(size=(1, 5, width)).astype(np.float32)
    y = np.asarray(wide.apply({}, x))
    assert y.shape == (1, 3, len(channels) * m + constants)
    for j, i in enumerate(channels):
        for k in range(m):
            expected = x[:, ::2, i * m + k] if i >= 0 else 0 * x[:, ::2, 0]
            np.testing.assert_array_equal(y[..., j * m + k], expected)
    np.testing.assert_array_equal(y[..., len(channels) * m :], x[:, ::2, cin * m :])


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_widths_are_those_of_the_theorem(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, _ = target_of(network)
    m = 3
    source = source_network(target, m, copies_per_sign=m, constants=m, skip=skip)
    first, act, *rest = source.layers
    cin = target.input_shape[-1]
    assert (first.name, first.features) == ("univariate", 2 * m * cin + 2 * m)
    assert act == first_activation(target)

    def check(layers, wide, last):
        assert len(layers) == len(wide)
        for layer, source_layer in zip(layers, wide, strict=True):
            if isinstance(layer, Residual):
                check(layer.branch, source_layer.branch, last)
                features = layer.branch[-1].features
                for skipped in source_layer.skip:
                    width = len(skipped.channels) if isinstance(skipped, Subsample) else skipped.features
                    assert width == m * (features + 1)
                carried = not source_layer.skip or isinstance(source_layer.skip[0], Subsample)
                parametric = bool(layer.skip) and not isinstance(layer.skip[0], Subsample)
                assert carried == (skip == "carried" and not parametric)
            elif isinstance(layer, Conv | Dense):
                expected = layer.features if layer is last else m * (layer.features + 1)
                assert source_layer.features == expected
                assert not source_layer.use_bias
                if isinstance(layer, Conv):
                    same = ("kernel", "stride", "padding", "dilation")
                    assert all(getattr(layer, f) == getattr(source_layer, f) for f in same)
            else:
                assert layer == source_layer

    check(target.layers, rest, output_layer(target))


RELU = Activation("relu")
CASES = {
    "m": (
        Network((2,), (Dense("a", 2),)),
        {"multiplicity": 0},
        "source.multiplicity must be at least 1, got 0",
    ),
    "skip": (
        Network((2,), (Dense("a", 2),)),
        {"skip": "solved"},
        "source.skip is carried or random, got 'solved'",
    ),
    "no linear layer": (Network((2,), (RELU,)), {}, "the target must end in a convolution or dense layer"),
    "block last": (
        Network((2,), (Dense("a", 2), Residual("r", (Dense("u", 2),)))),
        {},
        "the target must end in a convolution or dense layer",
    ),
}


@pytest.mark.parametrize("target, options, message", CASES.values(), ids=CASES.keys())
def test_targets_and_options_that_are_refused(target, options, message):
    arguments = {"multiplicity": 2, "copies_per_sign": 2, "constants": 2, **options}
    with pytest.raises(ValueError, match=message):
        source_network(target, arguments.pop("multiplicity"), **arguments)
