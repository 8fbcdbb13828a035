r"""The source: a random network, a function of (spec, seed, initialisation), never trained, never stored.

The weight at flat index n (row-major) of the kernel of layer ``path`` is
:math:`\sigma_{path}\, g(\mathrm{seed}, path, \text{"kernel"}, n)` snapped to the grid :math:`2^{-24}`, with g
the counter-based generator of `slth.random`: any layer or slice can be drawn again, anywhere, bit by bit.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float32

from slth import random
from slth.nn.layers import Layer, Residual
from slth.nn.network import Network, init
from slth.types import Params, Shape

Init = Literal["uniform", "normal", "he_uniform", "he_normal"]


@dataclass(frozen=True)
class Source:
    r"""A source network: everything its parameters depend on.

    Weights of a layer with fan-in n are U[-s, s] or N(0, s^2) with s = ``scale`` (uniform, normal), or with
    He's factor for the fan-in of one copy, n / m: :math:`s = scale \sqrt{6 m / n}` (he_uniform) and
    :math:`scale \sqrt{2 m / n}` (he_normal). The first layer reads the input itself, so there m counts as 1.
    The biases of the first layer are U[-``bias_scale``, ``bias_scale``]; no other layer has any.

    Args:
      network: spec of the source; no batch norm.
      seed: an integer in [0, 2^64).
      multiplicity: m, the number of copies of each target channel; only He's factor depends on it.
      init, scale, bias_scale: as above; scales are positive.
    Raises: ValueError for an unknown init or a scale that is not positive.
    Source: He et al. 2015 for the factor; Burkholz, ICML 2022 for the widths (see `slth.construct.layout`).
    """

    network: Network
    seed: int
    multiplicity: int
    init: Init = "uniform"
    scale: float = 1.0
    bias_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.init not in get_args(Init):
            raise ValueError(
                f"source.init {self.init!r} is unknown: choose one of {', '.join(get_args(Init))}"
            )
        for field in ("scale", "bias_scale"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"source.{field} must be positive and finite, got {value}")


@cache
def parameter_shapes(network: Network) -> dict[str, Shape]:
    """Shape of every parameter by its path, ``"layer1.0/branch/conv1/kernel"``: by layer, then name."""
    tree = jax.eval_shape(lambda: init(network, jax.random.key(0)))
    shapes = {"/".join(path): leaf.shape for path, leaf in sorted(flatten_dict(tree).items())}
    order = {path: place for place, path in enumerate(_named(network.layers, ""))}
    return dict(sorted(shapes.items(), key=lambda item: order[item[0].rpartition("/")[0]]))


def _named(layers: tuple[Layer, ...], path: str) -> Iterator[str]:
    """Paths of the named layers, first to last; a block's branch stands before its skip."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from _named(layer.branch, f"{path}{layer.name}/branch/")
            yield from _named(layer.skip, f"{path}{layer.name}/skip/")
        elif (name := getattr(layer, "name", None)) is not None:
            yield f"{path}{name}"


def layer_scale(source: Source, path: str) -> float:
    """The scale s of the weights of the layer at ``path`` (see `Source`)."""
    shapes = parameter_shapes(source.network)
    kernel = shapes[f"{path}/kernel"]
    first = next(iter(shapes)).rpartition("/")[0]
    copies = 1 if path == first else source.multiplicity
    he = {"he_uniform": 6.0, "he_normal": 2.0}.get(source.init)
    return source.scale * (1.0 if he is None else math.sqrt(he * copies / math.prod(kernel[:-1])))


def parameter(source: Source, path: str) -> Float32[Array, "..."]:
    """One parameter of the source, such as ``"conv1/kernel"``, on the grid 2^-24."""
    layer, _, leaf = path.rpartition("/")
    shape = parameter_shapes(source.network)[path]
    draw = random.normal if source.init.endswith("normal") and leaf == "kernel" else random.uniform
    scale = source.bias_scale if leaf == "bias" else layer_scale(source, layer)
    return random.snap(np.float32(scale) * draw(random.key(source.seed, layer, leaf), shape))


def parameters(source: Source) -> Params:
    """All parameters as the nested dict that `slth.nn.apply` reads."""
    return unflatten_dict(
        {tuple(p.split("/")): parameter(source, p) for p in parameter_shapes(source.network)}
    )


def layers(source: Source) -> Iterator[tuple[str, Float32[np.ndarray, "..."]]]:
    """(path, parameter) one at a time, in the order of `parameter_shapes`: never two layers in memory."""
    for path in parameter_shapes(source.network):
        yield path, np.asarray(parameter(source, path))


def sha256(source: Source) -> str:
    """Hash of all parameters: little-endian float32, row-major, in the order of `parameter_shapes`."""
    digest = hashlib.sha256()
    for _, values in layers(source):
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
