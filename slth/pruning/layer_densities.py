r"""Densities by layer: how many of a network's kept weights each layer gets.

Every rule is a weight :math:`r_l` for each layer, and the densities are

.. math:: d_l = \min(1, c\, r_l), \qquad \sum_l d_l n_l = d \sum_l n_l

with the sizes :math:`n_l` of the kernels and the one c that gives the density d of all layers together: a
layer that is full passes what it cannot take to the others, in proportion.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from slth.nn.network import Network
from slth.pruning.protocol import check_density, prunable


@runtime_checkable
class LayerDensities(Protocol):
    """A rule that gives each layer its density.

    Example:
      >>> from slth import pruning
      >>> isinstance(pruning.Balanced(), pruning.LayerDensities)
      True
    """

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The density of each layer by its path, that of all layers together given."""
        ...


def check_rule(densities: object) -> None:
    """Refuse what is no rule, and is not None either: a class without brackets is none."""
    if densities is not None and (isinstance(densities, type) or not isinstance(densities, LayerDensities)):
        raise ValueError(
            f"densities: expected a rule such as Uniform() or Given(shares), or None, got {densities!r}"
        )


@dataclass(frozen=True)
class Uniform:
    """The same density for every layer, d_l = d.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Dense("b", 2)))
      >>> pruning.Uniform().of(network, 0.3)
      {'a': 0.3, 'b': 0.3}
    """

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The densities by layer."""
        return scaled(network, dict.fromkeys(prunable(network), 1.0), density)


@dataclass(frozen=True)
class ErdosRenyi:
    r"""Density in proportion to :math:`r_l = (c_{in} + c_{out}) / (c_{in} c_{out})`.

    The number of kept weights then grows with the sum of a layer's channels, not with their product: wide
    layers are the sparser ones. c_in is the number of inputs of one output: in a
    grouped convolution those of its group.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Dense("b", 2)))
      >>> pruning.ErdosRenyi().of(network, 0.3)     # 12/32 and 10/16, times 0.6545...
      {'a': 0.245, 'b': 0.409}

    Source: Mocanu et al., Nature Communications 2018 (arXiv:1707.04780); Evci et al., ICML 2020
    (arXiv:1911.11134), for convolutions.
    """

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The densities by layer."""
        ends = {path: shape[-2:] for path, shape in prunable(network).items()}
        return scaled(network, {path: sum(end) / math.prod(end) for path, end in ends.items()}, density)


@dataclass(frozen=True)
class ErdosRenyiKernel:
    r"""Density in proportion to :math:`r_l = (\sum_a s_a) / (\prod_a s_a)` over all axes s of a kernel (ERK).

    As `ErdosRenyi`, with the taps: :math:`(c_{in} + c_{out} + k_h + k_w) / (c_{in} c_{out} k_h k_w)`.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((8, 8, 4), (nn.Conv("a", 16, (3, 3)), nn.Conv("b", 16, (1, 1))))
      >>> pruning.ErdosRenyiKernel().of(network, 0.6)     # "b" is full; "a" has what is left
      {'a': 0.422, 'b': 1.0}

    Source: Evci et al., ICML 2020 (arXiv:1911.11134).
    """

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The densities by layer."""
        shapes = prunable(network)
        weights = {path: sum(shape) / math.prod(shape) for path, shape in shapes.items()}
        return scaled(network, weights, density)


@dataclass(frozen=True)
class Balanced:
    """The same number of kept weights for every layer, r_l = 1 / n_l; small layers are full.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Dense("b", 2)))
      >>> pruning.Balanced().of(network, 0.5)     # 12 of 32 and 12 of 16
      {'a': 0.375, 'b': 0.75}

    Source: Gadhikar, Mukherjee and Burkholz, ICML 2023 (arXiv:2210.02412).
    """

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The densities by layer."""
        sizes = {path: math.prod(shape) for path, shape in prunable(network).items()}
        return scaled(network, {path: 1 / size for path, size in sizes.items()}, density)


@dataclass(frozen=True)
class Given:
    """Density in proportion to given numbers: those densities themselves where they fit the total.

    Args:
      shares: (path, r_l) of every layer, r_l > 0; also a mapping, such as the densities of another mask.
    Raises: ValueError for a number that is not above 0 and finite, or a path that is named twice.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Dense("b", 2)))
      >>> pruning.Given({"a": 0.2, "b": 0.8}).of(network, 0.2)
      {'a': 0.1, 'b': 0.4}
    """

    shares: Mapping[str, float] | tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        pairs = tuple(self.shares.items() if isinstance(self.shares, Mapping) else self.shares)
        for path, share in pairs:
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
                raise ValueError(f"shares: {path}: expected a finite number above 0, got {share!r}")
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"shares: each layer has one, got {[path for path, _ in pairs]}")
        object.__setattr__(self, "shares", pairs)

    def of(self, network: Network, density: float) -> dict[str, float]:
        """The densities by layer."""
        return scaled(network, dict(self.shares), density)


def scaled(network: Network, weights: Mapping[str, float], density: float) -> dict[str, float]:
    r"""The densities :math:`d_l = \min(1, c\, r_l)` that keep a share of all weights.

    Args:
      weights: r_l > 0 of every layer, by its path.
      density: kept / total over all kernels, in (0, 1].
    Raises: ValueError for a density that is not in (0, 1], or for layers that are not those of the network.

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Dense("b", 2)))
      >>> pruning.scaled(network, {"a": 1.0, "b": 5.0}, 0.5)
      {'a': 0.25, 'b': 1.0}
    """
    check_density(density)
    shapes = prunable(network)
    if set(weights) != set(shapes):
        raise ValueError(f"weights: expected a number for each of {list(shapes)}, got {list(weights)}")
    sizes = np.array([math.prod(shape) for shape in shapes.values()], np.float64)
    raw = np.array([weights[path] for path in shapes], np.float64)
    # Full layers are those of the largest r: as many, one more at a time, until all others have room.
    order = np.argsort(-raw, kind="stable")
    for full in range(len(order)):
        rest = order[full:]
        left = density * sizes.sum() - sizes[order[:full]].sum()
        factor = left / (raw[rest] @ sizes[rest])
        if factor * raw[rest[0]] <= 1:
            break
    else:
        factor = 1 / raw.min()  # density 1, up to rounding: every layer is full
    shares = np.minimum(1.0, factor * raw)
    return {path: float(share) for path, share in zip(shapes, shares, strict=True)}
