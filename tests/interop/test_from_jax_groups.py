"""Grouped convolutions and concatenations of functions in JAX, of any library."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from slth import from_jax, nn
from slth.nn.layers import Conv
from tests.construction.nets import JOINED, random_params
from tests.interop.test_from_jax import conv, drawn, equal, kinds, ranks_are_promoted, weights

__all__ = ["ranks_are_promoted"]  # a fixture


class Separable(linen.Module):
    """An inverted residual, then a dense block, of linen."""

    @linen.compact
    def __call__(self, x):
        norm = lambda: linen.BatchNorm(use_running_average=True)  # noqa: E731
        x = jax.nn.relu6(norm()(linen.Conv(4, (3, 3), (2, 2), use_bias=False)(x)))
        y = jax.nn.relu6(norm()(linen.Conv(6, (1, 1))(x)))
        y = jax.nn.relu6(norm()(linen.Conv(6, (3, 3), feature_group_count=6, use_bias=False)(y)))
        x = x + norm()(linen.Conv(4, (1, 1), use_bias=False)(y))
        held = [x]
        for _ in range(2):  # anew each time, as in some programs
            y = linen.relu(norm()(jnp.concatenate(held, -1)))
            held.append(linen.Conv(2, (3, 3), use_bias=False)(y))
        x = linen.relu(norm()(jnp.concatenate(held, -1)))
        return linen.Dense(3)(x.mean((1, 2)))


def test_a_net_of_linen():
    model = Separable()
    params = drawn(model.init(jax.random.key(0), jnp.zeros((1, 9, 8, 2))))
    target = equal(lambda p, x: model.apply(p, x), params, (9, 8, 2))
    kinds_wanted = [
        *("Conv", "Activation", "Residual", "Concat", "Concat", "Conv"),
        *("Activation", "GlobalMean", "Dense"),
    ]
    assert kinds(target) == kinds_wanted
    depthwise = target.network.layers[2].branch[2]
    assert (depthwise.name, depthwise.groups) == ("Conv_2", 6)
    assert nn.parameter_shapes(target.network)["block1/branch/Conv_2/kernel"] == (3, 3, 1, 6)


class Fire(nnx.Module):
    def __init__(self, rngs):
        self.squeeze = nnx.Conv(2, 4, (1, 1), rngs=rngs)
        self.one = nnx.Conv(4, 3, (1, 1), rngs=rngs)
        self.three = nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.squeeze(x))
        return nnx.relu(jnp.concatenate([self.one(x), self.three(x)], axis=-1)).mean((1, 2))


def test_a_net_of_nnx():
    graph, state = nnx.split(Fire(nnx.Rngs(0)))
    target = equal(lambda p, x: nnx.merge(graph, p)(x), drawn(state), (6, 5, 2))
    assert kinds(target) == ["Conv", "Activation", "Concat", "Activation", "GlobalMean"]
    assert target.network.layers[2].parts[1][0].groups == 2


ALONG = ("NWC", "WIO", "NWC")
FIRST = ("NCHW", "OIHW", "NCHW")


def test_a_net_of_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", minversion="3", reason="Keras is not installed")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras was loaded with another backend")
    layers = keras.layers
    start = keras.Input((8, 7, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(start))
    x = layers.ReLU(6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    y = layers.SeparableConv2D(4, 3, padding="same", activation="relu")(y)
    x = layers.PReLU(shared_axes=[1, 2])(layers.Concatenate()([x, y]))
    end = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))
    model = keras.Model(start, end)
    params = drawn({v.path: np.asarray(v.value) for v in model.variables})

    def apply(p, x):
        parts = (
            [p[v.path] for v in some] for some in (model.trainable_variables, model.non_trainable_variables)
        )
        return model.stateless_call(*parts, x, training=False)[0]

    target = equal(apply, params, (8, 7, 3))
    wanted = ["Conv", "Activation", "Concat", "Residual", "Pool", "GlobalMean", "Dense"]
    assert kinds(target) == wanted
    first, block = target.network.layers[0], target.network.layers[2]
    assert first.name == "conv2d"
    assert [layer.groups for layer in block.parts[1] if isinstance(layer, Conv)] == [4, 8, 1]


def test_a_net_of_equinox():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    keys = jax.random.split(jax.random.key(0), 3)
    parts = [
        *(eqx.nn.Conv2d(2, 4, 3, key=keys[0]), eqx.nn.Lambda(jax.nn.relu)),
        *(eqx.nn.Conv2d(4, 8, 3, padding=1, groups=4, key=keys[1]), eqx.nn.Lambda(jax.nn.relu6)),
        *(eqx.nn.Lambda(lambda x: x.mean((1, 2))), eqx.nn.Linear(8, 3, key=keys[2])),
    ]
    model = eqx.nn.Sequential(parts)
    target = equal(lambda p, x: jax.vmap(p)(x), model, (2, 8, 8), "channels_first")
    assert kinds(target) == ["Conv", "Activation", "Conv", "Activation", "GlobalMean", "Dense"]
    assert target.network.layers[2].groups == 4


def test_a_net_of_haiku():
    hk = pytest.importorskip("haiku", reason="haiku is not installed")

    def net(x):
        x = jax.nn.relu(hk.DepthwiseConv2D(2, 3)(hk.Conv2D(3, 3)(x)))
        x = jnp.concatenate([x, jax.nn.relu(hk.SeparableDepthwiseConv2D(1, 3)(x))], -1)
        return hk.Linear(3)(x.mean((1, 2)))

    model = hk.without_apply_rng(hk.transform(net))
    params = drawn(model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 2))))
    target = equal(model.apply, params, (8, 8, 2))
    assert kinds(target) == ["Conv", "Conv", "Activation", "Concat", "GlobalMean", "Dense"]


LAYERS = {
    "depthwise, more outputs": (
        lambda p, x: conv(x, p[0], feature_group_count=3, window_strides=(2, 1), rhs_dilation=(1, 2)),
        [(3, 2, 1, 6)],
        (8, 7, 3),
        ["Conv"],
    ),
    "groups, channels first, OIHW": (
        lambda p, x: conv(x, p[0], feature_group_count=2, numbers=("NCHW", "OIHW", "NCHW")).mean((2, 3)),
        [(6, 2, 3, 3)],
        (4, 6, 5),
        ["Conv", "GlobalMean"],
    ),
    "groups on one axis": (
        lambda p, x: conv(
            x, p[0], feature_group_count=2, numbers=("NWC", "WIO", "NWC"), window_strides=(2,)
        ).mean(1),
        [(3, 2, 6)],
        (9, 4),
        ["Conv", "GlobalMean"],
    ),
    "normalised images, groups": (
        lambda p, x: conv((x - p[1]) / p[2], p[0], feature_group_count=2, padding="VALID"),
        [(3, 3, 2, 6), (4,), (4,)],
        (6, 5, 4),
        ["Conv"],
    ),
    "normalised images, padded groups": (
        lambda p, x: conv(x * p[2] + p[1], p[0], feature_group_count=2),
        [(3, 3, 2, 6), (4,), (4,)],
        (6, 5, 4),
        ["Conv", "Conv"],
    ),
    "concatenation first": (
        lambda p, x: jnp.concatenate([conv(x, p[0]), jnp.tanh(x)], -1).mean((1, 2)) @ p[1],
        [(3, 3, 2, 4), (6, 3)],
        (6, 5, 2),
        ["Concat", "GlobalMean", "Dense"],
    ),
    "concatenation, channels first": (
        lambda p, x: jnp.concatenate([conv(x, w, numbers=FIRST) for w in p[:2]], 1).mean((2, 3)) @ p[2],
        [(3, 2, 3, 3), (4, 2, 1, 1), (7, 3)],
        (2, 6, 5),
        ["Concat", "GlobalMean", "Dense"],
    ),
    "one shot": (
        lambda p, x: (
            lambda a: (lambda b: jnp.concatenate([x, a, b, b @ p[3]], -1) @ p[2])(jnp.tanh(a @ p[1]))
        )(x @ p[0]),
        [(4, 3), (3, 2), (11, 3), (2, 2)],
        (4,),
        ["Concat", "Dense"],
    ),
    "channels in two halves, shuffled": (
        lambda p, x: (
            (
                jnp.concatenate([x[..., :2], jnp.tanh(x[..., 2:] @ p[0])], -1)[..., jnp.array([0, 2, 1, 3])]
            ).mean((1, 2))
            @ p[1]
        ),
        [(2, 2), (4, 3)],
        (6, 5, 4),
        ["Concat", "Conv", "GlobalMean", "Dense"],
    ),
    "every second place": (
        lambda p, x: conv(jnp.tanh(x)[:, ::2, ::2], p[0]),
        [(3, 3, 2, 4)],
        (6, 5, 2),
        ["Activation", "Conv", "Conv"],
    ),
    "every second place of a point": (
        lambda p, x: jnp.tanh(x)[:, ::2, ::2, ::-1] @ p[0],
        [(2, 4)],
        (6, 5, 2),
        ["Activation", "Conv"],
    ),
}


def with_constants(p, x):
    """Zeros, numbers by channel and another value beside an image, then a feature that is always 1."""
    around = x.shape[:3]
    by_channel = jnp.broadcast_to(jnp.array([0.5, -2.0]), (*around, 2))
    x = jnp.concatenate([by_channel, conv(x, p[0]), jnp.zeros((*around, 1)), jnp.tanh(x)], -1)
    x = jax.nn.relu(conv(x, p[1])).mean((1, 2))
    return jnp.concatenate([x, jnp.ones((len(x), 1))], -1) @ p[2]


def test_constants_beside_channels():
    equal(with_constants, weights((3, 3, 2, 3), (3, 3, 8, 4), (5, 3)), (6, 6, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    apply, shapes, shape, wanted = LAYERS[name]
    layout = "channels_first" if "first" in name and name != "concatenation first" else "channels_last"
    assert kinds(equal(apply, weights(*shapes), shape, layout)) == wanted


REFUSED = {
    "groups of the batch": (
        lambda p, x: conv(x, p[0], batch_group_count=2),
        [(3, 3, 2, 4)],
        (8, 8, 2),
        r"conv_general_dilated at .*test_from_jax.py:\d+: deals the batch to groups \(batch_group",
    ),
    "places as channels": (
        lambda p, x: jnp.concatenate([x, jnp.broadcast_to(jnp.arange(4.0)[:, None], (*x.shape[:3], 1))], -1),
        [],
        (4, 4, 2),
        "concatenates a constant that differs from position to position",
    ),
    "places beside each other": (
        lambda p, x: jnp.concatenate([x, jnp.tanh(x)], 1),
        [],
        (4, 4, 2),
        "concatenate.*another axis than that of the channels",
    ),
    "squeeze and excitation": (
        lambda p, x: x * jax.nn.sigmoid(x.mean((1, 2)) @ p[0])[:, None, None],
        [(4, 4)],
        (6, 6, 4),
        "mul at .*combines two values otherwise than by adding them, as gates, squeeze-and-excitation",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_network_says_is_refused(name):
    apply, shapes, shape, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_jax(apply, weights(*shapes), jnp.zeros((2, *shape)))


def test_a_bias_is_of_the_layer_before_however_many_read_it():
    """A batch norm behind it is of one of the readers alone."""

    def apply(p, x):
        x = conv(x, p[0]) + p[1]
        return x + conv(jax.nn.relu(x * p[2] + p[1]), p[3])

    target = equal(apply, weights((3, 3, 2, 4), (4,), (4,), (3, 3, 4, 4)), (6, 5, 2))
    first, block = target.network.layers
    assert first.use_bias
    assert block.skip == ()


@pytest.mark.parametrize("name", ["dense blocks", "fire", "inception", "concatenated in a block", "nested"])
def test_a_network_of_slth_is_read_back(name):
    network = JOINED[name]
    params = random_params(network, np.random.default_rng(0))
    target = equal(lambda p, x: nn.apply(network, p, x), params, network.input_shape)
    folded, _ = nn.fold_batch_norm(network, params)
    steps = [type(step).__name__ for step in nn.graph(folded)]
    found = [type(step).__name__ for step in nn.graph(target.network)]
    assert sorted(found) == sorted(steps)
