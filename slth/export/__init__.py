"""Networks as files of other programs: ONNX, and PyTorch's arrays beside a module in Python."""

from slth.export.files import Exported, export_network
from slth.export.onnx_model import onnx_model
from slth.export.torch_module import TorchFiles, torch_files

__all__ = ["Exported", "TorchFiles", "export_network", "onnx_model", "torch_files"]
