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
from jax import lax
from jaxtyping import Array, Float, Key

from slth.nn.activations import activation_info
from slth.nn.convolution import correlate_channels
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.nn.spec import SameShape, Stateless, check_positive, positions
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
    Raises: ValueError where a number is not positive, or a setting does not fit the kernel's axes.

    Example:
      >>> from slth import nn
      >>> layer = nn.Conv("conv1", 16, (3, 3), stride=(2, 2), padding=nn.same_padding((3, 3)))
      >>> layer.output_shape((32, 32, 3))
      (16, 16, 16)
    """

    name: str
    features: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pairs = ()
    dilation: tuple[int, ...] = ()
    use_bias: bool = True

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
        check_positive(self.name, self, "features", "kernel", "stride", "dilation")

    def output_shape(self, shape: Shape) -> Shape:
        """(*spatial, cout), each spatial length ``(I + padding - dilation (R - 1) - 1) // stride + 1``."""
        rank = len(self.kernel)
        if len(shape) != rank + 1:
            raise ValueError(f"{self.name}: a {rank}-D convolution cannot read an input of shape {shape}")
        out = positions(shape[:-1], self.kernel, self.stride, self.padding, self.dilation)
        if min(out) < 1:
            raise ValueError(f"{self.name}: kernel {self.kernel} is larger than its padded input {shape}")
        return (*out, self.features)

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """He-normal kernel, zero bias."""
        return _he_normal(key, (*self.kernel, shape[-1], self.features), self.use_bias)

    def apply(self, params: Params, x: Batch) -> Values:
        """The layer's output, computed with precision "highest"."""
        y = correlate_channels(x, params["kernel"], self.stride, self.padding, self.dilation)
        return y + _along_channels(params["bias"], y) if self.use_bias else y


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

    def output_shape(self, shape: Shape) -> Shape:
        """The common shape of branch and skip."""
        branch, skip = shape_after(self.branch, shape), shape_after(self.skip, shape)
        if branch != skip:
            sides = f"branch gives {branch}, skip gives {skip}"
            raise ValueError(f"{self.name}: {sides}; a sum needs equal shapes")
        return branch

    def init(self, key: Key[Array, ""], shape: Shape) -> Params:
        """The parameters of branch and skip; a side without any has no entry."""
        keys = jax.random.split(key)
        branch, skip = init_layers(keys[0], self.branch, shape), init_layers(keys[1], self.skip, shape)
        return {side: values for side, values in (("branch", branch), ("skip", skip)) if values}


Linear: TypeAlias = Conv | Dense
"""A layer whose weights become subset-sum problems."""
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
        if isinstance(layer, Residual):
            for part in ("branch", "skip"):
                check_names(getattr(layer, part), f"{path}{name}/{part}/")


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
