"""Parameters from other programs: files of PyTorch, safetensors, NumPy, flax and Keras into a spec's tree."""

from slth.interop.files import (
    load_checkpoint,
    load_network,
    load_target,
    read_arrays,
    save_checkpoint,
    save_network,
)
from slth.interop.jaxpr import from_jax
from slth.interop.names import CheckpointMismatch, fit
from slth.interop.pickles import UnsafePickle
from slth.interop.pytorch import read_pytorch

__all__ = [
    "CheckpointMismatch",
    "UnsafePickle",
    "fit",
    "from_jax",
    "load_checkpoint",
    "load_network",
    "load_target",
    "read_arrays",
    "read_pytorch",
    "save_checkpoint",
    "save_network",
]
