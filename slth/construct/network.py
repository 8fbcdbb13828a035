r"""The walk: a target and a source go in, layer by layer, and a mask comes out.

    lambda * apply(source.network, mask * source, x) ~ apply(target, params, x)

with every layer of the target built from random weights; nothing is copied and nothing redrawn.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float

from slth import nn
from slth.construct.context import Context, Report
from slth.construct.front import input_stream, paired, univariate_stream
from slth.construct.layout import UNIVARIATE, first_activation, output_layer
from slth.construct.prune import prune
from slth.construct.scale import Balanced, balance
from slth.construct.solver import LayerRecord, Solver
from slth.construct.univariate import weight_scale
from slth.construct.walk import walk
from slth.nn.layers import Activation, Conv, Dense
from slth.source import Source, parameter_shapes
from slth.types import Mask, Params


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
    first = first_activation(target)
    info = nn.activation_info(first.kind, first.slope)
    scales = {
        path.removesuffix("/kernel"): weight_scale(source, path.removesuffix("/kernel"))
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
    if solver.size is not None and (solver.method != "independent" or solver.objective == "single"):
        raise ValueError(
            f"solver.size={solver.size} needs solver.method=independent and objective smallest, best or"
            f" robust, got {solver.method}, {solver.objective}"
        )
    balanced = balance(target, params, scales, fit=solver.fit) if info.homogeneous else Balanced(params, 1.0)
    context = Context(
        target,
        source,
        solver,
        info,
        output_layer(target),
        _needs(balanced.params, target, scales),
        balanced.params[output_layer(target).name]["kernel"],
        report,
        ended,
        {},
        [],
        {},
    )
    stream, layers = input_stream(context, calibration), source.network.layers
    if not context.two_layers:
        univariate, act, *hidden = layers
        assert isinstance(univariate, Conv | Dense)
        assert isinstance(act, Activation)
        stream, layers = univariate_stream(stream, univariate, act, UNIVARIATE, context), tuple(hidden)
    walk(paired(target.layers, layers), balanced.params, stream, "", context)
    mask = prune(source.network, unflatten_dict(context.masks, sep="/"))
    return Construction(mask, balanced.factor, tuple(context.records), balanced.params, context.columns)


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
