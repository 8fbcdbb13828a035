"""What was proved of a ticket, as sections of ``metrics.json``, columns of ``layers.csv`` and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate import Certificate
from slth.certificate.statistics import CONFIDENCE, LEVELS, covered_share, quantile_bound
from slth.certificate.theorem import Theorem
from slth.evaluate import Comparison
from slth.report.figures import COLOURS, DARK, GREY, MARKERS, picture

THEOREM = ("epsilon", "delta", "required_multiplicity", "C", "satisfied")
MORE_THEOREM = ("required_univariate", "guaranteed", "problems")
ERRORS = ("max", "mean", "relative", "rmse", "r2", "examples", "not_finite")
CERTIFICATE = ("bound", "holds", "domain", "certified_fraction")
LAYER_BOUNDS = (
    *("bound", "mean_bound", "unstable"),
    *("budget", "budget_met", "largest_weight", "fan_in", "input_sum", "gain_bound"),
    *("required_multiplicity", "required_width", "width"),
)
FIELDS = {"mean_bound": "mean", "budget": "tolerance", "budget_met": "met", "gain_bound": "gain"}
"""Those of `LAYER_BOUNDS` that are called otherwise where they are computed."""


class Proof(NamedTuple):
    """A certificate and Theorem 2 (of L + 1) over one domain, held against the errors found on inputs of it.

    Example:
      >>> from slth import report
      >>> report.Proof._fields[:4]
      ('name', 'certificate', 'theorem', 'error')
    """

    name: str
    certificate: Certificate
    theorem: Theorem | None
    """None of a ticket of 2L: the theorem is about L + 1."""
    error: float
    """Largest error found."""
    tried: int
    """Inputs it was looked for on."""
    violations: int
    """Inputs on which a logit is off by more than its bound, or is not a number."""
    certified_fraction: float | None
    """Share of the test images of the domain on which target and ticket provably agree; None where outputs
    are no classes."""
    margin: float | None
    """Largest lead of the target's first output over the second, on these images; None likewise."""
    seconds: float


def certificate_metrics(proofs: Sequence[Proof]) -> dict[str, Any]:
    """Sections ``certificate`` and ``theorem``, of the last domain, and ``certificates``, a list of all.

    ``holds`` says that no error found exceeds its bound; it is no proof of the bound, but can refute it.

    Example:
      >>> from slth import report
      >>> report.certificate_metrics([])["certificate"]      # nothing was asked for
      {'bound': None, 'holds': None, 'domain': None, 'certified_fraction': None}
    """
    if not proofs:
        return {"certificate": dict.fromkeys(CERTIFICATE), "theorem": dict.fromkeys(THEOREM)}
    sections = [_section(proof) for proof in proofs]
    last = dict(sections[-1])
    return {"theorem": last.pop("theorem"), "certificate": last, "certificates": sections}


def _section(proof: Proof) -> dict[str, Any]:
    found = proof._asdict()
    made = found.pop("certificate")
    return found | {
        "theorem": {name: getattr(proof.theorem, name, None) for name in THEOREM + MORE_THEOREM},
        "bound": float(made.bound.max()),
        "mean_bound": float(made.bound.mean()),
        "holds": proof.violations == 0,
        "domain": made.domain,
        "method": made.method,
        "slack": made.slack,
    }


def broken_bound(metrics: Mapping[str, Any]) -> str | None:
    """What to say of a run whose ticket is further off than was proved; None if no bound is broken.

    Args:
      metrics: of a run, as `certificate_metrics` writes them.

    Example:
      >>> from slth import report
      >>> report.broken_bound({"certificates": [{"holds": True}]}) is None
      True
    """
    entries = metrics.get("certificates", [metrics.get("certificate", {})])
    broken = "; ".join(
        f"certificate of {entry['domain']} ({entry['method']}) is broken: {entry['violations']} of"
        f" {entry['tried']} inputs have a larger error than proved (largest error {entry['error']}, largest"
        f" bound {entry['bound']}). This is a bug of slth, please report it with config.yaml"
        for entry in entries
        if entry.get("holds") is False
    )
    return broken or None


def layer_bounds(proof: Proof | None) -> dict[str, dict[str, Any]]:
    """`LAYER_BOUNDS` by path of the layer; empty without a proof.

    ``bound`` and ``mean_bound`` are errors of a copy's pre-activations in units of the balanced target,
    ``budget`` the most that a subset-sum problem may miss (units of the source's scale), the rest as in
    `slth.certificate.theorem.Budget`.
    """
    if proof is None:
        return {}
    found = {layer.path: layer._asdict() for layer in proof.certificate.layers}
    for budget in proof.theorem.layers if proof.theorem else ():
        found[budget.layer] |= budget._asdict()
    return {
        path: {column: row.get(FIELDS.get(column, column)) for column in LAYER_BOUNDS}
        for path, row in found.items()
    }


def comparison_metrics(comparison: Comparison | None) -> dict[str, Any]:
    """What section ``error`` says of a comparison in every run; None where nothing was compared."""
    return {name: getattr(comparison, name, None) for name in ERRORS}


def error_metrics(comparison: Comparison, off: Float[np.ndarray, "n outputs"]) -> dict[str, Any]:
    """Section ``error``, with what it says of images never looked at.

    With the confidence stated, a share ``quantiles[].level`` of all images has no logit that is off by more
    than ``quantiles[].bound`` (null where the images are too few), and ``share_within_max`` of them none that
    is off by more than ``max``.

    Args:
      comparison: of all outputs.
      off: largest or all |ticket - target|, a row for each image.

    Example:
      >>> import numpy as np
      >>> from slth import evaluate, report
      >>> target, ticket = np.zeros((100, 2)), np.full((100, 2), 0.1)
      >>> found = report.error_metrics(evaluate.compare(target, ticket), np.abs(ticket - target))
      >>> found["max"], round(found["share_within_max"], 3)      # of all images, 95 % sure
      (0.1, 0.970)
    """
    largest = off.reshape(len(off), -1).max(1)
    known = not np.isnan(largest).any()
    return {
        **comparison_metrics(comparison),
        "confidence": CONFIDENCE,
        "share_within_max": covered_share(len(largest), len(largest)) if known else None,
        "quantiles": [quantile_bound(largest, level)._asdict() for level in LEVELS] if known else None,
    }


class Curve(NamedTuple):
    """One line of `draw_bounds`.

    Example:
      >>> from slth import report
      >>> report.Curve("largest error", [8, 12, 15], [0.5, 0.2, None]).label
      'largest error'
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None or not finite: nothing is drawn there."""


def draw_bounds(
    path: str | Path,
    panels: Mapping[str, Sequence[Curve]],
    *,
    title: str,
    x_label: str,
    level: tuple[str, float] | None = None,
    columns: int = 3,
) -> None:
    """Actual errors and what was proved of them, one panel a title, on one logarithmic axis.

    Args:
      level: a horizontal line, (label, y): bounds above it say nothing.

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "figure.png"
      >>> curve = report.Curve("largest error", [8, 12, 15], [0.5, 0.2, 0.1])
      >>> level = ("half the target's margin", 1.0)
      >>> report.draw_bounds(file, {"box": [curve]}, title="Bounds", x_label="copies", level=level)
      >>> file.stat().st_size > 1000
      True
    """
    styles = [(DARK, "o"), *((COLOURS[number], MARKERS[number + 1]) for number in (0, 1, 3, 2))]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    with picture(path, 0.8 + 2.7 * columns, 1.1 + 2.6 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
            if level is not None:
                axes.axhline(level[1], color=GREY, linewidth=1, linestyle="--", label=level[0])
            for (colour, marker), curve in zip(styles, curves, strict=False):
                y = np.array(curve.y, np.float64)
                y = np.where(np.isfinite(y), y, np.nan)
                axes.plot(curve.x, y, marker=marker, color=colour, label=curve.label)
            axes.set(yscale="log", title=name)
        for axes in grid[:, 0]:
            axes.set_ylabel("largest error of an output")
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        side_by_side = min(len(labels), 2 * columns)
        figure.legend(handles, labels, loc="outside lower center", ncols=side_by_side, fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
