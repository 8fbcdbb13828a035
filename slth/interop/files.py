"""Checkpoint files in and out: parameters of a spec, networks with their spec, arrays by name."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from slth.interop.names import fit, matches
from slth.interop.onnx import load_onnx
from slth.interop.readers import kind_of, read_tree, safetensors_arrays
from slth.interop.tree import mapped
from slth.nn.forward import parameter_shapes
from slth.nn.network import Network
from slth.nn.serial import decode, encode
from slth.target import Target
from slth.types import Params

NETWORK = "slth network"


def load_target(
    path: str | Path,
    spec: Network | None = None,
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
) -> Target:
    """The target of a trained network's file: parameters read, checked, batch norm folded.

    Args:
      path: a checkpoint of any kind that `load_checkpoint` reads; nothing but arrays is unpickled.
      spec: the network as it was trained, batch norm included (`slth.nn.Network`, or one of
        `slth.nn.zoo.build`); names of layers are those of the file. None for a file of ONNX, which says
        itself what its network is; a softmax at its end is left out, and a warning says so.
      rename: pairs (regular expression, replacement) for names that differ.
      ignore: patterns such as "head.*" of names of arrays that may be left over.
      key: which set of parameters, such as "ema", where the file holds several that fit.
    Returns: what `slth.Source.of` and `slth.construct` take.
    Raises: FileNotFoundError; ValueError for a file that is damaged, unsafe, of an unknown kind, or does not
      fit the spec, listing every name that is missing, left over or of another shape.

    Example:
      >>> import jax, tempfile, slth
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc1", 3), nn.Activation("relu"), nn.Dense("fc2", 2)))
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> interop.save_checkpoint(file, nn.init(spec, jax.random.key(0)))
      >>> slth.load(file, spec).network.output_shape
      (2,)
    """
    if spec is None:
        if rename or ignore or key is not None:
            raise ValueError("rename, ignore and key choose arrays for a spec, and there is none: name one")
        return _without_spec(Path(path).expanduser())
    if not isinstance(spec, Network):
        raise ValueError(
            f"spec: expected a slth.nn.Network, got {type(spec).__name__}: write one (docs/tickets.md) or "
            "take one of slth.nn.zoo"
        )
    return Target.of(spec, load_checkpoint(path, spec, rename=rename, ignore=ignore, key=key))


def _without_spec(path: Path) -> Target:
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} is not there")
    if path.is_dir() or kind_of(path) != ".onnx":
        raise ValueError(
            f"checkpoint {path} holds arrays and does not say what its layers are: give a spec, "
            "slth.load(file, spec) (docs/checkpoints.md), or export the network as ONNX"
        )
    return load_onnx(path)


def load_checkpoint(
    path: str | Path,
    network: Network,
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
) -> Params:
    """The parameters of a spec from a file, PyTorch's masks and layouts undone (see `fit`).

    Args:
      path: a file of PyTorch (read without it and without unsafe unpickling), safetensors, .npz, .msgpack
        (flax), HDF5 (Keras) or ONNX, whatever its name ends in, or a folder of orbax.
      network: the spec that the parameters must fill exactly.
      rename: pairs (regular expression, replacement) for names that the zoo does not know.
      ignore: patterns such as "head.*" of names of arrays that may be left over.
      key: which set of parameters, such as "ema", where the file holds several that fit.
    Returns: a float32 NumPy tree of the structure that `slth.nn.init` makes.
    Raises: FileNotFoundError where there is no such file; ValueError where it is damaged, unsafe, of
      an unknown kind, or does not fit the spec.

    Example:
      >>> import tempfile
      >>> import jax
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2),))
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> interop.save_checkpoint(file, nn.init(spec, jax.random.key(0)))
      >>> interop.load_checkpoint(file, spec)["fc"]["kernel"].shape
      (4, 2)
    """
    source = f"checkpoint {path}"
    return fit(network, read_tree(path), rename=rename, ignore=ignore, key=key, source=source)


def outputs_of(
    path: str | Path,
    network: Network,
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
) -> int | None:
    """Features of the last layer in a file that is read as `load_checkpoint` does; None where it has none."""
    source = f"checkpoint {path}"
    found = matches(network, read_tree(path), rename=rename, ignore=ignore, key=key, source=source)
    return next((match.outputs for match in found.values() if match.outputs is not None), None)


def save_checkpoint(path: str | Path, params: Params) -> None:
    """A parameter tree as safetensors, names joined by "/", written whole or not at all.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from slth import interop
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> interop.save_checkpoint(file, {"fc": {"kernel": np.ones((4, 2)), "bias": np.zeros(2)}})
      >>> sorted(interop.read_arrays(file))
      ['fc/bias', 'fc/kernel']
    """
    _write(path, params, {"format": "slth"})


def _write(path: str | Path, params: Params, metadata: dict[str, str]) -> None:
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    write_whole(path, safetensors.numpy.save(flat, metadata))


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: what stood there before stays if the writing fails."""
    temporary = Path(f"{path}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_network(path: str | Path, network: Network, params: Params, factor: float = 1.0) -> None:
    """A spec and its parameters in one safetensors file, written whole or not at all.

    The arrays are named as by `save_checkpoint`; the metadata hold the spec as JSON (`slth.nn.serial`) and
    the ``factor`` by which its outputs are multiplied (lambda of a ticket).

    Example:
      >>> import tempfile
      >>> import jax
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2),))
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> interop.save_network(file, spec, nn.init(spec, jax.random.key(0)), factor=0.5)
      >>> network, params, factor = interop.load_network(file)
      >>> network == spec, factor
      (True, 0.5)
    """
    metadata = {"format": NETWORK, "network": json.dumps(encode(network)), "factor": repr(float(factor))}
    _write(path, params, metadata)


def load_network(path: str | Path) -> tuple[Network, Params, float]:
    """The spec, the parameters (float32, NumPy) and the factor that `save_network` wrote.

    Raises: FileNotFoundError; ValueError for a damaged or foreign file, naming what is wrong with it.

    Example:
      >>> import tempfile
      >>> import jax
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2),))
      >>> file = tempfile.mkdtemp() + "/net.safetensors"
      >>> interop.save_network(file, spec, nn.init(spec, jax.random.key(0)), factor=0.5)
      >>> network, params, factor = interop.load_network(file)
      >>> network == spec, factor
      (True, 0.5)
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"network {path} is not there")
    arrays = safetensors_arrays(path)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != NETWORK:
        raise ValueError(f"network {path}: expected a file of the format {NETWORK!r} (`save_network`)")
    try:
        network = decode(json.loads(metadata["network"]), "network")
        factor = float(metadata["factor"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"network {path} is damaged: {error}") from error
    found = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    if parameter_shapes(network) != {name: value.shape for name, value in found.items()}:
        raise ValueError(f"network {path} is damaged: its arrays are not those of its spec")
    if not (math.isfinite(factor) and all(np.isfinite(value).all() for value in found.values())):
        raise ValueError(f"network {path} is damaged: it holds NaN or infinite numbers")
    return network, unflatten_dict(found, sep="/"), factor


def read_arrays(path: str | Path) -> Mapping[str, Any]:
    """The named arrays of a checkpoint, as they are; nested dicts where the file has them.

    Raises: FileNotFoundError, or ValueError for a damaged file or one of an unknown kind.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from slth import interop
      >>> file = tempfile.mkdtemp() + "/state.npz"
      >>> np.savez(file, **{"fc.weight": np.ones((2, 4))})
      >>> {name: array.shape for name, array in interop.read_arrays(file).items()}
      {'fc.weight': (2, 4)}
    """
    try:
        return mapped(np.asarray, read_tree(path))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("checkpoint ") else f"checkpoint {path}: {text}") from error
