"""The linear nodes of a target as a ticket sees them: their maps, rows and problems."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.construct.context import centred
from slth.construct.layout import first_info, has_two_layers, output_layer
from slth.construct.scale import skip_kernel
from slth.nn.layers import Conv, Dense, Layer, Linear, Residual
from slth.nn.network import Network
from slth.source import Source, layer_scale, parameter
from slth.types import Params, Shape

GRID = 2.0**-24
"""Scales are rounded to float32 and weights to this grid, which may take one above its layer's scale."""


class Map(NamedTuple):
    """One linear map into a node: a target layer, or a skip as the 1x1 convolution that is solved."""

    path: str
    layer: Linear
    kernel: Float[np.ndarray, "*taps cin cout"]
    scale: float
    """The source's scale of its weights."""
    sigma: float
    """Largest |v| that the source may have there; of a normal source, the largest it has."""
    raw: bool
    """Whether it reads the network's input, as the channels of the extra first layer carry it."""
    signs: int
    """Subset-sum problems of one weight: 2 for a raw input whose signs are carried by different channels."""
    offset: bool
    """Whether constants cancel something at every tap: phi(0) of the first layer, or activations' means."""

    @property
    def taps(self) -> int:
        """Taps that may meet padding; constants are exact through all others."""
        return math.prod(self.kernel.shape[:-2]) if isinstance(self.layer, Conv) else 0

    @property
    def fan_in(self) -> int:
        """D: most non-zero weights of one output."""
        return int(np.count_nonzero(self.kernel.reshape(-1, self.kernel.shape[-1]), axis=0).max())


class Node(NamedTuple):
    """A sum of linear maps that every copy of the ticket computes: a layer, or the end of a block."""

    path: str
    """Of its first map, as `slth.construct.LayerRecord` names it."""
    maps: tuple[Map, ...]
    copied: bool
    """Whether there are m copies of it: all but the outputs."""
    biases: int
    """Outputs with a bias, one problem each."""

    @property
    def problems(self) -> int:
        """Subset-sum problems of one copy; at most so many where constants cancel something tap by tap."""
        weights = sum(entry.signs * int(np.count_nonzero(entry.kernel)) for entry in self.maps)
        offsets = [entry.taps for entry in self.maps if entry.offset]
        return weights + (self.features * (1 + sum(offsets)) if offsets else self.biases)

    @property
    def features(self) -> int:
        """Outputs of the target's layer."""
        return self.maps[0].layer.features

    @property
    def scale(self) -> float:
        """The largest scale of its maps."""
        return max(entry.scale for entry in self.maps)


def nodes_of(target: Network, params: Params, source: Source) -> tuple[Node, ...]:
    """The nodes in the order in which a ticket is constructed.

    Args:
      target, params: folded and balanced, as a construction returns it.
      source: made for this target (`slth.construct.source_network`), with one layer in front (L + 1).
    Raises: ValueError for a source with two layers for each of the target's.
    """
    if has_two_layers(source.network):
        raise ValueError("theorem: budgets are those of the L+1 construction, this source has 2L layers")
    info, means = first_info(target), centred(target, source)
    signs = 1 if info.mu_plus == info.mu_minus else 2
    last = output_layer(target)
    found: list[Node] = []

    def close(entries: list[tuple[str, Linear, Params, bool]]) -> None:
        maps = tuple(
            Map(
                *(path, layer, np.asarray(values["kernel"], np.float64)),
                *(layer_scale(source, path), largest_weight(source, path), raw),
                *((signs, info.offset != 0) if raw else (1, means)),
            )
            for path, layer, values, raw in entries
        )
        biases = (np.asarray(values.get("bias", 0), np.float64) for _, _, values, _ in entries)
        bias = sum(biases, np.zeros(maps[0].layer.features))
        found.append(Node(maps[0].path, maps, maps[0].layer is not last, int(np.count_nonzero(bias))))

    def walk(
        layers: tuple[Layer, ...],
        wide: tuple[Layer, ...],
        values: Params,
        shape: Shape,
        path: str,
        raw: bool,
    ) -> bool:
        for layer, source_layer in zip(layers, wide, strict=True):
            if isinstance(layer, Conv | Dense):
                close([(f"{path}{layer.name}", layer, values[layer.name], raw)])
                raw = False
            elif isinstance(layer, Residual):
                assert isinstance(source_layer, Residual)
                own, inside, end = values[layer.name], f"{path}{layer.name}/", layer.branch[-1]
                assert isinstance(end, Conv | Dense)
                before = (layer.branch[:-1], source_layer.branch[:-1])
                inner = walk(*before, own["branch"], shape, f"{inside}branch/", raw)
                entries = [(f"{inside}branch/{end.name}", end, own["branch"][end.name], inner)]
                skip = solved_skip(layer, source_layer, own.get("skip", {}), shape)
                if skip is not None:
                    entries.append((f"{inside}skip/{skip[0].name}", *skip, raw))
                close(entries)
                raw = False
            shape = layer.output_shape(shape)
        return raw

    walk(target.layers, source.network.layers[2:], params, target.input_shape, "", True)
    return tuple(found)


def solved_skip(
    block: Residual, source_block: Residual, values: Params, shape: Shape
) -> tuple[Linear, Params] | None:
    """A block's skip as the linear layer that subset sums make of it, or None if the source carries it."""
    solved = next((layer for layer in source_block.skip if isinstance(layer, Conv | Dense)), None)
    if solved is None:
        return None
    projection = next((layer for layer in block.skip if isinstance(layer, Conv | Dense)), None)
    if projection is not None:
        return projection, values[projection.name]
    kernel = skip_kernel(block, values, shape[-1])
    layer = replace(solved, features=kernel.shape[1])
    taps = (1,) * len(layer.kernel) if isinstance(layer, Conv) else ()
    return layer, {"kernel": kernel.reshape(*taps, *kernel.shape)}


def largest_weight(source: Source, path: str) -> float:
    """sigma: a bound of the random weights |v| of the layer at ``path``."""
    if source.init.endswith("normal"):
        return float(np.abs(np.asarray(parameter(source, f"{path}/kernel"))).max())
    return layer_scale(source, path) * (1 + GRID) + GRID
