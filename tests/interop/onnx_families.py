"""Grouped convolutions and concatenations as the makers of known families of networks write them in ONNX."""

from collections.abc import Callable

import onnx

from tests.interop.onnx_nets import Net, number


def depthwise(net: Net, x: str, channels: int, *taps: int, **attributes) -> str:
    return net.conv(x, 1, channels, *taps, group=channels, **attributes)


def head(net: Net, x: str, channels: int) -> onnx.ModelProto:
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.model(net.dense(x, channels, 3), (3,))


def relu6(net: Net, x: str) -> str:
    return net.add("Clip", x, number(net, 0), number(net, 6))


def mobilenet_v2() -> onnx.ModelProto:
    """Inverted residuals of torchvision: batch norms folded by the exporter, Clip for ReLU6."""
    net = Net((3, 9, 8))
    x = relu6(net, net.conv("x", 3, 4, 3, 3, pads=[1] * 4, strides=[2, 2], name="features.0.0.weight"))
    x = relu6(net, depthwise(net, x, 4, 3, 3, pads=[1] * 4, name="features.1.conv.0.0.weight"))
    x = net.conv(x, 4, 3, 1, 1, name="features.1.conv.1.weight")
    for k in (2, 3):
        y = relu6(net, net.conv(x, 3, 6, 1, 1, name=f"features.{k}.conv.0.0.weight"))
        y = relu6(net, depthwise(net, y, 6, 3, 3, pads=[1] * 4, name=f"features.{k}.conv.1.0.weight"))
        x = net.add("Add", x, net.conv(y, 6, 3, 1, 1, name=f"features.{k}.conv.2.weight"))
    return head(net, relu6(net, net.conv(x, 3, 8, 1, 1)), 8)


def mobilenet_v1() -> onnx.ModelProto:
    """Depthwise separable layers of Keras, by tf2onnx: batch norms, transposes, padding apart."""
    net = Net((9, 8, 3), opset=13)
    x = net.add("Transpose", "x", perm=[0, 3, 1, 2])
    x = net.conv(x, 3, 4, 3, 3, bias=False, pads=[0, 0, 1, 1], strides=[2, 2])
    for cin, cout, stride in ((4, 6, 1), (6, 8, 2)):
        x = relu6(net, net.norm(x, cin, epsilon=0.001))
        x = net.add("Pad", x, net.integers(0, 0, 0, 0, 0, 0, 1, 1)) if stride == 2 else x
        padding = {"pads": [1] * 4} if stride == 1 else {"auto_pad": "VALID"}
        x = depthwise(net, x, cin, 3, 3, bias=False, strides=[stride] * 2, **padding)
        x = net.conv(relu6(net, net.norm(x, cin)), cin, cout, 1, 1, bias=False)
    x = net.add("Transpose", relu6(net, net.norm(x, 8)), perm=[0, 2, 3, 1])
    x = net.add("ReduceMean", x, axes=[1, 2], keepdims=0)
    return net.model(net.add("Add", net.add("MatMul", x, net.weights(8, 3)), net.weights(3)), (3,))


def densenet() -> onnx.ModelProto:
    """A dense block of torchvision: each layer concatenates all that was before it anew."""
    net = Net((3, 8, 8))
    held = [net.add("Relu", net.conv("x", 3, 4, 3, 3, pads=[1] * 4))]
    for _ in range(3):
        x = net.add("Concat", *held, axis=1)
        x = net.add("Relu", net.norm(x, 4 + 2 * (len(held) - 1)))
        x = net.add("Relu", net.conv(x, 4 + 2 * (len(held) - 1), 3, 1, 1))
        held.append(net.conv(x, 3, 2, 3, 3, pads=[1] * 4, bias=False))
    x = net.add("Relu", net.norm(net.add("Concat", *held, axis=1), 10))
    x = net.add("AveragePool", net.conv(x, 10, 5, 1, 1), kernel_shape=[2, 2], strides=[2, 2])
    return head(net, net.add("Relu", net.norm(x, 5)), 5)


def keras_densenet() -> onnx.ModelProto:
    """A dense block of Keras: each layer concatenates the last concatenation, on the last axis."""
    net = Net((6, 6, 3), opset=13)
    x = net.add("MatMul", "x", net.weights(3, 4))
    for channels in (4, 6):
        y = net.add("Transpose", x, perm=[0, 3, 1, 2])
        y = net.add("Relu", net.norm(y, channels))
        y = net.conv(y, channels, 2, 3, 3, bias=False, auto_pad="SAME_UPPER")
        x = net.add("Concat", x, net.add("Transpose", y, perm=[0, 2, 3, 1]), axis=3)
    x = net.add("ReduceMean", net.add("Relu", x), axes=[1, 2], keepdims=0)
    return net.model(net.add("Add", net.add("MatMul", x, net.weights(8, 3)), net.weights(3)), (3,))


def squeezenet() -> onnx.ModelProto:
    net = Net((3, 9, 8))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3, strides=[2, 2]))
    for cin in (4, 6):
        x = net.add("Relu", net.conv(x, cin, 2, 1, 1))
        sides = net.conv(x, 2, 3, 1, 1), net.conv(x, 2, 3, 3, 3, pads=[1] * 4)
        x = net.add("Concat", *(net.add("Relu", side) for side in sides), axis=-3)
    x = net.add("GlobalAveragePool", net.add("Relu", net.conv(x, 6, 3, 1, 1)))
    return net.model(net.add("Flatten", x), (3,))


def inception() -> onnx.ModelProto:
    """GoogLeNet's and Inception v3's modules: a pooled side, and a side that ends in two."""
    net = Net((3, 8, 8))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3))
    pooled = net.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    inner = net.add("Relu", net.conv(x, 4, 2, 1, 1))
    inner2 = [
        net.conv(inner, 2, 1, 1, 3, pads=[0, 1, 0, 1]),
        net.conv(inner, 2, 2, 3, 1, pads=[1, 0, 1, 0]),
    ]
    sides = [
        net.add("Relu", net.conv(x, 4, 2, 1, 1)),
        net.add("Relu", net.conv(inner, 2, 3, 3, 3, pads=[1] * 4)),
        net.add("Concat", *inner2, axis=1),
        net.add("Relu", net.conv(pooled, 4, 1, 1, 1)),
    ]
    x = net.add("Concat", *sides, axis=1)
    sides = [
        net.conv(x, 9, 3, 3, 3, strides=[2, 2]),
        net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]),
    ]
    x = net.add("Concat", *sides, axis=1)
    return head(net, net.add("Relu", x), 12)


def one_shot() -> onnx.ModelProto:
    """VoVNet: one concatenation at the end of a chain of layers, each of which it reads; SPPF's pools too."""
    net = Net((3, 7, 7))
    held = [net.add("Relu", net.conv("x", 3, 4, 3, 3))]
    for cin in (4, 2, 2):
        held.append(net.add("Relu", net.conv(held[-1], cin, 2, 3, 3, pads=[1] * 4)))
    x = net.add("Relu", net.conv(net.add("Concat", *held[::-1], axis=1), 10, 3, 1, 1))
    held = [x]
    for _ in range(2):
        held.append(net.add("MaxPool", held[-1], kernel_shape=[3, 3], pads=[1] * 4))
    return head(net, net.add("Concat", *held, axis=1), 9)


def concatenated_in_a_block() -> onnx.ModelProto:
    """Inception-ResNet: a sum whose branch ends in a concatenation and a 1x1 convolution."""
    net = Net((3, 6, 6))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3))
    sides = [net.add("Relu", net.conv(x, 4, 2, 1, 1)), net.conv(x, 4, 2, 3, 3, pads=[1] * 4)]
    y = net.conv(net.add("Concat", *sides, axis=1), 4, 4, 1, 1)
    return head(net, net.add("Relu", net.add("Add", x, net.add("Mul", y, number(net, 0.2)))), 4)


def efficientnet() -> onnx.ModelProto:
    """Without squeeze-and-excitation, as for hardware that has none (EfficientNet-Lite), with SiLU."""
    net = Net((3, 9, 8))
    x = net.norm(net.conv("x", 3, 4, 3, 3, bias=False, pads=[0, 0, 1, 1], strides=[2, 2]), 4)
    x = net.add("Mul", x, net.add("Sigmoid", x))
    y = net.norm(net.conv(x, 4, 8, 1, 1, bias=False), 8)
    y = net.add("Mul", y, net.add("Sigmoid", y))
    y = net.norm(depthwise(net, y, 8, 5, 5, bias=False, auto_pad="SAME_UPPER"), 8)
    y = net.conv(net.add("Mul", y, net.add("Sigmoid", y)), 8, 4, 1, 1, bias=False)
    return head(net, net.add("Add", net.norm(y, 4), x), 4)


def resnext() -> onnx.ModelProto:
    net = Net((3, 6, 6))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3, pads=[1] * 4))
    y = net.add("Relu", net.norm(net.conv(x, 4, 6, 1, 1, bias=False), 6))
    y = net.conv(y, 3, 6, 3, 3, group=2, bias=False, pads=[1] * 4, strides=[2, 2])
    y = net.norm(net.conv(net.add("Relu", net.norm(y, 6)), 6, 8, 1, 1, bias=False), 8)
    z = net.norm(net.conv(x, 4, 8, 1, 1, bias=False, strides=[2, 2]), 8)
    return head(net, net.add("Relu", net.add("Add", y, z)), 8)


def audio() -> onnx.ModelProto:
    """A depthwise separable network for keywords, on one axis, and groups of several channels."""
    net = Net((2, 40))
    x = net.add("Relu", net.norm(net.conv("x", 2, 4, 5, strides=[2]), 4))
    x = net.add("Relu", net.norm(depthwise(net, x, 4, 3, dilations=[2], bias=False, pads=[2, 2]), 4))
    x = net.add("Relu", net.conv(x, 2, 6, 3, group=2))
    x = net.add("Squeeze", net.add("GlobalAveragePool", x), net.integers(2))
    return net.model(net.dense(x, 6, 3), (3,))


def norm_before_groups() -> onnx.ModelProto:
    """Batch norms in front of grouped convolutions, whose factors and shifts go into them, or do not."""
    net = Net((4, 6, 6))
    x = net.add("Relu", net.conv(net.norm("x", 4), 2, 6, 3, 3, group=2))
    x = net.add("Relu", depthwise(net, net.norm(x, 6), 6, 3, 3, pads=[1] * 4))
    return head(net, x, 6)


def shuffle(net: Net, x: str, groups: int, channels: int, *places: int) -> str:
    x = net.add("Reshape", x, net.integers(-1, groups, channels // groups, *places))
    x = net.add("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", x, net.integers(-1, channels, *places))


def shufflenet_v1() -> onnx.ModelProto:
    net = Net((3, 6, 6))
    x = net.add("Relu", net.conv("x", 3, 6, 3, 3, pads=[1] * 4))
    y = net.add("Relu", net.norm(net.conv(x, 3, 6, 1, 1, group=2, bias=False), 6))
    y = net.norm(depthwise(net, shuffle(net, y, 2, 6, 6, 6), 6, 3, 3, bias=False, pads=[1] * 4), 6)
    y = net.norm(net.conv(y, 3, 6, 1, 1, group=2, bias=False), 6)
    return head(net, net.add("Relu", net.add("Add", x, y)), 6)


def shufflenet_v2(split: str) -> onnx.ModelProto:
    net = Net((3, 6, 6), opset=13)
    x = net.add("Relu", net.conv("x", 3, 6, 3, 3, pads=[1] * 4))
    for _ in range(2):
        if split == "Split":
            one = net.add("Split", x, axis=1)
            net.nodes[-1].output.append(other := f"{one}_2")
        else:
            one = net.add("Slice", x, net.integers(0), net.integers(3), net.integers(1))
            other = net.add("Slice", x, net.integers(3), net.integers(2**63 - 1), net.integers(1))
        other = net.add("Relu", net.conv(other, 3, 3, 1, 1))
        other = depthwise(net, other, 3, 3, 3, pads=[1] * 4)
        other = net.add("Relu", net.conv(other, 3, 3, 1, 1))
        x = shuffle(net, net.add("Concat", one, other, axis=1), 2, 6, 6, 6)
    return head(net, net.add("Relu", net.conv(x, 6, 5, 1, 1)), 5)


def keras_shuffle() -> onnx.ModelProto:
    net = Net((5, 4, 3), opset=13)
    x = net.add("Relu", net.add("MatMul", "x", net.weights(3, 6)))
    x = net.add("Transpose", net.add("Reshape", x, net.integers(-1, 5, 4, 3, 2)), perm=[0, 1, 2, 4, 3])
    x = net.add("MatMul", net.add("Reshape", x, net.integers(-1, 5, 4, 6)), net.weights(6, 4))
    x = net.add("ReduceMean", net.add("Relu", x), axes=[1, 2], keepdims=0)
    return net.model(net.add("MatMul", x, net.weights(4, 3)), (3,))


def prelu() -> onnx.ModelProto:
    """Slopes by channel of images and of features."""
    net = Net((3, 6, 6))
    x = net.norm(net.conv("x", 3, 4, 3, 3), 4)
    x = net.add("PRelu", x, net.weights(4, 1, 1))
    x = net.dense(net.add("Flatten", net.add("GlobalAveragePool", x)), 4, 5)
    return net.model(net.dense(net.add("PRelu", x, net.weights(5)), 5, 3), (3,))


def two_pools() -> onnx.ModelProto:
    """Means and largest entries side by side, as features."""
    net = Net((3, 6, 6))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3))
    x = net.add("Concat", net.add("GlobalAveragePool", x), net.add("GlobalMaxPool", x), axis=1)
    return net.model(net.dense(net.add("Flatten", x), 8, 3), (3,))


def widened() -> onnx.ModelProto:
    """Option A written as a concatenation with zeros of the batch's size; then two values and constants."""
    net = Net((3, 8, 8))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3, pads=[1] * 4))
    y = net.add("Relu", net.conv(x, 4, 6, 3, 3, pads=[1] * 4, strides=[2, 2]))
    skip = net.add("Slice", x, *(net.integers(*one) for one in ((0, 0), (99, 99), (2, 3), (2, 2))))
    batch = net.add("Gather", net.add("Shape", x), net.integers(0))
    size = net.add("Concat", batch, net.integers(2, 4, 4), axis=0)
    zeros = net.add("ConstantOfShape", size)
    x = net.add(
        "Relu", net.add("Add", net.conv(y, 6, 6, 3, 3, pads=[1] * 4), net.add("Concat", skip, zeros, axis=1))
    )
    number = net.add(
        "Expand", net.weights(1, 3, 1, 1), net.add("Concat", batch, net.integers(3, 4, 4), axis=0)
    )
    x = net.add("Concat", number, net.conv(x, 6, 2, 1, 1), number, net.conv(x, 6, 1, 1, 1), axis=1)
    return head(net, net.add("Relu", net.conv(x, 9, 5, 3, 3, pads=[1] * 4)), 5)


def widened_features() -> onnx.ModelProto:
    """Features, and one that is always 1: a bias as older programs write it."""
    net = Net((3, 5, 5))
    x = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.conv("x", 3, 4, 3, 3))))
    batch = net.add("Gather", net.add("Shape", x), net.integers(0))
    one = net.add("Expand", number(net, 1), net.add("Concat", batch, net.integers(1), axis=0))
    return net.model(net.add("MatMul", net.add("Concat", x, one, axis=1), net.weights(5, 3)), (3,))


def excited() -> onnx.ModelProto:
    """A block of MobileNetV3 or EfficientNet: its squeeze-and-excitation is a product of two values."""
    net = Net((3, 6, 6))
    x = net.add("Relu", net.conv("x", 3, 4, 3, 3))
    y = depthwise(net, x, 4, 3, 3, pads=[1] * 4)
    s = net.add("Relu", net.conv(net.add("GlobalAveragePool", y), 4, 2, 1, 1))
    y = net.add("Mul", y, net.add("Sigmoid", net.conv(s, 2, 4, 1, 1)))
    return head(net, net.add("Add", x, net.conv(y, 4, 4, 1, 1)), 4)


FAMILIES: dict[str, tuple[str, Callable[[], onnx.ModelProto]]] = {  # name: (layout of its input, the network)
    "MobileNetV2": ("first", mobilenet_v2),
    "MobileNet of Keras": ("last", mobilenet_v1),
    "DenseNet": ("first", densenet),
    "DenseNet of Keras": ("last", keras_densenet),
    "SqueezeNet": ("first", squeezenet),
    "Inception": ("first", inception),
    "VoVNet": ("first", one_shot),
    "Inception-ResNet": ("first", concatenated_in_a_block),
    "EfficientNet-Lite": ("first", efficientnet),
    "ResNeXt": ("first", resnext),
    "keywords": ("first", audio),
    "norms before groups": ("first", norm_before_groups),
    "ShuffleNet": ("first", shufflenet_v1),
    "ShuffleNet v2": ("first", lambda: shufflenet_v2("Split")),
    "ShuffleNet v2, slices": ("first", lambda: shufflenet_v2("Slice")),
    "shuffle of Keras": ("last", keras_shuffle),
    "PReLU": ("first", prelu),
    "two pools": ("first", two_pools),
    "constants beside channels": ("first", widened),
    "constants beside features": ("first", widened_features),
}
