"""Checkpoint files: every suffix, damage, and the published networks at their published accuracy."""

from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from slth import data, nn
from slth.interop import load_checkpoint, read_arrays, save_checkpoint
from slth.nn import zoo
from slth.nn.layers import BatchNorm, Conv, Dense, Residual
from slth.nn.pooling import GlobalMean
from slth.train import accuracy

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
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"suffix '\.h5' is not one of \.safetensors, \.npz"):
        load_checkpoint(tmp_path / "x.h5", NET)
    for suffix in ("safetensors", "npz", "msgpack", "pt"):
        for content in (b"", b"\xc1broken", b"\x00" * 40):
            path = tmp_path / f"x.{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"^checkpoint .*x\.{suffix} (is|holds)[^\n]*$"):
                load_checkpoint(path, NET)


PUBLISHED = {  # name: (file, target, data, mean and std, accuracy in percent)
    "relu": ("resnet20_cifar10_relu.safetensors", "resnet20", "cifar10", None, None, 91.64),
    "relu pickle": ("resnet20-12fca82f.th", "resnet20", "cifar10", None, None, 91.64),
    "sigmoid": (
        *("resnet20_cifar10_sigmoid.safetensors", "resnet20_sigmoid", "cifar10"),
        *((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 71.19),
    ),
    "mnist": ("conv_mnist_relu.safetensors", "conv_mnist", "mnist", None, None, 98.45),
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
