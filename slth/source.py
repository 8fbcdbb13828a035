r"""The source: a random network, a function of (spec, seed, initialisation), never trained, never stored.

The weight at flat index n (row-major) of the kernel of layer ``path`` is
:math:`\sigma_{path}\, g(\mathrm{seed}, path, \text{"kernel"}, n)` snapped to the grid :math:`2^{-24}`, with g
the counter-based generator of `slth.random`: any layer or slice can be drawn again, anywhere, bit by bit.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float32

from slth import random
from slth.nn.layers import Layer, Residual
from slth.nn.network import Network, init
from slth.types import Params, Shape

Init = Literal["uniform", "normal", "he_uniform", "he_normal", "glorot_uniform", "glorot_normal"]
Biases = Literal["random", "zero"]
Scales = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Source:
    r"""A source network: everything its parameters depend on.

    Weights of a layer with fan-in n and fan-out o are U[-s, s] or N(0, s^2) with s = ``scale`` (uniform,
    normal), or with the factor of He or Glorot for one copy: with m copies of each input, k of each output,

    * he_uniform :math:`s = scale \sqrt{6 m / n}`, he_normal :math:`scale \sqrt{2 m / n}`,
    * glorot_uniform :math:`scale \sqrt{6 / (n/m + o/k)}`, glorot_normal :math:`scale \sqrt{2 / (n/m + o/k)}`.

    The first layer reads the input itself, so there m counts as 1, and its channels are copies of its inputs,
    so there o/k is n; the last layer has k = 1. ``scales`` multiply s, layer by layer. Biases, where the spec
    has any, are U[-b, b] with b = ``bias_scale``, or 0.

    Args:
      network: spec of the source; no batch norm.
      seed: an integer in [0, 2^64).
      multiplicity: m, the number of copies of each target channel; He's and Glorot's factors depend on it.
      init, scale, bias_scale: as above; scales are positive.
      scales: (pattern, factor) pairs or a mapping; the first pattern (with * and ?, as of files) that fits a
        layer's path gives its factor, which is 1 where none fits. Patterns that end in "/bias" are for
        biases, all others for weights.
      presence: p in (0, 1]; each weight is there with probability p and else exactly 0, so that no subset sum
        can use it (an Erdos-Renyi source). No scale is corrected for it.
      biases: "random" or "zero".
    Raises: ValueError for an unknown word, a number out of its range or a pattern that fits no layer.
    Source: Glorot & Bengio 2010, He et al. 2015 for the factors; Burkholz, ICML 2022 for the widths (see
      `slth.construct.layout`); Gadhikar, Mukherjee & Burkholz, ICML 2023, for sparse random sources.
    """

    network: Network
    seed: int
    multiplicity: int
    init: Init = "uniform"
    scale: float = 1.0
    bias_scale: float = 1.0
    scales: Mapping[str, float] | Scales = ()
    presence: float = 1.0
    biases: Biases = "random"

    def __post_init__(self) -> None:
        for field, known in (("init", Init), ("biases", Biases)):
            if (value := getattr(self, field)) not in get_args(known):
                raise ValueError(
                    f"source.{field} {value!r} is unknown: choose one of {', '.join(get_args(known))}"
                )
        for field in ("scale", "bias_scale"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"source.{field} must be positive and finite, got {value}")
        if not 0 < self.presence <= 1:
            raise ValueError(f"source.presence: expected a probability in (0, 1], got {self.presence}")
        object.__setattr__(self, "scales", self._checked_scales())

    def _checked_scales(self) -> Scales:
        given = self.scales.items() if isinstance(self.scales, Mapping) else self.scales
        names = [path.removesuffix("/kernel") for path in parameter_shapes(self.network)] if given else []
        for pair in given:
            match pair:
                case (str(pattern), int(factor) | float(factor)) if math.isfinite(factor) and factor > 0:
                    if not any(_fits(name, pattern) for name in names):
                        listed = ", ".join(names)
                        raise ValueError(f"source.scales: {pattern!r} fits no layer; there are {listed}")
                case _:
                    raise ValueError(
                        f"source.scales: expected pairs of a pattern and a positive number, got {pair!r}"
                    )
        return tuple((pattern, float(factor)) for pattern, factor in given)


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern is for the weights of the layer of this path, or for "<path>/bias"."""
    return name.endswith("/bias") == pattern.endswith("/bias") and fnmatchcase(name, pattern)


def _factor(source: Source, name: str) -> float:
    assert isinstance(source.scales, tuple)  # made so when the source was
    return next((factor for pattern, factor in source.scales if _fits(name, pattern)), 1.0)


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
    *taps, cin, cout = parameter_shapes(source.network)[f"{path}/kernel"]
    family, _, law = source.init.rpartition("_")
    gain = {"uniform": 6.0, "normal": 2.0}[law]  # U[-s, s] has the variance s^2 / 3
    scale = source.scale * _factor(source, path)
    if not family:
        return scale
    first, last = _ends(source.network)
    fan_in, copies = math.prod(taps) * cin, 1 if path == first else source.multiplicity
    if family == "he":
        return scale * math.sqrt(gain * copies / fan_in)
    fan_out = math.prod(taps) * cout / (1 if path == last else source.multiplicity)
    return scale * math.sqrt(gain / (fan_in / copies + (fan_in if path == first else fan_out)))


def bias_scale(source: Source, path: str) -> float:
    """The scale b of the biases of the layer at ``path``; 0 where they are 0 (see `Source`)."""
    return 0.0 if source.biases == "zero" else source.bias_scale * _factor(source, f"{path}/bias")


def _ends(network: Network) -> tuple[str, str]:
    """Paths of the first and the last layer with parameters."""
    paths = [path.rpartition("/")[0] for path in parameter_shapes(network)]
    return paths[0], paths[-1]


def parameter(source: Source, path: str) -> Float32[Array, "..."]:
    """One parameter of the source, such as ``"conv1/kernel"``, on the grid 2^-24."""
    layer, _, leaf = path.rpartition("/")
    shape = parameter_shapes(source.network)[path]
    key = random.key(source.seed, layer, leaf)
    if leaf == "bias" and source.biases == "zero":
        return jnp.zeros(shape, jnp.float32)
    if leaf == "bias":
        return random.snap(np.float32(bias_scale(source, layer)) * random.uniform(key, shape))
    draw = random.normal if source.init.endswith("normal") else random.uniform
    values = random.snap(np.float32(layer_scale(source, layer)) * draw(key, shape))
    return values if source.presence == 1 else jnp.where(_edges(source, path), values, 0)


def _edges(source: Source, path: str) -> Bool[Array, "..."]:
    """Which weights of a kernel are there: a stream of its own, so that p changes no value."""
    layer, _, leaf = path.rpartition("/")
    key = random.key(source.seed, layer, leaf, "presence")
    return random.bernoulli(key, source.presence, parameter_shapes(source.network)[path])


def parameters(source: Source) -> Params:
    """All parameters as the nested dict that `slth.nn.apply` reads."""
    return unflatten_dict(
        {tuple(p.split("/")): parameter(source, p) for p in parameter_shapes(source.network)}
    )


def layers(source: Source) -> Iterator[tuple[str, Float32[np.ndarray, "..."]]]:
    """(path, parameter) one at a time, in the order of `parameter_shapes`: never two layers in memory."""
    for path in parameter_shapes(source.network):
        yield path, np.asarray(parameter(source, path))


def present(source: Source) -> int:
    """Number of parameters that are there: all of them, or those that a sparse source did not leave out."""
    if source.presence == 1:
        return sum(math.prod(shape) for shape in parameter_shapes(source.network).values())
    return sum(
        int(np.asarray(_edges(source, path)).sum()) if path.endswith("/kernel") else math.prod(shape)
        for path, shape in parameter_shapes(source.network).items()
    )


def sha256(source: Source) -> str:
    """Hash of all parameters: little-endian float32, row-major, in the order of `parameter_shapes`."""
    digest = hashlib.sha256()
    for _, values in layers(source):
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
