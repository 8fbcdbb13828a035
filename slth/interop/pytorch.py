"""PyTorch's pickled checkpoints without PyTorch, and without running anything that they name.

A pickle is a program. This reader lets it build plain containers, numbers, strings and tensors; every other
global that it names is refused before it is used. Both layouts of `torch.save` are read: the zip of version
1.6 and later, and the pickles in sequence of earlier ones.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# Keys under which training programs keep the state dict, in the order in which they are looked for.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}

# An expanded tensor is small in the file and may be huge in memory; none that large is a checkpoint's.
EXPANDED_LIMIT = 2**24


class UnsafePickle(ValueError):
    """A pickle that asks for something else than tensors, plain containers and numbers.

    Example:
      >>> import os, pathlib, pickle, tempfile
      >>> from slth import interop
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "evil.pth"
      >>> _ = file.write_bytes(pickle.dumps({"state_dict": os.system}, 2))
      >>> interop.read_pytorch(file)    # doctest: +ELLIPSIS
      Traceback (most recent call last):
      slth.interop.pytorch.UnsafePickle: checkpoint ...evil.pth is refused: its pickle names ...
    """


# A pickle may set attributes of what it builds or names. Named tuples and classes with empty slots have none
# that can be set, so that nothing here outlives a file altered, and a checked view stays as it was checked.
class _Kind(NamedTuple):
    """An element type; what the pickle's storage classes are read as."""

    dtype: np.dtype


class _Storage(NamedTuple):
    """A run of elements; its bytes are kept apart, under its key."""

    key: str
    dtype: np.dtype
    count: int


class _View(NamedTuple):
    """A tensor: a strided view of a storage, in elements; nothing of it is checked yet."""

    storage: Any
    offset: Any
    shape: tuple
    strides: tuple


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _View:
        return _View(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *rest: Any) -> Any:
        return tensor


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,  # as protocol 2 calls it
    ("builtins", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{
        (module, name): _Kind(np.dtype(dtype))
        for name, dtype in STORAGES.items()
        for module in ("torch", "torch.cuda")
    },
}
"""All that a pickle may name."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, storages: dict[str, _Storage] | None = None):
        super().__init__(file, encoding="utf-8")
        self._storages = storages

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return KNOWN[module_name, global_name]
        except KeyError:
            raise UnsafePickle(
                f"its pickle names {module_name}.{global_name}, which is no tensor, container or number: "
                "save the tensors alone, torch.save(model.state_dict(), FILE)"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            kind = pid[0] if isinstance(pid, tuple) and pid else pid
            raise UnsafePickle(f"its pickle refers to a {kind!r} outside itself, expected a storage")
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if self._storages is None or type(kind) is not _Kind or type(count) is not int or count < 0:
            raise ValueError(f"storage {key} has no known element type or size")
        if len(pid) == 6 and pid[5] is not None:
            raise ValueError("it holds views of storages, a form before PyTorch 0.4")
        storage = self._storages.setdefault(key, _Storage(key, kind.dtype, count))
        if storage != (key, kind.dtype, count):
            raise ValueError(f"storage {key} is described in two ways")
        return storage


def _array(view: _View, data: Mapping[str, bytes]) -> np.ndarray:
    """The view as a contiguous array, after every number of it was checked against the storage's bytes."""
    storage, offset, shape, strides = view
    if type(storage) is not _Storage or storage.key not in data:
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


def read_pytorch(path: str | Path) -> dict[str, Any]:
    """The tensors of a .pt, .pth or .th file as NumPy arrays by name; bfloat16 as JAX's type.

    A state dict inside a dict of other things (`WRAPPERS`) is found; entries beside the tensors are kept as
    they are where the state dict itself holds them.

    Raises: UnsafePickle (a ValueError) where the pickle names anything but tensors, containers and numbers;
      ValueError where the file is damaged, of another kind, or without a state dict.

    Example:
      >>> from slth import interop
      >>> state = interop.read_pytorch("tests/fixtures/state_zip.pt")
      >>> {name: state[name].shape for name in ("0.weight", "4.bias")}
      {'0.weight': (3, 2, 3, 3), '4.bias': (4,)}
    """
    path = Path(path)
    try:
        tree, data = _zip(path) if zipfile.is_zipfile(path) else _legacy(path)
        for _ in range(4):  # a wrapper may be wrapped; a dict may also hold itself
            held = tree if isinstance(tree, Mapping) else {}
            tree = next((held[key] for key in WRAPPERS if isinstance(held.get(key), Mapping)), tree)
        if not isinstance(tree, Mapping) or not any(type(v) is _View for v in tree.values()):
            found = [str(k) for k in tree][:8] if isinstance(tree, Mapping) else type(tree).__name__
            raise ValueError(f"it holds no state dict (names to tensors), but {found}")
        return {str(k): _array(v, data) if type(v) is _View else v for k, v in tree.items()}
    except UnsafePickle as error:
        raise UnsafePickle(f"checkpoint {path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        text = str(error) or type(error).__name__
        raise ValueError(f"checkpoint {path} is not a readable PyTorch file: {text}") from error


def _zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("its entries are compressed, which torch.save never does")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("the zip holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ValueError("it is a TorchScript archive: save its state_dict() instead")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        storages: dict[str, _Storage] = {}
        tree = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        data = {}
        for key, storage in storages.items():
            info = entries.get(f"{folder}data/{key}")
            size = storage.count * storage.dtype.itemsize
            if info is None or info.file_size != size:
                raise ValueError(f"storage {key} is not there with its {size} bytes")
            data[key] = archive.read(info)
    return tree, data


def _legacy(path: Path) -> tuple[Any, dict[str, bytes]]:
    storages: dict[str, _Storage] = {}
    data = {}
    with path.open("rb") as file:
        if _Unpickler(file).load() != LEGACY_MAGIC:
            raise ValueError("it does not begin with PyTorch's magic number")
        if (version := _Unpickler(file).load()) != LEGACY_VERSION:
            raise ValueError(f"its protocol version is {version}, expected {LEGACY_VERSION}")
        system = _Unpickler(file).load()
        if not (isinstance(system, dict) and system.get("little_endian") is True):
            raise ValueError("it was written on a big-endian machine")
        tree = _Unpickler(file, storages).load()
        for key in map(str, _Unpickler(file).load()):
            count = int.from_bytes(file.read(8), "little")
            if key not in storages or count != storages[key].count:
                raise ValueError(f"storage {key} does not have the size that the pickle says")
            size = count * storages[key].dtype.itemsize
            data[key] = file.read(size)
            if len(data[key]) != size:
                raise ValueError("the file ends too early")
    return tree, data
