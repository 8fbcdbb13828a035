"""``slth zoo``: tickets of published networks, each known by its command and its hash.

The table, ``tickets.json``, is written by ``python -m experiments.zoo write=true``.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from slth.cli.text import columns
from slth.interop.files import write_whole
from slth.ticket import Ticket, TicketError

TABLE = Path(__file__).with_name("tickets.json")


@dataclass(frozen=True)
class Entry:
    """A ticket of the zoo: what it is made of, and what it was when it was made."""

    name: str
    target: str
    """Named target, of `experiments.ticket`."""
    file: str
    """Name of the target's published file."""
    file_sha256: str
    published: str
    """Who published it, under which licence."""
    data: str
    settings: tuple[str, ...]
    """Of `experiments.ticket`, beside the places of target and data."""
    calibration_images: int
    calibration_sha256: str | None
    """Of their pixels, uint8; None without images."""
    test_images: int
    target_accuracy: float
    accuracy: float
    agreement: float
    seed: int
    source_sha256: str
    """The same on every machine."""
    parameters: int
    kept: int
    mask_sha256: str
    """Of the packed mask, the bits of `slth.Ticket`."""
    bytes: int
    sha256: str
    """Of the ticket's file."""
    jax: str
    device: str

    @property
    def command(self) -> str:
        """The command that builds the ticket, with FILE and DIR for the places of target and data."""
        words = [f"data={self.data} data.dir=DIR target={self.target} target.checkpoint=FILE", *self.settings]
        return " ".join(["python -m experiments.ticket", *words])


def entries() -> dict[str, Entry]:
    """The tickets of the table, by name.

    Raises: ValueError where the table does not hold what it should.
    """
    try:
        held = json.loads(TABLE.read_text(encoding="utf-8"))
        found = [Entry(**{**one, "settings": tuple(one["settings"])}) for one in held]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"zoo {TABLE} is damaged: {error}") from error
    return {entry.name: entry for entry in found}


def write(found: Sequence[Entry]) -> None:
    """Write the table, whole or not at all."""
    write_whole(TABLE, (json.dumps([asdict(entry) for entry in found], indent=1) + "\n").encode())


def identity(path: Path) -> dict[str, Any]:
    """The fields of an entry that say which ticket a file is.

    Raises: FileNotFoundError; TicketError where the file is damaged or its source has another hash.
    """
    ticket = Ticket.load(path)
    return {
        "seed": ticket.source.seed,
        "source_sha256": ticket.source_sha256,
        "parameters": ticket.parameters,
        "kept": ticket.nonzero,
        "mask_sha256": hashlib.sha256(ticket.bits).hexdigest(),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def listed() -> Iterator[str]:
    """The lines of `slth zoo`."""
    head = ("ticket", "target", "seed", "kB", "kept", "accuracy", "target's", "agreement", "sha256")
    rows = [
        (
            *(entry.name, entry.target, str(entry.seed), f"{entry.bytes / 1000:,.1f}"),
            f"{entry.kept:,}",
            *(f"{100 * share:.2f} %" for share in (entry.accuracy, entry.target_accuracy, entry.agreement)),
            entry.sha256[:12],
        )
        for entry in entries().values()
    ]
    yield from columns([head, *rows], indent="")
    yield "slth zoo show NAME: target, settings, hashes and the commands that build a ticket again."


def shown(name: str) -> Iterator[str]:
    """The lines of `slth zoo show`.

    Raises: ValueError for an unknown name.
    """
    if name not in entries():
        raise ValueError(f"ticket {name!r} is not in the zoo: choose one of {', '.join(entries())}")
    entry = entries()[name]
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    yield from columns([(k, " ".join(v) if isinstance(v, tuple) else str(v)) for k, v in values.items()], "")
    yield "build it:"
    yield f"  {entry.command}"
    yield "  slth zoo verify TICKET"
    yield "or both, beside its accuracy:"
    yield f"  python -m experiments.zoo 'only=[{name}]' files=DIR {entry.data}=DIR"


def verified(file: str) -> Iterator[str]:
    """The lines of `slth zoo verify`.

    Raises: FileNotFoundError; ValueError for a file that is no ticket of the zoo, in one line that says how
      near it is to one.
    """
    path = Path(file).expanduser()
    yield verdict(path)


def verdict(path: Path, entry: Entry | None = None) -> str:
    """Which ticket of the zoo a file is, whose source was generated again.

    Args:
      entry: the one that it should be; None for any.
    Raises: FileNotFoundError; ValueError where it is none.
    """
    found = identity(path)
    known = list(entries().values()) if entry is None else [entry]
    for one in known:
        if one.sha256 == found["sha256"]:
            return f"{path} is {one.name}, byte for byte; its source was generated again and has its hash"
    for one in known:
        if one.mask_sha256 == found["mask_sha256"] and one.source_sha256 == found["source_sha256"]:
            raise TicketError(
                path, "sha256", f"source and mask are those of {one.name}, lambda or another field is not"
            )
    for one in known:
        if one.source_sha256 == found["source_sha256"]:
            raise TicketError(
                path,
                "mask",
                f"its source is that of {one.name}, its mask is another: it keeps {found['kept']:,} weights, "
                f"{one.name} {one.kept:,} (other settings, images or target, or a machine that rounds sums "
                "otherwise: docs/zoo.md)",
            )
    raise TicketError(path, "source_sha256", f"no ticket of the zoo has this source, of seed {found['seed']}")
