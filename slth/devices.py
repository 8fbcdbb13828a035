"""What several devices of this process share: batches of images, and functions of independent parts."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from slth.types import Batch

T = TypeVar("T")
Devices = tuple[jax.Device, ...]  # pyright: ignore[reportInvalidTypeForm]  # a plain variable in jax
AXIS = "devices"
SPLIT = PartitionSpec(AXIS)
"""Of an array whose first axis the devices share."""
WHOLE = PartitionSpec()
"""Of an array that every device has."""


def over_devices(
    function: Callable, devices: Devices, in_specs: tuple, out_specs: Any, **options: Any
) -> Callable:
    """A compiled function of independent parts; each of several devices computes its share of them.

    Args:
      in_specs, out_specs: how arguments and results lie on the devices: `SPLIT`, `WHOLE` or the like.
      options: of `jax.jit`.
    """
    if len(devices) > 1:
        mesh = _mesh(devices)
        function = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(function, **options)


def on_all(arrays: T, devices: Devices) -> T:
    """The arrays on every one of several devices, wherever they are."""
    if len(devices) == 1:
        return arrays
    return jax.device_put(arrays, NamedSharding(_mesh(devices), WHOLE))


def spread(images: Batch) -> Batch:
    """A batch whose images lie on this process's devices in equal shares; compiled functions follow it.

    With one device, or where the number of images is no multiple of that of the devices, the batch as it is.
    """
    devices = tuple(jax.local_devices())
    if len(devices) == 1 or len(images) % len(devices):
        return images
    return jax.device_put(images, NamedSharding(_mesh(devices), SPLIT))


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))
