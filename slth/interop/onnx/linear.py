"""Convolution, dense layers and per-channel affine maps of an ONNX file."""

import re
from typing import NamedTuple

import numpy as np

from slth.interop.onnx.model import PRODUCT, Node
from slth.interop.onnx.values import (
    Affine,
    Padding,
    Tensor,
    Value,
    View,
    constant_of,
    made,
    numbers_of,
    plain_name,
    same,
    spatial,
    view_of,
)
from slth.interop.onnx.windows import window_of
from slth.nn.layers import Conv, Dense
from slth.types import Pairs

Tensors = list[Tensor | None]

# What stands behind a layer's own name in the names of its weights and of its node.
ENDINGS = re.compile(
    r"([._/](weight|kernel|W|w)|/(ReadVariableOp|Conv|Conv[12]D|conv[12]d|MatMul|Gemm|BiasAdd)(_\d+)?|:\d+)$"
)


def name_of(node: Node) -> str:
    """A name for a layer: that of its weights where a program gave them one, or that of its node."""
    weights = node.inputs[1] if len(node.inputs) > 1 else ""
    name = weights if weights.endswith((".weight", "/kernel", ".kernel")) else node.name or node.op.lower()
    while (shorter := ENDINGS.sub("", name)) != name and shorter.strip("/."):
        name = shorter
    return plain_name(name) or node.op.lower()


def convolution(node: Node, tensors: Tensors) -> View:
    """Conv: kernels (cout, cin / groups, *taps) become (*taps, cin / groups, cout)."""
    view = view_of(node, tensors)
    kernel = numbers_of(node, constant_of(node, tensors, 1), "kernel")
    if kernel.ndim not in (3, 4) or 0 in kernel.shape:
        raise node.refused(
            f"its kernel has the shape {kernel.shape}; convolutions of 1 or 2 spatial axes are read"
        )
    cout, each, *taps = kernel.shape
    groups = node.integer("group", 1)
    if groups < 1 or cout % groups:
        raise node.refused(f"its {cout} outputs cannot be dealt to {groups} groups, as many to each")
    if node.integers("kernel_shape", tuple(taps)) != tuple(taps):
        raise node.refused(f"kernel_shape {node.integers('kernel_shape')}, and its kernel has {tuple(taps)}")
    bias = constant_of(node, tensors, 2)
    params = {"kernel": np.transpose(kernel, (*range(2, kernel.ndim), 1, 0))}
    if bias is not None:
        params["bias"] = _vector(node, bias, cout, "bias")
    if len(view.value.shape) == 1 and set(taps) == {1} and len(view.axes) == kernel.ndim:
        if groups > 1:
            raise node.refused(
                f"it has {groups} groups and no position beside another: dense layers have one"
            )
        params["kernel"] = params["kernel"].reshape(each, cout)
        _check_inputs(node, view, each)
        return View(made(node, view, Dense(name_of(node), cout, bias is not None), params), view.axes)
    axes, held = spatial(node, view, len(taps))
    _check_inputs(node, view, each * groups)
    inner, padding = _without_zeros(view.value)
    window = window_of(node, tuple(taps), view, axes, held)
    layer = Conv(
        *(name_of(node), cout, window.taps, window.stride),
        tuple(
            (a + c, b + d)
            for (a, b), (c, d) in zip(window.padding, padding or ((0, 0),) * len(held), strict=True)
        ),
        *(window.dilation, bias is not None, groups),
    )
    params["kernel"] = params["kernel"].reshape(*window.taps, each, cout)
    return View(made(node, View(inner, axes), layer, params), axes)


def _without_zeros(value: Value) -> tuple[Value, Pairs]:
    """What is padded with zeros, and how much."""
    if isinstance(value.operation, Padding) and value.operation.constant == 0:
        return value.reads[0], value.operation.pairs
    return value, ()


def _check_inputs(node: Node, view: View, cin: int) -> None:
    if view.value.shape[-1] != cin:
        raise node.refused(f"its kernel reads {cin} channels, and its input has {view.value.shape[-1]}")


def _vector(node: Node, array: np.ndarray, size: int, what: str) -> np.ndarray:
    if array.size not in (1, size) or array.size != max(array.shape, default=1):
        raise node.refused(f"its {what} has the shape {array.shape}, expected ({size},)")
    return np.broadcast_to(numbers_of(node, array, what).ravel(), (size,))


def gemm(node: Node, tensors: Tensors) -> View:
    """Gemm: alpha A B + beta C as a dense layer."""
    view = view_of(node, tensors)
    if node.integer("transA"):
        raise node.refused("transA: it transposes the batch")
    kernel = numbers_of(node, constant_of(node, tensors, 1), "kernel")
    if kernel.ndim != 2 or view.axes != (0, 1) or len(view.value.shape) != 1:
        raise node.refused(
            f"it reads {len(view.axes)} axes by a kernel of shape {kernel.shape}, expected 2 and 2"
        )
    kernel = node.number("alpha", 1.0) * (kernel.T if node.integer("transB") else kernel)
    _check_inputs(node, view, kernel.shape[0])
    params, bias = {"kernel": kernel}, constant_of(node, tensors, 2)
    if bias is not None:
        params["bias"] = node.number("beta", 1.0) * _vector(node, bias, kernel.shape[1], "bias")
    return View(made(node, view, Dense(name_of(node), kernel.shape[1], bias is not None), params), (0, 1))


def product(node: Node, tensors: Tensors) -> View:
    """MatMul: a dense layer; of a value with spatial axes, a 1x1 convolution."""
    if len(tensors) == 2 and all(isinstance(one, View) for one in tensors):
        raise node.refused(PRODUCT)
    view = view_of(node, tensors)
    kernel = numbers_of(node, constant_of(node, tensors, 1), "kernel")
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise node.refused(f"its kernel has the shape {kernel.shape}, expected two axes")
    if view.axes[-1] != view.channel:
        raise node.wrong_layout("its last axis is not that of the channels")
    _check_inputs(node, view, kernel.shape[0])
    features, taps = kernel.shape[1], (1,) * (len(view.value.shape) - 1)
    layer = (
        Conv(name_of(node), features, taps, use_bias=False) if taps else Dense(name_of(node), features, False)
    )
    params = {"kernel": kernel.reshape(*taps, *kernel.shape)}
    return View(made(node, view, layer, params), view.axes)


class Statistics(NamedTuple):
    """The four vectors of a batch norm, in the order of ONNX."""

    scale: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    var: np.ndarray


def batch_norm(node: Node, tensors: Tensors) -> View:
    """BatchNormalization in inference: an affine map by channel."""
    view = view_of(node, tensors)
    modes = (("training_mode", 0), ("is_test", 1), ("spatial", 1))
    if (
        any(node.integer(name, mode) != mode for name, mode in modes)
        or len([*filter(None, node.outputs)]) > 1
    ):
        raise node.refused("it is in training mode (or normalises each position): export it for inference")
    if len(view.axes) < 2 or view.axes[1] != view.channel:
        raise node.wrong_layout("its second axis is not that of the channels")
    held = [constant_of(node, tensors, index) for index in range(1, 5)]
    if any(array is None or array.shape != (view.value.shape[-1],) for array in held):
        shapes = [None if array is None else array.shape for array in held]
        raise node.refused(f"its vectors have the shapes {shapes}, expected ({view.value.shape[-1]},)")
    found = Statistics(
        *(numbers_of(node, array, what) for array, what in zip(held, Statistics._fields, strict=True))
    )
    if (found.var < 0).any():
        raise node.refused(f"it has a variance of {found.var.min():g}, below 0")
    deviation = np.sqrt(found.var + node.number("epsilon", 1e-5))
    if not (deviation > 0).all():
        raise node.refused("it has a variance and an epsilon of 0")
    factor = found.scale / deviation
    return same(node, view, Affine(factor, found.bias - found.mean * factor))
