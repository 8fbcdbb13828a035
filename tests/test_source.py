"""The source: order of its parameters, and their scales."""

import math

from slth.nn.layers import Activation, Conv, Dense, Residual, same_padding
from slth.nn.network import Network
from slth.nn.pooling import GlobalMean
from slth.source import Source, layer_scale, parameter_shapes

PAD = same_padding((3, 3))
BLOCK = Residual(
    "a",
    (Conv("y", 4, (3, 3), padding=PAD), Activation("relu"), Conv("b", 4, (3, 3), padding=PAD)),
    (Conv("c", 4, (1, 1), use_bias=False),),
)
# Names against the alphabet: the first layer is the last by name.
NETWORK = Network((5, 5, 2), (Conv("z", 4, (1, 1)), BLOCK, GlobalMean(), Dense("d", 3, use_bias=False)))


def test_parameters_stand_in_the_order_of_the_layers():
    assert list(parameter_shapes(NETWORK)) == [
        *("z/bias", "z/kernel", "a/branch/y/bias", "a/branch/y/kernel"),
        *("a/branch/b/bias", "a/branch/b/kernel", "a/skip/c/kernel", "d/kernel"),
    ]


def test_he_scale_counts_the_copies_in_every_layer_but_the_first():
    source = Source(NETWORK, seed=0, multiplicity=4, init="he_uniform", scale=2.0)
    assert layer_scale(source, "z") == 2 * math.sqrt(6 / 2)
    assert layer_scale(source, "a/branch/y") == 2 * math.sqrt(6 * 4 / 36)
    assert layer_scale(source, "d") == 2 * math.sqrt(6 * 4 / 4)
