"""Small targets of every kind that the construction takes, with random parameters."""

import jax
import numpy as np

from slth import nn
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.nn.zoo import resnet_cifar
from slth.source import Source, source_network

RELU, LEAKY = Activation("relu"), Activation("leaky_relu", 0.2)
PAD = ((1, 1), (1, 1))

PLAIN = {
    "strided": Network(
        (7, 6, 2),
        (
            *(Conv("a", 3, (3, 3), (2, 1), ((1, 1), (1, 1))), LEAKY),
            *(Conv("b", 4, (3, 2), (1, 2), ((1, 0), (0, 1))), LEAKY),
            *(Pool("mean", (2, 1), (1, 1)), Flatten("chw"), Dense("c", 5)),
        ),
    ),
    "pooled": Network(
        (8, 7, 2),
        (
            *(
                Conv("a", 3, (3, 3), use_bias=False),
                RELU,
                Pool("max", (2, 2), (1, 2), ((1, 0), (0, 0)), incomplete=True),
            ),
            *(Conv("b", 4, (2, 2), dilation=(2, 1), padding=((0, 1), (1, 0))), RELU),
            *(Flatten("hwc"), Dense("c", 3), RELU, Dense("d", 5)),
        ),
    ),
    "one axis": Network(
        (11, 2),
        (
            *(
                Conv("a", 4, (3,), (2,), ((2, 0),)),
                RELU,
                Pool("mean", (2,), (2,), ((1, 0),)),
            ),
            *(Conv("b", 3, (2,)), RELU, GlobalMean(), Dense("c", 6, use_bias=False)),
        ),
    ),
    "vectors": Network((4,), (Dense("a", 6), LEAKY, Dense("b", 5), LEAKY, Dense("c", 6))),
    "flat images": Network((2, 2, 2), (Flatten("chw"), Dense("a", 6), RELU, Dense("b", 4))),
    "convolution last": Network(
        (4, 4, 1), (Conv("a", 3, (3, 3), padding=PAD), RELU, Conv("b", 2, (2, 2), (2, 2)))
    ),
    "one layer": Network((3, 3, 2), (Conv("a", 3, (2, 2)),)),
}

# Constants that differ from place to place, or that no tap reads everywhere: no exact biases.
ODD = {
    "padded mean": Network(
        (9, 2),
        (
            Conv("a", 3, (3,)),
            RELU,
            Pool("mean", (2,), (2,), ((1, 0),), count_padding=True),
            GlobalMean(),
            Dense("b", 4),
        ),
    ),
    "no safe tap": Network(
        (6, 5, 2), (Conv("a", 3, (2, 2), (2, 2), ((0, 2), (0, 0))), RELU, Conv("b", 2, (3, 2)))
    ),
}


def _residual(skip, **options):
    return resnet_cifar(8, (6, 6, 2), 4, skip=skip, width=2, **options)


_ROW = (Conv("u", 3, (3,), padding=((2, 0),)), RELU, Conv("v", 3, (2,), padding=((0, 1),)))


def _dense(skip):
    branch = (Dense("u", 5), RELU, Dense("v", 4))
    return Network((3,), (Dense("a", 4), RELU, Residual("r", branch, skip), RELU, Dense("d", 6)))


# Target before folding, and the skip of the source.
RESIDUAL = {
    "option A": (_residual("option_a"), "carried"),
    "projection": (_residual("projection"), "carried"),
    "weights on the skip": (_residual("scaled"), "carried"),
    "option A, random": (_residual("option_a"), "random"),
    "projection, random": (_residual("projection"), "random"),
    "pre-activation": (_residual("option_a", pre_activation=True), "carried"),
    "pre-activation, projection, random": (_residual("projection", pre_activation=True), "random"),
    "blocks on one axis": (
        Network(
            (7, 2),
            (
                *(Conv("a", 3, (3,)), LEAKY, Residual("r", _ROW), LEAKY, Residual("s", _ROW), LEAKY),
                Flatten(),
                Dense("d", 4),
            ),
        ),
        "carried",
    ),
    "dense block": (_dense(()), "carried"),
    "dense block, random": (_dense(()), "random"),
    "dense block, projection": (_dense((Dense("w", 4),)), "carried"),
    "dense block, weights": (_dense((ChannelScale("w"),)), "carried"),
}


def _taps(name, features, **options):
    return Conv(name, features, (3, 3), padding=PAD, **options)


def _point(name, features, **options):
    return Conv(name, features, (1, 1), **options)


_INVERTED = (_point("u", 6), RELU, _taps("d", 6, groups=6), RELU, _point("v", 3))

# Grouped convolutions, before folding.
GROUPED = {
    "depthwise": Network(
        (5, 6, 2),
        (_taps("a", 4), RELU, _taps("d", 4, groups=4, stride=(2, 1)), RELU, GlobalMean(), Dense("c", 3)),
    ),
    "more outputs than inputs": Network(
        (5, 4, 2), (_taps("a", 2), RELU, _taps("d", 6, groups=2), LEAKY, Flatten("chw"), Dense("c", 3))
    ),
    "groups of several channels": Network(
        (5, 4, 2),
        (
            *(_taps("a", 6), RELU, _taps("g", 4, groups=2, dilation=(1, 2)), RELU),
            *(_point("b", 6, groups=2, use_bias=False), RELU, GlobalMean(), Dense("c", 3)),
        ),
    ),
    "groups of the input": Network(
        (5, 4, 4), (_taps("g", 4, groups=2), RELU, _taps("d", 4, groups=4), RELU, Flatten(), Dense("c", 3))
    ),
    "groups last": Network((4, 4, 2), (_taps("a", 4), RELU, _taps("g", 4, groups=2))),
    "groups on one axis": Network(
        (9, 2),
        (
            *(Conv("a", 4, (3,)), RELU, Conv("g", 4, (3,), (2,), groups=2), RELU),
            *(Flatten(), Dense("c", 3)),
        ),
    ),
    "inverted residual": Network(
        (5, 4, 2), (_taps("a", 3), RELU, Residual("r", _INVERTED), GlobalMean(), Dense("c", 3))
    ),
    "grouped branch and skip": Network(
        (5, 4, 2),
        (
            *(
                _taps("a", 4),
                RELU,
                Residual("r", (_taps("g", 4, groups=2),), (_point("w", 4, groups=2),)),
                RELU,
            ),
            *(
                Residual("s", (_taps("g", 4, groups=4),), (_point("w", 4),)),
                RELU,
                GlobalMean(),
                Dense("c", 3),
            ),
        ),
    ),
}

_GROWN = (BatchNorm("bn"), RELU, _taps("v", 2))

# Concatenations, before folding.
JOINED = {
    "dense blocks": Network(
        (4, 5, 2),
        (
            *(_taps("a", 3), Concat("d1", ((), _GROWN)), Concat("d2", ((), _GROWN))),
            *(BatchNorm("bn"), RELU, GlobalMean(), Dense("c", 3)),
        ),
    ),
    "fire": Network(
        (4, 5, 2),
        (
            *(_taps("a", 3), RELU, Concat("f", ((_point("u", 2), RELU), (_taps("v", 3), LEAKY)))),
            *(Pool("max", (2, 2)), Flatten("chw"), Dense("c", 3)),
        ),
    ),
    "inception": Network(
        (4, 5, 2),
        (
            *(_taps("a", 3), RELU),
            Concat(
                "i",
                (
                    (_point("u", 2),),
                    (_point("v", 2), RELU, _taps("w", 2)),
                    (Pool("mean", (3, 3), (1, 1), PAD, count_padding=True),),
                ),
            ),
            *(RELU, GlobalMean(), Dense("c", 3)),
        ),
    ),
    "concatenated in a block": Network(
        (4, 5, 2),
        (
            *(
                _taps("a", 4),
                RELU,
                Residual("r", (Concat("i", ((_point("u", 1),), (_taps("v", 3),))),)),
                RELU,
            ),
            *(Flatten(), Dense("c", 3)),
        ),
    ),
    "groups of a concatenation": Network(
        (4, 5, 2),
        (
            *(_taps("a", 3), RELU, Concat("i", ((_point("u", 1),), (_taps("v", 3),))), RELU),
            *(_taps("g", 4, groups=4), RELU, GlobalMean(), Dense("c", 3)),
        ),
    ),
    "nested": Network(
        (4, 5, 2),
        (
            *(_taps("a", 2), RELU, Concat("i", ((), (Concat("j", ((_point("u", 1),), ())), RELU)))),
            *(GlobalMean(), Dense("c", 3)),
        ),
    ),
    "vectors": Network((4,), (Dense("a", 3), RELU, Concat("i", ((), (Dense("u", 2), RELU))), Dense("c", 3))),
}


def random_params(network, rng):
    """Parameters of trained sizes: He-like kernels, biases, and batch-norm statistics away from 0 and 1."""
    shapes = jax.eval_shape(lambda: nn.init(network, jax.random.key(0)))

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            value = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif kind in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.3 * rng.normal(size=leaf.shape)
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def target_of(network, seed=0):
    """The network and random parameters of it, batch norm folded."""
    return nn.fold_batch_norm(network, random_params(network, np.random.default_rng(seed)))


def images(network, count, seed=0):
    return np.random.default_rng(seed + 1000).normal(size=(count, *network.input_shape)).astype(np.float32)


def source_of(
    target, m, *, seed=0, skip="carried", constants=None, copies_per_sign=None, depth="L+1", **options
):
    wide = source_network(
        target,
        m,
        copies_per_sign=m if copies_per_sign is None else copies_per_sign,
        constants=m if constants is None else constants,
        skip=skip,
        depth=depth,
    )
    options = {"init": "he_uniform", "bias_scale": 4.0, **options}
    return Source(wide.network, seed, m, layout=wide.layout, **options)
