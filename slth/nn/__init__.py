"""Networks: frozen specs beside nested dicts of parameters, and convolution as mathematics."""

from slth.nn.activations import ACTIVATIONS, ActivationInfo, activation_info
from slth.nn.describe import describe_activation, register_activation
from slth.nn.fold import fold_batch_norm
from slth.nn.layers import (
    Activation,
    BatchNorm,
    ChannelScale,
    Conv,
    Dense,
    Layer,
    Linear,
    Residual,
    same_padding,
)
from slth.nn.network import Network, apply, apply_train, count, format_summary, init, summary, trace
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationInfo",
    "BatchNorm",
    "ChannelScale",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalMean",
    "Layer",
    "Linear",
    "Network",
    "Pool",
    "Residual",
    "Subsample",
    "activation_info",
    "apply",
    "apply_train",
    "count",
    "describe_activation",
    "fold_batch_norm",
    "format_summary",
    "init",
    "register_activation",
    "same_padding",
    "summary",
    "trace",
]
