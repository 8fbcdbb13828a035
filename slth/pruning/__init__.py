"""Pruning: masks of a network's weights by the methods of the field, beside the constructed ones."""

from slth.nn.prune import masked
from slth.pruning.biprop import Biprop
from slth.pruning.chance import Random, random_scores
from slth.pruning.controls import reinitialised, shuffled
from slth.pruning.edge_popup import EdgePopup
from slth.pruning.gem_miner import GemMiner
from slth.pruning.grasp import Grasp, grasp_scores
from slth.pruning.imp import IMP, Level
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
from slth.pruning.objectives import Distilled, Labels, Loss, fitted_factor
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
    prunable,
    with_kernels,
)
from slth.pruning.relaxed import Relaxed
from slth.pruning.search import Search
from slth.pruning.snip import Snip, snip_scores
from slth.pruning.synflow import Round, Synflow, synflow_scores
from slth.pruning.topk import top, top_by_layer
from slth.pruning.weights import random_weights

__all__ = [
    "IMP",
    "Balanced",
    "Batch",
    "Biprop",
    "Distilled",
    "EdgePopup",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "GemMiner",
    "Given",
    "Grasp",
    "Labels",
    "Lamp",
    "LayerDensities",
    "Level",
    "Loss",
    "Magnitude",
    "Method",
    "Pruned",
    "Random",
    "Relaxed",
    "Round",
    "Search",
    "Snip",
    "Synflow",
    "Uniform",
    "check_layers",
    "densities",
    "fitted_factor",
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
    "random_weights",
    "reinitialised",
    "scaled",
    "shuffled",
    "snip_scores",
    "synflow_scores",
    "top",
    "top_by_layer",
    "with_kernels",
]
