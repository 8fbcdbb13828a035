"""A node of several groups is a node for each: convolutions of one group that share constants.

Outputs of a group read the inputs of this group alone. So the problem of the node falls into one for each
group, and any solver that solves a node solves them too.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from slth.construction.solvers import Solver
from slth.construction.state import Part, Problem, Slots, Solved, Stats, Stream
from slth.nn.layers import Conv
from slth.source.drawn import Drawn

TOGETHER = 512
"""Most source channels of groups that a solver of single weights is given at once."""


def solve_by_group(solver: Solver, problem: Problem, groups: int) -> Solved:
    """The subsets of a node, group by group.

    A solver of single weights takes several groups at once, as one convolution with zeros between them: what
    it chooses is the same, and thousands of small groups cost less. A row is longer with every group more.

    Args:
      groups: of the node's outputs; a part may have as many, or one.
    """
    if groups == 1:
        return solver.solve(problem)
    clusters = groups if solver.solves_rows else _fewest(problem, groups)
    found = []
    for own in _clusters(problem, clusters):
        solved = solver.solve(own)
        masks = zip(problem.parts, solved.masks, strict=True)
        found.append(solved._replace(masks=tuple(_dealt(part, mask, clusters, own) for part, mask in masks)))
    return joined(found)


def problems_of(problem: Problem, groups: int) -> Iterator[Problem]:
    """The problems that a node of several groups is, each of one group, or of some with zeros between."""
    return iter((problem,)) if groups == 1 else _clusters(problem, _fewest(problem, groups))


def _clusters(problem: Problem, clusters: int) -> Iterator[Problem]:
    return (_of_cluster(problem, cluster, clusters) for cluster in range(clusters))


def _fewest(problem: Problem, groups: int) -> int:
    """The least number of clusters, as many groups in each, that hold at most `TOGETHER` channels."""
    each = max(part.random.shape[1] - part.beside for part in problem.parts if _grouped(part))
    most = max(1, TOGETHER // each)
    return min(n for n in range(1, groups + 1) if groups % n == 0 and groups // n <= most)


def _grouped(part: Part) -> bool:
    return isinstance(part.layer, Conv) and part.layer.groups > 1


def joined(solved: list[Solved]) -> Solved:
    """One node of nodes side by side, such as those of its groups; the last one has the constants. What its
    subsets stand for is not told by numbers (`Solved.steps`)."""
    own = [one.own for one in solved if one.own is not None]
    return Solved(
        tuple(np.concatenate(masks, 2) for masks in zip(*(one.masks for one in solved), strict=True)),
        solved[-1].constants,
        np.concatenate([one.noise for one in solved]),
        np.concatenate([one.usable for one in solved]),
        sum((one.stats for one in solved), Stats()),
        np.concatenate(own) if own else None,
    )


def _of_cluster(problem: Problem, cluster: int, clusters: int) -> Problem:
    """The problem of some neighbouring groups, in channels of their own. The last groups have the node's
    constants too."""
    rows, total = problem.rows, problem.parts[0].random.shape[2]
    outputs = _share(len(rows.columns), cluster, clusters)
    columns = _share(total - len(rows.constant), cluster, clusters)
    last = cluster == clusters - 1
    columns = slice(columns.start, total) if last else columns
    of_rows = rows.some(outputs, columns, constants=last)
    carried = problem.carried
    if carried is not None:
        x = None if carried.x is None else _cut(carried.x, outputs)
        ticket = None if carried.ticket is None else _cut(carried.ticket, columns)
        carried = carried._replace(x=x, ticket=ticket)
    parts = tuple(_part(part, cluster, clusters, outputs, columns) for part in problem.parts)
    return problem._replace(parts=parts, rows=of_rows, carried=carried)


def _share(count: int, group: int, groups: int) -> slice:
    each = count // groups
    return slice(group * each, (group + 1) * each)


def _cut(values: Array, channels: slice) -> Array:
    """The channels, by a start that is no part of what is compiled: groups share one program."""
    return lax.dynamic_slice_in_dim(values, channels.start, channels.stop - channels.start, -1)


def _part(part: Part, cluster: int, clusters: int, outputs: slice, columns: slice) -> Part:
    """What a linear map is to some groups: their outputs, and of a grouped map their inputs."""
    layer, count = part.layer, outputs.stop - outputs.start
    weight, random = part.weight[..., outputs], part.random.some(columns=columns)
    if not isinstance(layer, Conv) or layer.groups == 1:
        return part._replace(layer=replace(layer, features=count), weight=weight, random=random)
    groups = layer.groups // clusters
    each, cin = random.shape[1] - part.beside, weight.shape[1]
    members, first = _share(clusters * groups * each, cluster, clusters), cluster * groups * cin
    chosen = part.stream.slots.channel // (groups * cin) == cluster
    *space, _ = part.read.shape
    return part._replace(
        layer=replace(layer, features=count, groups=1),
        weight=_dealer(count, groups, (0, 0)).whole(weight, groups * cin),
        random=_side_by_side(random, groups, part.beside),
        read=part.read._replace(shape=(*space, groups * cin)),
        stream=_stream(part.stream, chosen, members, first, clusters * groups * each),
        rms=part.rms[chosen],
        mean=part.mean[chosen],
    )


def _side_by_side(random: Drawn, groups: int, beside: int) -> Drawn:
    """The random weights of some groups as those of one. Between groups, where no weight is wanted and none
    is chosen, a column has those of its own group again."""
    each = random.rows.shape[1] - beside
    return random.some(np.concatenate([np.tile(np.arange(each), groups), each + np.arange(beside)]))


def _dealer(features: int, groups: int, beside: tuple[int, int]) -> Conv:
    """A convolution of some groups: which rows of one group those of a kernel (taps, rows, cout) are."""
    return Conv("groups", features, (1,), groups=groups, beside=beside if groups > 1 else (0, 0))


def _dealt(part: Part, mask: np.ndarray, clusters: int, own: Problem) -> np.ndarray:
    """The mask of a grouped map from that of one group with zeros between its groups."""
    if not isinstance(part.layer, Conv) or part.layer.groups in (1, clusters):
        return mask
    dealer = _dealer(mask.shape[2], part.layer.groups // clusters, (part.beside, len(own.rows.constant)))
    return mask[:, dealer.inputs(mask.shape[1]), np.arange(mask.shape[2])]


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
        slots.carried,
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
