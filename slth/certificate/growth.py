r"""How errors grow at most, from a node's pre-activations to the outputs: the products of Theorem 2.

A map whose subsets have at most q of the random weights :math:`|v| \le \sigma` for each of at most D target
weights in a row multiplies its inputs' errors by at most :math:`\Gamma = \sigma q D`, an activation by its
Lipschitz constant; a residual block is one factor :math:`\Gamma_{skip} + \Gamma_2 T \Gamma_1`. Products of
many layers leave the range of floats: all is in logarithms.
"""

import math
from collections.abc import Mapping

import numpy as np

from slth import nn
from slth.certificate.nodes import Map, Node
from slth.construct.layout import UNIVARIATE
from slth.nn.layers import Activation, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.source import Source, parameter_shapes


def subset_sizes(nodes: tuple[Node, ...], source: Source, multiplicity: int) -> dict[str, int]:
    """q of every map: a subset can have no more members than there are, in the first layer of both signs."""
    *_, cin, width = parameter_shapes(source.network)[f"{UNIVARIATE}/kernel"]
    maps = (entry for node in nodes for entry in node.maps)
    return {entry.path: width // cin if entry.raw else multiplicity for entry in maps}


def gain(entry: Map, size: int) -> float:
    """Gamma of a map for subsets of at most this size: sigma q D."""
    return entry.sigma * size * entry.fan_in


def log_growth(target: Network, nodes: tuple[Node, ...], sizes: Mapping[str, int]) -> dict[str, float]:
    """log A by path of each node: how much an error of all its pre-activations can grow up to the outputs.

    Args:
      nodes: of the target (`slth.certificate.nodes.nodes_of`).
      sizes: q by path of each map.
    """
    maps = [entry for node in nodes for entry in node.maps]
    gains = {entry.path: _log(gain(entry, sizes[entry.path])) for entry in maps}
    by_path = {node.path: node for node in nodes}

    def grown(errors: Mapping[str, float], log_gain: float) -> dict[str, float]:
        return {path: value + log_gain for path, value in errors.items()}

    def walk(layers: tuple[Layer, ...], errors: dict[str, float], path: str) -> dict[str, float]:
        for layer in layers:
            match layer:
                case Conv() | Dense():
                    own = f"{path}{layer.name}"
                    errors = grown(errors, gains[own]) | {own: 0.0}
                case Activation(kind, slope):
                    errors = grown(errors, math.log(nn.activation_info(kind, slope).lipschitz))
                case Residual():
                    inside = f"{path}{layer.name}/"
                    inner = walk(layer.branch[:-1], errors, f"{inside}branch/")
                    own = f"{inside}branch/{getattr(layer.branch[-1], 'name', '')}"
                    branch = grown(inner, gains[own])
                    solved = by_path[own].maps[1:]
                    skip = grown(errors, gains[solved[0].path] if solved else 0.0)
                    errors = {
                        key: float(np.logaddexp(value, skip.get(key, -math.inf)))
                        for key, value in branch.items()
                    }
                    errors[own] = 0.0
                case _:
                    pass  # pooling, flattening and subsampling enlarge no error
        return errors

    return walk(target.layers, {}, "")


def _log(value: float) -> float:
    return math.log(value) if value else -math.inf
