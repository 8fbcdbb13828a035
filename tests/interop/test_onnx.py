"""Networks from ONNX files against onnxruntime; what is refused, and damaged files."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import slth
from slth import nn
from tests.interop.onnx_damage import damage
from tests.interop.onnx_nets import ACTIVATIONS, NETS, Net, activation, normalised


def outputs(model, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes, one image at a time where the file fixes the batch."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name, size = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    parts = [x] if not isinstance(size, int) else np.split(x, len(x) // size)
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def difference(model, target: slth.Target, layout: str) -> float:
    """The largest difference of a target's outputs from those of onnxruntime."""
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).normal(size=(6, *sizes)).astype(np.float32)
    shape = target.network.input_shape
    images = {
        "first": np.moveaxis(x, 1, -1),
        "last": x,
        "flat": x.reshape(len(x), *shape),
        "grey": x[..., None],
    }[layout]
    found, wanted = target(images), outputs(model, x)
    if found.ndim > 2:
        found = np.moveaxis(found, -1, 1)
    last = model.graph.node[-1].op_type
    if last == "Softmax":
        found = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
    if last == "LogSoftmax":
        found = found - np.log(np.exp(found).sum(-1, keepdims=True))
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


def saved(model, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("name", NETS)
def test_a_network_computes_what_onnxruntime_does(name: str, tmp_path: Path):
    layout, make = NETS[name]
    model = make()
    onnx.checker.check_model(model, full_check=True)
    target = slth.load(saved(model, tmp_path))
    error = difference(model, target, layout)
    print(f"{name}: {error:.1e}, {[type(layer).__name__ for layer in target.network.layers]}")
    assert error <= 1e-4


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_known_however_it_is_written(name: str, tmp_path: Path):
    kind, write = ACTIVATIONS[name]
    model = activation(write)
    target = slth.load(saved(model, tmp_path))
    kinds = [layer.kind for layer in target.network.layers if isinstance(layer, nn.Activation)]
    assert kinds == [kind]
    assert [type(layer) for layer in target.network.layers] == [nn.Dense, nn.Activation, nn.Dense]
    error = difference(model, target, "flat")
    print(f"{name}: {error:.1e}")
    assert error <= 1e-4


def test_names_are_those_of_the_weights_or_of_the_nodes(tmp_path: Path):
    layers = slth.load(saved(NETS["plain"][1](), tmp_path)).network.layers
    names = [layer.name for layer in layers if isinstance(layer, nn.Conv | nn.Dense)]
    assert names == ["features.0", "Conv_2", "Gemm_6", "Gemm_9"]


def test_a_softmax_that_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        slth.load(saved(NETS["grey images"][1](), tmp_path))
    assert "net.onnx: LogSoftmax '/LogSoftmax_4' at the end is left out" in caplog.text


def test_an_affine_map_before_padding_is_a_layer_of_its_own_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        target = slth.load(saved(normalised(1), tmp_path))
    assert "Div '/Div_2': no linear layer beside it takes it over" in caplog.text
    assert [layer.kernel for layer in target.network.layers if isinstance(layer, nn.Conv)] == [(1, 1), (3, 3)]
    # A factor alone leaves zeros as they are, and goes into the convolution that pads.
    net = Net((3, 6, 6))
    x = net.conv(net.add("Mul", "x", net.weights(3, 1, 1)), 3, 4, 3, 3, pads=[1] * 4)
    (layer,) = slth.load(saved(net.model(x), tmp_path)).network.layers
    assert layer.kernel == (3, 3)


def test_a_spec_may_be_given_too(tmp_path: Path):
    """Then the file is one of arrays by name, as all others."""
    net = Net((4,))
    x = net.add("Gemm", "x", net.weights(3, 4, name="fc.weight"), net.weights(3, name="fc.bias"), transB=1)
    path = saved(net.model(x, (3,)), tmp_path)
    spec = nn.Network((4,), (nn.Dense("fc", 3),))
    images = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(slth.load(path, spec)(images), slth.load(path)(images), atol=1e-6)
    with pytest.raises(
        ValueError, match="rename, ignore and key choose arrays for a spec, and there is none"
    ):
        slth.load(path, key="ema")


def test_other_files_need_a_spec(tmp_path: Path):
    np.savez(tmp_path / "net.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"net.npz holds arrays and does not say .*: give a spec"):
        slth.load(tmp_path / "net.npz")
    with pytest.raises(FileNotFoundError, match="none.onnx is not there"):
        slth.load(tmp_path / "none.onnx")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_other_types_become_float32(dtype, tmp_path: Path):
    net = Net((4,))
    model = net.model(net.dense("x", 4, 3), (3,))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    kernel = slth.load(saved(model, tmp_path)).params["Gemm_0"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        kernel, numpy_helper.to_array(model.graph.initializer[0]).T.astype(np.float32)
    )


def test_numbers_in_typed_fields_are_read(tmp_path: Path):
    values = np.float32([[0.5, -2, 3], [4, 0.25, 1]])
    for kind, held in (
        (TensorProto.FLOAT, values),
        (TensorProto.FLOAT16, values),
        (TensorProto.BFLOAT16, values),
    ):
        net = Net((2,))
        net.held.append(helper.make_tensor("w", kind, values.shape, held.ravel().tolist()))
        target = slth.load(saved(net.model(net.add("MatMul", "x", "w"), (3,)), tmp_path))
        np.testing.assert_array_equal(target.params["MatMul_0"]["kernel"], values)


def test_tensors_in_files_beside_are_read_and_no_others(tmp_path: Path):
    make = NETS["plain"][1]
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save(make(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    target, wanted = slth.load(folder / "net.onnx"), slth.load(saved(make(), tmp_path))
    x = np.random.default_rng(0).normal(size=(3, 9, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(target(x), wanted(x))
    model = onnx.load(folder / "net.onnx", load_external_data=False)
    (folder / "net.data").rename(tmp_path / "net.data")
    with pytest.raises(ValueError, match=r"lies in 'net.data', which is not there: put it beside the model"):
        slth.load(folder / "net.onnx")
    for where in ("../net.data", str(tmp_path / "net.data"), ""):
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = where
        with pytest.raises(ValueError, match="only files in the model's own folder are read"):
            slth.load(saved(model, folder))
    (folder / "link.data").symlink_to(tmp_path / "net.data")
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "link.data"
    with pytest.raises(ValueError, match="only files in the model's own folder are read"):
        slth.load(saved(model, folder))
    (folder / "link.data").unlink()
    (folder / "link.data").write_bytes(b"short")
    with pytest.raises(
        ValueError, match=r"is damaged: it needs 648 bytes, and its place in 'link.data', of 5"
    ):
        slth.load(saved(model, folder))


def test_without_the_package_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(NETS["audio"][1](), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'needs onnx: pip install "slth\[onnx\]"'):
        slth.load(path)


def test_the_package_is_loaded_for_onnx_files_only(root: Path):
    program = "import slth, sys; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def bad(write, *sizes: int, opset: int = 17, **changes):
    """A network with one thing that is refused."""

    def make():
        net = Net(sizes or (2, 6, 6), opset)
        model = net.model(write(net), ("a", "b", "c")[: len(net.sizes)])
        for name, value in changes.items():
            setattr(model, name, value)
        return model

    return make


def two_inputs():
    model = NETS["audio"][1]()
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2]))
    return model


def two_outputs():
    model = NETS["audio"][1]()
    model.graph.output.append(helper.make_tensor_value_info("v1", TensorProto.FLOAT, [1, 2]))
    return model


def open_sizes():
    model = NETS["plain"][1]()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


def other_output():
    model = NETS["plain"][1]()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    return model


def foreign_operator():
    model = NETS["plain"][1]()
    model.graph.node[0].domain = "com.example"
    return model


def crossed(net: Net) -> str:
    """Two branches that share a part of one of them."""
    a, b = net.conv("x", 2, 2, 1, 1), net.conv("x", 2, 2, 1, 1)
    return net.add("Add", net.add("Add", a, b), net.conv(a, 2, 2, 1, 1))


def excited(net: Net) -> str:
    x = net.conv("x", 2, 2, 1, 1)
    return net.add("Mul", x, net.add("Sigmoid", net.add("GlobalAveragePool", x)))


REFUSED = {  # what: (network, what is said)
    "no group": (
        bad(lambda n: n.conv("x", 2, 4, 3, 3, group=0)),
        r"Conv '/Conv_0': its 4 outputs cannot be dealt to 0 groups, as many to each",
    ),
    "groups below 0": (bad(lambda n: n.conv("x", 2, 4, 3, 3, group=-2)), "dealt to -2 groups"),
    "groups of uneven outputs": (
        bad(lambda n: n.conv("x", 1, 3, 3, 3, group=2)),
        "3 outputs cannot be dealt",
    ),
    "groups of too many inputs": (
        bad(lambda n: n.conv("x", 2, 4, 3, 3, group=2)),
        "its kernel reads 4 channels, and its input has 2",
    ),
    "groups of features": (
        bad(lambda n: n.conv(n.add("GlobalAveragePool", "x"), 1, 4, 1, 1, group=2)),
        "it has 2 groups and no position beside another",
    ),
    "unknown operator": (
        bad(lambda n: n.add("DepthToSpace", "x", blocksize=1)),
        r"DepthToSpace '/DepthToSpace_0': slth has no layer for it; it reads Abs, Add, AveragePool, ",
    ),
    "interpolation": (
        bad(lambda n: n.add("Resize", "x", "", n.constant(np.float32([1, 1, 2, 2])), mode="linear")),
        r"Resize '/Resize_0': mode 'linear': it interpolates",
    ),
    "resized by a fraction": (
        bad(lambda n: n.add("Resize", "x", "", n.constant(np.float32([1, 1, 1.5, 2])))),
        "it resizes by 1, 1, 1.5, 2: whole factors from 1 to 64 are read",
    ),
    "more channels": (
        bad(lambda n: n.add("Resize", "x", "", n.constant(np.float32([1, 2, 1, 1])))),
        "it makes the batch or the channels 2 times as many",
    ),
    "resized otherwise": (
        bad(lambda n: n.add("Resize", "x", "", n.constant(np.float32([1, 1, 3, 3])), nearest_mode="floor")),
        "'half_pixel' with nearest_mode 'floor' and factor 3 is not every position so many times",
    ),
    "factors without axes": (
        bad(lambda n: n.add("Resize", "x", "", n.constant(np.float32([2, 2])))),
        r"it has 2 factors for the axes \[0, 1, 2, 3\] of 4",
    ),
    "foreign operator": (foreign_operator, r"com.example::Conv '/Conv_0': slth has no layer for it"),
    "two inputs": (two_inputs, r"it has 2 inputs \(x, y\), and networks of one input are read"),
    "two outputs": (two_outputs, r"it has 2 outputs \(v\d+, v1\), and networks of one output are read"),
    "open sizes": (open_sizes, r"input 'x' has the shape \['n', 3, 'height', 8\]: only the batch axis"),
    "another output": (other_output, r"its nodes make \[5\] behind the batch, declared are \(6,\)"),
    "three axes": (bad(lambda n: n.add("Relu", "x"), 2, 3, 4, 5), "input 'x' has 5 axes"),
    "old operators": (bad(lambda n: n.add("Relu", "x"), opset=5), "opset 5: versions 6 to 28 are read"),
    "training": (bad(lambda n: n.norm("x", 2, training_mode=1)), "it is in training mode"),
    "attribute": (
        bad(lambda n: n.conv("x", 2, 2, 3, 3, stride=[2, 2])),
        "attribute stride: slth does not know it",
    ),
    "kind of attribute": (
        bad(lambda n: n.conv("x", 2, 2, 3, 3, strides=2)),
        "attribute strides: expected integers, got '2'",
    ),
    "pads": (bad(lambda n: n.conv("x", 2, 2, 3, 3, pads=[-1] * 4)), "pads: expected 4 integers from 0 on"),
    "channels": (bad(lambda n: n.conv("x", 3, 2, 3, 3)), "its kernel reads 3 channels, and its input has 2"),
    "dilated pooling": (
        bad(lambda n: n.add("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])),
        r"MaxPool '/MaxPool_0': dilations \(2, 2\)",
    ),
    "padding by numbers": (
        bad(
            lambda n: n.add(
                "MaxPool", n.add("Pad", "x", n.integers(0, 0, 1, 1, 0, 0, 0, 0)), kernel_shape=[2, 2]
            )
        ),
        "what it pools is padded with 0, which slth's pooling does not do",
    ),
    "reflection": (
        bad(lambda n: n.add("Pad", "x", n.integers(0, 0, 1, 1, 0, 0, 0, 0), mode="reflect")),
        "mode 'reflect'",
    ),
    "padding of nothing": (
        bad(lambda n: n.add("Relu", n.add("Pad", "x", n.integers(0, 0, 1, 1, 0, 0, 0, 0)))),
        "only what a convolution or pooling reads may be padded",
    ),
    "reshape": (
        bad(lambda n: n.add("Reshape", "x", n.integers(0, 4, 3, 6))),
        r"\[2, 6, 6\] behind the batch becomes \[4, 3, 6\]: only what flattens is read",
    ),
    "batch moved": (bad(lambda n: n.add("Transpose", "x", perm=[1, 0, 2, 3])), r"perm \(1, 0, 2, 3\)"),
    "channels moved": (
        bad(lambda n: n.conv(n.add("Transpose", n.conv("x", 2, 2, 1, 1), perm=[0, 2, 1, 3]), 6, 2, 1, 1)),
        "its second axis is not that of the channels",
    ),
    "softmax within": (
        bad(lambda n: n.dense(n.add("Softmax", n.dense("x", 4, 4)), 4, 3), 4),
        "softmax is read at the end of a network only",
    ),
    "no activation": (bad(lambda n: n.add("Exp", "x")), "no activation of slth's table computes it"),
    "elu of another factor": (bad(lambda n: n.add("Elu", "x", alpha=0.5)), "no activation of slth's table"),
    "concatenation of rows": (
        bad(lambda n: n.add("Concat", n.conv("x", 2, 2, 1, 1), n.add("Relu", "x"), axis=2)),
        r"Concat '/Concat_2': it concatenates along another axis than that of the channels",
    ),
    "concatenation of no axis": (bad(lambda n: n.add("Concat", "x", "x", axis=4)), "axis 4 of a tensor of 4"),
    "concatenation with constants": (
        bad(lambda n: n.add("Concat", "x", n.weights(1, 2, 6, 6), axis=1)),
        "its constant differs from position to position: one number for a channel is read",
    ),
    "concatenation of a smaller constant": (
        bad(lambda n: n.add("Concat", "x", n.weights(1, 2, 1, 1), axis=1)),
        r"its constant has the shape \(1, 2, 1, 1\), beside \['batch', 2, 6, 6\]",
    ),
    "concatenation of other sizes": (
        bad(lambda n: n.add("Concat", "x", n.conv("x", 2, 2, 3, 3), axis=1)),
        r"it reads tensors of the shapes \[\['batch', 2, 6, 6\], \['batch', 2, 4, 4\]\], which differ beside",
    ),
    "uneven split": (
        bad(lambda n: n.add("Split", "x", n.integers(3), axis=1)),
        "it splits 2 channels into 1",
    ),
    "split rows": (
        bad(lambda n: n.conv(n.add("Split", n.conv("x", 2, 2, 1, 1), axis=2), 2, 2, 1, 1)),
        "it splits another axis",
    ),
    "half a shuffle": (
        bad(lambda n: n.add("Relu", n.add("Reshape", "x", n.integers(0, 2, 2, 18)))),
        "only what flattens is read",
    ),
    "groups that stay dealt": (
        bad(lambda n: n.add("Relu", n.add("Reshape", n.conv("x", 2, 4, 1, 1), n.integers(0, 2, 2, 6, 6)))),
        "its channels are dealt to groups: only a channel shuffle is read",
    ),
    "excitation": (bad(excited), r"Mul '/Mul_3': it multiplies or divides values .* squeeze-and-excitation"),
    "gate": (
        bad(lambda n: n.add("Mul", n.conv("x", 2, 2, 1, 1), n.add("Sigmoid", "x"))),
        r"Mul '/Mul_2': it multiplies or divides values",
    ),
    "attention": (
        bad(lambda n: n.add("MatMul", *(n.add("MatMul", "x", n.weights(2, 2)) for _ in range(2))), 3, 2),
        r"MatMul '/MatMul_2': it multiplies or divides values .* attention",
    ),
    "normalisation": (
        bad(lambda n: n.add("LayerNormalization", "x", n.weights(6))),
        r"LayerNormalization '/LayerNormalization_0': it normalises by statistics of the input",
    ),
    "slopes of another size": (
        bad(
            lambda n: n.add(
                "PRelu", n.conv("x", 2, 2, 1, 1), n.constant(np.float32([[[0.1]], [[0.2]], [[0.3]]]))
            )
        ),
        "its constant has 3 entries for 2 channels",
    ),
    "crossed branches": (bad(crossed), "read from two branches that meet in different places"),
    "difference": (
        bad(lambda n: n.add("Sub", n.conv("x", 2, 2, 1, 1), "x")),
        "no activation of slth's table computes it",
    ),
    "all positions": (
        bad(lambda n: n.add("Add", "x", n.weights(2, 6, 6))),
        r"its constant of shape \(2, 6, 6\) does not go along the channels",
    ),
    "integers": (bad(lambda n: n.add("Cast", "x", to=TensorProto.INT64)), "only real types are read"),
    "computed weights": (
        bad(lambda n: n.add("MatMul", n.weights(3, 2), n.dense("x", 2, 2)), 2),
        "its input 0 is constant or missing",
    ),
    "large constants": (
        bad(lambda n: n.add("MatMul", "x", n.add("ConstantOfShape", n.integers(2, 10**9))), 2),
        "more than the size of the file allows",
    ),
    "constant output": (bad(lambda n: n.constant(np.float32(3))), "does not depend on the input"),
    "not finite": (
        bad(lambda n: n.add("MatMul", "x", n.constant(np.float32([[np.nan], [1]]))), 2),
        "its kernel holds NaN or infinite numbers",
    ),
    "variance": (
        bad(lambda n: n.add("BatchNormalization", "x", *[n.constant(np.float32([1, -1]))] * 4)),
        "it has a variance of -1, below 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_is_refused_in_one_line(name: str, tmp_path: Path):
    make, said = REFUSED[name]
    with pytest.raises(ValueError, match=said) as error:
        slth.load(saved(make(), tmp_path))
    assert str(error.value).startswith(f"checkpoint {tmp_path}/net.onnx: ")
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused_or_load(tmp_path: Path):
    """The first of the files of `tests/slow/test_onnx.py`."""
    said = damage(tmp_path, range(120))
    assert said["loaded"] + said["refused"] == 120
    assert min(said.values()) > 10


PYTORCH = (
    *("AvgPool1d", "AvgPool1d_stride", "AvgPool2d", "AvgPool2d_stride", "BatchNorm1d_3d_input_eval"),
    *(
        "BatchNorm2d_eval",
        "Conv1d",
        "Conv1d_dilated",
        "Conv1d_pad2",
        "Conv1d_stride",
        "Conv2d",
        "Conv2d_dilated",
    ),
    *("Conv2d_no_bias", "Conv2d_padding", "Conv2d_strided", "LeakyReLU", "Linear", "Linear_no_bias"),
    *("MaxPool1d", "MaxPool1d_stride", "MaxPool2d", "PReLU_2d", "SELU", "Softplus", "Tanh"),
)
"""Files of PyTorch's exporter, with outputs of PyTorch, that the onnx package carries for tests."""


@pytest.mark.parametrize("name", PYTORCH)
def test_a_module_that_pytorch_exported_computes_what_it_did(name: str):
    folder = Path(onnx.__file__).parent / "backend/test/data/pytorch-converted" / f"test_{name}"
    if not folder.is_dir():
        pytest.skip("this version of the onnx package has no such file")
    ends = (folder / f"test_data_set_0/{end}_0.pb" for end in ("input", "output"))
    x, wanted = (numpy_helper.to_array(onnx.load_tensor(end)) for end in ends)
    found = slth.load(folder / "model.onnx")(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), wanted, atol=2e-6)
