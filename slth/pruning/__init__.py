"""Pruning: masks of a network's weights by the methods of the field, beside the constructed ones."""

from slth.pruning.chance import Random, random_scores
from slth.pruning.grasp import Grasp, grasp_scores
from slth.pruning.layer_densities import (
    Balanced,
    ErdosRenyi,
    ErdosRenyiKernel,
    Given,
    LayerDensities,
    Uniform,
    scaled,
)
from slth.pruning.magnitude import Lamp, Magnitude, lamp_scores, magnitude_scores
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
    live_densities,
    mask_of,
    masked,
    prunable,
    with_kernels,
)
from slth.pruning.snip import Snip, snip_scores
from slth.pruning.synflow import Round, Synflow, synflow_scores

__all__ = [
    "Balanced",
    "Batch",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "Given",
    "Grasp",
    "Lamp",
    "LayerDensities",
    "Magnitude",
    "Method",
    "Pruned",
    "Random",
    "Round",
    "Snip",
    "Synflow",
    "Uniform",
    "check_layers",
    "densities",
    "grasp_scores",
    "keep",
    "kept_count",
    "kept_weights",
    "kernels",
    "lamp_scores",
    "live_densities",
    "magnitude_scores",
    "mask_of",
    "masked",
    "prunable",
    "random_scores",
    "scaled",
    "snip_scores",
    "synflow_scores",
    "with_kernels",
]
