r"""What Theorem 2 needs to know of a target and its source: nodes, what they read, how errors grow.

A map whose subsets have at most q of the random weights :math:`|v| \le \sigma` for each of at most D target
weights in a row multiplies its inputs' errors by at most :math:`\Gamma = \sigma q D`, an activation by its
Lipschitz constant; a sum adds its terms, so that a residual block is one factor :math:`\Gamma_{skip} +
\Gamma_2 T \Gamma_1`. Products of many layers leave the range of floats: all is in logarithms.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate import steps
from slth.certificate.arithmetic import Values, correlate
from slth.certificate.domain import Domain
from slth.certificate.slopes import info_of
from slth.certificate.steps import Apply, Join, Lowered, Sum, behind, between, follow, led, lower
from slth.construction import Construction
from slth.construction.plan import centred
from slth.nn.activations import ActivationInfo
from slth.nn.graph import is_nonnegative, linear_maps
from slth.nn.layers import Activation, Conv
from slth.source import Source, layer_scale, parameter
from slth.source.layout import Univariate, leading
from slth.source.widths import first_info

GRID = 2.0**-24
"""Scales are rounded to float32 and weights to this grid, which may take one above its layer's scale."""
IMAGES = 16
"""Inputs looked at together."""
SLACK = 1 + 1e-9
"""Far above what float64 rounds away in a sum of absolute values."""
SLACK32 = 1 + 1e-4
"""The same for means that a construction takes in float32."""


@dataclass(frozen=True, eq=False)
class Map(steps.Map):
    """One linear map into a node that is solved: a target layer, or a skip as a 1x1 convolution."""

    scale: float
    """The source's scale of its weights."""
    sigma: float
    """Largest |v| that the source may have there; of a normal source, the largest it has."""
    node: str
    """Path of the node it leads into."""
    raw: bool
    """Whether it reads the network's input, as the channels of the extra first layer carry it."""
    signs: int
    """Subset-sum problems of one weight: 2 for a raw input whose signs are carried by different channels."""
    offset: bool
    """Whether constants cancel something at every tap: phi(0) of the first layer, or the means."""
    means: bool
    """Whether constants carry the means of what it reads."""

    @property
    def taps(self) -> int:
        """Taps that may meet padding; constants are exact through all others."""
        return math.prod(self.weight.shape[:-2]) if isinstance(self.layer, Conv) else 0

    @property
    def fan_in(self) -> int:
        """D: most non-zero weights of one output."""
        return int(np.count_nonzero(self.weight.reshape(-1, self.weight.shape[-1]), axis=0).max())

    def gain(self, size: int) -> float:
        """Gamma for subsets of at most this size: sigma q D."""
        return self.sigma * size * self.fan_in


class Node(NamedTuple):
    """A sum of linear maps that every copy of the ticket computes: a layer, or the end of a block."""

    step: Sum
    maps: tuple[Map, ...]
    copied: bool
    """Whether there are m copies of it: all but the last."""

    @property
    def path(self) -> str:
        """Of its first map, as `slth.construction.LayerRecord` names it."""
        return self.step.path

    @property
    def problems(self) -> int:
        """Subset-sum problems of one copy; at most so many where constants cancel something tap by tap."""
        weights = sum(entry.signs * int(np.count_nonzero(entry.weight)) for entry in self.maps)
        offsets = [entry.taps for entry in self.maps if entry.offset]
        biases = int(np.count_nonzero(self.step.bias))
        return weights + (self.features * (1 + sum(offsets)) if offsets else biases)

    @property
    def features(self) -> int:
        """Outputs of the target's layer."""
        return len(self.step.bias)

    @property
    def scale(self) -> float:
        """The largest scale of its maps."""
        return max(entry.scale for entry in self.maps)


class Setting(NamedTuple):
    """A target, its source and a domain as Theorem 2 sees them."""

    lowered: Lowered
    """Steps of the balanced target."""
    nodes: tuple[Node, ...]
    """In the order in which a ticket is constructed."""
    source: Source
    first: Univariate
    """The extra first layer."""
    alpha: float
    """Largest |alpha| that it may have."""
    info: ActivationInfo
    """Of that layer's activation."""

    @property
    def maps(self) -> tuple[Map, ...]:
        """The maps of all nodes."""
        return tuple(entry for node in self.nodes for entry in node.maps)

    def sizes(self, multiplicity: int) -> dict[str, int]:
        """q of every map by path: all members there are, in the first layer of both signs."""
        both = self.first.width // self.first.inputs
        return {entry.path: both if entry.raw else multiplicity for entry in self.maps}

    def problems(self, multiplicity: int) -> int:
        """Subset-sum problems of a source of m copies."""
        return sum(node.problems * (multiplicity if node.copied else 1) for node in self.nodes)


def setting_of(made: Construction) -> Setting:
    """The nodes of a construction's balanced target, and its source of L + 1.

    Raises: ValueError for a source with two layers for each of the target's.
    """
    source, layout = made.source, made.source.layout_for(made.target.network)
    first = layout.first
    if first is None:
        raise ValueError(
            "theorem: budgets are those of the L+1 construction, this source has 2L layers: make it with "
            "depth L+1"
        )
    target, solved = lower(made, made.params), linear_maps(source.network)
    info = first_info(made.target.network)
    means = made.absorbs or centred(made.target.network, source.network, layout)
    # One sign is solved alone where the leading layers leave no number below 0.
    alone = is_nonnegative(made.target.network, leading(made.target.network))
    signs = 1 if info.mu_plus == info.mu_minus or alone else 2
    raw, nodes = {0}, []
    for number, step in enumerate(target.steps, start=1):
        if isinstance(step, Apply):
            raw |= {number} if step.reads in raw else set()
        if not isinstance(step, Sum):
            continue
        maps = tuple(
            Map(
                **vars(entry),
                scale=layer_scale(source, entry.path),
                sigma=largest_weight(source, entry.path),
                node=step.path,
                raw=(read := entry.reads in raw),
                signs=signs if read else 1,
                offset=(about := made.absorbs if read else means) or (read and info.offset != 0),
                means=about,
            )
            for entry in step.maps
            if entry.path in solved
        )
        if maps:
            nodes.append(Node(step, maps, True))
    nodes[-1] = nodes[-1]._replace(copied=False)
    return Setting(target, tuple(nodes), source, first, largest_weight(source, first.path), info)


def largest_weight(source: Source, path: str) -> float:
    """sigma: a bound of the random weights |v| of the layer at ``path``."""
    if source.init.endswith("normal"):
        return float(np.abs(np.asarray(parameter(source, f"{path}/kernel"))).max())
    return layer_scale(source, path) * (1 + GRID) + GRID


class Reads(NamedTuple):
    """What the maps read over a domain."""

    sums: dict[str, float]
    """B of each map by path."""
    reach: float
    """The largest number that the extra first layer reads."""


def reads_of(setting: Setting, domain: Domain, calibration: Values | None = None) -> Reads:
    r"""What the maps read, :math:`B \ge \sup_x \max_{j,p} \sum_{i, \tau: w_{ji\tau} \ne 0} |x_i(sp + \tau)|`.

    Exact where the domain is images; for a box or balls x is bounded by intervals, entry by entry. Where
    constants carry the mean of x, the error of a weight meets x less its mean, and the means' sum is added.

    Args:
      domain: checked against the target's input shape (`Domain.check`).
      calibration: images that the means were taken from; None where there were none.
    """
    sums = {entry.path: 0.0 for entry in setting.maps}
    reach = 0.0
    for sizes in _sizes(setting.lowered, domain):
        reach = max(reach, float(sizes[0].max()))
        for entry in setting.maps:
            read = correlate(entry.layer, sizes[entry.reads], 1.0 * (entry.weight != 0), entry.inputs)
            sums[entry.path] = max(sums[entry.path], float(read.max()) * SLACK)
    offsets = [entry for entry in setting.maps if entry.means]
    if calibration is not None and offsets:
        for entry, mean in zip(offsets, _means(setting.lowered, offsets, calibration), strict=True):
            # A dense layer may read several positions of a channel: each mean is at most the largest.
            mean = mean if isinstance(entry.layer, Conv) else mean.max(keepdims=True)
            read = mean[..., None] if entry.inputs is None else mean[entry.inputs]
            read = (read * (entry.weight != 0)).reshape(-1, entry.weight.shape[-1])
            sums[entry.path] += float(read.sum(0).max()) * SLACK32
    return Reads(sums, reach)


def _values(target: Lowered, images: Values) -> Iterator[list[Values]]:
    """The target's values for some images at a time."""
    for start in range(0, len(images), IMAGES):
        yield follow(target.steps, led(target.lead, np.asarray(images[start : start + IMAGES], np.float64)))


def _sizes(target: Lowered, domain: Domain) -> Iterator[list[Values]]:
    """The largest magnitudes of all values, for some sets of inputs at a time."""
    if domain.kind == "examples":
        for values in _values(target, domain.low):
            yield [np.abs(a) for a in values]
        return
    for start in range(0, len(domain.low), IMAGES):
        ends = behind(target.lead, *(a[start : start + IMAGES] for a in (domain.low, domain.high)))
        yield [x.size for x in follow(target.steps, between(*ends))]


def _means(target: Lowered, maps: list[Map], images: Values) -> list[Float[np.ndarray, " cin"]]:
    """Magnitudes of the channels' means at each map; means of magnitudes where both signs have problems."""
    totals = [np.zeros(()) for _ in maps]
    for values in _values(target, images):
        read = [np.abs(values[entry.reads]) if entry.raw else values[entry.reads] for entry in maps]
        totals = [
            total + x.reshape(len(x), -1, x.shape[-1]).mean(1).sum(0)
            for total, x in zip(totals, read, strict=True)
        ]
    return [np.abs(total) / len(images) for total in totals]


def log_growth(setting: Setting, sizes: Mapping[str, int]) -> dict[str, float]:
    """log A by path of each node: how much an error of all its pre-activations can grow up to the outputs.

    Args:
      sizes: q by path of each map.
    """
    gains = {entry.path: entry.gain(sizes[entry.path]) for entry in setting.maps}
    numbered = list(enumerate(setting.lowered.steps, start=1))
    grown = np.full(len(numbered) + 1, -np.inf)  # by value
    grown[-1] = 0.0
    for number, step in reversed(numbered):
        if isinstance(step, Sum):  # a carried skip is copied as it is
            factors = [(entry.reads, gains.get(entry.path, 1.0)) for entry in step.maps]
        elif isinstance(step, Join):
            factors = [(reads, 1.0) for reads in step.reads]
        else:  # pooling and flattening enlarge no error
            layer = step.layer
            factors = [(step.reads, info_of(layer).lipschitz if isinstance(layer, Activation) else 1.0)]
        for reads, factor in factors:
            log = math.log(factor) if factor else -math.inf
            grown[reads] = np.logaddexp(grown[reads], grown[number] + log)
    return {step.path: float(grown[number]) for number, step in numbered if isinstance(step, Sum)}
