"""What each method proves of a ticket, and how fast: ``python -m benchmarks.certificate SETTING ...``.

The settings are those of `experiments.ticket`, those of ``certificate`` too. For every multiplicity, for the
whole ticket and for its hidden layers below the target's own output layer, and for the box and the balls, a
row has the largest bound of a logit by each method, the ratio of ``interval`` to ``linear``, the largest
exact error at some images, the share of certified images and the seconds. ``--csv`` writes the table.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.built import Built, built
from experiments.certificates import domain_of
from slth.certificate import certify, examples

SHOWN = {
    "bound_interval": "{:.3g}",
    "bound_linear": "{:.3g}",
    "ratio": "{:.1f}",
    "error": "{:.3g}",
    "certified_interval": "{:.2%}",
    "certified_linear": "{:.2%}",
    "seconds_interval": "{:.1f}",
    "seconds_linear": "{:.1f}",
}


def rows(ticket: Built, errors: int) -> list[dict[str, Any]]:
    """One row for each part of the network and each domain."""
    data, made = ticket.data, ticket.made
    logits = made.target(data.test_images)
    table = []
    for part in ("whole", "hidden"):
        exact = examples(data.test_images[:errors])
        worst = certify(made, exact, "linear", slack=0.0, exact_output=part == "hidden").bound.max()
        for name in ("box", "ball"):
            domain = domain_of(ticket.cfg, name, data)
            row = {"multiplicity": made.source.multiplicity, "part": part, "domain": name}
            for method in ("interval", "linear"):
                begun = time.perf_counter()
                proof = certify(made, domain, method, exact_output=part == "hidden")
                row[f"seconds_{method}"] = time.perf_counter() - begun
                row[f"bound_{method}"] = float(proof.bound.max())
                about = logits if name == "box" else logits[: len(proof.bound)]
                row[f"certified_{method}"] = float(proof.certified(about).mean())
            row["ratio"] = row["bound_interval"] / row["bound_linear"]
            row["error"] = float(worst)
            table.append(row)
    return table


def main() -> None:
    """The table, and a CSV file of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "settings", nargs="+", metavar="SETTING", help="of experiments.ticket: data=mnist ..."
    )
    parser.add_argument("--multiplicity", nargs="+", type=int, default=[15, 18, 20])
    parser.add_argument("--errors", type=int, default=48, help="test images for the exact error")
    parser.add_argument("--csv", type=Path, help="file for the table")
    options = parser.parse_args()
    measured = []
    for m in options.multiplicity:
        settings = ["certificate=ball", "certificate.images=10", *options.settings]
        measured += rows(built([*settings, f"source.multiplicity={m}"]), options.errors)
    table = pd.DataFrame(measured)[["multiplicity", "part", "domain", *SHOWN]]
    print(table.to_string(index=False, formatters={name: form.format for name, form in SHOWN.items()}))
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
