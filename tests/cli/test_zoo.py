"""``slth zoo``: the table is that of the config, and a file is known by its hash alone."""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.command_line import CONF
from experiments.zoo import others, settings_of
from slth import Source, Ticket, cli, nn, ticket
from slth.cli import zoo

NETWORK = nn.Network((6,), (nn.Dense("a", 5), nn.Activation("relu"), nn.Dense("b", 3)))


def made(seed: int, keep: int) -> Ticket:
    source = Source(NETWORK, seed=seed, multiplicity=1)
    draw = np.random.default_rng(keep)
    mask: dict = {}
    for path, shape in nn.parameter_shapes(NETWORK).items():
        layer, name = path.split("/")
        mask.setdefault(layer, {})[name] = draw.random(shape) < 0.5
    return ticket.make(source, mask, 2.0)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zoo.Entry:
    """A table of one ticket, whose file is first.ticket."""
    made(1, 1).save(tmp_path / "first.ticket")
    plain = {field.name: "" for field in dataclasses.fields(zoo.Entry) if field.type is str}
    shares = {"target_accuracy": 0.9, "accuracy": 0.8, "agreement": 0.75}
    counts = {"calibration_images": 0, "calibration_sha256": None, "test_images": 10}
    words = {"name": "first", "target": "mlp", "data": "digits", "settings": ("source.seed=1",)}
    entry = zoo.Entry(**plain | shares | counts | words | zoo.identity(tmp_path / "first.ticket"))
    monkeypatch.setattr(zoo, "TABLE", tmp_path / "tickets.json")
    zoo.write([entry])
    return entry


def test_a_table_comes_back(table: zoo.Entry):
    assert zoo.entries() == {"first": table}
    zoo.TABLE.write_text('[{"name": "first"}]')
    with pytest.raises(ValueError, match=r"tickets\.json is damaged: "):
        zoo.entries()


def test_the_list_and_one_ticket_are_printed(table: zoo.Entry, capsys):
    assert cli.main(["zoo"]) == 0
    head, row, _ = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "ticket",
        "target",
        "seed",
        "kB",
        "kept",
        "accuracy",
        "target's",
        "agreement",
        "sha256",
    ]
    assert row.split() == [
        *("first", "mlp", "1", f"{table.bytes / 1000:.1f}", str(table.kept)),
        *("80.00", "%", "90.00", "%", "75.00", "%", table.sha256[:12]),
    ]
    assert cli.main(["zoo", "show", "first"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^sha256 +{table.sha256}$", out, re.MULTILINE)
    words = "data=digits data.dir=DIR target=mlp target.checkpoint=FILE source.seed=1"
    assert f"  python -m experiments.ticket {words}\n" in out
    assert cli.main(["zoo", "show", "second"]) == 1
    assert capsys.readouterr().err == "error: ticket 'second' is not in the zoo: choose one of first\n"


def test_a_file_of_the_zoo_is_known_and_no_other(table: zoo.Entry, tmp_path: Path, capsys):
    path = tmp_path / "first.ticket"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == table.sha256
    assert cli.main(["zoo", "verify", str(path)]) == 0
    assert "is first, byte for byte" in capsys.readouterr().out
    files = {
        "mask": (made(1, 2), r"mask: its source is that of first, its mask is another: it keeps \d+ weights"),
        "lambda": (
            dataclasses.replace(made(1, 1), factor=3.0),
            r"source and mask are those of first, lambda or",
        ),
        "seed": (made(2, 1), r"no ticket of the zoo has this source, of seed 2"),
    }
    for name, (other, message) in files.items():
        other.save(tmp_path / name)
        assert cli.main(["zoo", "verify", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cli.main(["zoo", "verify", str(path)]) == 1
    assert "checksum" in capsys.readouterr().err


def test_the_table_is_of_the_tickets_that_the_config_lists():
    config = OmegaConf.load(CONF / "zoo.yaml")
    entries = zoo.entries()
    assert entries
    assert list(entries) == [name for name in config.tickets if name in entries]
    for name, entry in entries.items():
        target = config.targets[config.tickets[name].target]
        assert (entry.target, entry.file, entry.published, entry.data) == (
            *(config.tickets[name].target, target.file, target.published, target.data),
        )
        assert list(entry.settings) == settings_of(config, name)
        assert 0.9 * entry.target_accuracy < entry.accuracy <= 1
        assert entry.kept < entry.parameters


def test_published_targets_of_the_table_are_the_files_at_hand(data_dir: Path):
    for entry in zoo.entries().values():
        content = (data_dir / "targets" / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.file_sha256


def test_a_rebuilt_ticket_that_is_another_is_a_failure():
    same = {"name": "a", "same": True, "said": None}
    other = {"name": "b", "same": False, "said": "b: another mask"}
    assert others({"written": False, "tickets": [same]}) is None
    assert others({"written": True, "tickets": [same, other]}) is None
    assert others({"written": False, "tickets": [same, other]}) == (
        "1 of 2 tickets are not those of the table: b: another mask"
    )
