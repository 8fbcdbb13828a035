r"""The walk: a target and a source go in, layer by layer, and a mask comes out.

    lambda * apply(source.network, mask * source, x) ~ apply(target, params, x)

with every layer of the target built from random weights; nothing is copied and nothing redrawn.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float

from slth import nn
from slth.construct import noise as noise_of
from slth.construct.assign import order_for_output
from slth.construct.bias import safe_taps
from slth.construct.compensate import Compensation, solve_compensated
from slth.construct.layer import Rule, Wanted, solve_independent
from slth.construct.layout import UNIVARIATE, copies, first_activation, output_layer, univariate
from slth.construct.node import Part, Stats, Stream, from_view, kernel_view
from slth.construct.prune import prune
from slth.construct.residual import carried_skip, solved_skip
from slth.construct.scale import Balanced, balance
from slth.nn.layers import Activation, Conv, Dense, Layer, Linear, Residual
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.source import Source, layer_scale, parameter, parameter_shapes
from slth.types import Mask, Params


@dataclass(frozen=True)
class Solver:
    """How the subsets are chosen.

    Args:
      method: "independent" (every weight its own problem) or "compensated" (rows against calibration data).
      objective: of the independent method: "smallest", "best" or "robust".
      tolerance: epsilon, the largest accepted |sum_S v - w| in units of the layer's source scale.
      noise: robust's price: "propagated" or "measured" errors of the copies, or "fixed" (``price`` times v²).
      inputs: "signed", or "nonnegative" where the network's input is known to be.
      fit: largest weight of the balanced target in units of the source's scale (`balance`).
    """

    method: Literal["independent", "compensated"] = "independent"
    objective: Literal["smallest", "best", "robust"] = "best"
    tolerance: float = 0.01
    noise: Literal["propagated", "measured", "fixed"] = "propagated"
    price: float = 0.01
    inputs: Literal["signed", "nonnegative"] = "signed"
    fit: float = 1.25
    compensation: Compensation = field(default_factory=Compensation)


class LayerRecord(NamedTuple):
    """What happened in one linear node of the target."""

    path: str
    stats: Stats
    kept: int
    parameters: int
    seconds: float
    copy_error: float | None = None
    """Relative L2 error of one copy's pre-activations on calibration images, if the ticket ran on them."""
    mean_error: float | None = None
    """The same of the mean of the copies."""


class Construction(NamedTuple):
    """A mask of the source and what is known of it."""

    mask: Mask
    factor: float
    """lambda: the ticket's outputs times this are the target's."""
    records: tuple[LayerRecord, ...]
    params: Params
    """The balanced target: what the copies reproduce."""
    columns: dict[str, np.ndarray]
    """Source channels (cout, copies) of the copies of each node's outputs; a sum is named as its
    branch's last layer."""


Report = Callable[[str, int, int], None]
"""Called with (path of the layer, problems done, problems of the layer)."""


class _Context(NamedTuple):
    target: nn.Network
    source: Source
    solver: Solver
    last: Linear
    needs: dict[str, float]
    output_kernel: Float[np.ndarray, "..."]
    report: Report
    ended: Callable[[LayerRecord], None]
    masks: dict[str, np.ndarray]
    records: list[LayerRecord]
    columns: dict[str, np.ndarray]

    @property
    def runs_ticket(self) -> bool:
        return self.solver.method == "compensated" or (
            self.solver.objective == "robust" and self.solver.noise == "measured"
        )


def construct(
    target: nn.Network,
    params: Params,
    source: Source,
    solver: Solver,
    calibration: Float[Array, "n *shape"] | None = None,
    report: Report = lambda path, done, total: None,
    ended: Callable[[LayerRecord], None] = lambda record: None,
) -> Construction:
    """The mask of ``source`` that makes it compute ``target``.

    Args:
      target, params: without batch norm (`slth.nn.fold_batch_norm`).
      source: its network must be that of `source_network` for this target and its multiplicity.
      solver: see `Solver`.
      calibration: images (never test images) for the statistics of the robust and the compensated choice.
      report, ended: progress within a layer, and the record of each layer when it is done.
    Raises: ValueError where target, source, solver and calibration do not fit together.
    """
    info = _activation_of(target)
    scales = {
        path.removesuffix("/kernel"): layer_scale(source, path.removesuffix("/kernel"))
        for path in parameter_shapes(source.network)
        if path.endswith("/kernel")
    }
    if calibration is None and (
        solver.method == "compensated" or (solver.objective == "robust" and solver.noise != "fixed")
    ):
        raise ValueError(
            f"solver.method={solver.method}, objective={solver.objective}, noise={solver.noise} needs"
            " calibration images: set solver.calibration, or solver.noise=fixed"
        )
    balanced = balance(target, params, scales, fit=solver.fit) if info.homogeneous else Balanced(params, 1.0)
    context = _Context(
        target,
        source,
        solver,
        output_layer(target),
        _needs(balanced.params, target, scales),
        balanced.params[output_layer(target).name]["kernel"],
        report,
        ended,
        {},
        [],
        {},
    )
    stream = _first_stream(context, calibration)
    hidden = source.network.layers[2:]
    _walk(target.layers, hidden, balanced.params, stream, "", context)
    mask = prune(source.network, unflatten_dict(context.masks, sep="/"))
    return Construction(mask, balanced.factor, tuple(context.records), balanced.params, context.columns)


def _activation_of(target: nn.Network) -> nn.ActivationInfo:
    first = first_activation(target)
    return nn.activation_info(first.kind, first.slope)


def _order(part: Part, context: _Context) -> np.ndarray:
    """The order of the copies' blocks of a node: chosen where no residual sum ties them."""
    target, last = context.target, context.last
    named = [layer for layer in target.layers if getattr(layer, "name", None)]
    features = part.layer.features
    if len(named) < 2 or part.layer is not named[-2] or context.solver.method == "compensated":
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


def _needs(params: Params, target: nn.Network, scales: dict[str, float]) -> dict[str, float]:
    """For every linear layer, the largest |bias| / scale of the layers behind it: what constants are for."""
    paths = [path.removesuffix("/kernel") for path in parameter_shapes(target) if path.endswith("/kernel")]
    needs: dict[str, float] = {}
    largest = 0.0
    for path in reversed(paths):
        needs[path] = largest
        values = params
        for key in path.split("/"):
            values = values[key]
        largest = max(largest, float(np.abs(values.get("bias", np.zeros(1))).max()) / scales[path])
    return needs


def _first_stream(context: _Context, calibration: Float[Array, "n *shape"] | None) -> Stream:
    """The extra first layer: univariate channels of both signs and the first constants (biases)."""
    source, target = context.source, context.target
    kernel = np.asarray(parameter(source, f"{UNIVARIATE}/kernel"))
    cin, width = kernel.shape[-2:]
    constants = _constant_count(context)
    info = _activation_of(target)
    signs = (1, -1) if context.solver.inputs == "signed" else (1,)
    alpha = kernel.reshape(cin, width)[:, : width - 2 * constants]
    slots = univariate(alpha, alpha.shape[1] // (2 * cin), signs, info)
    mask = np.zeros((cin, width), bool)
    used = slots.gain > 0
    mask[np.broadcast_to(slots.channel[:, None], used.shape)[used], slots.members[used]] = True
    context.masks[f"{UNIVARIATE}/kernel"] = mask.reshape(kernel.shape)
    channels, values = np.zeros(0, int), np.zeros(0)
    if constants:
        bias = np.asarray(parameter(source, f"{UNIVARIATE}/bias"))
        value = np.asarray(info.phi(jnp.asarray(bias)), np.float64)
        channels = width - 2 * constants + np.flatnonzero(value[-2 * constants :] != 0)[:constants]
        values = value[channels]
        bias_mask = np.zeros(width, bool)
        bias_mask[channels] = True
        context.masks[f"{UNIVARIATE}/bias"] = bias_mask
    ticket = None
    if context.runs_ticket and calibration is not None:
        first, activation = source.network.layers[:2]
        assert isinstance(first, Conv | Dense)
        assert isinstance(activation, Activation)
        masked = {"kernel": jnp.where(context.masks[f"{UNIVARIATE}/kernel"], kernel, 0)}
        if constants:
            masked["bias"] = jnp.where(context.masks[f"{UNIVARIATE}/bias"], bias, 0)
        ticket = activation.apply({}, first.apply(masked, calibration))
    return Stream(
        target.input_shape, slots, channels, values, np.zeros(slots.gain.shape), calibration, ticket
    )


def _constant_count(context: _Context) -> int:
    """K: what the widths of the source leave beside the copies."""
    hidden = next(layer for layer in context.source.network.layers[2:] if isinstance(layer, Conv | Dense))
    target = next(layer for layer in context.target.layers if isinstance(layer, Conv | Dense))
    if f"{UNIVARIATE}/bias" not in parameter_shapes(context.source.network):
        return 0
    if target is context.last:
        return context.source.multiplicity
    return hidden.features - context.source.multiplicity * target.features


def _walk(
    layers: tuple[Layer, ...],
    source_layers: tuple[Layer, ...],
    params: Params,
    stream: Stream,
    path: str,
    context: _Context,
) -> Stream:
    for layer, source_layer in zip(layers, source_layers, strict=True):
        shape = (
            stream.shape if stream.flat or isinstance(layer, Flatten) else layer.output_shape(stream.shape)
        )
        match layer:
            case Conv() | Dense():
                values = params[layer.name]
                part = _part(layer, values, f"{path}{layer.name}", stream, context)
                stream = _node([(part, layer, values, source_layer)], None, layer.features, context)
            case Residual():
                stream = _block(
                    layer, source_layer, params[layer.name], stream, f"{path}{layer.name}/", context
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
    noise, constants = stream.noise, stream.constants
    match layer:
        case Activation(kind, slope):
            phi = nn.activation_info(kind, slope).phi
            constants = np.asarray(phi(jnp.asarray(constants, jnp.float32)), np.float64)
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
    stream = stream._replace(noise=noise, constants=constants, x=x, ticket=ticket)
    return stream


def _block(
    block: Residual, source_block: Layer, values: Params, stream: Stream, path: str, context: _Context
) -> Stream:
    """A residual block: its branch up to the last layer, then that layer and the skip as one sum."""
    assert isinstance(source_block, Residual)
    last = block.branch[-1]
    if not isinstance(last, Conv | Dense):
        raise ValueError(
            f"{block.name}: a branch must end in a convolution or dense layer (after folding), got {last}"
        )
    inner = _walk(
        block.branch[:-1], source_block.branch[:-1], values["branch"], stream, f"{path}branch/", context
    )
    maps = [
        (
            _part(last, values["branch"][last.name], f"{path}branch/{last.name}", inner, context),
            last,
            values["branch"][last.name],
            source_block.branch[-1],
        )
    ]
    carried = carried_skip(block, source_block.skip, stream)
    if carried is None:
        layer, skip_values = solved_skip(block, values, source_block.skip, stream)
        part = _part(layer, skip_values, f"{path}skip/{layer.name}", stream, context)
        maps.append((part, layer, skip_values, source_block.skip[0]))
    return _node(maps, carried, last.features, context)


def _part(layer: Linear, values: Params, path: str, stream: Stream, context: _Context) -> Part:
    random = np.asarray(parameter(context.source, f"{path}/kernel"))
    rms = np.ones(len(stream.slots.channel))
    if stream.x is not None:
        rms = noise_of.slot_rms(stream.x, stream.slots)
    return Part(
        path,
        layer,
        kernel_view(np.asarray(values["kernel"]), stream.positions, stream.order),
        kernel_view(random, stream.positions, stream.order),
        stream,
        safe_taps(layer, stream),
        rms,
        layer_scale(context.source, path),
    )


def _node(maps, carried, features: int, context: _Context) -> Stream:
    """One sum of linear maps (and a carried skip), solved; the stream of its pre-activations."""
    started = time.perf_counter()
    parts = tuple(entry[0] for entry in maps)
    solver, source = context.solver, context.source
    final = maps[0][1] is context.last
    number = 1 if final else source.multiplicity
    spare = parts[0].random.shape[2] - features * number
    bias = sum(
        (np.asarray(values.get("bias", 0.0), np.float64) for _, _, values, _ in maps), np.zeros(features)
    )
    # A row of constants adds about a quarter of a scale for each variable; 15 at most solve a bias.
    size = context.needs[parts[0].path] * 8 / max(1, min(spare, 15))
    constant = np.full(spare, np.nan if carried is not None else size)
    order = _order(parts[0], context)
    columns = order[:, None] * number + np.arange(number)
    rule = Rule(
        solver.objective,
        solver.tolerance,
        source.multiplicity,
        solver.price if solver.noise == "fixed" else None,
    )
    wanted = Wanted(bias, columns, constant)
    if solver.method == "compensated":
        solved = solve_compensated(parts, wanted, rule, carried, solver.compensation)
    else:
        solved = solve_independent(
            parts, wanted, rule, lambda done, total: context.report(parts[0].path, done, total)
        )
    kept = total = 0
    x = ticket = None
    for (part, layer, values, source_layer), mask in zip(maps, solved.masks, strict=True):
        shape = parameter_shapes(source.network)[f"{part.path}/kernel"]
        kernel_mask = from_view(mask, shape, part.stream.order)
        context.masks[f"{part.path}/kernel"] = kernel_mask
        kept, total = kept + int(mask.sum()), total + mask.size
        if part.stream.x is not None:
            out = _apply(layer, values, _flattened(part.stream.x, part.stream.flat))
            x = out if x is None else x + out
        if part.stream.ticket is not None:
            kernel = np.where(kernel_mask, from_view(part.random, shape, part.stream.order), 0)
            out = _apply(source_layer, {"kernel": kernel}, _flattened(part.stream.ticket, part.stream.flat))
            ticket = out if ticket is None else _sum(ticket, out)
    noise, constants = solved.noise, solved.constants
    if carried is not None:
        noise, constants = noise + carried.noise, constants + carried.constants
        x = None if x is None else x + carried.x
        ticket = None if ticket is None else _sum(ticket, carried.ticket)
    context.columns[parts[0].path] = columns
    slots = copies(columns)
    slots = slots._replace(usable=solved.usable & (True if carried is None else carried.usable))
    errors = (None, None)
    if ticket is not None:
        copy, mean, power = (np.asarray(a, np.float64) for a in noise_of.copy_errors(x, ticket, columns))
        noise, size = copy, max(power.sum(), 1e-30)
        errors = ((copy.mean(1).sum() / size) ** 0.5, (mean.sum() / size) ** 0.5)
    channels = features * number + np.arange(spare)
    record = LayerRecord(parts[0].path, solved.stats, kept, total, time.perf_counter() - started, *errors)
    context.records.append(record)
    context.ended(record)
    return Stream(parts[0].stream.shape, slots, channels, constants, noise, x, ticket)


@partial(jax.jit, donate_argnums=0)
def _sum(a: Array, b: Array) -> Array:
    """a + b in a's memory: calibration activations are the largest arrays of a construction."""
    return a + b


def _flattened(x: Array, flat: Flatten | None) -> Array:
    return x if flat is None else flat.apply({}, x)


@partial(jax.jit, static_argnums=0)
def _apply(layer: Layer, values: Params, x: Array) -> Array:
    assert not isinstance(layer, Residual)
    return layer.apply(values, x)
