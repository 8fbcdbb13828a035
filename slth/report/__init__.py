"""Tables, figures and metrics of a run: what a reader sees of a ticket."""

from slth.report.bounds import Curve, Proof, broken_bound, certificate_metrics, draw_bounds, error_metrics
from slth.report.figures import draw_curves, draw_kernels, draw_layer_errors, draw_logits, draw_sizes
from slth.report.kernels import realised_kernels
from slth.report.layer import LayerPicture, layer_picture
from slth.report.layer_drawing import draw_layer
from slth.report.metrics import (
    environment,
    fitting_metrics,
    source_metrics,
    subset_sum_metrics,
    target_metrics,
    ticket_metrics,
)
from slth.report.page import Entry, Figure, Page, Sheet, shown, write_page
from slth.report.panels import Band, Panel, draw_bands, draw_panels
from slth.report.progress import LayerProgress, layer_progress
from slth.report.seeds import Mean, mean_of
from slth.report.tables import layer_rows, ticket_lines, ticket_table, write_csv
from slth.report.words import failures, problems, sentences

__all__ = [
    "Band",
    "Curve",
    "Entry",
    "Figure",
    "LayerPicture",
    "LayerProgress",
    "Mean",
    "Page",
    "Panel",
    "Proof",
    "Sheet",
    "broken_bound",
    "certificate_metrics",
    "draw_bands",
    "draw_bounds",
    "draw_curves",
    "draw_kernels",
    "draw_layer",
    "draw_layer_errors",
    "draw_logits",
    "draw_panels",
    "draw_sizes",
    "environment",
    "error_metrics",
    "failures",
    "fitting_metrics",
    "layer_picture",
    "layer_progress",
    "layer_rows",
    "mean_of",
    "problems",
    "realised_kernels",
    "sentences",
    "shown",
    "source_metrics",
    "subset_sum_metrics",
    "target_metrics",
    "ticket_lines",
    "ticket_metrics",
    "ticket_table",
    "write_csv",
    "write_page",
]
