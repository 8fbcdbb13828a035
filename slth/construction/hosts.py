"""A node on several processes of `jax.distributed`: each solves a share of the rows, and all get all of them.

The rows of a node do not depend on each other. So a process solves those of its outputs, on its own devices,
and what comes out does not depend on how many processes there are.
"""

import io
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int

from slth.construction.groups import solve_by_group
from slth.construction.solvers import Solver
from slth.construction.state import Problem, Solved, Stats


class Share(NamedTuple):
    """Some of a node's outputs."""

    problem: Problem
    """With channels of its own."""
    columns: Int[np.ndarray, " own"]
    """The node's source channels that they are."""


def solve_shared(solver: Solver, problem: Problem, groups: int) -> Solved:
    """The subsets of a node, those of its rows shared between all processes.

    Every process solves the whole of a node of several groups, and of a solver that does not say that its
    rows are apart (``rows_apart``).
    """
    count = min(jax.process_count(), len(problem.rows.columns))
    if count == 1 or groups > 1 or not getattr(solver, "rows_apart", False):
        return solve_by_group(solver, problem, groups)
    shares = [share_of(problem, number, count) for number in range(count)]
    index = jax.process_index()
    own = packed(solver.solve(shares[index].problem)) if index < count else b""
    return joined(problem, shares, [unpacked(sent) for sent in exchanged(own)[:count]])


def share_of(problem: Problem, number: int, count: int) -> Share:
    """The outputs of one of so many processes. The last ones have the node's constants too."""
    rows, total = problem.rows, problem.parts[0].random.shape[2]
    first, end = (len(rows.columns) * n // count for n in (number, number + 1))
    outputs, copies = slice(first, end), rows.columns.shape[1]
    columns = rows.columns[outputs].reshape(-1)
    last = number == count - 1
    if last:
        columns = np.concatenate([columns, np.arange(total - len(rows.constant), total)])
    own_rows = rows._replace(
        bias=rows.bias[outputs],
        columns=np.arange((end - first) * copies).reshape(-1, copies),
        constant=rows.constant if last else rows.constant[:0],
        own=None if rows.own is None else rows.own[columns],
    )
    parts = tuple(
        part._replace(
            layer=replace(part.layer, features=end - first),
            weight=part.weight[..., outputs],
            random=part.random.some(columns=columns),
        )
        for part in problem.parts
    )
    carried = problem.carried
    if carried is not None:
        x = None if carried.x is None else carried.x[..., outputs]
        ticket = None if carried.ticket is None else carried.ticket[..., columns]
        carried = carried._replace(x=x, ticket=ticket)
    return Share(problem._replace(parts=parts, rows=own_rows, carried=carried), columns)


def joined(problem: Problem, shares: list[Share], found: list[Solved]) -> Solved:
    """The node of what was solved of its shares."""
    masks = tuple(np.zeros(part.random.shape, bool) for part in problem.parts)
    own = None if problem.rows.own is None else np.zeros(problem.parts[0].random.shape[2], bool)
    for share, solved in zip(shares, found, strict=True):
        for mask, some in zip(masks, solved.masks, strict=True):
            mask[..., share.columns] = some
        if own is not None and solved.own is not None:
            own[share.columns] = solved.own
    return Solved(
        masks,
        found[-1].constants,
        np.concatenate([one.noise for one in found]),
        np.concatenate([one.usable for one in found]),
        sum((one.stats for one in found), Stats()),
        own,
    )


def packed(solved: Solved) -> bytes:
    """A share as bytes, for another process."""
    arrays = {f"mask{number}": np.packbits(mask) for number, mask in enumerate(solved.masks)}
    shapes = {f"shape{number}": np.array(mask.shape) for number, mask in enumerate(solved.masks)}
    stats = {name: np.array(value) for name, value in solved.stats._asdict().items()}
    own = {} if solved.own is None else {"own": solved.own}
    file = io.BytesIO()
    rest = {"constants": solved.constants, "noise": solved.noise, "usable": solved.usable}
    np.savez(file, **arrays, **shapes, **stats, **own, **rest)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def unpacked(sent: bytes) -> Solved:
    """The inverse of `packed`."""
    found = np.load(io.BytesIO(sent))
    masks = []
    while (name := f"mask{len(masks)}") in found:
        shape = tuple(found[f"shape{len(masks)}"].tolist())
        masks.append(np.unpackbits(found[name], count=int(np.prod(shape))).astype(bool).reshape(shape))
    stats = Stats(**{name: found[name].tolist() for name in Stats._fields})
    stats = stats._replace(sizes=tuple(stats.sizes))
    own = found.get("own")
    return Solved(tuple(masks), found["constants"], found["noise"], found["usable"], stats, own)


def exchanged(own: bytes) -> list[bytes]:
    """What every process sends, in their order."""
    lengths = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    sent = np.zeros(int(lengths.max()), np.uint8)
    sent[: len(own)] = np.frombuffer(own, np.uint8)
    everything = np.asarray(multihost_utils.process_allgather(sent))
    return [part[:length].tobytes() for part, length in zip(everything, lengths, strict=True)]
