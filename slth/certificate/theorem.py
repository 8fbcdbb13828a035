r"""Theorem 2: what every subset-sum problem may miss, and how wide a source must be, before any is solved.

With :math:`\xi_l` the largest error of a pre-activation that arises in node l itself (a linear layer, or the
sum at the end of a residual block), a ticket is off by at most :math:`\lambda \sum_l A_l \xi_l`. Random
weights :math:`|v| \le \sigma_l`, at most q of them for a target weight and at most :math:`D_l` target weights
in a row make :math:`\Gamma_l = \sigma_l q D_l` the most by which node l amplifies the errors of its inputs; T
is the activation's Lipschitz constant. :math:`A_l` is the product of all T and :math:`\Gamma` behind node l,
with one factor :math:`\Gamma_{skip} + \Gamma_2 T \Gamma_1` for a residual block (:math:`\Gamma_{skip} = 1` if
it is carried). If all problems of node l miss by at most

.. math:: \epsilon_l = \frac{\epsilon}{\lambda L (1 + B_l) A_l}, \quad
          B_l \ge \sup_x \max_j \sum_{i, \tau: w_{ji\tau} \ne 0} |x_{i\tau}|

then :math:`\xi_l \le \epsilon_l (1 + B_l)`, the 1 for the bias, and the ticket is off by at most
:math:`\epsilon`. The first layer reads :math:`\phi(\alpha x)`: there B counts :math:`|\mu_+| + |\mu_-|`
times, and what :math:`\phi` deviates from its two lines is taken off :math:`\epsilon` first.

Source: this project, after the proof of Burkholz, ICML 2022; the number of variables is the lemma of
`slth.subset_sum.theory`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate.budgets import Map, Node, Reads, Setting, log_growth, reads_of, setting_of
from slth.certificate.domain import Domain
from slth.construction import Construction, LayerRecord
from slth.nn import parameter_shapes
from slth.source import layer_scale
from slth.subset_sum.theory import C, required_multiplicity

PRODUCT_C = 4.1
"""C of variables that are products of two random weights, as in the first layer."""


class Budget(NamedTuple):
    """What the theorem allows one node and asks of the source in front of it.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.certificate import theorem
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> found = theorem(made, slth.box(-1, 1), epsilon=0.5, delta=0.01)
      >>> [(budget.layer, budget.fan_in, budget.met) for budget in found.layers]
      [('a', 4, False), ('b', 3, True)]
    """

    layer: str
    tolerance: float
    """epsilon_l in units of the node's source scale, as the errors of `LayerRecord` are."""
    reached: float | None
    """Largest error of the node's problems, in the same units; None where it is not known of all of them."""
    met: bool | None
    fan_in: int
    """D: most target weights in a row, of the branch and a solved skip together."""
    gain: float
    """Gamma, of all the maps of the node together."""
    input_sum: float
    """B, of all the maps of the node together."""
    largest_weight: float
    """Largest |w| in units of the source's scale; the lemma is about weights of at most 1."""
    required_multiplicity: int | None
    """Variables that each of the node's problems should have; None where no number will do."""
    required_width: int | None
    """Source channels m (c + 1), with m that of the whole network; c of the outputs."""
    width: int


class Theorem(NamedTuple):
    """Theorem 2 for one target, source and domain.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.certificate import theorem
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> found = theorem(made, slth.box(-1, 1), epsilon=0.5, delta=0.01)
      >>> found.satisfied, found.required_multiplicity      # 12 copies are fewer than the theorem asks for
      (False, 34)
    """

    epsilon: float
    delta: float
    C: float
    problems: int
    """Subset-sum problems of a source of the required multiplicity."""
    required_multiplicity: int | None
    """m for which, with probability at least 1 - delta, all problems behind the first layer have subsets
    within the budgets of such a source (q = m). None if what phi deviates exceeds epsilon alone."""
    required_univariate: int | None
    """The same for the first layer: copies of each input channel and sign."""
    satisfied: bool | None
    """Whether every problem of the ticket keeps its budget; None if that is not known of all of them."""
    guaranteed: float | None
    """The epsilon that the theorem guarantees for the errors and subset sizes reached."""
    layers: tuple[Budget, ...]


def theorem(
    made: Construction,
    domain: Domain,
    *,
    epsilon: float,
    delta: float,
    calibration: Float[np.ndarray, "n *shape"] | None = None,
    complete: bool = True,
) -> Theorem:
    r"""The budgets :math:`\epsilon_l` for an error of the outputs, against what a construction reached.

    Budgets and numbers of variables hold before anything is solved: they take the source's scale and
    multiplicity, the balanced target and the domain, and let a subset have all m variables (q = m). Only
    ``reached``, ``met``, ``satisfied`` and ``guaranteed`` look at the ticket.

    Args:
      made: a construction of L + 1 (`slth.construct`).
      domain: inputs to hold for; B is exact for images, and bounded by intervals for a box or balls.
      epsilon: wanted largest error of an output, in the units of the target's outputs.
      delta: accepted probability that some problem has no subset within its budget.
      calibration: images of shape (n, *input_shape) that the construction had, None if it had none.
      complete: whether the records know of every problem; those of a compensated construction do not. Of one
        that measures what its copies carry, whose weights are meant for other inputs, it is never so.
    Returns: a budget for each node, and what source the theorem asks for.
    Raises: ValueError unless epsilon > 0 and 0 < delta < 1, for a source of 2L, or where constants carry
      means and no calibration images are given.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.certificate import box, theorem
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> proof = theorem(made, box(-1, 1), epsilon=0.1, delta=0.01)
      >>> [budget.layer for budget in proof.layers], proof.required_multiplicity > 12
      (['a', 'b'], True)

    Source: this project, after the proof of Burkholz, ICML 2022.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise ValueError(f"expected epsilon > 0 and 0 < delta < 1, got {epsilon} and {delta}")
    if made.absorbs and calibration is None:
        raise ValueError(
            "calibration: constants of this ticket carry means over its calibration images: give them"
        )
    setting = setting_of(made)
    reads = reads_of(setting, domain.check(made.target.network.input_shape), calibration)
    wish = Wish(setting, reads, epsilon / made.factor, delta)
    complete = complete and not made.measured  # weights for copies of other gains than 1
    records = {record.path: record for record in made.records} if complete else {}
    required, variables = _required(wish)
    layers = tuple(_budgets(wish, records, required, variables))
    return Theorem(
        epsilon,
        delta,
        C,
        setting.problems(required or made.source.multiplicity),
        required,
        max((variables[entry.path] for entry in setting.maps if required and entry.raw), default=None),
        all(budget.met for budget in layers) if complete else None,
        _guaranteed(wish, records) * made.factor if complete else None,
        layers,
    )


class Wish(NamedTuple):
    """What is asked of a source."""

    setting: Setting
    reads: Reads
    epsilon: float
    """In units of the balanced target's outputs."""
    delta: float


def _weight(wish: Wish, node: Node) -> float:
    """1 + B: what multiplies the error of a node's problems."""
    info = wish.setting.info
    total = 1.0
    for entry in node.maps:
        slopes = (info.mu_plus, info.mu_minus)[: entry.signs] if entry.raw else (1.0,)
        total += sum(map(abs, slopes)) * wish.reads.sums[entry.path]
        if entry.offset:  # one problem more for every tap that may meet padding
            total += entry.taps
    return total


def _remainder(wish: Wish, node: Node, sizes: Mapping[str, int]) -> float:
    """What the first activation deviates from its two lines, at most, in the node's pre-activations."""
    deviation = wish.setting.info.remainder(wish.setting.alpha * wish.reads.reach)
    return deviation and deviation * sum(entry.gain(sizes[entry.path]) for entry in node.maps if entry.raw)


def log_budgets(wish: Wish, multiplicity: int) -> dict[str, float]:
    """log epsilon_l of each node, absolute; -inf where the first layer's remainder leaves nothing."""
    nodes = wish.setting.nodes
    sizes = wish.setting.sizes(multiplicity)
    grown = log_growth(wish.setting, sizes)
    lost = sum(_product(grown[node.path], _remainder(wish, node, sizes)) for node in nodes)
    if not lost < wish.epsilon:
        return dict.fromkeys(grown, -math.inf)
    share = math.log(wish.epsilon - lost) - math.log(len(nodes))
    return {node.path: share - grown[node.path] - math.log(_weight(wish, node)) for node in nodes}


def _required(wish: Wish) -> tuple[int | None, dict[str, int]]:
    """Least m that is enough for the budgets that a source of m copies has (larger subsets amplify more), and
    the variables that each map then needs by path; None and nothing where no m is."""
    setting, m = wish.setting, 1
    while True:
        budgets, problems = log_budgets(wish, m), setting.problems(m)
        if -math.inf in budgets.values():
            return None, {}
        variables = {
            entry.path: _variables(wish, entry, budgets[entry.node], problems) for entry in setting.maps
        }
        least = max((variables[entry.path] for entry in setting.maps if not entry.raw), default=1)
        if least <= m:
            return m, variables
        m = least


def _variables(wish: Wish, entry: Map, log_budget: float, problems: int) -> int:
    """The lemma's number of variables for one map, all problems of the network in one union bound."""
    source = wish.setting.source
    unit, constant = math.log(entry.scale), C
    if entry.raw:  # products v alpha
        unit, constant = unit + math.log(layer_scale(source, wish.setting.first.path)), PRODUCT_C
    # k variables fail in a share e^(-k / C); of m that are each there with probability p, k are.
    constant = -1 / math.log1p(source.presence * math.expm1(-1 / constant))
    log_tolerance = min(log_budget - unit, 0.0)
    tolerance = min(max(_exp(log_tolerance), 1e-300), 0.5)
    union = required_multiplicity(tolerance, wish.delta, problems=problems, constant=constant)
    return max(union, math.ceil(-constant * log_tolerance))  # a budget can be too small for a float


def _budgets(
    wish: Wish, records: Mapping[str, LayerRecord], required: int | None, variables: Mapping[str, int]
) -> Iterator[Budget]:
    """What each node may miss, what it missed, and what it asks for (see `_required`)."""
    source = wish.setting.source
    sizes = wish.setting.sizes(source.multiplicity)
    budgets = log_budgets(wish, source.multiplicity)
    for node in wish.setting.nodes:
        tolerance = _exp(budgets[node.path] - math.log(node.scale))
        reached = records[node.path].stats.max_error if node.path in records else None
        yield Budget(
            layer=node.path,
            tolerance=tolerance,
            reached=reached,
            met=None if reached is None else reached <= tolerance,
            fan_in=sum(entry.fan_in for entry in node.maps),
            gain=sum(entry.gain(sizes[entry.path]) for entry in node.maps),
            input_sum=sum(wish.reads.sums[entry.path] for entry in node.maps),
            largest_weight=max(float(np.abs(entry.weight).max()) / entry.scale for entry in node.maps),
            required_multiplicity=required and max(variables[entry.path] for entry in node.maps),
            required_width=required and (required * (node.features + 1) if node.copied else node.features),
            width=parameter_shapes(source.network)[f"{node.path}/kernel"][-1],
        )


def _guaranteed(wish: Wish, records: Mapping[str, LayerRecord]) -> float:
    """The sum of all A_l xi_l for the errors and the largest subsets of a construction."""
    # Subsets of a bias may be larger, but carry no error.
    nodes = wish.setting.nodes
    most = wish.setting.sizes(wish.setting.source.multiplicity)
    sizes = {
        entry.path: min(entry.signs * (len(records[entry.node].stats.sizes) - 1), most[entry.path])
        for entry in wish.setting.maps
    }
    grown = log_growth(wish.setting, sizes)
    total = 0.0
    for node in nodes:
        error = records[node.path].stats.max_error * node.scale * _weight(wish, node)
        total += _product(grown[node.path], error + _remainder(wish, node, sizes))
    return total


def _product(log_factor: float, value: float) -> float:
    """e^log_factor times a value, 0 if that is 0."""
    return _exp(log_factor) * value if value else 0.0


def _exp(x: float) -> float:
    """e^x, infinite where it is too large for a float."""
    return math.exp(x) if x < 709 else math.inf
