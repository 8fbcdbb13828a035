"""How much a network computes: multiply-adds of its linear layers."""

import math

from slth.nn.forward import parameter_shapes
from slth.nn.graph import Sum, graph, value_shapes
from slth.nn.network import Network


def multiply_adds(network: Network) -> int:
    r"""Multiply-adds of the linear layers for one image: the entries of each kernel, :math:`|W|`, times the
    positions of its layer's output. Zeros in kernels, and those that padding adds, count as all others do.

    Example:
      >>> from slth import nn
      >>> layers = (nn.Conv("a", 8, (3, 3)), nn.Activation("relu"), nn.Flatten(), nn.Dense("b", 2))
      >>> nn.multiply_adds(nn.Network((6, 6, 4), layers))      # 3 3 4 8 at 4 4 places, and 128 times 2
      4864
    """
    kernels, shapes = parameter_shapes(network), value_shapes(network)
    return sum(
        math.prod(kernels[f"{entry.path}/kernel"]) * math.prod(shapes[number][:-1])
        for number, step in enumerate(graph(network), start=1)
        for entry in (step.maps if isinstance(step, Sum) else ())
    )
