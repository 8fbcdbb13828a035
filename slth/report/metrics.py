"""The sections of ``metrics.json``: plain dicts of plain values; None where a value was not computed."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from slth import nn
from slth.construct import Construction, Solver
from slth.construct.layout import has_two_layers, split
from slth.construct.node import Stats
from slth.construct.prune import count_channels
from slth.evaluate import Comparison
from slth.nn.layers import Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.report.bounds import agreement_interval
from slth.report.tables import stats_fields
from slth.source import present
from slth.ticket import Ticket
from slth.types import Params


def depth(network: Network) -> int:
    """Number of linear layers on the longest way through the network."""

    def longest(layers: tuple[Layer, ...]) -> int:
        total = 0
        for layer in layers:
            if isinstance(layer, Conv | Dense):
                total += 1
            elif isinstance(layer, Residual):
                total += max(longest(layer.branch), longest(layer.skip))
        return total

    return longest(network.layers)


def activation(network: Network) -> str | None:
    """Kind of the first activation, None for a linear network."""

    def search(layers: tuple[Layer, ...]) -> str | None:
        for layer in layers:
            found = search(layer.branch) if isinstance(layer, Residual) else getattr(layer, "kind", None)
            if found and not isinstance(layer, nn.Pool):
                return found
        return None

    return search(network.layers)


def target_metrics(name: str, network: Network, params: Params, accuracy: float | None) -> dict[str, Any]:
    """Section ``target``; parameters are those after batch norm was folded."""
    return {
        "name": name,
        "accuracy": accuracy,
        "parameters": nn.count(params),
        "nonzero": int(sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(params))),
        "activation": activation(network),
        "depth": depth(network),
    }


def source_metrics(ticket: Ticket, *, knows_target: bool = False) -> dict[str, Any]:
    """Section ``source``; ``knows_target``: whether its scales were chosen by looking at the target.

    ``present`` counts the weights and biases that a sparse source has.
    """
    source = ticket.source
    return {
        "parameters": ticket.parameters,
        "depth": depth(source.network),
        "multiplicity": source.multiplicity,
        "univariate": _univariate(source.network),
        "init": source.init,
        "scale": source.scale,
        "bias_scale": source.bias_scale,
        "scales": dict(source.scales),
        "presence": source.presence,
        "present": present(source),
        "biases": source.biases,
        "knows_target": knows_target,
        "seed": source.seed,
        "sha256": ticket.source_sha256,
    }


def _univariate(source: Network) -> int | None:
    """In 2L, the univariate channels for each input and sign; None in L + 1."""
    if not has_two_layers(source):
        return None
    first = next(layer for layer in source.layers if isinstance(layer, Conv | Dense))
    return split(first.features, source.input_shape[-1], first.use_bias)[0]


def _channels(ticket: Ticket) -> dict[str, int]:
    """Hidden channels of the source, those that the outputs depend on, and the constant ones among these."""
    counts = count_channels(ticket.source.network, ticket.mask)
    return {
        "channels": counts.channels,
        "channels_kept": counts.kept,
        "constants_kept": counts.constants,
    }


def ticket_metrics(
    ticket: Ticket, accuracy: float | None, comparison: Comparison | None, size: int
) -> dict[str, Any]:
    """Section ``ticket``; ``bytes`` is the size of its file, the interval of the agreement is at 95 %."""
    return {
        "accuracy": accuracy,
        "nonzero": ticket.nonzero,
        "density": ticket.density,
        **_channels(ticket),
        "agreement": None if comparison is None else comparison.agreement,
        "agreement_interval": None if comparison is None else agreement_interval(comparison),
        "factor": ticket.factor,
        "bytes": size,
    }


def subset_sum_metrics(construction: Construction, solver: Solver, calibration: int) -> dict[str, Any]:
    """Section ``subset_sum``; errors are in units of each layer's source scale."""
    stats = sum((record.stats for record in construction.records), Stats())
    return {
        "method": solver.method,
        "objective": solver.objective if solver.method == "independent" else None,
        "tolerance": solver.tolerance,
        "calibration": calibration,
        **stats_fields(stats),
    }


def environment() -> dict[str, Any]:
    """Section ``environment``."""
    try:
        own = version("slth")
    except PackageNotFoundError:  # run from a tree that is not installed
        own = None
    return {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "precision": "highest",
        "slth": own,
    }
