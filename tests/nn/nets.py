"""Networks of every kind for the tests of graph, rewrite and serial: plain, residual, nested, random."""

import numpy as np

from slth import nn
from slth.nn import zoo
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.types import Params
from tests.certificate.pairs import random_network
from tests.construction.nets import GROUPED, JOINED, ODD, PLAIN, RESIDUAL, random_params, target_of

RELU = Activation("relu")


def _conv(name, features=2, **options):
    return Conv(name, features, (3, 3), padding=((1, 1), (1, 1)), **options)


_INNER = Residual("inner", (_conv("u"), RELU), (ChannelScale("s"),))

# Sides of blocks that end in every kind of layer, in every kind of place.
BLOCKS = {
    "nothing at all": Network((3,), ()),
    "no linear layer": Network((4, 4, 2), (RELU, Pool("max", (2, 2)), Flatten("chw"), RELU)),
    "two flattenings": Network((2, 2, 2), (Flatten("chw"), RELU, Flatten(), Dense("a", 3))),
    "both sides the identity": Network((3,), (Residual("r", ()), Dense("a", 2))),
    "no parameters": Network((3,), (Residual("r", (RELU,)), Dense("a", 2))),
    "a nested block last in its branch": Network(
        (4, 4, 2), (_conv("a"), Residual("r", (RELU, _INNER)), Residual("s", (_INNER, BatchNorm("n"))))
    ),
    "a nested block on the skip": Network((4, 4, 2), (Residual("r", (_conv("a"),), (_INNER,)),)),
    "scales at the end of both sides": Network(
        (4, 4, 2), (Residual("r", (_conv("a"), ChannelScale("s")), (RELU, ChannelScale("s"))),)
    ),
    "subsampling at the end of both sides": Network(
        (4, 4, 2),
        (Residual("r", (_conv("a"), Subsample((2, 2), (1, -1))), (RELU, Subsample((2, 2), (0, 1)))),),
    ),
    "the same layer twice": Network((4, 4, 2), (_conv("a"), RELU, RELU, _conv("b"), RELU)),
    "flattened inside": Network(
        (2, 2, 2), (Residual("r", (Flatten("chw"), Dense("u", 3), RELU), (Flatten(), Dense("v", 3))), RELU)
    ),
    "upsampled sides": Network(
        (2, 3, 2), (Residual("r", (_conv("a"), Upsample((2, 1))), (RELU, Upsample((2, 1)))), GlobalMax())
    ),
    "pooled sides": Network(
        (4, 4, 2), (Residual("r", (_conv("a"), Pool("max", (2, 2))), (Pool("mean", (2, 2)),)), GlobalMean())
    ),
}

SIZES = {
    name: (28, 28, 1) if name in ("lenet", "conv_mnist") else (8, 8, 1) if "digits" in name else (32, 32, 3)
    for name in zoo.BUILDERS
} | {"m5": (8000, 1)}
"""A shape of inputs that each named target reads."""

ZOO = {
    "mlp": zoo.build("mlp", (3, 3, 1), 4, widths=(5, 6)),
    "lenet": zoo.build("lenet", (12, 12, 1), 3),
    "digits_cnn": zoo.build("digits_cnn", (8, 8, 1), 4, width=3),
    "digits_resnet": zoo.build("digits_resnet", (8, 8, 1), 4, width=2),
    "resnet20_sigmoid": zoo.resnet_cifar(20, (8, 8, 3), 4, skip="scaled", activation="sigmoid", width=2),
    "preresnet20": zoo.resnet_cifar(20, (8, 8, 3), 4, pre_activation=True, width=2),
    "resnet18": zoo.resnet_imagenet(18, (17, 17, 3), 4, width=1),
    "resnet50": zoo.resnet_imagenet(50, (17, 17, 3), 4, width=1),
}

RANDOM = {
    f"random {seed}": random_network(np.random.default_rng(seed), kind)[0]
    for seed, kind in enumerate(["relu", "tanh", "leaky_relu", "softplus"] * 6)
}

_JOINED = {f"{name}, joined": network for name, network in JOINED.items()}
_SIDES = {
    "beside groups": Network((4, 4, 8), (_conv("a", 7, groups=3, beside=(2, 1)), _conv("b", 7, groups=7))),
    "nothing but the input": Network((3,), (Concat("i", ((), ())),)),
    "sides that end in a sum": Network(
        (4, 4, 2), (Concat("i", ((_INNER,), (_conv("a"), Subsample((1, 1), (1, -1))))), _conv("b"))
    ),
}

_UNFOLDED = (
    BLOCKS
    | ZOO
    | GROUPED
    | _JOINED
    | _SIDES
    | {f"{name}, as trained": network for name, (network, _) in RESIDUAL.items()}
)

NETWORKS = (
    PLAIN
    | ODD
    | _UNFOLDED
    | RANDOM
    | {f"{name}, folded": target_of(network)[0] for name, (network, _) in RESIDUAL.items()}
    | {f"{name}, folded": target_of(network)[0] for name, network in ZOO.items()}
)


def params_of(network: nn.Network, seed: int = 0) -> Params:
    return random_params(network, np.random.default_rng(seed))


def inputs_of(network: nn.Network, count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *network.input_shape))
