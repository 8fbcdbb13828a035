"""The first convolution of a ticket as the target sees it: what its random weights sum to."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.construct import Construction
from slth.construct.layout import UNIVARIATE, first_info
from slth.construct.node import kernel_view
from slth.nn.layers import Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.types import Params


class Realised(NamedTuple):
    """Kernels of the first linear layer, one small image for each (output, input channel)."""

    path: str
    target: Float[np.ndarray, "cout cin kh kw"]
    positive: Float[np.ndarray, "cout cin kh kw"]
    """What the ticket's first copy of each output applies to inputs x > 0, to first order in x."""
    negative: Float[np.ndarray, "cout cin kh kw"]
    """The same for x < 0."""


def realised_kernels(target: Network, construction: Construction, masked: Params) -> Realised | None:
    r"""The target's first kernel and the one its ticket computes through the univariate layer.

    A channel :math:`\phi(\alpha x)` has slope :math:`\alpha \mu_+` or :math:`\alpha \mu_-` at 0, by the sign
    of :math:`\alpha x`; with the weights v that read it, :math:`\hat w = \sum v \alpha \mu_\pm` by sign of x.

    Args:
      target: the folded target.
      masked: mask * source.
    Returns: None where the first layer is no image: a 1-D convolution, or a dense layer on flat inputs.
    """
    position = next(i for i, layer in enumerate(target.layers) if isinstance(layer, Conv | Dense))
    layer, before = target.layers[position], target.layers[:position]
    assert isinstance(layer, Conv | Dense)
    if len(target.input_shape) != 3:
        return None
    flat = next((one for one in before if isinstance(one, Flatten)), None)
    taps = target.input_shape[:2] if isinstance(layer, Dense) else layer.kernel
    positions, order = (int(np.prod(taps)), flat.order) if flat is not None else (1, "hwc")
    wanted = kernel_view(np.asarray(construction.params[layer.name]["kernel"]), positions, order)
    kernel = np.asarray(masked[layer.name]["kernel"], np.float64)
    first = construction.columns[layer.name][:, 0]
    v = kernel_view(kernel, positions, order)[:, :, first]
    before = UNIVARIATE if UNIVARIATE in masked else f"{layer.name}.{UNIVARIATE}"
    alpha = np.asarray(masked[before]["kernel"], np.float64).reshape(-1, v.shape[1])
    info = first_info(target)
    views = [wanted]
    for sign in (1, -1):
        slope = np.where(sign * alpha > 0, info.mu_plus, info.mu_minus) * alpha
        views.append(np.einsum("tnj,in->tij", v, slope))
    target_view, positive, negative = (
        view.transpose(2, 1, 0).reshape(view.shape[2], view.shape[1], *taps) for view in views
    )
    return Realised(layer.name, target_view, positive, negative)
