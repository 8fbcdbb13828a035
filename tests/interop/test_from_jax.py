"""Functions in JAX, of any library, read into targets with the same outputs."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import slth
from slth import from_jax, nn
from slth.nn.layers import Activation, Conv
from slth.nn.pooling import Flatten, Pool, Subsample
from tests.construction.nets import RESIDUAL, random_params


@pytest.fixture(autouse=True)
def ranks_are_promoted():
    """As in the programs of users; the suite else refuses it."""
    with jax.numpy_rank_promotion("allow"):
        yield


def drawn(tree, seed=0):
    """Numbers of trained sizes in place of a tree's initial ones; variances stay above 0."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        name = jax.tree_util.keystr(path)
        if "var" in name or "scale" in name:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(1.5 / fan), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def equal(apply, params, shape, layout="channels_last", count=5, tolerance=1e-5):
    """The target of a function, whose outputs are compared with the function's own."""
    example = jnp.zeros((3, *shape))
    target = from_jax(apply, params, example, layout=layout)
    x = np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)
    wanted = np.asarray(apply(params, jnp.asarray(x)), np.float64)
    own = np.moveaxis(x, 1, -1) if layout == "channels_first" else x
    found = target(own)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
    return target


def kinds(target):
    return [type(layer).__name__ for layer in target.network.layers]


class Block(linen.Module):
    features: int
    stride: int = 1

    @linen.compact
    def __call__(self, x):
        norm = lambda: linen.BatchNorm(use_running_average=True)  # noqa: E731
        y = linen.Conv(self.features, (3, 3), (self.stride, self.stride), padding=1, use_bias=False)(x)
        y = linen.relu(norm()(y))
        y = norm()(linen.Conv(self.features, (3, 3), padding="SAME", use_bias=False)(y))
        if x.shape != y.shape:
            x = norm()(linen.Conv(self.features, (1, 1), (self.stride, self.stride), use_bias=False)(x))
        return linen.relu(x + y)


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3), use_bias=False)(x)))
        x = Block(4)(x)
        x = Block(6, 2)(x)
        x = linen.Dropout(0.5, deterministic=True)(x)
        x = jnp.mean(x, axis=(1, 2))
        return linen.Dense(5)(x)


def linen_net():
    model = LinenNet()
    return lambda p, x: model.apply(p, x), drawn(model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2))))


def test_a_residual_net_of_linen_with_batch_norm():
    apply, params = linen_net()
    target = equal(apply, params, (8, 8, 2))
    assert kinds(target) == [
        *("Conv", "Activation", "Residual", "Activation", "Residual", "Activation", "GlobalMean", "Dense")
    ]
    assert target.network.layers[0].name == "Conv_0"
    assert target.network.layers[2].skip == ()
    assert [type(layer) for layer in target.network.layers[4].skip] == [Conv]
    assert nn.parameter_shapes(target.network)["block2/branch/Block_1.Conv_0/kernel"] == (3, 3, 4, 6)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.fc = nnx.Linear(4 * 4 * 4, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        x = nnx.leaky_relu(self.bn(self.conv1(x)), 0.2)
        x = x + self.conv2(nnx.silu(x))
        x = nnx.avg_pool(x, (2, 2), (2, 2))
        return self.fc(self.drop(x.reshape(x.shape[0], -1)))


def test_a_net_of_nnx():
    model = NnxNet(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    target = equal(lambda p, x: nnx.merge(graph, p)(x), drawn(state), (8, 8, 2))
    assert kinds(target) == ["Conv", "Activation", "Residual", "Pool", "Flatten", "Dense"]
    assert target.network.layers[0].name == "conv1"
    assert target.network.layers[1] == Activation("leaky_relu", float(np.float32(0.2)))
    assert target.network.layers[2].branch[0] == Activation("silu")
    assert target.network.layers[-1].name == "fc"


def weights(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1])) for shape in shapes]


def conv(x, w, **options):
    numbers = options.pop("numbers", ("NHWC", "HWIO", "NHWC"))
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return jax.lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)


def test_plain_jax_with_a_carried_skip():
    """Option A: every second place, zeros as further channels."""
    params = dict(zip("abcdb", weights((3, 3, 2, 4), (3, 3, 4, 8), (3, 3, 8, 8), (8, 3), (4,)), strict=True))

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["a"]) + p["b"] if p["b"].ndim == 1 else conv(x, p["a"]))
        y = conv(jax.nn.relu(conv(x, jnp.zeros((3, 3, 4, 8)) + 0.1, window_strides=(2, 2))), p["c"])
        x = jax.nn.relu(y + jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 2))))
        return x.sum((1, 2)) / 16 @ p["d"]

    def joined(p, x):
        """The same by another primitive."""
        with pytest.MonkeyPatch.context() as patch:
            zeros = jnp.zeros((*x.shape[:1], 4, 4, 2))
            patch.setattr(jnp, "pad", lambda y, pairs: jnp.concatenate([zeros, y, zeros], -1))
            return apply(p, x)

    assert equal(joined, params, (8, 8, 2)).network == equal(apply, params, (8, 8, 2)).network
    target = equal(apply, params, (8, 8, 2))
    block = target.network.layers[2]
    assert block.skip == (Subsample((2, 2), (-1, -1, 0, 1, 2, 3, -1, -1)),)


LAYERS = {
    "channels first, OIHW": (
        lambda p, x: jax.nn.relu(conv(x, p[0], numbers=("NCHW", "OIHW", "NCHW"))).reshape(len(x), -1) @ p[1],
        [(5, 2, 3, 3), (5 * 8 * 7, 4)],
        (2, 8, 7),
        ["Conv", "Activation", "Flatten", "Dense"],
    ),
    "stride, dilation, uneven padding": (
        lambda p, x: conv(x, p[0], window_strides=(2, 1), padding=((2, 0), (1, 1)), rhs_dilation=(1, 2)),
        [(3, 2, 2, 5)],
        (8, 7, 2),
        ["Conv"],
    ),
    "slopes by channel": (
        lambda p, x: sloped(conv(x, p[0]), p[1]),
        [(3, 3, 2, 5), (5,)],
        (8, 7, 2),
        ["Conv", "Residual"],
    ),
    "slopes by channel, behind an affine map, turned": (
        lambda p, x: jnp.where((y := conv(x, p[0]) * p[1] + p[2]) < 0, y * p[3], y) @ p[4],
        [(3, 3, 2, 5), (5,), (5,), (5,), (5, 3)],
        (8, 7, 2),
        ["Conv", "Residual", "Conv"],
    ),
    "zeros in front of a convolution": (
        lambda p, x: conv(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), p[0], padding="VALID"),
        [(3, 3, 2, 5)],
        (8, 7, 2),
        ["Conv"],
    ),
    "one axis": (
        lambda p, x: jnp.mean(conv(x, p[0], window_strides=(2,), numbers=("NWC", "WIO", "NWC")), 1),
        [(3, 2, 5)],
        (9, 2),
        ["Conv", "GlobalMean"],
    ),
    "normalised images, padded convolution": (
        lambda p, x: conv((x - jnp.array([0.5, 0.1])) / jnp.array([0.2, 0.3]), p[0]),
        [(3, 3, 2, 5)],
        (8, 7, 2),
        ["Conv", "Conv"],
    ),
    "normalised images, whole windows": (
        lambda p, x: conv((x - jnp.array([0.5, 0.1])) / jnp.array([0.2, 0.3]), p[0], padding="VALID"),
        [(3, 3, 2, 5)],
        (8, 7, 2),
        ["Conv"],
    ),
    "normalised images, dense": (
        lambda p, x: ((x - jnp.array([0.5, 0.1])) / 0.3).reshape(len(x), -1) @ p[0] * 2 - 1,
        [(4 * 3 * 2, 5)],
        (4, 3, 2),
        ["Flatten", "Dense"],
    ),
    "mean pooling, then an affine map, then features": (
        lambda p, x: jax.nn.relu((linen.avg_pool(x, (2, 2), (2, 2)) * p[1] + 1).reshape(len(x), -1)) @ p[0],
        [(2 * 2 * 2, 5), (2,)],
        (4, 4, 2),
        ["Pool", "Conv", "Flatten", "Activation", "Dense"],
    ),
    "a convolution's bias before features": (
        lambda p, x: jax.nn.relu((conv(x, p[0]) + p[1]).reshape(len(x), -1)),
        [(3, 3, 2, 4), (4,)],
        (4, 4, 2),
        ["Conv", "Flatten", "Activation"],
    ),
    "parameters named like blocks": (
        lambda p, x: x + jax.nn.relu(x @ p["block1"]) @ p["block1b"],
        {"block1": weights((5, 6))[0], "block1b": weights((6, 5))[0]},
        (5,),
        ["Residual"],
    ),
    "matrix on the left": (
        lambda p, x: (p[0] @ x.T + p[1][:, None]).T,
        [(5, 4), (5,)],
        (4,),
        ["Dense"],
    ),
    "vmap": (
        lambda p, x: jax.vmap(lambda one: p[1] @ jax.nn.tanh(p[0] @ one.ravel()))(x),
        [(6, 12), (5, 6)],
        (3, 2, 2),
        ["Flatten", "Dense", "Activation", "Dense"],
    ),
    "a dense layer of every place": (
        lambda p, x: jax.nn.relu(x @ p[0]).mean((1, 2)) @ p[1],
        [(2, 6), (6, 5)],
        (4, 3, 2),
        ["Conv", "Activation", "GlobalMean", "Dense"],
    ),
    "weights standardised": (
        lambda p, x: conv(x, (p[0] - p[0].mean((0, 1, 2))) / jnp.std(p[0], (0, 1, 2))) * p[1],
        [(3, 3, 2, 5), (5,)],
        (8, 7, 2),
        ["Conv"],
    ),
    "max of all places": (
        lambda p, x: conv(x, p[0]).max((1, 2)) @ p[1],
        [(3, 3, 2, 5), (5, 3)],
        (8, 7, 2),
        ["Conv", "GlobalMax", "Dense"],
    ),
    "a difference of two values": (
        lambda p, x: x - jax.nn.relu(x @ p[0]) @ p[1],
        [(5, 6), (6, 5)],
        (5,),
        ["Residual"],
    ),
    "places repeated": (
        lambda p, x: conv(jnp.repeat(jnp.repeat(jax.nn.relu(x @ p[0]), 3, 1), 2, 2), p[1]),
        [(2, 4), (3, 3, 4, 5)],
        (4, 3, 2),
        ["Conv", "Activation", "Upsample", "Upsample", "Conv"],
    ),
    "places repeated at once, channels first": (
        lambda p, x: conv(
            jnp.broadcast_to(x[:, :, :, None, :, None], (*x.shape[:3], 2, x.shape[3], 3)).reshape(
                len(x), 2, 8, 9
            ),
            p[0],
            numbers=("NCHW", "OIHW", "NCHW"),
        ).mean((2, 3)),
        [(5, 2, 3, 3)],
        (2, 4, 3),
        ["Upsample", "Conv", "GlobalMean"],
    ),
    "resized to the nearest": (
        lambda p, x: conv(jax.image.resize(x @ p[0], (len(x), 8, 9, 4), "nearest"), p[1]),
        [(2, 4), (3, 3, 4, 5)],
        (4, 3, 2),
        ["Conv", "Upsample", "Upsample", "Conv"],
    ),
    "signals repeated": (
        lambda p, x: jnp.repeat(x @ p[0], 4, axis=1),
        [(2, 3)],
        (5, 2),
        ["Conv", "Upsample"],
    ),
    "a block in a block": (
        lambda p, x: x + (lambda y: y + jax.nn.relu(y @ p[1]))(x @ p[0]) @ p[2],
        [(5, 5), (5, 5), (5, 5)],
        (5,),
        ["Residual"],
    ),
    "an affine map in front of an activation": (
        lambda p, x: jax.nn.relu(p[1] * (x @ p[0]) + 0.5) * -2.0,
        [(5, 6), (6,)],
        (5,),
        ["Dense", "Activation", "Dense"],
    ),
    "compiled, differentiable, remembered": (
        lambda p, x: jax.jit(jax.checkpoint(lambda y: jax.lax.stop_gradient(jax.nn.relu(y))))(x @ p[0]),
        [(5, 6)],
        (5,),
        ["Dense", "Activation"],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    apply, shapes, shape, wanted = LAYERS[name]
    layout = "channels_first" if "first" in name else "channels_last"
    params = shapes if isinstance(shapes, dict) else weights(*shapes)
    target = equal(apply, params, shape, layout)
    assert kinds(target) == wanted
    if name == "channels first, OIHW":
        assert target.network.input_shape == (8, 7, 2)
        assert target.network.layers[2] == Flatten("chw")


POOLS = {
    "max": (lambda x: linen.max_pool(x, (2, 2), (2, 2)), Pool("max", (2, 2))),
    "max, same": (
        lambda x: linen.max_pool(x, (3, 3), (2, 2), "SAME"),
        Pool("max", (3, 3), (2, 2), ((0, 1), (1, 1))),
    ),
    "mean": (lambda x: linen.avg_pool(x, (2, 2), (2, 2)), Pool("mean", (2, 2), count_padding=True)),
    "mean, same": (
        lambda x: linen.avg_pool(x, (3, 3), (2, 2), "SAME"),
        Pool("mean", (3, 3), (2, 2), ((0, 1), (1, 1)), count_padding=True),
    ),
    "mean of true entries": (
        lambda x: linen.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
        Pool("mean", (3, 3), (2, 2), ((0, 1), (1, 1))),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name):
    pool, wanted = POOLS[name]
    target = equal(lambda p, x: pool(x), {}, (8, 7, 2))
    assert target.network.layers == (wanted,)


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu, maximum": lambda x: jnp.maximum(0.0, x),
    "relu, where": lambda x: jnp.where(x > 0, x, 0.0),
    "relu, product": lambda x: x * (x > 0),
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "leaky_relu, maximum": lambda x: jnp.maximum(x, 0.1 * x),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "sigmoid, spelled out": lambda x: 1 / (1 + jnp.exp(-x)),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu, spelled out": lambda x: 0.5 * x * (1 + jax.lax.erf(x / np.sqrt(2))),
    "silu": jax.nn.swish,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_tanh, clip": lambda x: jnp.clip(x, -1, 1),
    "mish": jax.nn.mish,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_told_by_their_values(name):
    function = ACTIVATIONS[name]
    target = equal(lambda p, x: function(4 * (x @ p[0])) @ p[1], weights((6, 7), (7, 3)), (6,), count=50)
    kind = name.partition(",")[0]
    assert kinds(target) == ["Dense", "Activation", "Dense"]
    assert target.network.layers[1].kind == kind


def test_an_activation_of_one_s_own_is_read_once_it_is_known():
    def own(x):
        return jnp.where(x > 0, x, 0.5 * jnp.tanh(x))

    def apply(p, x):
        return own(x @ p[0])

    params = weights((6, 7))
    with pytest.raises(ValueError, match=r"nearest: .*register_activation"):
        from_jax(apply, params, jnp.zeros((2, 6)))
    nn.register_activation("bent", own)
    assert equal(apply, params, (6,)).network.layers[1] == Activation("bent")


def sloped(x, slopes):
    """PReLU as libraries write it."""
    return jnp.where(x >= 0, x, slopes * x)


REFUSED = {  # behaviour: (function, shapes of weights, shape, message)
    "transposed": (
        lambda p, x: conv(x, p[0], padding=((1, 1), (1, 1)), lhs_dilation=(2, 2)),
        [(3, 3, 2, 4)],
        (8, 8, 2),
        r"transposed convolution \(lhs_dilation\)",
    ),
    "a gate": (
        lambda p, x: jax.nn.sigmoid(x @ p[0]) * x,
        [(4, 4)],
        (4,),
        "mul at .*combines two values otherwise",
    ),
    "slopes that turn at 1": (
        lambda p, x: jnp.where((y := x @ p[0]) >= 1, y, p[1] * y),
        [(4, 4), (4,)],
        (4,),
        "select_n at .*combines two values otherwise",
    ),
    "a choice between two values": (
        lambda p, x: jnp.where((y := x @ p[0]) >= 0, y, x @ p[1]),
        [(4, 4), (4, 4)],
        (4,),
        "select_n at .*combines two values otherwise",
    ),
    "attention": (lambda p, x: x @ (x @ p[0]).T, [(4, 4)], (4,), "dot_general.*product of two values"),
    "softmax": (lambda p, x: jax.nn.softmax(x @ p[0]), [(4, 4)], (4,), "reduce_max.*reduces other axes"),
    "a position's own bias": (
        lambda p, x: conv(x, p[0]) + p[1],
        [(3, 3, 2, 4), (8, 8, 4)],
        (8, 8, 2),
        "add.*differs from place to place",
    ),
    "a loop": (
        lambda p, x: jax.lax.scan(lambda y, w: (jax.nn.relu(y @ w), None), x, p[0])[0],
        [(3, 4, 4)],
        (4,),
        "scan.*is no step of a network",
    ),
    "a sort": (lambda p, x: jnp.sort(x @ p[0]), [(4, 4)], (4,), "sort.*is no step of a network"),
    "an unknown activation": (
        lambda p, x: (lambda y: y * jnp.tanh(y))(x @ p[0]),
        [(4, 4)],
        (4,),
        "the outputs.*no known act",
    ),
    "the wrong layout": (
        lambda p, x: conv(x, p[0], numbers=("NCHW", "OIHW", "NCHW")),
        [(4, 8, 3, 3)],
        (8, 8, 2),
        'layout="channels_first"',
    ),
    "several outputs": (lambda p, x: (x, x), [], (4,), "returns 2 arrays"),
    "no image read": (lambda p, x: p[0], [(4,)], (4,), "do not depend on its images"),
    "a crossing": (
        lambda p, x: (lambda a: (lambda b: b @ p[2] + a)(jax.nn.relu(a @ p[1]) + x))(jax.nn.relu(x @ p[0])),
        [(4, 4), (4, 4), (4, 4)],
        (4,),
        "branches cross",
    ),
    "zeros for pooling": (
        lambda p, x: linen.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (2, 2)),
        [],
        (8, 8, 2),
        "pads an image with zeros for what is no convolution",
    ),
    "tiles": (lambda p, x: conv(jnp.tile(x, (1, 2, 1, 1)), p[0]), [(3, 3, 2, 4)], (8, 8, 2), "tile at"),
    "channels repeated": (
        lambda p, x: conv(jnp.repeat(x, 2, -1), p[0]),
        [(3, 3, 4, 4)],
        (8, 8, 2),
        "repeats other axes than places",
    ),
    "a batch repeated": (lambda p, x: jnp.repeat(x, 2, 0) @ p[0], [(4, 4)], (4,), "repeats other axes"),
    "a mean over places, as an image": (
        lambda p, x: conv(jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape), p[0]),
        [(3, 3, 2, 4)],
        (8, 8, 2),
        "repeats a value along an axis",
    ),
    "repeated, and returned so": (
        lambda p, x: jnp.broadcast_to((x @ p[0])[:, None], (len(x), 3, 4)),
        [(4, 4)],
        (4,),
        "outputs are not",
    ),
    "resized by a fraction": (
        lambda p, x: conv(jax.image.resize(x, (len(x), 6, 6, 2), "nearest"), p[0]),
        [(3, 3, 2, 4)],
        (4, 4, 2),
        "cuts an image",
    ),
    "a cut": (lambda p, x: conv(x[:, 1:], p[0]), [(3, 3, 2, 4)], (8, 8, 2), "slice.*cuts an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_network_says_is_refused(name):
    apply, shapes, shape, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_jax(apply, weights(*shapes), jnp.zeros((2, *shape)))


def test_examples_that_say_too_little_are_refused():
    for example in (jnp.zeros((1, 4)), jnp.zeros(4), jnp.zeros((3, 4), int)):
        with pytest.raises(ValueError, match="example: expected a batch of at least 2 images"):
            from_jax(lambda p, x: x @ p[0], weights((4, 3)), example)
    with pytest.raises(ValueError, match="layout: expected one of channels_last"):
        from_jax(lambda p, x: x, [], jnp.zeros((2, 4)), layout="NHWC")


def test_a_network_read_wrongly_is_not_returned(monkeypatch):
    """The last comparison sees a reader that takes every activation for a ReLU."""
    from slth.interop.jaxpr import elementwise, steps

    wrong = elementwise.Read(elementwise.Line(1.0, 0.0), Activation("relu"), elementwise.Line(1.0, 0.0))
    monkeypatch.setattr(steps, "recognised", lambda expression: wrong)
    with pytest.raises(ValueError, match="differs from the function by"):
        from_jax(lambda p, x: jnp.tanh(x @ p[0]) @ p[1], weights((4, 5), (5, 3)), jnp.zeros((2, 4)))


def test_half_precision_is_nothing():
    apply = lambda p, x: jax.nn.relu(x.astype(jnp.bfloat16) @ p[0]).astype(jnp.float32)  # noqa: E731
    params = [jnp.asarray(weights((6, 7))[0], jnp.bfloat16)]
    assert kinds(equal(apply, params, (6,), tolerance=0.05)) == ["Dense", "Activation"]


def test_a_net_of_equinox():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    keys = jax.random.split(jax.random.key(0), 3)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(2, 4, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(4, 5, 3, stride=2, key=keys[1]),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(5 * 1 * 1, 3, key=keys[2]),
        ]
    )
    target = equal(lambda p, x: jax.vmap(p)(x), model, (2, 8, 8), "channels_first")
    assert kinds(target) == ["Conv", "Activation", "Pool", "Conv", "Flatten", "Dense"]


def test_a_net_of_haiku():
    hk = pytest.importorskip("haiku", reason="haiku is not installed")

    def net(x, training):
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3, stride=2)(x), training))
        return hk.Linear(3)(hk.Flatten()(hk.MaxPool(2, 2, "VALID")(x)))

    model = hk.without_apply_rng(hk.transform_with_state(net))
    params = drawn(model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 2)), True))
    target = equal(lambda p, x: model.apply(*p, x, False)[0], params, (8, 8, 2))
    assert kinds(target) == ["Conv", "Activation", "Pool", "Flatten", "Dense"]


@pytest.mark.parametrize("name", ["option A", "pre-activation", "weights on the skip", "dense block"])
def test_a_network_of_slth_is_read_back(name):
    network, _ = RESIDUAL[name]
    params = random_params(network, np.random.default_rng(0))
    target = equal(lambda p, x: nn.apply(network, p, x), params, network.input_shape)
    folded, _ = nn.fold_batch_norm(network, params)
    assert [type(step) for step in nn.graph(target.network)] == [type(step) for step in nn.graph(folded)]


def test_a_ticket_of_a_function():
    apply, params = linen_net()
    target = from_jax(apply, params, jnp.zeros((2, 8, 8, 2)))
    images = np.random.default_rng(0).normal(size=(300, 8, 8, 2)).astype(np.float32)
    made = slth.construct(target, slth.Source.of(target, copies=15), slth.Robust(), images[:64])
    wanted = np.asarray(apply(params, images[64:]))
    found = made.ticket(images[64:])
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98
