"""Multiply-adds against a count of what JAX is told to compute."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from slth import nn

PAD = nn.same_padding((3, 3))
NETWORKS = {
    "convolutions": nn.Network(
        (9, 8, 3),
        (
            *(nn.Conv("a", 5, (3, 3), (2, 1), PAD), nn.Activation("relu"), nn.Pool("max", (2, 2))),
            *(nn.Conv("b", 4, (2, 2), dilation=(1, 2), use_bias=False), nn.Flatten(), nn.Dense("c", 7)),
        ),
    ),
    "signal": nn.Network((20, 2), (nn.Conv("a", 3, (5,), (3,)), nn.GlobalMean(), nn.Dense("b", 2))),
    "block": nn.Network(
        (6, 6, 4),
        (nn.Residual("r", (nn.Conv("a", 6, (3, 3), padding=PAD),), (nn.Conv("s", 6, (1, 1)),)),),
    ),
    "dense": nn.Network((5,), (nn.Dense("a", 4), nn.Activation("tanh"), nn.Dense("b", 3))),
}


def counted(jaxpr) -> int:
    """Multiply-adds of the convolutions and products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            total += out * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        elif equation.primitive.name == "dot_general":
            ((left, _), _) = equation.params["dimension_numbers"]
            total += out * math.prod(equation.invars[0].aval.shape[axis] for axis in left)
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += counted(value.jaxpr)
    return total


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_multiply_adds_are_those_that_jax_does(network):
    params = nn.init(network, jax.random.key(0))
    program = jax.make_jaxpr(lambda x: nn.apply(network, params, x))(jnp.zeros((1, *network.input_shape)))
    assert nn.multiply_adds(network) == counted(program.jaxpr) > 0


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_multiply_so_many_times_less(groups):
    whole = nn.Conv("a", 8, (3, 3), padding=PAD)
    layers = (replace(whole, groups=groups),)
    assert groups * nn.multiply_adds(nn.Network((6, 6, 4), layers)) == nn.multiply_adds(
        nn.Network((6, 6, 4), (whole,))
    )
