"""Files as people publish them: what stands around, beside and in place of a network's plain arrays."""

import json
import shutil
import zipfile
from pathlib import Path

import flax.linen
import flax.serialization
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import slth
from slth import nn
from slth.interop import CheckpointMismatch, UnsafePickle, fit, load_checkpoint, read_arrays
from slth.interop.files import outputs_of
from slth.nn import zoo
from slth.nn.layers import BatchNorm, Conv, Dense
from slth.nn.pooling import GlobalMean
from tests.fixtures.make_foreign import SEED, SHAPES
from tests.fixtures.make_pytorch import value

FIXTURES = Path(__file__).parents[1] / "fixtures"
NET = nn.Network((8, 8, 2), (Conv("conv1", 3, (3, 3)), nn.Activation("relu"), GlobalMean(), Dense("fc", 4)))


def state(called: str = "") -> dict[str, np.ndarray]:
    return {name: value(called + name, shape) for name, shape in SHAPES.items()}


def same(params, wanted, tolerance: float = 0.0) -> None:
    """Parameters of `NET` against arrays in PyTorch's names and layout."""
    for name, array in wanted.items():
        layer, leaf = name.split(".")
        found = params[layer]["kernel" if leaf == "weight" else leaf]
        truth = array.transpose(*range(2, array.ndim), 1, 0) if leaf == "weight" else array
        np.testing.assert_allclose(found, truth, rtol=tolerance, atol=0)


def test_a_state_dict_is_found_beside_values_of_all_kinds():
    arrays = read_arrays(FIXTURES / "foreign_beside.pth.tar")
    assert set(arrays) == {"best_acc1", "state_dict", "optimizer"}
    same(load_checkpoint(FIXTURES / "foreign_beside.pth.tar", NET), state())


@pytest.mark.parametrize(
    "name", ["net.pth.tar", "net.tar", "net.bin", "net.ckpt", "net", "net.model", "net.npz"]
)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz", "msgpack"])
def test_files_are_read_as_what_they_are_and_not_by_suffix(tmp_path: Path, kind: str, name: str):
    whole = {"zip": "state_zip.pt", "legacy": "state_legacy.pth"}
    arrays = read_arrays(FIXTURES / "state_zip.pt")
    path = tmp_path / name
    if kind in whole:
        shutil.copyfile(FIXTURES / whole[kind], path)
    elif kind == "safetensors":
        slth.interop.save_checkpoint(path, arrays)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        path.write_bytes(flax.serialization.msgpack_serialize(dict(arrays)))
    found = read_arrays(path)
    assert set(found) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)


def test_of_several_sets_that_fit_one_is_chosen_by_its_key():
    path = FIXTURES / "foreign_averages.ckpt"
    with pytest.raises(
        ValueError, match=r"several sets of parameters that fit, state_dict, state_dict_ema: "
    ) as said:
        slth.load(path, NET)
    assert "target.key=state_dict)" in str(said.value)
    same(load_checkpoint(path, NET, key="state_dict"), state())
    same(load_checkpoint(path, NET, key="state_dict_ema"), state(SEED))
    same(load_checkpoint(path, NET, key="state_dict_ema.model"), state(SEED))
    same(slth.load(path, NET, key="state_dict_ema").params, state(SEED))
    with pytest.raises(
        ValueError, match=r"ckpt: key 'ema': no array's name begins with it, but with state_dict, "
    ):
        load_checkpoint(path, NET, key="ema")


WRAPPERS = (
    *("state_dict", "state_dict_ema", "model_state_dict", "net_state_dict", "ema", "weights", "params"),
    *("model", "net", "state_dict.model", "ema.module"),
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_seen_through_where_one_set_fits(wrapper: str):
    held: dict = {"step": 3, "best": np.float32(2), "optimizer": {"state": {"0": np.ones(3)}}}
    inner = held
    for key in wrapper.split("."):
        inner[key] = inner = {}
    inner.update(state())
    same(fit(NET, held), state())
    other = "network" if wrapper != "network" else "model"
    same(fit(NET, held | {other: {"conv1.weight": np.ones((1, 1, 1, 1))}}), state())
    with pytest.raises(ValueError, match="several sets of parameters that fit"):
        fit(NET, held | {other: state()})


PREFIXES = ("module", "model", "net", "network", "backbone", "_orig_mod", "ema", "module._orig_mod.model")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_words_in_front_of_names_are_seen_through(prefix: str):
    held = {f"{prefix}.{name}": array for name, array in state().items()}
    same(fit(NET, held), state())
    same(fit(NET, held | {f"{prefix}.num_batches_tracked": np.int64(3), "n_averaged": np.int64(1)}), state())
    head = {name: array for name, array in state().items() if name.startswith("fc")}
    body = {name: array for name, array in held.items() if ".conv1." in name}
    same(fit(NET, body | head), state())


def test_a_spec_may_have_the_word_in_its_own_names():
    layers = (Conv("net.0", 3, (3, 3)), nn.Activation("relu"), GlobalMean(), Dense("model", 4))
    net = nn.Network((8, 8, 2), layers)
    names = {"conv1": "net.0", "fc": "model"}
    held = {f"{names[n.split('.')[0]]}.{n.split('.')[1]}": array for n, array in state().items()}
    for prefix in ("", "net.", "module.net."):
        params = fit(net, {prefix + name: array for name, array in held.items()})
        same({"conv1": params["net.0"], "fc": params["model"]}, state())
    nested = {"net.0": {"weight": held["net.0.weight"], "bias": held["net.0.bias"]}}
    params = fit(net, nested | {"model": {"kernel": held["model.weight"].T, "bias": held["model.bias"]}})
    same({"conv1": params["net.0"], "fc": params["model"]}, state())


def test_what_is_no_parameter_is_left_out_if_that_is_said():
    held = state() | {"head.weight": np.ones(3), "head.aux.bias": np.ones(2), "scale": np.ones(1)}
    with pytest.raises(
        CheckpointMismatch, match=r"left out by ignore \(target\.ignore=\[PATTERN\]\)"
    ) as said:
        fit(NET, held)
    assert said.value.left_over == ["head.aux.bias", "head.weight", "scale"]
    with pytest.raises(CheckpointMismatch, match=r"left over: scale\."):
        fit(NET, held, ignore=["head.*"])
    same(fit(NET, held, ignore=["head.*", "sc?le"]), state())
    same(fit(NET, state(), ignore=["*"]), state())


def test_no_array_is_lost_where_two_would_have_one_name():
    held = state() | {"head.weight": np.ones((4, 3))}
    said = r"rename '\^head': fc\.weight and head\.weight would both be fc\.weight"
    with pytest.raises(ValueError, match=said):
        fit(NET, held, rename=[("^head", "fc")])
    with pytest.raises(ValueError, match=said):
        fit(NET, {f"module.{k}": v for k, v in held.items()}, rename=[("^head", "fc")])
    with pytest.raises(ValueError, match=r"two of its arrays have the name fc\.weight"):
        fit(NET, state() | {"fc/weight": np.ones((4, 3))})


NORMED = nn.Network((4, 4, 1), (Conv("c", 2, (1, 1)), BatchNorm("bn"), nn.Activation("relu"), GlobalMean()))


def normed() -> dict[str, np.ndarray]:
    names = ("weight", "bias", "running_mean", "running_var")
    shapes = {"c.weight": (2, 1, 1, 1), "c.bias": (2,), **{f"bn.{name}": (2,) for name in names}}
    return {name: value(name, shape) for name, shape in shapes.items()}


def test_variances_below_0_are_refused_by_name():
    held = normed() | {"bn.running_var": np.array([0.5, -0.25])}
    said = r"bn\.running_var holds variances below 0 \(1 of 2, the first -0\.25 at \[1\]\)"
    with pytest.raises(CheckpointMismatch, match=said):
        fit(NORMED, held)
    params = fit(NORMED, normed())
    params["bn"]["var"][1] = -0.25
    with pytest.raises(ValueError, match=r"bn/var holds -0\.25: .*variance"):
        slth.Target.of(NORMED, params)
    with pytest.raises(ValueError, match=r"bn/var holds -0\.25: .*variance"):
        nn.fold_batch_norm(NORMED, params)


@pytest.mark.parametrize(
    "name", ["c.weight", "c.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_array_may_hold_what_is_no_number(name: str, bad: float):
    held = normed()
    held[name] = held[name].copy()
    held[name][1] = bad
    with pytest.raises(
        CheckpointMismatch, match=rf"{name} holds NaN or infinite .*1 of 2, the first {bad:g} at \[1"
    ):
        fit(NORMED, held)


FORMS = {"pruned": 0.0, "norm": 1e-6, "parametrized": 1e-6, "bfloat16": 0.0, "half": 0.0}


@pytest.mark.parametrize("form, tolerance", FORMS.items())
def test_weights_are_those_that_pytorch_computes_with(form: str, tolerance: float):
    truth = np.load(FIXTURES / "foreign_effective.npz")
    wanted = {name: truth[f"{form}/{name}"] for name in SHAPES}
    assert any(np.abs(wanted[name] - array).max() > 1e-4 for name, array in state().items())
    same(load_checkpoint(FIXTURES / f"foreign_{form}.pt", NET), wanted, tolerance)


def test_a_magnitude_that_does_not_fit_is_named():
    held = state()
    held |= {"fc.weight_v": held.pop("fc.weight"), "fc.weight_g": np.ones((5, 1))}
    with pytest.raises(CheckpointMismatch, match=r"fc\.weight_v has shape \(4, 3\), its magnitude \(5, 1\)"):
        fit(NET, held)


def test_biases_may_have_axes_of_length_1():
    held = state()
    held["conv1.bias"] = held["conv1.bias"].reshape(1, 1, 1, 3)
    held["fc.bias"] = held["fc.bias"].reshape(1, 4)
    same(fit(NET, held), state())
    with pytest.raises(CheckpointMismatch, match=r"fc\.bias has shape \(2, 2\), expected \(4,\)"):
        fit(NET, state() | {"fc.bias": np.ones((2, 2))})


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.Conv(2, (1, 1), name="c")(x)
        return flax.linen.BatchNorm(use_running_average=True, name="bn")(x)


class TrainState(flax.training.train_state.TrainState):
    batch_stats: dict
    ema_params: dict


def test_a_training_state_of_flax_is_read(tmp_path: Path, getkey):
    variables = Linen().init(getkey(), jnp.ones((1, 4, 4, 1)))
    moved = jax.tree.map(lambda leaf: leaf + 0.25, variables)
    made = TrainState.create(
        apply_fn=Linen().apply,
        params=moved["params"],
        tx=optax.adam(1e-3),
        batch_stats=moved["batch_stats"],
        ema_params=variables["params"],
    )
    path = tmp_path / "state.msgpack"
    path.write_bytes(flax.serialization.to_bytes(made))
    with pytest.raises(ValueError, match=r"that fit, ema_params, params: choose"):
        load_checkpoint(path, NORMED)
    for key, held in (("params", moved), ("ema_params", variables)):
        params = load_checkpoint(path, NORMED, key=key)
        np.testing.assert_array_equal(params["c"]["kernel"], held["params"]["c"]["kernel"])
        np.testing.assert_array_equal(params["bn"]["scale"], held["params"]["bn"]["scale"])
        np.testing.assert_array_equal(params["bn"]["mean"], moved["batch_stats"]["bn"]["mean"])
    path.write_bytes(flax.serialization.to_bytes(made.replace(ema_params={})))
    np.testing.assert_array_equal(
        load_checkpoint(path, NORMED)["bn"]["var"], moved["batch_stats"]["bn"]["var"]
    )


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.c = nnx.Conv(1, 2, (1, 1), rngs=rngs)
        self.bn = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_of_nnx_is_read_without_its_random_states(tmp_path: Path, wrapped: bool):
    model = Nnx(nnx.Rngs(0))
    tree = nnx.to_pure_dict(nnx.state(model))
    assert "rngs" in tree["drop"]

    def plain(leaf):
        held = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return {"value": np.asarray(held)} if wrapped else np.asarray(held)

    path = tmp_path / "state.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(jax.tree.map(plain, tree)))
    params = load_checkpoint(path, NORMED)
    np.testing.assert_array_equal(params["c"]["kernel"], model.c.kernel[...])
    np.testing.assert_array_equal(params["bn"]["var"], model.bn.var[...])


def test_a_folder_of_orbax_is_read(tmp_path: Path, getkey):
    orbax = pytest.importorskip("orbax.checkpoint")
    variables = Linen().init(getkey(), jnp.ones((1, 4, 4, 1)))
    with orbax.StandardCheckpointer() as saver:
        saver.save(tmp_path / "net", variables)
    np.testing.assert_array_equal(
        load_checkpoint(tmp_path / "net", NORMED)["c"]["kernel"], variables["params"]["c"]["kernel"]
    )
    with pytest.raises(
        ValueError, match=r"is a folder, and only orbax's folders are read: name a file in it"
    ):
        load_checkpoint(tmp_path, NORMED)


KERAS = {
    "foreign_keras.h5": [(r"^model_weights\.\w+\.", "")],
    "foreign_keras.keras": [(r"^layers\.", ""), (r"\.vars\.0$", ".kernel"), (r"\.vars\.1$", ".bias")],
}


@pytest.mark.parametrize("file, rename", KERAS.items())
def test_arrays_of_keras_are_read_by_name(file: str, rename):
    pytest.importorskip("h5py")
    same(load_checkpoint(FIXTURES / file, NET, rename=rename), state())


def test_without_h5py_a_keras_file_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r'needs h5py: pip install "slth\[keras\]"'):
        read_arrays(FIXTURES / "foreign_keras.h5")


REFUSED = {
    "foreign_script.pt": (
        ValueError,
        r"it is a TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict\(\)",
    ),
    "foreign_quantised.pt": (
        UnsafePickle,
        r"is refused: it holds quantised tensors: save the state_dict",
    ),
    "foreign_object.pt": (
        UnsafePickle,
        r"names __main__\.Config.*torch\.save\(model\.state_dict\(\), \"state\.pt",
    ),
    "state_module.pt": (
        UnsafePickle,
        r"a whole module.*model = torch\.load\(FILE, weights_only=False\); torch\.save",
    ),
}


@pytest.mark.parametrize("file, error, said", [(k, *v) for k, v in REFUSED.items()])
def test_what_is_refused_says_why_and_what_to_do(file: str, error, said: str):
    with pytest.raises(error, match=said) as raised:
        load_checkpoint(FIXTURES / file, NET)
    assert "\n" not in str(raised.value)


BYTES = {
    "gzip": (b"\x1f\x8b\x08\x00", r"compressed by gzip: unpack it"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", r"pointer of Git LFS"),
    "web page": (b"<!DOCTYPE html>", r"is a web page"),
    "one array": (b"\x93NUMPY\x01\x00", r"single array without a name"),
    "tar": (b"x".ljust(257, b"\0") + b"ustar\0" + b"\0" * 300, r"is a tar archive: unpack it"),
    "half a zip": (b"PK\x03\x04" + b"\0" * 60, r"damaged: it is a zip without its end"),
}


@pytest.mark.parametrize("content, said", BYTES.values(), ids=BYTES.keys())
def test_what_often_stands_in_a_checkpoint_s_place_is_told_apart(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^checkpoint .*net\.pth .*{said}"):
        load_checkpoint(tmp_path / "net.pth", NET)


def test_zips_of_other_programs_are_told_apart(tmp_path: Path):
    for name, said in (
        ("m/models/model.json", "a program of torch.export"),
        ("a.txt", "zip of other files, a.txt"),
    ):
        with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
            archive.writestr(name, "{}")
        with pytest.raises(ValueError, match=said):
            load_checkpoint(tmp_path / "net.pt", NET)


def test_projections_that_are_left_over_point_at_the_skip():
    shapes = json.loads((FIXTURES / "networks.json").read_text())["resnet8_projection"]
    held = {name: value(name, tuple(shape)) for name, shape in shapes.items()}
    for skip, fits in (("projection", True), ("option_a", False)):
        net = zoo.resnet_cifar(8, (8, 8, 3), 5, width=4, skip=skip)
        if fits:
            fit(net, held)
        else:
            with pytest.raises(
                CheckpointMismatch, match=r"1x1 projections on its skips: .*target\.skip=projection"
            ):
                fit(net, held)


def test_another_number_of_outputs_is_said(tmp_path: Path):
    net = nn.Network(NET.input_shape, (*NET.layers[:-1], Dense("fc", 3)))
    with pytest.raises(
        CheckpointMismatch, match=r"Its last layer has 4 outputs, the spec's 3: .*data\.classes=4"
    ):
        fit(net, state())
    np.savez(tmp_path / "net.npz", **{f"module.{name}": array for name, array in state().items()})
    assert outputs_of(tmp_path / "net.npz", net) == 4
    held = state()
    del held["fc.weight"], held["fc.bias"]
    np.savez(tmp_path / "net.npz", **held)
    assert outputs_of(tmp_path / "net.npz", net) is None


def test_dicts_that_hold_each_other_end():
    tree: dict = {"w": np.ones(2)}
    for _ in range(60):
        tree = {"a": tree, "b": tree}
    with pytest.raises(ValueError, match=r"it seems to hold over \d+ arrays"):
        fit(NET, tree)
