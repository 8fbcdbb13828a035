"""The figure of seconds against weights: ``python -m benchmarks.growth TABLE.csv FIGURE.png``.

The table is that of ``python -m benchmarks.construction cases=growth out=TABLE.csv``.
"""

import csv
import statistics
import sys

from slth import report


def main(table: str, figure: str) -> None:
    """Draw the medians of all runs but the first ones, which compile."""
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] != "cold"]
    by_weights: dict[float, list[float]] = {}
    for row in rows:
        by_weights.setdefault(float(row["weights"]), []).append(float(row["seconds"]))
    weights = sorted(by_weights)
    seconds = [statistics.median(by_weights[one]) for one in weights]
    slope = seconds[-1] / weights[-1]
    curves = {
        "construction": (weights, seconds),
        "proportional to the weights": (weights, [slope * one for one in weights]),
    }
    labels = {"x_label": "weights of the target", "y_label": "seconds"}
    report.draw_curves(figure, curves, title="robust, m = 10", log=True, log_x=True, **labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
