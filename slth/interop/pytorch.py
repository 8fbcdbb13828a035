"""PyTorch's checkpoints without PyTorch, and without running anything that they name.

`slth.interop.pickles` says what they may name. Both layouts of `torch.save` are read: the zip of version 1.6
and later, and the pickles in sequence of earlier ones.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slth.interop.pickles import Storage, Unpickler, UnsafePickle, View
from slth.interop.tree import mapped

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# An expanded tensor is small in the file and may be huge in memory; none that large is a checkpoint's.
EXPANDED_LIMIT = 2**24


def _array(view: View, data: Mapping[str, bytes]) -> np.ndarray:
    """The view as a contiguous array, after every number of it was checked against the storage's bytes."""
    storage, offset, shape, strides = view
    if type(storage) is not Storage or storage.key not in data:
        raise ValueError("a tensor's storage is not in the file")
    plain = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    if not plain or len(shape) != len(strides):
        raise ValueError(f"a tensor of size {shape} has a broken offset, size or stride")
    flat = np.frombuffer(data[storage.key], storage.dtype)
    elements = math.prod(shape)
    if elements == 0:
        return np.empty(shape, flat.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if last >= flat.size or elements > max(flat.size, EXPANDED_LIMIT):
        raise ValueError(f"a tensor of size {shape} reaches past its {flat.size} stored elements")
    steps = tuple(stride * flat.itemsize for stride in strides)
    return np.array(np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False))


class Tensor:
    """A tensor that becomes an array when it is asked for: ``numpy.asarray(tensor)``."""

    def __init__(self, view: View, data: Mapping[str, bytes]):
        self.view, self.data = view, data

    @property
    def shape(self) -> tuple:
        """The shape that the file claims."""
        return self.view.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The array, checked; ValueError where the tensor reaches out of its storage."""
        return np.asarray(_array(self.view, self.data), dtype)


def read_pytorch(path: str | Path) -> dict[str, Any]:
    """The tensors of a file of `torch.save` as NumPy arrays by name; bfloat16 as JAX's type.

    Dicts within dicts stay as they are; what is neither tensor nor dict is left out.

    Raises: UnsafePickle (a ValueError) where the pickle names anything but tensors, containers, numbers and
      what `Inert` stands for; ValueError where the file is damaged, of another kind, or without tensors.

    Example:
      >>> from slth import interop
      >>> state = interop.read_pytorch("tests/fixtures/state_zip.pt")
      >>> {name: state[name].shape for name in ("0.weight", "4.bias")}
      {'0.weight': (3, 2, 3, 3), '4.bias': (4,)}
    """
    try:
        return mapped(np.asarray, read_tensors(path))
    except ValueError as error:
        if str(error).startswith("checkpoint "):
            raise
        raise ValueError(f"checkpoint {path} is not a readable PyTorch file: {error}") from error


def read_tensors(path: str | Path) -> dict[str, Any]:
    """As `read_pytorch`, with a `Tensor` for each array.

    Raises: as `read_pytorch`, but for tensors that reach out of their storage.
    """
    path = Path(path)
    try:
        tree, data = _zip(path) if zipfile.is_zipfile(path) else _legacy(path)
        found = mapped(lambda view: Tensor(view, data), tree, View) if isinstance(tree, Mapping) else {}
        if not found:
            held = [str(k) for k in tree][:8] if isinstance(tree, Mapping) else type(tree).__name__
            raise ValueError(f"it holds no state dict (names to tensors), but {held}")
        return found
    except UnsafePickle as error:
        raise UnsafePickle(f"checkpoint {path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        text = str(error) or type(error).__name__
        raise ValueError(f"checkpoint {path} is not a readable PyTorch file: {text}") from error


def _zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if any(name.endswith("/constants.pkl") for name in entries):
            raise ValueError(
                "it is a TorchScript archive, a program: export its arrays, "
                'torch.save(torch.jit.load(FILE).state_dict(), "state.pt")'
            )
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("its entries are compressed, which torch.save never does")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("the zip holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        storages: dict[str, Storage] = {}
        tree = Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        data = {}
        for key, storage in storages.items():
            info = entries.get(f"{folder}data/{key}")
            size = storage.count * storage.dtype.itemsize
            if info is None or info.file_size != size:
                raise ValueError(f"storage {key} is not there with its {size} bytes")
            data[key] = archive.read(info)
    return tree, data


def _legacy(path: Path) -> tuple[Any, dict[str, bytes]]:
    storages: dict[str, Storage] = {}
    data = {}
    with path.open("rb") as file:
        if Unpickler(file).load() != LEGACY_MAGIC:
            raise ValueError("it does not begin with PyTorch's magic number")
        if (version := Unpickler(file).load()) != LEGACY_VERSION:
            raise ValueError(f"its protocol version is {version}, expected {LEGACY_VERSION}")
        system = Unpickler(file).load()
        if not (isinstance(system, dict) and system.get("little_endian") is True):
            raise ValueError("it was written on a big-endian machine")
        tree = Unpickler(file, storages).load()
        for key in map(str, Unpickler(file).load()):
            count = int.from_bytes(file.read(8), "little")
            if key not in storages or count != storages[key].count:
                raise ValueError(f"storage {key} does not have the size that the pickle says")
            size = count * storages[key].dtype.itemsize
            data[key] = file.read(size)
            if len(data[key]) != size:
                raise ValueError("the file ends too early")
    return tree, data
