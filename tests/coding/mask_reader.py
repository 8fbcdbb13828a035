"""Coded masks for an independent reader: sections 4 to 6 of docs/ticket_format.md, written from it alone."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Shapes = dict[str, tuple[int, ...]]
Arrays = dict[str, np.ndarray]


class Bits:
    """Bits of bytes, taken from the first on."""

    def __init__(self, code: bytes) -> None:
        self.bits = np.unpackbits(np.frombuffer(code, np.uint8)).astype(bool)
        self.at = 0

    def take(self, count: int) -> np.ndarray:
        self.at += count
        if self.at > len(self.bits):
            raise ValueError("the mask is too short")
        return self.bits[self.at - count : self.at]

    def numbers(self, count: int, width: int) -> np.ndarray:
        return self.take(count * width).reshape(count, width) @ (1 << np.arange(width)[::-1])

    def classes(self, rows: int) -> list[int]:
        least, width = self.numbers(1, 6), self.numbers(1, 3)[0]
        return (least + self.numbers(rows, width)).tolist()

    def end_byte(self) -> int:
        if self.take(-self.at % 8).any():
            raise ValueError("the mask is not filled with zeros")
        return self.at // 8


@dataclass
class _Head:
    """What the head says of a live parameter."""

    taps: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    front: str | None
    step: int = 0
    rounded: tuple[bool, int] | None = None  # join and s
    classes: list[int] | None = None  # None where it is rounded, dealt or single
    dealt_rows: np.ndarray | None = None  # of a dealt kernel, the row of each live column's entry


def _heads(bits: Bits, shapes: Shapes, parameter: Callable) -> dict[str, _Head]:
    heads = {}
    channels: Arrays = {}  # of each layer so far, whether they are live
    for path, shape in shapes.items():
        tap_count, row_count, column_count = math.prod(shape[:-2]), (1, *shape)[-2], shape[-1]
        layer = path.rpartition("/")[0]
        fronts = [name for name, live in channels.items() if name != layer and len(live) == row_count]
        channels.setdefault(layer, np.zeros(column_count, bool))
        step = bits.numbers(1, 50)[0] + 1 if len(shape) > 1 and bits.take(1)[0] else None
        if not bits.take(1)[0]:
            continue
        taps = bits.take(tap_count) if tap_count > 1 else np.ones(1, bool)
        dealt = len(shape) > 1 and tap_count == 1 and step is None and bits.take(1)[0]
        w = column_count.bit_length()
        if not dealt:
            c = bits.numbers(1, w)[0] if len(shape) == 1 else 0
            columns = np.append(np.zeros(c, bool), bits.take(column_count - c))
        rows = np.ones(1, bool)
        if row_count > 1:
            rows = channels[fronts[-1]] if bits.take(1)[0] else bits.take(row_count)
        dealt_rows = None
        if dealt:
            numbers, signs = bits.numbers(3, w).tolist(), bits.numbers(1, 2)[0]
            missing = bits.numbers(bits.numbers(1, w)[0], w)
            row_of = _dealt(parameter(path).reshape(row_count, column_count), *numbers, signs)
            row_of = {j: r for j, r in sorted(row_of.items()) if j not in missing and rows[r]}
            columns, dealt_rows = (
                np.isin(np.arange(column_count), list(row_of)),
                np.array(list(row_of.values())),
            )
        channels[layer] = channels[layer] | columns
        live = (np.flatnonzero(which) for which in (taps, rows, columns))
        heads[path] = head = _Head(*live, fronts[-1] if fronts else None, step, dealt_rows=dealt_rows)
        if dealt:
            continue
        if step is not None and bits.take(1)[0]:
            head.rounded = bits.take(1)[0], bits.numbers(1, 3)[0]
        elif row_count == 1 or not bits.take(1)[0]:
            head.classes = bits.classes(len(head.rows))
    return heads


def _dealt(weights: np.ndarray, c: int, m: int, n: int, signs: int) -> dict[int, int]:
    """The row of each column that dealing keeps."""
    fits = [(lambda x: x > 0,), (lambda x: x > 0, lambda x: x < 0), (lambda x: x != 0,)][signs]
    slots = [(row, fit, []) for row in range(len(weights)) for fit in fits]
    for j in range(c):
        open_to_it = [slot for slot in slots if len(slot[2]) < m and slot[1](weights[slot[0], j])]
        if open_to_it:
            min(open_to_it, key=lambda slot: len(slot[2]))[2].append(j)
    kept = ((row, sorted(own, key=lambda j: -abs(weights[row, j]))[:n]) for row, _, own in slots)
    return {j: row for row, own in kept for j in own}


class _RangeCode:
    """Symbols, taken from the first on."""

    def __init__(self, code: bytes, lanes: int) -> None:
        self.states = np.frombuffer(code[: 4 * lanes], "<u4").tolist()
        self.words = iter(np.frombuffer(code[4 * lanes :], "<u2").tolist())

    def take(self, k: int, count: int) -> bytes:
        """A part."""
        ones = [byte.bit_count() for byte in range(256)]
        f = np.array([max(1, k**o * (64 - k) ** (8 - o) >> 32) for o in ones])
        f[0 if k <= 32 else 255] += 2**16 - f.sum()
        frequency, below = f.tolist(), (f.cumsum() - f).tolist()
        byte_at_slot = np.repeat(np.arange(256), f).tolist()
        decoded = bytearray()
        for i in itertools.islice(itertools.cycle(range(len(self.states))), count):
            slot = self.states[i] % 2**16
            byte = byte_at_slot[slot]
            x = frequency[byte] * (self.states[i] >> 16) + slot - below[byte]
            self.states[i] = x if x >= 2**16 else 2**16 * x + next(self.words)
            decoded.append(byte)
        return bytes(decoded)

    def batch(self, groups: list[tuple[list[int], int, int]], plain: Bits) -> list[np.ndarray]:
        """Runs, in groups of (class of each, bytes and last entries of a run): bits, then last entries."""
        found = [np.zeros((len(classes), 8 * size + last), bool) for classes, size, last in groups]
        for k in sorted({k for classes, *_ in groups for k in classes}):
            here = [np.flatnonzero(np.array(classes) == k) for classes, *_ in groups]
            size, last = (
                sum(len(h) * group[i] for h, group in zip(here, groups, strict=True)) for i in (1, 2)
            )
            coded = Bits(self.take(k, size + last // 8))
            whole, bits = coded.take(8 * size), coded.take(last // 8 * 8)
            bits = np.concatenate([bits, plain.take(last % 8)])
            for h, (_, width, count), runs in zip(here, groups, found, strict=True):
                runs[h, : 8 * width], whole = _matrix(whole, len(h), 8 * width)
                columns, bits = _matrix(bits, count, len(h))
                runs[h, 8 * width :] = columns.T
        return found

    def end(self) -> None:
        if any(x != 2**16 for x in self.states) or next(self.words, None) is not None:
            raise ValueError("the range code does not end as it should")


def _matrix(bits: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The first bits as a matrix, and the others."""
    return bits[: rows * columns].reshape(rows, columns), bits[rows * columns :]


def _columns(head: _Head, count: int) -> tuple[np.ndarray, int]:
    """Live columns in the order of a run, and how many bytes they begin with."""
    eights = [range(g, g + 8) for g in range(0, count - 7, 8)]
    whole = [c for eight in eights if np.isin(eight, head.columns).all() for c in eight]
    return np.array(whole + [c for c in head.columns if c not in set(whole)], int), len(whole) // 8


def coded_mask(code: bytes, shapes: Shapes, parameter: Callable) -> Arrays:
    """The mask from its code and the source's parameters."""
    bits = Bits(code)
    heads = _heads(bits, shapes, parameter)
    lanes, size = bits.numbers(1, 13)[0], bits.numbers(1, 40)[0]
    start = bits.end_byte()
    plain, symbols = Bits(code[start : start + size]), _RangeCode(code[start + size :], lanes)
    views = {path: (math.prod(s[:-2]), (1, *s)[-2], s[-1]) for path, s in shapes.items()}
    mask = {path: np.zeros(view, bool) for path, view in views.items()}

    for path, head in heads.items():
        if head.dealt_rows is not None:
            mask[path][0, head.dealt_rows, head.columns] = True
        elif head.classes is None and head.rounded is None:
            number = plain.numbers(len(head.columns), (len(head.rows) - 1).bit_length())
            mask[path][head.taps[0], head.rows[number], head.columns] = True
    direct = {path: head for path, head in heads.items() if head.classes is not None}
    order = {path: _columns(head, views[path][2]) for path, head in direct.items()}
    batch = [
        (np.repeat(head.classes, len(head.taps)), size, len(columns) - 8 * size)
        for head, (columns, size) in zip(direct.values(), order.values(), strict=True)
    ]
    for (path, head), runs in zip(direct.items(), symbols.batch(batch, plain), strict=True):
        for (row, tap), run in zip(itertools.product(head.rows, head.taps), runs, strict=True):
            mask[path][tap, row, order[path][0]] = run
    groups, alone, batch = {}, [], []
    for path, head in heads.items():
        if head.rounded:
            groups[path], others = _groups(head, mask, lambda p: parameter(p).reshape(views[p]))
            if others:
                taps = head.taps[plain.take(len(head.taps))]
                batch.append((plain.classes(len(others)), *divmod(len(taps) * len(head.columns), 8)))
                alone.append((path, taps, others))
    for (path, taps, rows), runs in zip(alone, symbols.batch(batch, plain), strict=True):
        for row, run in zip(rows, runs, strict=True):
            mask[path][np.ix_(taps, [row], heads[path].columns)] = run.reshape(len(taps), 1, -1)
    for path, integers in _integers(heads, groups, symbols, plain).items():
        head, weights = heads[path], parameter(path).reshape(views[path])
        for (rows, alpha), values in zip(groups[path], integers, strict=True):
            places = itertools.product(head.taps, head.columns)
            for (tap, column), q in zip(places, values.tolist(), strict=True):
                products = alpha * np.rint(weights[tap, rows, column].astype(float) * 2**24).astype(int)
                mask[path][tap, rows, column] = _subset(products.tolist(), q, int(head.step))
    symbols.end()
    if plain.end_byte() != size:
        raise ValueError("the plain bits are longer than they should be")
    return {path: mask[path].reshape(shape) for path, shape in shapes.items()}


def _groups(head: _Head, mask: Arrays, weights: Callable) -> tuple[list, list[int]]:
    """Rows and alpha of each group of a rounded kernel, and the rows in none."""
    kept, values = mask[f"{head.front}/kernel"], weights(f"{head.front}/kernel")
    biases = mask.get(f"{head.front}/bias", np.zeros((1, 1, kept.shape[2]), bool))
    found, others = {}, []
    for row in head.rows:
        if kept[:, :, row].sum() != 1 or biases[0, 0, row]:
            others.append(row)
            continue
        tap, i = np.argwhere(kept[:, :, row])[0].tolist()
        alpha = round(float(values[tap, i, row]) * 2**24)
        found.setdefault((tap, i, alpha < 0 and not head.rounded[0]), []).append((row, alpha))
    pairs = [zip(*members, strict=True) for _, members in sorted(found.items())]
    return [(np.array(rows), np.array(alpha)) for rows, alpha in pairs], others


def _integers(heads: dict[str, _Head], groups: dict, symbols: _RangeCode, plain: Bits) -> dict:
    """The integers of the groups of all rounded kernels."""
    high = {p: np.zeros((len(g), len(heads[p].taps) * len(heads[p].columns)), int) for p, g in groups.items()}
    for plane in range(64):
        alive, batch = [], []
        for path, h in high.items():
            counts = (h >= plane).sum(1)
            if counts.any():
                classes = plain.classes(np.count_nonzero(counts))
                alive.append((path, h >= plane))
                batch.append((np.repeat(classes, counts[counts > 0]), 0, 1))
        for (path, entries), runs in zip(alive, symbols.batch(batch, plain), strict=True):
            high[path][entries] += runs[:, 0]
    for path, h in high.items():
        s = int(heads[path].rounded[1])
        h[:] = (h << s) + plain.numbers(h.size, s).reshape(h.shape)
        h[h != 0] *= 1 - 2 * plain.take(np.count_nonzero(h))
    return high


def _subset(products: list[int], q: int, step: int) -> list[bool]:
    """Which products an integer keeps."""
    best = None
    for n in range(2 ** len(products)):
        total = sum(p for k, p in enumerate(products) if n >> k & 1)
        if (2 * total + step) // (2 * step) == q and (best is None or abs(total - q * step) < best[0]):
            best = abs(total - q * step), n
    if best is None:
        raise ValueError(f"no subset stands for {q}")
    return [bool(best[1] >> k & 1) for k in range(len(products))]
