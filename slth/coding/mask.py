"""A mask as few bytes: what holds no kept weight left out, the rest coded row by row with its density.

The code of a mask has three parts, each filled with zeros to whole bytes: the *head* (which taps, rows and
columns hold a kept weight, and the class of each row), the *plain* bits (numbers of rows, and rows of density
1/2) and the range code of all other rows (`slth.coding.rans`). docs/ticket_format.md specifies every bit.
"""

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64

from slth.coding import rans
from slth.types import Shape

PLAIN = 32
"""The class of density 1/2, whose bits are written as they are."""
CLASS_BITS, WIDTH_BITS = 6, 3
# What a 1 costs in class k: -log2(k / 64), in units of 2^-16 bit. A 0 costs what a 1 does in class 64 - k.
COSTS = np.array([round(-math.log2(k / 64) * 2**16) for k in range(1, rans.CLASSES)], np.int64)

Bits = Bool[np.ndarray, " bits"]
Arrays = Mapping[str, Bool[np.ndarray, "..."]]
Shapes = Mapping[str, Shape]


class Block(NamedTuple):
    """The part of a parameter's mask that holds kept weights; a kernel's rows are its inputs."""

    taps: Bits
    rows: Bits
    columns: Bits
    classes: Int[np.ndarray, " live_rows"] | None
    """Class of each row that holds a kept weight; None where each column keeps one weight, whose row is
    written."""

    @property
    def size(self) -> int:
        """Bits of a row: taps times columns that hold kept weights."""
        return int(self.taps.sum()) * int(self.columns.sum())

    @property
    def number_bits(self) -> int:
        """Bits of the number of a row."""
        return int(self.rows.sum() - 1).bit_length()

    def bits_of(self, k: int) -> int:
        """Number of bits in rows of class k."""
        return 0 if self.classes is None else int((self.classes == k).sum()) * self.size


class Writer:
    """Bits one after the other."""

    def __init__(self) -> None:
        self.parts: list[Bits] = []

    def bits(self, values: Any) -> None:
        """Booleans, in row-major order."""
        self.parts.append(np.asarray(values, bool).reshape(-1))

    def numbers(self, values: Any, width: int) -> None:
        """Numbers of ``width`` bits each, the most significant bit first."""
        self.bits(np.asarray(values)[..., None] >> np.arange(width - 1, -1, -1) & 1)

    def packed(self) -> bytes:
        """All of them, eight a byte, the first in the most significant bit."""
        return np.packbits(np.concatenate(self.parts)).tobytes() if self.parts else b""


class Reader:
    """Bits of bytes, one after the other."""

    def __init__(self, code: bytes, byte: int = 0) -> None:
        self.code, self.position = code, 8 * byte

    def bits(self, count: int) -> Bits:
        """The next ``count`` booleans.

        Raises: ValueError where there are no more.
        """
        first, last = self.position // 8, -(-(self.position + count) // 8)
        if last > len(self.code):
            raise ValueError("mask: its code is cut off")
        found = np.unpackbits(np.frombuffer(self.code, np.uint8, last - first, first)).view(bool)
        start = self.position - 8 * first
        self.position += count
        return found[start : start + count]

    def numbers(self, count: int, width: int) -> Int64[np.ndarray, " count"]:
        """The next ``count`` numbers of ``width`` bits each."""
        return self.bits(count * width).reshape(count, width) @ (1 << np.arange(width - 1, -1, -1))

    def end(self) -> int:
        """Number of the byte behind what has been read.

        Raises: ValueError where a bit that fills the last byte is set.
        """
        if self.bits(-self.position % 8).any():
            raise ValueError("mask: a bit that fills a byte of its code is set")
        return self.position // 8


def encode(shapes: Shapes, arrays: Arrays) -> bytes:
    """The code of a mask.

    Args:
      shapes: of every parameter of the source by path, in order (`slth.nn.parameter_shapes`).
      arrays: boolean, of these shapes.
    Returns: the code; equal masks have equal codes, on every machine.

    Example:
      >>> import numpy as np
      >>> from slth import coding
      >>> mask = np.random.default_rng(0).random((1000, 80)) < 0.1      # 80,000 bits of 0.469 bits each
      >>> len(coding.encode({"a/kernel": mask.shape}, {"a/kernel": mask}))
      4885
    """
    head, plain = Writer(), Writer()
    streams: list[list[Bits]] = [[] for _ in range(rans.CLASSES)]
    rows_known = _Rows()
    for path, shape in shapes.items():
        mask = arrays[path].reshape(_view(shape))
        by_row = _any(mask, 2)
        taps, rows, columns = _any(by_row, 1), _any(by_row, 0), _any(mask, (0, 1))
        head.bits(live := bool(rows.any()))
        expected = rows_known.expected(path, len(rows))
        rows_known.see(path, columns)
        if not live:
            continue
        if len(taps) > 1:
            head.bits(taps)
        head.bits(columns)
        if len(rows) > 1:
            head.bits(same := expected is not None and np.array_equal(expected, rows))
            if not same:
                head.bits(rows)
        block = mask[taps][:, rows][:, :, columns].transpose(1, 0, 2).reshape(rows.sum(), -1)
        ones = block.sum(1, dtype=np.int64)
        if len(rows) > 1:
            single = taps.sum() == 1 and ones.sum() == columns.sum()
            head.bits(single)
            if single:
                plain.numbers(block.argmax(0), Block(taps, rows, columns, None).number_bits)
                continue
        least, width, classes = _classes(ones, block.shape[1])
        head.numbers(least, CLASS_BITS)
        head.numbers(width, WIDTH_BITS)
        head.numbers(classes - least, width)
        for k in np.unique(classes).tolist():
            streams[k].append(block[classes == k].reshape(-1))
    plain.parts += streams[PLAIN]
    streams[PLAIN] = []
    symbols = [np.packbits(np.concatenate(parts)) if parts else np.zeros(0, np.uint8) for parts in streams]
    code = rans.encode(np.concatenate(symbols), _repeated([len(part) for part in symbols]))
    return head.packed() + plain.packed() + code


def decode(shapes: Shapes, code: bytes) -> dict[str, Bool[np.ndarray, "..."]]:
    """The mask of a code.

    Raises: ValueError, beginning with "mask: ", for a code of no mask. (Two codes of one mask are told
      apart by encoding it again.)

    Example:
      >>> import numpy as np
      >>> from slth import coding
      >>> shapes, arrays = {"a/kernel": (3, 2)}, {"a/kernel": np.eye(3, 2, dtype=bool)}
      >>> coding.decode(shapes, coding.encode(shapes, arrays))["a/kernel"].tolist()
      [[True, False], [False, True], [False, False]]
    """
    reader = Reader(code)
    blocks = _blocks(shapes, reader)
    plain = Reader(code, reader.end())
    numbers = {
        path: plain.numbers(int(block.columns.sum()), block.number_bits)
        for path, block in blocks.items()
        if block.classes is None
    }
    counts = [sum(block.bits_of(k) for block in blocks.values()) for k in range(rans.CLASSES)]
    halves = plain.bits(counts[PLAIN])
    lengths = [0 if k == PLAIN else -(-count // 8) for k, count in enumerate(counts)]
    symbols = rans.decode(code[plain.end() :], _repeated(lengths))
    ends = list(accumulate(lengths))
    streams = [np.unpackbits(part).view(bool) for part in np.split(symbols, ends[:-1])]
    streams[PLAIN] = halves
    if any(stream[count:].any() for stream, count in zip(streams, counts, strict=True)):
        raise ValueError("mask: a bit that fills a byte of its code is set")
    taken = [0] * rans.CLASSES
    arrays = {}
    for path, shape in shapes.items():
        arrays[path] = mask = np.zeros(_view(shape), bool)
        if (block := blocks.get(path)) is not None:
            taps, rows, columns, classes = block
            live = np.zeros((int(rows.sum()), block.size), bool)
            if classes is None:
                if (numbers[path] >= len(live)).any():
                    raise ValueError(f"mask: {path} has no row of a number in its code")
                live[numbers[path], np.arange(live.shape[1])] = True
            else:
                for k in np.unique(classes).tolist():
                    count = block.bits_of(k)
                    live[classes == k] = streams[k][taken[k] : taken[k] + count].reshape(-1, block.size)
                    taken[k] += count
            mask[np.ix_(taps, rows, columns)] = live.reshape(len(live), taps.sum(), -1).transpose(1, 0, 2)
        arrays[path] = mask.reshape(shape)
    return arrays


def _blocks(shapes: Shapes, reader: Reader) -> dict[str, Block]:
    """The head of a code: what of each parameter holds kept weights; one that holds none is left out."""
    blocks = {}
    rows_known = _Rows()
    for path, shape in shapes.items():
        taps, rows, columns = (np.zeros(size, bool) for size in _view(shape))
        expected = rows_known.expected(path, len(rows))
        if reader.bits(1)[0]:
            taps = reader.bits(len(taps)) if len(taps) > 1 else ~taps
            columns = reader.bits(len(columns))
            single = False
            if len(rows) == 1:
                rows = ~rows
            elif reader.bits(1)[0]:
                if expected is None:
                    raise ValueError(f"mask: {path} has no layer before it whose channels it could read")
                rows = expected
            else:
                rows = reader.bits(len(rows))
            if not (taps.any() and rows.any() and columns.any()):
                raise ValueError(f"mask: {path} is said to keep weights, and in no place")
            if len(rows) > 1:
                single = bool(reader.bits(1)[0])
            if single and taps.sum() > 1:
                raise ValueError(f"mask: {path} has several taps and one number for each column")
            classes = None
            if not single:
                least, width = int(reader.numbers(1, CLASS_BITS)[0]), int(reader.numbers(1, WIDTH_BITS)[0])
                classes = least + reader.numbers(int(rows.sum()), width)
                if not (least > 0 and classes.max() < rans.CLASSES):
                    raise ValueError(f"mask: {path} has a row of no class")
            blocks[path] = Block(taps, rows, columns, classes)
        rows_known.see(path, columns)
    return blocks


class _Rows:
    """Which rows to expect of a kernel: the channels of the last layer before that has as many."""

    def __init__(self) -> None:
        self.by_size: dict[int, Bits] = {}
        self.layer, self.live = "", np.zeros(0, bool)

    def expected(self, path: str, size: int) -> Bits | None:
        """The channels of the last layer with so many, the path's own aside."""
        layer = path.rpartition("/")[0]
        if layer != self.layer:
            self.by_size[len(self.live)] = self.live
            self.layer, self.live = layer, np.zeros(0, bool)
        return self.by_size.get(size)

    def see(self, path: str, columns: Bits) -> None:
        """A layer's channels hold something where its kernel or its bias keeps a parameter."""
        self.live = columns if not self.live.size else self.live | columns


def _classes(ones: Int64[np.ndarray, " rows"], size: int) -> tuple[int, int, Int64[np.ndarray, " rows"]]:
    """The cheapest code of rows' densities: least class, bits of each difference from it, and classes."""
    found, rows, counts = np.unique(ones, return_inverse=True, return_counts=True)
    costs = found[:, None] * COSTS + (size - found)[:, None] * COSTS[::-1]
    best: tuple[int, int, int] | None = None
    for width in range(CLASS_BITS + 1):
        span = min(1 << width, len(COSTS))
        views = np.lib.stride_tricks.sliding_window_view(costs, span, 1)
        totals = counts @ views.min(-1) + (width * len(ones) << 16)
        least = int(totals.argmin())
        if best is None or totals[least] < best[0]:
            best = int(totals[least]), least, width
    assert best is not None
    _, least, width = best
    window = costs[:, least : least + (1 << width)]
    return least + 1, width, least + 1 + window.argmin(1)[rows]


def _any(mask: Bool[np.ndarray, "..."], axes: int | tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    return np.asarray(mask.any(axes))


def _repeated(lengths: list[int]) -> np.ndarray:
    """The class of every symbol, from the number of symbols of each class."""
    return np.repeat(np.arange(rans.CLASSES, dtype=np.uint8), lengths)


def _view(shape: Shape) -> tuple[int, int, int]:
    """(taps, rows, columns) of a parameter: a kernel's inputs are rows; a bias is one row."""
    *taps, rows, columns = (1, 1, *shape) if len(shape) == 1 else shape
    return math.prod(taps), rows, columns
