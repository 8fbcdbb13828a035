"""Builders of named network specs: small nets, VGG, residual, mobile, dense and squeezed ones, one of audio.

Each takes any activation of `slth.nn.ACTIVATIONS` by its name; ``slope`` is that of leaky ReLU.
Names of layers follow the published PyTorch checkpoints, so that importing them is a matter of suffixes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

from slth.nn.network import Network
from slth.nn.zoo.joined import densenet, digits_densenet, squeezenet
from slth.nn.zoo.mobile import digits_mobilenet, mobilenet_v2
from slth.nn.zoo.plain import VGG, conv_mnist, digits_cnn, lenet, m5, mlp, vgg_cifar
from slth.nn.zoo.residual import (
    IMAGENET_BLOCKS,
    digits_resnet,
    mlperf_resnet8,
    resnet_cifar,
    resnet_imagenet,
    wide_resnet,
)

__all__ = [
    "BUILDERS",
    "build",
    "conv_mnist",
    "densenet",
    "digits_cnn",
    "digits_densenet",
    "digits_mobilenet",
    "digits_resnet",
    "lenet",
    "m5",
    "mlp",
    "mlperf_resnet8",
    "mobilenet_v2",
    "resnet_cifar",
    "resnet_imagenet",
    "squeezenet",
    "vgg_cifar",
    "wide_resnet",
]

CIFAR_DEPTHS = (20, 22, 32, 44, 56, 110)
BOTTLENECK_DEPTHS = (29, 164)
DENSE_DEPTHS = (40, 100)
WIDE = ((16, 4), (28, 10))
_BY_NAME = (
    *(mlp, lenet, digits_cnn, digits_resnet, digits_mobilenet, digits_densenet, conv_mnist),
    *(mobilenet_v2, squeezenet, m5, mlperf_resnet8),
)

BUILDERS: dict[str, Callable[..., Network]] = {
    **{builder.__name__: builder for builder in _BY_NAME},
    **{f"resnet{depth}": partial(resnet_cifar, depth) for depth in CIFAR_DEPTHS},
    "resnet20_sigmoid": partial(resnet_cifar, 20, skip="scaled", activation="sigmoid"),
    **{f"resnet{depth}": partial(resnet_cifar, depth, bottleneck=True) for depth in BOTTLENECK_DEPTHS},
    **{f"preresnet{depth}": partial(resnet_cifar, depth, pre_activation=True) for depth in CIFAR_DEPTHS},
    **{f"resnet{depth}": partial(resnet_imagenet, depth) for depth in IMAGENET_BLOCKS},
    **{f"wrn{depth}_{widen}": partial(wide_resnet, depth, widen) for depth, widen in WIDE},
    **{f"vgg{depth}": partial(vgg_cifar, depth) for depth in VGG},
    **{f"densenet{depth}": partial(densenet, depth) for depth in DENSE_DEPTHS},
}
"""The named targets: each builds a spec from an input shape, a number of classes and its own options."""


def build(name: str, input_shape: Sequence[int], classes: int, **options: Any) -> Network:
    """The spec of a named target (`BUILDERS`) for images of a shape and a number of classes.

    Args:
      options: the builder's own keyword arguments, such as ``width``, ``activation`` or ``skip``.
    Raises: ValueError for an unknown name or option, or a shape that the layers cannot read.
    """
    if name not in BUILDERS:
        raise ValueError(f"target {name!r} is unknown: choose one of {', '.join(BUILDERS)}")
    builder = BUILDERS[name]
    parameters = signature(builder).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"target {name} has no option {unknown[0]!r}: it has {', '.join(known)}")
    return builder(tuple(input_shape), classes, **options)
