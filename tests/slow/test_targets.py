"""The embedded targets reach sensible accuracy with every activation, at the settings of the digits."""

import pytest

from slth import data, nn
from slth.nn import zoo
from slth.train import accuracy, train
from tests.dealt import dealt

pytestmark = pytest.mark.slow

DIGITS = data.load("digits")
# A linear network that ends in a mean over positions sees little more than the mean of the image.
TARGETS = [
    (name, kind)
    for name, kind in dealt(["digits_cnn", "digits_resnet"], list(nn.ACTIVATIONS), 2)
    if (name, kind) != ("digits_resnet", "identity")
]


@pytest.mark.parametrize("name, kind", TARGETS, ids=["-".join(target) for target in TARGETS])
def test_a_target_of_every_activation_is_good(name: str, kind: str):
    net = zoo.build(name, DIGITS.shape, DIGITS.classes, activation=kind)
    trained = train(net, DIGITS, report=lambda epoch: None)
    assert accuracy(net, trained.params, DIGITS.test_images, DIGITS.test_labels) > 0.96
