"""Specs as JSON: every network comes back, fields of later are silent, and nothing unknown is read."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from slth import nn, ticket
from slth.nn import serial
from slth.nn.serial import decode, encode
from slth.nn.spec import later
from slth.source import Source
from slth.ticket import Ticket, TicketError
from tests.nn.nets import NETWORKS


@dataclass(frozen=True)
class Conv(nn.Conv):
    """The convolution with a field that older files do not have."""

    groups: int = later(1)


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on convolutions have the field."""
    monkeypatch.setitem(serial.KINDS, "Conv", Conv)


def text_of(network: nn.Network) -> str:
    return json.dumps(encode(network))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_every_network_comes_back(network: nn.Network):
    read = decode(json.loads(text_of(network)))
    assert read == network
    assert hash(read) == hash(network)


OLD = nn.Network((4, 4, 2), (nn.Conv("a", 3, (2, 2)), nn.Activation("relu"), nn.Conv("b", 2, (1, 1))))


@pytest.mark.usefixtures("grown")
def test_a_file_older_than_a_field_is_read_and_written_as_it_was():
    text = text_of(OLD)
    read = decode(json.loads(text))
    assert [type(layer) for layer in read.layers] == [Conv, nn.Activation, Conv]
    assert [layer.groups for layer in read.layers if isinstance(layer, Conv)] == [1, 1]
    assert text_of(read) == text
    assert "groups" not in text


@pytest.mark.usefixtures("grown")
def test_a_later_field_is_written_where_it_differs_from_its_default():
    network = nn.Network(OLD.input_shape, (Conv("a", 4, (2, 2), groups=2), *OLD.layers[1:]))
    fields = encode(network)["layers"][0]
    assert fields["groups"] == 2
    assert list(fields) == [*encode(OLD)["layers"][0], "groups"]
    read = decode(json.loads(text_of(network)))
    assert text_of(read) == text_of(network)
    assert read.layers[0] == network.layers[0]


@pytest.mark.usefixtures("grown")
def test_a_later_field_is_checked_like_any_other():
    plain = encode(OLD)
    plain["layers"][0]["groups"] = "2"
    with pytest.raises(ValueError, match=r"network\.layers\[0\]\.groups: expected int, got '2'"):
        decode(plain)


def changed(layer: dict, **fields: object) -> dict:
    return {**encode(OLD), "layers": [{**encode(OLD)["layers"][0], **fields}, layer]}


REFUSED = {
    "a field of a newer program": (
        changed({"type": "Flatten", "order": "hwc"}, heads=1),
        r"network\.layers\[0\]: unknown field 'heads'",
    ),
    "a missing field": (changed({"type": "Flatten"}), r"network\.layers\[1\]: field 'order' is missing"),
    "an unknown layer": (
        changed({"type": "Attention"}),
        r"network\.layers\[1\]: expected a layer of type Conv, .*Residual, .*got 'Attention'",
    ),
    "a choice that is none": (
        changed({"type": "Flatten", "order": "cwh"}),
        r"layers\[1\]\.order: expected one of hwc, chw, got 'cwh'",
    ),
    "a bool for a number": (
        changed({"type": "GlobalMean"}, features=True),
        r"layers\[0\]\.features: expected int, got True",
    ),
    "two layers of one name": (
        changed(encode(OLD)["layers"][0]),
        r"^network: two layers are named 'a'",
    ),
    "a path for a name": (
        changed({"type": "GlobalMean"}, name="a/b"),
        r"its name 'a/b' is empty or holds a '/'",
    ),
    "layers that do not fit": (
        changed({"type": "Dense", "name": "d", "features": 2, "use_bias": True}),
        r"^network: d: a dense layer reads flat features, got \(3, 3, 3\)",
    ),
}


@pytest.mark.parametrize("plain, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_spec_is_written_as_is_refused(plain: dict, message: str):
    with pytest.raises(ValueError, match=message):
        decode(plain)


def written(made: Ticket, network: dict) -> bytes:
    """The ticket's file with another text for the source's network, checksum and container in order."""
    content = ticket.to_bytes(made, ticket.PLAIN)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    entry = json.loads(header["__metadata__"][ticket.ENTRY])
    del entry["checksum"]
    entry["source"]["network"] = network
    plain = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    entry["checksum"] = hashlib.sha256(plain.encode() + b"\0" + made.bits).hexdigest()
    header["__metadata__"][ticket.ENTRY] = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + made.bits


@pytest.mark.usefixtures("grown")
def test_a_ticket_that_spells_out_a_default_is_refused():
    source = Source(decode(encode(OLD)), seed=3, multiplicity=1)
    masks = {path: np.ones(shape, bool) for path, shape in nn.parameter_shapes(source.network).items()}
    tree = nn.nested(
        {layer: {leaf: masks[f"{layer}/{leaf}"] for leaf in ("kernel", "bias")} for layer in ("a", "b")}
    )
    made = ticket.make(source, tree, 1.0)
    plain = encode(source.network)
    assert written(made, plain) == ticket.to_bytes(made, ticket.PLAIN)
    assert ticket.from_bytes(written(made, plain)) == made
    plain["layers"][0]["groups"] = 1
    assert decode(plain) == source.network  # the same spec, and so a second text of one ticket
    with pytest.raises(TicketError, match="not written as tickets are: the container was altered"):
        ticket.from_bytes(written(made, plain))


def test_a_ticket_of_the_first_version_keeps_its_bytes(root: Path, monkeypatch: pytest.MonkeyPatch):
    content = (root / "tests/fixtures/ticket_v1.safetensors").read_bytes()
    made = ticket.from_bytes(content)
    ticket.verify(made)
    assert ticket.to_bytes(made, ticket.PLAIN) == content
    monkeypatch.setitem(serial.KINDS, "Conv", Conv)
    assert ticket.to_bytes(ticket.from_bytes(content), ticket.PLAIN) == content
    layers = (*made.source.network.layers[:-1], replace(made.source.network.layers[-1], name="other"))
    other = replace(made.source, network=replace(made.source.network, layers=layers))
    assert ticket.to_bytes(replace(made, source=other), ticket.PLAIN) != content
