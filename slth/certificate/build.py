"""The `Pair` of a target and its ticket, from a construction, in float64."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Values, correlate, gamma, moved, moved_transposed, terms
from slth.certificate.pair import Node, Pair, Place, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of
from slth.certificate.steps import Apply, Fixed, Map, Sum, applied, lower, summed
from slth.construction import Construction
from slth.construction.balance import skip_kernel
from slth.nn import by_layer
from slth.nn.graph import graph, is_nonnegative, value_shapes
from slth.nn.layers import Activation
from slth.nn.pooling import Flatten
from slth.nn.prune import read_channels
from slth.source.layout import terms_of
from slth.types import Params, Shape

Array = np.ndarray


class View(NamedTuple):
    """A place, and what only the building of a pair needs to know of it."""

    place: Place
    read: Bool[Array, " source_channels"]
    """Which of the source's channels something reads."""
    scale: Float[Array, " references"]
    """d, the factor of each value of the target; -1 times it for x-."""
    inputs: Int[Array, " references"]
    """Which input of the target's own layers each value is, or is a part of."""
    lines: int | None = None
    """Of univariate channels, the place of x+ and x-, or of x, whose multiples they are."""


class Parts(NamedTuple):
    """The ticket by layer."""

    made: Construction
    kept: dict[str, Params]
    """What the mask keeps of the source's parameters, 0 elsewhere."""
    read: dict[str, Bool[Array, " source_channels"]]


def build(made: Construction, *, signed: bool) -> Pair:
    """Target and ticket side by side, reduced to the channels that the ticket reads.

    Args:
      made: a construction (`slth.construct`).
      signed: whether a number that the source's first layer reads may be negative.
    Raises: ValueError for a source that is not of this target.
    """
    network = made.source.network
    layout = made.source.checked_layout(made.target.network)
    lead, steps = lower(made, made.target.params)
    targets = {step.path: step for step in steps if isinstance(step, Sum)}
    last = [*targets.values()][-1]
    scales = made.scales | {last.path: np.full(len(last.bias), 1 / made.factor)}
    reads = read_channels(network, made.mask)
    # A value of which no channel is read keeps its first one.
    read = {path: own if own.any() else np.arange(len(own)) == 0 for path, own in reads.items()}
    parts = Parts(made, by_layer(made.ticket.params), read)
    views, built = [_input(value_shapes(network)[len(lead)])], []
    place = {len(lead): 0}  # by the source's values
    fronts = {one.path for one in layout.univariate}
    before: dict[int, nn.Sum] = {}  # univariate layers by the values that they make, before phi

    def add(item: Node | Univariate | Apply, view: View) -> int:
        built.append(item)
        views.append(view)
        return len(built)

    for value, step in enumerate(graph(network)[len(lead) :], start=len(lead) + 1):
        if isinstance(step, nn.Sum) and step.path in fronts:
            before[value] = step
        elif isinstance(step, nn.Sum):
            target, scale = targets[step.path], np.asarray(scales[step.path], np.float64)
            place[value] = add(*_node(parts, target, step, views, place, scale))
        elif step.value in before:
            front, phi = before[step.value], step.layer
            assert isinstance(phi, Activation)
            x = front.maps[0].reads
            at = lines = place[x]
            if signed if at == 0 else not is_nonnegative(network, x):
                for part in _signs(front, views[at], at, len(views)):
                    lines = add(*part)
            place[value] = add(*_univariate(parts, front, phi, views[at], views[lines], (at, lines)))
        else:
            assert isinstance(step.layer, Fixed)
            at = place[step.value]
            view, lines = views[at], views[at].lines
            if lines is not None:
                view = view._replace(lines=add(*_same(Apply(step.layer, lines), views[lines])))
            place[value] = add(*_same(Apply(step.layer, at), view))
    return Pair(lead, tuple(view.place for view in views), tuple(built), made.factor)


def _input(shape: Shape) -> View:
    """Place 0: every channel stands for itself, exactly."""
    channels, ones = np.arange(shape[-1]), np.ones(shape[-1])
    return View(Place(shape, channels[None], ones[None], np.zeros(shape)), ones > 0, ones, channels)


def _signs(front: nn.Sum, view: View, at: int, following: int) -> Iterator[tuple[Node | Apply, View]]:
    """The two steps from a value x that a univariate layer reads to x+ and x-: relu of x and -x.

    Args:
      at, following: the place of x, and that of x and -x.
    """
    (entry,) = front.maps
    place, count = view.place, len(view.scale)

    def both(channels: int) -> Sum:
        eye = np.eye(channels)
        weight = np.concatenate([eye, -eye], 1).reshape(*getattr(entry.layer, "kernel", ()), channels, -1)
        return Sum("", (Map("", entry.layer, at, weight),), zero := np.zeros(2 * channels), zero)

    kept = both(len(place.owner[0]))
    split = Place(
        (*place.shape[:-1], 2 * count),
        np.concatenate([place.owner, count + place.owner], 1),
        np.concatenate([place.gain, place.gain], 1),
        np.concatenate([place.constant, place.constant], -1),
    )
    view = View(split, view.read, np.append(view.scale, -view.scale), np.append(view.inputs, view.inputs))
    yield Node(both(count), kept._replace(maps=()), kept), view
    yield Apply(Activation("relu"), following), view


def _univariate(
    parts: Parts, front: nn.Sum, phi: Activation, x: View, lines: View, at: tuple[int, int]
) -> tuple[Univariate, View]:
    """phi(alpha x) = phi(0) + p x+ - q x-, with p and q its slopes in x on both sides of 0.

    Args:
      x, lines: what the layer reads, and x+ and x-, or again x; ``at`` are their places.
    """
    read = parts.read[front.path]
    kernel, bias = _kept(parts.kept[front.path], read)
    kernel = kernel.reshape(*kernel.shape[-2:])[x.read]
    if ((kernel != 0).sum(0) + (bias != 0) > 1).any():
        raise ValueError(f"certificate: a channel of the source's layer {front.path} is not univariate")
    index = np.abs(kernel).argmax(0)
    alpha = kernel[index, np.arange(len(bias))]
    info = info_of(phi)
    right = np.where(alpha > 0, info.mu_plus, info.mu_minus) * alpha
    left = np.where(alpha > 0, info.mu_minus, info.mu_plus) * alpha
    owner = x.place.owner[0][index]
    owners, gains = np.stack([owner, len(x.scale) + owner]), np.stack([right, -left])
    signs = len(lines.scale) // len(x.scale)
    constant = evaluate(phi, bias)  # of a copy phi(0): the offset d
    spread = np.broadcast_to(constant, (*lines.place.shape[:-1], len(alpha)))
    place = Place(lines.place.shape, owners[:signs], gains[:signs], spread)
    view = View(place, read, lines.scale, lines.inputs, at[1])
    return Univariate(phi, alpha, index, ROUNDING * np.abs(constant), *at), view


def _node(
    parts: Parts,
    step: Sum,
    wide: nn.Sum,
    views: list[View],
    places: dict[int, int],
    scale: Float[Array, " cout"],
) -> tuple[Node, View]:
    """A sum: the target's weights and the kept ones, their errors, and how far constants miss the biases."""
    read = parts.read[step.path]
    owner = np.full(len(read), -1)
    owner[parts.made.columns[step.path]] = np.arange(len(step.bias))[:, None]
    owner = owner[read]
    owned = owner >= 0
    target, kept, missed, shared = [], [], [], []
    biases: Values = np.zeros(len(owner))
    for path, term in terms_of(wide).items():
        (entry,) = (one for one in step.maps if one.path == path)
        at = places[term.reads]
        view, taps = views[at], entry.weight.shape[:-2]
        own = parts.kept.get(path)
        if own is None:
            assert isinstance(term, nn.Skip)
            own = {"kernel": skip_kernel(term, {}, len(view.read))}
        value, constants = _kept(own, read)
        biases = biases + constants
        value = value.reshape(*taps, len(view.read), -1)[..., view.read, :]
        weight = entry.weight[..., view.inputs, :] / view.scale[:, None] * scale
        sums = np.zeros((len(view.inputs), *taps, value.shape[-1]))
        by_channel = np.moveaxis(value, -2, 0)
        for index, gain in zip(view.place.owner, view.place.gain, strict=True):
            np.add.at(sums, index, by_channel * gain.reshape(-1, *(1,) * (value.ndim - 1)))
        sums = np.moveaxis(sums, 0, -2)
        error = sums - np.where(owned, weight[..., owner], 0.0)
        lines = at if view.lines is None else view.lines
        for maps, place, kernel in ((target, lines, weight), (missed, lines, error), (kept, at, value)):
            maps.append(replace(entry, reads=place, weight=kernel))
        if lines != at:
            shared.append(replace(entry, reads=lines, weight=sums[..., views[lines].place.owner[0], :]))
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
        copied._replace(maps=(*kept, *shared)),
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
    return view._replace(place=place, read=spread(view.read), scale=spread(view.scale), inputs=inputs)
