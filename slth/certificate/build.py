"""The `Pair` of a target and its ticket, from a construction, in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Values, correlate, gamma, moved, terms
from slth.certificate.pair import Node, Pair, Place, Same, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of
from slth.certificate.steps import Apply, Carry, Map, Sum, applied, layout, lower, summed
from slth.construction import Construction
from slth.construction.prune import read_channels
from slth.nn import by_layer, parameter_shapes
from slth.nn.graph import Step, graph, value_shapes
from slth.nn.layers import Activation
from slth.nn.pooling import Flatten
from slth.source import parameter

Array = np.ndarray


class View(NamedTuple):
    """A place, and what only the building of a pair needs to know of it."""

    place: Place
    read: Bool[Array, " source_channels"]
    """Which of the source's channels something reads."""
    scale: Float[Array, " references"]
    """d, the factor of each value of the target; -1 for x-."""
    inputs: Int[Array, " references"]
    """Which input of the target's own layers each value is, or is a part of."""


class Parts(NamedTuple):
    """The ticket by layer."""

    made: Construction
    masks: dict[str, dict[str, Array]]
    read: dict[str, Bool[Array, " source_channels"]]

    def kept(self, path: str, name: str) -> Array:
        """What the mask keeps of a parameter of the source; zeros where neither has it."""
        mask = np.asarray(self.masks[path].get(name, False))
        shape = parameter_shapes(self.made.source.network).get(f"{path}/{name}")
        if shape is None or not mask.shape:
            return np.zeros(len(self.read[path]))
        if mask.shape != shape:
            raise ValueError(
                f"certificate: mask {path}/{name} has shape {mask.shape}, the source has {shape}"
            )
        return np.where(mask, np.asarray(parameter(self.made.source, f"{path}/{name}")), 0).astype(np.float64)


def build(made: Construction, *, signed: bool) -> Pair:
    """Target and ticket side by side, reduced to the channels that the ticket reads.

    Args:
      made: a construction of L + 1.
      signed: whether a number that the source's first layer reads may be negative.
    Raises: ValueError for a source of 2L, or one that is not of this target.
    """
    if layout(made).depth == "2L":
        raise ValueError(
            "certificate: it bounds tickets of L+1 layers, and this source has 2L: make it with depth L+1"
        )
    lead, steps = lower(made, made.target.params)
    wide = graph(made.source.network)
    front, behind = wide[len(lead) : len(lead) + 2], wide[len(lead) + 2 :]
    mine, theirs = (
        [step.layer if isinstance(step, Apply | nn.Apply) else step.path for step in sequence]
        for sequence in (steps, behind)
    )
    if mine != theirs or [step.layer for step in wide[: len(lead)] if isinstance(step, nn.Apply)] != [*lead]:
        raise ValueError(
            "certificate: the layers of the source are not those of the target: make it with "
            "slth.Source.of(target)"
        )
    parts = Parts(made, by_layer(made.mask), read_channels(made.source.network, made.mask))
    first, view = _univariate(parts, front, value_shapes(made.source.network)[len(lead)], signed)
    views: list[View] = [view]
    built: list[Node | Same] = []
    last = [step.path for step in steps if isinstance(step, Sum)][-1]
    for step, source_step in zip(steps, behind, strict=True):
        if isinstance(step, Sum):
            ends = np.full(len(step.bias), 1 / made.factor)
            scale = ends if step.path == last else np.asarray(made.scales[step.path], np.float64)
            assert isinstance(source_step, nn.Sum)
            item, view = _node(parts, step, source_step, views, scale)
        else:
            item, view = _same(step, views[step.reads])
        built.append(item)
        views.append(view)
    return Pair(lead, signed, first, tuple(view.place for view in views), tuple(built), made.factor)


def _univariate(
    parts: Parts, front: tuple[Step, ...], shape: tuple[int, ...], signed: bool
) -> tuple[Univariate, View]:
    """Place 0: phi(alpha x) = phi(0) + p x+ - q x-, with p and q its slopes in x on both sides of 0."""
    node, phi = front
    assert isinstance(phi, nn.Apply)
    assert isinstance(phi.layer, Activation)
    *space, cin = shape
    read = parts.read[node.path]
    kernel = parts.kept(node.path, "kernel").reshape(cin, -1)[:, read]
    bias = parts.kept(node.path, "bias")[read]
    if ((kernel != 0).sum(0) + (bias != 0) > 1).any():
        raise ValueError("certificate: a channel of the first source layer is not univariate")
    index = np.abs(kernel).argmax(0)
    alpha = kernel[index, np.arange(kernel.shape[1])]
    info = info_of(phi.layer)
    right = np.where(alpha > 0, info.mu_plus, info.mu_minus) * alpha
    left = np.where(alpha > 0, info.mu_minus, info.mu_plus) * alpha
    owner, gain = index[None], right[None]
    if signed:
        owner, gain = np.stack([index, cin + index]), np.stack([right, -left])
    constant = evaluate(phi.layer, bias)  # of a copy phi(0): the offset d
    references = cin * (1 + signed)
    place = Place((*space, references), owner, gain, np.broadcast_to(constant, (*space, len(alpha))))
    view = View(place, read, np.repeat([1.0, -1.0], cin)[:references], np.arange(references) % cin)
    return Univariate(phi.layer, alpha, index, ROUNDING * np.abs(constant)), view


def _node(
    parts: Parts, step: Sum, wide: nn.Sum, views: list[View], scale: Float[Array, " cout"]
) -> tuple[Node, View]:
    """A sum: the target's weights and the kept ones, their errors, and how far constants miss the biases."""
    read = parts.read[step.path]
    owner = np.full(len(read), -1)
    owner[parts.made.columns[step.path]] = np.arange(len(step.bias))[:, None]
    owner = owner[read]
    owned = owner >= 0
    target, kept, missed = [], [], []
    biases: Values = np.zeros(len(owner))
    for entry in step.maps:
        view = views[entry.reads]
        weight = entry.weight[..., view.inputs, :] / view.scale[:, None] * scale
        value = parts.kept(entry.path, "kernel")[..., view.read, :][..., read]
        sums = np.zeros((len(view.inputs), *value.shape[:-2], value.shape[-1]))
        by_channel = np.moveaxis(value, -2, 0)
        for index, gain in zip(view.place.owner, view.place.gain, strict=True):
            np.add.at(sums, index, by_channel * gain.reshape(-1, *(1,) * (value.ndim - 1)))
        error = np.moveaxis(sums, 0, -2) - np.where(owned, weight[..., owner], 0.0)
        biases = biases + parts.kept(entry.path, "bias")[read]
        for maps, kernel in ((target, weight), (kept, value), (missed, error)):
            maps.append(entry._replace(weight=kernel))
    carry = _carry(step, wide, views, owner, read, scale)
    bias = step.bias * scale
    aim = np.where(owned, bias[owner], 0.0)
    zero = np.zeros(len(owner))
    copied = Sum(step.path, tuple(kept), carry, zero, zero)
    constant = summed(copied._replace(bias=biases), [view.place.constant[None] for view in views])[0]
    rounding = 8 * UNIT * (np.abs(aim) + np.abs(constant) + np.abs(biases)) + sum(
        gamma(terms(entry.weight)) * _size(entry, views[entry.reads].place.constant) for entry in kept
    )
    offset = np.where(owned, constant - aim, 0.0)
    node = Node(
        Sum(step.path, tuple(target), step.carry, bias, 8 * UNIT * np.abs(bias)),
        Sum(step.path, tuple(missed), None, offset, rounding),
        copied,
    )
    gain = owned.astype(np.float64)[None]
    shape = (*constant.shape[:-1], len(scale))
    place = Place(shape, np.maximum(owner, 0)[None], gain, np.where(owned, 0.0, constant))
    return node, View(place, read, scale, np.arange(len(scale)))


def _size(entry: Map, constant: Float[Array, "..."]) -> Float[Array, "..."]:
    return correlate(entry.layer, np.abs(constant)[None], np.abs(entry.weight))[0]


def _carry(
    step: Sum, wide: nn.Sum, views: list[View], owner: Array, read: Array, scale: Array
) -> Carry | None:
    """The skip among the channels read; copies are carried to copies of the right channel, of one scale."""
    if step.carry is None:
        return None
    reads, stride, channels = step.carry
    view, skip = views[reads], wide.skips[0].layer
    number = np.where(view.read, np.cumsum(view.read) - 1, -1)
    ticket = (np.arange(len(read)) if skip is None else np.array(skip.channels))[read]  # pyright: ignore
    ticket = np.where(ticket >= 0, number[ticket], -1)
    before = np.where(ticket >= 0, np.where(view.place.owned, view.place.owner[0], -1)[ticket], -1)
    if len(view.place.owner) > 1 or (before != np.where(owner >= 0, channels[owner], -1)).any():
        raise ValueError(
            f"certificate: the skip of {step.path} does not carry copies to copies of the same channel"
        )
    if (np.where(channels >= 0, view.scale[channels], scale) != scale).any():
        raise ValueError(f"certificate: scales differ on the two sides of the carried skip of {step.path}")
    return Carry(reads, stride, ticket)


def _same(step: Apply, view: View) -> tuple[Same, View]:
    """The same function on every channel of target and ticket."""
    place, layer = view.place, step.layer
    if isinstance(layer, Flatten):
        return _flat(step, layer, view)
    if isinstance(layer, Activation) and not info_of(layer).homogeneous and (view.scale != 1).any():
        raise ValueError(f"certificate: {layer.kind} is not positively homogeneous, and its input is scaled")
    constant = applied(layer, place.constant[None])[0]
    if isinstance(layer, Activation):
        constant = np.where(place.owned, 0.0, constant)
    place = place._replace(shape=(*constant.shape[:-1], place.shape[-1]), constant=constant)
    return Same(layer, step.reads, ROUNDING * np.abs(constant)), view._replace(place=place)


def _flat(step: Apply, layer: Flatten, view: View) -> tuple[Same, View]:
    """Features in the layer's order; the target's and the ticket's channels alike."""
    *space, channels = view.place.shape
    positions = int(np.prod(space))
    flat = layer.order == "hwc"

    def spread(values: Array) -> Array:
        """What each channel has, for each feature."""
        return np.tile(values, positions) if flat else np.repeat(values, positions, -1)

    def numbers(index: Array, count: int) -> Array:
        """Numbers of channels as numbers of features."""
        size = index.shape[-1]
        at = np.repeat(np.arange(positions), size) if flat else np.tile(np.arange(positions), size)
        return at * count + spread(index) if flat else spread(index) * positions + at

    constant = moved(layer, view.place.constant[None])[0]
    place = Place(
        (positions * channels,), numbers(view.place.owner, channels), spread(view.place.gain), constant
    )
    inputs = numbers(view.inputs, int(view.inputs.max()) + 1)
    same = Same(layer, step.reads, np.zeros(len(constant)))
    return same, View(place, spread(view.read), spread(view.scale), inputs)
