r"""Random weights that are never trained, as the searches for strong tickets draw them.

With fan-in n (the numbers that an output reads) and the density d of the mask that will be searched,

* ``signed_constant`` :math:`\pm\sigma` with :math:`\sigma = \sqrt{2 / (d n)}`, signs by a fair coin,
* ``kaiming_normal`` :math:`N(0, \sigma^2)`,
* ``kaiming_uniform`` :math:`U[-\sqrt 3\, \sigma, \sqrt 3\, \sigma]`,
* ``uniform`` :math:`U[-1, 1]` times ``scale``, whatever n is.
"""

import math
import zlib
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from slth.nn.forward import init
from slth.nn.network import Network
from slth.pruning.protocol import check_density, prunable, with_kernels
from slth.target import checked_positive, checked_word
from slth.types import Params, Shape

Kind = Literal["signed_constant", "kaiming_normal", "kaiming_uniform", "uniform"]


def random_weights(
    network: Network,
    key: Key[Array, ""],
    kind: Kind = "signed_constant",
    density: float = 1.0,
    scale: float = 1.0,
) -> Params:
    r"""Parameters with kernels drawn as above, zero biases and neutral batch norm.

    Args:
      kind: as above; the standard deviation of all kinds but "uniform" is sigma.
      density: d. 1 is the original's default; the density of the mask keeps the variance of what a masked
        layer gives (the original's ``scale_fan``).
      scale: multiplies all kernels.
    Raises: ValueError for another word, a density that is not in (0, 1], a scale that is not positive.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((8,), (nn.Dense("a", 16),))
      >>> params = pruning.random_weights(network, jax.random.key(0), "signed_constant")
      >>> sorted(set(params["a"]["kernel"].ravel().tolist()))      # sqrt(2 / 8)
      [-0.5, 0.5]

    Source: Ramanujan et al., CVPR 2020 (arXiv:1911.13299), section 4.4; He et al. 2015 for sigma.
    """
    checked_word("kind", kind, get_args(Kind))
    check_density(density)
    checked_positive("scale", scale)
    drawn = {
        path: np.asarray(scale * _draw(layer_key(key, path), kind, density, shape), np.float32)
        for path, shape in prunable(network).items()
    }
    return with_kernels(jax.tree.map(np.asarray, init(network, key)), drawn)


def _draw(key: Key[Array, ""], kind: Kind, density: float, shape: Shape) -> Float[Array, "..."]:
    deviation = math.sqrt(2 / (density * fan_in(shape)))
    match kind:
        case "signed_constant":
            return deviation * jax.random.rademacher(key, shape, jnp.float32)
        case "kaiming_normal":
            return deviation * jax.random.normal(key, shape)
        case "kaiming_uniform":
            return math.sqrt(3) * deviation * jax.random.uniform(key, shape, minval=-1.0)
    return jax.random.uniform(key, shape, minval=-1.0)


def fan_in(shape: Shape) -> int:
    """How many numbers an output of a kernel of this shape (*taps, cin, cout) reads."""
    return math.prod(shape[:-1])


def layer_key(key: Key[Array, ""], path: str) -> Key[Array, ""]:
    """A key of a layer's own, by its path: another layer in the network changes none of the others'."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))
