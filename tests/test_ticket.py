"""Ticket files: round trips, determinism, and the refusal of every alteration."""

import bz2
import json
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from slth import coding, nn, ticket
from slth.nn import parameter_shapes
from slth.nn.serial import decode, encode
from slth.nn.zoo import BUILDERS, build
from slth.source import Source, parameter, parameters, sha256, source_network
from slth.ticket import Ticket, TicketError
from tests.coding.rounded_case import chosen
from tests.nn.nets import SIZES


@pytest.fixture(scope="module")
def made() -> Ticket:
    """A ticket with a residual block, and a number of parameters that is no multiple of 8."""
    target, _ = nn.fold_batch_norm(
        spec := build("digits_resnet", (8, 8, 1), 9, width=2), nn.init(spec, jax.random.key(0))
    )
    network = source_network(target, 2, copies_per_sign=2, constants=3).network
    source = Source(network, seed=2**63 + 5, multiplicity=2)
    draw = np.random.default_rng(1)
    mask = {path: draw.random(shape) < 0.3 for path, shape in parameter_shapes(source.network).items()}
    tree: dict[str, Any] = {}
    for path, leaf in mask.items():
        *above, name = path.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[name] = leaf
    return ticket.make(source, tree, 0.1 + 0.2, target)


@pytest.fixture(params=[ticket.PLAIN, ticket.CODED], ids=["plain", "coded"], scope="module")
def content(made: Ticket, request: pytest.FixtureRequest) -> bytes:
    """The ticket's file, in each version."""
    return ticket.to_bytes(made, request.param)


def test_a_saved_ticket_is_read_back_whole(made: Ticket, tmp_path: Path):
    ticket.save(tmp_path / "t.safetensors", made)
    read = ticket.load(tmp_path / "t.safetensors")
    assert read == made
    assert read.parameters % 8 != 0
    assert list(tmp_path.iterdir()) == [tmp_path / "t.safetensors"]


def test_files_of_the_first_version_are_read_and_written_as_they_were(root: Path):
    path = root / "tests/fixtures/ticket_v1.safetensors"  # written before sources had scales by layer
    kept = ticket.load(path)
    assert ticket.to_bytes(kept, ticket.PLAIN) == path.read_bytes()
    assert ticket.from_bytes(ticket.to_bytes(kept)) == kept
    assert kept.source_sha256 == "9af68f8ae27710d0e652e405a4cc5252f5a5b8908705a72de58c023d032a253e"
    found = kept(jnp.array([[0.5, -1.0, 0.25]]))
    np.testing.assert_allclose(found, [[1.0056523, 1.9555869]], rtol=1e-5)


def test_a_source_with_every_option_comes_back(made: Ticket, tmp_path: Path):
    options = {"scales": {"conv1": 0.3, "*/bias": 2}, "presence": 0.25, "biases": "zero"}
    options |= {"positive": ("conv1", "linear")}
    source = Source(made.source.network, 7, 2, "glorot_normal", 1.5, 3.0, **options)
    ticket.save(tmp_path / "t.safetensors", one := ticket.make(source, made.mask, 1.0))
    read = ticket.load(tmp_path / "t.safetensors")
    assert read == one
    assert read.source.scales == (("conv1", 0.3), ("*/bias", 2.0))
    assert (read.source.presence, read.source.biases) == (0.25, "zero")
    assert read.source.positive == ("conv1", "linear")


def test_counts_and_mask_follow_the_bits(made: Ticket):
    leaves = flatten_dict(made.mask, sep="/")
    assert made.nonzero == sum(int(np.asarray(leaf).sum()) for leaf in leaves.values())
    assert made.parameters == sum(leaf.size for leaf in jax.tree.leaves(parameters(made.source)))
    assert made.density == made.nonzero / made.parameters
    assert ticket.make(made.source, made.mask, made.factor, made.target) == made


def test_the_ticket_is_the_masked_source_times_lambda(made: Ticket, getkey):
    x = jax.random.normal(getkey(), (3, 8, 8, 1))
    weights = jax.tree.map(
        lambda keep, v: jnp.asarray(np.asarray(v) * keep), made.mask, parameters(made.source)
    )
    found = flatten_dict(made.params, sep="/")
    assert found.keys() == parameter_shapes(made.source.network).keys()
    for path, values in flatten_dict(weights, sep="/").items():
        assert np.array_equal(found[path], values), path
    wanted = 0.30000000000000004 * nn.apply(made.source.network, weights, x)
    np.testing.assert_allclose(made(x), wanted, rtol=1e-6, atol=1e-6)


def test_more_images_than_a_batch_give_an_output_each(made: Ticket, monkeypatch):
    monkeypatch.setattr(ticket, "BATCH", 3)
    x = np.asarray(jax.random.normal(jax.random.key(0), (7, 8, 8, 1)))
    np.testing.assert_allclose(made(x), np.concatenate([made(x[:3]), made(x[3:])]), rtol=1e-6)
    with pytest.raises(ValueError, match="^images: there are none to evaluate$"):
        made(x[:0])


def test_a_ticket_saves_and_loads_itself(made: Ticket, tmp_path: Path):
    made.save(tmp_path / "net.ticket")
    assert (tmp_path / "net.ticket").read_bytes() == ticket.to_bytes(made)
    assert Ticket.load(tmp_path / "net.ticket") == made
    other = Ticket(made.source, made.bits, made.factor, "0" * 64, made.target)
    other.save(tmp_path / "net.ticket")
    assert Ticket.load(tmp_path / "net.ticket", check_source=False) == other
    with pytest.raises(TicketError, match="source_sha256: the source that seed"):
        Ticket.load(tmp_path / "net.ticket")


def test_the_file_holds_the_mask_and_nothing_else(made: Ticket, content: bytes):
    arrays = safetensors.numpy.load(content)  # the format's own reader
    code = coding.encode(parameter_shapes(made.source.network), made.arrays)
    specs = json.dumps(
        {"source": encode(made.source.network), "target": encode(made.target)},
        sort_keys=True,
        separators=(",", ":"),
    )
    coded = {"mask": code, "networks": bz2.compress(specs.encode())}
    wanted = {"mask": made.bits} if _entry(content)["version"] == 1 else coded
    assert {name: a.tobytes() for name, a in arrays.items()} == wanted
    assert len(code) < len(made.bits)
    floats = [v for v in _numbers(_entry(content)) if isinstance(v, float)]
    slopes = [0.01] * len(_activations(made.source.network.layers) + _activations(made.target.layers))
    assert sorted(floats) == sorted([*slopes, made.factor, made.source.scale, made.source.bias_scale])


def _activations(layers):
    inner = [a for layer in layers for a in _activations(getattr(layer, "branch", ()))]
    return inner + [layer for layer in layers if isinstance(layer, nn.Activation)]


def _numbers(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def test_equal_tickets_have_equal_bytes_and_one_bit_changes_them(made: Ticket):
    again = ticket.from_bytes(ticket.to_bytes(made))
    assert ticket.to_bytes(again) == ticket.to_bytes(made)
    flipped = bytes([made.bits[0] ^ 1]) + made.bits[1:]
    other = Ticket(made.source, flipped, made.factor, made.source_sha256, made.target)
    assert ticket.to_bytes(other) != ticket.to_bytes(made)


def test_every_altered_byte_is_seen(content: bytes):
    draw = np.random.default_rng(2)
    head = 8 + struct.unpack("<Q", content[:8])[0]
    places = {
        *range(16),
        *range(head - 16, head + 16),
        *draw.integers(0, len(content), 250),
        len(content) - 1,
    }
    missed = []
    for place in sorted(int(p) for p in places):
        for change in (1, 0x80, int(draw.integers(1, 256))):
            altered = bytearray(content)
            altered[place] ^= change
            try:
                ticket.from_bytes(bytes(altered))
                missed.append((place, change))
            except TicketError:
                pass
    assert missed == []


@pytest.mark.parametrize("part", [0, 1, 7, 8, 9, 100, -100, -1])
def test_a_truncated_or_longer_file_is_refused(content: bytes, tmp_path: Path, part: int):
    path = tmp_path / "t.safetensors"
    for altered in (content[:part], content + content[:part] + b"x"):
        path.write_bytes(altered)
        with pytest.raises(TicketError, match=r"t\.safetensors: file: not a whole safetensors file"):
            ticket.load(path)


def _arrays(content: bytes) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in sorted(safetensors.numpy.load(content).items())}


def _text(content: bytes) -> str:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size])["__metadata__"]["slth_ticket"]


def _entry(content: bytes) -> dict[str, Any]:
    """The metadata, with the specs at their places of version 1."""
    entry = json.loads(_text(content))
    if "networks" in (arrays := _arrays(content)):
        specs = json.loads(bz2.decompress(arrays["networks"]))
        entry["source"]["network"], entry["target"] = specs["source"], specs["target"]
    return entry


def _rewritten(content: bytes, change, **replaced: bytes) -> bytes:
    """The file with metadata and arrays changed and a checksum that fits: what a forger would write."""
    entry, arrays = _entry(content), _arrays(content)
    change(entry)
    if "networks" in arrays:
        network = entry["source"].pop("network") if isinstance(entry["source"], dict) else None
        specs = _json({"source": network, "target": entry.pop("target")})
        arrays["networks"] = bz2.compress(specs.encode())
    arrays |= replaced
    entry.pop("checksum", None)
    entry["checksum"] = ticket._checksum(entry, b"".join(arrays.values()))
    return _container(_json(entry), arrays)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _container(text: str, arrays: dict[str, bytes], **metadata: str) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"slth_ticket": text} | metadata}
    end = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "U8", "shape": [len(array)], "data_offsets": [end, end + len(array)]}
        end += len(array)
    raw = _json(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + b"".join(arrays.values())


def put(*path: Any):
    """A change that sets the last of ``path`` at the place that the others name."""

    def change(entry):
        for key in path[:-2]:
            entry = entry[key]
        entry[path[-2]] = path[-1]

    return change


FORGED = {  # what was changed, with a checksum that fits: (change, the field that the message names)
    "format": (put("format", "other"), "format"),
    "later version": (put("version", 3), "version: this program reads versions 1 and 2, the file has 3"),
    "version as text": (put("version", "1"), "version"),
    "unknown field": (put("comment", "x"), "comment: unknown field"),
    "missing field": (lambda entry: entry.pop("factor"), "factor: missing field"),
    "negative factor": (put("factor", -1.0), "factor"),
    "factor as text": (put("factor", "1"), "factor"),
    "whole factor": (put("factor", 1), "factor"),
    "factor true": (put("factor", True), "factor"),
    "hash too short": (put("source_sha256", "ab"), "source_sha256"),
    "hash of another kind": (put("source_sha256", 7), "source_sha256"),
    "source no object": (put("source", []), "source"),
    "unknown source field": (put("source", "colour", 1), "source.colour: unknown field"),
    "missing source field": (lambda entry: entry["source"].pop("seed"), "source.seed: missing field"),
    "negative seed": (put("source", "seed", -1), "source.seed"),
    "large seed": (put("source", "seed", 2**64), "source.seed"),
    "seed true": (put("source", "seed", True), "source.seed"),
    "unknown init": (put("source", "init", "zeros"), "source.init"),
    "scale 0": (put("source", "scale", 0.0), "source.scale"),
    "scales a mapping": (put("source", "scales", {"conv1": 2.0}), "source.scales: expected list"),
    "scales of no pairs": (put("source", "scales", ["conv1", 2.0]), "source.scales"),
    "a pattern that fits nothing": (put("source", "scales", [["conv9", 2.0]]), "source.scales"),
    "presence 1": (put("source", "presence", 1.0), "file"),
    "presence true": (put("source", "presence", True), "source.presence: expected float"),
    "presence 0": (put("source", "presence", 0.0), "source.presence"),
    "positive of no layer": (put("source", "positive", ["conv9"]), "source.positive"),
    "positive in another order": (put("source", "positive", ["linear", "conv1"]), "file"),
    "unknown biases": (put("source", "biases", "some"), "source.biases"),
    "factors by channel": (
        lambda entry: entry["source"]["network"]["layers"].insert(1, {"type": "ChannelScale", "name": "s"}),
        "source.network: s is a ChannelScale",
    ),
    "no layers": (lambda entry: entry["source"]["network"].pop("layers"), "source.network: field 'layers'"),
    "unknown layer": (
        put("source", "network", "layers", 0, "type", "Eval"),
        r"source.network: source.network.layers\[0\]: expected a layer",
    ),
    "layer without a type": (put("source", "network", "layers", 0, {}), "source.network"),
    "type a list": (put("source", "network", "layers", 0, "type", []), "source.network"),
    "unknown layer field": (put("source", "network", "layers", 0, "x", 1), "source.network.layers"),
    "kernel as text": (put("source", "network", "layers", 0, "kernel", "11"), "source.network.layers"),
    "other width": (put("source", "network", "layers", 0, "features", 7), "mask"),
    "layers that do not fit": (put("source", "network", "input_shape", [8, 8]), "source.network"),
    "name with a slash": (put("source", "network", "layers", 0, "name", "a/b"), "source.network"),
    "name taken": (put("source", "network", "layers", 0, "name", "conv1"), "source.network"),
    "no input": (
        put("source", "network", "input_shape", [8, 0, 1]),
        "source.network: .*lengths of at least 1",
    ),
    "a name that is no text": (
        put("source", "network", "layers", 0, "name", "a\ud800"),
        "source.network: .*is no text",
    ),
    "a factor without end": (put("source", "scales", [["conv1", 10**400]]), "source.scales"),
    "scales nested deeply": (put("source", "scales", json.loads("[" * 900 + "]" * 900)), "unusable|expected"),
    "target of another kind": (put("target", 3), "target: expected an object"),
    "target layer": (put("target", "layers", 0, "features", 0), "target.layers"),
}


@pytest.mark.parametrize("change, field", FORGED.values(), ids=FORGED.keys())
@pytest.mark.usefixtures("unchecked")
def test_every_field_is_checked_even_under_a_checksum_that_fits(
    content: bytes, tmp_path: Path, change, field
):
    path = tmp_path / "t.safetensors"
    path.write_bytes(_rewritten(content, change))
    with pytest.raises(TicketError, match=field) as caught:
        ticket.load(path, check_source=False)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_activation_that_nobody_registered_is_named(made: Ticket):
    forged = _rewritten(ticket.to_bytes(made), put("source", "network", "layers", 1, "kind", "swoosh"))
    with pytest.raises(TicketError, match=r"source.network: .*'swoosh' is unknown: .*register_activation"):
        ticket.from_bytes(forged)


def test_a_mask_of_another_shape_is_refused(made: Ticket):
    content = ticket.to_bytes(made, ticket.PLAIN)
    for bits in (made.bits + b"\0", made.bits[:-1], b""):
        with pytest.raises(TicketError, match="mask: .* bytes, expected"):
            ticket.from_bytes(_rewritten(content, lambda entry: None, mask=bits))


def test_unused_bits_must_be_zero(made: Ticket):
    bits = made.bits[:-1] + bytes([made.bits[-1] | 1])
    with pytest.raises(TicketError, match="mask: unused bits"):
        ticket.from_bytes(_rewritten(ticket.to_bytes(made, ticket.PLAIN), lambda entry: None, mask=bits))


def test_a_code_that_is_none_is_refused(made: Ticket):
    content = ticket.to_bytes(made)
    code = _arrays(content)["mask"]
    flipped = bytes([code[0] ^ 0x10]) + code[1:]
    for other in (code + b"\0\0", code[:-2], code[:100], b"", flipped):
        with pytest.raises(TicketError, match="ticket: (mask|file): .*"):
            ticket.from_bytes(_rewritten(content, lambda entry: None, mask=other))


def test_a_plain_mask_is_not_taken_for_a_coded_one(made: Ticket):
    plain, coded = ticket.to_bytes(made, ticket.PLAIN), ticket.to_bytes(made)
    for content, mask in ((plain, _arrays(coded)["mask"]), (coded, made.bits)):
        with pytest.raises(TicketError, match="ticket: mask: "):
            ticket.from_bytes(_rewritten(content, lambda entry: None, mask=mask))
    for content, version in ((plain, 2), (coded, 1)):
        with pytest.raises(TicketError, match="ticket: target: "):
            ticket.from_bytes(_rewritten(content, put("version", version)))


SPECS = {  # what stands in the place of the compressed specs: (bytes, message)
    "nothing": (b"", "not specs compressed by bzip2 .cut off"),
    "text": (b'{"source":{},"target":null}', "not specs compressed by bzip2 .Invalid data"),
    "no JSON": (bz2.compress(b"{"), "not specs compressed by bzip2 .Expecting"),
    "nested deeply": (bz2.compress(b"[" * 100_000), "not specs compressed by bzip2 "),
    "a list": (bz2.compress(b"[]"), "expected a JSON object"),
    "no source": (bz2.compress(b'{"target":null}'), "source: missing field"),
    "another field": (bz2.compress(b'{"source":{},"target":null,"x":1}'), "x: unknown field"),
}


@pytest.mark.parametrize("packed, message", SPECS.values(), ids=SPECS.keys())
def test_specs_that_are_none_are_refused(made: Ticket, packed: bytes, message: str):
    with pytest.raises(TicketError, match=f"^ticket: networks.*{message}") as caught:
        ticket.from_bytes(_rewritten(ticket.to_bytes(made), lambda entry: None, networks=packed))
    assert "\n" not in str(caught.value)


def test_specs_packed_in_another_way_are_refused(made: Ticket):
    content = ticket.to_bytes(made)
    packed = _arrays(content)["networks"]
    for other in (packed[:-1], bz2.compress(bz2.decompress(packed), 1), packed + b"x"):
        with pytest.raises(TicketError, match="ticket: (networks|file): "):
            ticket.from_bytes(_rewritten(content, lambda entry: None, networks=other))


def test_specs_of_many_bytes_are_refused_before_they_are_made(made: Ticket, monkeypatch):
    bomb = _rewritten(ticket.to_bytes(made), lambda entry: None, networks=bz2.compress(b" " * 2**26))
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(TicketError, match="networks: .*more than 1048576 bytes"):
        ticket.from_bytes(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
    monkeypatch.setattr(ticket, "MOST_TEXT", 1000)  # and they are never written
    assert _entry(ticket.to_bytes(made))["version"] == 1


def test_a_small_file_cannot_ask_for_much_memory(made: Ticket):
    """A source of 10^15 weights beside a code that says that none is kept."""
    content = ticket.to_bytes(made)
    wide = nn.Network((10**5,), (nn.Dense("a", 10**10, use_bias=False),))
    message = r"ticket: mask: 1 bytes cannot code 1000000000000000 parameters: a code is at most 256 times"
    with pytest.raises(TicketError, match=message):
        ticket.from_bytes(_rewritten(content, put("source", "network", encode(wide)), mask=b"\0"))


def test_a_mask_that_codes_too_well_is_written_plainly():
    source = Source(nn.Network((20,), (nn.Dense("a", 1000, use_bias=False),)), seed=0, multiplicity=1)
    empty = Ticket(source, bytes(2500), 1.0, sha256(source))
    assert _entry(ticket.to_bytes(empty))["version"] == 1
    assert ticket.from_bytes(ticket.to_bytes(empty)) == empty
    one = Ticket(source, b"\x80" + bytes(2499), 1.0, sha256(source))
    assert _entry(ticket.to_bytes(one))["version"] == 2
    assert ticket.from_bytes(ticket.to_bytes(one)) == one


def test_an_altered_mask_does_not_match_the_checksum(content: bytes):
    altered = bytearray(content)
    altered[-2] ^= 4
    with pytest.raises(TicketError, match="checksum: does not match"):
        ticket.from_bytes(bytes(altered))


def test_a_source_that_is_not_the_one_of_the_hash_is_refused(made: Ticket, content: bytes, tmp_path: Path):
    path = tmp_path / "t.safetensors"
    for change in (put("source", "seed", 4), put("source_sha256", "0" * 64), put("source", "scale", 2.0)):
        path.write_bytes(_rewritten(content, change))
        assert ticket.load(path, check_source=False).bits == made.bits
        with pytest.raises(TicketError, match="source_sha256: the source that seed"):
            ticket.load(path)


CONTAINERS = {  # a safetensors file that is no ticket, or one in another dress: (bytes, message)
    "foreign": (safetensors.numpy.save({"mask": np.zeros(3, np.uint8)}), "not a ticket file"),
    "metadata not JSON": (_container("{", {"mask": b"abc"}), "slth_ticket: not JSON"),
    "metadata a list": (_container("[]", {"mask": b"abc"}), "slth_ticket: expected a JSON object"),
    "too deep": (_container("[" * 100_000, {"mask": b"abc"}), "slth_ticket: not JSON"),
    "not safetensors": (b"PK\x03\x04" + bytes(100), "file: not a whole"),
}


@pytest.mark.parametrize("content, message", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_other_files_are_refused(content: bytes, message: str):
    with pytest.raises(TicketError, match=message):
        ticket.from_bytes(content)


def test_another_container_of_the_same_content_is_refused(content: bytes):
    arrays, text = _arrays(content), _text(content)
    assert _container(text, arrays) == content
    for altered in (_container(text, arrays, note="x"), _container(text + " ", arrays)):
        with pytest.raises(TicketError, match="file: not written as tickets are"):
            ticket.from_bytes(altered)
    found = {name: np.frombuffer(array, np.uint8) for name, array in arrays.items()}
    for more in ({"weights": np.ones(3, np.float32)}, {"mask": found["mask"].view(np.int8)}):
        other = safetensors.numpy.save(found | more, {"slth_ticket": text})
        with pytest.raises(TicketError, match="mask: expected arrays of bytes mask"):
            ticket.from_bytes(other)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is not there"):
        ticket.load(tmp_path / "gone.safetensors")


def test_a_mask_that_does_not_fit_the_source_is_refused(made: Ticket):
    flat = flatten_dict(made.mask, sep="/")
    for path, leaf in {
        "linear/kernel": np.zeros((1, 2), bool),
        "univariate/bias": np.asarray(flat["univariate/bias"]).astype(np.int8),
        "other/kernel": np.zeros(3, bool),
    }.items():
        layer, name = path.split("/")
        broken = made.mask | {layer: {**made.mask.get(layer, {}), name: leaf}}
        with pytest.raises(ValueError, match=f"mask {path}: expected boolean"):
            ticket.make(made.source, broken, 1.0)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_named_spec_survives_json(name: str):
    network = build(name, SIZES[name], 10)
    assert decode(json.loads(json.dumps(encode(network)))) == network
    target, _ = nn.fold_batch_norm(network, nn.init(network, jax.random.key(0)))
    wide = source_network(target, 3, copies_per_sign=3, constants=3).network
    assert decode(json.loads(json.dumps(encode(wide)))) == wide


def test_the_hash_is_that_of_all_parameters_in_the_order_of_the_layers(made: Ticket):
    import hashlib

    digest = hashlib.sha256()
    values = flatten_dict(parameters(made.source), sep="/")
    for path in parameter_shapes(made.source.network):
        digest.update(np.asarray(values[path]).astype("<f4").tobytes())
    assert sha256(made.source) == digest.hexdigest() == made.source_sha256


@pytest.fixture(scope="module")
def rounded() -> Ticket:
    """A ticket of a kernel of random integers, six channels an input."""
    layers = (nn.Dense("u", 60, use_bias=False), nn.Activation("relu"), nn.Dense("a", 60, use_bias=False))
    source = Source(nn.Network((5,), layers), seed=1, multiplicity=1, init="uniform")
    weights = {
        path: np.rint(np.asarray(parameter(source, path)) * 2.0**24) for path in ("u/kernel", "a/kernel")
    }
    front, kept, step = np.zeros((5, 60), bool), np.zeros((60, 60), bool), 2**47
    draw = np.random.default_rng(0)
    for i in range(5):
        rows = np.flatnonzero(weights["u/kernel"][i] > 0)
        rows = rows[~front[:, rows].any(0)][:6]
        front[i, rows] = True
        for column in range(60):
            products = [int(weights["u/kernel"][i, r] * weights["a/kernel"][r, column]) for r in rows]
            subsets = chosen(products, step)
            number = subsets[draw.choice([q for q in (-1, 0, 0, 0, 1) if q in subsets])]
            kept[rows, column] = number >> np.arange(len(rows)) & 1
    return ticket.make(
        source, {"u": {"kernel": front}, "a": {"kernel": kept}}, 1.0, None, (("a/kernel", step),)
    )


def test_steps_are_part_of_the_ticket_and_not_of_what_it_computes(rounded: Ticket):
    content = ticket.to_bytes(rounded)
    assert ticket.from_bytes(content) == rounded
    plain = ticket.from_bytes(ticket.to_bytes(rounded, ticket.PLAIN))  # version 1 has none
    assert plain == replace(rounded, steps=())
    for steps in ((), (("a/kernel", 2**46),)):
        other = replace(rounded, steps=steps)
        assert ticket.from_bytes(ticket.to_bytes(other)) == other != rounded
        assert len(_arrays(ticket.to_bytes(other))["mask"]) > len(_arrays(content)["mask"]) + 40


def test_every_altered_byte_of_integers_is_seen(rounded: Ticket):
    """Even under a checksum that fits: the file is refused, or holds another ticket."""
    content = ticket.to_bytes(rounded)
    code = _arrays(content)["mask"]
    for place in range(0, len(code), 7):
        altered = code[:place] + bytes([code[place] ^ 1 << place % 8]) + code[place + 1 :]
        forged = _rewritten(content, lambda entry: None, mask=altered)
        try:
            assert ticket.from_bytes(forged) != rounded
        except TicketError as error:
            assert str(error).startswith(("ticket: mask: ", "ticket: file: "))  # noqa: PT017


STEPS = {  # what is no tuple of steps: (steps, what is said)
    "a bias": ((("conv1/bias", 4),), "expected kernels in the order"),
    "no parameter": ((("a", 4),), "expected kernels in the order"),
    "another order": ((("linear/kernel", 4), ("conv1/kernel", 4)), "expected kernels in the order"),
    "twice": ((("conv1/kernel", 4), ("conv1/kernel", 4)), "expected kernels in the order"),
    "zero": ((("conv1/kernel", 0),), "conv1/kernel: expected an integer from 1 to 2^50, got 0"),
    "large": ((("conv1/kernel", 2**50 + 1),), "conv1/kernel: expected an integer from 1 to 2^50, got 1125"),
    "a float": ((("conv1/kernel", 4.0),), "conv1/kernel: expected an integer from 1 to 2^50, got 4.0"),
}


@pytest.mark.parametrize("steps, message", STEPS.values(), ids=STEPS.keys())
@pytest.mark.usefixtures("unchecked")
def test_wrong_steps_are_refused(made: Ticket, steps, message: str):
    with pytest.raises(ValueError, match=f"^steps: {re.escape(message)}"):
        ticket.make(made.source, made.mask, 1.0, steps=steps)
