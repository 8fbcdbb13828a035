"""Hundreds of random tickets: no error that ascent finds exceeds a bound, a wrong proof is refuted. MNIST."""

import numpy as np
import pytest

from slth import Best, Target, construct
from slth.certificate import ball, box, certify, difference, examples
from slth.interop import load_checkpoint
from slth.nn.activations import ACTIVATIONS
from slth.nn.zoo import conv_mnist
from tests.certificate.pairs import branching_network
from tests.certificate.test_prove import ABOVE, METHODS, shares, summed
from tests.construction.nets import source_of

pytestmark = pytest.mark.slow
NETWORKS, DRAWS, SOLVED = 8, 120, 4
BRANCHING = 6
KINDS = [kind for kind in ACTIVATIONS if kind != "identity"]


@pytest.mark.parametrize("number", range(NETWORKS))
def test_no_input_exceeds_the_bound(number):
    rng = np.random.default_rng([7, number])
    kinds = [KINDS[number % len(KINDS)], *map(str, rng.choice(KINDS, number % 2))]
    bounds, worst, network = shares(rng, kinds, DRAWS, SOLVED)
    assert (worst <= ABOVE).all(), network
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


@pytest.mark.parametrize("number", range(BRANCHING))
def test_no_input_exceeds_the_bound_of_groups_and_concatenations(number):
    rng = np.random.default_rng([9, number])
    kinds = [KINDS[number % len(KINDS)], *map(str, rng.choice(KINDS, number % 2))]
    depth = ("L+1", "2L")[number // 2 % 2]
    bounds, worst, network = shares(rng, kinds, 40, SOLVED, depth, branching_network)
    assert (worst <= ABOVE).all(), network
    assert (bounds[1] <= bounds[0] * ABOVE).all(), "linear is never the looser one"


def test_most_networks_refute_a_wrong_recursion(monkeypatch):
    monkeypatch.setattr(difference, "amplified", summed)
    refuted = [
        shares(np.random.default_rng([8, number]), ["relu"], 20, 2)[1][METHODS.index("interval")] > ABOVE
        for number in range(10)
    ]
    assert np.mean(refuted) > 0.5


@pytest.fixture(scope="module")
def mnist(data_dir):
    """The published net and its ticket of 18 copies by the smallest errors; the test images, its logits."""
    network = conv_mnist()
    params = load_checkpoint(data_dir / "targets" / "conv_mnist_relu.safetensors", network)
    target, m = Target(network, params), 18
    source = source_of(network, m, copies_per_sign=2 * m, constants=2 * m)
    made = construct(target, source, Best())
    images = np.load(data_dir / "mnist_test.npz")["images"].reshape(-1, 28, 28, 1) / np.float32(255)
    images = ((images - 0.1307) / 0.3081).astype(np.float32)
    return made, images, target(images)


def test_shares_of_certified_mnist_images(mnist):
    made, images, logits = mnist
    pixels = box(images.min(), images.max())
    hidden = certify(made, pixels, "interval", exact_output=True)
    assert hidden.certified(logits).mean() >= 0.97
    whole, signed = (certify(made, pixels, method) for method in METHODS)
    assert (signed.bound < whole.bound / 2).all()
    assert whole.slack < 0.01 * whole.bound.min()
    assert certify(made, pixels, "linear", exact_output=True).certified(logits).mean() >= 0.985
    actual = certify(made, examples(images[:16]), "linear", slack=0.0).bound
    assert (actual <= signed.bound).all()


def test_balls_around_mnist_images_are_ten_times_tighter(mnist):
    made, images, _ = mnist
    balls = ball(images[:5], 1 / 255 / 0.3081, images.min(), images.max())
    absolute, signed = (certify(made, balls, method, slack=0.0).bound for method in METHODS)
    # One image has a logit that is off by .08 where nothing moves: no bound could be 14 times tighter.
    assert (absolute.max(1) / signed.max(1)).min() > 10
    assert np.median(absolute / signed) > 25
