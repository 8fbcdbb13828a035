r"""SynFlow: the weights through which most of the synaptic flow goes, found in many rounds and without data.

The flow is :math:`R = \mathbf 1^\top f_{|\theta|}(\mathbf 1)`: all weights replaced by their absolute values,
an input of ones, and the sum of the outputs. The score of a weight is its part of the flow,

.. math:: |\theta| \frac{\partial \log R}{\partial |\theta|}
    = \frac{|\theta|}{R} \frac{\partial R}{\partial |\theta|}.

f is linear in the sense of the paper: activations pass what they get (a ReLU does, as nothing is negative),
biases are 0 (they are at initialisation), and batch norm multiplies by
:math:`|\gamma| / \sqrt{v + \epsilon}` of its running variance. Max pooling stays: it moves the flow and loses
none. The division by R changes no order.

R is a product over layers and can leave the range of numbers. So every value of the pass is held as an array
with a largest entry of 1 and the logarithm of its scale; log R and its gradient cannot overflow, however deep
the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from slth.nn.graph import Join, Pointwise, Sum, by_layer, graph
from slth.nn.layers import Activation, BatchNorm, ChannelScale, Conv, Dense
from slth.nn.network import Network
from slth.nn.prune import masked
from slth.precision import in_64_bits
from slth.pruning.largest import Scores
from slth.pruning.loss import Kernels, double, in_order
from slth.pruning.protocol import (
    Batch,
    Pruned,
    check,
    check_whole,
    densities,
    found,
    keep,
    kernels,
    with_kernels,
)
from slth.types import Mask, Params, Values


class Round(NamedTuple):
    """A round of SynFlow.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> found = pruning.Synflow(rounds=2).prune(network, nn.init(network, jax.random.key(0)), 0.25)
      >>> [one.density for one in found.record]
      [0.5, 0.25]
    """

    density: float
    """Kept / total over all kernels that was asked for, density^(k/n) in round k of n."""
    densities: dict[str, float]
    """Kept / total of each kernel after the round."""


@in_64_bits()
def synflow_scores(network: Network, params: Params, mask: Mask | None = None) -> Scores:
    r"""The share of the flow through each weight, :math:`|\theta|\, \partial \log R / \partial |\theta|`.

    Flow is conserved: what goes into a hidden channel comes out of it. So the scores of a layer through which
    every path goes have the sum 1, and so have those of layers that together cut every path once.

    Args:
      mask: weights that it does not keep count as 0; the default keeps all.
    Raises: ValueError where no flow reaches the outputs.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 2, use_bias=False), nn.Dense("b", 1, use_bias=False)))
      >>> a, b = np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[4.0], [-1.0]])
      >>> params = {"a": {"kernel": a}, "b": {"kernel": b}}
      >>> scores = pruning.synflow_scores(network, params)      # R = 1*4 + 2*1 + 3*1 = 9
      >>> (9 * scores["a"]).tolist(), (9 * scores["b"]).tolist()
      ([[4.0, 2.0], [0.0, 3.0]], [[4.0], [5.0]])

    Source: Tanaka et al., NeurIPS 2020 (arXiv:2006.05467), theorems 1 and 2.
    """
    own = params if mask is None else masked(params, mask)
    log_flow, scores = _scores(network, double(own))
    if not np.isfinite(log_flow):
        raise ValueError(
            "params: no path of weights that are not 0 leads from the input to the outputs: keep more, or "
            "draw them again"
        )
    return in_order(network, scores)


@partial(jax.jit, static_argnums=0)
def _scores(network: Network, params: Params) -> tuple[Float[Array, ""], Kernels]:
    weights = jax.tree.map(jnp.abs, kernels(network, params))
    log_flow, gradient = jax.value_and_grad(lambda own: _log_flow(network, with_kernels(params, own)))(
        weights
    )
    return log_flow, jax.tree.map(jnp.multiply, weights, gradient)


class _Flow(NamedTuple):
    """The value exp(log) * values; the logarithm is a constant to derivatives, which is exact for any one."""

    values: Values
    log: Float[Array, ""]

    def at(self, log: Float[Array, ""]) -> Values:
        """The values on another scale."""
        return self.values * jnp.exp(self.log - log)


def _rescaled(values: Values, log: Float[Array, ""]) -> _Flow:
    """With a largest entry of 1, unless all are 0."""
    most = jax.lax.stop_gradient(values.max())
    most = jnp.where(most > 0, most, 1.0)
    return _Flow(values / most, log + jnp.log(most))


def _log_flow(network: Network, params: Params) -> Float[Array, ""]:
    """log R of kernels that are not negative."""
    layers = by_layer(params)
    flows = [_Flow(jnp.ones((1, *network.input_shape), jnp.float64), jnp.float64(0))]
    for step in graph(network):
        terms: Sequence[_Flow]
        match step:
            case Sum(maps=maps, skips=skips):
                terms = [
                    flows[term.reads]._replace(
                        values=_linear(term.layer, layers.get(term.path, {}), flows[term.reads].values)
                    )
                    for term in (*maps, *skips)
                ]
            case Join(reads=reads):
                terms = [flows[value] for value in reads]
            case _:
                before = flows[step.value]
                terms = [
                    before._replace(values=_linear(step.layer, layers.get(step.path, {}), before.values))
                ]
        log = jnp.stack([term.log for term in terms]).max()
        parts = [term.at(log) for term in terms]
        joined = jnp.concatenate(parts, -1) if isinstance(step, Join) else sum(parts[1:], parts[0])
        flows.append(_rescaled(joined, log))
    return jnp.log(flows[-1].values.sum()) + flows[-1].log


def _linear(layer: Conv | Dense | Pointwise | None, params: Params, x: Values) -> Values:
    """What a layer makes of a flow; kernels are absolute already."""
    match layer:
        case None | Activation():
            return x
        case Conv() | Dense():
            return replace(layer, use_bias=False).apply({"kernel": params["kernel"]}, x)
        case BatchNorm():
            factor = params["scale"] / jnp.sqrt(params["var"] + layer.epsilon)
            return ChannelScale(layer.name).apply({"scale": jnp.abs(factor)}, x)
        case ChannelScale():
            return layer.apply({"scale": jnp.abs(params["scale"])}, x)
    return layer.apply(params, x)


@dataclass(frozen=True)
class Synflow:
    r"""Keeps the weights of largest part of the flow, in n rounds of falling density :math:`d^{k/n}`.

    Each round takes the scores (`synflow_scores`) of what the last one kept. It needs no data.

    Args:
      rounds: n of at least 1; the paper takes 100.
      floor: least number of weights that each layer keeps. The paper has none (0), and its theorem holds for
        networks without skips: what a skip bypasses can be emptied. Of ResNet-20 with four random draws two
        lose a branch at density 0.001, and with projections all four lose a shortcut before 0.008.
    Raises: ValueError for a number out of range.

    Example:
      >>> from slth import pruning
      >>> pruning.Synflow()
      Synflow(rounds=100, floor=1)

    Source: Tanaka et al., NeurIPS 2020 (arXiv:2006.05467), algorithm 1.
    """

    rounds: int = 100
    floor: int = 1

    needs_batch = False
    needs_key = False

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1)
        check_whole("floor", self.floor, 0)

    def prune(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
    ) -> Pruned:
        """The mask of the last round.

        Raises: ValueError for what does not fit the network; for a layer that would be emptied in any round.
        """
        check(self, network, params, density, key, batch)
        mask, record = None, []
        for number in range(1, self.rounds + 1):
            share = density ** (number / self.rounds)
            scores = synflow_scores(network, params, mask)
            mask = keep(network, scores, share, floor=self.floor, within=mask)
            record.append(Round(share, densities(network, mask)))
        assert mask is not None
        return found(network, params, mask, tuple(record))
