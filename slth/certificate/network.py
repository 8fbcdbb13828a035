r"""Certificates: how far a ticket's logits can be from its target's, proved over a domain.

    | f_target(x)_o - lambda f_ticket(x)_o |  <=  bound_o     for every x of the domain,

for the two networks as functions of real numbers, plus ``slack`` for what float32 does to them.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Float

from slth import nn
from slth.certificate import difference, interval, linear
from slth.certificate.build import build
from slth.certificate.domain import Domain
from slth.certificate.pair import Pair, Place, Sum
from slth.certificate.reach import Range, hull, inputs
from slth.certificate.reach import propagate as reach_of
from slth.construct import Construction
from slth.nn.network import Network
from slth.source import Source, parameter
from slth.types import Params

Method = Literal["interval", "linear"]

SAMPLES = 16
"""Inputs on which float32 is compared with float64."""
SAFETY = 4.0
"""What the largest of these differences is multiplied by."""
MEMORY = 2**27
"""Numbers held at a time, about: it sets how many sets of inputs are propagated together."""


class LayerBound(NamedTuple):
    """What is proved of the copies of one node, over all sets of inputs; units of the balanced target."""

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
    """A bound for every set of inputs of a domain and every logit."""

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
        Raises: ValueError for another number of images or outputs.
        """
        bound, y = self.bound, np.asarray(logits, np.float64)
        if y.ndim != 2 or y.shape[1] != bound.shape[1] or len(bound) not in (1, len(y)):
            raise ValueError(f"certified: logits of shape {y.shape} do not fit bounds of shape {bound.shape}")
        top = y.argmax(1)
        rows = np.arange(len(y))
        lead = y[rows, top][:, None] - y
        need = bound + np.broadcast_to(bound, y.shape)[rows, top][:, None]
        safe = lead > need
        safe[rows, top] = True
        return np.asarray(safe.all(1))


def certify(
    target: Network,
    params: Params,
    source: Source,
    construction: Construction,
    domain: Domain,
    method: Method = "interval",
    *,
    slack: float | None = None,
    exact_output: bool = False,
) -> Certificate:
    r"""A bound of |target - lambda ticket| over a domain.

    ``interval`` is Theorem 1: absolute values, layer by layer. ``linear`` propagates the difference of the
    two networks with its signs, forwards as a middle and a radius and back from the outputs as a linear form.
    For examples ``interval`` bounds all images at once by the largest activations that any of them reaches,
    and ``linear`` evaluates both networks in float64 at each.

    Args:
      target, params: without batch norm; the float32 parameters before balancing.
      source, construction: of this target.
      slack: what float32 may add to the error of a logit; None measures it as `SAFETY` times the largest
        difference between float32 and float64 at `SAMPLES` inputs of the domain, 0 certifies the networks as
        functions of real numbers. ``bound - slack`` is proved; a measured slack is not.
      exact_output: certify the hidden layers of the ticket alone, below the target's own output layer, which
        reads of the copies of every value the one with the least bound.
    Raises: ValueError for a domain, construction or method that does not fit.
    """
    if method not in get_args(Method):
        raise ValueError(
            f"certificate: method {method!r} is unknown: choose one of {', '.join(get_args(Method))}"
        )
    domain = domain.check(target.input_shape)
    pair = build(target, params, source, construction, signed=bool((domain.low < 0).any()))
    if slack is None:
        slack = measured_slack(target, params, source, construction, domain, pair)
    if exact_output:
        pair = _with_exact_output(pair, domain)
    bounds, layers = [], []
    for low, high in _batches(domain, pair, method):
        bound, found = _bounds(pair, domain.kind, method, low, high)
        bounds.append(bound)
        layers.append(found)
    bound = np.concatenate(bounds)
    bound = bound[..., np.argsort(pair.places[-1].owner[0])]
    bound = pair.factor * bound * (1 + 1e-12) + slack
    return Certificate(bound, _gathered(layers), method, domain.text, slack)


def _batches(domain: Domain, pair: Pair, method: str):
    """Sets of inputs, as many at a time as memory holds."""
    if domain.kind == "examples" and method == "interval":
        yield domain.low, domain.high
        return
    widest = max(place.constant.size for place in pair.places)
    size = int(np.clip(MEMORY // (40 * widest), 1, 64))
    for start in range(0, len(domain.low), size):
        yield domain.low[start : start + size], domain.high[start : start + size]


def _bounds(pair: Pair, kind: str, method: str, low: np.ndarray, high: np.ndarray):
    """Bounds of delta at the outputs for some sets of inputs, and the layers' summaries."""
    if kind == "examples":
        if method == "linear":
            return _exact(pair, low)
        widest = max(int(np.prod(place.shape)) for place in pair.places)
        ranges = hull(pair, low, int(np.clip(MEMORY // (20 * widest), 1, 256)))
    else:
        ranges = reach_of(pair, inputs(pair, low, high))
    if method == "interval":
        errors, layers = interval.propagate(pair, ranges)
        return errors[-1], layers
    deltas, layers = difference.propagate(pair, ranges)
    return linear.bounds(pair, ranges, deltas), layers


def _with_exact_output(pair: Pair, domain: Domain) -> Pair:
    """The pair with the target's own last layer; its copies are chosen by Theorem 1 over the whole domain."""
    *steps, last = pair.steps
    whole = (f(a, axis=0, keepdims=True) for f, a in ((np.min, domain.low), (np.max, domain.high)))
    hidden = pair._replace(steps=tuple(steps), places=pair.places[:-1])
    errors, _ = interval.propagate(hidden, reach_of(hidden, inputs(pair, *whole)))
    assert isinstance(last, Sum)
    return pair._replace(steps=(*steps, exact(last, pair.places, [error[0] for error in errors])))


def exact(step: Sum, places: tuple[Place, ...], errors: list[Float[np.ndarray, "*space channels"]]) -> Sum:
    """The sum with the target's own weights, each on the copy with the least of the given errors.

    Raises: ValueError where it reads the network's input, or a value of which no copy is read.
    """
    maps = []
    for one in step.maps:
        place = places[one.reads]
        if len(place.owner) > 1 or one.reads == 0:
            raise ValueError("certificate: exact_output needs a layer before the output layer")
        error = errors[one.reads].reshape(-1, len(place.owner[0])).mean(0)
        order = np.argsort(np.where(place.owned, error, np.inf))[::-1]
        best = np.full(place.shape[-1], -1)
        best[place.owner[0][order]] = np.where(place.owned[order], order, -1)
        needed = (one.wanted != 0).reshape(-1, *one.wanted.shape[-2:]).any((0, 2))
        if (best[needed] < 0).any():
            raise ValueError(
                "certificate: exact_output needs a copy of every value that the output layer reads"
            )
        kept = np.zeros_like(one.kept)
        kept[..., best[needed], :] = one.wanted[..., needed, :]
        maps.append(one._replace(kept=kept, error=np.zeros_like(one.error)))
    return step._replace(maps=tuple(maps), offset=np.zeros_like(step.offset))


def _exact(pair: Pair, x: np.ndarray):
    """Differences at single inputs."""
    u, deltas = difference.at(pair, x)
    layers = [
        interval.summary(step.path, pair.places[i + 1], Range(u[i + 1], 0 * u[i + 1]), np.abs(deltas[i + 1]))
        for i, step in enumerate(pair.steps)
        if isinstance(step, Sum)
    ]
    return np.abs(deltas[-1]), layers


def _gathered(batches: list[list[interval.Layer]]) -> tuple[LayerBound, ...]:
    """Summaries over all sets of inputs."""
    layers = []
    for same in zip(*batches, strict=True):
        bound, mean, size, unstable = (np.concatenate(column) for column in list(zip(*same, strict=True))[1:])
        layers.append(
            LayerBound(
                same[0].path,
                float(bound.max()),
                float(mean.mean()),
                float(size.max()),
                float(unstable.mean()),
            )
        )
    return tuple(layers)


def measured_slack(
    target: Network,
    params: Params,
    source: Source,
    construction: Construction,
    domain: Domain,
    pair: Pair | None = None,
) -> float:
    r"""`SAFETY` times the largest |difference in float32 - difference in float64| at `SAMPLES` inputs.

    The inputs are the middles of the first sets, and random corners of them. Measured, not proved: worst-case
    bounds of float32 sums of thousands of terms exceed what they are to protect.
    """
    domain = domain.check(target.input_shape)
    pair = pair or build(target, params, source, construction, signed=bool((domain.low < 0).any()))
    x = _sample(domain)
    kept = unflatten_dict(
        {
            path: jnp.where(np.asarray(keep), parameter(source, path), 0)
            for path, keep in flatten_dict(construction.mask, sep="/").items()
        },
        sep="/",
    )
    wanted, found = (
        np.asarray(_forward(network, values, x), np.float64)
        for network, values in ((target, params), (source.network, kept))
    )
    _, deltas = difference.at(pair, x.astype(np.float64))
    exact = pair.factor * deltas[-1][..., np.argsort(pair.places[-1].owner[0])]
    return float(SAFETY * np.abs(np.float32(pair.factor) * found - wanted - exact).max())


_forward = jax.jit(nn.apply, static_argnums=0)


def _sample(domain: Domain) -> Float[np.ndarray, "samples *shape"]:
    """Middles of the first sets of inputs, then random corners, in float32 and within the domain."""
    rng = np.random.default_rng(0)
    n = len(domain.low)
    middles = min(n, SAMPLES if domain.kind == "examples" else SAMPLES // 2)
    chosen = np.linspace(0, n - 1, middles).astype(int)
    points = [(domain.low[chosen] + domain.high[chosen]) / 2]
    if middles < SAMPLES and domain.kind != "examples":
        sets = np.arange(SAMPLES - middles) % n
        upper = rng.random((len(sets), *domain.low.shape[1:])) < 0.5
        points.append(np.where(upper, domain.high[sets], domain.low[sets]))
    return np.concatenate(points).astype(np.float32)
