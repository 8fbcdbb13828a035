"""Accuracy of a network on any number of images."""

import numpy as np
from jaxtyping import Int

from slth.nn.forward import predict
from slth.nn.network import Network
from slth.types import Batch, Params


def accuracy(
    network: Network,
    params: Params,
    images: Batch,
    labels: Int[np.ndarray, " n"],
    batch: int = 512,
) -> float:
    """Share of images whose largest output is the label's, in [0, 1].

    Raises: ValueError if there is no image.

    Example:
      >>> import numpy as np
      >>> from slth import nn, train
      >>> identity = nn.Network((2,), (nn.Activation("identity"),))
      >>> train.accuracy(identity, {}, np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0, 0]))
      0.5
    """
    top = predict(network, params, images, batch).argmax(axis=-1)
    return float((top == np.asarray(labels)).mean())
