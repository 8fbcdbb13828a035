"""Small ONNX networks as exporters write them, made with onnx.helper: one function each."""

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A graph under construction; every method adds a node and returns the name of what it makes."""

    def __init__(self, sizes: tuple[int, ...], opset: int = 17, batch: int | str = "n") -> None:
        self.rng = np.random.default_rng(len(sizes) + sum(sizes))
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []
        self.sizes, self.opset, self.batch = sizes, opset, batch

    def constant(self, array, name: str = "") -> str:
        name = name or f"c{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int, name: str = "") -> str:
        scale = 1 / math.sqrt(max(1, math.prod(shape[1:])))
        return self.constant((scale * self.rng.normal(size=shape)).astype(np.float32), name)

    def integers(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def add(self, op: str, *inputs: str, **attributes) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"/{op}_{len(self.nodes)}", **attributes))
        return out

    def conv(
        self, x: str, cin: int, cout: int, *taps: int, bias: bool = True, name: str = "", **attributes
    ) -> str:
        inputs = [x, self.weights(cout, cin, *taps, name=name)]
        return self.add("Conv", *inputs, *([self.weights(cout)] if bias else []), **attributes)

    def norm(self, x: str, channels: int, **attributes) -> str:
        vectors = [self.constant(self.rng.uniform(0.5, 2, channels).astype(np.float32)) for _ in range(4)]
        return self.add("BatchNormalization", x, *vectors, **attributes)

    def dense(self, x: str, cin: int, cout: int) -> str:
        return self.add("Gemm", x, self.weights(cout, cin), self.weights(cout), transB=1)

    def model(self, output: str, shape: tuple[int, ...] | None = None) -> onnx.ModelProto:
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.sizes])
        sizes = [self.batch, *(shape or ("channels", "rows", "columns"))]
        end = helper.make_tensor_value_info(output, TensorProto.FLOAT, sizes)
        graph = helper.make_graph(self.nodes, "net", [entry], [end], self.held)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        made.ir_version = 8 if self.opset < 21 else 10
        return made


def plain() -> onnx.ModelProto:
    net = Net((3, 9, 8))
    x = net.add("Relu", net.conv("x", 3, 6, 3, 3, pads=[1, 0, 2, 1], name="features.0.weight"))
    x = net.add("LeakyRelu", net.conv(x, 6, 4, 3, 2, strides=[2, 1], dilations=[1, 2], bias=False), alpha=0.2)
    x = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = net.add("Dropout", net.add("Tanh", net.dense(x, 4 * 2 * 2, 7)))
    x = net.add("Gemm", x, net.weights(7, 5), net.weights(5), alpha=0.5, beta=2.0)
    return net.model(x, (5,))


def residual() -> onnx.ModelProto:
    net = Net((3, 8, 8))
    x = net.add("Relu", net.norm(net.conv("x", 3, 4, 3, 3, pads=[1] * 4, bias=False), 4))
    y = net.add("Relu", net.norm(net.conv(x, 4, 4, 3, 3, pads=[1] * 4, bias=False), 4))
    y = net.norm(net.conv(y, 4, 4, 3, 3, pads=[1] * 4, bias=False), 4)
    x = net.add("Relu", net.add("Add", x, y))
    y = net.add("Relu", net.norm(net.conv(x, 4, 6, 3, 3, pads=[1] * 4, strides=[2, 2], bias=False), 6))
    y = net.norm(net.conv(y, 6, 6, 3, 3, pads=[1] * 4, bias=False), 6)
    skip = net.norm(net.conv(x, 4, 6, 1, 1, strides=[2, 2], bias=False), 6)
    x = net.add("GlobalAveragePool", net.add("Relu", net.add("Add", y, skip)))
    # How a program of PyTorch says x.view(x.size(0), -1).
    batch = net.add("Gather", net.add("Shape", x), net.constant(np.int64(0)), axis=0)
    shape = net.add("Concat", net.add("Unsqueeze", batch, net.integers(0)), net.integers(-1), axis=0)
    return net.model(net.dense(net.add("Reshape", x, shape), 6, 3), (3,))


def option_a() -> onnx.ModelProto:
    net = Net((2, 7, 6))
    x = net.add("Relu", net.conv("x", 2, 4, 3, 3, pads=[1] * 4))
    y = net.add("Relu", net.conv(x, 4, 8, 3, 3, pads=[1] * 4, strides=[2, 2]))
    y = net.conv(y, 8, 8, 3, 3, pads=[1] * 4)
    rows = [net.integers(n) for n in (0, 2**63 - 1, 2, 2)]
    z = net.add("Slice", x, rows[0], rows[1], rows[2], rows[3])
    z = net.add("Slice", z, rows[0], rows[1], net.integers(3), rows[3])
    z = net.add("Pad", z, net.integers(0, 2, 0, 0, 0, 2, 0, 0))
    x = net.add("Relu", net.add("Add", y, z))
    return net.model(net.dense(net.add("Flatten", net.add("GlobalAveragePool", x)), 8, 3), (3,))


def upsampled(opset: int, *inputs, op: str = "Resize", **attributes) -> onnx.ModelProto:
    """A decoder: rows twice, columns three times as many, after a convolution and before one."""
    net = Net((3, 4, 5), opset)
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3, pads=[1] * 4, strides=[2, 1]))
    held = [one if isinstance(one, str) else net.constant(one) for one in inputs]
    x = net.conv(net.add(op, x, *held, **attributes), 4, 3, 3, 3, pads=[1] * 4)
    return net.model(net.dense(net.add("Flatten", net.add("Relu", x)), 180, 4), (4,))


def sloped_by_two(op: str) -> onnx.ModelProto:
    """PReLU by channel as tf2onnx writes it: the sum of two ReLUs, of which one reads the negated value."""
    net = Net((3, 6, 5), opset=9)
    x = net.norm(net.conv("x", 3, 4, 3, 3, pads=[1] * 4), 4)
    y = net.add("Relu", net.add("Neg", x))
    y = (
        net.add("Mul", y, net.weights(4, 1, 1))
        if op == "Sub"
        else net.add("Mul", net.add("Neg", y), net.weights(4, 1, 1))
    )
    x = net.conv(net.add(op, net.add("Relu", x), y), 4, 3, 3, 3)
    return net.model(net.dense(net.add("Flatten", net.add("Relu", x)), 36, 4), (4,))


def pre_activation() -> onnx.ModelProto:
    """Batch norm before convolutions that pad, and a sum of three."""
    net = Net((3, 6, 6))
    x = net.conv("x", 3, 4, 3, 3, pads=[1] * 4)
    y = net.conv(net.add("Relu", net.norm(x, 4)), 4, 4, 3, 3, pads=[1] * 4)
    z = net.conv(net.norm(x, 4), 4, 4, 3, 3, pads=[1] * 4)
    x = net.add("Relu", net.norm(net.add("Sum", x, y, z), 4))
    return net.model(net.dense(net.add("Flatten", x), 144, 3), (3,))


def norms() -> onnx.ModelProto:
    """Batch norm before a convolution without padding, and before a flattened dense layer."""
    net = Net((3, 6, 6))
    x = net.conv(net.norm("x", 3, epsilon=0.01), 3, 4, 3, 3)
    x = net.norm(net.add("Relu", x), 4)
    x = net.norm(net.dense(net.add("Flatten", net.norm(x, 4)), 64, 5), 5)
    return net.model(net.dense(net.add("Relu", x), 5, 3), (3,))


def keras() -> onnx.ModelProto:
    """As tf2onnx writes a Keras network: NHWC outside, transposes within, MatMul and Add, shapes in int32."""
    net = Net((8, 9, 3), opset=13)
    x = net.add("Transpose", "x", perm=[0, 3, 1, 2])
    x = net.add("Relu", net.conv(x, 3, 4, 3, 3, auto_pad="SAME_UPPER", strides=[2, 2]))
    x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    x = net.add("Add", net.add("Mul", x, net.weights(4)), net.weights(4))
    x = net.add("Pad", x, net.integers(0, 1, 1, 0, 0, 1, 0, 0))
    x = net.add("Transpose", x, perm=[0, 3, 1, 2])
    x = net.add("Relu", net.add("Add", net.conv(x, 4, 6, 3, 3, bias=False), net.weights(1, 6, 1, 1)))
    x = net.add("Pad", x, net.integers(0, 0, 1, 0, 0, 0, 0, 1))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    x = net.add("Add", net.add("MatMul", x, net.weights(6, 5)), net.weights(5))
    sizes = net.add("Cast", net.add("Shape", x), to=TensorProto.INT32)
    sizes = net.add("Cast", sizes, to=TensorProto.INT64)
    batch = net.add("Slice", sizes, net.integers(0), net.integers(1), net.integers(0))
    whole = net.add(
        "ReduceProd", net.add("Slice", sizes, net.integers(1), net.integers(4), net.integers(0)), axes=[0]
    )
    x = net.add("Reshape", x, net.add("Concat", batch, whole, axis=0))
    x = net.add("Add", net.add("MatMul", x, net.weights(20, 3)), net.weights(3))
    return net.model(net.add("Softmax", x, axis=-1), (3,))


def keras_mean() -> onnx.ModelProto:
    net = Net((7, 7, 2), opset=11)
    x = net.add("Transpose", "x", perm=[0, 3, 1, 2])
    x = net.add("Selu", net.conv(x, 2, 4, 4, 3, auto_pad="SAME_LOWER", strides=[2, 3]))
    x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    x = net.add("ReduceMean", x, axes=[1, 2], keepdims=0)
    return net.model(net.add("Add", net.weights(3), net.add("MatMul", x, net.weights(4, 3))), (3,))


def pools(kind: str, opset: int, **attributes) -> onnx.ModelProto:
    net = Net((2, 9, 8), opset)
    x = net.conv("x", 2, 3, 1, 1)
    x = net.add(kind, x, kernel_shape=[3, 2], strides=[2, 2], **attributes)
    return net.model(net.conv(x, 3, 2, 1, 1))


def audio() -> onnx.ModelProto:
    net = Net((1, 60))
    x = net.add("Relu", net.norm(net.conv("x", 1, 4, 9, pads=[4, 4], strides=[2]), 4))
    x = net.add("MaxPool", x, kernel_shape=[4], strides=[4])
    y = net.conv(net.add("Relu", net.conv(x, 4, 4, 3, pads=[2, 2], dilations=[2])), 4, 4, 3, pads=[1, 1])
    x = net.add("AveragePool", net.add("Elu", net.add("Add", x, y)), kernel_shape=[2], strides=[2])
    x = net.add("Squeeze", net.add("GlobalAveragePool", x), net.integers(2))
    return net.model(net.dense(x, 4, 3), (3,))


def signal() -> onnx.ModelProto:
    """A signal without channels, and outputs of nodes that nothing reads."""
    net = Net((40,))
    x = net.conv(net.add("Unsqueeze", "x", net.integers(1)), 1, 3, 5, strides=[2])
    x = net.add("Dropout", net.add("MaxPool", net.add("Tanh", x), kernel_shape=[3]))
    net.nodes[-2].output.append("indices")
    net.nodes[-1].output.append("mask")
    return net.model(net.dense(net.add("Flatten", x), 48, 3), (3,))


def keras_audio() -> onnx.ModelProto:
    """A 1-D convolution of Keras: two axes with an added one, in the layout NLC."""
    net = Net((40, 2), opset=13)
    x = net.add("Unsqueeze", net.add("Transpose", "x", perm=[0, 2, 1]), net.integers(2))
    x = net.conv(x, 2, 4, 1, 5, auto_pad="SAME_UPPER", strides=[1, 2])
    x = net.add("Transpose", net.add("Squeeze", x, net.integers(2)), perm=[0, 2, 1])
    x = net.add("Flatten", net.add("Relu", x))
    return net.model(net.dense(x, 80, 3), (3,))


def normalised(pads: int, after: bool = False) -> onnx.ModelProto:
    """Mean and deviation by channel at the input, before a convolution that may pad."""
    net = Net((3, 6, 6))
    x = net.add("Div", "x", net.constant(np.float32(255)))
    x = net.add("Sub", x, net.constant(np.array([0.5, 0.4, 0.3], np.float32).reshape(1, 3, 1, 1)))
    x = net.add("Div", x, net.constant(np.array([0.2, 0.3, 0.4], np.float32).reshape(3, 1, 1)))
    x = net.add("Relu", net.conv(x, 3, 4, 3, 3, pads=[pads] * 4, bias=after))
    return net.model(net.dense(net.add("Flatten", x), 4 * (4 + 2 * pads) ** 2, 3), (3,))


def mlp() -> onnx.ModelProto:
    net = Net((28, 28))
    x = net.add("Reshape", "x", net.integers(-1, 784))
    x = net.add("Sigmoid", net.dense(x, 784, 6))
    return net.model(net.add("LogSoftmax", net.dense(x, 6, 4), axis=1), (4,))


def fixed_batch() -> onnx.ModelProto:
    net = Net((2, 6, 6), batch=1)
    x = net.add("Relu", net.conv("x", 2, 4, 3, 3))
    x = net.add("Reshape", net.add("AveragePool", x, kernel_shape=[4, 4]), net.integers(1, 4))
    return net.model(net.dense(x, 4, 3), (3,))


def squeezed() -> onnx.ModelProto:
    """A convolution behind the global mean, as in SqueezeNet, and a flattening with trailing ones."""
    net = Net((2, 6, 6))
    x = net.add("GlobalAveragePool", net.add("Relu", net.conv("x", 2, 5, 3, 3)))
    x = net.add("Relu", net.conv(x, 5, 4, 1, 1))
    x = net.conv(net.add("GlobalMaxPool", x), 4, 3, 1, 1)
    return net.model(net.add("Reshape", x, net.integers(0, -1)), (3,))


def activation(write: Callable[[Net, str], str], opset: int = 22) -> onnx.ModelProto:
    """A dense network with an activation as a file may write it."""
    net = Net((6,), opset)
    x = write(net, net.dense("x", 6, 8))
    return net.model(net.dense(x, 8, 3), (3,))


def number(net: Net, value: float) -> str:
    return net.constant(np.float32(value))


def gelu_by_erf(net: Net, x: str) -> str:
    y = net.add("Erf", net.add("Div", x, number(net, math.sqrt(2))))
    y = net.add("Mul", x, net.add("Add", y, number(net, 1)))
    return net.add("Mul", y, number(net, 0.5))


def gelu_by_erf_of_keras(net: Net, x: str) -> str:
    y = net.add("Erf", net.add("Mul", x, number(net, math.sqrt(0.5))))
    return net.add("Mul", net.add("Mul", number(net, 0.5), x), net.add("Add", number(net, 1), y))


def gelu_by_tanh(net: Net, x: str) -> str:
    y = net.add("Mul", net.add("Pow", x, number(net, 3)), number(net, 0.044715))
    y = net.add("Tanh", net.add("Mul", net.add("Add", x, y), number(net, math.sqrt(2 / math.pi))))
    return net.add("Mul", net.add("Mul", x, number(net, 0.5)), net.add("Add", y, number(net, 1)))


def silu_of_scaled(net: Net, x: str) -> str:
    y = net.add("Add", net.add("Mul", x, number(net, 0.7)), number(net, 0.3))
    return net.add("Mul", y, net.add("Sigmoid", y))


def clip(low: float, high: float) -> Callable[[Net, str], str]:
    return lambda net, x: net.add("Clip", x, number(net, low), number(net, high))


def one(op: str, **attributes) -> Callable[[Net, str], str]:
    return lambda net, x: net.add(op, x, **attributes)


ACTIVATIONS: dict[str, tuple[str, Callable[[Net, str], str]]] = {
    "Relu": ("relu", one("Relu")),
    "Clip from 0": ("relu", lambda net, x: net.add("Clip", x, number(net, 0))),
    "LeakyRelu": ("leaky_relu", one("LeakyRelu", alpha=0.1)),
    "PRelu": ("leaky_relu", lambda net, x: net.add("PRelu", x, net.constant(np.float32([0.25])))),
    "Max of two": ("leaky_relu", lambda net, x: net.add("Max", x, net.add("Mul", x, number(net, 0.3)))),
    "Sigmoid": ("sigmoid", one("Sigmoid")),
    "Tanh": ("tanh", one("Tanh")),
    "Elu": ("elu", one("Elu")),
    "Celu": ("elu", one("Celu", alpha=1.0)),
    "Selu": ("selu", one("Selu")),
    "Softplus": ("softplus", one("Softplus")),
    "Softplus by log": (
        "softplus",
        lambda net, x: net.add("Log", net.add("Add", net.add("Exp", x), number(net, 1))),
    ),
    "Gelu": ("gelu", one("Gelu")),
    "Gelu, tanh": ("gelu_tanh", one("Gelu", approximate="tanh")),
    "Gelu by Erf": ("gelu", gelu_by_erf),
    "Gelu by Erf of Keras": ("gelu", gelu_by_erf_of_keras),
    "Gelu by Tanh": ("gelu_tanh", gelu_by_tanh),
    "SiLU": ("silu", lambda net, x: net.add("Mul", x, net.add("Sigmoid", x))),
    "SiLU of a scaled value": ("silu", silu_of_scaled),
    "Mish": ("mish", one("Mish")),
    "Mish by Softplus": (
        "mish",
        lambda net, x: net.add("Mul", x, net.add("Tanh", net.add("Softplus", x))),
    ),
    "HardTanh": ("hard_tanh", clip(-1, 1)),
    "Relu6": ("relu6", clip(0, 6)),
    "HardSigmoid": ("hard_tanh", one("HardSigmoid")),
    "HardSigmoid of PyTorch": ("hard_sigmoid", one("HardSigmoid", alpha=1 / 6)),
}

NETS: dict[str, tuple[str, Callable[[], onnx.ModelProto]]] = {  # name: (layout of its input, the network)
    "plain": ("first", plain),
    "residual": ("first", residual),
    "option A": ("first", option_a),
    "pre-activation": ("first", pre_activation),
    "batch norms": ("first", norms),
    "keras": ("last", keras),
    "keras, global mean": ("last", keras_mean),
    "audio": ("first", audio),
    "signal": ("flat", signal),
    "keras audio": ("last", keras_audio),
    "normalised": ("first", lambda: normalised(0)),
    "normalised, padded": ("first", lambda: normalised(1)),
    "grey images": ("grey", mlp),
    "fixed batch": ("first", fixed_batch),
    "squeezed": ("first", squeezed),
    "slopes by two": ("first", lambda: sloped_by_two("Add")),
    "slopes by two, subtracted": ("first", lambda: sloped_by_two("Sub")),
    "upsampled": (
        "first",
        lambda: upsampled(
            *(13, "", np.float32([1, 1, 2, 3])),
            **{"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
        ),
    ),
    "upsampled, default rules": ("first", lambda: upsampled(13, "", np.float32([1, 1, 2, 3]))),
    "upsampled to sizes": ("first", lambda: upsampled(18, "", "", np.int64([4, 15]), axes=[2, 3])),
    "upsampled, opset 10": ("first", lambda: upsampled(10, np.float32([1, 1, 2, 3]))),
    "upsampled, opset 9": ("first", lambda: upsampled(9, np.float32([1, 1, 2, 3]), op="Upsample")),
    "upsampled, opset 7": ("first", lambda: upsampled(7, op="Upsample", scales=[1.0, 1.0, 2.0, 3.0])),
    "max, ceil": ("first", lambda: pools("MaxPool", 12, ceil_mode=1, pads=[1, 0, 1, 1])),
    "max, same": ("first", lambda: pools("MaxPool", 12, auto_pad="SAME_UPPER")),
    "mean": ("first", lambda: pools("AveragePool", 11, pads=[1, 0, 1, 1])),
    "mean, same": ("first", lambda: pools("AveragePool", 11, auto_pad="SAME_LOWER")),
    "mean, padding counts": (
        "first",
        lambda: pools("AveragePool", 11, pads=[1, 1, 0, 1], count_include_pad=1),
    ),
    "mean, ceil": ("first", lambda: pools("AveragePool", 19, ceil_mode=1, pads=[1, 0, 1, 0])),
    "mean, ceil, padding counts": (
        "first",
        lambda: pools("AveragePool", 19, ceil_mode=1, pads=[1, 1, 0, 1], count_include_pad=1),
    ),
}
