"""Networks from ONNX files: read, matched with slth's layers, nested. Nothing in a file is ever run."""

from slth.interop.onnx.load import arrays_of, load_onnx
from slth.interop.onnx.reading import files_of

__all__ = ["arrays_of", "files_of", "load_onnx"]
