"""One step of a refinement: gradients by the weights, debts, flips."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slth import nn
from slth.nn.graph import nested
from slth.nn.network import Network
from slth.types import Batch, Params

Loss = Literal["classes", "outputs"]
Kernels = dict[str, Float[Array, "..."]]
FIRST, SECOND = 0.9, 0.999
"""Decay of the means of gradients and of their squares (Adam's)."""


class State(NamedTuple):
    """What changes from step to step; arrays by the path of each layer."""

    bits: Kernels
    debt: Kernels
    first: Kernels
    second: Kernels


@partial(jax.jit, static_argnums=0)
def outputs_of(
    network: Network, values: dict[str, Params], factor: Array, random: Kernels, bits: Kernels, x: Batch
) -> Float[Array, "n out"]:
    """The ticket's outputs with these bits; ``values`` are the parameters that stay."""
    return _forward(network, values, factor, {path: bits[path] * v for path, v in random.items()}, x)


def _forward(network: Network, values: dict[str, Params], factor: Array, kernels: Kernels, x: Batch) -> Array:
    layers = {
        path: own | ({"kernel": kernels[path]} if path in kernels else {}) for path, own in values.items()
    }
    return factor * nn.apply(network, nested(layers), x)


def loss_of(found: Float[Array, "n out"], wanted: Float[Array, "n out"], loss: Loss) -> Float[Array, ""]:
    """The loss of outputs against the target's (`slth.refine`)."""
    if loss == "outputs":
        return ((found - wanted) ** 2).mean() / jnp.maximum((wanted**2).mean(), 1e-30)
    expected, logs = jax.nn.log_softmax(wanted), jax.nn.log_softmax(found)
    return (jnp.exp(expected) * (expected - logs)).sum(-1).mean()


@partial(jax.jit, static_argnums=(0, 1))
def step_of(
    network: Network,
    loss: Loss,
    values: dict[str, Params],
    factor: Array,
    random: Kernels,
    state: State,
    x: Batch,
    wanted: Array,
    lengths: dict[str, Array],
    number: Int[Array, ""] | int,
) -> State:
    """One step: gradients by the weights, debts, flips."""

    def loss_with(kernels: Kernels) -> Array:
        return loss_of(_forward(network, values, factor, kernels, x), wanted, loss)

    gradient = jax.grad(loss_with)({path: state.bits[path] * v for path, v in random.items()})
    first = jax.tree.map(lambda old, g: FIRST * old + (1 - FIRST) * g, state.first, gradient)
    second = jax.tree.map(lambda old, g: SECOND * old + (1 - SECOND) * g**2, state.second, gradient)
    bits, debt = {}, {}
    for path, v in random.items():
        mean = first[path] / (1 - FIRST**number)
        size = jnp.sqrt(second[path] / (1 - SECOND**number)) + 1e-12
        owed = state.debt[path] - lengths[path] * mean / size
        jump = (1 - 2 * state.bits[path]) * v
        flips = owed * jnp.sign(jump) > jnp.abs(jump) / 2
        flips &= v != 0
        bits[path] = jnp.where(flips, 1 - state.bits[path], state.bits[path])
        debt[path] = jnp.where(flips, owed - jump, owed)
    return State(bits, debt, first, second)
