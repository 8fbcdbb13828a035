"""An independent reader of ticket files in NumPy, written from docs/ticket_format.md alone; sections are its.

A parameter's path is its layer's path, "/" and "bias" or "kernel".
"""

import bz2
import fnmatch
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.coding.mask_reader import Arrays, Bits, Shapes, coded_mask


@dataclass
class Ticket:
    """A ticket file; `source` has the entry's fields, with the defaults of those left out."""

    version: int
    source: dict
    factor: float
    source_sha256: str
    mask: Arrays


def read(path: str | Path) -> Ticket:
    """The ticket in the file; ValueError where the checksum or the mask is wrong (section 1)."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    entry = json.loads(header["__metadata__"]["slth_ticket"])
    if entry["format"] != "slth ticket" or entry["version"] not in (1, 2):
        raise NotImplementedError(f"{entry['format']} of version {entry['version']}")
    offsets = {name: array["data_offsets"] for name, array in header.items() if name != "__metadata__"}
    checksum = entry.pop("checksum")
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode() + b"\0" + data[start:]).hexdigest() != checksum:
        raise ValueError("the checksum is wrong")
    arrays = {name: data[start + a : start + b] for name, (a, b) in offsets.items()}
    source = {"scales": [], "presence": 1.0, "biases": "random", "positive": []} | entry["source"]
    if entry["version"] == 2:
        source["network"] = json.loads(bz2.decompress(arrays["networks"]))["source"]
    ticket = Ticket(entry["version"], source, entry["factor"], entry["source_sha256"], {})
    shapes = _shapes(source["network"])
    if ticket.version == 1:  # section 7
        bits = Bits(arrays["mask"])
        ticket.mask = {path: bits.take(math.prod(shape)).reshape(shape) for path, shape in shapes.items()}
    else:
        drawn = functools.cache(lambda: source_parameters(ticket))
        orders, seen = _flattened(source["network"]), dict(shapes)
        for path, (positions, channels, _) in orders.items():
            seen[path] = (positions, channels, shapes[path][-1])
        mask = coded_mask(
            arrays["mask"], seen, lambda path: _by_position(drawn()[path], seen[path], orders.get(path))
        )
        for path, (positions, channels, order) in orders.items():
            turned = mask[path].transpose(1, 0, 2) if order == "chw" else mask[path]
            mask[path] = turned.reshape(positions * channels, -1)
        ticket.mask = mask
    return ticket


# Section 4: how a kernel is seen.


def _flattened(network: dict) -> dict[str, tuple[int, int, str]]:
    """(positions, channels, order) of what is flattened before a dense layer, by the path of its kernel."""
    found = {}

    def parameter(path: str, shape: tuple) -> np.ndarray:
        return np.zeros(shape)

    def walk(layers: list, prefix: str, x: np.ndarray, flat: tuple | None) -> None:
        for layer in layers:
            path, kind = prefix + layer.get("name", ""), layer["type"]
            if kind == "Flatten":
                flat = (math.prod(x.shape[1:-1]), x.shape[-1], layer["order"])
            if kind == "Dense" and flat:
                found[f"{path}/kernel"] = flat
            for side, inner in _sides(layer).items():
                walk(inner, f"{path}/{side}/", x, flat)
            if kind in ("Conv", "Dense", "Residual", "Concat"):
                flat = None
            x = _apply(layer, path, x, parameter)

    walk(network["layers"], "", np.zeros((0, *network["input_shape"])), None)
    return found


def _by_position(array: np.ndarray, shape: tuple, flat: tuple | None) -> np.ndarray:
    """A parameter as section 4 sees it."""
    if flat and flat[2] == "chw":
        return array.reshape(shape[1], shape[0], shape[2]).transpose(1, 0, 2)
    return array.reshape(shape)


# Section 2: networks. `parameter(path, shape)` gives the array of a parameter.


def _windows(x: np.ndarray, window: list, stride: list, dilation: list) -> list[np.ndarray]:
    """For each tap what it sees at all positions, of an x (batch, positions..., channels)."""
    spans = [d * (k - 1) for k, d in zip(window, dilation, strict=True)]
    taps = itertools.product(*(range(0, span + 1, d) for span, d in zip(spans, dilation, strict=True)))
    ends = [size - span for size, span in zip(x.shape[1:-1], spans, strict=True)]
    return [x[:, *(slice(i, i + e, s) for i, e, s in zip(tap, ends, stride, strict=True))] for tap in taps]


def _apply(layer: dict, path: str, x: np.ndarray, parameter: Callable) -> np.ndarray:
    """The layer's outputs for a batch."""
    kind = layer["type"]
    if kind in ("Conv", "Dense"):
        features = layer["features"]
        bias = parameter(f"{path}/bias", (features,)) if layer["use_bias"] else 0
        reads = _inputs(layer, x.shape[-1]) if kind == "Conv" else np.arange(x.shape[-1])[:, None]
        kernel = parameter(f"{path}/kernel", (*layer.get("kernel", ()), len(reads), features))
        if kind == "Dense":
            return x @ kernel + bias
        x = np.pad(x, [(0, 0), *layer["padding"], (0, 0)])
        seen = _windows(x, layer["kernel"], layer["stride"], layer["dilation"])
        matrices = np.zeros((len(seen), x.shape[-1], features))
        matrices[:, reads, np.arange(features)] = kernel.reshape(len(seen), -1, features)
        return sum(part @ matrix for part, matrix in zip(seen, matrices, strict=True)) + bias
    if kind == "Activation" and layer["kind"] == "relu":
        return np.maximum(x, 0)
    if kind == "Activation" and layer["kind"] == "leaky_relu":
        return np.where(x < 0, layer["slope"] * x, x)
    if kind == "Activation" and layer["kind"] in ("relu6", "hard_sigmoid", "hard_swish"):
        clipped = np.clip(x if layer["kind"] == "relu6" else x + 3, 0, 6)
        return {"relu6": clipped, "hard_sigmoid": clipped / 6, "hard_swish": x * clipped / 6}[layer["kind"]]
    if kind == "Pool" and layer["kind"] == "max" and not layer["incomplete"] and not np.any(layer["padding"]):
        return np.max(_windows(x, layer["window"], layer["stride"], [1] * len(layer["window"])), axis=0)
    if kind == "GlobalMean":
        return x.mean(axis=tuple(range(1, x.ndim - 1)))
    if kind == "GlobalMax":
        return x.max(axis=tuple(range(1, x.ndim - 1)), initial=-math.inf)
    if kind == "Upsample":
        for axis, factor in enumerate(layer["factor"], start=1):
            x = x[(slice(None),) * axis + (np.arange(x.shape[axis] * factor) // factor,)]
        return x
    if kind == "Flatten" and layer["order"] in ("hwc", "chw"):
        x = np.moveaxis(x, -1, 1) if layer["order"] == "chw" else x
        return x.reshape(len(x), math.prod(x.shape[1:]))
    if kind == "Subsample":
        x = x[:, *(slice(None, None, stride) for stride in layer["stride"])]
        channels = np.array(layer["channels"])
        return np.where(channels < 0, 0, x[..., channels])
    sides = [_run(inner, f"{path}/{side}/", x, parameter) for side, inner in _sides(layer).items()]
    if kind == "Residual":
        return sides[0] + sides[1]
    if kind == "Concat":
        return np.concatenate(sides, -1)
    raise NotImplementedError(f"layer {layer}")


def _sides(layer: dict) -> dict[str, list]:
    """The lists of layers inside of a layer, by what stands for them in paths."""
    if layer["type"] == "Residual":
        return {"branch": layer["branch"], "skip": layer["skip"]}
    return {str(number): part for number, part in enumerate(layer.get("parts", []))}


def _inputs(layer: dict, channels: int) -> np.ndarray:
    """The channel that each output of a convolution (a column) reads by each row of its kernel."""
    groups, (before, behind) = layer.get("groups", 1), layer.get("beside", (0, 0))
    each, outputs = (channels - before) // groups, (layer["features"] - behind) // groups
    beside = [*range(channels - before, channels)]
    group = [min(output // outputs, groups - 1) for output in range(layer["features"])]
    return np.array([[*range(g * each, (g + 1) * each), *beside] for g in group]).T


def _run(layers: list, prefix: str, x: np.ndarray, parameter: Callable) -> np.ndarray:
    """Outputs of one layer after the other."""
    for layer in layers:
        x = _apply(layer, prefix + layer.get("name", ""), x, parameter)
    return x


def _shapes(network: dict) -> Shapes:
    """The shapes of all parameters in order, found by running an empty batch."""
    seen: Arrays = {}
    x = np.zeros((0, *network["input_shape"]))
    _run(network["layers"], "", x, lambda path, shape: seen.setdefault(path, np.zeros(shape)))
    return {path: array.shape for path, array in seen.items()}


def outputs(ticket: Ticket, x: np.ndarray) -> np.ndarray:
    """What the ticket computes for a batch of inputs, in float64."""
    kept = {path: ticket.mask[path] * a.astype(np.float64) for path, a in source_parameters(ticket).items()}
    layers = ticket.source["network"]["layers"]
    return ticket.factor * _run(layers, "", np.asarray(x, np.float64), lambda path, shape: kept[path])


# Section 3: the generator.


def _mix(x: np.ndarray) -> np.ndarray:
    """M of uint32 numbers."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _uniform(seed: int, layer: str, leaf: str, size: int) -> np.ndarray:
    """The numbers of one parameter in [-1, 1), float32."""
    data = seed.to_bytes(8, "little")
    for text in (layer.encode(), leaf.encode()):
        data += len(text).to_bytes(8, "little") + text
    k0, k1 = np.frombuffer(hashlib.blake2b(data, digest_size=8).digest(), "<u4").reshape(2, 1)
    s1 = _mix(k1)
    a = _mix(np.arange(size, dtype=np.uint32) ^ _mix(s1 + k0))
    bits = _mix(a + s1) + a
    return (bits.view(np.int32) >> 7).astype(np.float32) * np.float32(2**-24)


def source_parameters(ticket: Ticket) -> Arrays:
    """Every parameter of the source, in order and without the mask."""
    source = ticket.source
    for field, known in (
        ("init", ("uniform", "he_uniform")),
        ("presence", (1,)),
        ("biases", ("random", "zero")),
    ):
        if source[field] not in known:
            raise NotImplementedError(f"{field} {source[field]}")
    parameters: Arrays = {}
    beside = dict(_beside(source["network"]["layers"], ""))
    for path, shape in _shapes(source["network"]).items():
        layer, _, leaf = path.rpartition("/")
        is_bias = leaf == "bias"
        scale = source["bias_scale"] if is_bias else source["scale"]
        pairs = [pair for pair in source["scales"] if pair[0].endswith("/bias") == is_bias]
        fits = (
            factor for pattern, factor in pairs if fnmatch.fnmatchcase(path if is_bias else layer, pattern)
        )
        scale *= next(fits, 1)
        if source["init"] == "he_uniform" and not is_bias:
            is_first = set(parameters) <= {f"{layer}/bias"}
            inputs = math.prod(shape[:-2]) * (shape[-2] - beside.get(layer, 0))
            scale *= math.sqrt(6 * (1 if is_first else source["multiplicity"]) / inputs)
        numbers = np.float32(scale) * _uniform(source["seed"], layer, leaf, math.prod(shape))
        numbers = np.rint(numbers * np.float32(2**24)) * np.float32(2**-24)  # a -0 stays one
        if layer in source["positive"] and not is_bias:
            numbers = np.abs(numbers)
        all_zero = is_bias and source["biases"] == "zero"
        parameters[path] = np.zeros(shape, np.float32) if all_zero else numbers.reshape(shape)
    return parameters


def _beside(layers: list, prefix: str) -> Iterator[tuple[str, int]]:
    """How many channels each convolution reads beside its groups, by its path."""
    for layer in layers:
        path = prefix + layer.get("name", "")
        if layer.get("beside"):
            yield path, layer["beside"][0]
        for side, inner in _sides(layer).items():
            yield from _beside(inner, f"{path}/{side}/")


def sha256_of(parameters: Arrays) -> str:
    """Hex digest of parameters in their order, as in `source_sha256`."""
    return hashlib.sha256(
        b"".join(array.astype("<f4").tobytes() for array in parameters.values())
    ).hexdigest()
