"""The `Pair` of a target and its ticket, from a construction, in float64."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Values, gamma, moved, moved_transposed, terms
from slth.certificate.pair import Joined, Node, Pair, Place, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of
from slth.certificate.steps import Apply, Fixed, Join, Map, Sum, absolute, applied, lower, summed, ungrouped
from slth.construction import Construction
from slth.construction.balance import skip_kernel
from slth.nn import by_layer
from slth.nn.graph import graph, is_nonnegative, value_shapes
from slth.nn.layers import Activation, Conv, Linear
from slth.nn.pooling import Flatten, Subsample
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

    def add(item: Node | Univariate | Joined | Apply, view: View) -> int:
        built.append(item)
        views.append(view)
        return len(built)

    for value, step in enumerate(graph(network)[len(lead) :], start=len(lead) + 1):
        if isinstance(step, nn.Sum) and step.path in fronts:
            before[value] = step
        elif isinstance(step, nn.Sum):
            target, scale = targets[step.path], np.asarray(scales[step.path], np.float64)
            place[value] = add(*_node(parts, target, step, views, place, scale))
        elif isinstance(step, nn.Join):
            place[value] = add(*_joined(tuple(place[one] for one in step.reads), views))
        elif step.value in before:
            front, phi = before[step.value], step.layer
            assert isinstance(phi, Activation)
            x = front.maps[0].reads
            at = lines = place[x]
            if signed if at == 0 else not is_nonnegative(network, x):
                for part in _signs(front, views[at], at, len(views)):
                    lines = add(*part)
            place[value] = add(*_univariate(parts, front, phi, views[at], views[lines], (at, lines)))
        elif isinstance(step.layer, Subsample):
            at = place[step.value]
            place[value] = add(*_chosen(step.layer, at, views[at]))
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
    layer, _ = ungrouped(front.maps[0].layer, len(view.read))
    place, count = view.place, len(view.scale)

    def both(channels: int) -> Sum:
        eye = np.eye(channels)
        weight = np.concatenate([eye, -eye], 1).reshape(*getattr(layer, "kernel", ()), channels, -1)
        return Sum("", (Map("", layer, at, weight, None),), zero := np.zeros(2 * channels), zero)

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
    kernel = kernel.reshape(*kernel.shape[-2:])
    channels = front.maps[0].layer.inputs(len(x.read))
    channels = channels if channels.shape[1] == 1 else channels[:, read]
    kernel = np.where(x.read[channels], kernel, 0.0)
    if ((kernel != 0).sum(0) + (bias != 0) > 1).any():
        raise ValueError(
            f"certificate: a channel of the source's layer {front.path} is not univariate: its mask keeps"
            " several inputs. Leave this layer as it was constructed"
        )
    row, column = np.abs(kernel).argmax(0), np.arange(len(bias))
    alpha = kernel[row, column]
    index = _numbers(x.read)[np.broadcast_to(channels, kernel.shape)[row, column]]
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
        view = views[at]
        own = parts.kept.get(path)
        if own is None:
            assert isinstance(term, nn.Skip)
            own = {"kernel": skip_kernel(term, {}, len(view.read))}
        value, constants = _kept(own, read)
        biases = biases + constants
        lines = at if view.lines is None else view.lines
        layer = term.layer if isinstance(term, nn.Map) else entry.layer
        maps_of = _by_group if isinstance(layer, Conv) and layer.groups > 1 else _dense
        found = maps_of(Term(entry, layer, value, read, view, views[lines].place.owner[0]), owner, scale)
        target.append(replace(found.target, reads=lines))
        missed.append(replace(found.missed, reads=lines))
        kept.append(replace(found.kept, reads=at))
        if lines != at:
            shared.append(replace(found.shared, reads=lines))
    bias = step.bias * scale
    aim = np.where(owned, bias[owner], 0.0)
    zero = np.zeros(len(owner))
    copied = Sum(step.path, tuple(kept), zero, zero)
    constant = summed(copied._replace(bias=biases), [view.place.constant[None] for view in views])[0]
    rounding = 8 * UNIT * (np.abs(aim) + np.abs(constant) + np.abs(biases)) + sum(
        gamma(terms(entry.weight)) * absolute(entry, np.abs(views[entry.reads].place.constant)[None])[0]
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


class Term(NamedTuple):
    """A linear map of a node, as the ticket has it."""

    entry: Map
    """The target's."""
    layer: Linear
    """The source's."""
    value: Float[Array, "*taps rows cout"]
    """What is kept of the source's kernel, for channels read."""
    read: Bool[Array, " source_channels"]
    """Which outputs of the source's layer something reads."""
    view: View
    """What it reads itself."""
    copies: Int[Array, " channels"]
    """The value of the target that each channel of the ticket stands for where `View.lines` are."""


class Maps(NamedTuple):
    """A `Term` as maps of the target's values and of the ticket's differences."""

    target: Map
    missed: Map
    kept: Map
    shared: Map
    """The sums v~, of differences where `View.lines` are."""


def _dense(term: Term, owner: Int[Array, " cout"], scale: Float[Array, " references"]) -> Maps:
    """The maps of a layer of one group.

    Args:
      owner: by channel of the ticket the output of the target that it stands for, -1 for none.
    """
    entry, value, view = term.entry, term.value, term.view
    taps, own = entry.weight.shape[:-2], entry.weight
    if entry.inputs is not None:  # the source's layer has one group where the target's has several
        own = np.zeros((*taps, view.inputs.max() + 1, own.shape[-1]))
        own[..., entry.inputs, np.arange(own.shape[-1])] = entry.weight
    value = value.reshape(*taps, len(view.read), -1)[..., view.read, :]
    weight = own[..., view.inputs, :] / view.scale[:, None] * scale
    sums = np.zeros((len(view.inputs), *taps, value.shape[-1]))
    by_channel = np.moveaxis(value, -2, 0)
    for index, gain in zip(view.place.owner, view.place.gain, strict=True):
        np.add.at(sums, index, by_channel * gain.reshape(-1, *(1,) * (value.ndim - 1)))
    sums = np.moveaxis(sums, 0, -2)
    error = sums - np.where(owner >= 0, weight[..., owner], 0.0)
    weights = weight, error, value, sums[..., term.copies, :]
    return Maps(*(replace(entry, weight=one, inputs=None) for one in weights))


def _by_group(term: Term, owner: Int[Array, " cout"], scale: Float[Array, " references"]) -> Maps:
    """The maps of a layer of several groups; a row of a kernel is another input for each group.

    Raises: ValueError where a copy stands in another group than what it carries.
    """
    entry, layer, value, read, view, copies = term
    assert isinstance(layer, Conv)
    assert entry.inputs is not None
    # The target's values that are (parts of) each input, as x+ and x-, and their rows in the kernels.
    parts = np.argsort(view.inputs, kind="stable").reshape(view.inputs.max() + 1, -1)
    inputs = np.moveaxis(parts[entry.inputs], -1, 0).reshape(-1, entry.inputs.shape[1])
    row = np.zeros(len(view.inputs), int)
    row[inputs] = np.arange(len(inputs))[:, None]
    weight = np.concatenate([entry.weight] * parts.shape[1], -2) / view.scale[inputs] * scale
    # A channel that carries no output reads what all outputs of its group do.
    first = layer.group[read] * (entry.weight.shape[-1] // layer.groups)
    aims = inputs[:, np.where(owner >= 0, owner, first)]

    source = layer.inputs(len(view.read))[:, read]
    value = np.where(view.read[source], value, 0.0)
    used = value.reshape(-1, *value.shape[-2:]).any((0, 2))
    value, channels = value[..., used, :], _numbers(view.read)[source[used]]
    sums = np.zeros((*aims.shape, *value.shape[:-2]))
    columns, by_row = np.arange(len(owner)), np.moveaxis(value, (-2, -1), (0, 1))
    kept = by_row.any(tuple(range(2, by_row.ndim)))
    for carried, gains in zip(view.place.owner, view.place.gain, strict=True):
        index, gain = row[carried[channels]], gains[channels]
        if (kept & (gain != 0) & (aims[index, columns] != carried[channels])).any():
            raise ValueError(f"certificate: {entry.path} reads a copy of a value of another group")
        np.add.at(sums, (index, columns), by_row * gain.reshape(*gain.shape, *(1,) * (value.ndim - 2)))
    sums = np.moveaxis(sums, (0, 1), (-2, -1))
    error = sums - np.where(owner >= 0, weight[..., owner], 0.0)

    standing = np.full(len(view.inputs), -1)
    standing[copies] = np.arange(len(copies))
    shared = np.where(standing[aims] >= 0, sums, 0.0)
    return Maps(
        replace(entry, weight=weight, inputs=inputs),
        replace(entry, weight=error, inputs=aims),
        replace(entry, weight=value, inputs=channels),
        replace(entry, weight=shared, inputs=np.maximum(standing[aims], 0)),
    )


def _numbers(read: Bool[Array, " channels"]) -> Int[Array, " channels"]:
    """Numbers of channels among those that are read; 0 for one that is not."""
    return np.where(read, np.cumsum(read) - 1, 0)


def _kept(own: Params, read: Bool[Array, " channels"]) -> tuple[Array, Array]:
    """What is kept of a layer's kernel, and of its bias (nothing where it has none), for channels read."""
    kernel, bias = own["kernel"], own.get("bias", np.zeros(len(read)))
    return np.asarray(kernel, np.float64)[..., read], np.asarray(bias, np.float64)[read]


def _joined(reads: tuple[int, ...], views: list[View]) -> tuple[Joined, View]:
    """A concatenation of the values at some places."""
    sides = [views[at] for at in reads]
    assert all(view.lines is None for view in sides), "univariate channels stand before linear layers alone"
    values = np.cumsum([0, *(len(view.scale) for view in sides)])
    inputs = np.cumsum([0, *(view.inputs.max() + 1 for view in sides)])

    def moved_by(starts: Int[Array, " sides"], numbers: Iterator[Int[Array, "... channels"]]) -> Array:
        return np.concatenate([one + start for one, start in zip(numbers, starts, strict=False)], -1)

    place = Place(
        (*sides[0].place.shape[:-1], int(values[-1])),
        moved_by(values, (view.place.owner for view in sides)),
        np.concatenate([view.place.gain for view in sides], -1),
        np.concatenate([view.place.constant for view in sides], -1),
    )
    read, scale = (np.concatenate(a) for a in zip(*((view.read, view.scale) for view in sides), strict=True))
    view = View(place, read, scale, moved_by(inputs, (view.inputs for view in sides)))
    return Joined(Join(reads), np.arange(len(place.gain[0]))), view


def _chosen(layer: Subsample, at: int, view: View) -> tuple[Joined, View]:
    """The channels of a concatenation that a source of L + 1 goes on with."""
    chosen, place = np.array(layer.channels), view.place
    if any(step > 1 for step in layer.stride) or chosen.min() < 0:
        raise ValueError(f"certificate: {layer} is no layer of a source")
    read = view.read[chosen]
    channels = _numbers(view.read)[chosen[read]]
    place = place._replace(
        owner=place.owner[:, channels],
        gain=place.gain[:, channels],
        constant=place.constant[..., channels],
    )
    return Joined(Join((at,)), channels), view._replace(place=place, read=read)


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
