"""Which source channels a layer may use for each input: copies, and univariate channels dealt to signs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.construction.state import copied_slots, univariate_slots
from slth.nn.activations import activation_info


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
    slots = univariate_slots(alpha, per_slot, signs, activation_info("relu"))
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
    alpha = np.array([[1.0, 1, 1, -1, 1], [1, 1, -1, -1, 1]])
    slots = univariate_slots(alpha, 2, (1, -1), activation_info("relu"))
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
    slots = univariate_slots(np.ones((2, 4)), 2, signs, activation_info(kind, slope))
    np.testing.assert_allclose(slots.factor, slots.sign / factor)


@pytest.mark.parametrize("signs", [(1, -1), (1,)])
def test_an_activation_of_one_slope_has_one_slot_for_both_signs_of_alpha(signs):
    alpha = np.array([[0.5, -1, 2, -0.25, 0]])
    slots = univariate_slots(alpha, 3, signs, activation_info("sigmoid"))
    assert slots.sign.tolist() == [0]
    assert slots.factor.tolist() == [4]  # 1 / mu
    assert slots.base == 0.5
    assert slots.members[0][slots.gain[0] != 0].tolist() == [0, 1, 2, 3]
    assert slots.gain[0].tolist() == [0.5, -1, 2, -0.25, 0, 0]


def test_copies_are_slots_of_gain_one():
    slots = copied_slots(np.array([[2, 3], [0, 1], [4, 5]]))
    assert slots.members.tolist() == [[2, 3], [0, 1], [4, 5]]
    assert (slots.gain == 1).all()
    assert slots.usable.all()
    assert (slots.channel.tolist(), slots.factor.tolist(), slots.sign.tolist()) == (
        [0, 1, 2],
        [1, 1, 1],
        [0, 0, 0],
    )
