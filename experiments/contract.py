"""What the metrics of each experiment hold: the promise that readers of many runs rely on.

Fields may be added to an experiment, none is renamed; so runs of older versions are read too.
"""

from collections.abc import Mapping
from typing import Any

ENVIRONMENT = ("jax", "python", "device", "precision", "slth")
TICKET = ("nonzero", "density", "accuracy", "agreement")
SOURCE = ("parameters", "depth", "multiplicity", "init", "scale", "knows_target", "seed", "sha256")
ROWS = "rows"
"""In place of fields: a list of rows."""
VALUE = "value"
"""In place of fields: anything, null too."""

CONTRACT: dict[str, dict[str, Any]] = {
    "ticket": {
        "target": ("name", "accuracy", "parameters", "nonzero", "activation", "depth"),
        "source": SOURCE,
        "ticket": TICKET,
        "subset_sum": (
            *("method", "objective", "tolerance", "calibration", "problems", "unsolved", "deviating"),
            *("mean_size", "mean_error", "max_error"),
        ),
        "error": ("max", "mean", "relative", "examples"),
        "certificate": ("bound", "holds", "domain", "certified_fraction"),
        "theorem": ("epsilon", "delta", "required_multiplicity", "C", "satisfied"),
        "seconds": ("train", "construct", "certify", "evaluate", "total"),
        "environment": ENVIRONMENT,
    },
    "verify": {
        "verified": VALUE,
        "source": SOURCE,
        "ticket": TICKET,
        "error": ("max", "mean", "relative", "examples"),
        "seconds": ("verify", "evaluate"),
        "environment": ENVIRONMENT,
    },
    "prune": {
        "method": (),
        "network": ("weights", "parameters"),
        "found": ("density", "score", "trained", "dense", "chance"),
        "planted": VALUE,
        "overlap": VALUE,
        "layers": ROWS,
        "seconds": (),
        "environment": ENVIRONMENT,
    },
    "width": {"target_accuracy": VALUE, "points": ROWS},
    "depth": {"points": ROWS},
    "epsilon": {"points": ROWS},
    "figures": {"figures": VALUE, "claims": ROWS},
    "layer": {"layer": ("path", "run", "channels", "channels_kept", "weights_kept", "mean_size")},
    "bounds": {"points": ROWS, "certificates": VALUE},
    "bits": {"target_accuracy": VALUE, "means": VALUE, "points": ROWS},
    "compare_constructions": {"error": VALUE, "constructions": VALUE, "points": ROWS},
    "subset_sum": {"subset_sum": ROWS, "tolerance": VALUE},
    "rewinding": {"levels": ROWS, "means": VALUE, "environment": ENVIRONMENT},
    "when_do_pruners_succeed": {"means": VALUE, "points": ROWS},
    "zoo": {"written": VALUE, "tickets": ROWS},
}


def breach(experiment: str, metrics: Any) -> str | None:
    """How metrics break the contract of their experiment, the first fault; None where they keep it."""
    if not isinstance(metrics, dict):
        return f"metrics.json holds {_kind(metrics)}, not a table of sections"
    for section, wanted in CONTRACT.get(experiment, {}).items():
        if section not in metrics:
            return f"metrics.json has no {section}"
        found = metrics[section]
        if wanted == ROWS:
            if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
                return f"{section} of metrics.json is {_kind(found)}, not a list of rows"
        elif wanted != VALUE:
            if not isinstance(found, Mapping):
                return f"{section} of metrics.json is {_kind(found)}, not a section"
            missing = [name for name in wanted if name not in found]
            if missing:
                return f"metrics.json has no {section}.{missing[0]}"
            values = {name: found[name] for name in wanted if name in NUMBERS and found[name] is not None}
            wrong = [name for name, value in values.items() if not is_number(value)]
            if wrong:
                return (
                    f"{section}.{wrong[0]} of metrics.json is {_kind(found[wrong[0]])}, not a number or null"
                )
    return None


NUMBERS = frozenset(
    (
        *("accuracy", "agreement", "parameters", "nonzero", "density", "max", "mean", "relative", "examples"),
        *("problems", "unsolved", "deviating", "mean_size", "mean_error", "max_error", "bound", "epsilon"),
        *("train", "construct", "certify", "evaluate", "total", "weights", "score", "trained", "dense"),
    )
)
"""Fields of the contract that are numbers, or null where nothing was computed."""


def is_number(value: Any) -> bool:
    """Whether a value of metrics.json is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {dict: "a section", list: "a list", str: "a text", bool: "true or false"}.get(
        type(value), "a number"
    )
