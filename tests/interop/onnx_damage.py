"""Damaged ONNX files: bytes changed anywhere, and numbers, names and operators changed within valid files."""

import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

import slth
from slth import nn
from tests.interop.onnx_families import FAMILIES
from tests.interop.onnx_nets import NETS

BASES = (
    *("plain", "residual", "option A", "keras", "audio", "normalised, padded", "squeezed"),
    *("MobileNetV2", "DenseNet", "ShuffleNet v2", "PReLU"),
)
ODD = (0, 1, -1, 2, 3, 7, 2**16, 2**31, -(2**31), 2**40, 2**62, -(2**62), 2**63 - 1)
NEVER = ("os.system", "subprocess.Popen", "socket.connect", "exec", "os.exec", "pickle.find_class")
MOST_BYTES = 2**26
"""Memory that a file of some kilobytes may need at most."""

_events: list[str] | None = None


def _audit(event: str, arguments: tuple) -> None:
    if event == "exec" and hasattr(slth.load, "__wrapped__"):
        return  # annotations are checked (`make checked`), and each check is code
    if _events is not None and (event in NEVER or event.startswith("os.spawn")):
        _events.append(event)


@contextmanager
def audited() -> Iterator[list[str]]:
    """What the interpreter is asked to run within."""
    global _events
    if not hasattr(audited, "hooked"):
        sys.addaudithook(_audit)
        audited.hooked = True
    _events = []
    try:
        yield _events
    finally:
        _events = None


def changed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes replaced, taken out, put in, or cut off."""
    held = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at, count = int(rng.integers(len(held))), int(rng.integers(1, 9))
        match rng.integers(6):
            case 0 | 1 | 2:
                held[at] = int(rng.integers(256))
            case 3:
                del held[at : at + count]
            case 4:
                held[at:at] = rng.bytes(count)
            case _ if rng.integers(4) == 0:
                del held[max(at, 1) :]
    return bytes(held)


def changed_model(content: bytes, rng: np.random.Generator) -> bytes:
    """A file whose protobuf is valid, and some of whose entries are others."""
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    for _ in range(rng.integers(1, 4)):
        node = graph.node[rng.integers(len(graph.node))]
        odd = int(ODD[rng.integers(len(ODD))])
        match rng.integers(8):
            case 0 if node.attribute:
                entry = node.attribute[rng.integers(len(node.attribute))]
                if entry.ints:
                    entry.ints[rng.integers(len(entry.ints))] = odd
                else:
                    entry.i, entry.f = odd, float(odd)
            case 1:
                node.op_type = graph.node[rng.integers(len(graph.node))].op_type
            case 2 if node.input:
                names = (
                    [one.output[0] for one in graph.node]
                    + [one.name for one in graph.initializer]
                    + ["x", ""]
                )
                node.input[rng.integers(len(node.input))] = names[rng.integers(len(names))]
            case 3 if graph.initializer:
                tensor = graph.initializer[rng.integers(len(graph.initializer))]
                if tensor.dims:
                    tensor.dims[rng.integers(len(tensor.dims))] = odd
            case 4:
                tensor = graph.initializer[rng.integers(len(graph.initializer))]
                raw = bytearray(tensor.raw_data)
                raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
                tensor.raw_data = bytes(raw)
            case 5:
                entry = graph.input[0] if rng.integers(2) else graph.output[0]
                dims = entry.type.tensor_type.shape.dim
                dims[rng.integers(len(dims))].dim_value = odd
            case 6:
                del graph.node[rng.integers(len(graph.node))]
                if not graph.node:
                    break
            case _:
                graph.initializer[rng.integers(len(graph.initializer))].data_type = int(rng.integers(24))
    return model.SerializeToString()


def damage(folder: Path, seeds: range) -> Counter:
    """Load damaged files; how many were loaded, and how many refused in one line.

    Raises: AssertionError for whatever else happens.
    """
    path, said = folder / "net.onnx", Counter()
    contents = [(NETS | FAMILIES)[name][1]().SerializeToString() for name in BASES]
    for content in contents:  # all that is imported and compiled once
        path.write_bytes(content)
        slth.load(path)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        change = changed_model if seed % 2 else changed_bytes
        path.write_bytes(change(contents[rng.integers(len(contents))], rng))
        tracemalloc.start()
        try:
            with audited() as events:
                target = slth.load(path)
        except ValueError as error:
            message = str(error)
            said["refused"] += 1
        else:
            assert nn.parameter_shapes(target.network), f"seed {seed}: it has no parameters"
            _same_outputs(path, target, seed)
            message = f"checkpoint {path} is loaded"
            said["loaded"] += 1
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert message.startswith(f"checkpoint {path}"), f"seed {seed}: {message}"
        assert "\n" not in message, f"seed {seed}: {message}"
        assert len(message) < 1500, f"seed {seed}: {message}"
        assert peak < MOST_BYTES, f"seed {seed}: {peak} bytes"
        assert events == [], f"seed {seed}: {events}"
    return said


def _same_outputs(path: Path, target: slth.Target, seed: int) -> None:
    """A network that is loaded has as many outputs as its file declares."""
    output = onnx.load(path, load_external_data=False).graph.output[0].type.tensor_type
    for dim, n in zip(list(output.shape.dim)[1:], target.network.output_shape, strict=False):
        assert not dim.HasField("dim_value") or dim.dim_value == n, f"seed {seed}"
