"""A target's checkpoint from the command line: how it is read, and how many classes it has."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from experiments.run_folder import config_hash
from experiments.targets import data_of, loaded, spec_of, target_of
from slth import nn
from slth.interop import read_arrays, save_checkpoint
from slth.nn.zoo import build
from tests.data.imagenet import write_folders
from tests.experiments.commands import command
from tests.experiments.test_compose import composed
from tests.interop.onnx_nets import Net
from tests.nn.test_resnet50 import state_of


@pytest.fixture
def checkpoint(tmp_path: Path):
    """A file of an MLP for images of 4x4 pixels, its last layer named head, beside others' arrays."""
    rng, held = np.random.default_rng(0), {"extra.table": np.ones(3)}
    for name, shape in (("dense1", (5, 16)), ("head", (10, 5))):
        held |= {f"{name}.weight": rng.normal(size=shape), f"{name}.bias": rng.normal(size=shape[0])}
    path = tmp_path / "my net=1.npz"
    np.savez(path, **held)
    return path


@pytest.fixture
def images(tmp_path: Path):
    """Test images of labels 0 to 7: the last two classes of the target are missing."""
    path = tmp_path / "data.npz"
    np.savez(path, images=np.random.default_rng(1).random((16, 4, 4)), labels=np.arange(16) % 8)
    return path


READ = ('target.rename=[["^head\\.","linear."]]', 'target.ignore=["extra.*"]', "target.widths=[5]")


def test_names_and_classes_of_a_checkpoint_are_settings(checkpoint: Path, images: Path):
    cfg, spec, data = composed("data=npz", f"data.dir={images}", f'target.checkpoint="{checkpoint}"', *READ)
    assert (data.classes, spec.output_shape) == (8, (10,))  # the checkpoint knows, the labels do not
    np.testing.assert_array_equal(
        loaded(cfg, spec)["linear"]["kernel"], np.load(checkpoint)["head.weight"].T.astype(np.float32)
    )
    mapping = "target.rename={head: linear}"
    cfg, spec, _ = composed(
        "data=npz", f"data.dir={images}", f'target.checkpoint="{checkpoint}"', *READ[1:], mapping
    )
    assert spec == spec_of(cfg, data)


def refusal(checkpoint: Path, images: Path, *overrides: str) -> str:
    given = ("data=npz", f"data.dir={images}", f'target.checkpoint="{checkpoint}"', *overrides)
    try:
        cfg, spec, _ = composed(*given)
        loaded(cfg, spec)
    except ValueError as error:
        return str(error)
    return pytest.fail("nothing is refused")


def test_a_number_of_classes_that_does_not_fit_is_refused(checkpoint: Path, images: Path, tmp_path: Path):
    said = refusal(checkpoint, images, *READ, "data.classes=8")
    assert "Its last layer has 10 outputs, the spec's 8" in said
    said = refusal(checkpoint, images, *READ, "data.classes=4")
    assert "labels up to 7, so at least 8, got 4" in said
    np.savez(images, images=np.zeros((12, 4, 4)), labels=np.arange(12))
    assert "Its last layer has 10 outputs, the spec's 12" in refusal(checkpoint, images, *READ)


BAD = {
    "a word": ("target.rename=head", "target.rename: expected a list, got 'head'"),
    "no pair": ("target.rename=[[head]]", "target.rename: expected pairs of a regular expression and a name"),
    "no expression": ('target.rename=[["(",a]]', "target.rename: '(' is no regular expression"),
    "patterns": ("target.ignore=extra", "target.ignore: expected a list, got 'extra'"),
    "key": ("target.key=ema", "key 'ema': no array's name begins with it"),
    "two of one name": ("target.rename=[[dense1,a],[head,a]]", "would both be a."),
}


@pytest.mark.parametrize("override, said", BAD.values(), ids=BAD.keys())
def test_bad_settings_of_a_checkpoint_are_named(checkpoint: Path, images: Path, override: str, said: str):
    message = refusal(checkpoint, images, "target.widths=[5]", override)
    assert said in message
    assert message.startswith("target.")
    assert "\n" not in message


def test_a_ticket_of_a_foreign_checkpoint_from_the_command_line(root: Path, checkpoint: Path, images: Path):
    overrides = ["target=mlp", "data=npz", f"data.dir={images}", f"output_dir={images.parent}"]
    overrides += [*READ, f'target.checkpoint="{checkpoint}"', "solver=independent", "solver.objective=best"]
    done = command(root, *overrides)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.splitlines()[-1]) / "ticket.safetensors").is_file()


@pytest.fixture
def digits_onnx(tmp_path: Path) -> Path:
    """The digits network of the fixtures as an ONNX file, its batch norms and a softmax in it."""
    held = read_arrays(Path(__file__).parents[1] / "fixtures" / "digits_cnn.pth")
    net = Net((1, 8, 8))
    weights = {name: net.constant(np.asarray(array), name) for name, array in held.items() if array.ndim}

    def norm(x: str, name: str) -> str:
        vectors = [weights[f"{name}.{end}"] for end in ("weight", "bias", "running_mean", "running_var")]
        return net.add("Relu", net.add("BatchNormalization", x, *vectors))

    x = norm(net.add("Conv", "x", weights["conv1.weight"], pads=[1] * 4), "bn1")
    x = norm(net.add("Conv", x, weights["conv2.weight"], pads=[1] * 4, strides=[2, 2]), "bn2")
    x = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = net.add("Gemm", x, weights["linear.weight"], weights["linear.bias"], transB=1)
    path = tmp_path / "net.onnx"
    path.write_bytes(net.model(net.add("Softmax", x), (10,)).SerializeToString())
    return path


def test_a_file_that_says_its_network_needs_no_spec(root: Path, digits_onnx: Path):
    overrides = ["target=file", f"target.checkpoint={digits_onnx}", f"output_dir={digits_onnx.parent}"]
    done = command(root, *overrides, "data.limit=200")
    assert done.returncode == 0, done.stderr
    assert "Softmax '/Softmax_9' at the end is left out" in done.stdout + done.stderr
    metrics = json.loads((Path(done.stdout.splitlines()[-1]) / "metrics.json").read_text())
    assert metrics["target"]["accuracy"] > 0.95
    assert metrics["ticket"]["agreement"] > 0.95


def test_the_network_of_a_file_fits_the_data_or_is_refused(digits_onnx: Path, tmp_path: Path):
    _, spec, data = composed("target=file", f"target.checkpoint={digits_onnx}")
    assert (spec.input_shape, spec.output_shape) == (data.shape, (10,))
    npz = tmp_path / "data.npz"
    given = ("target=file", "data=npz", f"data.dir={npz}")
    np.savez(npz, images=np.zeros((12, 8, 8, 1)), labels=np.arange(12) % 8)
    assert composed(*given, f"target.checkpoint={digits_onnx}")[1].output_shape == (10,)
    for labels, size, said in (
        (
            10,
            9,
            r"reads images of shape \(8, 8, 1\), .* those of data=npz have the shape \(9, 9, 1\)",
        ),
        (11, 8, r"has outputs of shape \(10,\), and data=npz has 11 classes"),
    ):
        np.savez(npz, images=np.zeros((12, size, size, 1)), labels=np.arange(12) % labels)
        with pytest.raises(ValueError, match=rf"target.checkpoint: {digits_onnx} {said}"):
            composed(*given, f"target.checkpoint={digits_onnx}")
    with pytest.raises(ValueError, match="target.checkpoint: name the file of target=file"):
        composed("target=file")
    with pytest.raises(ValueError, match="target: key, rename, ignore choose arrays for a spec"):
        composed("target=file", f"target.checkpoint={digits_onnx}", "target.key=ema")
    with pytest.raises(ValueError, match=r"target.checkpoint: checkpoint none.onnx is not there"):
        composed("target=file", "target.checkpoint=none.onnx")


def written(folder: Path, shape: tuple[int, ...], labels: np.ndarray) -> str:
    """A file of images of this shape, as a setting."""
    path = folder / "images.npz"
    np.savez(path, images=np.random.default_rng(0).random((len(labels), *shape)), labels=labels)
    return f"data.dir={path}"


M5 = ("target=m5", "target.width=2", "target.taps=8", "target.stride=2")
MISFITS = {  # name: (target, images that it was trained on, images of the data, what is said)
    "a coloured net, grey data": (
        *(("target=lenet",), (32, 32, 3), (32, 32)),
        "reads pictures of 32 x 32 pixels, RGB, and data=npz are pictures of 32 x 32 pixels, grey: convert",
    ),
    "a grey net, coloured data": (
        *(("target=lenet",), (28, 28, 1), (28, 28, 3)),
        "reads pictures of 28 x 28 pixels, grey, and data=npz are pictures of 28 x 28 pixels, RGB: convert",
    ),
    "28 pixels for 32": (
        *(("target=lenet",), (28, 28, 1), (32, 32)),
        "reads pictures of 28 x 28 pixels, grey, and data=npz are pictures of 32 x 32 pixels, grey: convert",
    ),
    "pictures for a net of signals": (
        *(M5, (1000, 1), (28, 28)),
        r"1-D convolution cannot read .* \(data=npz are pictures of 28 x 28 pixels, grey\)",
    ),
    "signals for a net of pictures": (
        *(("target=lenet",), (28, 28, 1), (1, 1000)),
        r"2-D convolution cannot read .* \(data=npz are signals of 1000 numbers, channels: 1\)",
    ),
    "rows for a net of signals": (
        *(M5, (1000, 1), (1000,)),
        r"data=npz are rows of 1000 numbers: signals of one channel need data\.layout=grey",
    ),
}


@pytest.mark.parametrize("target, own, given, said", MISFITS.values(), ids=MISFITS.keys())
def test_images_of_another_kind_are_told_in_one_line(tmp_path: Path, target, own, given, said):
    options = dict(one.removeprefix("target.").split("=") for one in target[1:])
    spec = build(target[0].removeprefix("target="), own, 4, **{k: int(v) for k, v in options.items()})
    save_checkpoint(path := tmp_path / "net.safetensors", nn.init(spec, jax.random.key(0)))

    def read() -> None:
        given_as = written(tmp_path, given, np.arange(8) % 4)
        cfg, spec, _ = composed(*target, "data=npz", given_as, f"target.checkpoint={path}")
        loaded(cfg, spec)

    with pytest.raises(ValueError, match=said) as raised:
        read()
    assert "\n" not in str(raised.value)


def test_signals_need_no_layout(tmp_path: Path):
    for shape in ((1, 1000), (1000, 1)):
        _, spec, data = composed(*M5, "data=npz", written(tmp_path, shape, np.arange(8) % 4))
        assert (spec.input_shape, spec.output_shape, data.low) == ((1000, 1), (4,), -1.0)


def test_numbers_as_labels_ask_for_as_many_outputs(tmp_path: Path, digits_onnx: Path):
    numbers = np.random.default_rng(0).random((8, 3))
    cfg, spec, data = composed("data=npz", written(tmp_path, (4,), numbers))
    assert (spec.output_shape, data.task) == ((3,), "regression")
    _, spec, _ = composed("data=npz", written(tmp_path, (4,), numbers[:, 0]))
    assert spec.output_shape == (1,)
    with pytest.raises(
        ValueError, match=r"target: mlp computes a vector, and the labels .* shape \(3, 5, 1\)"
    ):
        composed("data=npz", written(tmp_path, (4,), np.random.default_rng(0).random((8, 3, 5))))
    with pytest.raises(
        ValueError, match=r"data: all labels of npz are 0, one class: say data\.classes=N, or"
    ):
        composed("data=npz", written(tmp_path, (4,), np.zeros(8, int)))
    with pytest.raises(
        ValueError, match=r"ends in a softmax: its outputs are classes, and the labels .* numbers"
    ):
        composed(
            *("target=file", f"target.checkpoint={digits_onnx}", "data=npz"),
            written(tmp_path, (8, 8), np.random.default_rng(0).random((8, 10))),
        )
    save_checkpoint(path := tmp_path / "net.safetensors", nn.init(spec, jax.random.key(0)))
    cfg, _, data = composed(
        "data=npz",
        written(tmp_path, (4,), numbers[:, 0]),
        f"target.checkpoint={path}",
        "target.widths=[64,64]",
    )
    assert target_of(cfg, data, tmp_path).target.task == "regression"


def test_pictures_without_mean_and_deviation_are_told(tmp_path: Path, digits_onnx: Path, caplog):
    given = ("target=file", f"target.checkpoint={digits_onnx}", "data=npz")
    images = written(tmp_path, (8, 8), np.arange(10))
    composed(*given, images)
    assert "data.mean, data.std: nothing says them" in caplog.text
    caplog.clear()
    composed(*given, images, "data.mean=[0]", "data.std=[1]")
    composed("data=npz", images)  # trained here: as it is read
    assert "data.mean" not in caplog.text


def test_what_a_limit_takes_is_part_of_the_name_of_a_run():
    """A limit once took the first images: the results of those runs do not pass for those of a draw."""
    cfg, _, _ = composed("data.limit=60")
    older = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    del older.data.seed
    first, _, _ = composed("data.limit=60", "data.seed=null")
    other, _, _ = composed("data.limit=60", "data.seed=1")
    before = {config_hash(one, "ticket") for one in (older, first)}
    assert config_hash(cfg, "ticket") != config_hash(other, "ticket")
    assert not before & {config_hash(one, "ticket") for one in (cfg, other)}


def test_a_draw_of_training_images_is_another_target_and_no_draw_is_not(tmp_path: Path):
    folders = tmp_path / "target"
    for settings, count in (
        (("data.seed=0",), 1),
        (("data.seed=1", "data.limit=40"), 1),
        (("data.seed=0", "data.train_limit=64"), 2),
        (("data.seed=1", "data.train_limit=64"), 3),
    ):
        cfg, _, _ = composed(
            "train.epochs=1", "target=mlp", "target.widths=[3]", f"output_dir={tmp_path}", *settings
        )
        target_of(cfg, data_of(cfg), tmp_path)
        assert len(list(folders.iterdir())) == count


IMAGENET = ("data=imagenet", "data.resize=40", "data.crop=33", "target=resnet50", "target.width=2")


def test_resnet50_reads_imagenet_as_torchvision_does(tmp_path: Path):
    _, spec, held = composed(*IMAGENET, f"data.dir={write_folders(tmp_path)}", "data.limit=6")
    assert (spec.input_shape, spec.output_shape) == ((33, 33, 3), (1000,))
    assert (len(held.train_images), len(held.test_images)) == (15, 6)
    np.testing.assert_allclose(held.mean, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(held.std, [0.229, 0.224, 0.225], rtol=1e-6)


def test_a_size_of_photographs_is_for_imagenet_alone():
    with pytest.raises(ValueError, match=r"data\.crop: expected an integer of at least 1, got 0"):
        composed(*IMAGENET, "data.crop=0")
    with pytest.raises(ValueError, match=r"resize and crop: .* images of digits are taken as they are"):
        composed("+data.resize=9")


@pytest.mark.slow
def test_a_ticket_of_a_narrow_resnet50_for_imagenet(root: Path, tmp_path: Path):
    """Its source is too poor for it: what is tested is that all parts fit together."""
    write_folders(tmp_path / "set")
    save_file(state_of(2, 1000), tmp_path / "net.safetensors")
    where = (f"data.dir={tmp_path / 'set'}", f"target.checkpoint={tmp_path / 'net.safetensors'}")
    given = (*IMAGENET, *where, "source.multiplicity=4", "solver.noise=fixed", f"output_dir={tmp_path}")
    run = command(root, *given)
    assert run.returncode == 0, run.stderr
    metrics = json.loads((Path(run.stdout.splitlines()[-1]) / "metrics.json").read_text())
    assert metrics["error"]["examples"] == 9
    assert metrics["target"]["parameters"] == 89_020
