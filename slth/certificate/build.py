"""The `Pair` of a target and its ticket, from a construction, in float64."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Values, correlate, gamma, moved, moved_transposed, terms
from slth.certificate.pair import Node, Pair, Place, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of
from slth.certificate.steps import Apply, Sum, applied, lower, summed
from slth.construction import Construction
from slth.construction.balance import skip_kernel
from slth.construction.prune import read_channels
from slth.nn import by_layer
from slth.nn.graph import graph, value_shapes
from slth.nn.layers import Activation
from slth.nn.pooling import Flatten
from slth.types import Params

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
    kept: dict[str, Params]
    """What the mask keeps of the source's parameters, 0 elsewhere."""
    read: dict[str, Bool[Array, " source_channels"]]


def build(made: Construction, *, signed: bool) -> Pair:
    """Target and ticket side by side, reduced to the channels that the ticket reads.

    Args:
      made: a construction of L + 1.
      signed: whether a number that the source's first layer reads may be negative.
    Raises: ValueError for a source of 2L, or one that is not of this target.
    """
    if made.source.layout_for(made.target.network).depth == "2L":
        raise ValueError(
            "certificate: it bounds tickets of L+1 layers, and this source has 2L: make it with depth L+1"
        )
    lead, steps = lower(made, made.target.params)
    wide = graph(made.source.network)
    behind = wide[len(lead) + 2 :]  # and behind the extra first layer
    mine = [*lead, *(step.layer if isinstance(step, Apply) else step.path for step in steps)]
    others = (*wide[: len(lead)], *behind)
    if mine != [step.layer if isinstance(step, nn.Apply) else step.path for step in others]:
        raise ValueError(
            "certificate: the layers of the source are not those of the target: make it with "
            "slth.Source.of(target)"
        )
    parts = Parts(made, by_layer(made.ticket.params), read_channels(made.source.network, made.mask))
    first, view = _univariate(parts, len(lead), signed)
    views: list[View] = [view]
    built: list[Node | Apply] = []
    last = [step for step in steps if isinstance(step, Sum)][-1]
    scales = {**made.scales, last.path: np.full(len(last.bias), 1 / made.factor)}
    for step, source_step in zip(steps, behind, strict=True):
        if isinstance(step, Sum):
            assert isinstance(source_step, nn.Sum)
            item, view = _node(parts, step, source_step, views, np.asarray(scales[step.path], np.float64))
        else:
            item, view = _same(step, views[step.reads])
        built.append(item)
        views.append(view)
    return Pair(lead, signed, first, tuple(view.place for view in views), tuple(built), made.factor)


def _univariate(parts: Parts, number: int, signed: bool) -> tuple[Univariate, View]:
    """Place 0, behind step ``number`` of the source and its activation: phi(alpha x) = phi(0) + p x+ - q x-,
    with p and q its slopes in x on both sides of 0."""
    network = parts.made.source.network
    node, phi = graph(network)[number : number + 2]
    assert isinstance(phi, nn.Apply)
    assert isinstance(phi.layer, Activation)
    *space, cin = value_shapes(network)[number]
    read = parts.read[node.path]
    kernel, bias = _kept(parts.kept[node.path], read)
    kernel = kernel.reshape(cin, -1)
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
        view, taps = views[entry.reads], entry.weight.shape[:-2]
        own = parts.kept.get(entry.path) or {"kernel": skip_kernel(wide.skips[0], {}, len(view.read))}
        value, constants = _kept(own, read)
        biases = biases + constants
        value = value.reshape(*taps, len(view.read), -1)[..., view.read, :]
        weight = entry.weight[..., view.inputs, :] / view.scale[:, None] * scale
        sums = np.zeros((len(view.inputs), *taps, value.shape[-1]))
        by_channel = np.moveaxis(value, -2, 0)
        for index, gain in zip(view.place.owner, view.place.gain, strict=True):
            np.add.at(sums, index, by_channel * gain.reshape(-1, *(1,) * (value.ndim - 1)))
        error = np.moveaxis(sums, 0, -2) - np.where(owned, weight[..., owner], 0.0)
        for maps, kernel in ((target, weight), (kept, value), (missed, error)):
            maps.append(replace(entry, weight=kernel))
    bias = step.bias * scale
    aim = np.where(owned, bias[owner], 0.0)
    zero = np.zeros(len(owner))
    copied = Sum(step.path, tuple(kept), zero, zero)
    constant = summed(copied._replace(bias=biases), [view.place.constant[None] for view in views])[0]
    rounding = 8 * UNIT * (np.abs(aim) + np.abs(constant) + np.abs(biases)) + sum(
        gamma(terms(entry.weight))
        * correlate(entry.layer, np.abs(views[entry.reads].place.constant)[None], np.abs(entry.weight))[0]
        for entry in kept
    )
    offset = np.where(owned, constant - aim, 0.0)
    node = Node(
        Sum(step.path, tuple(target), bias, 8 * UNIT * np.abs(bias)),
        Sum(step.path, tuple(missed), offset, rounding),
        copied,
    )
    gain = owned.astype(np.float64)[None]
    shape = (*constant.shape[:-1], len(scale))
    place = Place(shape, np.maximum(owner, 0)[None], gain, np.where(owned, 0.0, constant))
    return node, View(place, read, scale, np.arange(len(scale)))


def _kept(own: Params, read: Bool[Array, " channels"]) -> tuple[Array, Array]:
    """What is kept of a layer's kernel, and of its bias (nothing where it has none), for channels read."""
    kernel, bias = own["kernel"], own.get("bias", np.zeros(len(read)))
    return np.asarray(kernel, np.float64)[..., read], np.asarray(bias, np.float64)[read]


def _same(step: Apply, view: View) -> tuple[Apply, View]:
    """The same function on every channel of target and ticket."""
    place, layer = view.place, step.layer
    if isinstance(layer, Flatten):
        return step, _flat(layer, view)
    constant = applied(layer, place.constant[None])[0]
    if isinstance(layer, Activation):
        if not info_of(layer).homogeneous and (view.scale != 1).any():
            raise ValueError(
                f"certificate: {layer.kind} is not positively homogeneous, and its input is scaled"
            )
        constant = np.where(place.owned, 0.0, constant)
    place = place._replace(shape=(*constant.shape[:-1], place.shape[-1]), constant=constant)
    return step._replace(rounding=ROUNDING * np.abs(constant)), view._replace(place=place)


def _flat(layer: Flatten, view: View) -> View:
    """Features in the layer's order; the target's and the ticket's channels alike."""
    *space, channels = view.place.shape

    def spread(values: Array) -> Array:
        """What each channel has, for each feature."""
        return moved(layer, np.broadcast_to(values, (1, *space, len(values))))[0]

    def numbers(index: Array, count: int) -> Array:
        """Numbers of channels as numbers of features."""
        features = moved_transposed(layer, np.arange(math.prod(space) * count)[None], (*space, count))
        return moved(layer, features[..., index])[0]

    owner = np.stack([numbers(row, channels) for row in view.place.owner])
    gain = np.stack([spread(row) for row in view.place.gain])
    place = Place((math.prod(view.place.shape),), owner, gain, moved(layer, view.place.constant[None])[0])
    inputs = numbers(view.inputs, int(view.inputs.max()) + 1)
    return View(place, spread(view.read), spread(view.scale), inputs)
