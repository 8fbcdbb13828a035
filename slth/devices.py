"""Batches of images over all devices of this process."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from slth.types import Batch


def spread(images: Batch) -> Batch:
    """A batch whose images lie on this process's devices in equal shares; compiled functions follow it.

    With one device, or where the number of images is no multiple of that of the devices, the batch as it is.
    """
    devices = jax.local_devices()
    if len(devices) == 1 or len(images) % len(devices):
        return images
    mesh = Mesh(np.array(devices), ("images",))
    return jax.device_put(images, NamedSharding(mesh, PartitionSpec("images")))
