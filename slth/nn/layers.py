"""Layers: frozen specs, each with its output shape, its initial parameters and its function.

Arrays are channels-last: a batch is ``(n, h, w, c)`` (2-D), ``(n, length, c)`` (1-D) or ``(n, features)``.
Kernels are ``(*taps, cin, cout)``. What a layer computes is cross-correlation, as everywhere in the field:
``y[p, j] = b[j] + sum_{tau, i} w[tau, i, j] x[stride p + dilation tau - left padding, i]``.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from slth.nn.activations import activation_info
from slth.nn.convolution import correlate_channels, correlate_groups
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.nn.spec import SameShape, Stateless, check_positive, later, positions
from slth.types import AnyArray, Batch, Pairs, Params, Shape, Values


@dataclass(frozen=True)
class Conv:
    r"""Multi-channel convolution layer, :math:`y_j = b_j + \sum_i w_{ij} \star x_i`, 1-D or 2-D.

    Args:
      name: key of the layer's parameters, ``kernel`` (*taps, cin, cout) and ``bias`` (cout,).
      features: number of output channels cout.
      kernel: taps on each spatial axis; its length says whether the layer is 1-D or 2-D.
      stride, dilation: one number for each spatial axis (default 1).
      padding: zeros before and after each spatial axis; `same_padding` gives the odd-kernel "same".
      groups: G: channels are dealt to G groups in their order, as many to each, and an output reads the
        inputs of its group alone. The kernel is then (*taps, cin / G, cout). With cin groups the layer is a
        *depthwise* convolution.
      beside: numbers of channels that stand behind those of the groups. Of the input: every output reads
        them. Of the output: they are more outputs of the last group. The kernel has a row and a column more
        for each. (Sources keep their constants there.)
    Raises: ValueError where a number is not positive, or a setting does not fit the kernel's axes.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> layer = nn.Conv("conv1", 16, (3, 3), stride=(2, 2), padding=nn.same_padding((3, 3)))
      >>> layer.output_shape((32, 32, 3))
      (16, 16, 16)
      >>> depthwise = nn.Conv("conv2", 16, (3, 3), groups=16)
      >>> depthwise.init(jax.random.key(0), (16, 16, 16))["kernel"].shape
      (3, 3, 1, 16)
    """

    name: str
    features: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pairs = ()
    dilation: tuple[int, ...] = ()
    use_bias: bool = True
    groups: int = later(1)
    beside: tuple[int, int] = later((0, 0))

    def __post_init__(self) -> None:
        rank = len(self.kernel)
        if rank not in (1, 2):
            raise ValueError(f"{self.name}: kernel must have 1 or 2 axes, got {self.kernel}")
        defaults = {"stride": (1,) * rank, "dilation": (1,) * rank, "padding": ((0, 0),) * rank}
        for field, default in defaults.items():
            value = getattr(self, field) or default
            if len(value) != rank:
                raise ValueError(f"{self.name}: {field} {value} does not fit a {rank}-D kernel {self.kernel}")
            object.__setattr__(self, field, value)
        check_positive(self.name, self, "features", "kernel", "stride", "dilation", "groups")
        behind = self.features - self.beside[1]
        if min(self.beside) < 0 or (self.groups == 1 and any(self.beside)) or behind < 1:
            raise ValueError(f"{self.name}: beside {self.beside} does not fit {self.groups} groups")
        if behind % self.groups:
            raise ValueError(
                f"{self.name}: {behind} outputs cannot be dealt to {self.groups} groups, as many to each"
            )

    def rows(self, cin: int) -> int:
        """Rows of the kernel, inputs of one output, for an input of this many channels.

        Raises: ValueError where the channels cannot be dealt to the groups.
        """
        inputs = cin - self.beside[0]
        if inputs < 1 or inputs % self.groups:
            raise ValueError(
                f"{self.name}: {inputs} inputs cannot be dealt to {self.groups} groups, as many to each"
            )
        return inputs // self.groups + self.beside[0]

    def inputs(self, cin: int) -> Int[np.ndarray, "rows _"]:
        """Which channel each output (a column) reads by each row of the kernel; one column where all read
        the same."""
        rows, before = self.rows(cin), cin - self.beside[0]
        number = np.arange(rows)[:, None]
        if self.groups == 1:
            return number
        each = rows - self.beside[0]
        return np.where(number < each, self.group * each + number, before + number - each)

    @property
    def group(self) -> Int[np.ndarray, " cout"]:
        """The group of each output."""
        each = (self.features - self.beside[1]) // self.groups
        return np.minimum(np.arange(self.features) // each, self.groups - 1)

    def whole(self, kernel: AnyArray, cin: int) -> Float[np.ndarray, "*taps cin cout"]:
        """The kernel of the same convolution in one group: 0 between groups."""
        kernel, each = np.asarray(kernel), np.arange(self.features)
        full = np.zeros((*kernel.shape[:-2], cin, self.features), kernel.dtype)
        full[..., self.inputs(cin), each] = kernel
        return full

    def output_shape(self, shape: Shape) -> Shape:
        """(*spatial, cout), each spatial length ``(I + padding - dilation (R - 1) - 1) // stride + 1``."""
        rank = len(self.kernel)
        if len(shape) != rank + 1:
            raise ValueError(f"{self.name}: a {rank}-D convolution cannot read an input of shape {shape}")
        self.rows(shape[-1])
        out = positions(shape[:-1], self.kernel, self.stride, self.padding, self.dilation)
        if min(out) < 1:
            raise ValueError(f"{self.name}: kernel {self.kernel} is larger than its padded input {shape}")
        return (*out, self.features)

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """He-normal kernel, zero bias."""
        return _he_normal(key, (*self.kernel, self.rows(shape[-1]), self.features), self.use_bias)

    def apply(self, params: Params, x: Batch) -> Values:
        """The layer's output, computed with precision "highest"."""
        y = self._slid(jnp.asarray(x), jnp.asarray(params["kernel"]))
        return y + _along_channels(params["bias"], y) if self.use_bias else y

    def _slid(self, x: Array, kernel: Array) -> Array:
        windows = self.stride, self.padding, self.dilation
        if self.groups == 1:
            return correlate_channels(x, kernel, *windows)
        (inputs, outputs), groups = self.beside, self.groups
        each, features = kernel.shape[-2] - inputs, kernel.shape[-1] - outputs
        own, shared = x[..., : each * groups], x[..., each * groups :]
        y = correlate_groups(own, kernel[..., :each, :features], groups, *windows)
        if outputs:
            more = correlate_channels(own[..., -each:], kernel[..., :each, features:], *windows)
            y = jnp.concatenate([y, more], -1)
        return y + correlate_channels(shared, kernel[..., each:, :], *windows) if inputs else y


@dataclass(frozen=True)
class Dense:
    r"""Dense layer, :math:`y_j = b_j + \sum_i w_{ij} x_i`.

    Args:
      name: key of the layer's parameters, ``kernel`` (cin, cout) and ``bias`` (cout,).
      features: number of outputs cout.
      use_bias: whether there is a bias b.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> nn.Dense("fc", 2).init(jax.random.key(0), (5,))["kernel"].shape
      (5, 2)
    """

    name: str
    features: int
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self.name, self, "features")

    def output_shape(self, shape: Shape) -> Shape:
        """(cout,); the input must be flat."""
        if len(shape) != 1:
            raise ValueError(
                f"{self.name}: a dense layer reads flat features, got {shape}: put Flatten before it"
            )
        return (self.features,)

    def inputs(self, cin: int) -> Int[np.ndarray, "rows 1"]:
        """Which channel each row of the kernel reads, as `Conv.inputs`."""
        return np.arange(cin)[:, None]

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """He-normal kernel, zero bias."""
        return _he_normal(key, (shape[0], self.features), self.use_bias)

    def apply(self, params: Params, x: Batch) -> Values:
        """The layer's output, computed with precision "highest"."""
        y = jnp.dot(x, params["kernel"], precision=lax.Precision.HIGHEST)
        return y + _along_channels(params["bias"], y) if self.use_bias else y


def _along_channels(values: Float[AnyArray, " c"], x: Batch) -> Float[Array, "... c"]:
    """The values of each channel with as many axes as the batch, so that no broadcast is by accident."""
    return jnp.asarray(values).reshape((1,) * (x.ndim - 1) + (-1,))


def _he_normal(key: Key[Array, ""], shape: Shape, use_bias: bool) -> Params:
    scale, count = math.sqrt(2 / math.prod(shape[:-1])), math.prod(shape)
    # A draw is slow to compile and quick to run: a few round sizes serve the kernels of all shapes.
    size = next((size for size in (2**12, 2**16, 2**20) if count <= size), count)
    params = {"kernel": scale * jax.random.normal(key, (size,))[:count].reshape(shape)}
    return params | {"bias": jnp.zeros(shape[-1])} if use_bias else params


@dataclass(frozen=True)
class BatchNorm(SameShape):
    r"""Batch normalisation, :math:`y = \gamma (x - \mu) / \sqrt{v + \epsilon} + \beta`, per channel.

    Inference takes the running ``mean`` and ``var``; training takes those of the batch (biased variance) and
    moves the running ones by ``1 - momentum`` (the unbiased variance, as PyTorch does).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> learned = {"scale": jnp.ones(1), "bias": jnp.zeros(1), "mean": jnp.ones(1), "var": 4 * jnp.ones(1)}
      >>> nn.BatchNorm("bn1").apply(learned, jnp.array([[5.0]])).tolist()    # (5 - 1) / 2
      [[2.0]]
    """

    name: str
    epsilon: float = 1e-5
    momentum: float = 0.9

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """gamma = var = 1, beta = mean = 0."""
        ones, zeros = jnp.ones(shape[-1]), jnp.zeros(shape[-1])
        return {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}

    def apply(self, params: Params, x: Batch) -> Values:
        """Inference: the affine map with the running statistics."""
        factor = params["scale"] / jnp.sqrt(params["var"] + self.epsilon)
        mean, factor, bias = (_along_channels(v, x) for v in (params["mean"], factor, params["bias"]))
        return (jnp.asarray(x) - mean) * factor + bias

    def apply_train(self, params: Params, x: Batch) -> tuple[Values, Params]:
        """Training: normalised by the batch's statistics; also the parameters with the running ones moved."""
        axes = tuple(range(x.ndim - 1))
        count = math.prod(x.shape[:-1])
        mean, var = x.mean(axes), x.var(axes)
        y = self.apply(params | {"mean": mean, "var": var}, x)
        unbiased = var * count / max(count - 1, 1)
        keep, seen = self.momentum, {"mean": mean, "var": unbiased}
        moved = {name: keep * params[name] + (1 - keep) * value for name, value in seen.items()}
        return y, params | jax.lax.stop_gradient(moved)


@dataclass(frozen=True)
class ChannelScale(SameShape):
    r"""Per-channel weights, :math:`y_j = s_j x_j`; parameter ``scale`` (c,).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> nn.ChannelScale("s").apply({"scale": jnp.array([2.0, -1.0])}, jnp.array([[3.0, 3.0]])).tolist()
      [[6.0, -3.0]]
    """

    name: str

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """All ones."""
        return {"scale": jnp.ones(shape[-1])}

    def apply(self, params: Params, x: Batch) -> Values:
        """The scaled channels."""
        return jnp.asarray(x) * _along_channels(params["scale"], x)


@dataclass(frozen=True)
class Activation(SameShape, Stateless):
    """An elementwise activation of the table `slth.nn.ACTIVATIONS`, by name; ``slope`` is leaky ReLU's.

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> nn.Activation("leaky_relu", slope=0.5).apply({}, jnp.array([-2.0, 2.0])).tolist()
      [-1.0, 2.0]
    """

    kind: str
    slope: float = 0.01

    def __post_init__(self) -> None:
        activation_info(self.kind, self.slope)
        object.__setattr__(self, "slope", float(self.slope))

    def apply(self, params: Params, x: Batch) -> Values:
        """phi(x), entry by entry."""
        return activation_info(self.kind, self.slope).phi(jnp.asarray(x))


@dataclass(frozen=True)
class Residual:
    r"""Residual block, :math:`y = \mathrm{branch}(x) + \mathrm{skip}(x)`; an activation may follow it.

    Args:
      name: key of the block's parameters, ``{"branch": {...}, "skip": {...}}``; a side without any
        has no entry.
      branch: layers of the branch.
      skip: layers of the skip; empty for the identity.

    Example:
      >>> from slth import nn
      >>> conv = nn.Conv("conv1", 8, (3, 3), padding=nn.same_padding((3, 3)))
      >>> nn.Residual("block", (conv, nn.Activation("relu"))).output_shape((16, 16, 8))
      (16, 16, 8)
      >>> nn.Residual("block", (conv,)).output_shape((16, 16, 4))
      Traceback (most recent call last):
      ValueError: block: branch gives (16, 16, 8), skip gives (16, 16, 4); a sum needs equal shapes
    """

    name: str
    branch: "tuple[Layer, ...]"
    skip: "tuple[Layer, ...]" = ()

    @property
    def sides(self) -> "dict[str, tuple[Layer, ...]]":
        """Its sequences of layers by the key of their parameters, in the order of files."""
        return {"branch": self.branch, "skip": self.skip}

    def output_shape(self, shape: Shape) -> Shape:
        """The common shape of branch and skip."""
        branch, skip = shape_after(self.branch, shape), shape_after(self.skip, shape)
        if branch != skip:
            sides = f"branch gives {branch}, skip gives {skip}"
            raise ValueError(f"{self.name}: {sides}; a sum needs equal shapes")
        return branch

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """The parameters of branch and skip; a side without any has no entry."""
        return _init_sides(key, self.sides, shape)


@dataclass(frozen=True)
class Concat:
    r"""Concatenation of channels, :math:`y = (s_0(x), s_1(x), \ldots)`: dense blocks, inception modules.

    Args:
      name: key of the block's parameters, ``{"0": {...}, "1": {...}}``; a side without any has no entry.
      parts: two sequences of layers or more; an empty one is x itself.
    Raises: ValueError where there are less than two sides.

    Example:
      >>> from slth import nn
      >>> conv = nn.Conv("conv1", 8, (3, 3), padding=nn.same_padding((3, 3)))
      >>> nn.Concat("dense1", ((), (conv,))).output_shape((16, 16, 4))
      (16, 16, 12)

    Source: Huang et al., CVPR 2017, for dense blocks; Szegedy et al., CVPR 2015, for inception modules.
    """

    name: str
    parts: "tuple[tuple[Layer, ...], ...]"

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError(f"{self.name}: a concatenation has two sides or more, got {len(self.parts)}")

    @property
    def sides(self) -> "dict[str, tuple[Layer, ...]]":
        """Its sequences of layers by the key of their parameters, in the order of the channels."""
        return {str(number): layers for number, layers in enumerate(self.parts)}

    def output_shape(self, shape: Shape) -> Shape:
        """The channels of all sides, one after the other."""
        shapes = [shape_after(layers, shape) for layers in self.parts]
        if len({own[:-1] for own in shapes}) > 1:
            sides = ", ".join(map(str, shapes))
            raise ValueError(f"{self.name}: its sides give {sides}; all but their channels must be equal")
        return (*shapes[0][:-1], sum(own[-1] for own in shapes))

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """The parameters of the sides; a side without any has no entry."""
        return _init_sides(key, self.sides, shape)


def _init_sides(key: Key[Array, ""], sides: "dict[str, tuple[Layer, ...]]", shape: Shape) -> Params:
    keys = jax.random.split(key, len(sides))
    found = {name: init_layers(keys[k], layers, shape) for k, (name, layers) in enumerate(sides.items())}
    return {name: values for name, values in found.items() if values}


Linear: TypeAlias = Conv | Dense
"""A layer whose weights become subset-sum problems."""
Block: TypeAlias = Residual | Concat
"""A layer that holds sequences of layers, its ``sides``."""
Layer: TypeAlias = (
    Conv
    | Dense
    | BatchNorm
    | ChannelScale
    | Activation
    | Pool
    | GlobalMean
    | GlobalMax
    | Flatten
    | Subsample
    | Upsample
    | Residual
    | Concat
)
"""Every kind of layer that a `Network` is made of."""


def shape_after(layers: tuple[Layer, ...], shape: Shape) -> Shape:
    """Shape of one output of a sequence of layers."""
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape


def check_names(layers: tuple[Layer, ...], path: str = "") -> None:
    """Refuse names by which parameters could not be told apart.

    Raises: ValueError, naming the layer, for a name that is empty, holds a "/" (which joins the names of
      nested layers) or is taken by another layer of the same sequence.
    """
    seen = set()
    for index, layer in enumerate(layers):
        name = getattr(layer, "name", None)
        if name is None:
            continue
        if not name or "/" in name:
            raise ValueError(
                f"layer {index} of {path or 'the network'}: its name {name!r} is empty or holds a '/'"
            )
        if name.encode("utf-8", "ignore").decode() != name:
            raise ValueError(f"layer {index} of {path or 'the network'}: its name {name!r} is no text")
        if name in seen:
            raise ValueError(f"two layers are named {path + name!r}: names of one sequence must differ")
        seen.add(name)
        if isinstance(layer, Block):
            for side, inner in layer.sides.items():
                check_names(inner, f"{path}{name}/{side}/")


def init_layers(key: Key[Array, ""], layers: tuple[Layer, ...], shape: Shape) -> Params:
    """Initial parameters of a sequence of layers, ``{name: parameters}``; each layer has a key of its own."""
    params: Params = {}
    for index, layer in enumerate(layers):
        values = layer.init(jax.random.fold_in(key, index), shape)
        name = getattr(layer, "name", None)
        if name is not None and values:
            params[name] = values
        shape = layer.output_shape(shape)
    return params
