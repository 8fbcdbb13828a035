"""The source: which random network, how wide, at what scale; a function of its seed, drawn place by place."""

from slth.source.agreement import layout_of
from slth.source.draw import layers, parameter, parameters, present, sha256
from slth.source.layout import Layout
from slth.source.source import Source, bias_scale, layer_scale
from slth.source.widths import source_network

__all__ = [
    "Layout",
    "Source",
    "bias_scale",
    "layer_scale",
    "layers",
    "layout_of",
    "parameter",
    "parameters",
    "present",
    "sha256",
    "source_network",
]
