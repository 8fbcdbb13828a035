"""The operators of ONNX that slth reads, each with what it means and the attributes that it may have."""

from collections.abc import Callable
from typing import NamedTuple

from slth.interop.onnx import elementwise, linear, shapes, windows
from slth.interop.onnx.constants import FOLDED
from slth.interop.onnx.model import Node
from slth.interop.onnx.values import Tensor, View

SLIDING = "auto_pad kernel_shape pads strides dilations"


class Operator(NamedTuple):
    """What an operator means."""

    read: Callable[[Node, list[Tensor | None]], View]
    attributes: frozenset[str]


def _row(read: Callable[[Node, list[Tensor | None]], View], attributes: str = "") -> Operator:
    return Operator(read, frozenset(attributes.split()))


OPERATORS: dict[str, Operator] = {
    "Conv": _row(linear.convolution, f"{SLIDING} group"),
    "Gemm": _row(linear.gemm, "alpha beta transA transB broadcast"),
    "MatMul": _row(linear.product),
    "BatchNormalization": _row(linear.batch_norm, "epsilon momentum spatial is_test training_mode"),
    "MaxPool": _row(windows.max_pool, f"{SLIDING} ceil_mode storage_order"),
    "AveragePool": _row(windows.mean_pool, f"{SLIDING} ceil_mode count_include_pad"),
    "GlobalAveragePool": _row(windows.global_mean),
    "GlobalMaxPool": _row(windows.global_max),
    "ReduceMean": _row(windows.mean, "axes keepdims noop_with_empty_axes"),
    "Flatten": _row(shapes.flatten, "axis"),
    "Reshape": _row(shapes.reshape, "allowzero"),
    "Squeeze": _row(shapes.squeeze, "axes"),
    "Unsqueeze": _row(shapes.unsqueeze, "axes"),
    "Transpose": _row(shapes.transpose, "perm"),
    "Pad": _row(shapes.pad, "mode pads value"),
    "Slice": _row(shapes.subsample, "starts ends axes"),
    "Identity": _row(shapes.nothing),
    "Dropout": _row(shapes.dropout, "ratio seed is_test"),
    "Cast": _row(shapes.cast, "to saturate round_mode"),
    "Softmax": _row(shapes.softmax, "axis"),
    "LogSoftmax": _row(shapes.softmax, "axis"),
    "LeakyRelu": _row(elementwise.with_numbers, "alpha"),
    "Elu": _row(elementwise.with_numbers, "alpha"),
    "Celu": _row(elementwise.with_numbers, "alpha"),
    "Selu": _row(elementwise.with_numbers, "alpha gamma"),
    "Swish": _row(elementwise.with_numbers, "alpha"),
    "Gelu": _row(elementwise.with_numbers, "approximate"),
    "HardSigmoid": _row(elementwise.with_numbers, "alpha beta"),
    "PRelu": _row(elementwise.parametric),
    "Clip": _row(elementwise.clip, "min max"),
    "Sum": _row(elementwise.total),
    **{op: _row(elementwise.unary) for op in elementwise.UNARY},
    **{op: _row(elementwise.binary, "broadcast axis") for op in elementwise.BINARY},
}
COMPUTED = frozenset(FOLDED) | {"Shape"}
"""Operators whose constants are computed; one that stands in `OPERATORS` too may also read the network."""
