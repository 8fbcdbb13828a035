"""Families of networks with grouped convolutions and concatenations, from ONNX files, against onnxruntime."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import slth
from slth import nn
from tests.interop.onnx_families import FAMILIES, excited
from tests.interop.test_onnx import difference, saved


def kinds(target: slth.Target) -> list[str]:
    return [type(layer).__name__ for layer in target.network.layers]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_computes_what_onnxruntime_does(name: str, tmp_path: Path):
    layout, make = FAMILIES[name]
    model = make()
    onnx.checker.check_model(model, full_check=True)
    target = slth.load(saved(model, tmp_path))
    error = difference(model, target, layout)
    print(f"{name}: {error:.1e}, {kinds(target)}")
    assert error <= 1e-5
    slth.Source.of(target, copies=3)  # a ticket of it can be constructed


def test_a_depthwise_convolution_has_one_row(tmp_path: Path):
    target = slth.load(saved(FAMILIES["MobileNetV2"][1](), tmp_path))
    first, block = target.network.layers[2], target.network.layers[5]
    assert (first.name, first.groups) == ("features.1.conv.0.0", 4)
    assert [layer.groups for layer in block.branch if isinstance(layer, nn.Conv)] == [1, 6, 1]
    shapes = nn.parameter_shapes(target.network)
    assert shapes["block/branch/features.2.conv.1.0/kernel"] == (3, 3, 1, 6)


def test_a_dense_block_nests_however_it_is_written(tmp_path: Path):
    """Each layer of it concatenates all that was before it; in slth, the last concatenation and one layer."""
    target = slth.load(saved(FAMILIES["DenseNet"][1](), tmp_path))
    blocks = [layer for layer in target.network.layers if isinstance(layer, nn.Concat)]
    assert [len(block.parts) for block in blocks] == [2, 2, 2]
    assert all(block.parts[0] == () for block in blocks)
    joins = [step for step in nn.graph(target.network) if isinstance(step, nn.Join)]
    assert [step.shape[-1] for step in joins] == [6, 8, 10]


def test_slopes_by_channel_are_two_weights_a_channel(tmp_path: Path):
    target = slth.load(saved(FAMILIES["PReLU"][1](), tmp_path))
    block = target.network.layers[1]
    sides = [[type(layer).__name__ for layer in side] for side in (block.branch, block.skip)]
    assert sides == [["Activation", "Conv"], ["Conv"]]
    assert [side[-1].groups for side in (block.branch, block.skip)] == [4, 4]


def test_a_shuffle_goes_into_the_convolution_behind(tmp_path: Path):
    """A split of two halves is one convolution of ones and zeros, of the half that stays."""
    target = slth.load(saved(FAMILIES["ShuffleNet v2"][1](), tmp_path))
    first = target.network.layers[2]
    (chosen,) = first.parts[0]
    kernel = np.asarray(target.params["concat"]["0"][chosen.name]["kernel"])
    assert kernel.shape == (1, 1, 6, 3)
    np.testing.assert_array_equal(kernel[0, 0], np.eye(6, 3))
    assert [layer.features for layer in first.parts[1] if isinstance(layer, nn.Conv)] == [3, 3, 3]


def test_squeeze_and_excitation_is_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Mul '/Mul_\d+': it multiplies .* as squeeze-and-excitation"):
        slth.load(saved(excited(), tmp_path))
