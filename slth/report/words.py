"""What the metrics of a run say, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from slth.report.bounds import broken_bound


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """A ticket in words, of the metrics of its run (``metrics.json``).

    Example:
      >>> from slth import report
      >>> found = {"accuracy": 0.98, "density": 0.1, "agreement": None}
      >>> known = {"name": "mlp", "accuracy": 0.98}
      >>> made = {"parameters": 5000, "seed": 1, "multiplicity": 5}
      >>> found |= {"nonzero": 500}
      >>> error = {"relative": 0.01, "examples": 360}
      >>> metrics = {"target": known, "source": made, "ticket": found, "error": error}
      >>> report.sentences(metrics)[0]
      'The ticket keeps 500 of the 5,000 weights of a random source (10.00 %, seed 1), unchanged.'
    """
    target, source, ticket, error = (metrics[part] for part in ("target", "source", "ticket", "error"))
    text = [
        f"The ticket keeps {ticket['nonzero']:,} of the {source['parameters']:,} weights of a random source "
        f"({percent(ticket['density'])}, seed {source['seed']}), unchanged."
    ]
    images = "" if error["examples"] is None else f" on {error['examples']:,} test images"
    seen = _section(metrics, "evaluation")
    drawn = seen.get("images") != seen.get("of")
    if drawn:
        images = f" on {seen['images']:,} of the {seen['of']:,} test images"
    if ticket["accuracy"] is not None and target["accuracy"] is not None:
        own = percent(target["accuracy"])
        if drawn:
            own = f"{percent(seen['target_accuracy'])} on the same images and {own} on all"
        sure = interval_text(ticket.get("accuracy_interval"))
        text.append(
            f"Its accuracy{images} is {percent(ticket['accuracy'])}{sure}; that of its target, "
            f"{target['name']}, is {own}."
        )
    if ticket["agreement"] is not None:
        text.append(
            f"Ticket and target name the same class of {percent(ticket['agreement'])} of the images"
            f"{interval_text(ticket.get('agreement_interval'))}."
        )
    if error["relative"] is not None:
        text.append(f"The outputs of the two differ by {percent(error['relative'])} (relative L2 error).")
    return text


def interval_text(interval: Sequence[float] | None) -> str:
    """A 95 % interval of a share, in brackets; nothing where there is none."""
    return "" if interval is None else f" (95 % sure: {100 * interval[0]:.2f} to {100 * interval[1]:.2f} %)"


def problems(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader of a run must know before believing it: unsolved problems, bounds that failed, misfits.

    Args:
      metrics: of a run of any experiment; what they do not hold is passed over.

    Example:
      >>> from slth import report
      >>> report.problems({"subset_sum": {"problems": 10, "unsolved": 2, "tolerance": 0.01}})
      ['2 of 10 subset-sum problems (20.00 %) have no subset within the tolerance 0.01: unsolved']
    """
    sums = _section(metrics, "subset_sum")
    if not sums.get("unsolved"):
        return failures(metrics)
    share = percent(sums["unsolved"] / max(sums["problems"], 1))
    return [
        f"{sums['unsolved']:,} of {sums['problems']:,} subset-sum problems ({share}) have no subset within "
        f"the tolerance {sums['tolerance']:g}: unsolved",
        *failures(metrics),
    ]


def failures(metrics: Mapping[str, Any]) -> list[str]:
    """`problems` without the count of unsolved subset sums, which most tickets have.

    Example:
      >>> from slth import report
      >>> report.failures({"theorem": {"satisfied": False}})
      ['Theorem 2 does not hold here: the errors of the subset sums exceed its budgets']
    """
    found = []
    error = _section(metrics, "error")
    if error.get("not_finite"):
        found.append(
            f"on {error['not_finite']:,} of {error['examples']:,} images outputs of the ticket are infinite "
            "or not numbers: they count as wrong"
        )
    broken = broken_bound(_certified(metrics))
    if broken is not None:
        found.append(broken)
    if _section(metrics, "theorem").get("satisfied") is False:
        found.append("Theorem 2 does not hold here: the errors of the subset sums exceed its budgets")
    found += [
        str(one["text"]) for one in _section(metrics, "fitting").get("misfits") or () if one.get("text")
    ]
    for part, rows in metrics.items():
        if isinstance(rows, list):
            found += _of_rows(part, [row for row in rows if isinstance(row, Mapping)])
    return found


def _certified(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The certificates with every field that `broken_bound` names, None where a run does not say it."""
    fields = dict.fromkeys(("domain", "method", "violations", "tried", "error", "bound", "holds"))
    entries = metrics.get("certificates", [_section(metrics, "certificate")])
    listed = entries if isinstance(entries, list) else []
    return {"certificates": [fields | dict(entry) for entry in listed if isinstance(entry, Mapping)]}


def _of_rows(part: str, rows: list[Mapping[str, Any]]) -> list[str]:
    counts = {
        "have unsolved subset-sum problems": sum(bool(row.get("unsolved")) for row in rows),
        "have a larger error than was proved": sum(row.get("holds") is False for row in rows)
        if part != "certificates"
        else 0,
        "are not as in the table": sum(row.get("same") is False for row in rows),
        "were refused": sum(bool(row.get("refused")) for row in rows),
    }
    return [f"{count} of {len(rows)} {part} {what}" for what, count in counts.items() if count]


def _section(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metrics.get(name)
    return value if isinstance(value, Mapping) else {}


def percent(share: float) -> str:
    """A share with two digits behind the point."""
    return f"{100 * share:.2f} %"
