r"""Ticket files: a strong lottery ticket as the seed of its source and one bit for each of its parameters.

    ticket(x) = lambda * apply(source.network, mask * source, x)

The source is a function of its seed (`slth.source`), so the file holds no weight: neither the source's nor,
above all, the target's. It is a safetensors file of two arrays, the coded mask (`slth.coding`) and the
compressed specs of both networks, and one metadata entry, canonical JSON. There is one sequence of bytes for
each ticket and version: a file that differs from what its content would be written as is refused.
docs/ticket_format.md is the specification.
"""

import bz2
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Float, Float32, Shaped

from slth import coding, nn
from slth.coding.dealing import Candidates
from slth.coding.rounded import LARGEST_STEP
from slth.compact import compact
from slth.export import Exported, export_network
from slth.interop.files import write_whole
from slth.nn import parameter_shapes
from slth.nn.graph import flattened_kernels, named_layers
from slth.nn.layers import ChannelScale
from slth.nn.network import Network
from slth.nn.serial import decode, encode
from slth.source import Source, parameter
from slth.source import sha256 as sha256_of
from slth.types import Batch, Mask, Params, Shape

FORMAT = "slth ticket"
PLAIN, CODED = 1, 2
"""Versions: mask and specs as they are, or coded."""
MOST_EXPANSION = 256
"""Most bytes of a plain mask for each byte of its code: no small file asks for much memory."""
MOST_TEXT = 1 << 20
"""Most bytes of the specs before they are compressed."""
ENTRY = "slth_ticket"
ARRAY, NETWORKS = "mask", "networks"
FIELDS = {"format": str, "version": int, "source": dict, "factor": float}
HASHES = {"source_sha256": str, "checksum": str}
SOURCE_FIELDS = {"seed": int, "multiplicity": int, "init": str, "scale": float, "bias_scale": float}
# Written only where they differ from these, so that files older than such a field are still written alike.
SOURCE_OPTIONS = {
    "scales": (list, ()),
    "presence": (float, 1.0),
    "biases": (str, "random"),
    "positive": (list, ()),
}


class TicketError(ValueError):
    """A ticket file that is damaged, foreign or not of its source: says which file and field.

    Example:
      >>> from slth import ticket
      >>> try:
      ...     ticket.from_bytes(b"no ticket", "net.ticket")
      ... except ticket.TicketError as error:
      ...     print(error.field)
      file
    """

    def __init__(self, where: str | Path, field: str, problem: str):
        self.field = field
        super().__init__(f"{where}: {field}: {problem}")


@dataclass(frozen=True)
class Ticket:
    r"""A strong lottery ticket, :math:`\lambda f(\mathrm{mask} \odot \mathrm{source})`.

    Args:
      source: the random network; regenerated, never stored.
      bits: the mask, packed eight entries a byte, most significant first, the arrays in the order of
        `slth.nn.parameter_shapes`, row-major; unused bits of the last byte are 0.
      factor: lambda > 0, by which the outputs are multiplied.
      source_sha256: `slth.source.sha256` of the source.
      target: spec of the network that the ticket computes, for information (None: not said).
      steps: (path, D) of kernels whose target weights were rounded to multiples of D, in units of 2^-48 and
        in the order of the parameters. Files of version 2 are smaller for it (`slth.coding.rounded`); what
        the ticket computes is the same.
    Raises: ValueError for a mask of another length, unused bits that are set, a factor that is not positive,
      or steps of what is no kernel, in another order or not from 1 to 2^50.

    Example:
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> half = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> half(np.ones((4, 2), np.float32)).shape, half.nonzero
      ((4, 3), 2)
    """

    source: Source
    bits: bytes = field(repr=False)
    factor: float
    source_sha256: str
    target: Network | None = None
    steps: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        count = self.parameters
        if len(self.bits) != (count + 7) // 8:
            raise ValueError(
                f"mask: {len(self.bits)} bytes, expected {(count + 7) // 8} for {count} parameters"
            )
        if count % 8 and self.bits[-1] & (0xFF >> count % 8):
            raise ValueError("mask: unused bits of the last byte are set")
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"factor: must be positive and finite, got {self.factor}")
        if len(self.source_sha256) != 64 or set(self.source_sha256) - set("0123456789abcdef"):
            raise ValueError(f"source_sha256: expected 64 hexadecimal digits, got {self.source_sha256!r}")
        kernels = [path for path, shape in parameter_shapes(self.source.network).items() if len(shape) > 1]
        paths = [path for path, _ in self.steps]
        if paths != [path for path in kernels if path in paths]:
            raise ValueError(f"steps: expected kernels in the order of the source's parameters, got {paths}")
        for path, step in self.steps:
            if type(step) is not int or not 1 <= step <= LARGEST_STEP:
                raise ValueError(f"steps: {path}: expected an integer from 1 to 2^50, got {step!r}")

    @property
    def parameters(self) -> int:
        """Number of parameters of the source, kept or not."""
        return sum(math.prod(shape) for shape in parameter_shapes(self.source.network).values())

    @property
    def nonzero(self) -> int:
        """Number of kept parameters."""
        return int(np.bitwise_count(np.frombuffer(self.bits, np.uint8)).sum())

    @property
    def density(self) -> float:
        """Kept / total over all parameters of the source, in [0, 1]."""
        return self.nonzero / self.parameters

    @property
    def arrays(self) -> dict[str, Bool[np.ndarray, "..."]]:
        """The mask by the path of each parameter, in the order of `slth.nn.parameter_shapes`."""
        shapes = parameter_shapes(self.source.network)
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.parameters).view(bool)
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
        parts = zip(shapes.items(), np.split(flat, ends), strict=True)
        return {path: part.reshape(shape) for (path, shape), part in parts}

    @property
    def mask(self) -> Mask:
        """The mask as a tree of boolean arrays of the source's structure."""
        return unflatten_dict(self.arrays, sep="/")

    @cached_property
    def params(self) -> Params:
        """mask * source, the parameters for `slth.nn.apply` of ``source.network``."""
        values = {
            path: jnp.asarray(np.where(keep, parameter(self.source, path), np.float32(0)))
            for path, keep in self.arrays.items()
        }
        return unflatten_dict(values, sep="/")

    @cached_property
    def content(self) -> bytes:
        """The content of the ticket's file of version 2 (`to_bytes`)."""
        return to_bytes(self)

    def __call__(self, images: Batch) -> Float[np.ndarray, "n *out"]:
        r"""The outputs, :math:`\lambda f(\mathrm{mask} \odot \mathrm{source}; x)`, in batches.

        Args:
          images: any number of them, shape (n, *input_shape).
        """
        return np.float32(self.factor) * nn.predict(self.source.network, self.params, images, BATCH)

    def save(self, path: str | Path) -> None:
        """Write the ticket's file, whole or not at all; equal tickets give equal bytes."""
        save(path, self)

    def export(self, path: str | Path, *, like: str | None = None) -> Exported:
        """Write what is left of the ticket for other programs: ONNX, or PyTorch's arrays and a module.

        The file holds the compact network (`slth.compact.compact`), float32 weights with their zeros: it is
        larger than the ticket's own file, and it needs neither slth nor the source.

        Args:
          path: ends in ``.onnx``, or in ``.safetensors`` with ``like="pytorch"``.
        Returns: the files and their sizes.
        Raises: ValueError as `slth.export.export_network`.
        """
        small = compact(self.source.network, self.params, self.mask)
        seed, kept = self.source.seed, self.nonzero
        about = f"a strong lottery ticket, {kept:,} of {self.parameters:,} random weights of seed {seed}"
        return export_network(path, *small, self.factor, like=like, about=about)

    @classmethod
    def load(cls, path: str | Path, *, check_source: bool = True) -> "Ticket":
        """Read a ticket file and check all of it: see `slth.ticket.load`."""
        return load(path, check_source=check_source)


BATCH = 64
"""Images that go through a wide source at a time."""


def make(
    source: Source,
    mask: Mask,
    factor: float,
    target: Network | None = None,
    steps: tuple[tuple[str, int], ...] = (),
) -> Ticket:
    """The ticket of a source and a mask, with the source's hash computed.

    Args:
      mask: a tree of boolean arrays of the source's parameters (of `slth.Construction`).
      steps: (path, D) of kernels whose target weights were rounded, see `Ticket`.
    Raises: ValueError if the mask's names, shapes or types are not those of the source's parameters, or for
      what `Ticket` refuses.

    Example:
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0).density
      0.333
    """
    shapes = parameter_shapes(source.network)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(mask, sep="/").items()}
    for path in [*shapes, *flat]:
        found = (flat[path].shape, flat[path].dtype) if path in flat else None
        if found != (shapes.get(path), np.dtype(bool)):
            raise ValueError(f"mask {path}: expected boolean {shapes.get(path)}, got {found}")
    return Ticket(source, _packed(shapes, flat), float(factor), sha256_of(source), target, steps)


def verify(ticket: Ticket, where: str | Path = "ticket") -> None:
    """Regenerate the source and compare its hash with the ticket's.

    Args:
      where: what a message calls the ticket, such as its file.
    Raises: TicketError if they differ.

    Example:
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> made = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> ticket.verify(made)      # says nothing: the source has the hash that the ticket names
    """
    found, wanted = sha256_of(ticket.source), ticket.source_sha256
    if found != wanted:
        seed = ticket.source.seed
        problem = f"the source that seed {seed} generates has {found}, the ticket was made for {wanted}"
        raise TicketError(where, "source_sha256", problem)


def save(path: str | Path, ticket: Ticket) -> None:
    """Write a ticket file, whole or not at all; equal tickets give equal bytes.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> made = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> file = tempfile.mkdtemp() + "/net.ticket"
      >>> ticket.save(file, made)
      >>> ticket.load(file) == made
      True
    """
    write_whole(path, ticket.content)


def load(path: str | Path, *, check_source: bool = True) -> Ticket:
    """Read a ticket file and check all of it.

    Args:
      check_source: also regenerate the source and compare its hash (`verify`).
    Raises: FileNotFoundError; TicketError for a file that is truncated, altered, of another format or
      version, whose mask does not fit its source, or whose hash does not match.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> made = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.ticket"
      >>> ticket.save(file, made)
      >>> _ = file.write_bytes(file.read_bytes()[:-1])      # the last byte is lost
      >>> ticket.load(file)    # doctest: +ELLIPSIS
      Traceback (most recent call last):
      slth.ticket.TicketError: ...net.ticket: file: not a whole safetensors file (...)
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"ticket {path} is not there")
    ticket = from_bytes(path.read_bytes(), path)
    if check_source:
        verify(ticket, path)
    return ticket


def to_bytes(ticket: Ticket, version: int = CODED) -> bytes:
    """The content of the ticket's file.

    The container is written here, not by the safetensors package, so that its bytes depend on no package's
    version: length of the header (8 bytes, little-endian), the header as JSON padded with spaces to a
    multiple of 8, the arrays.

    Args:
      version: 2 for a coded mask, which becomes 1 where it would be coded more than `MOST_EXPANSION` times
        smaller or the specs are longer than `MOST_TEXT`; 1 for a plain one, without the ticket's steps.

    Example:
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> made = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> len(ticket.to_bytes(made)), len(made.bits)
      (619, 1)
    """
    network = encode(ticket.source.network)
    target = None if ticket.target is None else encode(ticket.target)
    text = _json({"source": network, "target": target}).encode()
    code = b""
    if version == CODED:
        seen = _Seen(ticket.source)
        code = coding.encode(
            seen.shapes, seen.masks(ticket), dict(ticket.steps), seen.values, _candidates(ticket)
        )
        if MOST_EXPANSION * len(code) < len(ticket.bits) or len(text) > MOST_TEXT:
            version = PLAIN
    coded = version == CODED
    content = {ARRAY: code, NETWORKS: bz2.compress(text)} if coded else {ARRAY: ticket.bits}
    source: dict[str, Any] = {
        name: kind(getattr(ticket.source, name)) for name, kind in SOURCE_FIELDS.items()
    }
    for name, (_, default) in SOURCE_OPTIONS.items():
        if (value := getattr(ticket.source, name)) != default:
            source[name] = value
    entry = {
        "format": FORMAT,
        "version": version,
        "source": source if coded else source | {"network": network},
        "factor": ticket.factor,
        "source_sha256": ticket.source_sha256,
    } | ({} if coded else {"target": target})
    data = b"".join(content.values())
    entry["checksum"] = _checksum(entry, data)
    header: dict[str, Any] = {"__metadata__": {ENTRY: _json(entry)}}
    end = 0
    for name, array in content.items():
        start, end = end, end + len(array)
        header[name] = {"dtype": "U8", "shape": [len(array)], "data_offsets": [start, end]}
    written = _json(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + data


def from_bytes(content: bytes, where: str | Path = "ticket") -> Ticket:
    """The ticket that `to_bytes` wrote; all is checked but the source's hash (`verify`).

    Raises: TicketError, naming ``where`` and the field.

    Example:
      >>> import numpy as np
      >>> from slth import Source, nn, ticket
      >>> source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
      >>> made = ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 2.0)
      >>> ticket.from_bytes(ticket.to_bytes(made)) == made
      True
    """
    try:
        return _read(content)
    except (ValueError, ArithmeticError, RecursionError) as error:
        field, _, problem = str(error).partition(": ")
        raise TicketError(where, field, problem or "unusable") from error


# What follows raises ValueErrors "field: problem".


def _read(content: bytes) -> Ticket:
    try:
        arrays = dict(safetensors.deserialize(content))
        text = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"file: not a whole safetensors file ({error})") from error
    text = (text.get("__metadata__") or {}).get(ENTRY)
    if text is None:
        raise ValueError(f"{ENTRY}: no such metadata: this is not a ticket file")
    entry = _entry(text)
    names = [ARRAY] if entry["version"] == PLAIN else [ARRAY, NETWORKS]
    bytewise = all(array["dtype"] == "U8" and len(array["shape"]) == 1 for array in arrays.values())
    if sorted(arrays) != names or not bytewise:
        raise ValueError(f"{ARRAY}: expected arrays of bytes {', '.join(names)}, got {', '.join(arrays)}")
    data = {name: bytes(arrays[name]["data"]) for name in names}
    if entry.pop("checksum") != _checksum(entry, b"".join(data.values())):
        raise ValueError("checksum: does not match the content: the file was altered or damaged")
    mask, steps = data[ARRAY], {}
    if entry["version"] == CODED:
        specs = _specs(data[NETWORKS])
        entry["source"]["network"], entry["target"] = specs["source"], specs["target"]
    target = None if entry["target"] is None else _network("target", entry["target"])
    source = _source(entry["source"])
    if entry["version"] == CODED:
        mask, steps = _decoded(source, mask)
    ticket = Ticket(source, mask, entry["factor"], entry["source_sha256"], target, tuple(steps.items()))
    again = ticket.content if entry["version"] == CODED else to_bytes(ticket, PLAIN)
    if again != content:
        raise ValueError("file: not written as tickets are: the container was altered")
    return ticket


def _specs(packed: bytes) -> dict[str, Any]:
    """The specs of both networks; no more than `MOST_TEXT` bytes of them are ever made."""
    try:
        unpacker = bz2.BZ2Decompressor()
        text = unpacker.decompress(packed, MOST_TEXT + 1)
        if len(text) > MOST_TEXT:
            raise ValueError(f"more than {MOST_TEXT} bytes")
        if not unpacker.eof:
            raise ValueError("cut off")
        specs = json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{NETWORKS}: not specs compressed by bzip2 ({error})") from error
    if not isinstance(specs, dict):
        raise ValueError(f"{NETWORKS}: expected a JSON object")
    _check(specs, {"source": dict, "target": object}, f"{NETWORKS}.")
    return specs


def _candidates(ticket: Ticket) -> Candidates:
    """The univariate layers, where the source is one of the ticket's target; whoever reads the file finds the
    same ones."""
    if ticket.target is None:
        return {}
    try:
        layers = ticket.source.checked_layout(ticket.target).univariate
    except ValueError:
        return {}
    return {f"{layer.path}/kernel": (layer.first_constant, layer.copies) for layer in layers}


class _Seen:
    """Parameters as a code sees them: a kernel that reads a flattened value has a tap for each position."""

    def __init__(self, source: Source) -> None:
        self.source, self.flat = source, flattened_kernels(source.network)
        self.shapes = dict(parameter_shapes(source.network))
        for path, flat in self.flat.items():
            positions = math.prod(flat.shape[:-1])
            self.shapes[path] = (positions, flat.shape[-1], self.shapes[path][-1])

    def of(self, path: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """A parameter, or its mask, of the shape that a code sees."""
        if path in self.flat:
            return self.flat[path].layer.by_position(array, self.shapes[path][0])
        return array

    def masks(self, ticket: Ticket) -> dict[str, Bool[np.ndarray, "..."]]:
        """The masks of a ticket by path."""
        return {path: self.of(path, mask) for path, mask in ticket.arrays.items()}

    def values(self, path: str) -> Float32[np.ndarray, "..."]:
        """The parameter of a path, drawn when it is asked for."""
        return self.of(path, np.asarray(parameter(self.source, path)))

    def whole(self, path: str, mask: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """The inverse of `of`."""
        return self.flat[path].layer.by_feature(mask) if path in self.flat else mask


def _decoded(source: Source, code: bytes) -> tuple[bytes, dict[str, int]]:
    """The packed mask and the steps of a code; its size is known before anything of that size is made."""
    shapes, seen = parameter_shapes(source.network), _Seen(source)
    size = sum(math.prod(shape) for shape in shapes.values())
    if size > 8 * MOST_EXPANSION * len(code):
        raise ValueError(
            f"{ARRAY}: {len(code)} bytes cannot code {size} parameters: a code is at most"
            f" {MOST_EXPANSION} times smaller"
        )
    arrays, steps = coding.decode(seen.shapes, code, seen.values)
    return _packed(shapes, {path: seen.whole(path, mask) for path, mask in arrays.items()}), steps


def _packed(shapes: dict[str, Shape], arrays: Mapping[str, Bool[np.ndarray, "..."]]) -> bytes:
    """Eight entries a byte, array after array."""
    return np.packbits(np.concatenate([arrays[path].reshape(-1) for path in shapes])).tobytes()


def _entry(text: str) -> dict[str, Any]:
    """The metadata, of the known format and version, with all their fields."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ENTRY}: not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{ENTRY}: expected a JSON object")
    form, version = entry.get("format"), entry.get("version")
    if form != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}, got {form!r}")
    if version not in (PLAIN, CODED):
        raise ValueError(f"version: this program reads versions 1 and 2, the file has {version!r}")
    _check(entry, FIELDS | HASHES | ({"target": object} if version == PLAIN else {}))
    if version == CODED and "network" in entry["source"]:
        raise ValueError("source.network: unknown field")
    return entry


def _check(given: dict[str, Any], kinds: dict[str, type], prefix: str = "") -> None:
    """Refuse all but these fields with values of these types; a bool is no int, an int no float."""
    for name in [*given, *kinds]:
        if name not in kinds:
            raise ValueError(f"{prefix}{name}: unknown field")
        if name not in given:
            raise ValueError(f"{prefix}{name}: missing field")
        value, kind = given[name], kinds[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{prefix}{name}: expected {kind.__name__}, got {value!r}")


def _source(given: dict[str, Any]) -> Source:
    options = {name: kind for name, (kind, _) in SOURCE_OPTIONS.items() if name in given}
    _check(given, {"network": dict} | SOURCE_FIELDS | options, "source.")
    if not 0 <= given["seed"] < 2**64:
        raise ValueError(f"source.seed: expected 0 to 2^64 - 1, got {given['seed']}")
    plain = {name: _tuples(value) for name, value in given.items() if name != "network"}
    network = _network("source.network", given["network"])
    for path, layer in named_layers(network).items():
        if isinstance(layer, ChannelScale):
            raise ValueError(f"source.network: {path} is a ChannelScale, and a source has none")
    return Source(network, **plain)


def _network(field: str, value: Any) -> Network:
    try:
        return decode(value, field)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{field}: {str(error).removeprefix(f'{field}: ')}") from error


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, which sources are made of."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(entry: dict[str, Any], data: bytes) -> str:
    """SHA-256 over all other metadata and the arrays."""
    try:
        text = _json(entry)
    except ValueError:  # NaN or infinity, which we never write
        return ""
    return hashlib.sha256(text.encode() + b"\0" + data).hexdigest()
