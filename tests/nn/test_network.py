"""Whole networks: PyTorch's outputs reproduced, traces and summaries that agree with them, clear errors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import nn
from slth.interop import fit
from slth.nn import forward as forward_module
from slth.nn import zoo
from tests.fixtures.make_pytorch import CLASSES, OPTIONS, images, value

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = json.loads((FIXTURES / "networks.json").read_text())
OUTPUTS = np.load(FIXTURES / "networks.npz")

forward = jax.jit(nn.apply, static_argnums=0)
forward_train = jax.jit(nn.apply_train, static_argnums=0)


def of_pytorch(name: str) -> tuple[nn.Network, dict[str, np.ndarray], dict, jax.Array]:
    builder, depth, options, side = OPTIONS[name]
    net = getattr(zoo, builder)(*depth, (side, side, 3), CLASSES, **options)
    state = {key: value(key, tuple(shape)) for key, shape in NAMES[name].items()}
    return net, state, fit(net, state), jnp.asarray(images(side).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", OPTIONS)
def test_pytorch_computes_the_same_at_inference(name: str):
    net, _, params, x = of_pytorch(name)
    np.testing.assert_allclose(forward(net, params, x), OUTPUTS[f"{name}/eval"], atol=1e-5)


# Batch norm over the four values of a 1x1 image divides by small deviations: rounding grows with depth.
TRAINING = dict.fromkeys(OPTIONS, 2e-5) | {"resnet18": 1e-3, "resnet50": 5e-3}


@pytest.mark.parametrize("name, atol", TRAINING.items(), ids=TRAINING.keys())
def test_pytorch_computes_the_same_in_training(name: str, atol: float):
    net, state, params, x = of_pytorch(name)
    logits, moved = forward_train(net, params, x)
    np.testing.assert_allclose(logits, OUTPUTS[f"{name}/train"], atol=atol)
    keys = [key for key in OUTPUTS.files if key.startswith(f"{name}/moved/")]
    assert len(keys) == 2
    truth = fit(net, state | {key.rpartition("/")[2]: OUTPUTS[key] for key in keys})
    before, after = jax.tree.leaves(params), jax.tree.leaves(truth)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if (a != b).any()]
    assert len(changed) == 2
    for i in changed:
        np.testing.assert_allclose(jax.tree.leaves(moved)[i], after[i], atol=atol, rtol=1e-4)


NET = nn.Network(
    (5, 5, 2),
    (
        nn.Conv("conv", 3, (3, 3)),
        nn.BatchNorm("bn"),
        nn.Activation("relu"),
        nn.Residual("block", (nn.Conv("a", 3, (1, 1), use_bias=False),), (nn.ChannelScale("s"),)),
        nn.GlobalMean(),
        nn.Dense("linear", 4),
    ),
)


def test_a_trace_holds_every_named_output(getkey):
    params = nn.init(NET, getkey())
    x = jax.random.normal(getkey(), (3, 5, 5, 2))
    logits, values = nn.trace(NET, params, x)
    assert list(values) == ["conv", "bn", "block/branch/a", "block/skip/s", "block", "linear"]
    np.testing.assert_array_equal(values["linear"], logits)
    np.testing.assert_array_equal(values["block"], values["block/branch/a"] + values["block/skip/s"])
    np.testing.assert_array_equal(values["conv"], NET.layers[0].apply(params["conv"], x))
    np.testing.assert_allclose(logits, nn.apply(NET, params, x), atol=1e-6)
    rows = nn.summary(NET, params)
    shapes = {row.name: row.output_shape for row in rows if row.name in values}
    assert shapes == {name: array.shape[1:] for name, array in values.items()}


def test_a_summary_counts_every_parameter_once(getkey):
    params = nn.init(NET, getkey())
    rows = nn.summary(NET, params)
    by_hand = 3 * 3 * 2 * 3 + 3 + 4 * 3 + 3 * 3 + 3 + 3 * 4 + 4
    assert sum(row.parameters for row in rows) == nn.count(params) == by_hand
    text = nn.format_summary(rows).splitlines()
    assert len(text) == len(rows) + 2
    assert len({len(line.rstrip()) for line in text}) == 1
    assert text[-1].split() == ["total", str(by_hand)]


def test_a_spec_is_a_static_value():
    again = nn.Network(NET.input_shape, tuple(NET.layers))
    assert (again, hash(again)) == (NET, hash(NET))
    traced = []

    @jax.jit
    def run(x):
        traced.append(x.shape)
        return nn.apply(nn.Network((3,), (nn.Activation("tanh"),)), {}, x)

    run(jnp.ones((2, 3)))
    run(jnp.zeros((2, 3)))
    assert traced == [(2, 3)]


def test_inference_is_affine_where_nothing_is_nonlinear(getkey):
    net = nn.Network((6, 2), (nn.Conv("c", 3, (3,)), nn.BatchNorm("bn"), nn.Flatten(), nn.Dense("d", 4)))
    params = nn.init(net, getkey())
    x, y = jax.random.normal(getkey(), (2, 1, 6, 2))
    zero = nn.apply(net, params, jnp.zeros((1, 6, 2)))
    both = nn.apply(net, params, 2 * x - 3 * y) - zero
    parts = 2 * (nn.apply(net, params, x) - zero) - 3 * (nn.apply(net, params, y) - zero)
    np.testing.assert_allclose(both, parts, atol=1e-4)


def test_a_batch_of_another_shape_is_refused(getkey):
    params = nn.init(NET, getkey())
    for function in (nn.apply, nn.apply_train, nn.trace):
        with pytest.raises(ValueError, match=r"reads batches of shape .*5, 5, 2.*got \(2, 5, 5, 3\)"):
            function(NET, params, jnp.zeros((2, 5, 5, 3)))


def test_fewer_images_go_through_a_network_at_a_time_where_its_values_are_large(monkeypatch, getkey):
    params, x = nn.init(NET, getkey()), np.ones((10, 5, 5, 2), np.float32)
    whole, sizes = nn.predict(NET, params, x), []

    def counted(network, params, x):
        sizes.append(len(x))
        return nn.apply(network, params, x)

    monkeypatch.setattr(forward_module, "apply_compiled", counted)
    monkeypatch.setattr(forward_module, "MOST_NUMBERS", 4 * 50 + 49)  # the input has the most, 50 an image
    np.testing.assert_allclose(nn.predict(NET, params, x), whole, atol=1e-6)
    assert sizes == [4, 4, 4]
    monkeypatch.setattr(forward_module, "MOST_NUMBERS", 1)
    nn.predict(NET, params, x[:2])
    assert sizes[3:] == [1, 1]
