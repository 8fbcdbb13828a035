"""Tensors of an ONNX file as arrays: sizes are checked against the bytes before anything is made."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from slth.interop.onnx.model import Refused

# By number in TensorProto.DataType: type, and the field that holds it where raw_data does not.
TYPES: dict[int, tuple[np.dtype, str]] = {
    1: (np.dtype("<f4"), "float_data"),
    2: (np.dtype("u1"), "int32_data"),
    3: (np.dtype("i1"), "int32_data"),
    4: (np.dtype("<u2"), "int32_data"),
    5: (np.dtype("<i2"), "int32_data"),
    6: (np.dtype("<i4"), "int32_data"),
    7: (np.dtype("<i8"), "int64_data"),
    9: (np.dtype(np.bool_), "int32_data"),
    10: (np.dtype("<f2"), "int32_data"),
    11: (np.dtype("<f8"), "double_data"),
    12: (np.dtype("<u4"), "uint64_data"),
    13: (np.dtype("<u8"), "uint64_data"),
    16: (np.dtype(jnp.bfloat16), "int32_data"),
}
REAL = (1, 10, 11, 16)
"""Types of floating-point numbers."""
EXTERNAL = 1


def array_of(tensor: Any, folder: Path) -> np.ndarray:
    """The array of a TensorProto.

    Args:
      folder: where the file lies; data outside of the file must lie there too.
    Raises: Refused, naming the tensor, for unknown types and sizes that do not fit the data.
    """
    name, dims = tensor.name, tuple(tensor.dims)
    if tensor.data_type not in TYPES:
        raise Refused(f"tensor {name!r} has the element type {tensor.data_type}, expected real numbers")
    dtype, field = TYPES[tensor.data_type]
    if any(n < 0 for n in dims) or len(dims) > 8:
        raise Refused(f"tensor {name!r} is damaged: its shape is {dims}")
    if tensor.HasField("segment"):
        raise Refused(f"tensor {name!r} is split into segments: save the file again with the onnx package")
    count = math.prod(dims)
    if tensor.data_location == EXTERNAL:
        return _outside(tensor, folder, count * dtype.itemsize).view(dtype).reshape(dims)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise Refused(f"tensor {name!r} is damaged: {len(tensor.raw_data)} bytes for the shape {dims}")
        return np.frombuffer(tensor.raw_data, dtype).reshape(dims)
    held = getattr(tensor, field)
    if len(held) != count:
        raise Refused(f"tensor {name!r} is damaged: {len(held)} numbers for the shape {dims}")
    if dtype.itemsize == 2 and dtype.kind in "fV":  # 16-bit floats are held as their bits
        return np.array(held, np.int64).astype(np.uint16).view(dtype).reshape(dims)
    return np.array(held).astype(dtype).reshape(dims)


def location_of(tensor: Any) -> str:
    """The file beside the model's in which a tensor lies; empty where it lies in the model's own."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    return said.get("location", "") if tensor.data_location == EXTERNAL else ""


def _outside(tensor: Any, folder: Path, size: int) -> np.ndarray:
    """The bytes of a tensor that stands in another file."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    where = said.get("location", "")
    root = folder.resolve()
    path = (root / where).resolve()
    if not where or "\0" in where or not path.is_relative_to(root):
        raise Refused(
            f"tensor {tensor.name!r} lies in {where!r}: only files in the model's own folder are read"
        )
    if not path.is_file():
        raise Refused(
            f"tensor {tensor.name!r} lies in {where!r}, which is not there: put it beside the model"
        )
    digits = [said.get(key, default) for key, default in (("offset", "0"), ("length", str(size)))]
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in digits):
        raise Refused(f"tensor {tensor.name!r} is damaged: its offset and length are {digits}")
    offset, length = map(int, digits)
    if length != size or offset + length > path.stat().st_size:
        raise Refused(
            f"tensor {tensor.name!r} is damaged: it needs {size} bytes, and its place in {where!r}, of "
            f"{path.stat().st_size}, is {length} from {offset} on"
        )
    with path.open("rb") as file:
        file.seek(offset)
        return np.frombuffer(file.read(length), np.uint8)
