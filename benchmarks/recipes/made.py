"""Networks of the digits in files that other programs write: `make_torch.py`, `make_keras.py` and others.

Beside each file stand the images it is tested on and what its own program computed from them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import equinox as eqx
import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import slth
from benchmarks.files import Inputs, Recipe
from benchmarks.recipes import jax_nets
from benchmarks.recipes.found import conv, dense, graph, keras_target
from slth import interop, nn
from slth.types import Params

ONE = jnp.zeros((2, 8, 8, 1))


def beside(path: Path) -> np.lib.npyio.NpzFile:
    """The images and outputs that its program wrote beside a file."""
    return np.load(path.parent / f"{path.stem}.outputs.npz")


def digits(path: Path) -> Inputs:
    """The digits as the program of the file had them."""
    held = beside(path)
    return Inputs("digits", held["known"], held["images"], held["labels"])


def signals(path: Path, shape: tuple[int, ...] = (64, 1)) -> Inputs:
    """The digits as rows of 64 numbers."""
    held = digits(path)
    return Inputs("digits", held.known.reshape(-1, *shape), held.unseen.reshape(-1, *shape), held.labels)


def stored(path: Path, x: np.ndarray) -> np.ndarray:
    """What the program computed."""
    return beside(path)["outputs"][: len(x)]


def spec_of(*layers: nn.Layer) -> Callable[[Path], slth.Target]:
    """Reads a file of arrays into these layers."""
    return partial(slth.load, spec=nn.Network((8, 8, 1), layers))


def linen(path: Path) -> slth.Target:
    """flax's residual network: variables of the file, function of the class."""
    variables, apply, _ = jax_nets.linen_residuals(np.zeros((512, 8, 8, 1), np.float32))
    return slth.from_jax(apply, flax.serialization.from_bytes(variables, path.read_bytes()), ONE)


def fire(path: Path) -> slth.Target:
    """nnx: arrays of the folder by their paths, put into the state of the class."""
    state, apply, _ = jax_nets.nnx_fire(np.zeros((2, 8, 8, 1), np.float32))
    read = flax.traverse_util.flatten_dict(interop.read_arrays(path))
    arrays = {".".join(map(str, keys)): array for keys, array in read.items()}
    pure = jax.tree_util.tree_map_with_path(lambda keys, _: arrays[_dotted(keys)], nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, pure)
    return slth.from_jax(apply, state, ONE)


def _dotted(keys: tuple) -> str:
    return ".".join(str(key.key) for key in keys)


def equinox(path: Path) -> slth.Target:
    """equinox: leaves of the file in the tree of the class."""
    arrays, *_ = jax_nets.equinox_sound(np.zeros((2, 8, 8, 1), np.float32))
    read = eqx.tree_deserialise_leaves(path, arrays)
    rest = eqx.partition(jax_nets.Sound(jax.random.key(2)), eqx.is_array)[1]
    return slth.from_jax(
        lambda p, x: jax.vmap(eqx.combine(p, rest))(x), read, jnp.zeros((2, 1, 64)), layout="channels_first"
    )


def haiku(path: Path) -> slth.Target:
    """haiku: arrays by name, in two levels."""
    params: dict = {}
    for name, array in np.load(path).items():
        layer, leaf = name.rsplit("/", 1)
        params.setdefault(layer, {})[leaf] = array
    return slth.from_jax(jax_nets.GROUPED.apply, params, ONE)


def mlx(path: Path) -> slth.Target:
    """MLX: kernels (out, rows, columns, in), said in JAX."""

    def apply(p: Params, x):
        for index, stride in ((1, 1), (2, 2), (3, 1)):
            kernel = jnp.moveaxis(jnp.asarray(p[f"conv{index}.weight"]), -1, 1)
            held = {"weight": kernel, "bias": p[f"conv{index}.bias"]}
            x = jax.nn.elu(conv({f"c.{k}": v for k, v in held.items()}, "c", x, stride, [(1, 1), (1, 1)]))
        return dense(p, "fc", x.mean((1, 2)))

    return slth.from_jax(apply, dict(interop.read_arrays(path)), ONE)


def plain() -> Callable[[Path], slth.Target]:
    """Reads a state dict of `make_torch.plain`."""
    act = nn.Activation("leaky_relu", 0.1)
    return spec_of(
        *(nn.Conv("0", 16, (3, 3), padding=PADDED), act),
        *(nn.Conv("2", 24, (3, 3), padding=((2, 2), (2, 2)), dilation=(2, 2), groups=4), act),
        *(nn.Conv("4", 32, (3, 3), (2, 2), PADDED), act, nn.Pool("max", (2, 2))),
        *(nn.Flatten("chw"), nn.Dense("8", 10)),
    )


def of(
    name: str,
    what: str,
    maker: str,
    door: str,
    target: Callable[[Path], slth.Target],
    inputs: Callable[[Path], Inputs] = digits,
) -> Recipe:
    """A recipe whose inputs and outputs stand beside the file."""
    return Recipe(name, what, maker, door, target, inputs, stored, labelled=True, copies=8)


KERAS, TF = "Keras 3.15 (TensorFlow 2.21)", "Keras 3.15, tf2onnx 1.17"
FLAX = "flax 0.12"
TORCH, VISION = "PyTorch 1.13", "torchvision 0.14"
PADDED = nn.same_padding((3, 3))
FILES = (
    Recipe(
        *("keras_separable.onnx", "MobileNet-like: depthwise, ReLU6, softmax, opset 11", TF, "`load`", graph),
        *(digits, None),
        labelled=True,
        copies=8,
    ),
    of(
        "keras_dense_block.onnx",
        "DenseNet-like: batch norm first, concatenations, opset 18",
        TF,
        "`load`",
        graph,
    ),
    of("keras_dense_block.keras", "the same network", KERAS, "`from_jax`, Keras on JAX", keras_target),
    of(
        "keras_inception.onnx", "Inception-like: four branches, global maximum, opset 15", TF, "`load`", graph
    ),
    of("keras_hard_swish.onnx", "MobileNetV3-like: hard swish, residuals, opset 13", TF, "`load`", graph),
    of("keras_sound.onnx", "M5-like, 1-D: leaky ReLU, opset 17", TF, "`load`", graph),
    of(
        "keras_wide.keras",
        "Wide ResNet-like: batch norm first, SiLU",
        KERAS,
        "`from_jax`, Keras on JAX",
        keras_target,
    ),
    of(
        "keras_parametric.h5",
        "PReLU by channel, batch norm behind",
        KERAS,
        "`from_jax`, Keras on JAX",
        keras_target,
    ),
    of("keras_parametric.onnx", "the same network, opset 9", TF, "`load`", graph),
    of("linen_residuals.msgpack", "ResNet-like: batch norm, GELU", f"{FLAX}, linen", "`from_jax`", linen),
    of(
        *("linen_plain.msgpack", "3 convolutions with softplus", f"{FLAX}, linen", "`load` with a spec"),
        spec_of(
            *(nn.Conv("Conv_0", 12, (3, 3), padding=PADDED), nn.Activation("softplus")),
            *(nn.Conv("Conv_1", 16, (3, 3), (2, 2), PADDED), nn.Activation("softplus")),
            *(nn.Conv("Conv_2", 24, (3, 3), (2, 2), PADDED), nn.Activation("softplus")),
            *(nn.Flatten("hwc"), nn.Dense("Dense_0", 10)),
        ),
    ),
    of("nnx_fire", "SqueezeNet-like: fire modules; a folder of orbax", f"{FLAX}, nnx", "`from_jax`", fire),
    of(
        "equinox_sound.eqx",
        "M5-like, 1-D, channels first, PReLU",
        "equinox 0.13",
        "`from_jax`",
        equinox,
        signals,
    ),
    of("haiku_grouped.npz", "ResNeXt-like: grouped convolutions", "dm-haiku 0.0.17", "`from_jax`", haiku),
    of("mlx.safetensors", "3 convolutions with ELU", "MLX 0.32", "`from_jax`, arrays of the file", mlx),
    of(
        "paddle.onnx",
        "MobileNet-like: hard swish, mean pooling in ceil mode",
        "PaddlePaddle 3.3, paddle2onnx 2.1",
        "`load`",
        graph,
    ),
    Recipe(
        "sklearn.onnx",
        "multilayer perceptron, tanh",
        "scikit-learn, skl2onnx 1.20",
        "`load`, one of two outputs",
        partial(graph, output="probabilities"),
        partial(signals, shape=(64,)),
        labelled=True,
        copies=8,
    ),
    of(
        "torch_residuals.onnx",
        "ResNet-like: SiLU, pooled skip with projection, opset 13",
        TORCH,
        "`load`",
        graph,
    ),
    of("torch_sound.onnx", "M5-like, 1-D: batch norm, max pooling, opset 11", TORCH, "`load`", graph),
    of("torch_plain.onnx", "dilated and grouped convolutions, leaky ReLU, opset 9", TORCH, "`load`", graph),
    of("torch_plain.pth", "the same network, state dict", TORCH, "`load` with a spec", plain()),
    of("torch_weight_norm.pth", "the same with weight norm", TORCH, "`load` with a spec", plain()),
    of("torch_pruned.pth", "the same with torch.nn.utils.prune", TORCH, "`load` with a spec", plain()),
    *(
        of(f"torchvision_{name}.onnx", f"{what}, opset 16", VISION, "`load`", graph)
        for name, what in (
            ("mobilenet_v2", "MobileNetV2, width 0.25"),
            ("shufflenet_v2", "ShuffleNetV2, widths 24 to 128"),
            ("squeezenet", "SqueezeNet 1.1"),
            ("densenet", "DenseNet, growth 8, blocks of 2"),
            ("mnasnet", "MNASNet, width 0.25"),
        )
    ),
    Recipe(
        "torchvision_efficientnet.onnx", "EfficientNet-B0: squeeze and excitation", VISION, "`load`", graph
    ),
    Recipe("torchscript.pt", "TorchScript", VISION, "`load`", interop.read_arrays),
    Recipe("torch_module.pt", "a whole pickled module", VISION, "`load`", interop.read_arrays),
    Recipe("keras_gates.onnx", "squeeze and excitation", TF, "`load`", graph),
    Recipe(
        "paddle.pdparams",
        "arrays of the network above, pickled",
        "PaddlePaddle 3.3",
        "`load`",
        interop.read_arrays,
    ),
)
