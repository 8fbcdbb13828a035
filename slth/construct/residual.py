"""Skips: carried from copy to copy, or solved as one more linear map into the sum."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from slth.construct.node import Stream
from slth.construct.scale import skip_kernel
from slth.nn.layers import Conv, Dense, Layer, Linear, Residual
from slth.nn.pooling import Subsample
from slth.types import Params


class Carried(NamedTuple):
    """What a parameter-free skip adds to copy (j, k) of the branch, exactly, and its error."""

    constants: Float[np.ndarray, " K"]
    noise: Float[np.ndarray, "cout copies"]
    usable: Bool[np.ndarray, "cout copies"]
    x: Float[Array, "n *space cout"] | None
    ticket: Float[Array, "n *space source_cout"] | None


def carried_skip(block: Residual, source_skip: tuple[Layer, ...], stream: Stream) -> Carried | None:
    """The carried part of a block, or None where the source's skip is a convolution, to be solved.

    Raises: ValueError if the stream does not hold copies yet (a block that reads the network's input).
    """
    if any(isinstance(layer, Conv | Dense) for layer in source_skip):
        return None
    if not stream.slots.carried:
        raise ValueError(
            f"{block.name}: a skip cannot be carried from the network's input; put a convolution first"
        )
    if not source_skip:
        return Carried(stream.constants, stream.noise, stream.slots.usable, stream.x, stream.ticket)
    (option_a,), (source_option_a,) = block.skip, source_skip
    assert isinstance(option_a, Subsample)
    assert isinstance(source_option_a, Subsample)
    index = np.array(option_a.channels)
    empty = index[:, None] < 0
    return Carried(
        stream.constants,
        np.where(empty, 0, stream.noise[index]),
        empty | stream.slots.usable[index],
        None if stream.x is None else option_a.apply({}, stream.x),
        None if stream.ticket is None else source_option_a.apply({}, stream.ticket),
    )


def solved_skip(
    block: Residual, values: Params, source_skip: tuple[Layer, ...], stream: Stream
) -> tuple[Linear, Params]:
    """The target's skip as a 1x1 convolution (or dense layer) with its parameters, named as the source's."""
    source_layer = source_skip[-1]  # in 2L behind a univariate layer
    assert isinstance(source_layer, Conv | Dense)
    match block.skip:
        case (Conv() | Dense() as projection,):
            return projection, values["skip"][projection.name]
        case _:
            cin = stream.shape[-1]
            kernel = skip_kernel(block, values.get("skip", {}), cin).astype(np.float32)
            if isinstance(source_layer, Dense):
                return Dense(source_layer.name, kernel.shape[1], use_bias=False), {"kernel": kernel}
            ones = (1,) * len(source_layer.kernel)
            layer = Conv(source_layer.name, kernel.shape[1], ones, source_layer.stride, use_bias=False)
            return layer, {"kernel": kernel.reshape(*ones, *kernel.shape)}
