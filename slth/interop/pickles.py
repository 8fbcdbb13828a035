"""What a pickle may build: plain containers, numbers, tensors, and stand-ins for some harmless kinds.

A pickle is a program. Every global that it names is looked up in `KNOWN` and refused, before it is used,
where it is not there. Values of some kinds that often stand beside a state dict become `Inert`, which holds
nothing.
"""

import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

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


class UnsafePickle(ValueError):
    """A pickle that asks for something else than tensors, plain containers and numbers.

    Example:
      >>> import os, pathlib, pickle, tempfile
      >>> from slth import interop
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "evil.pth"
      >>> _ = file.write_bytes(pickle.dumps({"state_dict": os.system}, 2))
      >>> interop.read_pytorch(file)    # doctest: +ELLIPSIS
      Traceback (most recent call last):
      slth.interop.pickles.UnsafePickle: checkpoint ...evil.pth is refused: its pickle names ...
    """


# A pickle may set attributes of what it builds or names. Named tuples and classes with empty slots have none
# that can be set, so that nothing here outlives a file altered, and a checked view stays as it was checked.
class Kind(NamedTuple):
    """An element type; what the pickle's storage classes are read as."""

    dtype: np.dtype


class Storage(NamedTuple):
    """A run of elements; its bytes are kept apart, under its key."""

    key: str
    dtype: np.dtype
    count: int


class View(NamedTuple):
    """A tensor: a strided view of a storage, in elements; nothing of it is checked yet."""

    storage: Any
    offset: Any
    shape: tuple
    strides: tuple


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> View:
        return View(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *rest: Any) -> Any:
        return tensor


class _PlainDict:
    """Counters and dicts with a default, as dicts."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> dict:
        return dict(next((a for a in arguments if isinstance(a, dict)), {}))


class Inert:
    """A value that no network is made of: it takes whatever a pickle gives it, and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> "Inert":
        """Keep none of the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keep no state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep no item."""


NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
NUMBERS = ("int", "float", "bool", "complex", "str", "bytes", "bytearray", "list", "dict", "tuple", "object")
DTYPES = (*("float64", "float32", "float16", "bfloat16", "double", "float", "half"),)
INERT = (
    *((module, name) for module in NUMPY for name in ("scalar", "_reconstruct")),
    *(("numpy", name) for name in ("dtype", "ndarray")),
    *(("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in PATHS),
    *((module, name) for module in ("builtins", "__builtin__") for name in NUMBERS),
    *(("torch", name) for name in ("device", *DTYPES)),
    ("argparse", "Namespace"),
    ("_codecs", "encode"),  # of bytes, which protocol 2 writes so
)
"""Kinds of values beside a state dict that stand-ins replace."""


KNOWN: dict[tuple[str, str], Any] = {
    **{(module, name): type(name, (Inert,), {"__slots__": ()}) for module, name in INERT},
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): _PlainDict(),
    ("collections", "defaultdict"): _PlainDict(),
    ("__builtin__", "set"): set,  # as protocol 2 calls it
    ("builtins", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    **{
        (module, name): Kind(np.dtype(dtype))
        for name, dtype in STORAGES.items()
        for module in ("torch", "torch.cuda")
    },
}
"""All that a pickle may name."""

EXPORT = (
    "write its arrays alone, where the program that made it is at hand: model = torch.load(FILE, "
    'weights_only=False); torch.save(model.state_dict(), "state.pt") (of a dict, model["state_dict"])'
)


def _reason(module: str, name: str) -> str:
    """Why a global is refused, and what to do."""
    if module.startswith("torch.") and ("qtensor" in name or "quantized" in module):
        return "it holds quantised tensors: save the state_dict() of the network before it was quantised"
    if module == "torch._utils" and "sparse" in name:
        return "it holds sparse tensors: save them as dense ones, tensor.to_dense()"
    named = f"its pickle names {module}.{name}"
    if module.startswith("torch.nn.modules"):
        return f"{named}: it holds a whole module, which only its program's code can load: {EXPORT}"
    return f"{named}, which is no tensor, container or number, and nothing that a file names is run: {EXPORT}"


class Unpickler(pickle.Unpickler):
    """An unpickler that knows `KNOWN` alone, and describes storages in place of reading them."""

    def __init__(self, file: Any, storages: dict[str, Storage] | None = None):
        super().__init__(file, encoding="utf-8")
        self._storages = storages

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What `KNOWN` has under this name; UnsafePickle where it has nothing."""
        try:
            return KNOWN[module_name, global_name]
        except KeyError:
            raise UnsafePickle(_reason(module_name, global_name)) from None

    def persistent_load(self, pid: Any) -> Storage:
        """The description of a storage, which the pickle refers to by its key."""
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            kind = pid[0] if isinstance(pid, tuple) and pid else pid
            raise UnsafePickle(f"its pickle refers to a {kind!r} outside itself, expected a storage")
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if self._storages is None or type(kind) is not Kind or type(count) is not int or count < 0:
            raise ValueError(f"storage {key} has no known element type or size")
        if len(pid) == 6 and pid[5] is not None:
            raise ValueError("it holds views of storages, a form before PyTorch 0.4")
        storage = self._storages.setdefault(key, Storage(key, kind.dtype, count))
        if storage != (key, kind.dtype, count):
            raise ValueError(f"storage {key} is described in two ways")
        return storage
