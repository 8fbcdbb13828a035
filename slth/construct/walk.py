"""The walk over a target's layers: streams of source channels in, masks out, node by node."""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from slth import nn
from slth.construct import noise as noise_of
from slth.construct.assign import order_for_output
from slth.construct.bias import safe_taps
from slth.construct.compensate import solve_compensated
from slth.construct.context import Context
from slth.construct.front import Pair, paired, univariate_stream
from slth.construct.layer import Rule, Wanted, solve_independent
from slth.construct.layout import copies
from slth.construct.node import Part, Stream, from_view, kernel_view
from slth.construct.residual import Carried, carried_skip, solved_skip
from slth.construct.solver import LayerRecord
from slth.construct.univariate import weight_scale
from slth.nn.layers import Activation, Conv, Dense, Layer, Linear, Residual
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.source import parameter, parameter_shapes
from slth.types import Params

IMAGES = 32
"""Calibration images that go through a layer at a time."""


def _order(part: Part, context: Context) -> np.ndarray:
    """The order of the copies' blocks of a node: chosen where no residual sum ties them."""
    target, last = context.target, context.last
    named = [layer for layer in target.layers if getattr(layer, "name", None)]
    features = part.layer.features
    tied = context.two_layers or context.solver.method == "compensated"
    if len(named) < 2 or part.layer is not named[-2] or tied:
        return np.arange(features)
    shape, positions, order = target.input_shape, 1, "hwc"
    for layer in target.layers[: target.layers.index(last)]:
        if isinstance(layer, Flatten):
            positions, order = int(np.prod(shape[:-1])), layer.order
        shape = layer.output_shape(shape)
    positions = positions if positions * features == shape[-1] else 1
    random = np.asarray(parameter(context.source, f"{last.name}/kernel"))
    return order_for_output(
        part,
        kernel_view(np.asarray(context.output_kernel), positions, order),
        kernel_view(random, positions, order),
        context.source.multiplicity,
    )


def walk(pairs: tuple[Pair, ...], params: Params, stream: Stream, path: str, context: Context) -> Stream:
    """Through target and source layer by layer; fills in the context's masks, records and columns."""
    for pair in pairs:
        layer = pair.target
        shape = (
            stream.shape if stream.flat or isinstance(layer, Flatten) else layer.output_shape(stream.shape)
        )
        match layer:
            case Conv() | Dense():
                values = params[layer.name]
                one = _map(pair, layer, values, stream, path, context)
                stream = _node((one,), None, layer.features, context)
            case Residual():
                stream = _block(
                    layer, pair.source, params[layer.name], stream, f"{path}{layer.name}/", context
                )
            case Flatten():
                stream = stream._replace(flat=layer)
                continue
            case _:
                stream = _pointwise(layer, stream)
        stream = stream._replace(shape=shape if not isinstance(layer, Dense) else (layer.features,))
    return stream


def _pointwise(layer: Layer, stream: Stream) -> Stream:
    """Activations and pooling: the same function on every channel of target and ticket."""
    noise, constants, nonnegative = stream.noise, stream.constants, stream.nonnegative
    match layer:
        case Activation(kind, slope):
            info = nn.activation_info(kind, slope)
            nonnegative = info.homogeneous and info.mu_plus >= 0 >= info.mu_minus
            constants = np.asarray(info.phi(jnp.asarray(constants, jnp.float32)), np.float64)
            if stream.x is not None:
                noise = noise * np.asarray(noise_of.slope_power(stream.x, layer))[stream.slots.channel, None]
        case Pool(kind="mean", window=window):
            noise = noise / np.prod(window)
            if layer.count_padding and any(map(any, layer.padding)):
                constants = np.zeros_like(constants)  # padding makes them differ from place to place
        case GlobalMean():
            noise = noise / np.prod(stream.shape[:-1])
    run = partial(_apply, layer, {})
    x = None if stream.x is None else run(stream.x)
    ticket = None if stream.ticket is None else run(stream.ticket)
    return stream._replace(noise=noise, constants=constants, x=x, ticket=ticket, nonnegative=nonnegative)


def _block(
    block: Residual, source_block: Layer, values: Params, stream: Stream, path: str, context: Context
) -> Stream:
    """A residual block: its branch up to the last layer, then that layer and the skip as one sum."""
    assert isinstance(source_block, Residual)
    *front, end = paired(block.branch, source_block.branch)
    last = end.target
    if not isinstance(last, Conv | Dense):
        raise ValueError(
            f"{block.name}: a branch must end in a convolution or dense layer (after folding), got {last}"
        )
    inner = walk(tuple(front), values["branch"], stream, f"{path}branch/", context)
    branch = _map(end, last, values["branch"][last.name], inner, f"{path}branch/", context)
    carried = carried_skip(block, source_block.skip, stream)
    if carried is not None:
        return _node((branch,), carried, last.features, context)
    layer, skip_values = solved_skip(block, values, source_block.skip, stream)
    (pair,) = paired((layer,), source_block.skip)
    skip = _map(pair, layer, skip_values, stream, f"{path}skip/", context)
    return _node((branch, skip), None, last.features, context)


class _Map(NamedTuple):
    """One linear map of a node: its subset-sum view, the target's layer with values, the source's layer."""

    part: Part
    layer: Linear
    values: Params
    source_layer: Layer


def _map(pair: Pair, layer: Linear, values: Params, stream: Stream, path: str, context: Context) -> _Map:
    """A linear layer of the target as its source layer is to realise it, behind a univariate layer in 2L."""
    if pair.front is not None:
        stream = univariate_stream(stream, *pair.front, f"{path}{pair.front[0].name}", context)
    part = _part(layer, values, f"{path}{layer.name}", stream, context)
    return _Map(part, layer, values, pair.source)


def _part(layer: Linear, values: Params, path: str, stream: Stream, context: Context) -> Part:
    random = np.asarray(parameter(context.source, f"{path}/kernel"))
    rms, mean = np.ones(len(stream.slots.channel)), np.zeros(len(stream.slots.channel))
    if stream.x is not None:
        center = context.center and stream.slots.carried
        rms, mean = noise_of.slot_size(stream.x, stream.slots, center=center)
    return Part(
        path,
        layer,
        kernel_view(np.asarray(values["kernel"]), stream.positions, stream.order),
        kernel_view(random, stream.positions, stream.order),
        stream,
        safe_taps(layer, stream),
        rms,
        mean,
        weight_scale(context.source, path),
    )


def _node(maps: tuple[_Map, ...], carried: Carried | None, features: int, context: Context) -> Stream:
    """One sum of linear maps (and a carried skip), solved; the stream of its pre-activations."""
    started = time.perf_counter()
    parts = tuple(entry.part for entry in maps)
    wanted = _wanted(maps, carried, features, context)
    solver = context.solver
    rule = Rule(
        solver.objective,
        solver.tolerance,
        context.source.multiplicity,
        solver.price if solver.noise == "fixed" else None,
        solver.size,
    )
    smooth_input = not (context.info.homogeneous or parts[0].stream.slots.carried)
    if solver.method == "compensated" and not smooth_input:
        solved = solve_compensated(parts, wanted, rule, carried, solver.compensation, center=context.center)
    else:
        solved = solve_independent(
            parts, wanted, rule, lambda done, total: context.report(parts[0].path, done, total)
        )
    for part, mask in zip(parts, solved.masks, strict=True):
        shape = parameter_shapes(context.source.network)[f"{part.path}/kernel"]
        context.masks[f"{part.path}/kernel"] = from_view(mask, shape, part.stream.order)
    if solved.own is not None:
        context.masks[f"{parts[0].path}/bias"] = solved.own
    x, ticket = _realised(maps, carried, context)
    noise, constants, usable = solved.noise, solved.constants, solved.usable
    if carried is not None:
        noise, constants = noise + carried.noise, constants + carried.constants
        usable = usable & carried.usable
    copy = mean = None
    if x is not None and ticket is not None:
        errors = noise_of.copy_errors(x, ticket, wanted.columns)
        noise, of_mean, power = (np.asarray(a, np.float64) for a in errors)
        size = max(power.sum(), 1e-30)
        copy, mean = (noise.mean(1).sum() / size) ** 0.5, (of_mean.sum() / size) ** 0.5
    context.columns[parts[0].path] = wanted.columns
    record = LayerRecord(
        parts[0].path,
        solved.stats,
        sum(int(mask.sum()) for mask in solved.masks),
        sum(mask.size for mask in solved.masks),
        time.perf_counter() - started,
        copy,
        mean,
    )
    context.records.append(record)
    context.ended(record)
    channels = wanted.columns.size + np.arange(len(constants))
    slots = copies(wanted.columns)._replace(usable=usable)
    return Stream(parts[0].stream.shape, slots, channels, constants, noise, x, ticket)


def _wanted(maps: tuple[_Map, ...], carried: Carried | None, features: int, context: Context) -> Wanted:
    """What the rows of a node should be beside the weights: biases, places of the copies, constants."""
    part = maps[0].part
    number = 1 if context.two_layers or maps[0].layer is context.last else context.source.multiplicity
    spare = part.random.shape[2] - features * number
    biases = (np.asarray(entry.values.get("bias", 0.0), np.float64) for entry in maps)
    # A row of constants adds about a quarter of a scale for each variable; 15 at most solve a bias.
    size = context.needs[part.path] * 8 / max(1, min(spare, 15))
    constant = np.full(spare, np.nan if carried is not None else size)
    columns = _order(part, context)[:, None] * number + np.arange(number)
    name = f"{part.path}/bias"
    has_own = name in parameter_shapes(context.source.network)
    own = np.asarray(parameter(context.source, name)) if has_own else None
    return Wanted(sum(biases, np.zeros(features)), columns, constant, own)


def _realised(
    maps: tuple[_Map, ...], carried: Carried | None, context: Context
) -> tuple[Array | None, Array | None]:
    """Target's and ticket's pre-activations of a node on the calibration images, where there are any."""
    x = ticket = None
    first = maps[0].part.stream
    if first.x is not None:
        values = tuple(entry.values for entry in maps)
        layers = tuple(entry.layer for entry in maps)
        inputs = tuple(_flattened(entry.part.stream.x, entry.part.stream.flat) for entry in maps)
        x = _linear_sum(layers, values, inputs, None if carried is None else carried.x)
    if first.ticket is not None:
        kernels = []
        for entry in maps:
            mask = context.masks[f"{entry.part.path}/kernel"]
            random = from_view(entry.part.random, mask.shape, entry.part.stream.order)
            kernels.append({"kernel": np.where(mask, random, 0)})
            if (name := f"{entry.part.path}/bias") in context.masks:
                own = np.asarray(parameter(context.source, name))
                kernels[-1]["bias"] = np.where(context.masks[name], own, 0)
        layers = tuple(entry.source_layer for entry in maps)
        inputs = tuple(_flattened(entry.part.stream.ticket, entry.part.stream.flat) for entry in maps)
        ticket = _linear_sum(layers, tuple(kernels), inputs, None if carried is None else carried.ticket)
    return x, ticket


@partial(jax.jit, static_argnums=0)
def _linear_sum(layers: tuple[Layer, ...], values: tuple, inputs: tuple, carried: Array | None) -> Array:
    """The sum of linear layers and a carried skip, some images at a time.

    Calibration activations are the largest arrays of a construction: a convolution of all of them at once
    would hold its own copies of them beside.
    """

    def one(arrays: tuple) -> Array:
        *xs, out = arrays
        for layer, v, x in zip(layers, values, xs, strict=True):
            assert isinstance(layer, Conv | Dense)
            own = layer.apply(v, x[None])[0]
            out = own if out is None else out + own
        assert out is not None
        return out

    return lax.map(one, (*inputs, carried), batch_size=IMAGES)


def _flattened(x: Array | None, flat: Flatten | None) -> Array:
    assert x is not None
    return x if flat is None else flat.apply({}, x)


@partial(jax.jit, static_argnums=0)
def _apply(layer: Layer, values: Params, x: Array) -> Array:
    assert not isinstance(layer, Residual)
    return layer.apply(values, x)
