"""Exported networks in PyTorch: ``python -m benchmarks.export_torch FOLDER`` (see `benchmarks.export`).

Needs torch and safetensors, and nothing of slth. For the target and the compact ticket: the largest
difference between PyTorch's outputs and slth's, divided by the largest output, and the milliseconds of
one image alone and of each image of the batch, on one thread: medians of the runs that go into two
seconds.
"""

import importlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.clock import milliseconds


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
            one, many = (milliseconds(partial(net, part), len(part)) for part in (x[:1], x))
        print(f"{name:<8} largest difference {error:.1e}, {one:.3f} ms alone, {many:.4f} ms of {len(x)}")


if __name__ == "__main__":
    main()
