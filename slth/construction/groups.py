"""A node of several groups is a node for each: convolutions of one group that share constants.

Outputs of a group read the inputs of this group alone. So the problem of the node falls into one for each
group, and any solver that solves a node solves them too.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from slth.construction.solvers import Solver
from slth.construction.state import Part, Problem, Rows, Slots, Solved, Stats, Stream
from slth.nn.layers import Conv


def solve_by_group(solver: Solver, problem: Problem, groups: int) -> Solved:
    """The subsets of a node, group by group.

    Args:
      groups: of the node's outputs; a part may have as many, or one.
    """
    if groups == 1:
        return solver.solve(problem)
    return _joined([solver.solve(_of_group(problem, group, groups)) for group in range(groups)])


def _joined(solved: list[Solved]) -> Solved:
    """One node of those of its groups. The subsets of groups are not told by numbers (`Solved.steps`)."""
    own = [one.own for one in solved if one.own is not None]
    return Solved(
        tuple(np.concatenate(masks, 2) for masks in zip(*(one.masks for one in solved), strict=True)),
        solved[-1].constants,
        np.concatenate([one.noise for one in solved]),
        np.concatenate([one.usable for one in solved]),
        sum((one.stats for one in solved), Stats()),
        np.concatenate(own) if own else None,
    )


def _of_group(problem: Problem, group: int, groups: int) -> Problem:
    """The problem of one group, in channels of its own. The last group has the node's constants too."""
    rows, total = problem.rows, problem.parts[0].random.shape[2]
    outputs = _share(len(rows.columns), group, groups)
    columns = _share(total - len(rows.constant), group, groups)
    last = group == groups - 1
    columns = slice(columns.start, total) if last else columns
    of_rows = Rows(
        rows.bias[outputs],
        rows.columns[outputs] - columns.start,
        rows.constant if last else rows.constant[:0],
        None if rows.own is None else rows.own[columns],
    )
    carried = problem.carried
    if carried is not None:
        x = None if carried.x is None else _cut(carried.x, outputs)
        ticket = None if carried.ticket is None else _cut(carried.ticket, columns)
        carried = carried._replace(x=x, ticket=ticket)
    parts = tuple(_part(part, group, groups, outputs, columns) for part in problem.parts)
    return problem._replace(parts=parts, rows=of_rows, carried=carried)


def _share(count: int, group: int, groups: int) -> slice:
    each = count // groups
    return slice(group * each, (group + 1) * each)


def _cut(values: Array, channels: slice) -> Array:
    """The channels, by a start that is no part of what is compiled: groups share one program."""
    return lax.dynamic_slice_in_dim(values, channels.start, channels.stop - channels.start, -1)


def _part(part: Part, group: int, groups: int, outputs: slice, columns: slice) -> Part:
    """What a linear map is to a group: its outputs, and of a grouped one its inputs."""
    layer, count = part.layer, outputs.stop - outputs.start
    weight, random = part.weight[..., outputs], part.random[..., columns]
    if not isinstance(layer, Conv) or layer.groups == 1:
        return part._replace(layer=replace(layer, features=count), weight=weight, random=random)
    each, cin = random.shape[1] - part.beside, weight.shape[1]
    chosen = part.stream.slots.channel // cin == group
    *space, _ = part.read.shape
    return part._replace(
        layer=replace(layer, features=count, groups=1),
        weight=weight,
        random=random,
        read=part.read._replace(shape=(*space, cin)),
        stream=_stream(part.stream, chosen, _share(groups * each, group, groups), group * cin, groups * each),
        rms=part.rms[chosen],
        mean=part.mean[chosen],
    )


def _stream(stream: Stream, chosen: np.ndarray, members: slice, first: int, beside: int) -> Stream:
    """The stream of a group's slots, with the constants behind its members.

    Args:
      first: the group's first channel of the target.
      beside: the first channel beside the groups.
    """
    slots, each = stream.slots, members.stop - members.start
    there = slots.gain[chosen] != 0  # a missing member has no channel
    own = Slots(
        np.where(there, slots.members[chosen] - members.start, 0),
        slots.gain[chosen],
        slots.channel[chosen] - first,
        slots.factor[chosen],
        slots.sign[chosen],
        slots.usable[chosen],
        slots.base,
    )
    channels = int(own.channel.max()) + 1
    ticket = stream.ticket
    if ticket is not None:
        ticket = jnp.concatenate([_cut(ticket, members), ticket[..., beside:]], -1)
    return Stream(
        own,
        stream.constant_channels - beside + each,
        stream.constants,
        stream.noise[chosen],
        None if stream.x is None else _cut(stream.x, slice(first, first + channels)),
        ticket,
    )
