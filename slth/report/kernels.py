"""The first convolution of a ticket as the target sees it: what its random weights sum to."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.construction import Construction
from slth.construction.state import Read
from slth.nn.activations import ActivationInfo
from slth.nn.graph import by_layer, flattening, linear_maps, sums
from slth.nn.layers import Conv, Dense, Linear
from slth.source.widths import first_info
from slth.types import AnyArray, Params


class Realised(NamedTuple):
    """Kernels of the first linear layer, one small image, or signal, for each (output, input channel)."""

    path: str
    target: Float[np.ndarray, "cout cin *taps"]
    positive: Float[np.ndarray, "cout cin *taps"]
    """What the ticket's first copy of each output applies to inputs x > 0, to first order in x."""
    negative: Float[np.ndarray, "cout cin *taps"]
    """The same for x < 0."""


def realised_kernels(construction: Construction, masked: Params) -> Realised | None:
    r"""The target's first kernel and the one its ticket computes through the univariate layer.

    A channel :math:`\phi(\alpha x)` has slope :math:`\alpha \mu_+` or :math:`\alpha \mu_-` at 0, by the sign
    of :math:`\alpha x`; with the weights v that read it, :math:`\hat w = \sum v \alpha \mu_\pm` by sign of x.

    Args:
      masked: mask * source.
    Returns: None where the first layer reads no image or signal as the network gets it: a dense layer on flat
      inputs, or a layer behind others.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> layers = (nn.Conv("conv1", 2, (3, 3)), nn.Activation("relu"), nn.Flatten(), nn.Dense("fc", 2))
      >>> network = nn.Network((4, 4, 1), layers)
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=8), slth.Best())
      >>> kernels = report.realised_kernels(made, made.ticket.params)
      >>> bool(abs(kernels.positive - kernels.target).max() < 0.1)
      True
    """
    target = construction.target.network
    first = sums(target)[0].maps[0]
    flat = flattening(target, first.reads)
    if len(target.input_shape) == 1 or (first.reads if flat is None else flat.reads) != 0:
        return None
    taps = target.input_shape[:-1] if isinstance(first.layer, Dense) else first.layer.kernel
    read = Read(target.input_shape, flat and flat.layer)
    layers, source = by_layer(construction.params), construction.source
    solved, front = linear_maps(source.network), source.layout_for(target).univariate[0]
    goal = read.by_tap(_whole(first.layer, layers[first.path]["kernel"], target.input_shape[-1]))
    columns = construction.columns[first.path][:, 0]
    kernel = _whole(solved[first.path].layer, by_layer(masked)[first.path]["kernel"], front.width)
    v = read.by_tap(kernel)[:, :, columns]
    alpha = _whole(solved[front.path].layer, by_layer(masked)[front.path]["kernel"], target.input_shape[-1])
    alpha = alpha.reshape(-1, v.shape[1])
    info = first_info(target)
    views = [goal]
    for sign in (1, -1):
        views.append(np.einsum("tnj,in->tij", v, slopes_at_zero(alpha, info, sign)))
    images = (view.transpose(2, 1, 0).reshape(view.shape[2], view.shape[1], *taps) for view in views)
    return Realised(first.path, *images)


def _whole(layer: Linear, kernel: AnyArray, cin: int) -> Float[np.ndarray, "*taps cin cout"]:
    """A kernel in float64, of one group."""
    kernel = np.asarray(kernel, np.float64)
    return layer.whole(kernel, cin) if isinstance(layer, Conv) and layer.groups > 1 else kernel


def slopes_at_zero(
    alpha: Float[np.ndarray, "inputs channels"], info: ActivationInfo, sign: int
) -> Float[np.ndarray, "inputs channels"]:
    r"""Of each channel :math:`\phi(\alpha x)`, towards inputs x of one sign: :math:`\alpha \mu_\pm`."""
    return np.where(sign * alpha > 0, info.mu_plus, info.mu_minus) * alpha
