"""Wrong arguments of the front door: one line that names the thing, what was expected and what to do.

Nothing is balanced, drawn or solved before a refusal.
"""

import math
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import slth
from slth import Best, Compensated, Robust, Single, Smallest, Source, Target, construct, nn
from slth.construction import checks, fold, plan
from slth.construction.compensated import bytes_of
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Pool, Subsample
from tests.construction.nets import random_params

RELU, TANH, GELU = Activation("relu"), Activation("tanh"), Activation("gelu")


def target_of(*layers, shape=(4,)):
    network = Network(shape, layers)
    return Target(network, random_params(network, np.random.default_rng(0)))


def dense(*widths, act=RELU, names="abcdef", shape=(4,)):
    """Dense layers of these widths with an activation between them."""
    layers = [part for name, width in zip(names, widths, strict=False) for part in (Dense(name, width), act)]
    return target_of(*layers[:-1], shape=shape)


def block(branch, skip=()):
    """A residual block between two dense layers."""
    return target_of(Dense("a", 4), Residual("r", branch, skip), RELU, Dense("b", 3))


def first_block(branch, skip=(), *before):
    """A residual block that reads the network's input."""
    return target_of(*before, Residual("r", branch, skip), RELU, Dense("b", 3))


def image_target(padding=(), *behind):
    layers = (Conv("a", 3, (3, 3), padding=padding), RELU, *(behind or (Flatten(),)), Dense("b", 2))
    return target_of(*layers, shape=(4, 4, 2))


U, V, W = Dense("u", 4), Dense("v", 4), Dense("w", 4)
TARGET, SMOOTH, IMAGES = dense(5, 4, 3), dense(5, 3, act=TANH), image_target()
NETWORK, PARAMS = TARGET.network, TARGET.params
SOURCE, SMOOTH_SOURCE = Source.of(TARGET, copies=6), Source.of(SMOOTH, copies=6)
NORMED = Network((4,), (Dense("a", 5), BatchNorm("bn"), RELU, Dense("b", 3)))
X = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)


def params_with(layer, leaf, value):
    return PARAMS | {layer: PARAMS[layer] | {leaf: value}}


def construct_of(other, **options):
    """A construction of TARGET from a source of another target."""
    return construct(TARGET, Source.of(other, 6, **options), Best())


SOLVERS = {
    "noise, misspelt": (
        lambda: Robust(noise="bset"),
        "solver.noise: expected one of propagated, measured, fixed, got 'bset'",
    ),
    "noise, a list": (
        lambda: Robust(noise=["fixed"]),
        "solver.noise: expected one of propagated, measured, fixed, got ['fixed']",
    ),
    "tolerance below 0": (
        lambda: Best(tolerance=-1),
        "solver.tolerance: expected a number above 0, got -1",
    ),
    "tolerance 0": (
        lambda: Smallest(tolerance=0),
        "solver.tolerance: expected a number above 0, got 0",
    ),
    "tolerance a word": (
        lambda: Best(tolerance="x"),
        "solver.tolerance: expected a number above 0, got 'x'",
    ),
    "tolerance NaN": (
        lambda: Robust(tolerance=math.nan),
        "solver.tolerance: expected a number above 0, got nan",
    ),
    "tolerance infinite": (
        lambda: Best(tolerance=math.inf),
        "solver.tolerance: expected a number above 0, got inf",
    ),
    "tolerance true": (
        lambda: Single(tolerance=True),
        "solver.tolerance: expected a number above 0, got True",
    ),
    "tolerance none": (
        lambda: Compensated(tolerance=None),
        "solver.tolerance: expected a number above 0, got None",
    ),
    "tolerance complex": (
        lambda: Smallest(tolerance=1j),
        "solver.tolerance: expected a number above 0, got 1j",
    ),
    "size 21": (
        lambda: Best(size=21),
        "solver.size: expected an integer from 0 to 20, got 21",
    ),
    "size below 0": (
        lambda: Smallest(size=-1),
        "solver.size: expected an integer from 0 to 20, got -1",
    ),
    "size 2.5": (
        lambda: Robust(size=2.5),
        "solver.size: expected an integer from 0 to 20, got 2.5",
    ),
    "size of one": (
        lambda: Single(size=3),
        "solver.size: means nothing to Single, which takes at most one variable, got 3: leave it out",
    ),
    "price 0": (
        lambda: Robust(noise="fixed", price=0),
        "solver.price: expected a number above 0, got 0",
    ),
    "price below 0": (
        lambda: Robust(noise="fixed", price=-1),
        "solver.price: expected a number above 0, got -1",
    ),
    "block 25": (
        lambda: Compensated(block=25),
        "solver.block: expected an integer from 1 to 20, got 25",
    ),
    "no sweep": (
        lambda: Compensated(sweeps=0),
        "solver.sweeps: expected an integer of at least 1, got 0",
    ),
    "sweeps 1.5": (
        lambda: Compensated(sweeps=1.5),
        "solver.sweeps: expected an integer of at least 1, got 1.5",
    ),
    "no position": (
        lambda: Compensated(positions=0),
        "solver.positions: expected an integer of at least 1, got 0",
    ),
    "ridge below 0": (
        lambda: Compensated(ridge=-1),
        "solver.ridge: expected a number of at least 0, got -1",
    ),
    "dense ridge a word": (
        lambda: Compensated(dense_ridge="x"),
        "solver.dense_ridge: expected a number of at least 0, got 'x'",
    ),
}
ARGUMENTS = {
    "target a network": (
        lambda: construct(NETWORK, SOURCE),
        "target: expected a slth.Target, got Network: make one with slth.load(file, spec) or "
        "slth.Target.of(network, params)",
    ),
    "target a path": (
        lambda: construct("net.pth", SOURCE),
        "target: expected a slth.Target, got str: make one with slth.load(file, spec) or "
        "slth.Target.of(network, params)",
    ),
    "target a class": (
        lambda: construct(Target, SOURCE),
        "target: expected a slth.Target, got the class Target: make one with slth.load(file, "
        "spec) or slth.Target.of(network, params)",
    ),
    "source a network": (
        lambda: construct(TARGET, SOURCE.network),
        "source: expected a slth.Source, got Network: make one with slth.Source.of(target)",
    ),
    "source a class": (
        lambda: construct(TARGET, Source),
        "source: expected a slth.Source, got the class Source: make one with slth.Source.of(target)",
    ),
    "source none": (
        lambda: construct(TARGET, None),
        "source: expected a slth.Source, got NoneType: make one with slth.Source.of(target)",
    ),
    "solver a class": (
        lambda: construct(TARGET, SOURCE, Robust, X),
        "solver: expected a solver such as slth.Robust(), got the class Robust: give one of "
        "slth's, with brackets",
    ),
    "solver a word": (
        lambda: construct(TARGET, SOURCE, "robust", X),
        "solver: expected a solver such as slth.Robust(), got str: give one of slth's, with brackets",
    ),
    "solver forgotten": (
        lambda: construct(TARGET, SOURCE, X),
        "solver: expected a solver such as slth.Robust(), got ndarray: write images=... for images",
    ),
    "fit 0": (
        lambda: construct(TARGET, SOURCE, Best(), fit=0),
        "fit: expected a positive number or None, got 0",
    ),
    "fit below 0": (
        lambda: construct(TARGET, SOURCE, Best(), fit=-1.0),
        "fit: expected a positive number or None, got -1.0",
    ),
    "fit NaN": (
        lambda: construct(TARGET, SOURCE, Best(), fit=math.nan),
        "fit: expected a positive number or None, got nan",
    ),
    "fit a word": (
        lambda: construct(TARGET, SOURCE, Best(), fit="1"),
        "fit: expected a positive number or None, got '1'",
    ),
    "nonnegative 1": (
        lambda: construct(TARGET, SOURCE, Best(), X, nonnegative=1),
        "nonnegative: expected True or False, got 1",
    ),
    "nonnegative, and images below 0": (
        lambda: construct(TARGET, SOURCE, Robust(), -abs(X), nonnegative=True),
        "images: they reach -2.71116, and nonnegative=True says that no input is below 0: leave it out",
    ),
    "folder a file": (
        lambda: construct(TARGET, SOURCE, Best(), folder=Path(__file__)),
        "folder: expected the path of a folder, which need not exist yet, got the file {FILE}",
    ),
    "folder a number": (
        lambda: construct(TARGET, SOURCE, Best(), folder=3),
        "folder: expected the path of a folder, which need not exist yet, got int",
    ),
}
IMAGES_OF = {
    "none": (
        lambda: construct(TARGET, SOURCE),
        "images: Robust needs calibration images, of the kind that the target was trained on and "
        "never test images: give some (solver.calibration), or choose slth.Best(), or "
        "slth.Robust(noise='fixed')",
    ),
    "none to measure with": (
        lambda: construct(TARGET, SOURCE, Robust(noise="measured")),
        "images: Robust needs calibration images, of the kind that the target was trained on and "
        "never test images: give some (solver.calibration), or choose slth.Best(), or "
        "slth.Robust(noise='fixed')",
    ),
    "none for rows": (
        lambda: construct(TARGET, SOURCE, Compensated()),
        "images: Compensated needs calibration images, of the kind that the target was trained "
        "on and never test images: give some (solver.calibration), or choose slth.Best(), or "
        "slth.Robust(noise='fixed')",
    ),
    "a list": (
        lambda: construct(TARGET, SOURCE, Robust(), X.tolist()),
        "images: expected an array of shape (n, 4), got list",
    ),
    "a word": (
        lambda: construct(TARGET, SOURCE, Robust(), "images"),
        "images: expected an array of shape (n, 4), got str",
    ),
    "one image": (
        lambda: construct(TARGET, SOURCE, Robust(), X[0]),
        "images: expected an array of shape (n, 4), got (4,)",
    ),
    "other features": (
        lambda: construct(TARGET, SOURCE, Best(), X[:, :3]),
        "images: expected an array of shape (n, 4), got (8, 3)",
    ),
    "channels first": (
        lambda: construct(IMAGES, Source.of(IMAGES, 5), Robust(), np.zeros((3, 2, 4, 4), np.float32)),
        "images: expected an array of shape (n, 4, 4, 2), got (3, 2, 4, 4)",
    ),
    "no image": (
        lambda: construct(TARGET, SOURCE, Robust(), X[:0]),
        "images: there are none: give at least one, or None where none are needed",
    ),
    "integers": (
        lambda: construct(TARGET, SOURCE, Robust(), (100 * X).astype(np.uint8)),
        "images: expected floating-point numbers, got uint8: normalise them as the target was trained",
    ),
    "NaN": (
        lambda: construct(TARGET, SOURCE, Best(), np.where(X > 1, np.nan, X)),
        "images: they hold NaN or infinite numbers: remove those images",
    ),
    "infinite": (
        lambda: construct(TARGET, SOURCE, Robust(), np.where(X > 1, np.inf, X)),
        "images: they hold NaN or infinite numbers: remove those images",
    ),
    "times 255": (
        lambda: construct(SMOOTH, SMOOTH_SOURCE, Robust(), 255 * X / abs(X).max()),
        "images: their largest |x| is 255, where tanh(alpha x) of the source's first layer "
        "(scale 0.0131) misses 70% of its linear part: make the source with "
        "slth.Source.of(target, ..., reach=255) (source.scales), or normalise the images",
    ),
    "of a source, a word": (
        lambda: Source.of(SMOOTH, images="x"),
        "images: expected an array of shape (n, 4), got str",
    ),
    "of a source, other features": (
        lambda: Source.of(SMOOTH, images=X[:, :3]),
        "images: expected an array of shape (n, 4), got (8, 3)",
    ),
    "of a source, NaN": (
        lambda: Source.of(SMOOTH, images=X * np.nan),
        "images: they hold NaN or infinite numbers: remove those images",
    ),
    "of a source, none at all": (
        lambda: Source.of(SMOOTH, images=X[:0]),
        "images: there are none: give at least one, or None where none are needed",
    ),
    "of a source that must see some": (
        lambda: Source.of(dense(5, 3, act=GELU), depth="2L"),
        "source.depth: 2L takes the ranges of gelu from images, and there are none: give images "
        "of the kind that the target reads, or choose L+1",
    ),
}
PAIRS = {
    "other widths": (
        lambda: construct_of(dense(5, 5, 3)),
        "source: layer b is Dense(name='b', features=54, use_bias=False), and for this target should "
        "be Dense(name='b', features=48, use_bias=False): make the source of this target and "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "another activation": (
        lambda: construct_of(dense(5, 4, 3, act=TANH)),
        "source: what a reads is univariate, Activation(kind='tanh', slope=0.01), and for this target "
        "should be univariate, Activation(kind='relu', slope=0.01): make the source of this target "
        "and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "another activation, 2L": (
        lambda: construct_of(dense(5, 4, 3, act=TANH), depth="2L"),
        "source: what a reads is a.univariate, Activation(kind='tanh', slope=0.01), and for this "
        "target should be a.univariate, Activation(kind='relu', slope=0.01): make the source of this "
        "target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "another slope": (
        lambda: construct(
            dense(5, 3, act=Activation("leaky_relu", 0.1)),
            Source.of(dense(5, 3, act=Activation("leaky_relu", 0.2)), 6),
            Best(),
        ),
        "source: what a reads is univariate, Activation(kind='leaky_relu', slope=0.2), and for this "
        "target should be univariate, Activation(kind='leaky_relu', slope=0.1): make the source of "
        "this target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "another input": (
        lambda: construct_of(dense(5, 4, 3, shape=(6,))),
        "source: it reads inputs of shape (6,), and the target reads (4,): make the source of this "
        "target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "deeper": (
        lambda: construct_of(dense(5, 4, 3, 2)),
        "source: layer c is Dense(name='c', features=42, use_bias=False), and for this target should "
        "be Dense(name='c', features=3, use_bias=False): make the source of this target and "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "shallower": (
        lambda: construct_of(dense(5, 3)),
        "source: it has no layer c, which a source of this target has: make the source of this target "
        "and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "wider at the end": (
        lambda: construct_of(dense(5, 4, 4)),
        "source: layer c is Dense(name='c', features=4, use_bias=False), and for this target should "
        "be Dense(name='c', features=3, use_bias=False): make the source of this target and "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "other names": (
        lambda: construct_of(dense(5, 4, 3, names="xyz")),
        "source: it has no layer a, which a source of this target has: make the source of this target "
        "and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "more copies": (
        lambda: construct(TARGET, replace(SOURCE, multiplicity=7), Best()),
        "source.multiplicity: its layers are made for 6 copies, got 7: make the source of this "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "fewer copies": (
        lambda: construct(TARGET, replace(SOURCE, multiplicity=5), Best()),
        "source.multiplicity: its layers are made for 6 copies, got 5: make the source of this "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "more copies, no layout": (
        lambda: construct(TARGET, replace(SOURCE, multiplicity=11, layout=None), Best()),
        "source: layer a is Dense(name='a', features=54, use_bias=False), and for this target should "
        "be Dense(name='a', features=55, use_bias=False): make the source of this target and "
        "multiplicity with slth.Source.of(target, copies=...)",
    ),
    "as wide as the target": (
        lambda: construct(TARGET, Source(NETWORK, 0, 6), Best()),
        "source: it has no layer a.univariate, which a source of this target has: make the source of "
        "this target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "other padding": (
        lambda: construct(
            IMAGES, Source.of(image_target(((1, 1), (1, 1)), Pool("max", (2, 2)), Flatten()), 5), Best()
        ),
        "source: layer a is Conv(name='a', features=39, kernel=(3, 3), stride=(1, 1), padding=((1, "
        "1), (1, 1)), dilation=(1, 1), use_bias=False, groups=1, beside=(0, 0)), and for this target "
        "should be Conv(name='a', "
        "features=39, kernel=(3, 3), stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), "
        "use_bias=False, groups=1, beside=(0, 0)): make the source of this target and multiplicity with "
        "slth.Source.of(target, "
        "copies=...)",
    ),
    "another order": (
        lambda: construct(IMAGES, Source.of(image_target((), Flatten("chw")), 5), Best()),
        "source: what b reads is a, Activation(kind='relu', slope=0.01), Flatten(order='chw'), and "
        "for this target should be a, Activation(kind='relu', slope=0.01), Flatten(order='hwc'): make "
        "the source of this target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "other pooling": (
        lambda: construct(
            IMAGES,
            replace(Source.of(image_target((), Pool("max", (1, 1)), Flatten()), 5), layout=None),
            Best(),
        ),
        "source: what b reads is a, Activation(kind='relu', slope=0.01), Pool(kind='max', window=(1, "
        "1), stride=(1, 1), padding=((0, 0), (0, 0)), incomplete=False, count_padding=False), "
        "Flatten(order='hwc'), and for this target should be a, Activation(kind='relu', slope=0.01), "
        "Flatten(order='hwc'): make the source of this target and multiplicity with "
        "slth.Source.of(target, copies=...)",
    ),
    "other channels on a skip": (
        lambda: construct(
            block((U,), (Subsample((), (0, 1, 2, -1)),)),
            Source.of(block((U,), (Subsample((), (0, 2, 1, -1)),)), 5),
            Best(),
        ),
        "source: layer r/skip is Subsample(stride=(), channels=(0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 5, "
        "6, 7, 8, 9, -1, -1, -1, -1, -1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, "
        "35, 36, 37, 38, 39, 40, 41, 42, 43)), and for this target should be Subsample(stride=(), "
        "channels=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, -1, -1, -1, -1, -1, 20, 21, 22, "
        "23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43)): make "
        "the source of this target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "a skip carried, not solved": (
        lambda: construct(block((U,), (V,)), Source.of(block((U,)), 5), Best()),
        "source: it has no layer r/skip/v, which a source of this target has: make the source of this "
        "target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "a skip solved, not carried": (
        lambda: construct(block((U,)), Source.of(block((U,), (V,)), 5), Best()),
        "source: layer r/skip is missing, and for this target should be the identity: make the source "
        "of this target and multiplicity with slth.Source.of(target, copies=...)",
    ),
    "25 copies": (
        lambda: construct(TARGET, Source.of(TARGET, 25), Robust(), X),
        "source.multiplicity: Robust solves problems of at most 20 copies, got 25: make the "
        "source with fewer",
    ),
    "25 copies, rows": (
        lambda: construct(TARGET, Source.of(TARGET, 25), Compensated(), X),
        "source.multiplicity: Compensated solves problems of at most 20 copies, got 25: make the "
        "source with fewer",
    ),
    "33 copies": (
        lambda: construct(TARGET, Source.of(TARGET, 33), Best()),
        "source.multiplicity: Best solves problems of at most 32 copies, got 33: make the source with fewer",
    ),
    "more of a weight than copies": (
        lambda: construct(TARGET, SOURCE, Best(size=7)),
        "solver.size: expected at most 6, the variables of one weight of this source, got 7: "
        "choose fewer, or make the source with more copies",
    ),
    "more of a weight than copies, 2L": (
        lambda: construct(TARGET, Source.of(TARGET, 6, depth="2L", univariate=4), Best(size=5)),
        "solver.size: expected at most 4, the variables of one weight of this source, got 5: "
        "choose fewer, or make the source with more copies",
    ),
}
TARGETS = {
    "a missing layer": (
        lambda: Target(NETWORK, {"a": PARAMS["a"], "c": PARAMS["c"]}),
        "params: b/bias of shape (4,) is missing: give all parameters of the network "
        "(slth.nn.init makes such a tree)",
    ),
    "a missing bias": (
        lambda: Target(NETWORK, PARAMS | {"b": {"kernel": PARAMS["b"]["kernel"]}}),
        "params: b/bias of shape (4,) is missing: give all parameters of the network "
        "(slth.nn.init makes such a tree)",
    ),
    "a layer left over": (
        lambda: Target(NETWORK, PARAMS | {"d": PARAMS["c"]}),
        "params: the network has no d/bias: are these the parameters of this network?",
    ),
    "an array left over": (
        lambda: Target(NETWORK, params_with("a", "scale", np.ones(3))),
        "params: the network has no a/scale: are these the parameters of this network?",
    ),
    "another shape": (
        lambda: Target(NETWORK, params_with("b", "kernel", np.zeros((4, 5)))),
        "params: b/kernel has shape (4, 5), and the network's has (5, 4): are these the "
        "parameters of this network?",
    ),
    "NaN": (
        lambda: Target(NETWORK, params_with("b", "kernel", np.full((5, 4), np.nan))),
        "params: b/kernel holds NaN or infinite numbers: train or load the target again",
    ),
    "NaN in bfloat16": (
        lambda: Target(NETWORK, params_with("b", "bias", jnp.full(4, jnp.nan, jnp.bfloat16))),
        "params: b/bias holds NaN or infinite numbers: train or load the target again",
    ),
    "infinite": (
        lambda: Target(NETWORK, params_with("b", "bias", np.full(4, np.inf))),
        "params: b/bias holds NaN or infinite numbers: train or load the target again",
    ),
    "words": (
        lambda: Target(NETWORK, params_with("b", "bias", np.full(4, "x"))),
        "params: b/bias holds str32, expected real numbers: are these the parameters of this network?",
    ),
    "a list": (
        lambda: Target(NETWORK, [PARAMS]),
        "params: expected a dict of arrays by layer, got list",
    ),
    "flat names": (
        lambda: Target(NETWORK, {"a/kernel": PARAMS["a"]["kernel"]}),
        "params: a/bias of shape (5,) is missing: give all parameters of the network "
        "(slth.nn.init makes such a tree)",
    ),
    "layers alone": (
        lambda: Target(NETWORK.layers, PARAMS),
        "network: expected a slth.nn.Network, got tuple: write one (docs/tickets.md) or take one "
        "of slth.nn.zoo",
    ),
    "the wrong way round": (
        lambda: Target(PARAMS, NETWORK),
        "network: expected a slth.nn.Network, got dict: write one (docs/tickets.md) or take one "
        "of slth.nn.zoo",
    ),
    "layers alone, to fold": (
        lambda: Target.of(NETWORK.layers, PARAMS),
        "network: expected a slth.nn.Network, got tuple: write one (docs/tickets.md) or take one "
        "of slth.nn.zoo",
    ),
    "nothing to fold": (
        lambda: Target.of(NORMED, PARAMS),
        "params: bn/bias of shape (5,) is missing: give all parameters of the network "
        "(slth.nn.init makes such a tree)",
    ),
    "two layers of one name": (
        lambda: Network((4,), (Dense("a", 4), RELU, Dense("a", 4))),
        "two layers are named 'a': names of one sequence must differ",
    ),
    "trained slopes": (
        lambda: Activation("prelu"),
        "activation 'prelu' has trained slopes, and nothing of a source is trained: where all are equal take "
        "leaky_relu with that slope, else write it as ReLUs of x and -x (docs/activations.md)",
    ),
    "an unknown activation": (
        lambda: Activation("swoosh"),
        "activation 'swoosh' is unknown: choose one of relu, leaky_relu, relu6, tanh, sigmoid, "
        "gelu, gelu_tanh, silu, softplus, elu, selu, hard_tanh, hard_sigmoid, hard_swish, mish, identity, or "
        "make it known with slth.nn.register_activation",
    ),
    "a file's spec a word": (
        lambda: slth.load("net.npz", "digits_cnn"),
        "spec: expected a slth.nn.Network, got str: write one (docs/tickets.md) or take one of slth.nn.zoo",
    ),
    "a file's spec its parameters": (
        lambda: slth.load("net.npz", PARAMS),
        "spec: expected a slth.nn.Network, got dict: write one (docs/tickets.md) or take one of slth.nn.zoo",
    ),
    "a file of another kind": (
        lambda: slth.load(__file__, NETWORK),
        "checkpoint {FILE} is of no kind that is read, PyTorch, safetensors, .npz, flax's .msgpack, "
        """HDF5 or ONNX: it begins with b'\"\"\"Wrong'""",
    ),
}
COVERED = {
    "batch norm": (
        lambda: Source.of(Target(NORMED, random_params(NORMED, np.random.default_rng(0)))),
        "target: bn is a BatchNorm, which is not folded: make the target with "
        "slth.Target.of(network, params), or fold it with slth.nn.fold_batch_norm",
    ),
    "a factor for each channel": (
        lambda: Source.of(target_of(Dense("a", 4), ChannelScale("s"), Dense("b", 3))),
        "target: s is a ChannelScale, which is not folded: make the target with "
        "slth.Target.of(network, params), or fold it with slth.nn.fold_batch_norm",
    ),
    "subsampling": (
        lambda: Source.of(
            target_of(Conv("a", 3, (1,)), Subsample((2,), (0, 1)), Flatten(), Dense("b", 3), shape=(6, 2))
        ),
        "target: it has a Subsample that is not the last layer of a block's skip: no source "
        "carries that there, use a strided convolution",
    ),
    "the input carried past a block": (
        lambda: Source.of(first_block((U,))),
        "source.skip: block r carries the network's input past its branch, and a source of L+1 "
        "holds no copies of that: put a convolution before the block, or choose skip=random or depth 2L",
    ),
    "the same behind an activation": (
        lambda: Source.of(first_block((U,), (), RELU)),
        "source.skip: block r carries the network's input past its branch, and a source of L+1 "
        "holds no copies of that: put a convolution before the block, or choose skip=random or depth 2L",
    ),
    "a flattened value carried past a block": (
        lambda: Source.of(
            target_of(
                Conv("a", 2, (1,)), Flatten(), Residual("r", (Dense("u", 12),)), Dense("b", 3), shape=(6, 2)
            )
        ),
        "source.skip: block r carries a flattened value past its branch, and a source carries channels: "
        "put a dense layer between them, or choose skip=random",
    ),
    "an activation in the first block": (
        lambda: Source.of(first_block((RELU, U), (V,))),
        "target: Activation(kind='relu', slope=0.01) in its first block reads the network's "
        "input, of which a source of L+1 holds no copies: put a convolution before the block, or choose "
        "depth 2L",
    ),
    "a branch that ends in subsampling": (
        lambda: Source.of(block((U, Subsample((), (0, 1, 2, 3))))),
        "target: the branch of block r must end in a convolution, a dense layer, an activation or a pooling "
        "(after folding): move what follows it behind the block's sum",
    ),
    "a branch of factors": (
        lambda: Source.of(block((ChannelScale("w"),))),
        "target: the branch of block r must end in a convolution, a dense layer, an activation or a pooling "
        "(after folding): move what follows it behind the block's sum",
    ),
    "a skip that goes on behind a layer": (
        lambda: Source.of(block((U,), (V, RELU))),
        "target: the skip of block r must hold one convolution or dense layer at most, as its "
        "last (after folding), and r/skip/v stands before others: move it in front of the block",
    ),
    "a skip of two layers": (
        lambda: Source.of(block((U,), (V, W))),
        "target: the skip of block r must hold one convolution or dense layer at most, as its "
        "last (after folding), and r/skip/v stands before others: move it in front of the block",
    ),
    "a block at the end": (
        lambda: Source.of(target_of(Dense("a", 4), RELU, Residual("r", (U,)))),
        "target: it ends in the residual block r: a target must end in a convolution or dense "
        "layer (after folding), put one behind the block",
    ),
    "a block and an activation at the end": (
        lambda: Source.of(target_of(Dense("a", 4), RELU, Residual("r", (U,)), RELU)),
        "target: it ends in the residual block r: a target must end in a convolution or dense "
        "layer (after folding), put one behind the block",
    ),
    "no linear layer": (
        lambda: Source.of(target_of(RELU)),
        "target: it has no convolution or dense layer, so there is nothing to construct",
    ),
    "no linear layer, with a source": (
        lambda: construct(target_of(RELU), SOURCE, Best()),
        "target: it has no convolution or dense layer, so there is nothing to construct",
    ),
    "no layer": (
        lambda: Source.of(target_of()),
        "target: it has no convolution or dense layer, so there is nothing to construct",
    ),
}
SETTINGS = {
    "target a network": (
        lambda: Source.of(NETWORK),
        "target: expected a slth.Target, got Network: make one with slth.load(file, spec) or "
        "slth.Target.of(network, params)",
    ),
    "no copy": (
        lambda: Source.of(TARGET, copies=0),
        "source.multiplicity: expected an integer of at least 1, got 0",
    ),
    "copies 1.5": (
        lambda: Source.of(TARGET, copies=1.5),
        "source.multiplicity: expected an integer of at least 1, got 1.5",
    ),
    "copies true": (
        lambda: Source.of(TARGET, copies=True),
        "source.multiplicity: expected an integer of at least 1, got True",
    ),
    "seed below 0": (
        lambda: Source.of(TARGET, seed=-1),
        "source.seed: expected an integer in [0, 2^64), got -1",
    ),
    "seed 2^64": (
        lambda: Source.of(TARGET, seed=2**64),
        "source.seed: expected an integer in [0, 2^64), got 18446744073709551616",
    ),
    "seed 1.0": (
        lambda: Source.of(TARGET, seed=1.0),
        "source.seed: expected an integer in [0, 2^64), got 1.0",
    ),
    "depth": (
        lambda: Source.of(TARGET, depth="3L"),
        "source.depth: expected one of L+1, 2L, got '3L'",
    ),
    "skip": (
        lambda: Source.of(TARGET, skip="x"),
        "source.skip: expected one of carried, random, got 'x'",
    ),
    "init": (
        lambda: Source.of(TARGET, init="xavier"),
        "source.init: expected one of uniform, normal, he_uniform, he_normal, glorot_uniform, "
        "glorot_normal, got 'xavier'",
    ),
    "scale 0": (
        lambda: Source.of(TARGET, scale=0),
        "source.scale: expected a positive number, got 0",
    ),
    "scale a word": (
        lambda: Source.of(TARGET, scale="1"),
        "source.scale: expected a positive number, got '1'",
    ),
    "scale true": (
        lambda: Source.of(TARGET, scale=True),
        "source.scale: expected a positive number, got True",
    ),
    "bias scale below 0": (
        lambda: Source.of(TARGET, bias_scale=-1),
        "source.bias_scale: expected a positive number, got -1",
    ),
    "presence 1.5": (
        lambda: Source.of(TARGET, presence=1.5),
        "source.presence: expected a probability in (0, 1], got 1.5",
    ),
    "presence a word": (
        lambda: Source.of(TARGET, presence="1"),
        "source.presence: expected a probability in (0, 1], got '1'",
    ),
    "biases": (
        lambda: Source.of(TARGET, biases="none"),
        "source.biases: expected one of random, zero, got 'none'",
    ),
    "scales of no layer": (
        lambda: Source.of(TARGET, scales={"e": 2.0}),
        "source.scales: 'e' fits no layer; there are univariate/bias, univariate, a, b, c",
    ),
    "scales a number": (
        lambda: Source.of(TARGET, scales=2.0),
        "source.scales: expected a mapping of patterns to numbers, got 2.0",
    ),
    "no univariate channel": (
        lambda: Source.of(TARGET, univariate=0),
        "source.univariate: expected an integer of at least 1, got 0",
    ),
    "constants below 0": (
        lambda: Source.of(TARGET, constants=-1),
        "source.constants: expected an integer of at least 0, got -1",
    ),
    "constants 1.5": (
        lambda: Source.of(TARGET, constants=1.5),
        "source.constants: expected an integer of at least 0, got 1.5",
    ),
    "univariate signs": (
        lambda: Source.of(TARGET, univariate_signs="negative"),
        "source.univariate_signs: expected one of random, positive, got 'negative'",
    ),
    "own biases a word": (
        lambda: Source.of(TARGET, own_biases="yes"),
        "source.own_biases: expected True or False, got 'yes'",
    ),
    "reach 0": (
        lambda: Source.of(SMOOTH, reach=0),
        "source.reach: expected a positive number, got 0",
    ),
    "reach NaN": (
        lambda: Source.of(SMOOTH, reach=math.nan),
        "source.reach: expected a positive number, got nan",
    ),
    "target scale below 0": (
        lambda: Source.of(TARGET, target_scale=-1),
        "source.target_scale: expected a positive number, got -1",
    ),
    "network a tuple": (
        lambda: Source(NETWORK.layers, 0, 5),
        "source.network: expected a slth.nn.Network, got tuple: slth.Source.of(target) makes a "
        "source that is wide enough for a target",
    ),
    "network a target": (
        lambda: Source(TARGET, 0, 5),
        "source.network: expected a slth.nn.Network, got Target: slth.Source.of(target) makes a "
        "source that is wide enough for a target",
    ),
    "network with batch norm": (
        lambda: Source(NORMED, 0, 5),
        "source.network: bn is a BatchNorm, and a source has none: fold it with slth.nn.fold_batch_norm",
    ),
    "multiplicity 0": (
        lambda: Source(NETWORK, 0, 0),
        "source.multiplicity: expected an integer of at least 1, got 0",
    ),
    "multiplicity 2.0": (
        lambda: Source(NETWORK, 0, 2.0),
        "source.multiplicity: expected an integer of at least 1, got 2.0",
    ),
}

CASES = {
    f"{group}: {name}": case
    for group, cases in (
        *(("solver", SOLVERS), ("argument", ARGUMENTS), ("images", IMAGES_OF), ("pair", PAIRS)),
        *(("target", TARGETS), ("not covered", COVERED), ("setting", SETTINGS)),
    )
    for name, case in cases.items()
}


@pytest.fixture
def idle(monkeypatch):
    """Constructions that fail where they would begin to compute."""

    def begun(*arguments, **options):
        raise AssertionError("a construction has begun")

    monkeypatch.setattr(plan, "balance", begun)
    monkeypatch.setattr(fold, "nodes_of", begun)


@pytest.mark.parametrize("call, message", CASES.values(), ids=CASES.keys())
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_argument_is_refused_before_any_work_in_one_line(call, message, idle):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message.replace("{FILE}", __file__)
    assert "\n" not in message


def test_a_construction_that_begins_is_seen(idle):
    with pytest.raises(AssertionError, match="^a construction has begun$"):
        construct(TARGET, SOURCE, Best())


def test_a_missing_file_and_an_unknown_option_raise_python_s_own_errors():
    with pytest.raises(FileNotFoundError, match=r"^checkpoint none\.npz is not there$"):
        slth.load("none.npz", NETWORK)
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        Compensated(size=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depht'"):
        Source.of(TARGET, depht="2L")


def test_what_looks_wrong_and_is_not(tmp_path):
    """A target with other weights, a source read from a file, whole numbers as tolerance, a folder's name."""
    other = Target(NETWORK, random_params(NETWORK, np.random.default_rng(3)))
    made = construct(other, SOURCE, Best(tolerance=1), fit=1, folder=str(tmp_path / "nodes"))
    again = construct(other, replace(SOURCE, layout=None), Best(tolerance=1), fit=1)
    assert made.ticket == again.ticket
    assert len(list((tmp_path / "nodes").iterdir())) == 3
    wide = construct(TARGET, SOURCE, Best(), X.astype(np.float64))
    assert wide.ticket == construct(TARGET, SOURCE, Best(), X).ticket


@pytest.mark.parametrize(
    "leaf, depth", [("kernel", "L+1"), ("bias", "L+1"), ("kernel", "2L"), ("bias", "2L")]
)
@pytest.mark.parametrize("path", ["a", "b"])
def test_weights_far_too_large_are_named_by_their_layer(path: str, leaf: str, depth: str):
    target = dense(3, 2)
    target.params[path][leaf] = target.params[path][leaf].copy()
    target.params[path][leaf].flat[1] = 1e30
    with pytest.raises(ValueError, match=rf"^target: the {leaf} of {path} reaches .*e\+\d\d after balancing"):
        construct(target, Source.of(target, copies=8, depth=depth), Best())


def needed_by(source, path, groups=1):
    """Variables of a row, and rows, of one group of a layer of the source."""
    shape = nn.parameter_shapes(source.network)[f"{path}/kernel"]
    return math.prod(shape[:-1]), shape[-1] // groups


def test_rows_that_no_memory_holds_are_refused(monkeypatch):
    variables, rows = needed_by(SOURCE, "a")
    monkeypatch.setattr(checks, "_memory", lambda: bytes_of(variables, rows) - 1)
    with pytest.raises(ValueError, match=f"rows of {variables} variables in a, which takes about") as caught:
        construct(TARGET, SOURCE, Compensated(), X)
    assert "\n" not in str(caught.value)
    assert construct(TARGET, SOURCE, Robust(), X).unsolved >= 0  # weight by weight


def test_groups_are_solved_one_after_the_other_and_so_counted(monkeypatch):
    grouped = image_target((), Conv("g", 6, (2, 2), groups=3), RELU, Flatten())
    source = Source.of(grouped, copies=6)
    images, needed = np.zeros((4, 4, 4, 2), np.float32), []
    monkeypatch.setattr(checks, "bytes_of", lambda variables, rows: needed.append((variables, rows)) or 0)
    checks.check(grouped, source, Compensated(), images, fit=None, nonnegative=False)
    assert needed_by(source, "g", 3) in needed
