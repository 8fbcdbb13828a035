"""Which foreign name fills which parameter, and what is said of names that fill none."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from slth import nn
from slth.interop import CheckpointMismatch, fit
from slth.interop.slots import foreign_shape, slots_of
from slth.nn import zoo
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.pooling import GlobalMean
from tests.fixtures.make_pytorch import CLASSES, OPTIONS, value

FIXTURES = Path(__file__).parents[1] / "fixtures"
NET = nn.Network(
    (6, 6, 2),
    (
        Conv("conv1", 3, (3, 2)),
        BatchNorm("bn1"),
        Residual("layer1.0", (Conv("conv1", 3, (1, 1)),), (ChannelScale("shortcut.scale"),)),
        Activation("relu"),
        GlobalMean(),
        Dense("linear", 4),
    ),
)
SHAPES = {
    "conv1.weight": (3, 2, 3, 2),
    "conv1.bias": (3,),
    "bn1.weight": (3,),
    "bn1.bias": (3,),
    "bn1.running_mean": (3,),
    "bn1.running_var": (3,),
    "layer1.0.conv1.weight": (3, 3, 1, 1),
    "layer1.0.conv1.bias": (3,),
    "layer1.0.shortcut.weight": (3, 1, 1),
    "linear.weight": (4, 3),
    "linear.bias": (4,),
}


def state() -> dict[str, np.ndarray]:
    return {name: value(name, shape) for name, shape in SHAPES.items()}


def test_each_name_fills_its_parameter_in_our_layout():
    held = state()
    params = fit(NET, held | {"bn1.num_batches_tracked": np.int64(3)})
    shapes = jax.eval_shape(lambda: nn.init(NET, jax.random.key(0)))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    kernel = params["conv1"]["kernel"]
    for tap in np.ndindex(3, 2):
        for i in range(2):
            for j in range(3):
                assert kernel[(*tap, i, j)] == held["conv1.weight"][(j, i, *tap)]
    np.testing.assert_array_equal(params["linear"]["kernel"], held["linear.weight"].T)
    np.testing.assert_array_equal(params["bn1"]["var"], held["bn1.running_var"])
    np.testing.assert_array_equal(params["bn1"]["scale"], held["bn1.weight"])
    block = params["layer1.0"]
    np.testing.assert_array_equal(
        block["branch"]["conv1"]["kernel"][0, 0], held["layer1.0.conv1.weight"][:, :, 0, 0].T
    )
    np.testing.assert_array_equal(
        block["skip"]["shortcut.scale"]["scale"], held["layer1.0.shortcut.weight"][:, 0, 0]
    )


def renamed(pairs: dict[str, str]) -> dict[str, np.ndarray]:
    out = {}
    for name, array in state().items():
        for old, new in pairs.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        out[name] = array
    return out


SPELLINGS = {
    "blocks by number": renamed({"layer1.0.": "blocks.0.", "conv1.": "conv.", "bn1.": "bn."}),
    "another head": renamed({"linear.": "fc."}),
    "data parallel": renamed({"": "module."}),
    "wrapped twice": renamed({"": "module.model."}),
    "whole names of skips": renamed({"layer1.0.shortcut.": "layer1.0.shortcut.scale."}),
}  # fmt: skip


@pytest.mark.parametrize("held", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_other_spellings_mean_the_same(held: dict[str, np.ndarray]):
    jax.tree.map(np.testing.assert_array_equal, fit(NET, held), fit(NET, state()))


def test_rules_rename_what_the_zoo_does_not_know():
    held = renamed({"layer1.0.": "stage.first.", "linear.": "classifier."})
    rules = [(r"^stage\.first\.", "layer1.0."), (r"^classifier", "linear")]
    jax.tree.map(np.testing.assert_array_equal, fit(NET, held, rename=rules), fit(NET, state()))


def test_an_alias_never_takes_another_layers_array():
    net = nn.Network((3,), (Dense("linear", 3), Dense("fc", 2)))
    held = {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    with pytest.raises(CheckpointMismatch) as raised:
        fit(net, held)
    assert raised.value.missing == ["linear.weight (3, 3)", "linear.bias (3,)"]
    assert raised.value.left_over == []


GROUPS = {  # names and shapes of torchvision's state dicts: (the spec, an array of each block)
    "MobileNetV2": (
        (
            *(
                Conv("features.0.0", 4, (3, 3), use_bias=False),
                BatchNorm("features.0.1"),
                Activation("relu6"),
            ),
            Residual(
                "features.3.conv",
                (
                    *(Conv("0.0", 8, (1, 1), use_bias=False), BatchNorm("0.1"), Activation("relu6")),
                    Conv("1.0", 8, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, groups=8),
                    *(BatchNorm("1.1"), Activation("relu6"), Conv("2", 4, (1, 1), use_bias=False)),
                    BatchNorm("3"),
                ),
            ),
        ),
        {
            "features.0.0.weight": (4, 2, 3, 3),
            "features.3.conv.0.0.weight": (8, 4, 1, 1),
            "features.3.conv.1.0.weight": (8, 1, 3, 3),
            "features.3.conv.1.1.running_var": (8,),
            "features.3.conv.2.weight": (4, 8, 1, 1),
            "features.3.conv.3.bias": (4,),
        },
    ),
    "DenseNet": (
        (
            Conv("features.conv0", 4, (3, 3), use_bias=False),
            Concat(
                "features.denseblock1.denselayer1",
                (
                    (),
                    (
                        *(BatchNorm("norm1"), Activation("relu"), Conv("conv1", 6, (1, 1), use_bias=False)),
                        *(BatchNorm("norm2"), Activation("relu"), Conv("conv2", 2, (1, 1), use_bias=False)),
                    ),
                ),
            ),
        ),
        {
            "features.denseblock1.denselayer1.norm1.running_mean": (4,),
            "features.denseblock1.denselayer1.conv1.weight": (6, 4, 1, 1),
            "features.denseblock1.denselayer1.conv2.weight": (2, 6, 1, 1),
        },
    ),
    "SqueezeNet": (
        (
            *(Conv("features.3.squeeze", 2, (1, 1)), Activation("relu")),
            Concat("features.3", ((Conv("expand1x1", 3, (1, 1)),), (Conv("expand3x3", 5, (1, 1)),))),
        ),
        {
            "features.3.squeeze.weight": (2, 2, 1, 1),
            "features.3.expand1x1.weight": (3, 2, 1, 1),
            "features.3.expand3x3.bias": (5,),
        },
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_families_have_the_names_of_torchvision(name: str):
    """Every other array is one of a batch norm or a bias of these blocks, whose names end as these do."""
    layers, wanted = GROUPS[name]
    network = nn.Network((6, 6, 2), layers)
    slots = {slot.names[0]: foreign_shape(slot) for slot in slots_of(network)}
    assert wanted.items() <= slots.items()
    held = {where: value(where, shape) for where, shape in slots.items()}
    params = nn.by_layer(fit(network, held | {"classifier.1.num_batches_tracked": np.int64(1)}))
    for where, layer in nn.by_layer(nn.init(network, jax.random.key(0))).items():
        for leaf in layer:
            assert params[where][leaf].shape == layer[leaf].shape
    if name == "MobileNetV2":
        kernel, foreign = params["features.3.conv/branch/1.0"]["kernel"], held["features.3.conv.1.0.weight"]
        assert kernel.shape == (3, 3, 1, 8)
        np.testing.assert_array_equal(kernel[1, 2, 0], foreign[:, 0, 1, 2])


def test_one_array_never_fills_two_parameters():
    sides = tuple((Conv("conv", 3, (1, 1), use_bias=False),) for _ in range(2))
    network = nn.Network((4, 4, 2), (Concat("mixed", sides),))
    one = {"mixed.conv.weight": value("one", (3, 2, 1, 1))}
    with pytest.raises(CheckpointMismatch) as error:
        fit(network, one)
    assert error.value.missing == ["mixed.conv.weight (3, 2, 1, 1)"]
    both = {f"mixed.{k}.conv.weight": value(f"{k}", (3, 2, 1, 1)) for k in (0, 1)}
    params = fit(network, both)["mixed"]
    for k in (0, 1):
        np.testing.assert_array_equal(
            params[str(k)]["conv"]["kernel"][0, 0].T, both[f"mixed.{k}.conv.weight"][..., 0, 0]
        )


def test_flax_variables_need_no_transposition():
    ours = fit(NET, state())
    statistics = {key: ours["bn1"][key] for key in ("mean", "var")}
    weights = {key: ours["bn1"][key] for key in ("scale", "bias")}
    block = {**ours["layer1.0"]["branch"], "shortcut": ours["layer1.0"]["skip"]["shortcut.scale"]}
    variables = {
        "params": {
            "conv1": ours["conv1"],
            "bn1": weights,
            "layer1_0": block,
            "linear": ours["linear"],
        },
        "batch_stats": {"bn1": statistics},
    }
    jax.tree.map(np.testing.assert_array_equal, fit(NET, variables), ours)


@pytest.mark.parametrize("suffix", ["", "_orig"])
def test_masks_are_multiplied_in(suffix: str):
    held, mask = state(), np.zeros((3, 2, 3, 2))
    mask[1, 0, 2, 1] = 1
    full = held.pop("conv1.weight")
    held |= {f"conv1.weight{suffix}": full, "conv1.weight_mask": mask}
    held |= {"linear.bias_mask": np.array([True, False, True, False])}
    params = fit(NET, held)
    np.testing.assert_array_equal(params["conv1"]["kernel"], (full * mask).transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["linear"]["bias"] != 0, [True, False, True, False])


def test_every_fault_is_named_at_once():
    held = state()
    del held["bn1.running_mean"]
    held["linear.weight"] = np.zeros((5, 3))
    held["conv1.bias"] = np.array([0.0, np.nan, 1.0])
    held["bn1.bias"] = np.zeros(3, np.complex64)
    held["linear.bias_mask"] = np.ones(5)
    held["extra.weight"] = np.zeros(1)
    held["bn1.running_std_mask"] = np.zeros(1)
    with pytest.raises(CheckpointMismatch) as raised:
        fit(NET, held, source="checkpoint x.pt")
    assert raised.value.missing == ["bn1.running_mean (3,)"]
    assert raised.value.left_over == ["bn1.running_std_mask", "extra.weight"]
    assert raised.value.wrong == [
        "linear.bias_mask has shape (5,), expected (4,)",
        "conv1.bias holds NaN or infinite numbers (1 of 3, the first nan at [1])",
        "bn1.bias has type complex64, expected real numbers",
        "linear.weight has shape (5, 3), expected (4, 3)",
    ]
    message = str(raised.value)
    assert message.startswith("checkpoint x.pt does not fit the network. missing: bn1.running_mean")
    assert "\n" not in message


def test_a_number_too_large_for_float32_is_refused():
    held = state() | {"linear.bias": np.array([1e39, 0, 0, 0])}
    with pytest.raises(CheckpointMismatch, match=r"linear\.bias holds NaN or infinite numbers"):
        fit(NET, held)


def test_a_long_list_is_shortened_in_the_message_alone():
    with pytest.raises(CheckpointMismatch, match=r"and 3 more$") as raised:
        fit(NET, {})
    assert len(raised.value.missing) == len(SHAPES) == 11


@pytest.mark.parametrize("name", OPTIONS)
def test_residual_networks_have_the_names_of_pytorch_programs(name: str):
    builder, depth, options, side = OPTIONS[name]
    net = getattr(zoo, builder)(*depth, (side, side, 3), CLASSES, **options)
    shapes = json.loads((FIXTURES / "networks.json").read_text())[name]
    params = fit(net, {key: value(key, tuple(shape)) for key, shape in shapes.items()})
    learned = sum(int(np.prod(s)) for key, s in shapes.items() if not key.endswith("tracked"))
    assert nn.count(params) == learned


BLOCK = nn.Network((4, 4, 2), (Residual("b", (Conv("c_1", 2, (1, 1)), BatchNorm("n"))), GlobalMean()))


@pytest.mark.parametrize("form", ["{0}.{1}", "{0}/{0}/{1}:0", "model_weights/{0}/{0}/{1}:0"])
def test_layers_of_one_name_each_may_be_flat_and_named_twice_as_by_keras(form: str):
    ends = {"c_1": ("kernel", "bias"), "n": ("gamma", "beta", "moving_mean", "moving_variance")}
    shapes = {"kernel": (1, 1, 2, 2)}
    held = {
        form.format(layer, end): np.abs(value(end, shapes.get(end, (2,))))
        for layer in ends
        for end in ends[layer]
    }
    params = fit(BLOCK, held)["b"]["branch"]
    np.testing.assert_array_equal(params["c_1"]["kernel"], np.abs(value("kernel", (1, 1, 2, 2))))
    np.testing.assert_array_equal(params["n"]["var"], np.abs(value("moving_variance", (2,))))


def test_a_name_that_several_layers_have_says_its_block():
    held = state()
    del held["layer1.0.conv1.weight"]  # there is a conv1.weight, the stem's
    with pytest.raises(CheckpointMismatch, match=r"missing: layer1\.0\.conv1\.weight"):
        fit(NET, held)


@pytest.mark.parametrize("pair", [("(", "x"), ("^fc", r"\1")])
def test_a_rename_that_is_no_expression_is_one_line(pair: tuple[str, str]):
    with pytest.raises(ValueError, match=r"^rename '[^\n]*' is no regular expression, or '[^\n]*$"):
        fit(NET, state() | {"fc.weight": np.ones(2)}, rename=[pair])
