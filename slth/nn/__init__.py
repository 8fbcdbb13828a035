"""Networks: frozen specs beside nested dicts of parameters, and convolution as mathematics."""

from slth.nn.activations import ACTIVATIONS, ActivationInfo, activation_info
from slth.nn.convolution import same_padding
from slth.nn.describe import describe_activation, register_activation
from slth.nn.fold import fold_batch_norm
from slth.nn.forward import (
    apply,
    apply_train,
    count,
    format_summary,
    init,
    parameter_shapes,
    predict,
    summary,
    trace,
)
from slth.nn.graph import Apply, Join, Map, Skip, Step, Sum, by_layer, graph, nested
from slth.nn.layers import (
    Activation,
    BatchNorm,
    ChannelScale,
    Concat,
    Conv,
    Dense,
    Layer,
    Linear,
    Residual,
)
from slth.nn.network import Network
from slth.nn.operations import multiply_adds
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.nn.rewrite import rewrite

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationInfo",
    "Apply",
    "BatchNorm",
    "ChannelScale",
    "Concat",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalMax",
    "GlobalMean",
    "Join",
    "Layer",
    "Linear",
    "Map",
    "Network",
    "Pool",
    "Residual",
    "Skip",
    "Step",
    "Subsample",
    "Sum",
    "Upsample",
    "activation_info",
    "apply",
    "apply_train",
    "by_layer",
    "count",
    "describe_activation",
    "fold_batch_norm",
    "format_summary",
    "graph",
    "init",
    "multiply_adds",
    "nested",
    "parameter_shapes",
    "predict",
    "register_activation",
    "rewrite",
    "same_padding",
    "summary",
    "trace",
]
