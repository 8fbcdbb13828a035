"""Exported networks, run by programs that know nothing of slth, against a float64 reference and tickets."""

import ast
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from slth import Best, Robust, Source, Target, Ticket, construct, nn
from slth.compact import compact
from slth.export import export_network, onnx_model
from slth.export.torch_module import HEADER, RESERVED, identifier
from slth.nn.layers import Activation, BatchNorm, Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool
from tests.construction.nets import GROUPED, JOINED, PLAIN, RESIDUAL, images, source_of, target_of
from tests.construction.reference import forward
from tests.export import stand_in
from tests.nn.functions import FUNCTIONS, phi
from tests.nn.nets import BLOCKS, ODD, ZOO, inputs_of, params_of

POOLS = {
    "padded means, incomplete": Network(
        (7, 8, 2), (Pool("mean", (3, 2), (2, 3), ((1, 0), (1, 1)), incomplete=True), Flatten("chw"))
    ),
    "means of padding, incomplete": Network(
        (7, 8, 2), (Pool("mean", (3, 2), (2, 3), ((2, 0), (1, 1)), incomplete=True, count_padding=True),)
    ),
    "largest of all, repeated": Network((3, 4, 2), (nn.Upsample((2, 3)), nn.GlobalMax())),
    "much padding": Network((7, 8, 2), (Pool("max", (3, 3), (2, 2), ((2, 2), (2, 0))), GlobalMean())),
}
PAD = ((1, 1), (0, 2))
GROUPS = {
    "beside groups, uneven": Network(
        (5, 4, 8),
        (Conv("a", 7, (3, 3), (2, 1), PAD, groups=3, beside=(2, 1)), Conv("b", 7, (1, 1), groups=7)),
    ),
    "only read beside groups": Network(
        (5, 5), (Conv("a", 4, (3,), groups=2, beside=(1, 0), use_bias=False), Activation("tanh"))
    ),
    "only made beside groups": Network((5, 4), (Conv("a", 5, (3,), groups=2, beside=(0, 3)),)),
}
FOLDED = {
    name: nn.fold_batch_norm(network, params_of(network))
    for name, network in (PLAIN | ODD | BLOCKS | ZOO | POOLS | GROUPED | JOINED | GROUPS).items()
    if name not in ("resnet50", "preresnet20")  # larger, and no other layers
}
FOLDED |= {name: target_of(network) for name, (network, _) in RESIDUAL.items()}


def first(x):
    """Channels first."""
    return np.moveaxis(x, -1, 1)


def by_onnx(file, x):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape[0] == "n"
    return np.moveaxis(session.run(["outputs"], {"images": first(x)})[0], 1, -1)


@pytest.fixture(params=["stand-in", "torch"])
def torch(request, monkeypatch):
    """PyTorch, and in any case the part of it that is written in NumPy beside this file."""
    if request.param == "torch":
        return pytest.importorskip("torch", reason="PyTorch is not installed")
    for name, module in stand_in.MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in.torch


def by_torch(file, x, torch):
    names = {}
    exec(compile(file.with_suffix(".py").read_text(), str(file), "exec"), names)
    net, arrays = names["Net"]().eval(), safetensors.numpy.load_file(file)
    if torch is stand_in.torch:
        net.load_state_dict(arrays)
        return np.moveaxis(np.asarray(net(stand_in.tensor(first(x)))), 1, -1)
    net.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    with torch.no_grad():
        return np.moveaxis(net(torch.tensor(first(x))).numpy(), 1, -1)


def close(found, wanted):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", FOLDED)
def test_every_layer_as_onnx(name, tmp_path):
    network, params = FOLDED[name]
    x = inputs_of(network, 3).astype(np.float32)
    export_network(tmp_path / "net.onnx", network, params, 0.7)
    close(by_onnx(tmp_path / "net.onnx", x), 0.7 * forward(network, params, x)[""])


@pytest.mark.parametrize("name", FOLDED)
def test_every_layer_as_a_module_of_pytorch(name, tmp_path, torch):
    network, params = FOLDED[name]
    x = inputs_of(network, 3).astype(np.float32)
    export_network(tmp_path / "net.safetensors", network, params, 0.7, like="pytorch")
    close(by_torch(tmp_path / "net.safetensors", x, torch), 0.7 * forward(network, params, x)[""])


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_every_activation(kind, tmp_path, torch):
    network = Network((41,), (Activation(kind, 0.3),))
    x = np.linspace(-30, 30, 3 * 41, dtype=np.float32).reshape(3, 41)
    export_network(tmp_path / "net.onnx", network, {})
    export_network(tmp_path / "net.safetensors", network, {}, like="pytorch")
    wanted = phi(kind, 0.3, x)
    np.testing.assert_allclose(by_onnx(tmp_path / "net.onnx", x), wanted, rtol=1e-4, atol=1e-5)
    found = by_torch(tmp_path / "net.safetensors", x, torch)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def act(layers, kind):
    return tuple(Activation(kind) if isinstance(layer, Activation) else layer for layer in layers)


SMOOTH = Network((5, 5, 1), (Conv("a", 3, (3, 3)), Activation("gelu"), Flatten("chw"), Dense("b", 3)))
TICKETS = {
    "plain, leaky, chw": (PLAIN["strided"], {}),
    "plain, hwc": (PLAIN["pooled"], {}),
    "one axis": (PLAIN["one axis"], {}),
    "option A, carried": (RESIDUAL["option A"][0], {}),
    "projection, random": (RESIDUAL["projection"][0], {"skip": "random"}),
    "2L": (PLAIN["pooled"], {"depth": "2L", "copies_per_sign": 10}),
    "groups": (GROUPED["groups of several channels"], {}),
    "groups, 2L": (GROUPED["inverted residual"], {"depth": "2L", "copies_per_sign": 8}),
    "concatenation": (JOINED["inception"], {}),
}


@pytest.fixture(scope="module", params=[*TICKETS, "gelu", "sigmoid"])
def ticket(request) -> tuple[Ticket, np.ndarray]:
    if request.param in TICKETS:
        network, options = TICKETS[request.param]
        target = Target(*target_of(network))
        source, solver, calibration = source_of(target.network, 5, **options), Best(), None
    else:
        network = Network(SMOOTH.input_shape, act(SMOOTH.layers, request.param))
        target = Target(*target_of(network))
        source, solver, calibration = Source.of(target, copies=5), Robust(), images(network, 32)
    return construct(target, source, solver, calibration).ticket, images(network, 6)


def close_to_ticket(found, made, x):
    """Within 1e-4 of the exact outputs, or as near to them as float32 brings the ticket itself: univariate
    layers of a smooth activation have weights far below 1, and the layers behind them weights far above."""
    small = compact(made.source.network, made.params, made.mask)
    exact = made.factor * forward(*small, x)[""]
    rounding = np.abs(made(x) - exact).max()
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 1e-4 * np.abs(exact).max() + 2 * rounding
    assert rounding < 0.01 * np.abs(exact).max()


def test_a_ticket_as_onnx(ticket, tmp_path):
    made, x = ticket
    written = made.export(tmp_path / "net.onnx")
    close_to_ticket(by_onnx(tmp_path / "net.onnx", x), made, x)
    assert written.files == (tmp_path / "net.onnx",)
    assert written.bytes == (tmp_path / "net.onnx").stat().st_size
    assert 0 < written.nonzero <= made.nonzero
    assert written.nonzero < written.parameters < made.parameters


def test_a_ticket_as_a_module_of_pytorch(ticket, tmp_path, torch):
    made, x = ticket
    written = made.export(tmp_path / "net.safetensors", like="pytorch")
    close_to_ticket(by_torch(tmp_path / "net.safetensors", x, torch), made, x)
    assert [file.name for file in written.files] == ["net.safetensors", "net.py"]
    text = (tmp_path / "net.py").read_text()
    assert text.startswith(f"{HEADER} a strong lottery ticket, {made.nonzero:,} of")
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imported] == [
        "import torch",
        "from torch import nn",
        "from torch.nn import functional as F",
    ]
    again = made.export(tmp_path / "net.safetensors", like="pytorch")
    assert again == written, "its own module may be written over"


def test_onnx_holds_standard_operators_of_one_version():
    pytest.importorskip("onnx")
    network, params = FOLDED["option A"]
    model = onnx_model(network, params)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 13)]
    assert {node.domain for node in model.graph.node} == {""}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


NAMES = {
    "conv1": "conv1",
    "0": "layer_0",
    "layer1.0/branch/conv1": "layer1_0_branch_conv1",
    "forward": "layer_forward",
    "class": "layer_class",
    "größe": "gr_e",
    "'); import os": "import_os",
    "_buffers": "layer_buffers",
    "//": "layer",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_s_name_becomes_an_attribute(name):
    found = identifier(name)
    assert found.isidentifier()
    assert found.isascii()
    assert found not in RESERVED
    assert found == NAMES[name]


def test_layers_whose_names_become_the_same_keep_apart(tmp_path, torch):
    network = Network((3,), (Dense("a.b", 4), Dense("a b", 2), Dense("to", 2), Dense("factor", 2)))
    params = params_of(network)
    export_network(tmp_path / "net.safetensors", network, params, like="pytorch")
    x = inputs_of(network, 3).astype(np.float32)
    close(by_torch(tmp_path / "net.safetensors", x, torch), forward(network, params, x)[""])


def test_no_attribute_of_a_module_is_replaced():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert {name for name in dir(torch.nn.Module()) if not name.startswith("_")} <= RESERVED


def refused(message, file, network, **options):
    with pytest.raises(ValueError, match=message):
        export_network(file, network, params_of(network), **options)
    assert not file.exists()


def test_what_no_file_can_hold_is_refused(tmp_path):
    dense = Network((3,), (Dense("a", 2),))
    refused("net.pt, like=None: a file ends in", tmp_path / "net.pt", dense)
    refused("save_network writes", tmp_path / "net.safetensors", dense)
    refused("like='keras'", tmp_path / "net.safetensors", dense, like="keras")
    refused("bn is a batch norm: fold it", tmp_path / "net.onnx", Network((3,), (BatchNorm("bn"),)))
    cropped = Network((5, 1), (Conv("c", 2, (2,), padding=((-1, 0),)),))
    refused("c has padding below 0", tmp_path / "net.onnx", cropped)


def test_an_activation_of_one_s_own_is_refused(tmp_path):
    nn.register_activation("arc", jnp.arctan)
    network = Network((3,), (Activation("arc"),))
    refused("activation 'arc' is one of your own", tmp_path / "net.onnx", network)
    refused("activation 'arc' is one of your own", tmp_path / "net.safetensors", network, like="pytorch")


def test_another_program_is_not_written_over(tmp_path):
    (tmp_path / "train_1.py").write_text("print('mine')\n")
    network = Network((3,), (Dense("a", 2),))
    refused("is another program", tmp_path / "train-1.safetensors", network, like="pytorch")
    assert (tmp_path / "train_1.py").read_text() == "print('mine')\n"


def test_without_onnx_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx.helper", None)
    refused(r'pip install "slth\[onnx\]"', tmp_path / "net.onnx", Network((3,), (Dense("a", 2),)))
