"""A node on several processes of `jax.distributed`: each solves a share of the rows, and all get all of them.

The rows of a node do not depend on each other. So a process solves those of its outputs, on its own devices,
and what comes out does not depend on how many processes there are.
"""

import io
import json
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int

from slth.construction.groups import joined as side_by_side
from slth.construction.groups import solve_by_group
from slth.construction.solvers import Solver
from slth.construction.state import Problem, Solved
from slth.construction.stored import arrays_of, solved_of

TEXT = "text"
"""Name of what JSON says beside the arrays."""


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
    return joined(shares, [unpacked(sent) for sent in exchanged(own)[:count]])


def share_of(problem: Problem, number: int, count: int) -> Share:
    """The outputs of one of so many processes. The last ones have the node's constants too."""
    rows, total = problem.rows, problem.parts[0].random.shape[2]
    first, end = (len(rows.columns) * n // count for n in (number, number + 1))
    outputs = slice(first, end)
    columns = rows.columns[outputs].reshape(-1)
    last = number == count - 1
    if last:
        columns = np.concatenate([columns, np.arange(total - len(rows.constant), total)])
    own = rows.some(outputs, columns, constants=last)
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
    return Share(problem._replace(parts=parts, rows=own, carried=carried), columns)


def joined(shares: list[Share], found: list[Solved]) -> Solved:
    """The node of what was solved of its shares."""
    solved = side_by_side(found)
    order = np.argsort(np.concatenate([share.columns for share in shares]))
    own = None if solved.own is None else solved.own[order]
    return solved._replace(masks=tuple(mask[..., order] for mask in solved.masks), own=own)


def packed(solved: Solved) -> bytes:
    """A share as bytes, for another process."""
    arrays, text = arrays_of(solved)
    said = json.dumps(text | {"stats": solved.stats._asdict()}, default=np.generic.item)
    file = io.BytesIO()
    np.savez(file, **arrays | {TEXT: np.array(said)})  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def unpacked(sent: bytes) -> Solved:
    """The inverse of `packed`."""
    arrays = np.load(io.BytesIO(sent))
    text = json.loads(str(arrays[TEXT]))
    return solved_of(arrays, text, text["stats"])


def exchanged(own: bytes) -> list[bytes]:
    """What every process sends, in their order."""
    lengths = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    sent = np.zeros(int(lengths.max()), np.uint8)
    sent[: len(own)] = np.frombuffer(own, np.uint8)
    everything = np.asarray(multihost_utils.process_allgather(sent))
    return [part[:length].tobytes() for part, length in zip(everything, lengths, strict=True)]
