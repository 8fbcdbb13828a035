"""Figures of collected runs: a number of their metrics against a setting, means with bands."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.contract import is_number
from experiments.groups import Groups, means
from slth import report
from slth.report import Mean

MOST = 8
"""Curves that one figure has room for."""


class Measure(NamedTuple):
    """A number that is shown and drawn."""

    name: str
    label: str
    log: bool = False


MEASURES: dict[str, tuple[Measure, ...]] = {
    "ticket": (
        Measure("ticket.accuracy", "test accuracy of the ticket"),
        Measure("ticket.agreement", "agreement with the target"),
        Measure("error.relative", "relative error of the outputs", log=True),
        Measure("error.max", "largest error of the outputs", log=True),
        Measure("ticket.density", "density of the ticket"),
        Measure("ticket.coded_bits_per_weight", "bits for each weight of the target"),
        Measure("subset_sum.unsolved", "unsolved subset-sum problems"),
        Measure("seconds.construct", "seconds of construction"),
    ),
    "verify": (
        Measure("ticket.accuracy", "test accuracy of the ticket"),
        Measure("ticket.agreement", "agreement with the target"),
        Measure("error.relative", "relative error of the outputs", log=True),
        Measure("ticket.density", "density of the ticket"),
    ),
    "prune": (
        Measure("found.density", "density of the mask"),
        Measure("found.score", "score under the mask, untrained"),
        Measure("found.trained", "score under the mask, trained"),
        Measure("overlap.jaccard", "Jaccard index with the planted ticket"),
        Measure("overlap.recall", "share of the planted ticket that is found"),
        Measure("seconds.prune", "seconds of pruning"),
    ),
}


def draw(folder: Path, groups: Groups, confidence: float) -> list[report.Figure]:
    """A figure for each of the experiment's `MEASURES` that differs; none where no setting does."""
    axis = axis_of(groups)
    if axis is None:
        return []
    averaged, figures = means(groups, confidence), []
    for measure in MEASURES.get(groups.experiment, ()):
        curves = curves_of(axis, averaged, measure.name)
        values = [mean.mean for line in curves.values() for mean in line.values() if mean.mean is not None]
        if not values:
            continue
        path = folder / f"{groups.experiment}_{measure.name.replace('.', '_')}.png"
        shown = dict(list(curves.items())[:MOST])
        _draw(path, axis, shown, groups.settings[axis], measure)
        figures.append(report.Figure(path, _caption(axis, curves, measure, confidence)))
    return figures


def axis_of(groups: Groups) -> str | None:
    """The setting to draw against: the one with most values, numbers before others; None of none."""
    ranked = {name: (all(map(is_number, values)), len(values)) for name, values in groups.settings.items()}
    return max(ranked, key=ranked.__getitem__, default=None)


def curves_of(
    axis: str, averaged: list[tuple[dict[str, Any], dict[str, Mean]]], measure: str
) -> dict[str, dict[Any, Mean]]:
    """By label of the settings beside the axis: the means by value of the axis; unknown ones are left out."""
    curves: dict[str, dict[Any, Mean]] = {}
    for settings, found in averaged:
        mean = found.get(measure)
        if mean is not None and mean.mean is not None:
            others = [f"{name} {report.shown(value)}" for name, value in settings.items() if name != axis]
            curves.setdefault(", ".join(others) or "mean", {})[_hashable(settings[axis])] = mean
    return curves


def _draw(
    path: Path, axis: str, curves: Mapping[str, Mapping[Any, Mean]], values: list[Any], measure: Measure
) -> None:
    numeric = all(map(is_number, values))
    places = {_hashable(value): float(value) if numeric else place for place, value in enumerate(values)}
    lines: dict[str, tuple[list[float], list[float]]] = {}
    bands: dict[str, tuple[list[float], list[float]]] = {}
    for label, line in curves.items():
        known = sorted((places[value], mean) for value, mean in line.items())
        x, y = [place for place, _ in known], [mean.mean for _, mean in known if mean.mean is not None]
        low = [mean.low if mean.low is not None else math.nan for _, mean in known]
        high = [mean.high if mean.high is not None else math.nan for _, mean in known]
        lines[label], bands[label] = (x, y), (low, high)
    drawn = [value for _, y in lines.values() for value in y]
    spots = [float(value) for value in values] if numeric else []
    report.draw_curves(
        path,
        lines,
        x_label=axis,
        y_label=measure.label,
        title=f"{measure.label[:1].upper()}{measure.label[1:]} by {axis}",
        names=() if numeric else [report.shown(value) for value in values],
        log=measure.log and min(drawn) > 0 and max(drawn) / min(drawn) > 10,
        log_x=bool(spots) and min(spots) > 0 and max(spots) / min(spots) > 20,
        spread=bands,
        ticks={spot: report.shown(spot) for spot in spots} if 0 < len(spots) <= 10 else None,
    )


def _caption(axis: str, curves: Mapping[str, Mapping[Any, Mean]], measure: Measure, confidence: float) -> str:
    means = [(mean, label, value) for label, line in curves.items() for value, mean in line.items()]
    least = min(means, key=lambda one: one[0].mean or 0.0)
    most = max(means, key=lambda one: one[0].mean or 0.0)
    counts = sorted({mean.n for mean, _, _ in means})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = (
        f"{measure.label[:1].upper()}{measure.label[1:]} ({measure.name}), means of {seeds} "
        f"run{'' if counts == [1] else 's'}: from {report.shown(least[0].mean)} at {_place(axis, least)} to "
        f"{report.shown(most[0].mean)} at {_place(axis, most)}."
    )
    if any(mean.low is not None for mean, _, _ in means):
        text += f" Bands are {100 * confidence:g} % intervals by Student's t."
    if any(mean.low is None for mean, _, _ in means):
        text += " Points without a band have no interval."
    if len(curves) > MOST:
        text += f" Drawn are the first {MOST} of {len(curves)} curves; the table has all."
    return text


def _place(axis: str, one: tuple[Mean, str, Any]) -> str:
    _, label, value = one
    return f"{axis} {report.shown(value)}" + ("" if label == "mean" else f" ({label})")


def _hashable(value: Any) -> Any:
    return report.shown(value) if isinstance(value, list | dict) else value
