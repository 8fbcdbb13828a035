"""Searches and iterative magnitude pruning on whole networks find what they find elsewhere."""

import jax
import pytest

from slth import data, nn, pruning, train
from slth.nn import zoo

pytestmark = pytest.mark.slow

DIGITS = data.load("digits")
BATCH = pruning.Batch(DIGITS.train_images, DIGITS.train_labels)
OPTIONS = {"batch": BATCH, "report": lambda epoch: None}


def accuracy(network: nn.Network, params) -> float:
    return train.accuracy(network, params, DIGITS.test_images, DIGITS.test_labels)


@pytest.mark.parametrize("kind", ["signed_constant", "kaiming_normal"])
def test_half_of_random_weights_know_the_digits(kind: str):
    network = zoo.build("digits_cnn", DIGITS.shape, DIGITS.classes)
    params = pruning.random_weights(network, jax.random.key(0), kind, density=0.5)
    found = pruning.EdgePopup().prune(network, params, 0.5, key=jax.random.key(1), **OPTIONS)
    assert accuracy(network, pruning.masked(found.params, found.mask)) > 0.93
    assert found.densities == pytest.approx(dict.fromkeys(found.densities, 0.5), abs=0.01)


def test_few_weights_of_a_trained_network_are_enough_and_controls_are_worse():
    network = zoo.build("digits_resnet", DIGITS.shape, DIGITS.classes)
    settings = train.SETTINGS["digits"]
    start = nn.init(network, jax.random.key(0))
    found = pruning.IMP(settings, rate=0.4, rewind=33).prune(
        network, start, 0.06, key=jax.random.key(1), **OPTIONS
    )
    dense, sparse = (accuracy(network, level.params) for level in (found.record[0], found.record[-1]))
    assert dense > 0.97
    assert sparse > 0.9
    for mask, weights in (
        (pruning.shuffled(network, found.mask, jax.random.key(2)), found.record[-1].start),
        (found.mask, pruning.reinitialised(network, found.record[-1].start, jax.random.key(2))),
    ):
        control = train.train(
            network, DIGITS, settings, start=weights, mask=mask, first=33, report=lambda epoch: None
        )
        assert accuracy(network, control.params) < sparse - 0.03
