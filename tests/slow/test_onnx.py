"""A thousand damaged ONNX files, tickets of families, and a ResNet-50 as a model zoo has it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import slth
from slth import nn
from tests.interop.onnx_damage import damage
from tests.interop.onnx_families import FAMILIES
from tests.interop.test_onnx import outputs, saved

pytestmark = pytest.mark.slow


def test_a_thousand_damaged_files_are_refused_or_load(tmp_path: Path):
    said = damage(tmp_path, range(1000))
    print(dict(said))
    assert said["loaded"] + said["refused"] == 1000
    assert min(said.values()) > 100


@pytest.mark.parametrize("name", ["MobileNetV2", "DenseNet", "VoVNet", "PReLU", "ShuffleNet v2", "two pools"])
def test_a_family_has_tickets(name: str, tmp_path: Path):
    """Of narrow copies: some weights are unsolved, and few answers differ."""
    target = slth.load(saved(FAMILIES[name][1](), tmp_path))
    x = np.random.default_rng(0).normal(size=(200, *target.network.input_shape)).astype(np.float32)
    made = slth.construct(target, slth.Source.of(target, copies=12), slth.Robust(), x[:100])
    wanted, found = target(x), made.ticket(x)
    error = np.sqrt(((found - wanted) ** 2).mean() / wanted.var(0).mean())
    print(f"{name}: relative error {error:.3f}, {made.unsolved} unsolved")
    assert error < 0.4
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98


def resnet50() -> onnx.ModelProto:
    """The ResNet-50 that the onnx package carries without its weights, with random ones.

    It ends before its softmax, which would be 0 and 1.
    """
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    if not path.is_file():
        pytest.skip("this version of the onnx package has no such file")
    model, rng = onnx.load(path), np.random.default_rng(0)
    graph = model.graph
    shapes = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = tuple(shapes[node.input[0]])
        spread = 0.7 * np.sqrt(2 / np.prod(shape[1:]))
        drawn = rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else spread * rng.normal(size=shape)
        graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    graph.output[0].name = graph.node[-1].input[0]
    del graph.node[-1], graph.input[1:]
    model.ir_version = 8
    return model


def test_the_resnet_50_of_a_model_zoo(tmp_path: Path):
    model = resnet50()
    target = slth.load(saved(model, tmp_path))
    assert sum(isinstance(layer, nn.Residual) for layer in target.network.layers) == 16
    x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    wanted, found = outputs(model, x), target(np.moveaxis(x, 1, -1))
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"largest logit {np.abs(wanted).max():.3g}, relative error {error:.1e}")
    assert error <= 1e-4
