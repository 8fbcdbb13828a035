"""The operators of ONNX that slth reads, each with what it means and the attributes that it may have."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from slth.interop.onnx import channels, elementwise, linear, resizing, shapes, windows
from slth.interop.onnx.constants import FOLDED
from slth.interop.onnx.model import Node
from slth.interop.onnx.values import Tensor, View

SLIDING = "auto_pad kernel_shape pads strides dilations"


Reading: TypeAlias = Callable[[Node, list[Tensor | None]], Tensor | list[View]]
"""What a node makes of its inputs; a list where it makes several tensors."""


class Operator(NamedTuple):
    """What an operator means."""

    read: Reading
    inputs: range
    """How many it may have."""
    attributes: frozenset[str]


def _row(read: Reading, least: int, most: int, attributes: str = "") -> Operator:
    return Operator(read, range(least, most + 1), frozenset(attributes.split()))


OPERATORS: dict[str, Operator] = {
    "Conv": _row(linear.convolution, 2, 3, f"{SLIDING} group"),
    "Gemm": _row(linear.gemm, 2, 3, "alpha beta transA transB broadcast"),
    "MatMul": _row(linear.product, 2, 2),
    "BatchNormalization": _row(linear.batch_norm, 5, 5, "epsilon momentum spatial is_test training_mode"),
    "MaxPool": _row(windows.max_pool, 1, 1, f"{SLIDING} ceil_mode storage_order"),
    "AveragePool": _row(windows.mean_pool, 1, 1, f"{SLIDING} ceil_mode count_include_pad"),
    "GlobalAveragePool": _row(windows.global_mean, 1, 1),
    "GlobalMaxPool": _row(windows.global_max, 1, 1),
    "ReduceMean": _row(windows.mean, 1, 2, "axes keepdims noop_with_empty_axes"),
    "Resize": _row(
        resizing.upsample,
        2,
        4,
        "mode nearest_mode coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
        "antialias axes keep_aspect_ratio_policy",
    ),
    "Upsample": _row(resizing.upsample, 1, 2, "mode scales"),
    "Flatten": _row(shapes.flatten, 1, 1, "axis"),
    "Reshape": _row(shapes.reshape, 2, 2, "allowzero"),
    "Squeeze": _row(shapes.squeeze, 1, 2, "axes"),
    "Unsqueeze": _row(shapes.unsqueeze, 1, 2, "axes"),
    "Concat": _row(channels.concatenation, 1, 1024, "axis"),
    "Split": _row(channels.split, 1, 2, "axis split num_outputs"),
    "Transpose": _row(shapes.transpose, 1, 1, "perm"),
    "Pad": _row(shapes.pad, 1, 4, "mode pads value"),
    "Slice": _row(shapes.subsample, 1, 5, "starts ends axes"),
    "Identity": _row(shapes.nothing, 1, 1),
    "Dropout": _row(shapes.dropout, 1, 3, "ratio seed is_test"),
    "Cast": _row(shapes.cast, 1, 1, "to saturate round_mode"),
    "Softmax": _row(shapes.softmax, 1, 1, "axis"),
    "LogSoftmax": _row(shapes.softmax, 1, 1, "axis"),
    "LeakyRelu": _row(elementwise.with_numbers, 1, 1, "alpha"),
    "Elu": _row(elementwise.with_numbers, 1, 1, "alpha"),
    "Celu": _row(elementwise.with_numbers, 1, 1, "alpha"),
    "Selu": _row(elementwise.with_numbers, 1, 1, "alpha gamma"),
    "Swish": _row(elementwise.with_numbers, 1, 1, "alpha"),
    "Gelu": _row(elementwise.with_numbers, 1, 1, "approximate"),
    "HardSigmoid": _row(elementwise.with_numbers, 1, 1, "alpha beta"),
    "PRelu": _row(elementwise.parametric, 2, 2),
    "Clip": _row(elementwise.clip, 1, 3, "min max"),
    "Sum": _row(elementwise.total, 1, 64),
    **{op: _row(elementwise.unary, 1, 1) for op in elementwise.UNARY},
    **{op: _row(elementwise.binary, 2, 2, "broadcast axis") for op in elementwise.BINARY},
}
COMPUTED = frozenset(FOLDED) | {"Shape"}
"""Operators whose constants are computed; one that stands in `OPERATORS` too may also read the network."""
