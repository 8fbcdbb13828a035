"""Checkpoint files: every suffix, damage, and the published networks at their published accuracy."""

from dataclasses import replace
from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import slth
from slth import data, nn
from slth.interop import load_checkpoint, read_arrays, save_checkpoint
from slth.nn import zoo
from slth.nn.layers import BatchNorm, Conv, Dense, Residual
from slth.nn.pooling import GlobalMean
from slth.train import accuracy
from tests.construction.reference import forward

NET = nn.Network(
    (4, 4, 1),
    (
        Residual("layer1.0", (Conv("conv1", 1, (1, 1)), BatchNorm("bn1"))),
        GlobalMean(),
        Dense("linear", 2),
    ),
)


@pytest.fixture
def params(getkey):
    values = nn.init(NET, getkey())
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), values)


def test_our_own_file_comes_back_bit_for_bit(tmp_path: Path, params):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, params)
    assert "layer1.0/branch/conv1/kernel" in read_arrays(path)
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(path, NET), params)
    first = path.read_bytes()
    save_checkpoint(path, jax.tree.map(jnp.asarray, params))
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_npz_and_msgpack_are_read_too(tmp_path: Path, params):
    save_checkpoint(tmp_path / "net.safetensors", params)
    np.savez(tmp_path / "net.npz", **read_arrays(tmp_path / "net.safetensors"))
    (tmp_path / "net.msgpack").write_bytes(flax.serialization.msgpack_serialize(params))
    for suffix in ("npz", "msgpack"):
        read = load_checkpoint(tmp_path / f"net.{suffix}", NET)
        jax.tree.map(np.testing.assert_array_equal, read, params)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16, np.int64, np.uint8, np.bool_])
def test_safetensors_of_every_type(tmp_path: Path, dtype):
    array = np.array([[0, 1, 2], [3, 1, 0]]).astype(dtype)
    safetensors.numpy.save_file({"w": array}, tmp_path / "x.safetensors")
    read = read_arrays(tmp_path / "x.safetensors")["w"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_bad_files_give_one_line(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none\.npz is not there"):
        load_checkpoint(tmp_path / "none.npz", NET)
    (tmp_path / "x.txt").write_bytes(b"some text")
    with pytest.raises(ValueError, match=r"x\.txt is of no kind that is read, .*it begins with b'some tex'"):
        load_checkpoint(tmp_path / "x.txt", NET)
    for suffix in ("safetensors", "npz", "msgpack", "pt"):
        for content in (b"", b"\xc1broken", b"\x00" * 40):
            path = tmp_path / f"x.{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"^checkpoint .*x\.{suffix} (is|holds)[^\n]*$"):
                load_checkpoint(path, NET)


TRAINED = nn.Network(
    (4, 4, 2),
    (
        Conv("0", 3, (3, 3), padding=((1, 1), (1, 1))),
        BatchNorm("1"),
        nn.Activation("relu"),
        nn.Flatten("chw"),
        Dense("4", 4),
    ),
)


def test_every_kind_of_file_is_the_same_target(tmp_path: Path, root: Path):
    fixtures = root / "tests" / "fixtures"
    state = read_arrays(fixtures / "state_zip.pt")
    params = load_checkpoint(fixtures / "state_zip.pt", TRAINED)
    statistics = {"1": {name: params["1"].pop(name) for name in ("mean", "var")}}
    flax_variables = {"params": params, "batch_stats": statistics}
    params = {**params, "1": {**params["1"], **statistics["1"]}}
    save_checkpoint(tmp_path / "ours.safetensors", params)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(array) for name, array in state.items()}, tmp_path / "theirs.safetensors"
    )
    np.savez(tmp_path / "theirs.npz", **state)
    (tmp_path / "flax.msgpack").write_bytes(flax.serialization.msgpack_serialize(flax_variables))
    files = [
        *(fixtures / name for name in ("state_zip.pt", "state_legacy.pth", "state_wrapped.th")),
        *tmp_path.iterdir(),
    ]

    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32)
    truth = forward(TRAINED, params, x)[""]
    assert np.abs(truth).max() > 0.1
    targets = [slth.load(path, TRAINED) for path in files]
    for target in targets:
        assert [type(layer) for layer in target.network.layers] == [Conv, nn.Activation, nn.Flatten, Dense]
        np.testing.assert_allclose(target(x), truth, atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, target.params, targets[0].params)


def test_names_that_differ_are_renamed_and_what_is_no_spec_is_refused(tmp_path: Path, root: Path):
    path = root / "tests/fixtures/state_zip.pt"
    names = {"0": "first", "1": "norm", "4": "last"}
    layers = (
        replace(layer, name=names[layer.name]) if hasattr(layer, "name") else layer
        for layer in TRAINED.layers
    )
    other = nn.Network(TRAINED.input_shape, tuple(layers))
    with pytest.raises(ValueError, match=r"missing: first\.weight .*left over: 0\.bias"):
        slth.load(path, other)
    found = slth.load(path, other, rename=[(rf"^{old}\.", f"{new}.") for old, new in names.items()])
    wanted = slth.load(path, TRAINED).params
    assert set(found.params) == {"first", "last"}
    for new, old in (("first", "0"), ("last", "4")):
        jax.tree.map(np.testing.assert_array_equal, found.params[new], wanted[old])


@pytest.mark.usefixtures("unchecked")
def test_a_name_for_a_spec_is_refused():
    with pytest.raises(ValueError, match=r"^spec: expected a slth\.nn\.Network, got str: write one"):
        slth.load("net.pth", "resnet20")  # pyright: ignore[reportArgumentType]


PUBLISHED = {  # name: (file, target, data, mean and std, accuracy in percent)
    "relu": ("resnet20_cifar10_relu.safetensors", "resnet20", "cifar10", None, None, 91.64),
    "relu pickle": ("resnet20-12fca82f.th", "resnet20", "cifar10", None, None, 91.64),
    "sigmoid": (
        *("resnet20_cifar10_sigmoid.safetensors", "resnet20_sigmoid", "cifar10"),
        *((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 71.19),
    ),
    "mnist": ("conv_mnist_relu.safetensors", "conv_mnist", "mnist", None, None, 98.45),
    "mlperf": (
        *("resnet8_mlperf_tiny.npz", "mlperf_resnet8", "cifar10"),
        *((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), 88.00),
    ),
}


@pytest.mark.parametrize("file, target, name, mean, std, percent", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_networks(data_dir: Path, file, target, name, mean, std, percent):
    folder = data_dir / "tensorflow_datasets" if name == "cifar10" else data_dir
    held = data.load(name, folder, mean=mean, std=std, train_limit=1)
    net = zoo.build(target, held.shape, held.classes)
    params = load_checkpoint(data_dir / "targets" / file, net)
    logits = nn.predict(net, params, held.test_images)
    right = (logits.argmax(1) == held.test_labels).mean()
    assert round(100 * right, 2) == percent
    if file == "resnet20_cifar10_relu.safetensors":
        folded, values = nn.fold_batch_norm(net, params)
        again = nn.predict(folded, values, held.test_images)
        assert np.abs(again - logits).max() < 1e-4
        assert round(100 * (again.argmax(1) == held.test_labels).mean(), 2) == percent


def test_the_published_mnist_network_with_leaky_relu(data_dir: Path):
    held = data.load("mnist", data_dir)
    net = zoo.build("conv_mnist", held.shape, 10, activation="leaky_relu")
    params = load_checkpoint(data_dir / "targets" / "conv_mnist_relu.safetensors", net)
    assert sum(int(np.count_nonzero(params[name]["kernel"])) for name in ("0", "2")) == 951
    assert sum(int(np.count_nonzero(params[name]["bias"])) for name in ("0", "2")) == 8
    right = accuracy(net, params, held.test_images, held.test_labels)
    assert round(100 * right, 2) == 98.40


def test_the_pickle_and_the_safetensors_agree(data_dir: Path):
    net = zoo.build("resnet20", (32, 32, 3), 10)
    files = ("resnet20-12fca82f.th", "resnet20_cifar10_relu.safetensors")
    a, b = (load_checkpoint(data_dir / "targets" / file, net) for file in files)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_checkpoint_of_another_network_names_what_is_missing(data_dir: Path):
    path = data_dir / "targets" / "resnet20_cifar10_relu.safetensors"
    with pytest.raises(ValueError, match=r"missing: layer1\.3\.conv1\.weight \(16, 16, 3, 3\)"):
        load_checkpoint(path, zoo.build("resnet32", (32, 32, 3), 10))
