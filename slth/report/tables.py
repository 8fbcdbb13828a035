"""Tables: a line for each layer as CSV, and the few numbers of a run for a terminal."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slth.construction import Construction
from slth.construction.state import Stats
from slth.evaluate import LayerError
from slth.report.bounds import LAYER_BOUNDS, Proof, layer_bounds
from slth.report.words import interval_text, percent


def layer_rows(
    construction: Construction,
    calibration: Mapping[str, LayerError] | None = None,
    test: Mapping[str, LayerError] | None = None,
    proof: Proof | None = None,
) -> list[dict[str, Any]]:
    r"""A row of ``layers.csv`` for each linear layer; None where a value was not computed.

    ``mean_error`` and ``max_error`` are :math:`|\sum_S v - w|` in units of the layer's source scale; ``gain``
    is :math:`\sqrt{\sum v^2 / \sum w^2}` over kept v and all target weights of all copies; the last four are
    relative L2 errors (`slth.evaluate.LayerError`) of one copy and of the copies' mean. ``unread`` copies are
    those that nothing behind them reads. A proof fills the columns of `slth.report.bounds.layer_bounds`.

    Args:
      calibration, test: errors by layer on calibration and on test images (`slth.evaluate.run`), or None.
      proof: a certificate of the ticket, or None.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> [(row["layer"], row["problems"], row["copy_error_test"]) for row in report.layer_rows(made)]
      [('a', 120, None), ('b', 6, None)]
    """
    proved = layer_bounds(proof)
    rows = []
    for record in construction.records:
        stats = record.stats
        calibrated, tested = ((errors or {}).get(record.path) for errors in (calibration, test))
        row: dict[str, Any] = {
            "layer": record.path,
            **stats_fields(stats),
            "gain": math.sqrt(stats.source_power / stats.target_power) if stats.target_power > 0 else None,
            "weights_lost": record.lost.weights,
            "biases_lost": record.lost.biases,
            "kept": record.kept,
            "parameters": record.parameters,
            "density": record.kept / record.parameters,
            "unread": None if tested is None else tested.unread,
            "seconds": record.seconds,
        }
        for name, found in (("calibration", calibrated), ("test", tested)):
            row[f"copy_error_{name}"] = None if found is None else found.copy
            row[f"mean_error_{name}"] = None if found is None else found.mean
        rows.append(row | proved.get(record.path, dict.fromkeys(LAYER_BOUNDS)))
    return rows


def stats_fields(stats: Stats) -> dict[str, Any]:
    """Counts and errors of some subset-sum problems, as ``layers.csv`` and ``metrics.json`` name them."""
    problems = max(stats.problems, 1)
    return {
        "problems": stats.problems,
        "unsolved": stats.unsolved,
        "deviating": stats.deviating,
        "mean_size": stats.size / problems,
        "mean_error": stats.error / problems,
        "max_error": stats.max_error,
    }


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of equal keys as CSV with a header; floats with six significant digits, None as an empty field.

    Example:
      >>> import pathlib, tempfile
      >>> from slth import report
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "layers.csv"
      >>> report.write_csv(file, [{"layer": "a", "error": 0.123456789}, {"layer": "b", "error": None}])
      >>> file.read_text().splitlines()
      ['layer,error', 'a,0.123457', 'b,']
    """
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def ticket_table(metrics: Mapping[str, Any]) -> Table:
    """The few numbers of a run that say whether its ticket works, for a terminal.

    Example:
      >>> import json, pathlib
      >>> from slth import report
      >>> metrics = pathlib.Path("outputs/ticket/291876cd7618/metrics.json")      # of a run
      >>> print(report.ticket_table(json.loads(metrics.read_text())))    # doctest: +SKIP
    """
    return _table(ticket_lines(metrics))


def ticket_lines(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The lines of `ticket_table` by their names.

    Example:
      >>> import json, pathlib
      >>> from slth import report
      >>> metrics = pathlib.Path("outputs/ticket/291876cd7618/metrics.json")      # of a run
      >>> report.ticket_lines(json.loads(metrics.read_text()))["size"]    # doctest: +SKIP
    """
    target, source, ticket = metrics["target"], metrics["source"], metrics["ticket"]
    sums, error, seconds = metrics["subset_sum"], metrics["error"], metrics["seconds"]
    how = sums["method"] if sums["objective"] is None else f"{sums['method']}, {sums['objective']}"
    seen = metrics.get("evaluation") or {}
    tested = seen.get("of", error["examples"])
    images = "" if tested is None else f" on {tested:,} test images"
    return {
        "target": f"{target['name']}, {target['nonzero']:,} of {target['parameters']:,} weights, "
        f"{_against_labels(target)}{images}",
        "source": f"seed {source['seed']}, {source['init']}, {_width(source)}, "
        f"{source['parameters']:,} parameters",
        **_drawn(metrics),
        "ticket": f"{_against_labels(ticket)}, {_against_target(ticket, error)}, "
        f"density {ticket['density']:.4f} ({ticket['nonzero']:,} kept)",
        "size": f"{ticket['bytes'] / 1000:,.1f} kB{_bits(ticket)}",
        "subset sums": f"{sums['problems']:,} ({how}), {sums['unsolved']:,} unsolved, "
        f"{sums['deviating']:,} deviating, mean |S| {sums['mean_size']:.2f}",
        "output error": f"max {_number(error['max'])}, mean {_number(error['mean'])}, "
        f"relative {_number(error['relative'])}{_quantile(error)}",
        **_proved(metrics),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if value is not None),
    }


def _drawn(metrics: Mapping[str, Any]) -> dict[str, str]:
    """A line where the ticket was evaluated on some of the test images only."""
    seen = metrics.get("evaluation") or {}
    if seen.get("images") == seen.get("of"):
        return {}
    own = seen["target_accuracy"]
    there = "" if own is None else f", on which the target has an accuracy of {_percent(own)}"
    return {"evaluated": f"{seen['images']:,} of the {seen['of']:,} test images{there}"}


def _against_labels(section: Mapping[str, Any]) -> str:
    """How far outputs are right: as classes, or as numbers where the labels are these."""
    if section["rmse"] is None:
        return f"accuracy {_percent(section['accuracy'])}{interval_text(section.get('accuracy_interval'))}"
    return f"RMSE {_number(section['rmse'])}, R² {_r2(section['r2'])}"


def _against_target(ticket: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """How far ticket and target say the same."""
    if ticket["agreement"] is None and error["rmse"] is not None:
        return f"against the target RMSE {_number(error['rmse'])}, R² {_r2(error['r2'])}"
    return f"agreement {_percent(ticket['agreement'])}{interval_text(ticket['agreement_interval'])}"


def _r2(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6f}"


def _table(rows: Mapping[str, str]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", value)
    return table


def _width(source: Mapping[str, Any]) -> str:
    if source["univariate"] is None:
        return f"{source['multiplicity']} copies a channel"
    alone = ", positive ones alone behind a ReLU" if source.get("positive") else ""
    return f"{source['univariate']} univariate channels for each input and sign{alone}"


def _quantile(error: Mapping[str, Any]) -> str:
    """The highest quantile that the images bound; nothing where they bound none."""
    known = [one for one in error.get("quantiles") or () if one["bound"] is not None]
    if not known:
        return ""
    return f"; 95 % sure: of all images {_percent(known[-1]['level'])} below {_number(known[-1]['bound'])}"


def _proved(metrics: Mapping[str, Any]) -> dict[str, str]:
    """A line for each certificate, and one for Theorem 2; none where nothing was certified."""
    lines = {}
    for one in metrics.get("certificates", ()):
        share = one["certified_fraction"]
        agree = "vacuous: no image certified"
        if share is None:
            agree = "of outputs that are no classes"
        elif share:
            agree = f"{_percent(share)} of the images certified"
        lines[f"proved, {one['name']}"] = (
            f"error at most {_number(one['bound'])} on {one['domain']} ({one['method']}; found"
            f" {_number(one['error'])} on {one['tried']:,} inputs), {agree}"
            + ("" if one["holds"] else ": BROKEN")
        )
    theorem = metrics["theorem"]
    if theorem["epsilon"] is not None:
        needed = theorem["required_multiplicity"]
        met = {True: "met", False: "not met", None: "not known to be met"}[theorem["satisfied"]]
        lines["theorem 2"] = (
            f"error {_number(theorem['epsilon'])} (delta {_number(theorem['delta'])}) asks for "
            + ("a phi nearer to its two lines" if needed is None else f"{needed:,} copies a channel")
            + f", budgets {met}; guaranteed by the errors reached: {_number(theorem['guaranteed'])}"
        )
    return lines


def _bits(ticket: Mapping[str, Any]) -> str:
    """Bits for each weight of the target, where it is known."""
    if ticket["bits_per_weight"] is None:
        return ""
    return (
        f", {ticket['coded_bits_per_weight']:.2f} bits a weight of the target"
        f" (mask before coding {ticket['bits_per_weight']:.2f})"
    )


def verify_table(metrics: Mapping[str, Any]) -> Table:
    """What a verification found, for a terminal."""
    source, ticket, error = metrics["source"], metrics["ticket"], metrics["error"]
    rows = {
        "source": f"seed {source['seed']}, {source['init']}, {source['parameters']:,} parameters, "
        f"sha256 {source['sha256'][:16]}... as in the file",
        "ticket": f"density {ticket['density']:.4f} ({ticket['nonzero']:,} kept), "
        f"lambda {ticket['factor']:.6g}, {ticket['bytes'] / 1000:,.1f} kB{_bits(ticket)}",
        "channels": f"{ticket['channels_kept']:,} of {ticket['channels']:,} kept, "
        f"{ticket['constants_kept']:,} of them constant",
        **_drawn(metrics),
        "against the labels": _against_labels(ticket),
        "against the target": f"{_against_target(ticket, error)}, output error max "
        f"{_number(error['max'])}, mean {_number(error['mean'])}",
    }
    if (small := metrics["compact"]) is not None:
        rows["compact"] = (
            f"{small['parameters']:,} parameters ({small['nonzero']:,} not zero), "
            f"{small['bytes'] / 1000:,.1f} kB, outputs off by {_number(small['difference'])}, "
            f"in float64 by {_number(small['difference_float64'])}"
        )
    return _table(rows)


def show(table: Table) -> None:
    """Print a table to standard output, without wrapping where there is no terminal."""
    Console(width=None if Console().is_terminal else 160).print(table)


def _percent(share: float | None) -> str:
    return "not computed" if share is None else percent(share)


def _number(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.3g}"
