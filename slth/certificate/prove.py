r"""Certificates: how far a ticket's logits can be from its target's, proved over a domain.

    | f_target(x)_o - lambda f_ticket(x)_o |  <=  bound_o     for every x of the domain,

for the two networks as functions of real numbers, plus ``slack`` for what float32 does to them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float

from slth.certificate import difference, linear
from slth.certificate.arithmetic import sizes_by_input
from slth.certificate.build import build
from slth.certificate.domain import Domain
from slth.certificate.pair import Node, Pair, hull, inputs
from slth.certificate.steps import Range, behind, follow, lower
from slth.construction import Construction
from slth.precision import in_32_bits

Method = Literal["interval", "linear"]

SAMPLES = 16
"""Inputs on which float32 is compared with float64."""
SAFETY = 4.0
"""What the largest of these differences is multiplied by."""
MEMORY = 2**27
"""Numbers held at a time, about: it sets how many sets of inputs are propagated together."""


class LayerBound(NamedTuple):
    """What is proved of the copies of one node, over all sets of inputs; units of the balanced target.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> proof = slth.certify(made, slth.box(-1, 1))
      >>> [layer.path for layer in proof.layers], proof.layers[0].mean <= proof.layers[0].bound
      (['a', 'b'], True)
    """

    path: str
    bound: float
    """Largest bound of the error of a copy's pre-activation."""
    mean: float
    """Mean bound over sets, copies and positions."""
    size: float
    """Largest magnitude of the target's pre-activations, as far as is known."""
    unstable: float
    """Share of the copies' pre-activations that may be of either sign, or of another than the target's."""


class Certificate(NamedTuple):
    """A bound for every set of inputs of a domain and every output.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> proof = slth.certify(made, slth.box(-1, 1), "linear")
      >>> x = jax.random.uniform(jax.random.key(1), (100, 4), minval=-1.0)
      >>> bool((abs(target(x) - made.ticket(x)) <= proof.bound).all())
      True
      >>> float(proof.certified(target(x)).mean()) > 0.5      # share of images that surely keep their class
      True
    """

    bound: Float[np.ndarray, "n *outputs"]
    """|target - lambda ticket| <= bound; n is 1 for a box, and for examples by the interval method."""
    layers: tuple[LayerBound, ...]
    method: str
    domain: str
    slack: float
    """The share of ``bound`` that allows for the float32 arithmetic of both networks."""

    def certified(self, logits: Float[np.ndarray, "images outputs"]) -> Bool[np.ndarray, " images"]:
        """Images on which target and ticket provably have the same largest output.

        True where the target's largest logit leads every other by more than the sum of their two bounds, as
        it does wherever the top-2 margin exceeds twice the largest bound.

        Args:
          logits: the target's, for images of the domain; image i belongs to set i, or all to the only one.
        Raises: ValueError for another number of images or outputs, or for a single output, which is no class.
        """
        bound, y = self.bound, np.asarray(logits, np.float64)
        if y.shape[1:] == (1,):
            raise ValueError("certified: a single output is no class: read Certificate.bound")
        if y.ndim != 2 or y.shape[1:] != bound.shape[1:] or len(bound) not in (1, len(y)):
            raise ValueError(f"certified: logits of shape {y.shape} do not fit bounds of shape {bound.shape}")
        top = y.argmax(1, keepdims=True)
        lead = np.take_along_axis(y, top, 1) - y
        need = bound + np.take_along_axis(np.broadcast_to(bound, y.shape), top, 1)
        return np.asarray(((lead > need) | (np.arange(y.shape[1]) == top)).all(1))


@in_32_bits()
def certify(
    made: Construction,
    domain: Domain,
    method: Method = "interval",
    *,
    slack: float | None = None,
    exact_output: bool = False,
) -> Certificate:
    r"""A bound over a domain, :math:`|f_{target}(x)_o - \lambda f_{ticket}(x)_o| \le \mathrm{bound}_o`.

    ``interval`` is Theorem 1: absolute values, layer by layer. ``linear`` propagates the difference of the
    two networks with its signs, forwards as a middle and a radius and back from the outputs as a linear form.
    For examples ``interval`` bounds all images at once by the largest activations that any of them reaches,
    and ``linear`` evaluates both networks in float64 at each.

    Args:
      made: a construction (`slth.construct`).
      domain: `box`, `ball` or `examples`, in the units that the network reads.
      method: "interval" or "linear"; the latter is never the looser one, and slower.
      slack: what float32 may add to the error of an output; None measures it as `SAFETY` times the largest
        difference between float32 and float64 at `SAMPLES` inputs of the domain, 0 certifies the networks as
        functions of real numbers. ``bound - slack`` is proved; a measured slack is not.
      exact_output: certify the hidden layers of the ticket alone, below the target's own last linear layer,
        which reads of the copies of every value the one with the least bound.
    Returns: the bounds, in the units of the target's outputs, and what is known of each node.
    Raises: ValueError for a domain or method that does not fit, or a source that is not of the target.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=12), slth.Best())
      >>> proof = slth.certify(made, slth.box(-1, 1))
      >>> proof.bound.shape, bool(proof.bound.max() < 1)
      ((1, 2), True)

    Source: this project (docs/bounds.md), after the proof of Burkholz, ICML 2022.
    """
    if method not in get_args(Method):
        raise ValueError(
            f"certificate: method {method!r} is unknown: choose one of {', '.join(get_args(Method))}"
        )
    domain = domain.check(made.target.network.input_shape)
    low, _ = behind(lower(made, made.target.params).lead, domain.low, domain.high)
    pair = build(made, signed=bool((low < 0).any()))
    if slack is None:
        slack = _measured_slack(made, domain, pair)
    if exact_output:
        pair = with_exact_output(pair, domain)
    bounds, layers = zip(*_bounds(pair, domain, method), strict=True)
    bound = pair.factor * _in_order(pair, np.concatenate(bounds)) * (1 + 1e-12) + slack
    return Certificate(bound, _gathered(layers), method, domain.text, slack)


def _in_order(pair: Pair, values: Float[np.ndarray, "n *outputs"]) -> Float[np.ndarray, "n *outputs"]:
    """Values of the ticket's output channels in the order of the target's."""
    return values[..., np.argsort(pair.places[-1].owner[0])]


def _bounds(
    pair: Pair, domain: Domain, method: str
) -> Iterator[tuple[np.ndarray, dict[str, difference.Summary]]]:
    """Bounds of delta at the outputs and the layers' summaries, some sets of inputs at a time."""
    signed, single = method == "linear", domain.kind == "examples"
    widest = max(place.constant.size for place in pair.places)
    size = int(np.clip(MEMORY // (40 * widest), 1, 64))
    together = single and not signed  # one set of all images
    for start in range(0, 1 if together else len(domain.low), size):
        low, high = (a[start : start + size] for a in (domain.low, domain.high))
        if single and signed:
            values, deltas = (
                [Range(a, np.zeros_like(a)) for a in arrays] for arrays in difference.at(pair, low)
            )
        else:
            values = hull(pair, domain.low, size) if single else follow(pair.target, inputs(pair, low, high))
            deltas = difference.propagate(pair, values, signed=signed)
        bound = linear.bounds(pair, values, deltas) if signed and not single else deltas[-1].size
        yield bound, difference.summaries(pair, values, deltas)


def with_exact_output(pair: Pair, domain: Domain) -> Pair:
    """The pair with the target's own last linear layer, on copies that Theorem 1 chooses over the domain."""
    last = max(number for number, step in enumerate(pair.steps) if isinstance(step, Node))
    low, high = (f(a, axis=0, keepdims=True) for f, a in ((np.min, domain.low), (np.max, domain.high)))
    hidden = pair._replace(steps=pair.steps[:last], places=pair.places[: last + 1])
    values = follow(hidden.target, inputs(hidden, low, high))
    errors = [error.size[0] for error in difference.propagate(hidden, values, signed=False)]
    exact = exact_node(pair, last, errors)
    return pair._replace(steps=(*pair.steps[:last], exact, *pair.steps[last + 1 :]))


def exact_node(pair: Pair, number: int, errors: list[Float[np.ndarray, "..."]]) -> Node:
    """The last sum with the target's own weights, each on the copy with the least of the given errors.

    Args:
      number: of its step.
      errors: by place.
    Raises: ValueError where it reads the network's input, or a value of which no copy is read.
    """
    node = pair.steps[number]
    assert isinstance(node, Node)
    if not any(isinstance(step, Node) and step.target.path for step in pair.steps[:number]):
        raise ValueError("certificate: exact_output needs a linear layer before the last one")
    # A target ends in a linear layer; behind a univariate layer its weights act on what that layer reads.
    (entry,), copied = node.target.maps, node.kept.maps[-1]
    place = pair.places[entry.reads]
    error = errors[entry.reads].reshape(-1, len(place.owner[0])).mean(0)
    order = np.argsort(np.where(place.owned, error, np.inf))[::-1]
    best = np.full(place.shape[-1], -1)
    best[place.owner[0][order]] = np.where(place.owned[order], order, -1)
    needed = sizes_by_input(entry.weight, entry.inputs, len(best)) != 0
    if (best[needed] < 0).any():
        raise ValueError("certificate: exact_output needs a copy of every value that the output layer reads")
    own = entry.of(pair.places[number + 1].owner[0])
    weight, inputs = own.weight, None if own.inputs is None else np.maximum(best[own.inputs], 0)
    if inputs is None:
        weight = np.zeros((*copied.weight.shape[:-1], own.weight.shape[-1]))
        weight[..., best[needed], :] = own.weight[..., needed, :]
    return node._replace(
        kept=node.kept._replace(maps=(replace(copied, weight=weight, inputs=inputs),)),
        missed=node.missed._replace(maps=(), bias=np.zeros_like(node.missed.bias)),
    )


def _gathered(batches: Sequence[dict[str, difference.Summary]]) -> tuple[LayerBound, ...]:
    """Summaries over all sets of inputs."""
    layers = []
    for path in batches[0]:
        bound, mean, size, unstable = np.concatenate([batch[path] for batch in batches], 1)
        means = float(mean.mean()), float(unstable.mean())
        layers.append(LayerBound(path, float(bound.max()), means[0], float(size.max()), means[1]))
    return tuple(layers)


def _measured_slack(made: Construction, domain: Domain, pair: Pair) -> float:
    """`SAFETY` times the largest |difference in float32 - difference in float64| at `SAMPLES` inputs.

    The inputs are the middles of the first sets, and random corners of them. Measured, not proved: worst-case
    bounds of float32 sums of thousands of terms exceed what they are to protect. In the units of the target's
    outputs.
    """
    x = _sample(domain)
    _, deltas = difference.at(pair, x.astype(np.float64))
    exact = pair.factor * _in_order(pair, deltas[-1])
    return float(SAFETY * np.abs(made.ticket(x).astype(np.float64) - made.target(x) - exact).max())


def _sample(domain: Domain) -> Float[np.ndarray, "samples *shape"]:
    """Middles of the first sets of inputs, then random corners, in float32 and within the domain."""
    rng = np.random.default_rng(0)
    n = len(domain.low)
    middles = min(n, SAMPLES if domain.kind == "examples" else SAMPLES // 2)
    chosen = np.linspace(0, n - 1, middles).astype(int)
    sets = np.arange(SAMPLES - middles) % n
    upper = rng.random((len(sets), *domain.low.shape[1:])) < 0.5
    corners = np.where(upper, domain.high[sets], domain.low[sets])
    return np.concatenate([(domain.low[chosen] + domain.high[chosen]) / 2, corners]).astype(np.float32)
