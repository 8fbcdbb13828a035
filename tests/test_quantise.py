"""Rounded targets against brute force, and the feedback against the inverse it stands for."""

import itertools

import jax
import numpy as np
import pytest

from slth import Target, nn
from slth.construction.feedback import factor_of, fed_back
from slth.quantise import RIDGE, _rounded, _scales, quantised


def target_of(*layers, shape=(6, 6, 2)):
    network = nn.Network(shape, layers)
    return Target(network, nn.init(network, jax.random.key(0)))


CONV = nn.Conv("a", 5, (3, 3), stride=(2, 1), padding=((1, 0), (1, 1)))
NET = (CONV, nn.Activation("relu"), nn.Flatten("chw"), nn.Dense("b", 4))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_weight_is_at_its_nearest_level(bits: int):
    weight = np.random.default_rng(0).standard_normal((40, 3))
    scale = _scales(weight, bits)
    levels = [scale * (k - (2**bits - 1) / 2) for k in range(2**bits)]
    nearest = np.min([np.abs(weight - level) for level in levels], 0)
    found = _rounded(weight, scale, bits)
    np.testing.assert_allclose(np.abs(weight - found), nearest, atol=1e-12)
    for factor in (0.97, 1.03):  # the scale is about the best
        other = ((weight - _rounded(weight, factor * scale, bits)) ** 2).sum()
        assert ((weight - found) ** 2).sum() < 1.01 * other


def test_feedback_rounds_as_optimal_brain_surgery_does():
    """Input by input: what is missed goes to the others by the inverse of what is left of the moments."""
    random = np.random.default_rng(1)
    z = random.standard_normal((200, 16)) @ random.standard_normal((16, 16))
    gram, weight = z.T @ z / 200 + 0.1 * np.eye(16), random.standard_normal((16, 2))
    scale = _scales(weight, 2)
    left, wanted = weight.copy(), np.empty_like(weight)
    for i in range(16):
        inverse = np.linalg.inv(gram[i:, i:])
        wanted[i] = _rounded(left[i], scale, 2)
        left[i:] -= np.outer(inverse[:, 0] / inverse[0, 0], left[i] - wanted[i])
    found = fed_back(weight, factor_of(gram), lambda _, row: _rounded(row, scale, 2))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    errors = [np.trace((w - weight).T @ gram @ (w - weight)) for w in (wanted, _rounded(weight, scale, 2))]
    assert errors[0] < errors[1]


def test_bits_are_counted_with_scales_and_biases():
    target = target_of(*NET)
    sizes = [leaf.size for leaf in jax.tree.leaves(target.params)]
    weights = 3 * 3 * 2 * 5 + sizes[-1]
    found = quantised(target, 3)
    assert found.bits_per_weight == (3 * weights + 32 * 2 * (5 + 4)) / weights


@pytest.mark.parametrize("rounding", ["nearest", "feedback"])
def test_more_bits_are_nearer(rounding):
    target = target_of(*NET)
    x = np.asarray(jax.random.normal(jax.random.key(1), (256, 6, 6, 2)))
    errors = []
    for bits in (1, 2, 4, 8):
        found = quantised(target, bits, rounding, x[:128]).target
        errors.append(np.linalg.norm(found(x) - target(x)) / np.linalg.norm(target(x)))
    assert all(b < a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.02


def test_feedback_is_nearer_than_rounding_where_inputs_are_correlated():
    target = target_of(nn.Dense("a", 30), nn.Activation("relu"), nn.Dense("b", 5), shape=(20,))
    random = np.random.default_rng(2)
    x = random.standard_normal((600, 3)) @ random.standard_normal((3, 20)) + 0.1 * random.standard_normal(
        (600, 20)
    )
    x = x.astype(np.float32)
    errors = [
        np.linalg.norm(quantised(target, 3, rounding, x[:300]).target(x[300:]) - target(x[300:]))
        for rounding in ("nearest", "feedback")
    ]
    assert errors[1] < 0.7 * errors[0]
    assert RIDGE < 0.1


def test_feedback_of_groups_is_that_of_each_group_alone():
    """Two groups: a convolution of one group for each half of the inputs and outputs."""
    x = np.asarray(jax.random.normal(jax.random.key(1), (64, 5, 5, 4)))
    whole = target_of(nn.Conv("g", 6, (2, 2), groups=2), shape=(5, 5, 4))
    found = quantised(whole, 2, "feedback", x).target.params["g"]["kernel"]
    for half in range(2):
        part = target_of(nn.Conv("g", 3, (2, 2)), shape=(5, 5, 2))
        part.params["g"]["kernel"] = whole.params["g"]["kernel"][..., 3 * half : 3 * half + 3]
        alone = quantised(part, 2, "feedback", x[..., 2 * half : 2 * half + 2]).target.params["g"]["kernel"]
        np.testing.assert_allclose(found[..., 3 * half : 3 * half + 3], alone, rtol=1e-6)


def test_channels_without_weights_stay_empty_and_dead_inputs_do_no_harm():
    target = target_of(*NET)
    target.params["a"]["kernel"] = np.asarray(target.params["a"]["kernel"]) * np.array([0, 1, 1, 1, 1])
    x = np.zeros((32, 6, 6, 2), np.float32)
    for rounding in ("nearest", "feedback"):
        found = quantised(target, 8, rounding, x).target.params["a"]["kernel"]
        assert not found[..., 0].any()
        np.testing.assert_allclose(found[..., 1:], target.params["a"]["kernel"][..., 1:], atol=0.02)


def test_factors_of_a_skip_are_counted():
    block = nn.Residual("r", (nn.Dense("u", 6),), (nn.ChannelScale("s"),))
    target = target_of(block, nn.Activation("relu"), nn.Dense("b", 3), shape=(6,))
    assert quantised(target, 4).bits_per_weight == (4 * 54 + 32 * (6 + 6 + 6 + 3 + 3)) / 54


WRONG = {
    "bits": ((0,), "bits: expected an integer in [1, 2^4), got 0"),
    "rounding": ((2, "up"), "rounding: expected one of nearest, feedback, got 'up'"),
    "no images": (
        (2, "feedback"),
        "images: feedback needs some of the kind that the target was trained on, got None",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("arguments, message", WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as caught:
        quantised(target_of(*NET), *arguments)
    assert str(caught.value) == message
