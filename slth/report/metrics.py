"""The sections of ``metrics.json``: plain dicts of plain values; None where a value was not computed."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from slth import nn
from slth.certificate.statistics import clopper_pearson
from slth.construction import Construction, Solver
from slth.evaluate import Comparison
from slth.nn.graph import Sum, activations, graph
from slth.nn.network import Network
from slth.nn.prune import count_channels
from slth.report.tables import stats_fields
from slth.source import present
from slth.ticket import Ticket
from slth.types import Params


def depth(network: Network) -> int:
    """Number of linear layers on the longest way through the network."""
    longest = [0]
    for step in graph(network):
        ways = [longest[entry.reads] + 1 for entry in step.maps] if isinstance(step, Sum) else []
        ways += [longest[value] for value in step.reads]
        longest.append(max(ways))
    return longest[-1]


def activation(network: Network) -> str | None:
    """Kind of the first activation, None for a linear network."""
    return next((act.kind for act in activations(network)), None)


def target_metrics(
    name: str,
    network: Network,
    params: Params,
    accuracy: float | None,
    errors: Comparison | None = None,
) -> dict[str, Any]:
    """Section ``target``; parameters are those after batch norm was folded.

    Args:
      name: what the run calls the target.
      accuracy: on test images, or None.
      errors: of its outputs against labels that are numbers (`slth.evaluate.compare`), or None.

    Example:
      >>> import jax
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> found = report.target_metrics("mine", network, nn.init(network, jax.random.key(0)), accuracy=None)
      >>> found["parameters"], found["nonzero"], found["activation"], found["depth"]
      (23, 18, 'relu', 2)
    """
    return {
        "name": name,
        **_against_labels(accuracy, errors),
        "parameters": nn.count(params),
        "nonzero": _nonzero(params),
        "activation": activation(network),
        "depth": depth(network),
    }


def _against_labels(accuracy: float | None, errors: Comparison | None) -> dict[str, float | None]:
    """How outputs compare with the labels: as classes, or as numbers."""
    return {
        "accuracy": accuracy,
        "rmse": None if errors is None else errors.rmse,
        "r2": None if errors is None else errors.r2,
    }


def _nonzero(params: Params) -> int:
    return int(sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(params)))


def source_metrics(ticket: Ticket, *, knows_target: bool = False) -> dict[str, Any]:
    """Section ``source``; ``present`` counts the weights and biases that a sparse source has.

    Args:
      knows_target: whether the source's scales were chosen by looking at the target.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> found = report.source_metrics(made.ticket)
      >>> found["parameters"], found["multiplicity"], found["init"]
      (7822, 5, 'he_uniform')
    """
    source = ticket.source
    plain = ("multiplicity", "init", "scale", "bias_scale", "presence", "biases", "seed")
    return {
        "parameters": ticket.parameters,
        "depth": depth(source.network),
        **{name: getattr(source, name) for name in plain},
        "univariate": _univariate(ticket),
        "scales": dict(source.scales),
        "positive": list(source.positive),
        "present": present(source),
        "knows_target": knows_target,
        "sha256": ticket.source_sha256,
    }


def _univariate(ticket: Ticket) -> int | None:
    """In 2L, the univariate channels for each input and sign; None in L + 1, or without a target."""
    layout = None if ticket.target is None else ticket.source.layout_for(ticket.target)
    return layout.univariate[0].copies if layout and layout.first is None else None


def ticket_metrics(
    ticket: Ticket,
    accuracy: float | None,
    comparison: Comparison | None,
    size: int,
    target: Params | None = None,
    errors: Comparison | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Section ``ticket``; ``bytes`` is the size of its file.

    ``accuracy_interval`` and ``agreement_interval`` are what the images support at 95 %: the exact intervals
    of Clopper and Pearson, of all images that might have been drawn in place of these.

    ``bits_per_weight`` is the number of the mask's bits, one for each parameter of the source, over that of
    the target's parameters that are not 0; ``coded_bits_per_weight`` has the bits of the ticket's file, of
    version 2, in place of the mask's.

    Args:
      accuracy: on test images, or None.
      comparison: of the outputs on test images (`slth.evaluate.compare`), or None.
      size: of the ticket's file, in bytes.
      target: the target's parameters, batch norm folded; without them bits for each weight are None.
      errors: of its outputs against labels that are numbers, or None.
      images: how many test images the accuracy is of, for its interval; None: not known.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> found = report.ticket_metrics(made.ticket, None, None, size=1000, target=target.params)
      >>> found["bytes"], found["nonzero"] == made.ticket.nonzero, found["agreement"]
      (1000, True, None)
      >>> round(found["bits_per_weight"])      # 7822 parameters for 18 weights
      435
    """
    weights = None if target is None else _nonzero(target)
    channels = count_channels(ticket.source.network, ticket.mask)
    agreement = None if comparison is None else comparison.agreement
    compared = None if comparison is None else comparison.examples
    return {
        **_against_labels(accuracy, errors),
        "accuracy_interval": _interval(accuracy, images),
        "nonzero": ticket.nonzero,
        "density": ticket.density,
        "channels": channels.channels,
        "channels_kept": channels.kept,
        "constants_kept": channels.constants,
        "agreement": agreement,
        "agreement_interval": _interval(agreement, compared),
        "factor": ticket.factor,
        "bytes": size,
        "bits_per_weight": ticket.parameters / weights if weights else None,
        "coded_bits_per_weight": 8 * len(ticket.content) / weights if weights else None,
    }


def _interval(share: float | None, images: int | None) -> list[float] | None:
    """At 95 %, of a share of so many images."""
    if share is None or images is None:
        return None
    return list(clopper_pearson(round(share * images), images))


def subset_sum_metrics(construction: Construction, solver: Solver, calibration: int) -> dict[str, Any]:
    """Section ``subset_sum``; errors are in units of each layer's source scale.

    Args:
      solver: the solver that the construction was given.
      calibration: number of its calibration images.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> found = report.subset_sum_metrics(made, slth.Best(), calibration=0)
      >>> found["objective"], found["problems"], found["unsolved"]
      ('best', 126, 8)
    """
    name = type(solver).__name__.lower()
    method, objective = (name, None) if solver.solves_rows else ("independent", name)
    return {
        "method": method,
        "objective": objective,
        "tolerance": solver.tolerance,
        "calibration": calibration,
        "fit": construction.fit.value,
        "predicted_error": construction.fit.predicted,
        "means_absorbed": construction.absorbs,
        "measured": construction.measured,
        **stats_fields(construction.stats),
    }


def fitting_metrics(construction: Construction) -> dict[str, Any]:
    """Section ``fitting``: how well the target fits the source.

    ``weights_lost`` and ``biases_lost`` are the largest shares of a layer's power that no subset reaches, and
    ``misfits`` the warnings of the run.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> report.fitting_metrics(made)["misfits"]
      []
    """
    records = construction.records
    return {
        "fit": construction.fit.value,
        "predicted_error": construction.fit.predicted,
        "weights_lost": max((record.lost.weights for record in records), default=0.0),
        "biases_lost": max((record.lost.biases for record in records), default=0.0),
        "misfits": [one._asdict() for one in construction.misfits],
    }


def environment() -> dict[str, Any]:
    """Section ``environment``.

    Example:
      >>> from slth import report
      >>> sorted(report.environment())
      ['device', 'jax', 'precision', 'python', 'slth']
    """
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
