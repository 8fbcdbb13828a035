"""``slth inspect``: what a file holds, which named spec fits it, and the lines that load it."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors

from slth.cli.text import columns, plain
from slth.interop.files import NETWORK, load_network
from slth.interop.fitting import Fit, fit_of, fits, renames
from slth.interop.names import hints_of
from slth.interop.onnx import load_onnx
from slth.interop.readers import kind_of, read_tree
from slth.interop.slots import as_array
from slth.interop.tree import BESIDE, mapped, sets_of
from slth.nn.forward import format_summary, init, summary
from slth.nn.network import Network
from slth.ticket import ENTRY, Ticket
from slth.types import Shape

KINDS = {
    ".pt": "PyTorch (torch.save)",
    ".safetensors": "safetensors",
    ".npz": "NumPy .npz",
    ".msgpack": "flax .msgpack",
    ".h5": "HDF5 (Keras)",
    ".keras": "Keras",
    ".onnx": "ONNX",
}
DATA: dict[tuple[Shape, Shape], str] = {
    **{((32, 32, 3), (10,)): "cifar10", ((28, 28, 1), (10,)): "mnist", ((8, 8, 1), (10,)): "digits"},
    ((224, 224, 3), (1000,)): "imagenet",
}
"""Data sets by the shapes of their images and of what a network computes of one."""
Pairs = Sequence[tuple[str, str]]


def inspect(file: str, rename: Pairs, ignore: Sequence[str], key: str | None) -> Iterator[str]:
    """The lines that `slth inspect` prints.

    Args:
      file: a checkpoint of any kind, a ticket, or a network of slth.
      rename, ignore, key: as `slth.load`.
    Raises: FileNotFoundError; ValueError where the file cannot be read, or has no such key.
    """
    path = Path(file).expanduser()
    tree = read_tree(path)
    kind = "a folder of orbax" if path.is_dir() else kind_of(path)
    size = "" if path.is_dir() else f", {path.stat().st_size:,} bytes"
    yield f"file     {plain(str(path))}: {KINDS.get(kind, kind)}{size}"
    metadata = _metadata(path) if kind == ".safetensors" else {}
    if ENTRY in metadata:
        yield from _ticket(path)
        return
    if metadata.get("format") == NETWORK:
        network, _, factor = load_network(path)
        yield f"holds    a network of slth and its arrays; outputs are multiplied by {factor:g}"
        yield from _network(network)
        yield from _block("python", [f"network, params, factor = slth.interop.load_network({str(path)!r})"])
        return
    found = fits(tree, rename=rename, ignore=ignore, key=key, source=f"checkpoint {path}")
    yield from _arrays(tree, key, found[0].key if found else None)
    if kind == ".onnx":
        yield from _onnx(path)
    if not found:
        yield "fits     no named spec is compared with so many arrays, or with none that is a kernel"
    elif found[0].match.fits:
        yield from _fitting(path, found, rename, ignore, key)
    else:
        yield from _nearest(path, tree, found, rename, ignore, key)


def _metadata(path: Path) -> Mapping[str, str]:
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata() or {}


def _ticket(path: Path) -> Iterator[str]:
    ticket = Ticket.load(path, check_source=False)
    source = ticket.source
    yield (
        f"holds    a ticket: source of seed {source.seed}, {source.init}, {source.multiplicity} copies a "
        f"channel; {ticket.nonzero:,} of {ticket.parameters:,} weights kept, lambda {ticket.factor:g}"
    )
    if ticket.target is not None:
        yield from _network(ticket.target)
    yield from _block("python", [f"ticket = slth.Ticket.load({str(path)!r})", "outputs = ticket(images)"])
    yield from _block("shell", [f"python -m experiments.verify {_setting('ticket', str(path))}"])


def _network(network: Network) -> Iterator[str]:
    yield "layers"
    shapes = jax.eval_shape(lambda: init(network, jax.random.key(0)))
    yield from (f"  {line}" for line in format_summary(summary(network, shapes)).splitlines())


def _onnx(path: Path) -> Iterator[str]:
    try:
        network = load_onnx(path).network
    except ValueError as error:
        yield f"layers   refused: {' '.join(str(error).split())}"
        return
    yield from _network(network)
    yield from _block("python", [f"target = slth.load({str(path)!r})"])
    yield from _run(network, ["target=file", _setting("target.checkpoint", str(path))])


def _arrays(tree: Mapping[str, Any], key: str | None, shown: str | None) -> Iterator[str]:
    """The sets of parameters, then the arrays of the one that fits best, the first if none does."""
    sets = sets_of(mapped(lambda leaf: leaf, tree), key)
    shown = next(iter(sets)) if shown not in sets else shown
    held = {name: _array(name, leaf) for name, leaf in sets[shown].items()}
    for where, one in sets.items():
        if where or len(sets) == 1:
            yield f"set      {plain(where) or 'all arrays of the file'}: {len(one)} arrays"
    beside = [plain(name) for name in tree if BESIDE.search(name)]
    if beside:
        yield f"beside   {', '.join(beside)}: no parameters"
    total = sum(array.size for array in held.values() if isinstance(array, np.ndarray))
    yield f"arrays   {'of ' + plain(shown) + ': ' if shown else ''}{len(held)}, of {total:,} numbers"
    rows = [
        (plain(name), str(array.shape), array.dtype.name, f"{array.size:,}")
        if isinstance(array, np.ndarray)
        else (plain(name), array, "", "")
        for name, array in held.items()
    ]
    yield from columns(rows)


def _array(name: str, leaf: Any) -> np.ndarray | str:
    """The array, or why it cannot be read."""
    wrong: list[str] = []
    array = as_array(name, leaf, wrong)
    return f"cannot be read: {wrong[0].removeprefix(f'{name}: ')}" if array is None else array


def _fitting(
    path: Path, found: Sequence[Fit], rename: Pairs, ignore: Sequence[str], key: str | None
) -> Iterator[str]:
    best = found[0]
    yield f"fits     {best.guess.call}: all {best.total} arrays"
    for other in found[1:]:
        if other.match.fits:
            yield f"and      {other.guess.call}: what differs is not in the file"
    if len(best.keys) > 1 and key is None:
        yield f"choose   one set of parameters: {', '.join(map(plain, best.keys))} fit alike; here the first"
        key = best.keys[0]
    yield "The file does not say the activation, the normalisation of images nor, before a mean, their size."
    yield from _loading(path, best, rename, ignore, key)


def _nearest(
    path: Path,
    tree: Mapping[str, Any],
    found: Sequence[Fit],
    rename: Pairs,
    ignore: Sequence[str],
    key: str | None,
) -> Iterator[str]:
    best = found[0]
    pairs = [*rename, *renames(best)]
    if len(pairs) > len(rename):
        renamed = fit_of(best.guess, tree, tuple(pairs), tuple(ignore), key, f"checkpoint {path}")
        if renamed.match.fits:
            yield f"fits     {best.guess.call}, with layers renamed by their shapes: see that they are right"
            yield from columns(pairs[len(rename) :])
            yield from _loading(path, renamed, pairs, ignore, key)
            return
    yield "fits     no named spec; the nearest, and how many of its arrays the file has by name and by shape:"
    rows = [(f"{one.matched} of {one.total}", f"{one.shaped} of {one.total}") for one in found[:3]]
    yield from columns([(one.guess.call, *row) for one, row in zip(found, rows, strict=False)])
    match = best.match
    left = [(plain(name), str(np.shape(value))) for name, value in match.left_over.items()]
    missing = [(plain(name), f"({shape}") for name, _, shape in (m.partition(" (") for m in match.missing)]
    for title, rows in (
        ("missing", missing),
        ("wrong", [(plain(text),) for text in match.wrong]),
        ("left over", left),
    ):
        if rows:
            yield f"{title}, for {best.guess.call}:"
            yield from columns(rows)
    for pair in renames(best):
        yield f"perhaps  --rename {shlex.join(pair)}"
    for hint in hints_of(best.guess.network, match):
        yield f"hint     {hint}"
    yield "A spec of your own is a few lines of Python: docs/tickets.md. Other names: docs/checkpoints.md."


def _loading(path: Path, fit: Fit, rename: Pairs, ignore: Sequence[str], key: str | None) -> Iterator[str]:
    given: dict[str, Any] = {"key": key, "rename": [*rename], "ignore": [*ignore]}
    given = {name: value for name, value in given.items() if value}
    arguments = "".join(f", {name}={value!r}" for name, value in given.items())
    lines = ["from slth.nn import zoo", f"spec = {fit.guess.call}"]
    yield from _block("python", [*lines, f"target = slth.load({str(path)!r}, spec{arguments})"])
    guess = fit.guess
    if guess.depth is not None:
        yield f"No target of the command line has this depth, {guess.depth}: in Python alone."
        return
    options = {
        name: list(value) if isinstance(value, tuple) else value for name, value in guess.options.items()
    }
    if "rename" in given:
        given["rename"] = [[*pair] for pair in rename]
    settings = [f"target={guess.name}", *(_setting(f"target.{k}", v) for k, v in options.items())]
    settings += [_setting("target.checkpoint", str(path))]
    yield from _run(guess.network, [*settings, *(_setting(f"target.{k}", v) for k, v in given.items())])


def _run(network: Network, settings: Iterable[str]) -> Iterator[str]:
    data = DATA.get((network.input_shape, network.output_shape))
    where = {None: "data=npz data.dir=IMAGES.npz", "digits": "data=digits"}.get(
        data, f"data={data} data.dir=DIR"
    )
    yield from _block("shell", [" ".join(["python -m experiments.ticket", where, *settings])])


def _setting(name: str, value: Any) -> str:
    """A setting of a run as a word of the shell."""
    if not isinstance(value, str):
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("\\\\", "\\")
        return shlex.quote(f"{name}={text}")
    if all(c.isalnum() or c in "_-./:+" for c in value):
        return f"{name}={value}"
    quoted = value.replace('"', '\\"')
    return shlex.quote(f'{name}="{quoted}"')


def _block(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield title
    yield from (f"  {line}" for line in (["import slth", *lines] if title == "python" else lines))
