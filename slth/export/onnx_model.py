"""A network as an ONNX model of standard operators, channels first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slth.export.groups import Piece, pieces_of
from slth.export.pools import shares
from slth.interop.optional import optional
from slth.nn.forward import count
from slth.nn.graph import Apply, Join, Map, Skip, Sum, by_layer, graph, value_shapes
from slth.nn.layers import Activation, ChannelScale, Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.types import Params, Shape

MOST = 2**29 - 2**18
"""Most numbers of a model: a file of ONNX has less than 2 GiB."""
OPSET, IR = 13, 7
"""Versions of the operators and of the file's form, of 2020: every runtime of today reads them."""
UNARY = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus", "elu": "Elu"}
UNARY |= {"identity": "Identity"}
SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


class Nodes:
    """The nodes and the constants of a model, as they are added; a value is known by its name."""

    def __init__(self, params: Params) -> None:
        self.helper = optional("onnx.helper", "an ONNX file", "slth[onnx]")
        self.arrays = optional("onnx.numpy_helper", "an ONNX file", "slth[onnx]")
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.params = by_layer(params)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node; the name of its only output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """A constant by its name; one that is there already must be the same."""
        array = np.ascontiguousarray(value, dtype) if np.ndim(value) else np.asarray(value, dtype)
        assert np.array_equal(self.constants.setdefault(name, array), array), name
        return name

    def term(self, term: Map | Skip, x: str, shape: Shape) -> str:
        """One term of a sum, from a value of this shape."""
        match term.layer:
            case Dense():
                return self.dense(term.path, term.layer, x)
            case Conv():
                return self.pieces(term.path, term.layer, x, shape[-1])
            case Subsample():
                return self.subsampled(term.layer, x, shape)
            case ChannelScale():
                return self.scaled(term.path, x, shape)
        return x

    def dense(self, path: str, layer: Dense, x: str) -> str:
        """A dense layer, its kernel (cin, cout)."""
        own = self.params[path]
        inputs = [self.constant(f"{path}/bias", own["bias"])] if layer.use_bias else []
        return self.add("Gemm", x, self.constant(f"{path}/kernel", own["kernel"]), *inputs)

    def pieces(self, path: str, layer: Conv, x: str, cin: int) -> str:
        """A convolution, with what stands beside its groups."""
        found = pieces_of(path, layer, self.params[path], cin)
        joined = [self.conv(piece, x, cin) for piece in found.joined]
        y = self.add("Concat", *joined, axis=1) if len(joined) > 1 else joined[0]
        for piece in found.added:
            y = self.add("Add", y, self.conv(piece, x, cin))
        return y

    def conv(self, piece: Piece, x: str, cin: int) -> str:
        """A convolution of some channels of a value, its kernel (cout, cin / groups, *taps)."""
        layer, own = piece.layer, piece.params
        if piece.count < cin:
            ends = {"starts": piece.first, "ends": piece.first + piece.count, "axes": 1}
            x = self.sliced(x, {name: [value] for name, value in ends.items()})
        inputs = [self.constant(f"{piece.path}/bias", own["bias"])] if layer.use_bias else []
        kernel = self.constant(f"{piece.path}/kernel", np.moveaxis(own["kernel"], (-1, -2), (0, 1)))
        pads = [pair[side] for side in (0, 1) for pair in layer.padding]
        sizes = {"kernel_shape": layer.kernel, "strides": layer.stride, "dilations": layer.dilation}
        return self.add("Conv", x, kernel, *inputs, pads=pads, group=layer.groups, **sizes)

    def sliced(self, x: str, settings: Mapping[str, Sequence[int]]) -> str:
        """Slice with its inputs in their order."""
        inputs = (self.constant(f"{name} {list(n)}", list(n), np.int64) for name, n in settings.items())
        return self.add("Slice", x, *inputs)

    def scaled(self, path: str, x: str, shape: Shape) -> str:
        """A factor for each channel."""
        scale = np.asarray(self.params[path]["scale"]).reshape(-1, *(1,) * (len(shape) - 1))
        return self.add("Mul", x, self.constant(f"{path}/scale", scale))

    def subsampled(self, layer: Subsample, x: str, shape: Shape) -> str:
        """Every stride-th position; a channel of zeros at the end is what -1 reads, as the last one."""
        rank = len(shape) - 1
        if any(stride > 1 for stride in layer.stride):
            ends = {"starts": [0] * rank, "ends": shape[:-1], "axes": range(2, 2 + rank)}
            x = self.sliced(x, {**ends, "steps": layer.stride})
        if min(layer.channels) < 0:
            pads = [0] * (rank + 3) + [1] + [0] * rank
            x = self.add("Pad", x, self.constant(f"pads {pads}", pads, np.int64))
        if layer.channels == tuple(range(shape[-1])):
            return x
        channels = self.constant(f"channels {len(self.nodes)}", layer.channels, np.int64)
        return self.add("Gather", x, channels, axis=1)

    def apply(self, step: Apply, x: str, shape: Shape) -> str:
        """A step that is no sum, of a value of this shape."""
        match step.layer:
            case Activation(kind, slope):
                return self.activation(kind, slope, x)
            case Pool():
                return self.pool(step.layer, x, shape)
            case GlobalMax():
                return self.add("Flatten", self.add("GlobalMaxPool", x)) if len(shape) > 1 else x
            case Upsample(factors):
                sizes = self.constant(f"{x} factors", np.array([1, 1, *factors]))
                nearest = {"mode": "nearest", "nearest_mode": "floor"}
                at = {"coordinate_transformation_mode": "asymmetric"}
                return self.add("Resize", x, "", sizes, **nearest, **at)
            case GlobalMean():
                return self.add("Flatten", self.add("GlobalAveragePool", x)) if len(shape) > 1 else x
            case Flatten(order):
                if order == "hwc" and len(shape) > 1:
                    x = self.add("Transpose", x, perm=[0, *range(2, len(shape) + 1), 1])
                return self.add("Flatten", x)
            case Subsample():
                return self.subsampled(step.layer, x, shape)
            case ChannelScale():
                return self.scaled(step.path, x, shape)
        raise ValueError(f"{step.layer}: not one of the layers that ONNX files hold")

    def pool(self, layer: Pool, x: str, shape: Shape) -> str:
        """Largest entries or means; where windows hold unequal numbers of entries, means over whole windows
        times what is missing."""
        padding = layer.full_padding(shape)
        pads = [pair[side] for side in (0, 1) for pair in padding]
        sizes = {"kernel_shape": layer.window, "strides": layer.stride, "pads": pads}
        if layer.kind == "max":
            return self.add("MaxPool", x, **sizes)
        mean = self.add("AveragePool", x, count_include_pad=1, **sizes)
        share = shares(layer, shape)
        return mean if share is None else self.add("Mul", mean, self.constant(f"{mean} share", share))

    def activation(self, kind: str, slope: float, x: str) -> str:
        """An activation of the table, by operators of version 13."""
        if kind in UNARY:
            return self.add(UNARY[kind], x)
        match kind:
            case "leaky_relu":
                return self.add("LeakyRelu", x, alpha=slope)
            case "selu":
                return self.add("Selu", x, **SELU)
            case "hard_tanh":
                ends = (self.constant(name, value) for name, value in (("minus one", -1.0), ("one", 1.0)))
                return self.add("Clip", x, *ends)
            case "relu6":
                ends = (self.constant(name, value) for name, value in (("zero", 0.0), ("six", 6.0)))
                return self.add("Clip", x, *ends)
            case "hard_sigmoid":
                return self.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
            case "hard_swish":
                return self.add("Mul", x, self.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
            case "silu":
                return self.add("Mul", x, self.add("Sigmoid", x))
            case "mish":
                return self.add("Mul", x, self.add("Tanh", self.add("Softplus", x)))
            case "gelu_tanh":
                cube = self.add("Mul", self.add("Mul", x, x), x)
                bent = self.add("Add", x, self.add("Mul", cube, self.constant("gelu cubic", 0.044715)))
                bent = self.add("Mul", bent, self.constant("root of 2 over pi", math.sqrt(2 / math.pi)))
                half = self.add("Mul", x, self.constant("half", 0.5))
                return self.add(
                    "Mul", half, self.add("Add", self.add("Tanh", bent), self.constant("one", 1.0))
                )
            case "gelu":
                error = self.add("Erf", self.add("Mul", x, self.constant("root of a half", math.sqrt(0.5))))
                half = self.add("Mul", x, self.constant("half", 0.5))
                return self.add("Mul", half, self.add("Add", error, self.constant("one", 1.0)))
        raise ValueError(f"activation {kind!r}: not one of those that ONNX files hold")


def onnx_model(
    network: Network, params: Params, factor: float = 1.0, about: str = "a network of slth"
) -> Any:
    r"""The ONNX model of :math:`\lambda f(x)`, checked by onnx's own checker.

    Operators of version 13; input ``images`` (n, c, h, w), (n, c, length) or (n, features) with any n, output
    ``outputs`` with the channels first as well.

    Args:
      network, params: without batch norm.
      factor: lambda, by which outputs are multiplied.
      about: the model's ``doc_string``.
    Returns: an ``onnx.ModelProto``.
    Raises: ValueError where onnx is not installed, for a layer that it has no operator for, or above 2 GiB.

    Example:
      >>> import jax
      >>> from slth import export, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> model = export.onnx_model(network, nn.init(network, jax.random.key(0)), 0.5)
      >>> [node.op_type for node in model.graph.node]
      ['Gemm', 'Relu', 'Gemm', 'Mul']
    """
    if count(params) > MOST:
        raise ValueError(
            f"{count(params):,} numbers are more than an ONNX file of 2 GiB holds: export like PyTorch"
        )
    made, shapes = Nodes(params), value_shapes(network)
    values = ["images"]
    for step in graph(network):
        match step:
            case Sum(maps=maps, skips=skips):
                first, *rest = (
                    made.term(one, values[one.reads], shapes[one.reads]) for one in (*maps, *skips)
                )
                for other in rest:
                    first = made.add("Add", first, other)
                values.append(first)
            case Join(reads=reads):
                values.append(made.add("Concat", *(values[value] for value in reads), axis=1))
            case Apply(value=value):
                values.append(made.apply(step, values[value], shapes[value]))
    made.add("Mul", values[-1], made.constant("factor", factor))
    made.nodes[-1].output[0] = "outputs"
    return _checked(made, shapes, about)


def _checked(made: Nodes, shapes: tuple[Shape, ...], about: str) -> Any:
    """The model of these nodes, from images of the first shape to outputs of the last."""
    helper, checker = made.helper, optional("onnx.checker", "an ONNX file", "slth[onnx]")
    images, outputs = (
        helper.make_tensor_value_info(name, 1, ["n", shape[-1], *shape[:-1]])  # 1: float32
        for name, shape in (("images", shapes[0]), ("outputs", shapes[-1]))
    )
    constants = [made.arrays.from_array(value, name) for name, value in made.constants.items()]
    inside = helper.make_graph(made.nodes, "network", [images], [outputs], constants)
    version = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        inside, producer_name="slth", doc_string=about, ir_version=IR, opset_imports=version
    )
    checker.check_model(model, full_check=True)
    return model
