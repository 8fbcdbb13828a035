"""A wider network of the same kind, and where in it the channels of the narrow one stand."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from slth import random
from slth.nn.graph import Apply, Join, Sum, graph, value_shapes
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Layer
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.rewrite import Place, Sides, rewrite
from slth.target import checked_positive
from slth.types import Shape

Places = Int[np.ndarray, " c"]


class Widened(NamedTuple):
    """A wider network, and the place in it of every channel of the narrow one.

    Example:
      >>> from slth import nn, planting
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> wide = planting.widened(network, 2.0, seed=0)
      >>> wide.network.layers[0].features, wide.places[1].shape
      (6, (3,))
    """

    network: Network
    places: tuple[Places, ...]
    """For every value of the narrow network (`slth.nn.graph`), the channels of the wide one's value."""


def widened(network: Network, ratio: float, seed: int) -> Widened:
    """The network with so many times the hidden channels, and places for the channels of the narrow one.

    Places are a random choice, in their order; values that a skip joins share it. Inputs and outputs keep
    their channels.

    Args:
      network: spec without batch norm; convolutions in one group, no concatenation.
      ratio: 1 or more; widths are rounded up.
      seed: of the places, in [0, 2^64).
    Raises: ValueError for a ratio below 1, and for a layer that cannot be widened, by its name.

    Example:
      >>> from slth import nn, planting
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> planting.widened(network, 1.0, seed=0).network == network
      True
    """
    checked_positive("ratio", ratio)
    if ratio < 1:
        raise ValueError(f"ratio: expected 1 or more, as a wider network has, got {ratio!r}")
    _check(network)
    groups = _groups(network)
    last = max(value for value, _ in _numbered_sums(network))
    widths, chosen = {}, {}
    for value, shape in enumerate(value_shapes(network)):
        group = groups[value]
        if group in widths or (value and not isinstance(graph(network)[value - 1], Sum)):
            continue
        kept = group in (groups[0], groups[last])
        widths[group] = shape[-1] if kept else math.ceil(ratio * shape[-1] - 1e-9)
        drawn = np.asarray(random.uniform(random.key(seed, "places", str(group)), (widths[group],)))
        chosen[group] = np.arange(shape[-1]) if kept else np.sort(np.argsort(drawn)[: shape[-1]])
    joints = _joints(network, groups, chosen, widths)
    width_of = {
        entry.path: widths[groups[value]] for value, step in _numbered_sums(network) for entry in step.maps
    }

    def rule(place: Place, before: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer = place.layer
        return (*before, replace(layer, features=width_of[place.path]) if place.path in width_of else layer)

    def joined(place: Place, sides: Sides, value: int) -> Sides:
        for side, layer in joints.get(value, {}).items():
            sides = sides._replace(**{side: (*getattr(sides, side)[:-1], layer)})
        return sides

    wide = rewrite(network, rule, joined)
    places: list[Places] = []
    for step in (None, *graph(network)):
        if isinstance(step, Apply) and isinstance(step.layer, Flatten):
            before = places[step.value]
            places.append(
                _flattened(
                    step.layer, value_shapes(network)[step.value], value_shapes(wide)[step.value], before
                )
            )
        elif isinstance(step, Apply):
            places.append(places[step.value])
        else:
            places.append(chosen[groups[len(places)]])
    return Widened(wide, tuple(places))


def _numbered_sums(network: Network) -> list[tuple[int, Sum]]:
    """Every sum with the number of its value."""
    return [(value, step) for value, step in enumerate(graph(network), start=1) if isinstance(step, Sum)]


def _check(network: Network) -> None:
    """Refuse what cannot be widened."""
    if not isinstance(network, Network):
        raise ValueError(f"network: expected a slth.nn.Network, got {type(network).__name__}")
    for step in graph(network):
        name, problem = getattr(step, "name", "") or getattr(step, "path", ""), ""
        match step:
            case Join():
                problem = "is a concatenation"
            case Apply(layer=BatchNorm()):
                problem = "is a batch norm: fold it with slth.Target.of"
            case Apply(layer=ChannelScale() | Subsample() as layer):
                problem = f"is a {type(layer).__name__} outside of a skip"
            case Sum(maps=maps, skips=skips):
                if any(isinstance(entry.layer, Conv) and entry.layer.groups > 1 for entry in maps):
                    problem = "is a grouped convolution"
                elif any(isinstance(skip.layer, ChannelScale) for skip in skips):
                    problem = "has a skip with a factor for each channel"
        if problem:
            raise ValueError(f"network: {name or 'a layer'} {problem}, which planting does not widen")


def _groups(network: Network) -> tuple[int, ...]:
    """For every value the first one that has its channels: by a skip, or by a layer that keeps them."""
    group = list(range(len(graph(network)) + 1))

    def root(value: int) -> int:
        while group[value] != value:
            value = group[value]
        return value

    for value, step in enumerate(graph(network), start=1):
        if isinstance(step, Apply) and not isinstance(step.layer, Flatten):
            group[value] = root(step.value)
        elif isinstance(step, Sum):
            for skip in step.skips:
                if not isinstance(skip.layer, Subsample):
                    one, other = sorted((root(skip.reads), root(value)))
                    group[other] = one
    return tuple(root(value) for value in range(len(group)))


def _joints(
    network: Network, groups: tuple[int, ...], chosen: Mapping[int, Places], widths: Mapping[int, int]
) -> dict[int, dict[str, Subsample]]:
    """The skips that choose channels, by the value of their sum and the side of their block: planted channels
    go where the narrow network's go, the others in their order to places that are left."""
    joints: dict[int, dict[str, Subsample]] = {}
    for value, step in _numbered_sums(network):
        for skip in step.skips:
            if not isinstance(skip.layer, Subsample):
                continue
            before, behind = groups[skip.reads], groups[value]
            channels = np.full(widths[behind], -1)
            own = np.array(skip.layer.channels)
            channels[chosen[behind]] = np.where(own >= 0, chosen[before][own], -1)
            free = np.setdiff1d(np.arange(widths[behind]), chosen[behind])
            others = np.setdiff1d(np.arange(widths[before]), chosen[before])[: len(free)]
            channels[free[: len(others)]] = others
            joint = replace(skip.layer, channels=tuple(channels.tolist()))
            joints.setdefault(value, {})[skip.side] = joint
    return joints


def _flattened(layer: Flatten, narrow: Shape, wide: Shape, places: Places) -> Places:
    """Where the features of a narrow flattened value stand in the wide one."""
    number = np.arange(math.prod(wide)).reshape(wide)
    order = np.asarray(layer.apply({}, number[None]))[0]
    own = np.asarray(layer.apply({}, number[None][..., places]))[0]
    assert len(own) == math.prod(narrow)
    return np.argsort(order)[own]
