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
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate.domain import Domain
from slth.certificate.growth import gain, log_growth, subset_sizes
from slth.certificate.nodes import Map, Node, largest_weight, nodes_of
from slth.certificate.reads import input_sums
from slth.construct import Construction, LayerRecord
from slth.construct.layout import UNIVARIATE, first_info
from slth.nn.network import Network
from slth.source import Source, layer_scale, parameter_shapes
from slth.subset_sum.theory import C, required_multiplicity

PRODUCT_C = 4.1
"""C of variables that are products of two random weights, as in the first layer."""


class Budget(NamedTuple):
    """What the theorem allows one node and asks of the source in front of it."""

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
    """Theorem 2 for one target, source and domain."""

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
    target: Network,
    construction: Construction,
    source: Source,
    domain: Domain,
    *,
    epsilon: float,
    delta: float,
    calibration: Float[np.ndarray, "n *shape"] | None = None,
    complete: bool = True,
) -> Theorem:
    r"""The budgets for a wanted error of the outputs, held against what a construction reached.

    Budgets and numbers of variables hold before anything is solved: they take the source's scale and
    multiplicity, the balanced target and the domain, and let a subset have all m variables (q = m). Only
    ``reached``, ``met``, ``satisfied`` and ``guaranteed`` look at the ticket.

    Args:
      target: the folded target.
      domain: inputs to hold for; B is exact for images, and bounded by intervals for a box or balls.
      epsilon: wanted largest error of an output, in the units of the target's outputs.
      delta: accepted probability that some problem has no subset within its budget.
      calibration: images that the construction had, None if it had none.
      complete: whether the records know of every problem; a compensated construction's do not.
    Raises: ValueError unless epsilon > 0 and 0 < delta < 1.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise ValueError(f"expected epsilon > 0 and 0 < delta < 1, got {epsilon} and {delta}")
    nodes = nodes_of(target, construction.params, source)
    inputs, reach = input_sums(target, construction.params, nodes, domain, calibration)
    setting = _Setting(target, nodes, source, inputs, reach, epsilon / construction.factor, delta)
    records = {record.path: record for record in construction.records} if complete else {}
    required, univariate = _required(setting)
    problems = _problems(setting, source.multiplicity if required is None else required)
    given = _log_budgets(setting, source.multiplicity)
    wide = {} if required is None else _log_budgets(setting, required)
    layers = []
    for node in nodes:
        budget = _budget(setting, node, given[node.path], records.get(node.path))
        if required is not None:
            asked = max(_variables(setting, entry, wide[node.path], problems) for entry in node.maps)
            width = required * (node.features + 1) if node.copied else node.features
            budget = budget._replace(required_multiplicity=asked, required_width=width)
        layers.append(budget)
    return Theorem(
        epsilon,
        delta,
        C,
        problems,
        required,
        univariate,
        all(one.met for one in layers) if complete else None,
        _guaranteed(setting, records) * construction.factor if complete else None,
        tuple(layers),
    )


class _Setting(NamedTuple):
    target: Network
    nodes: tuple[Node, ...]
    source: Source
    inputs: Mapping[str, float]
    reach: float
    epsilon: float
    """In units of the balanced target's outputs."""
    delta: float


def _weight(setting: _Setting, node: Node) -> float:
    """1 + B: what multiplies the error of a node's problems."""
    info = first_info(setting.target)
    total = 1.0
    for entry in node.maps:
        slopes = (info.mu_plus, info.mu_minus)[: entry.signs] if entry.raw else (1.0,)
        total += sum(map(abs, slopes)) * setting.inputs[entry.path]
        if entry.offset:  # one problem more for every tap that may meet padding
            total += entry.taps
    return total


def _remainder(setting: _Setting, node: Node, sizes: Mapping[str, int]) -> float:
    """What the first activation deviates from its two lines, at most, in the node's pre-activations."""
    one = first_info(setting.target).remainder(largest_weight(setting.source, UNIVARIATE) * setting.reach)
    return one and one * sum(gain(entry, sizes[entry.path]) for entry in node.maps if entry.raw)


def _log_budgets(setting: _Setting, multiplicity: int) -> dict[str, float]:
    """log epsilon_l of each node, absolute; -inf where the first layer's remainder leaves nothing."""
    sizes = subset_sizes(setting.nodes, setting.source, multiplicity)
    grown = log_growth(setting.target, setting.nodes, sizes)
    lost = sum(_product(grown[node.path], _remainder(setting, node, sizes)) for node in setting.nodes)
    if not lost < setting.epsilon:
        return dict.fromkeys(grown, -math.inf)
    share = math.log(setting.epsilon - lost) - math.log(len(setting.nodes))
    return {node.path: share - grown[node.path] - math.log(_weight(setting, node)) for node in setting.nodes}


def _problems(setting: _Setting, multiplicity: int) -> int:
    return sum((node.problems * multiplicity) if node.copied else node.problems for node in setting.nodes)


def _required(setting: _Setting) -> tuple[int | None, int | None]:
    """Least m that is enough for the budgets that a source of m copies has (larger subsets amplify more)."""
    m = 1
    while True:
        budgets, problems = _log_budgets(setting, m), _problems(setting, m)
        if -math.inf in budgets.values():
            return None, None
        behind, first = (
            [
                _variables(setting, entry, budgets[node.path], problems)
                for node in setting.nodes
                for entry in node.maps
                if entry.raw == raw
            ]
            for raw in (False, True)
        )
        asked = max(behind, default=1)
        if asked <= m:
            return m, max(first)
        m = asked


def _variables(setting: _Setting, entry: Map, log_budget: float, problems: int) -> int:
    """The lemma's number of variables for one map, all problems of the network in one union bound."""
    unit, constant = math.log(entry.scale), C
    if entry.raw:  # products v alpha
        unit, constant = unit + math.log(layer_scale(setting.source, UNIVARIATE)), PRODUCT_C
    # k variables fail in a share e^(-k / C); of m that are each there with probability p, k are.
    constant = -1 / math.log1p(setting.source.presence * math.expm1(-1 / constant))
    log_tolerance = min(log_budget - unit, 0.0)
    tolerance = min(max(_exp(log_tolerance), 1e-300), 0.5)
    union = required_multiplicity(tolerance, setting.delta, problems=problems, constant=constant)
    return max(union, math.ceil(-constant * log_tolerance))  # a budget can be too small for a float


def _budget(setting: _Setting, node: Node, log_budget: float, record: LayerRecord | None) -> Budget:
    """All but what is required."""
    tolerance = _exp(log_budget - math.log(node.scale))
    reached = None if record is None else record.stats.max_error
    sizes = subset_sizes(setting.nodes, setting.source, setting.source.multiplicity)
    return Budget(
        layer=node.path,
        tolerance=tolerance,
        reached=reached,
        met=None if reached is None else reached <= tolerance,
        fan_in=sum(entry.fan_in for entry in node.maps),
        gain=sum(gain(entry, sizes[entry.path]) for entry in node.maps),
        input_sum=sum(setting.inputs[entry.path] for entry in node.maps),
        largest_weight=max(float(np.abs(entry.kernel).max()) / entry.scale for entry in node.maps),
        required_multiplicity=None,
        required_width=None,
        width=parameter_shapes(setting.source.network)[f"{node.path}/kernel"][-1],
    )


def _guaranteed(setting: _Setting, records: Mapping[str, LayerRecord]) -> float:
    """The sum of all A_l xi_l for the errors and the largest subsets of a construction."""
    # Subsets of a bias may be larger, but carry no error.
    most = subset_sizes(setting.nodes, setting.source, setting.source.multiplicity)
    sizes = {
        entry.path: min(entry.signs * (len(records[node.path].stats.sizes) - 1), most[entry.path])
        for node in setting.nodes
        for entry in node.maps
    }
    grown = log_growth(setting.target, setting.nodes, sizes)
    total = 0.0
    for node in setting.nodes:
        error = records[node.path].stats.max_error * node.scale * _weight(setting, node)
        total += _product(grown[node.path], error + _remainder(setting, node, sizes))
    return total


def _product(log_factor: float, value: float) -> float:
    """e^log_factor times a value, 0 if that is 0."""
    return _exp(log_factor) * value if value else 0.0


def _exp(x: float) -> float:
    """e^x, infinite where it is too large for a float."""
    return math.exp(x) if x < 709 else math.inf
