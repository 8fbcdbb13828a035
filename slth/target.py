"""A target: the trained network of which a ticket is made."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slth import nn
from slth.nn.network import Network
from slth.types import Batch, Params


@dataclass(frozen=True, eq=False)
class Target:
    """A trained network without batch norm, as every construction reads it.

    Args:
      network: spec without batch norm.
      params: its parameters, the tree that `slth.nn.init` makes; finite numbers.
    Raises: ValueError, naming the array, for parameters that are not those of the spec.

    Example:
      >>> import jax
      >>> from slth import Target, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.BatchNorm("bn"), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = Target.of(network, nn.init(network, jax.random.key(0)))
      >>> target(jax.numpy.ones((5, 4))).shape
      (5, 2)
    """

    network: Network
    params: Params

    def __post_init__(self) -> None:
        check_params(self.network, self.params)

    @classmethod
    def of(cls, network: Network, params: Params) -> "Target":
        """The target of any trained network: batch norm is folded into the layers before it.

        Raises: ValueError as the class does.
        """
        check_params(network, params)
        return cls(*nn.fold_batch_norm(network, params))

    def __call__(self, images: Batch) -> Float[np.ndarray, "n *out"]:
        """The outputs for any number of images of shape (n, *network.input_shape), in batches."""
        return nn.predict(self.network, self.params, images)


def check_params(network: Network, params: Params) -> None:
    """Refuse parameters that are not those of a spec, in one line.

    Raises: ValueError, naming the first array that is missing, left over, of another shape or not finite.
    """
    if not isinstance(params, dict):
        raise ValueError(f"params: expected a dict of arrays by layer, got {type(params).__name__}")
    layers = nn.by_layer(params)
    found = {f"{path}/{name}": leaf for path, own in layers.items() for name, leaf in own.items()}
    wanted = nn.parameter_shapes(network)
    for path, shape in wanted.items():
        if path not in found:
            raise ValueError(
                f"params: {path} of shape {shape} is missing: give all parameters of the network (slth.nn.init "
                "makes such a tree)"
            )
        leaf = found[path]
        if np.shape(leaf) != shape:
            raise ValueError(
                f"params: {path} has shape {np.shape(leaf)}, and the network's has {shape}: are these the "
                "parameters of this network?"
            )
        # A sum of absolute values is finite only where every number is; one pass, no array beside.
        if not math.isfinite(float(np.abs(np.asarray(leaf, np.float64)).sum())):
            raise ValueError(f"params: {path} holds NaN or infinite numbers: train or load the target again")
    for path in found:
        if path not in wanted:
            raise ValueError(f"params: the network has no {path}: are these the parameters of this network?")
