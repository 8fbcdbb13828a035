"""A mask as few bytes: what holds no kept weight left out, the rest coded row by row with its density.

The code of a mask has three parts, the first two filled with zeros to whole bytes: the *head* (which taps,
rows and columns hold a kept weight, and the class of each row), the *plain* bits (numbers of rows, what is
no whole byte, signs) and the range code of rows (`slth.coding.rans`). A kernel that is *rounded*
(`slth.coding.rounded`) is coded as its integers (`slth.coding.planes`), one that is *dealt*
(`slth.coding.dealing`) as a few numbers of the head. docs/ticket_format.md specifies every
bit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
from jaxtyping import Bool, Int

from slth.coding import dealing, planes, rans, rounded
from slth.coding.bits import Reader, Writer
from slth.coding.head import (
    STEP_BITS,
    Block,
    Channels,
    Shapes,
    Values,
    given,
    may_be_dealt,
    read_head,
    view,
)
from slth.coding.packed import eights_of, live_of, pack, unpack
from slth.coding.rounded import Live
from slth.coding.rows import RowReader, RowWriter, read_classes, write_classes

LANE_BITS, LENGTH_BITS = 13, 40

Arrays = Mapping[str, Bool[np.ndarray, "..."]]


def encode(
    shapes: Shapes,
    arrays: Arrays,
    steps: Mapping[str, int] | None = None,
    values: Values | None = None,
    candidates: dealing.Candidates | None = None,
) -> bytes:
    """The code of a mask.

    Args:
      shapes: of every parameter of the source by path, in order (`slth.nn.parameter_shapes`).
      arrays: boolean, of these shapes.
      steps: of kernels whose weights are rounded, by path: D, in units of 2^-48 (`slth.coding.rounded`). One
        whose mask is not that of integers is coded like the others.
      values: the source's parameter of a path; asked for those with steps, for the layers that they read, and
        for candidates.
      candidates: kernels of one tap that may be dealt (`slth.coding.dealing`).
    Returns: the code; equal arguments have equal codes, on every machine.

    Example:
      >>> import numpy as np
      >>> from slth import coding
      >>> mask = np.random.default_rng(0).random((1000, 80)) < 0.1      # 80,000 bits of 0.469 bits each
      >>> len(coding.encode({"a/kernel": mask.shape}, {"a/kernel": mask}))
      4920
    """
    head, plain = Writer(), Writer()
    rows_out = RowWriter(plain)
    known = Channels()
    left = dealing.MOST_DEALT
    roundings: dict[str, tuple[rounded.Kernel, rounded.Integers, int]] = {}
    for path, shape in shapes.items():
        mask = arrays[path].reshape(view(shape))
        packed = np.packbits(mask, 2)
        (taps, rows, columns), ones = live_of(packed, mask.shape[2])
        step = (steps or {}).get(path)
        if len(shape) > 1:
            head.bits(step is not None)
            if step is not None:
                head.numbers(step - 1, STEP_BITS)
        head.bits(live := bool(rows.any()))
        expected, front = known.before(path, len(rows))
        known.see(path, columns)
        if not live:
            continue
        if len(taps) > 1:
            head.bits(taps)
        dealt = None
        if may_be_dealt(shape, step is not None):
            candidate = (candidates or {}).get(path)
            if candidate and candidate[0] <= left:
                dealt = _dealt(given(values, path)(path).reshape(mask.shape)[0], mask[0], candidate)
            head.bits(dealt is not None)
        first = int(columns.argmax()) if len(shape) == 1 else 0
        if len(shape) == 1:
            head.numbers(first, len(columns).bit_length())
        if dealt is None:
            head.bits(columns[first:])
        if len(rows) > 1:
            head.bits(same := expected is not None and np.array_equal(expected, rows))
            if not same:
                head.bits(rows)
        if dealt is not None:
            left -= dealt[0].channels
            dealing.write(*dealt, len(columns), head)
            continue
        if step is not None:
            found = None
            if f"{front}/kernel" in shapes.keys() - roundings.keys():
                source = given(values, path)
                weights = source(path).reshape(mask.shape)
                found = _rounded(_front(front, arrays, source), weights, mask, (taps, rows, columns), step)
            head.bits(found is not None)
            if found is not None:
                join, kernel, integers = found
                shift = planes.cheapest_shift(integers)
                head.bits(join)
                head.numbers(shift, planes.SHIFT_BITS)
                roundings[path] = kernel, integers, shift
                continue
        if len(rows) > 1:
            single = taps.sum() == 1 and ones.sum() == columns.sum()
            head.bits(single)
            if single:
                inputs = _rows_of(mask, (taps, rows, columns)).argmax(0)
                plain.numbers(inputs, Block(taps, rows, columns).number_bits)
                continue
        classes = np.repeat(write_classes(ones, taps.sum() * columns.sum(), head), taps.sum())
        order = np.argsort(classes, kind="stable")
        rows_out.add_runs(pack(packed, (taps, rows, columns), order), classes[order])
    rows_out.close()
    for path, (kernel, *_) in roundings.items():
        if kernel.alone.any():
            mask = arrays[path].reshape(view(shapes[path]))
            taps = _any(mask[:, kernel.alone], (1, 2))
            plain.bits(taps[kernel.taps])
            block = _rows_of(mask, (taps, kernel.alone, _any(mask, (0, 1))))
            rows_out.add(block, write_classes(block.sum(1, dtype=np.int64), block.shape[1], plain))
    rows_out.close()
    planes.encode([(integers, shift) for _, integers, shift in roundings.values()], plain, rows_out)
    lanes, code = rows_out.code()
    bits = plain.packed()
    head.numbers(lanes, LANE_BITS)
    head.numbers(len(bits), LENGTH_BITS)
    return head.packed() + bits + code


def decode(
    shapes: Shapes, code: bytes, values: Values | None = None
) -> tuple[dict[str, Bool[np.ndarray, "..."]], dict[str, int]]:
    """The mask and the steps of a code.

    Args:
      values: as for `encode`; without it a code of rounded or dealt kernels is refused.
    Raises: ValueError, beginning with "mask: ", for a code of no mask. (Two codes of one mask are told
      apart by encoding it again.)

    Example:
      >>> import numpy as np
      >>> from slth import coding
      >>> shapes, arrays = {"a/kernel": (3, 2)}, {"a/kernel": np.eye(3, 2, dtype=bool)}
      >>> coding.decode(shapes, coding.encode(shapes, arrays))[0]["a/kernel"].tolist()
      [[True, False], [False, True], [False, False]]
    """
    head = Reader(code)
    steps, blocks = read_head(shapes, head, values)
    lanes, length = head.number(LANE_BITS), head.number(LENGTH_BITS)
    start = head.end()
    plain = Reader(code[start : start + length])
    symbols = rans.Decoder(memoryview(code)[start + length :], lanes)
    rows_in = RowReader(plain, symbols)
    arrays = {path: np.zeros(view(shape), bool) for path, shape in shapes.items()}
    direct = {}
    for path, block in blocks.items():
        if block.classes is not None:
            direct[path] = block
        elif block.rounding is None:
            taps, rows, columns = (np.flatnonzero(live) for live in block.live)
            inputs = block.inputs
            if inputs is None:
                numbers = plain.numbers(len(columns), block.number_bits)
                if (numbers >= len(rows)).any():
                    raise ValueError(f"mask: {path} has no row of a number in its code")
                inputs = rows[numbers]
            arrays[path][taps[0], inputs, columns] = True
    classes = {path: np.repeat(block.classes, block.taps.sum()) for path, block in direct.items()}
    found = rows_in.runs([(classes[path], *eights_of(block.columns).size) for path, block in direct.items()])
    for (path, block), runs in zip(direct.items(), found, strict=True):
        arrays[path] = unpack(runs, block.live, np.argsort(classes[path], kind="stable"))
    kernels = {}
    forms = []
    for path, block in blocks.items():
        if (rounding := block.rounding) is not None:
            front = _front(rounding.front, arrays, given(values, path))
            with _refusal(path):
                kernel = rounded.kernel_of(front, block.live, steps[path], join=rounding.join)
            kernels[path] = kernel
            forms.append(planes.Form(path, len(kernel.members), kernel.entries, rounding.shift))
    batch, places = [], []
    for path, kernel in kernels.items():
        if kernel.alone.any():
            block = _alone(path, blocks[path], kernel, plain)
            places.append((path, block.live))
            batch.append((read_classes(path, int(kernel.alone.sum()), plain), block.size))
    for (path, live), bits in zip(places, rows_in.batch(batch), strict=True):
        _put(bits, live, arrays[path])
    for (path, kernel), integers in zip(kernels.items(), planes.decode(forms, plain, rows_in), strict=True):
        weights = given(values, path)(path).reshape(arrays[path].shape)
        with _refusal(path):
            rounded.keep(kernel, weights, integers, arrays[path])
    if plain.end() != length:
        raise ValueError("mask: its plain bits are longer than what they say")
    symbols.end()
    return {path: arrays[path].reshape(shape) for path, shape in shapes.items()}, steps


def _rounded(
    front: rounded.Front,
    weights: rounded.Weights,
    mask: rounded.View,
    live: Live,
    step: int,
) -> tuple[bool, rounded.Kernel, rounded.Integers] | None:
    """Whether groups join both signs, and the integers that a mask stands for; None where it does not."""
    for join in (False, True):
        with suppress(ValueError):
            kernel = rounded.kernel_of(front, live, step, join=join)
            return join, kernel, rounded.integers_of(kernel, weights, mask, planes.LARGEST)
    return None


def _alone(path: str, block: Block, kernel: rounded.Kernel, plain: Reader) -> Block:
    """The rows of a rounded kernel that are in no group, and the taps at which they keep something."""
    taps = np.zeros_like(block.taps)
    taps[kernel.taps] = plain.bits(len(kernel.taps))
    if not taps.any():
        raise ValueError(f"mask: {path} is said to keep weights of no group, and at no tap")
    return block._replace(taps=taps, rows=kernel.alone)


def _dealt(
    weights: dealing.Weights, mask: Bool[np.ndarray, "rows columns"], candidate: tuple[int, int]
) -> tuple[dealing.Dealing, Int[np.ndarray, " missing"]] | None:
    """What a dealt kernel is written as; None where it is none or costs fewer bits otherwise."""
    found = dealing.find(weights, mask, *candidate)
    live = Block(np.ones(1, bool), _any(mask, 1), _any(mask, 0))
    cost = mask.shape[1] + live.columns.sum() * live.number_bits
    return found if found and dealing.bits(len(found[1]), mask.shape[1]) < cost else None


def _front(layer: str, arrays: Arrays, values: Values) -> rounded.Front:
    """The layer that a kernel reads."""
    weights = values(f"{layer}/kernel")
    weights = weights.reshape(view(weights.shape))
    biases = arrays.get(f"{layer}/bias", np.zeros(weights.shape[2], bool)).reshape(-1)
    return rounded.Front(arrays[f"{layer}/kernel"].reshape(weights.shape), biases, weights)


@contextmanager
def _refusal(path: str) -> Iterator[None]:
    """Say which kernel's integers are none."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"mask: {path} has {error}") from error


def _rows_of(mask: rounded.View, live: Live) -> Bool[np.ndarray, "live_rows _"]:
    """The rows of a mask at live taps and columns."""
    taps, rows, columns = live
    return np.compress(columns, mask[taps][:, rows].transpose(1, 0, 2), 2).reshape(rows.sum(), -1)


def _put(bits: Bool[np.ndarray, "live_rows _"], live: Live, mask: rounded.View) -> None:
    """The inverse of `_rows_of`."""
    taps, rows, columns = live
    mask.transpose(1, 0, 2)[rows[:, None, None] & taps[:, None] & columns] = bits.reshape(-1)


def _any(mask: Bool[np.ndarray, "..."], axes: int | tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    return np.asarray(mask.any(axes))
