r"""The source: a random network, a function of (spec, seed, initialisation), never trained, never stored.

The weight at flat index n (row-major) of the kernel of layer ``path`` is
:math:`\sigma_{path}\, g(\mathrm{seed}, path, \text{"kernel"}, n)` snapped to the grid :math:`2^{-24}`, with g
the counter-based generator of `slth.random`: any layer or slice can be drawn again, anywhere, bit by bit.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, get_args

import numpy as np

from slth.nn import by_layer, parameter_shapes
from slth.nn.graph import activations, is_homogeneous, linear_maps, named_layers
from slth.nn.layers import BatchNorm, Conv
from slth.nn.network import Network
from slth.source.agreement import layout_of
from slth.source.defaults import defaults_of
from slth.source.layout import Layout
from slth.source.ranges import Range, input_ranges
from slth.source.scales import alpha_factors, slope_factors, target_factors
from slth.source.widths import first_activation, first_info, source_network
from slth.target import Target, check_images, checked_integer, checked_positive, checked_word, kind_of
from slth.types import Batch

Init = Literal["uniform", "normal", "he_uniform", "he_normal", "glorot_uniform", "glorot_normal"]
Biases = Literal["random", "zero"]
Scales = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Source:
    r"""A source network: everything its parameters depend on.

    Weights of a layer are U[-s, s] or N(0, s^2). For "uniform" and "normal", s = ``scale``. For the others, s
    is ``scale`` times He's or Glorot's factor for one copy of each channel. With fan-in n, fan-out o, m
    copies of each input and k copies of each output,

    * he_uniform :math:`s = scale \sqrt{6 m / n}`, he_normal :math:`scale \sqrt{2 m / n}`,
    * glorot_uniform :math:`scale \sqrt{6 / (n/m + o/k)}`, glorot_normal :math:`scale \sqrt{2 / (n/m + o/k)}`.

    In the first layer m = 1, because it reads the inputs themselves, and o/k = n, because its channels are
    copies of its inputs. In the last layer k = 1. ``scales`` multiply s, layer by layer. Biases, where the
    spec has any, are U[-b, b] with b = ``bias_scale``, or 0.

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
      positive: paths of layers whose weights are the absolute values of those above, such as U[0, s].
      layout: which layers and channels stand for what of a target (`slth.source.layout`); None for a network
        that was made for no target, or read from a file.
      knows_target: whether a scale was read off the target or its activations; for the record only.
    Raises: ValueError for an unknown word, a number out of its range or a pattern that fits no layer.

    Example:
      >>> import jax
      >>> from slth import Source, Target, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> source = Source.of(Target(network, nn.init(network, jax.random.key(0))), copies=5, seed=1)
      >>> source.layout.depth, source.network.layers[2].features
      ('L+1', 39)

    Source: Glorot & Bengio 2010, He et al. 2015 for the factors; Burkholz, ICML 2022 for the widths (see
      `slth.source.layout`); Gadhikar, Mukherjee & Burkholz, ICML 2023, for sparse random sources.
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
    positive: tuple[str, ...] = ()
    layout: Layout | None = field(default=None, compare=False, repr=False)
    knows_target: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.network, Network):
            raise ValueError(
                f"source.network: expected a slth.nn.Network, got {kind_of(self.network)}: "
                "slth.Source.of(target) makes a source that is wide enough for a target"
            )
        for path, layer in named_layers(self.network).items():
            if isinstance(layer, BatchNorm):
                raise ValueError(
                    f"source.network: {path} is a BatchNorm, and a source has none: fold it with"
                    " slth.nn.fold_batch_norm"
                )
        for name, low, high in (("seed", 0, 2**64), ("multiplicity", 1, math.inf)):
            number = checked_integer(f"source.{name}", getattr(self, name), low, high)
            object.__setattr__(self, name, number)
        checked_word("source.init", self.init, get_args(Init))
        checked_word("source.biases", self.biases, get_args(Biases))
        checked_positive("source.scale", self.scale)
        checked_positive("source.bias_scale", self.bias_scale)
        if not (isinstance(self.presence, int | float) and 0 < self.presence <= 1):
            raise ValueError(f"source.presence: expected a probability in (0, 1], got {self.presence!r}")
        object.__setattr__(self, "scales", self._checked_scales())
        object.__setattr__(self, "positive", self._checked_positive())

    def layout_for(self, target: Network) -> Layout:
        """The layout that the source was made with, or the one that its names and widths imply for a target.

        Raises: ValueError if the source is not one of the target.
        """
        return self.layout or self.checked_layout(target)

    def checked_layout(self, target: Network) -> Layout:
        """The layout that the source's names and widths imply for a target (`layout_of`).

        Raises: ValueError if the source is not one of the target.
        """
        return layout_of(target, self.network, self.multiplicity, positive=bool(self.positive))

    def _checked_scales(self) -> Scales:
        given = self.scales.items() if isinstance(self.scales, Mapping) else self.scales
        if not isinstance(given, Iterable):
            raise ValueError(f"source.scales: expected a mapping of patterns to numbers, got {given!r}")
        names = [path.removesuffix("/kernel") for path in parameter_shapes(self.network)] if given else []
        for pair in given:
            match pair:
                case (str(pattern), int(factor) | float(factor)) if 0 < factor <= sys.float_info.max:
                    if not any(_fits(name, pattern) for name in names):
                        listed = ", ".join(names)
                        raise ValueError(f"source.scales: {pattern!r} fits no layer; there are {listed}")
                case _:
                    raise ValueError(
                        f"source.scales: expected pairs of a pattern and a positive number, got {pair!r}"
                    )
        return tuple((pattern, float(factor)) for pattern, factor in given)

    def _checked_positive(self) -> tuple[str, ...]:
        """The paths in the order of the layers."""
        given, known = self.positive, linear_maps(self.network)
        wrong = [path for path in given if path not in known] if isinstance(given, tuple) else [given]
        if wrong:
            raise ValueError(
                f"source.positive: expected a tuple of paths of layers, got {wrong[0]!r}; there are "
                + ", ".join(known)
            )
        return tuple(path for path in known if path in given)

    @classmethod
    def of(
        cls,
        target: Target,
        copies: int = 15,
        seed: int = 0,
        *,
        depth: str = "L+1",
        images: Batch | None = None,
        reach: float | None = None,
        init: Init = "he_uniform",
        scale: float | None = None,
        scales: Mapping[str, float] | Scales = (),
        bias_scale: float | None = None,
        presence: float = 1.0,
        biases: Biases = "random",
        univariate: int | None = None,
        constants: int | None = None,
        own_biases: bool | None = None,
        skip: str = "carried",
        univariate_signs: str = "random",
        target_scale: float | None = None,
    ) -> "Source":
        r"""A random network wide enough for a ticket of ``target``; it knows nothing of the target's weights.

        Settings that are None suit the target's activations. Where all of these are positively homogeneous
        (ReLU, leaky ReLU, identity), the scale is 1, biases reach 4, and the first layer makes max(2m, 24)
        constants. Otherwise channels cannot be scaled to fit the source. Then weights are 1.5 / mu times
        He's, with mu the slope at 0 of the activation in front of the layer; biases reach 12, and every layer
        makes max(4m, 60) constants. Where the activation of the univariate layers is not piecewise linear,
        their alpha is small enough for it.

        Args:
          target: see `slth.Target`; its shapes and activations are read, not its weights.
          copies: m, source channels for each hidden channel of the target; variables of a subset-sum problem.
          seed: an integer in [0, 2^64); another seed is another source.
          depth: "L+1", or "2L", which has two layers for each of the target's.
          images: any images of shape (n, *input_shape) that show how large inputs are. 2L needs some where an
            activation is neither bounded nor piecewise linear.
          reach: R, the largest |input|. None: that of ``images``, or 4 without images, which is enough for
            normalised images. Inputs a few times as large do little harm; `slth.construct` refuses images
            that are too large.
          init, scale, scales, bias_scale, presence, biases: see the class.
          univariate: N, univariate channels for each input and sign; None: max(2m, 16).
          constants: K of each hidden layer of L+1; 0: a source without biases.
          own_biases: whether hidden layers have biases too, from which they make constants afresh.
          skip: "carried" or "random" (see `slth.source.source_network`).
          univariate_signs: "random", or "positive": where no input of a univariate layer can be below 0, as
            behind a ReLU, its weights are positive, and N channels for each input do what 2N did.
          target_scale: makes every layer's scale this share of the target's largest weight there. Such a
            source has ``knows_target`` set.
        Raises: ValueError for a setting out of range, or a target that no construction covers.

        Example:
          >>> import jax, slth
          >>> from slth import nn
          >>> hidden = (nn.Dense("a", 3), nn.Activation("tanh"), nn.Dense("b", 3), nn.Activation("relu"))
          >>> network = nn.Network((4,), (*hidden, nn.Dense("c", 2)))
          >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
          >>> source = slth.Source.of(target, copies=8)
          >>> source.scale, source.bias_scale, source.knows_target
          (1.5, 12.0, False)

        Source: Burkholz, ICML 2022; the defaults are this project's (docs/construction.md).
        """
        if not isinstance(target, Target):
            raise ValueError(
                f"target: expected a slth.Target, got {kind_of(target)}: make one with slth.load(file, spec)"
                " or slth.Target.of(network, params)"
            )
        for name, value in (("reach", reach), ("target_scale", target_scale)):
            if value is not None:
                checked_positive(f"source.{name}", value)
        if images is not None:
            check_images(images, target.network.input_shape)
        copies = checked_integer("source.multiplicity", copies, 1)
        if depth == "2L" and constants:
            raise ValueError(
                f"source.constants: {constants!r} is of L+1; in 2L univariate layers have twice as many"
                " constants as channels of an input and sign, at most 64: choose None, or 0 for none"
            )
        defaults = defaults_of(target.network, copies)
        largest = _reach(images) if reach is None else reach
        wide = source_network(
            target.network,
            copies,
            copies_per_sign=defaults.univariate if univariate is None else univariate,
            constants=defaults.constants if constants is None else constants,
            skip=skip,
            own_biases=defaults.own_biases if own_biases is None else own_biases,
            depth=depth,
            univariate_signs=univariate_signs,
        )
        source = cls(
            wide.network,
            seed,
            copies,
            init=init,
            scale=defaults.scale if scale is None else scale,
            bias_scale=_bias_scale(defaults.bias_scale, largest, depth) if bias_scale is None else bias_scale,
            scales=scales,
            presence=presence,
            biases=biases,
            positive=tuple(one.path for one in wide.layout.univariate if one.positive),
            layout=wide.layout,
        )
        return _fitted(source, target, images, largest, target_scale)


REACH = 4.0
"""Largest |input| that a source is made for where nobody says how large inputs are."""


def _reach(images: Batch | None) -> float:
    """R, where only images may say what it is."""
    return REACH if images is None else float(np.abs(np.asarray(images)).max()) or REACH


def _bias_scale(usual: float, reach: float, depth: str) -> float:
    """Biases grow with the network's inputs: pixels of 0 to 255 ask for 16 times those of 0 to 16.

    In 2L, where a layer has fewer constants, they grow four times as much.
    """
    return usual * max(1.0, reach / (REACH if depth == "2L" else REACH**2))


def _fitted(
    source: Source, target: Target, images: Batch | None, reach: float, target_scale: float | None
) -> Source:
    """The source with the factors that the target's activations (or its weights, if asked for) need."""
    info, layout = first_info(target.network), source.layout
    assert layout is not None
    named = linear_maps(source.network)
    mixed = len(set(activations(target.network))) > 1 and not is_homogeneous(target.network)
    slopes = slope_factors(target.network) if mixed else {}
    factors = {path: value for path, value in slopes.items() if path in named and value != 1}
    knows = target_scale is not None
    if not info.homogeneous:
        largest: float | dict[str, float] = reach
        if layout.depth == "2L":
            ranges = _ranges(target, images, reach)
            knows = knows or not all(one.exact for one in ranges.values())
            largest = {path: one.reach for path, one in ranges.items() if path in named}
        he = source.init.startswith("he")
        for path, value in alpha_factors(
            target.network, layout, info, largest, partial(layer_scale, source), he=he
        ).items():
            factors[path] = factors.get(path, 1.0) * value
    source = replace(source, scales=(*source.scales, *factors.items()), knows_target=knows)
    if target_scale is None:
        return source
    like = replace(source, network=target.network, multiplicity=1, scales=(), layout=None)
    kernels = {path: own["kernel"] for path, own in by_layer(target.params).items() if "kernel" in own}
    read = target_factors(kernels, target_scale, partial(layer_scale, like))
    return replace(source, scales=(*source.scales, *read.items()))


def _ranges(target: Target, images: Batch | None, reach: float) -> dict[str, Range]:
    """What a source of 2L must know of the target's activations: their ranges."""
    seen = np.full((1, *target.network.input_shape), reach, np.float32) if images is None else images
    ranges = input_ranges(target.network, target.params, seen, reach)
    if images is None and not all(one.exact for one in ranges.values()):
        kind = first_activation(target.network).kind
        raise ValueError(
            f"source.depth: 2L takes the ranges of {kind} from images, and there are none: give images of the"
            " kind that the target reads, or choose L+1"
        )
    return ranges


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern is for the weights of the layer of this path, or for "<path>/bias"."""
    return name.endswith("/bias") == pattern.endswith("/bias") and fnmatchcase(name, pattern)


def _factor(source: Source, name: str) -> float:
    assert isinstance(source.scales, tuple)  # made so when the source was
    return next((factor for pattern, factor in source.scales if _fits(name, pattern)), 1.0)


def layer_scale(source: Source, path: str) -> float:
    """The scale s of the weights of the layer at ``path`` (see `Source`).

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5, init="uniform", scales={"b": 3.0})
      >>> slth.source.layer_scale(source, "a"), slth.source.layer_scale(source, "b")
      (1.0, 3.0)
    """
    *taps, cin, cout = parameter_shapes(source.network)[f"{path}/kernel"]
    layer = linear_maps(source.network)[path].layer
    if isinstance(layer, Conv):  # constants beside groups are no inputs that a weight is made for
        cin -= layer.beside[0]
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
    """The scale b of the biases of the layer at ``path``; 0 where they are 0 (see `Source`).

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> slth.source.bias_scale(source, "univariate")
      4.0
    """
    return 0.0 if source.biases == "zero" else source.bias_scale * _factor(source, f"{path}/bias")


def _ends(network: Network) -> tuple[str, str]:
    """Paths of the first and the last layer with parameters."""
    paths = [path.rpartition("/")[0] for path in parameter_shapes(network)]
    return paths[0], paths[-1]
