"""ResNet-50 as torchvision has it: every array by name, and PyTorch's logits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import slth
from slth import nn
from slth.interop import fit
from slth.nn import zoo
from tests.fixtures.make_resnet50 import NETWORKS, drawn, images

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHAPES = {name: tuple(shape) for name, shape in json.loads((FIXTURES / "resnet50.json").read_text()).items()}
STORED = np.load(FIXTURES / "resnet50.npz")


def shapes_of(width: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Those of `SHAPES` with another number of channels and classes."""
    sizes = {3: 3, 1: 1, 7: 7, 1000: classes}

    def narrowed(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sizes.get(n, n * width // 64) if at < 2 else n for at, n in enumerate(shape))

    return {name: narrowed(name, shape) for name, shape in SHAPES.items()}


def state_of(width: int, classes: int) -> dict[str, np.ndarray]:
    """A state dict with torchvision's names."""
    return {
        name: np.array(0) if name.endswith("tracked") else drawn(name, shape)
        for name, shape in shapes_of(width, classes).items()
    }


def test_every_array_has_torchvisions_name_and_shape():
    network = zoo.build("resnet50", (224, 224, 3), 1000)
    assert (len(SHAPES), SHAPES["layer2.0.conv2.weight"]) == (320, (128, 128, 3, 3))
    # Arrays without memory: of all shapes, and none is missing or left over.
    state = {name: np.broadcast_to(np.float32(1), shape) for name, shape in SHAPES.items()}
    params = nn.by_layer(fit(network, state))
    counted = sum(np.size(array) for own in params.values() for array in own.values())
    assert counted == sum(int(np.prod(shape)) for shape in SHAPES.values()) - 53
    trained = (a for own in params.values() for name, a in own.items() if name not in ("mean", "var"))
    assert sum(map(np.size, trained)) == 25_557_032


def test_the_stride_is_on_the_3x3_convolution():
    network = zoo.build("resnet50", (224, 224, 3), 1000)
    blocks = [layer for layer in network.layers if isinstance(layer, nn.Residual)]
    strides = [[layer.stride[0] for layer in block.branch if isinstance(layer, nn.Conv)] for block in blocks]
    assert strides == [[1, 2 if at in (3, 7, 13) else 1, 1] for at in range(16)]
    pool = next(layer for layer in network.layers if isinstance(layer, nn.Pool))
    assert (pool.kind, pool.window, pool.stride, pool.padding) == ("max", (3, 3), (2, 2), ((1, 1), (1, 1)))


@pytest.mark.parametrize("name", ["narrow", pytest.param("whole", marks=pytest.mark.slow)])
def test_pytorch_computes_the_same_logits(name: str, tmp_path: Path):
    width, side, classes = NETWORKS[name]
    save_file(state_of(width, classes), tmp_path / "resnet50.safetensors")
    network = zoo.build("resnet50", (side, side, 3), classes, width=width)
    target = slth.load(tmp_path / "resnet50.safetensors", network)  # batch norm folded
    logits, truth = target(images(side).transpose(0, 2, 3, 1)), STORED[f"{name}/logits"]
    # Of the logits, and of what the images have to do with them.
    for found, stored in ((logits, truth), (logits[0] - logits[1], truth[0] - truth[1])):
        assert np.abs(found - stored).max() < 1e-4 * np.abs(stored).max()
