r"""Where a target does not fit its source: weights and biases that all variables together do not reach.

A subset of the variables v of a weight w has a sum between that of the negative and that of the positive
ones. What w exceeds these by is lost whatever the solver, and a larger share of a layer's power than a few
hundredths shows in its outputs:

.. math:: \frac{\sum_w \mathrm{dist}(w, [\sum v^-, \sum v^+])^2}{\sum_w w^2}.

Of biases the share is that of the pre-activations' power, which weights and biases make together.

Source: this project.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.construction.biases import constants_of
from slth.construction.fit import Fit
from slth.construction.independent import sums
from slth.construction.state import Part, Problem
from slth.construction.variables import beyond_of, weights_of

MOST_LOST = 0.05
"""Largest share of a layer's power that may be out of reach without a word. (Published residual nets lose up
to 0.03 with 10 copies.)"""
MOST_PREDICTED = 0.3
"""Largest relative error of the outputs that may be predicted without a word."""


class Lost(NamedTuple):
    """Shares of a node's power that no subset reaches."""

    weights: float = 0.0
    biases: float = 0.0


def lost_of(problems: Iterable[Problem]) -> Lost:
    """What of a node's weights and biases no subset of their variables reaches.

    Args:
      problems: of the node, one for all groups or one for each.
    """
    lost = asked = power = biases = 0.0
    for problem in problems:
        for part in problem.parts:
            missed, wanted = _weights(part, problem)
            lost, asked = lost + missed.sum(), asked + wanted.sum()
            power += float((wanted * part.rms**2).sum())
        x = constants_of(problem).x
        bias = np.repeat(problem.rows.bias, problem.rows.columns.shape[1])
        missed = _beyond(bias, np.minimum(x, 0).sum(0), np.maximum(x, 0).sum(0))
        power, biases = power + float((bias**2).sum()), biases + float((missed**2).sum())
    return Lost(float(lost / max(asked, 1e-30)), biases / max(power, 1e-30))


def _weights(part: Part, problem: Problem) -> tuple[Float[np.ndarray, " slots"], Float[np.ndarray, " slots"]]:
    """Squares of what is lost and of what is wanted, by slot."""
    slots = len(part.stream.slots.channel)
    missed, wanted = np.zeros(slots), np.zeros(slots)
    for weights in weights_of(part, problem.rows.columns.reshape(-1), 0.0):
        which = weights.pair % slots
        missed += sums(which, np.square(beyond_of(weights), dtype=np.float64), slots)
        wanted += sums(which, weights.t**2, slots)
    return missed, wanted


def _beyond(goal: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    return goal - np.clip(goal, least, most)


class Misfit(NamedTuple):
    """One way in which a target does not fit its source.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> params = nn.init(network, jax.random.key(0))
      >>> params["b"]["bias"] += 1e5
      >>> target = slth.Target(network, params)
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> [(one.kind, one.layer, round(one.value, 2)) for one in made.misfits]
      [('biases', 'b', 1.0)]
    """

    kind: str
    """"weights", "biases" or "predicted"."""
    layer: str | None
    """Where it is worst; None for the whole network."""
    value: float
    """The share of the layer's power that is lost, or the relative error of the outputs that is predicted."""
    text: str
    """One line: what, how much, and what to try."""


def misfits(lost: Sequence[tuple[str, Lost]], fit: Fit) -> tuple[Misfit, ...]:
    """What does not fit, at most one of each kind; ``lost``: of each layer by path."""
    found = []
    advice = {
        "weights": "try more copies (source.multiplicity), or a larger source.scale or source.scales",
        "biases": "try a larger source.bias_scale, in L+1 more source.constants, and normalised inputs",
    }
    for kind, hint in advice.items():
        shares = [(getattr(of, kind), path) for path, of in lost]
        value, layer = max(shares, default=(0.0, ""), key=lambda share: np.nan_to_num(share[0], nan=np.inf))
        if not value <= MOST_LOST:
            others = sum(not share <= MOST_LOST for share, _ in shares) - 1
            more = f" (and {others} more)" if others else ""
            owner = "its weights' power" if kind == "weights" else "its outputs' power is that of biases and"
            text = f"in {layer}{more}, {value:.2g} of {owner} is out of reach of all random numbers together"
            found.append(Misfit(kind, layer, value, f"the target does not fit its source: {text}: {hint}"))
    if fit.predicted is not None and not fit.predicted <= MOST_PREDICTED:
        text = (
            f"the target does not fit its source: outputs are predicted to be off by {fit.predicted:.2g} of"
            " their size: try more copies (source.multiplicity), or solver=compensated"
        )
        found.append(Misfit("predicted", None, fit.predicted, text))
    return tuple(found)
