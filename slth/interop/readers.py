"""Files of arrays, each read as what its first bytes say it is, whatever its name ends in."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import flax.serialization
import jax.numpy as jnp
import numpy as np
import safetensors

from slth.interop.onnx import arrays_of
from slth.interop.optional import optional
from slth.interop.pytorch import read_tensors
from slth.interop.tree import mapped

# Element types of safetensors: F32 and U8 are NumPy's f4 and u1; bfloat16 is not one of NumPy's own.
NUMBERS = [np.dtype(code) for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")]
TYPES = {f"{dtype.kind.upper()}{8 * dtype.itemsize}": dtype for dtype in NUMBERS}
TYPES |= {"BF16": np.dtype(jnp.bfloat16), "BOOL": np.dtype(np.bool_)}

HDF5 = b"\x89HDF\r\n\x1a\n"
# First bytes of what is often found in a checkpoint's place, and what to do.
REFUSED = {
    b"\x1f\x8b": "is compressed by gzip: unpack it (gunzip, or tar -xzf for .tar.gz)",
    b"BZh": "is compressed by bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ": "is compressed by xz: unpack it (unxz)",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file: fetch it with git lfs pull",
    b"<": "is a web page or XML, not the file: download the file itself",
    b"\x93NUMPY": "is a single array without a name: save all by name, numpy.savez(FILE, **arrays)",
}


def read_tree(path: str | Path) -> Mapping[str, Any]:
    """The arrays of a file or folder as nested dicts; those of PyTorch become arrays by `numpy.asarray`.

    Raises: FileNotFoundError; ValueError for what is damaged, unsafe or of an unknown kind.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} is not there")
    tree = READERS[kind_of(path)](path)
    found = mapped(lambda leaf: leaf, tree)
    if not found:
        raise ValueError(
            f"checkpoint {path} holds no arrays, but {', '.join(map(str, [*tree][:8])) or 'nothing'}"
        )
    return found


def kind_of(path: Path) -> str:
    """Which of `READERS` reads a file: by its first bytes, by its suffix where these say nothing.

    Raises: ValueError for files of other kinds.
    """
    with path.open("rb") as file:
        head, size = file.read(512), path.stat().st_size
    for start, reason in REFUSED.items():
        if head.startswith(start):
            raise ValueError(f"checkpoint {path} {reason}")
    if head[257:262] == b"ustar":
        raise ValueError(f"checkpoint {path} is a tar archive: unpack it (tar -xf) and name the file in it")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(HDF5):
        return ".h5"
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return ".pt"  # a pickle of protocol 2 to 5
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return ".safetensors"
    if head[:1] and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return ".msgpack"  # a map
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x42"):
        return ".onnx"  # a number, the version of the format, and a field behind it
    suffix = {".pth": ".pt", ".th": ".pt"}.get(path.suffix.lower(), path.suffix.lower())
    if suffix not in READERS:
        raise ValueError(
            f"checkpoint {path} is of no kind that is read, PyTorch, safetensors, .npz, flax's .msgpack, "
            f"HDF5 or ONNX: it begins with {head[:8]!r}"
        )
    return suffix


def _kind_of_zip(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except BadZipFile as error:
        raise ValueError(f"checkpoint {path} is damaged: it is a zip without its end ({error})") from error
    if any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names):
        return ".pt"
    if "model.weights.h5" in names:
        return ".keras"
    if any(name.endswith(".npy") for name in names):
        return ".npz"
    if any("exported_program" in name or name.endswith("/model.json") for name in names):
        raise ValueError(
            f"checkpoint {path} is a program of torch.export: export its arrays, "
            'torch.save(torch.export.load(FILE).state_dict, "state.pt")'
        )
    raise ValueError(f"checkpoint {path} is a zip of other files, {', '.join(names[:4])}: unpack it")


def safetensors_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error
    arrays = {}
    for name, entry in entries:
        dtype = TYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"checkpoint {path}: {name} has the unknown type {entry['dtype']}")
        arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return arrays


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error


def _msgpack(path: Path) -> Mapping[str, Any]:
    try:
        tree = flax.serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # whatever msgpack meets in a damaged file
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error
    if not isinstance(tree, Mapping):
        raise ValueError(f"checkpoint {path} holds a {type(tree).__name__}, expected a dict")
    return tree


def _hdf5(path: Path) -> Mapping[str, Any]:
    return _hdf5_arrays(path, path)


def _keras(path: Path) -> Mapping[str, Any]:
    with ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        return _hdf5_arrays(path, file)


def _hdf5_arrays(path: Path, file: Any) -> dict[str, Any]:
    h5py = optional("h5py", f"checkpoint {path}", "slth[keras]")
    arrays = {}

    def keep(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and entry.dtype.kind in "fiub":
            arrays[name] = entry[()]

    try:
        with h5py.File(file, "r") as held:
            held.visititems(keep)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error
    return {name: np.asarray(value) for name, value in arrays.items()}


def _folder(path: Path) -> Mapping[str, Any]:
    """The arrays of a folder that orbax wrote."""
    if not any((path / name).exists() for name in ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")):
        kind = "a SavedModel of TensorFlow" if (path / "saved_model.pb").exists() else "a folder"
        raise ValueError(f"checkpoint {path} is {kind}, and only orbax's folders are read: name a file in it")
    inner = path / "default" if (path / "default").is_dir() else path
    orbax = optional("orbax.checkpoint", f"checkpoint {path}", "orbax-checkpoint")
    try:
        with warnings.catch_warnings(action="ignore"):  # of shardings, which arrays in memory have none of
            tree = orbax.PyTreeCheckpointer().restore(inner.resolve())
    except Exception as error:  # whatever orbax meets in a damaged folder
        raise ValueError(
            f"checkpoint {path} cannot be read by orbax: {' '.join(str(error).split())[:200]}"
        ) from error
    return mapped(np.asarray, tree)


READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".safetensors": safetensors_arrays,
    ".npz": _npz,
    ".pt": read_tensors,
    ".msgpack": _msgpack,
    ".h5": _hdf5,
    ".keras": _keras,
    ".onnx": arrays_of,
}
