"""Pruning: masks of a network's weights by the methods of the field, beside the constructed ones."""

from slth.pruning.magnitude import Magnitude, magnitude_scores
from slth.pruning.protocol import (
    Batch,
    Method,
    Pruned,
    check_layers,
    densities,
    keep,
    kept_count,
    kept_weights,
    kernels,
    mask_of,
    masked,
    prunable,
    with_kernels,
)

__all__ = [
    "Batch",
    "Magnitude",
    "Method",
    "Pruned",
    "check_layers",
    "densities",
    "keep",
    "kept_count",
    "kept_weights",
    "kernels",
    "magnitude_scores",
    "mask_of",
    "masked",
    "prunable",
    "with_kernels",
]
