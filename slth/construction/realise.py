"""One step of a construction: streams in, stream and masks out. Nothing that comes in is changed."""

import time
from collections.abc import Mapping
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from slth.construction import noise as noise_of
from slth.construction.biases import safe_taps
from slth.construction.blocks import order_for_output
from slth.construction.groups import problems_of
from slth.construction.hosts import solve_shared
from slth.construction.misfit import Lost, lost_of
from slth.construction.plan import MapPlan, NodePlan, Plan
from slth.construction.state import Part, Problem, Rows, Solved, Stats, Stream, copied_stream
from slth.construction.univariate import univariate_stream
from slth.nn.activations import activation_info
from slth.nn.forward import parameter_shapes
from slth.nn.graph import Apply, Join, Pointwise, Skip, Sum, behind, graph, linear_maps, value_shapes
from slth.nn.layers import Activation, Conv, Linear
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.nn.winograd import apply_tiles, suits_tiles, tiles_of
from slth.precision import in_32_bits
from slth.source import parameter
from slth.source.drawn import Drawn, drawn
from slth.source.layout import constant_side
from slth.types import Params

IMAGES = 32
"""Calibration images that go through a layer at a time."""
TILES = 1024
"""Tiles of a convolution that is worked out by tiles at a time (`slth.nn.winograd`)."""

State = Mapping[int, Stream]
"""The streams that later steps still read, by number of the value. A pytree of arrays."""


class LayerRecord(NamedTuple):
    """What happened in one node of the target.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> record = made.records[0]
      >>> record.path, record.parameters, record.kept < record.parameters
      ('a', 6864, True)
    """

    path: str
    stats: Stats
    kept: int
    parameters: int
    seconds: float
    copy_error: float | None = None
    """Relative L2 error of one copy's pre-activations on calibration images, if the ticket ran on them."""
    mean_error: float | None = None
    """The same of the mean of the copies."""
    lost: Lost = Lost()
    """Shares of the layer's power that no subset reaches (`slth.construction.misfit`)."""


class Node(NamedTuple):
    """What a construction chose for one node: all that the next ones, or another process, must know of it.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.construction import nodes_of, plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> first = next(nodes_of(plan_of(target, slth.Source.of(target, copies=5), slth.Best())))
      >>> sorted(first.masks), first.columns.shape, first.resumed
      (['a/kernel', 'univariate/bias', 'univariate/kernel'], (3, 5), False)
    """

    number: int
    """Of the node among the target's steps."""
    record: LayerRecord
    masks: dict[str, np.ndarray]
    """Masks of the source's parameters by path, univariate layers in front included."""
    columns: Int[np.ndarray, "cout copies"]
    """Source channels of the copies of each output."""
    solved: Solved
    resumed: bool = False
    """Whether an earlier process has solved it."""


@in_32_bits()
def realise_node(plan: Plan, node: NodePlan, state: State, before: Node | None = None) -> tuple[Stream, Node]:
    """One sum of linear maps (and of what is carried): its subsets, and the stream of its pre-activations.

    Args:
      before: what an earlier process has chosen for this node; it is taken over, and nothing solved again.
    """
    started = time.perf_counter()
    masks: dict[str, np.ndarray] = {}
    parts = []
    for entry in node.maps:
        stream = state[entry.reads]
        if entry.front is not None:
            stream, made = univariate_stream(plan, stream, entry.read, entry.front)
            masks |= made
        parts.append(_part(plan, entry, stream))
    parts, carried = tuple(parts), realise_carried(node, state)
    if before is None:
        columns = _order(plan, node, parts[0])[:, None] * node.copies + np.arange(node.copies)
    else:
        columns = before.columns
    rows = _rows(plan, node, parts[0], columns)
    smooth = not (plan.info.homogeneous or parts[0].stream.slots.carried)
    problem = Problem(parts, rows, carried, plan.source.multiplicity, plan.center, smooth, plan.measured)
    solved = solve_shared(plan.solver, problem, node.groups) if before is None else before.solved
    for part, mask in zip(parts, solved.masks, strict=True):
        name = f"{part.path}/kernel"
        masks[name] = part.read.kernel(mask, parameter_shapes(plan.source.network)[name])
    if solved.own is not None:
        masks[f"{parts[0].path}/bias"] = solved.own
    x, ticket = _realised(plan, node, problem, masks)
    noise, constants, usable = solved.noise, solved.constants, solved.usable
    if carried is not None:
        noise, constants = noise + carried.noise, constants + carried.constants
        usable = usable & carried.slots.usable
    copy = mean = None
    if x is not None and ticket is not None:
        noise, of_mean, power = (np.asarray(a, np.float64) for a in noise_of.copy_errors(x, ticket, columns))
        size = max(power.sum(), 1e-30)
        copy, mean = float((noise.mean(1).sum() / size) ** 0.5), float((of_mean.sum() / size) ** 0.5)
    stream = copied_stream(columns, constants, noise, usable, x, ticket)
    if before is not None:
        return stream, before._replace(masks=masks)
    kept, count = (sum(int(f(mask)) for mask in solved.masks) for f in (np.sum, np.size))
    seconds = time.perf_counter() - started
    lost = lost_of(problems_of(problem, node.groups))
    record = LayerRecord(node.path, solved.stats, kept, count, seconds, copy, mean, lost)
    return stream, Node(node.number, record, masks, columns, solved)


@in_32_bits()
def realise_apply(plan: Plan, number: int, step: Apply, state: State) -> Stream:
    """Activations and pooling: the same function on every channel of target and ticket."""
    stream, layer = state[step.value], step.layer
    if isinstance(layer, Flatten):
        return stream  # readers look behind it (`slth.construction.state.Read`)
    noise, constants = stream.noise, stream.constants
    match layer:
        case Activation(kind, slope):
            phi = activation_info(kind, slope).phi
            values = np.asarray(constants, np.float32)
            found = np.asarray(phi(values), np.float64)  # pyright: ignore[reportArgumentType]
            constants = np.where(np.isnan(constants), np.nan, found)
            if plan.seen is not None:
                noise = noise * np.asarray(plan.seen.slopes[number])[stream.slots.channel, None]
        case Pool(kind="mean", window=window):
            noise = noise / np.prod(window)
            if layer.count_padding and any(map(any, layer.padding)):
                constants = np.full_like(constants, np.nan)  # padding makes them differ by place
        case GlobalMean():
            noise = noise / np.prod(value_shapes(plan.target.network)[step.value][:-1])
    x, ticket = _apply(layer, stream.x), _apply(layer, stream.ticket)
    return stream._replace(noise=noise, constants=constants, x=x, ticket=ticket)


@in_32_bits()
def realise_join(plan: Plan, step: Join, state: State) -> Stream:
    """A concatenation: the copies of all sides, and the constants of one of them."""
    streams = [state[value] for value in step.reads]
    shared = streams[constant_side(plan.target.network, step)]
    widths = [stream.slots.members.size for stream in streams]
    starts = np.cumsum([0, *widths])[:-1]
    columns = np.concatenate(
        [stream.slots.members + start for stream, start in zip(streams, starts, strict=True)]
    )
    noise = np.concatenate([stream.noise for stream in streams])
    usable = np.concatenate([stream.slots.usable for stream in streams])
    seen = [stream.x for stream in streams if stream.x is not None]
    x = jnp.concatenate(seen, -1) if len(seen) == len(streams) else None
    runs = [stream.ticket for stream in streams if stream.ticket is not None]
    ticket = None
    if runs and shared.ticket is not None:
        copies = [run[..., :width] for run, width in zip(runs, widths, strict=True)]
        ticket = jnp.concatenate([*copies, shared.ticket[..., shared.slots.members.size :]], -1)
    return copied_stream(columns, shared.constants, noise, usable, x, ticket)


def _part(plan: Plan, entry: MapPlan, stream: Stream) -> Part:
    rms, mean = np.ones(len(stream.slots.channel)), np.zeros(len(stream.slots.channel))
    if plan.seen is not None:
        center = plan.absorbs or (plan.center and stream.slots.carried)
        seen = plan.seen.values[entry.reads]
        rms, mean = noise_of.slot_size(seen, stream.slots, plan.info, center=center)
    weight, random = _weights(plan, entry)
    safe = safe_taps(entry.layer, entry.read)
    step = entry.step * abs(float(stream.slots.factor[0]))
    wide = linear_maps(plan.source.network)[entry.path].layer
    beside = wide.beside[0] if isinstance(wide, Conv) else 0
    return Part(
        entry.path,
        entry.layer,
        weight,
        random,
        entry.read,
        stream,
        safe,
        rms,
        mean,
        entry.scale,
        step,
        beside,
    )


def _weights(plan: Plan, entry: MapPlan) -> tuple[np.ndarray, Drawn]:
    """The target's and the source's weights of a linear map, tap by tap."""
    random = drawn(plan.source, entry.path)
    if entry.read.flat:
        random = random._replace(rows=entry.read.by_tap(random.rows.reshape(-1, 1))[..., 0])
    return entry.read.by_tap(np.asarray(entry.values["kernel"])), random


@in_32_bits()
def realise_carried(node: NodePlan, state: State) -> Stream | None:
    """What is added from copy to copy in a node, exactly: a parameter-free skip, a branch that ends in an
    activation, or the sum of both."""
    return reduce(_added, (_carried(*pair, state) for pair in node.carried), None)


def _added(one: Stream | None, other: Stream) -> Stream:
    """The sum of two streams of copies."""
    if one is None:
        return other
    x, ticket = (
        None if a is None or b is None else a + b for a, b in ((one.x, other.x), (one.ticket, other.ticket))
    )
    usable = one.slots.usable & other.slots.usable
    constants, noise = one.constants + other.constants, one.noise + other.noise
    return copied_stream(one.slots.members, constants, noise, usable, x, ticket)


def _carried(target: Skip, source: Skip, state: State) -> Stream:
    """What a skip brings to a node."""
    stream = state[target.reads]
    if not isinstance(target.layer, Subsample):
        return stream
    index = np.array(target.layer.channels)
    empty = index[:, None] < 0
    noise, usable = np.where(empty, 0, stream.noise[index]), empty | stream.slots.usable[index]
    columns = np.arange(noise.size).reshape(noise.shape)
    x, ticket = _apply(target.layer, stream.x), _apply(source.layer, stream.ticket)
    return copied_stream(columns, stream.constants, noise, usable, x, ticket)


def _rows(plan: Plan, node: NodePlan, part: Part, columns: Int[np.ndarray, "cout copies"]) -> Rows:
    """What the rows of a node should be beside its weights: biases, and the rows of its constants."""
    spare = part.random.shape[2] - columns.size
    biases = (np.asarray(entry.values.get("bias", 0.0), np.float64) for entry in node.maps)
    # A row of constants adds about a quarter of a scale for each variable; 15 at most solve a bias.
    size = node.need * 8 / max(1, min(spare, 15))
    constant = np.full(spare, np.nan if node.carried else size)
    name = f"{part.path}/bias"
    has_own = name in parameter_shapes(plan.source.network)
    own = np.asarray(parameter(plan.source, name)) if has_own else None
    return Rows(sum(biases, np.zeros(len(columns))), columns, constant, own)


def _order(plan: Plan, node: NodePlan, part: Part) -> Int[np.ndarray, " cout"]:
    """The order of the copies' blocks of a node: chosen where no residual sum ties them."""
    network, natural = plan.target.network, np.arange(part.layer.features)
    later = [other for other in plan.nodes.values() if other.number > node.number]
    tied = len(later) != 1 or bool(node.carried) or "/" in node.path
    if tied or plan.layout.depth == "2L" or plan.solver.solves_rows:
        return natural
    (last,) = later[0].maps
    step = graph(network)[node.number]
    alone = isinstance(step, Sum) and behind(network, last.reads).name == step.name
    if not alone or node.groups > 1 or later[0].groups > 1:
        return natural
    return order_for_output(part, *_weights(plan, last), plan.source.multiplicity)


def _realised(
    plan: Plan, node: NodePlan, problem: Problem, masks: dict[str, np.ndarray]
) -> tuple[Array | None, Array | None]:
    """Target's and ticket's pre-activations of a node on the calibration images, where there are any."""
    x = ticket = None
    parts, carried, tiled = problem.parts, problem.carried, getattr(plan.solver, "by_tiles", False)
    if plan.looks:
        layers = tuple(part.layer for part in parts)
        values = tuple(entry.values for entry in node.maps)
        inputs = tuple(_apply(part.read.flat, part.stream.x) for part in parts)
        x = _linear_sum(layers, values, inputs, carried and carried.x, tiled)
    if parts[0].stream.ticket is not None:
        wide = linear_maps(plan.source.network)
        layers = tuple(wide[part.path].layer for part in parts)
        values = tuple(_kept(part, problem.rows, masks) for part in parts)
        inputs = tuple(_apply(part.read.flat, part.stream.ticket) for part in parts)
        ticket = _linear_sum(layers, values, inputs, carried and carried.ticket, tiled)
    return x, ticket


def _kept(part: Part, rows: Rows, masks: dict[str, np.ndarray]) -> Params:
    """The ticket's parameters of a linear map."""
    kernel, bias = f"{part.path}/kernel", f"{part.path}/bias"
    random = part.read.kernel(part.random.whole(), masks[kernel].shape)
    found = {"kernel": np.where(masks[kernel], random, 0)}
    if bias in masks and rows.own is not None:
        found["bias"] = np.where(masks[bias], rows.own, 0)
    return found


@partial(jax.jit, static_argnums=(0, 4))
def _linear_sum(
    layers: tuple[Linear, ...],
    values: tuple[Params, ...],
    inputs: tuple[Array, ...],
    carried: Array | None,
    tiled: bool,
) -> Array:
    """The sum of linear layers and a carried skip, some images at a time.

    Calibration activations are the largest arrays of a construction: a convolution of all of them at once
    would hold its own copies of them beside.

    Args:
      tiled: whether wide convolutions are worked out by tiles (`slth.nn.winograd`).
    """
    shapes = [x.shape[1:] for x in inputs]
    by_tiles = [tiled and suits_tiles(layer, shape) for layer, shape in zip(layers, shapes, strict=True)]
    sizes = [
        max(1, TILES // tiles_of(layer, shape)) if suits else IMAGES
        for layer, shape, suits in zip(layers, shapes, by_tiles, strict=True)
    ]

    def of_image(arrays: tuple) -> Array:
        *xs, out = arrays
        terms = [
            (apply_tiles(layer, own, x[None]) if suits else layer.apply(own, x[None]))[0]
            for layer, own, x, suits in zip(layers, values, xs, by_tiles, strict=True)
        ]
        first, *others = terms if out is None else (out, *terms)
        return sum(others, first)

    return lax.map(of_image, (*inputs, carried), batch_size=min(sizes))


def _apply(layer: Pointwise | None, x: Array | None) -> Array | None:
    """What a layer makes of a value, where there are both."""
    return x if layer is None or x is None else _applied(layer, x)


@partial(jax.jit, static_argnums=0)
def _applied(layer: Pointwise, x: Array) -> Array:
    return layer.apply({}, x)
