r"""The construction: a fold over the target's steps, from which a mask comes out.

    lambda * apply(source.network, mask * source, x) ~ apply(target, params, x)

with every layer of the target built from random weights; nothing is copied and nothing redrawn.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float

from slth import evaluate
from slth import ticket as ticket_of
from slth.construction.checks import check_folder
from slth.construction.fit import UNPREDICTED, Fit
from slth.construction.misfit import Misfit, misfits
from slth.construction.noise import measured
from slth.construction.plan import Plan, plan_of
from slth.construction.realise import (
    LayerRecord,
    Node,
    State,
    realise_apply,
    realise_carried,
    realise_join,
    realise_node,
)
from slth.construction.resume import fingerprint, load_node, save_node
from slth.construction.solvers import Robust, Solver
from slth.construction.state import Stats, Stream, copied_stream
from slth.nn.forward import parameter_shapes
from slth.nn.graph import Join, Sum, by_layer, graph, last_reads, nested, value_shapes
from slth.nn.prune import prune, read_channels
from slth.precision import in_32_bits
from slth.source import Source
from slth.target import Target
from slth.ticket import Ticket
from slth.types import Batch, Mask, Params


@dataclass(frozen=True, eq=False)
class Construction:
    """A mask of the source, and what is known of it.

    ``made.ticket`` is the ticket, ``made.unsolved`` the number of weights and biases that no subset reaches,
    ``made.error(images)`` how far the ticket's outputs are from the target's.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> [record.path for record in made.records], made.unsolved, made.stats.problems
      (['a', 'b'], 8, 126)
      >>> made.error(jax.random.normal(jax.random.key(1), (100, 4))).agreement
      1.0
    """

    target: Target = field(repr=False)
    source: Source = field(repr=False)
    mask: Mask = field(repr=False)
    factor: float
    """lambda: the ticket's outputs times this are the target's."""
    records: tuple[LayerRecord, ...]
    params: Params = field(repr=False)
    """The balanced target: what the copies reproduce."""
    scales: dict[str, Float[np.ndarray, " cout"]] = field(repr=False)
    """d of each node's outputs, by which the balanced target differs from the target (`balance`)."""
    columns: dict[str, np.ndarray] = field(repr=False)
    """Source channels (cout, copies) of the copies of each node's outputs; a sum is named as its
    branch's last layer."""
    steps: tuple[tuple[str, int], ...] = ()
    """Kernels whose weights are rounded, and their steps (`slth.Ticket.steps`)."""
    fit: Fit = UNPREDICTED
    """How large the balanced weights are, and the error that was predicted with it."""
    measured: bool = False
    """Whether weights were chosen for copies as the calibration images show them (`slth.Robust`)."""

    @property
    def absorbs(self) -> bool:
        """Whether constants took up what the weights missed of the means on the calibration images."""
        return self.fit.absorbs

    @property
    def stats(self) -> Stats:
        """Counts and errors of all subset-sum problems together."""
        return sum((record.stats for record in self.records), Stats())

    @property
    def unsolved(self) -> int:
        """Problems for which no subset is within the tolerance; each keeps its best subset."""
        return self.stats.unsolved

    @property
    def misfits(self) -> tuple[Misfit, ...]:
        """Where the target does not fit the source, and what to try; `construct` warns of each."""
        return misfits([(record.path, record.lost) for record in self.records], self.fit)

    @cached_property
    def ticket(self) -> Ticket:
        """The ticket: seed, mask and lambda, with the source's hash; `Ticket.save` writes its file."""
        return ticket_of.make(self.source, self.mask, self.factor, self.target.network, self.steps)

    def error(self, images: Batch) -> evaluate.Comparison:
        """The ticket's outputs against the target's: agreement where they are classes, errors, and R^2.

        Args:
          images: shape (n, *input_shape); most is said by images that the construction has not seen.
        """
        return evaluate.compare(self.target(images), self.ticket(images), self.target.task)

    def with_kernels(self, mask: Mask) -> "Construction":
        """This target, source and factor, with kernels of another mask and all else as in this one.

        So what `slth.pruning` finds in this source can be measured, certified and refined as this mask can.
        ``records`` stay those of this construction. `slth.certify` bounds no ticket whose univariate channels
        read several inputs: leave univariate layers out of the mask, and they stay as they are.

        Args:
          mask: boolean arrays of the source's kernels, a tree; biases in it are not read.
        Returns: a construction whose mask has no dead ends (`slth.construction.prune`), with equal outputs.
        Raises: ValueError for a layer that the source does not have, or a kernel of another shape or type.

        Example:
          >>> import jax, slth
          >>> from slth import nn, pruning
          >>> from slth.source import parameters
          >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
          >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
          >>> source = slth.Source.of(target, copies=5)
          >>> made = slth.construct(target, source, slth.Best())
          >>> found = pruning.Synflow().prune(source.network, parameters(source), 0.2)
          >>> layers = {path: found.mask[path] for path in ("a", "b")}      # not "univariate"
          >>> proofs = [slth.certify(one, slth.box(-1, 1)) for one in (made, made.with_kernels(layers))]
          >>> bool(proofs[0].bound.max() < proofs[1].bound.max())
          True
        """
        layers = {path: dict(own) for path, own in by_layer(self.mask).items()}
        for path, given in by_layer(mask).items():
            if path not in layers:
                raise ValueError(f"mask: the source has no layer {path!r}: it has {', '.join(layers)}")
            kernel, wanted = np.asarray(given.get("kernel")), layers[path]["kernel"].shape
            if kernel.shape != wanted or kernel.dtype != bool:
                got = f"{kernel.dtype} {kernel.shape}"
                raise ValueError(f"mask {path}/kernel: expected boolean {wanted}, got {got}")
            layers[path]["kernel"] = kernel
        # A weight that another mask keeps is no multiple of a step any more.
        return replace(self, mask=prune(self.source.network, nested(layers)), steps=())

    def copies(self) -> evaluate.Copies:
        """What the source's channels carry, for errors layer by layer (`slth.evaluate.run`)."""
        reads = read_channels(self.source.network, self.mask)
        return evaluate.Copies(self.target.network, self.params, self.columns, reads)


def construct(
    target: Target,
    source: Source,
    solver: Solver | None = None,
    images: Float[Array | np.ndarray, "n *shape"] | None = None,
    *,
    fit: float | None = None,
    nonnegative: bool = False,
    folder: str | Path | None = None,
) -> Construction:
    r"""A strong lottery ticket: the mask that makes a random source compute a target.

    For every weight w of the target a subset S of random weights v with :math:`\sum_{k \in S} v_k \approx w`,
    layer by layer, so that :math:`\lambda f(\mathrm{mask} \odot \mathrm{source}; x) \approx f_{target}(x)`.

    Args:
      target: a trained network (`slth.load`, `slth.Target.of`).
      source: a random network made for it (`slth.Source.of`); it is never redrawn.
      solver: how subsets are chosen, such as `slth.Compensated`; None: `slth.Robust`.
      images: shape (n, *input_shape), for solvers that need statistics; of the kind that the target was
        trained on, never test images. 256 are enough for `slth.Robust`.
      fit: size of the balanced target's output weights, in units of the source's scale
        (`slth.construction.balance`). None: that of the least predicted error where there are images and all
        activations are positively homogeneous (`slth.construction.fit`), else 1.25, as for `slth.Rounded`.
      nonnegative: says that no input of the network is below 0; the first layer then needs half the channels.
      folder: where finished layers are kept while the construction runs; called again with the same
        arguments, it goes on from there.
    Returns: the mask and what is known of it; unsolved problems are counted, not hidden.
    Warns: UserWarning where the target does not fit its source, naming the layer, the number and what to try;
      `Construction.misfits` holds the same.
    Raises: ValueError, before any work, for arguments that do not fit together.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> images = jax.random.normal(jax.random.key(1), (64, 4))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Robust(), images)
      >>> made.error(images).relative < 0.1
      True

    Source: Burkholz, ICML 2022, for the L + 1 construction; Malach et al. 2020 and others for 2L
      (docs/constructions.md).
    """
    check_folder(folder)
    plan = plan_of(
        target, source, Robust() if solver is None else solver, images, fit=fit, nonnegative=nonnegative
    )
    made = finish(plan, nodes_of(plan, folder))
    for one in made.misfits:
        warnings.warn(one.text, stacklevel=2)
    return made


def nodes_of(plan: Plan, folder: str | Path | None = None) -> Iterator[Node]:
    """The nodes of a construction, one after the other, as they are solved.

    The caller does with each node what it likes, such as showing progress; `finish` makes a `Construction` of
    them all.

    Args:
      folder: where nodes are kept while the construction runs; those that it holds of an earlier process are
        taken over without being solved (``node.resumed``).

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.construction import nodes_of, plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> plan = plan_of(target, slth.Source.of(target, copies=5), slth.Best())
      >>> for node in nodes_of(plan):
      ...     print(node.record.path, node.record.stats.problems)
      a 120
      b 6
    """
    network = plan.target.network
    folder = None if folder is None else Path(folder)
    identity = "" if folder is None else fingerprint(plan)
    state: State = {0: _input(plan)}
    last = last_reads(network)
    reads = {entry.reads for node in plan.nodes.values() for entry in node.maps}
    looked_at = reads if plan.measured else set()
    for number, step in enumerate(graph(network)):
        if isinstance(step, Sum) and not plan.nodes[number].maps:
            stream = realise_carried(plan.nodes[number], state)
            assert stream is not None
        elif isinstance(step, Sum):
            before = None if folder is None else load_node(folder, number, identity)
            stream, node = realise_node(plan, plan.nodes[number], state, before)
            if folder is not None and before is None:
                save_node(folder, node, identity)
            yield node
        elif isinstance(step, Join):
            stream = realise_join(plan, step, state)
        else:
            stream = realise_apply(plan, number, step, state)
        if number + 1 in looked_at:
            stream = measured(stream, center=plan.center)
        state = {value: old for value, old in state.items() if last[value] > number} | {number + 1: stream}


@in_32_bits()
def finish(plan: Plan, nodes: Iterable[Node]) -> Construction:
    """The construction whose nodes these are: one mask without dead ends.

    Args:
      plan: of `plan_of`.
      nodes: all nodes of the plan, in any order.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.construction import finish, nodes_of, plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> plan = plan_of(target, slth.Source.of(target, copies=5), slth.Best())
      >>> finish(plan, nodes_of(plan)).ticket.density < 1
      True
    """
    nodes = list(nodes)
    masks = {path: mask for node in nodes for path, mask in node.masks.items()}
    mask = prune(plan.source.network, unflatten_dict(masks, sep="/"))
    records = tuple(node.record for node in nodes)
    # Where nothing is solved, copies stay in the order that all sums of blocks have.
    added = (node for node in plan.nodes.values() if not node.maps)
    shapes = value_shapes(plan.target.network)
    columns = {
        node.path: np.arange(shapes[node.number + 1][-1] * node.copies).reshape(-1, node.copies)
        for node in added
    }
    columns |= {node.record.path: node.columns for node in nodes}
    params, factor, scales = plan.balanced
    found = {
        f"{entry.path}/kernel": step
        for node in nodes
        for entry, step in zip(plan.nodes[node.number].maps, node.solved.steps, strict=False)
    }
    steps = tuple((path, found[path]) for path in parameter_shapes(plan.source.network) if path in found)
    return Construction(
        plan.target,
        plan.source,
        mask,
        factor,
        records,
        params,
        scales,
        columns,
        steps,
        plan.fit,
        plan.measured,
    )


@in_32_bits()
def _input(plan: Plan) -> Stream:
    """The network's input: every channel stands for itself, exactly."""
    channels = np.arange(plan.target.network.input_shape[-1])[:, None]
    ticket = plan.images if plan.solver.runs_ticket else None
    noise, usable = np.zeros(channels.shape), np.ones(channels.shape, bool)
    return copied_stream(channels, np.zeros(0), noise, usable, plan.images, ticket)
