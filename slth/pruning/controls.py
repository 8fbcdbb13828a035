"""Controls: what of a found mask matters, its places or only how many weights each layer keeps."""

import jax
import numpy as np
from jaxtyping import Array, Key

from slth.nn.network import Network
from slth.pruning.protocol import kept_weights, kernels, mask_of, with_kernels
from slth.pruning.weights import layer_key
from slth.types import Mask, Params


def shuffled(network: Network, mask: Mask, key: Key[Array, ""]) -> Mask:
    """The mask with the places of each kernel dealt anew: as many weights of each layer, others.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((8,), (nn.Dense("a", 8), nn.Activation("relu"), nn.Dense("b", 4)))
      >>> mask = pruning.Magnitude().prune(network, nn.init(network, jax.random.key(0)), 0.25).mask
      >>> other = pruning.shuffled(network, mask, jax.random.key(1))
      >>> pruning.densities(network, other) == pruning.densities(network, mask)
      True

    Source: Frankle et al., "Pruning neural networks at initialization: why are we missing the mark?", ICLR
      2021 (arXiv:2009.08576), section 5.
    """
    return mask_of(network, _dealt(kept_weights(network, mask), key))


def reinitialised(network: Network, params: Params, key: Key[Array, ""]) -> Params:
    """The parameters with the weights of each kernel dealt to its places anew: for independent random
    weights, another draw of the same distribution, whatever that is. All else stays.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((8,), (nn.Dense("a", 8),))
      >>> params = nn.init(network, jax.random.key(0))
      >>> other = pruning.reinitialised(network, params, jax.random.key(1))["a"]["kernel"]
      >>> bool(np.array_equal(np.sort(other, None), np.sort(params["a"]["kernel"], None)))
      True

    Source: Frankle et al., ICLR 2021 (arXiv:2009.08576), section 5.
    """
    arrays = {path: np.asarray(own) for path, own in kernels(network, params).items()}
    return with_kernels(params, _dealt(arrays, key))


def _dealt(arrays: dict[str, np.ndarray], key: Key[Array, ""]) -> dict[str, np.ndarray]:
    """Each array with its entries in another order."""
    return {
        path: own.reshape(-1)[np.asarray(jax.random.permutation(layer_key(key, path), own.size))].reshape(
            own.shape
        )
        for path, own in arrays.items()
    }
