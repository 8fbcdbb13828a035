"""Sizes and speed of exported networks: ``python -m benchmarks.export [torch=FOLDER] [SETTING=VALUE ...]``.

Settings are those of `experiments.ticket`. Three networks are written as ONNX and run by onnxruntime on
one thread of a CPU: the target, the whole masked source (the wide ticket) and the compact ticket. A line
says what each holds; ratios are to the target. Milliseconds are those of one image alone, and those for
each image of a batch of 64: medians of the runs that go into two seconds. In FOLDER the target and the
compact ticket are written as PyTorch's arrays and modules too, with images and outputs: ``python -m
benchmarks.export_torch FOLDER``, which needs PyTorch and not slth, runs them.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks import clock
from benchmarks.built import built
from slth.construction import Construction
from slth.export import export_network

BATCH = 64


def milliseconds(file: Path, images: np.ndarray) -> float:
    """Median time of an image, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return clock.milliseconds(lambda: session.run(None, {"images": images}), len(images))


def for_torch(folder: Path, made: Construction, x: np.ndarray) -> None:
    """The target and the compact ticket like PyTorch's, images with channels first, and slth's outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    made.ticket.export(folder / "compact.safetensors", like="pytorch")
    target = made.target
    export_network(folder / "target.safetensors", target.network, target.params, like="pytorch")
    images = np.moveaxis(x, 1, -1)
    np.savez(folder / "outputs.npz", images=x, compact=made.ticket(images), target=target(images))


def main() -> None:
    """The table, for the settings of the command line."""
    settings = [setting for setting in sys.argv[1:] if not setting.startswith("torch=")]
    folders = [setting.removeprefix("torch=") for setting in sys.argv[1:] if setting not in settings]
    _, data, made = built(settings)
    ticket = made.ticket
    x = np.moveaxis(np.asarray(data.test_images[:BATCH], np.float32), -1, 1)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.onnx" for name in ("target", "wide ticket", "compact ticket")]
        target, source = made.target, ticket.source
        sizes = [
            export_network(files[0], target.network, target.params),
            export_network(files[1], source.network, ticket.params, ticket.factor),
            ticket.export(files[2]),
        ]
        times = [(milliseconds(file, x[:1]), milliseconds(file, x)) for file in files]
    for name in folders:
        for_torch(Path(name), made, x)
    print("ticket's own file:", f"{len(ticket.content) / 1e6:.3f} MB")
    heads = ("ONNX", "MB", "ratio", "weights", "not 0", "ms, 1 image", "ratio", f"ms, of {BATCH}", "ratio")
    print(f"{heads[0]:<16}" + "".join(f"{head:>13}" for head in heads[1:]))
    for file, size, (one, many) in zip(files, sizes, times, strict=True):
        cells = (
            *(f"{size.bytes / 1e6:.3f}", f"{size.bytes / sizes[0].bytes:.2f}"),
            *(f"{size.parameters:,}", f"{size.nonzero:,}"),
            *(f"{one:.3f}", f"{one / times[0][0]:.2f}", f"{many:.4f}", f"{many / times[0][1]:.2f}"),
        )
        print(f"{file.stem:<16}" + "".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    main()
