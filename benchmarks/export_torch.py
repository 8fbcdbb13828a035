"""Exported networks in PyTorch: ``python benchmarks/export_torch.py FOLDER`` (see `benchmarks.export`).

Needs torch and safetensors, and nothing of slth. For the target and the compact ticket: the largest
difference between PyTorch's outputs and slth's, divided by the largest output, and the milliseconds of one
image alone and of each image of the batch, on one thread: medians of the runs that go into two seconds.
"""

import importlib
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

SECONDS = 2.0


def milliseconds(net: torch.nn.Module, x: torch.Tensor) -> float:
    """Median time of a run, divided by the number of images."""
    seconds = []
    while sum(seconds) < SECONDS or len(seconds) < 5:
        begun = time.perf_counter()
        net(x)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds) / len(x)


def main() -> None:
    """A line for each network."""
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    held = np.load(folder / "outputs.npz")
    x = torch.from_numpy(held["images"])
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}")
    for name in ("target", "compact"):
        net = importlib.import_module(name).Net().eval()
        net.load_state_dict(load_file(folder / f"{name}.safetensors"))
        with torch.no_grad():
            y = net(x).numpy()
            error = np.abs(y - held[name]).max() / np.abs(held[name]).max()
            one, many = milliseconds(net, x[:1]), milliseconds(net, x)
        print(f"{name:<8} largest difference {error:.1e}, {one:.3f} ms alone, {many:.4f} ms of {len(x)}")


if __name__ == "__main__":
    main()
