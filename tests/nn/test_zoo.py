"""Named targets: the published numbers of parameters, shapes at any width, one error for what is unknown."""

import jax
import numpy as np
import pytest

from slth import nn
from slth.nn import zoo
from slth.nn.zoo import IMAGENET_BLOCKS
from tests.nn.nets import SIZES

# Learnable parameters, as the authors of the programs count them: He et al. 2016 give 0.27 to 1.7 million for
# CIFAR; the ImageNet numbers are torchvision's, the MNIST one is 32 (9 + 1) + 32 (288 + 1) + 10 (25088 + 1).
# Keras counts 78,666 for MLPerf Tiny, of which 480 are statistics. MobileNetV2 has 3,504,872 in torchvision,
# with 1,000 classes; M5 is counted in PyTorch's tutorial; the authors of wide residual nets and of DenseNet
# give 2.7, 36.5 and 1.0 million.
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet164": 1_704_154,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "conv_mnist": 260_458,
    "mobilenet_v2": 3_504_872 - 990 * 1281,
    "squeezenet": 1_235_496,
    "m5": 26_915,
    "vgg16": 14_728_266,
    "wrn16_4": 2_748_890,
    "wrn28_10": 36_479_194,
    "densenet40": 1_019_722,
    "mlperf_resnet8": 78_186,
}
INPUTS = {"conv_mnist": (28, 28, 1), "m5": (8000, 1)}
INPUTS |= dict.fromkeys([*(f"resnet{depth}" for depth in IMAGENET_BLOCKS), "squeezenet"], (224, 224, 3))
CLASSES = {"conv_mnist": 10, "m5": 35}


def learnable(net: nn.Network) -> int:
    """Number of parameters but batch norm's running statistics."""
    shapes = jax.eval_shape(lambda: nn.init(net, jax.random.key(0)))
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    return sum(leaf.size for path, leaf in leaves if path[-1].key not in ("mean", "var"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_numbers_of_parameters(name: str):
    shape = INPUTS.get(name, (32, 32, 3))
    net = zoo.build(name, shape, CLASSES.get(name, 1000 if shape[0] == 224 else 10))
    assert learnable(net) == PARAMETERS[name]


def depth(layers) -> int:
    """Linear layers on the longest path."""
    total = 0
    for layer in layers:
        if isinstance(layer, nn.Residual):
            total += max(depth(layer.branch), depth(layer.skip))
        total += isinstance(layer, nn.Conv | nn.Dense)
    return total


@pytest.mark.parametrize("name", [name for name in zoo.BUILDERS if "resnet" in name and name[-1].isdigit()])
def test_a_depth_is_the_number_of_linear_layers(name: str):
    number = int(name.rpartition("resnet")[2])
    net = zoo.build(name, (64, 64, 3) if number in IMAGENET_BLOCKS else (32, 32, 3), 10)
    assert depth(net.layers) == {22: 20}.get(number, number)  # 22 counts its two projections


@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_every_target_builds_for_its_data(name: str):
    net = zoo.build(name, SIZES[name], 7)
    assert net.output_shape == (7,)
    assert hash(net) == hash(zoo.build(name, list(SIZES[name]), 7))


def activations(layers) -> set[nn.Activation]:
    found = {layer for layer in layers if isinstance(layer, nn.Activation)}
    blocks = (layer for layer in layers if isinstance(layer, nn.Residual | nn.Concat))
    return found.union(*(activations(side) for block in blocks for side in block.sides.values()))


@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_every_target_takes_every_activation(name: str):
    shape = SIZES[name]
    for kind in nn.ACTIVATIONS:
        net = zoo.build(name, shape, 7, activation=kind, slope=0.3)
        assert activations(net.layers) == {nn.Activation(kind, 0.3)}


def test_the_sigmoid_target_is_the_scaled_one():
    net = zoo.build("resnet20_sigmoid", (32, 32, 3), 10)
    assert net == zoo.resnet_cifar(20, skip="scaled", activation="sigmoid")
    skips = [layer.skip for layer in net.layers if isinstance(layer, nn.Residual)]
    assert [len(skip) for skip in skips] == [1, 1, 1, 2, 1, 1, 2, 1, 1]


def test_option_a_pads_a_quarter_of_the_channels_on_both_sides():
    net = zoo.build("resnet20", (32, 32, 3), 10)
    (subsample,) = [layer for block in net.layers if isinstance(block, nn.Residual) for layer in block.skip][
        :1
    ]
    assert subsample == nn.Subsample((2, 2), (-1,) * 8 + tuple(range(16)) + (-1,) * 8)


def test_options_reach_the_builder():
    net = zoo.build("mlp", (4,), 3, widths=[5, 6], activation="tanh")
    sizes = [layer.features for layer in net.layers if isinstance(layer, nn.Dense)]
    assert sizes == [5, 6, 3]
    assert nn.Activation("tanh") in net.layers
    wide = zoo.build("resnet18", (32, 32, 3), 3, width=5)
    assert wide.layers[-1] == nn.Dense("fc", 3)
    assert wide.layers[0].features == 5


def test_a_pre_activation_network_ends_with_norm_and_activation(getkey):
    for net in (
        zoo.resnet_cifar(8, (8, 8, 3), 4, width=2, pre_activation=True),
        zoo.resnet_imagenet(18, (32, 32, 3), 4, width=2, pre_activation=True),
    ):
        names = [type(layer).__name__ for layer in net.layers[-4:]]
        assert names == ["BatchNorm", "Activation", "GlobalMean", "Dense"]


REFUSED = {
    "unknown name": (("resnet21", (32, 32, 3), 10), {}, r"target 'resnet21' is unknown: choose one of mlp,"),
    "unknown option": (("lenet", (28, 28, 1), 10), {"width": 3}, r"target lenet has no option 'width'"),
    "unknown activation": (("mlp", (4,), 3), {"activation": "cube"}, r"activation 'cube' is unknown"),
    "unknown skip": (("resnet20", (32, 32, 3), 10), {"skip": "c"}, r"one of option_a, projection, scaled"),
    "no such skip": (
        ("resnet22", (32, 32, 3), 10), {"skip": "option_a"}, r"depth 22 is one of projection, scaled, got"
    ),
    "input too small": (("conv_mnist", (28,), 10), {}, r"0: a 2-D convolution cannot read an input"),
}  # fmt: skip


@pytest.mark.parametrize("arguments, options, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_built_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(*arguments, **options)


def test_depths_that_no_formula_has_are_refused():
    with pytest.raises(ValueError, match=r"depth 6 n \+ 2 \(or 22\), got 21"):
        zoo.resnet_cifar(21)
    with pytest.raises(ValueError, match=r"has a depth of \[18, 34, 50, 101, 152\], got 19"):
        zoo.resnet_imagenet(19)
    for depth in (50, 101, 152):
        with pytest.raises(ValueError, match=rf"has a depth of \[18, 34\], got {depth}"):
            zoo.resnet_imagenet(depth, pre_activation=True)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_resnet", "lenet"])
def test_small_targets_run(name: str, getkey):
    net = zoo.build(name, SIZES[name], 10)
    x = jax.random.normal(getkey(), (2, *net.input_shape))
    out = jax.jit(nn.apply, static_argnums=0)(net, nn.init(net, getkey()), x)
    assert out.shape == (2, 10)
    assert np.isfinite(out).all()
