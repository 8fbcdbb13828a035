r"""How large the balanced weights should be beside the source's: the fit of the least predicted error.

Weights that are small beside the random ones need sums of large numbers that cancel, and each brings its own
error along; weights that are large are out of reach. Which of the two hurts more depends on the target. So
the error is predicted before anything is solved. Of a weight w in units of its layer's scale, read from a
channel of relative noise power e, a robust subset S of random numbers v leaves

.. math:: c(w, e) = \min_S \; (w - \sum_S v)^2 + e \sum_S v^2.

A sample of a layer's weights, each with numbers drawn for it, gives the layer's mean of c. Weighted with the
mean square R² of the channels, and divided by that of the layer's outputs, c is the relative noise power of
these outputs; an activation and a pooling leave it, a skip adds its own.

Source: this project. The statistics of the robust objective are those of `slth.construction.noise`.
"""

from collections.abc import Mapping
from functools import partial, reduce
from operator import add
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from slth.construction.balance import balance
from slth.nn.forward import each_value
from slth.nn.graph import Join, Map, Skip, Sum, by_layer, graph
from slth.nn.network import Network
from slth.source import Source
from slth.source.layout import Layout
from slth.subset_sum import solve, unpack
from slth.target import Target
from slth.types import Batch, Params

FITS = (1.25, 1.8, 2.5, 3.5, 5.0)
"""Those that are tried, the usual one first."""
GAIN = 0.6
"""Another fit than the usual one must be predicted to have at most this share of its error. (A ResNet-20
gained nothing from a share of 0.7, a ResNet-8 much from one of 0.5.)"""
MEASURED = 0.02
"""Where a larger relative error of the outputs is predicted, or none in a network of `DEPTH` sums or more,
`slth.Robust` measures what copies carry."""
IMAGES = 32
"""Images from which mean squares are taken."""
WEIGHTS = 500
"""Weights of a layer that are tried for each fit."""
DEPTH = 6
"""Networks of fewer sums keep the usual fit: in them no noise builds up."""
VARIABLES = 15
"""Most variables of a problem that is tried."""


class Fit(NamedTuple):
    """How large the balanced weights of the output layer are, in units of its source scale."""

    value: float
    predicted: float | None
    """Relative error of the outputs that is predicted for a robust solver; None where nothing is, and for
    solvers of whole rows, whose errors cancel."""
    absorbs: bool = False
    """Whether constants take up what weights miss of the means on the images."""


UNPREDICTED = Fit(FITS[0], None)


Noise = Float[np.ndarray, "ways fits"]
Kernel = Float[np.ndarray, "taps cin cout"]


def fit_of(
    target: Target,
    source: Source,
    layout: Layout,
    scales: Mapping[str, float],
    images: Batch,
    means: bool | None = False,
) -> Fit:
    """The fit of the least predicted error, and whether constants take up means: no means, and then the usual
    fit, where nothing else is clearly better.

    Args:
      target: with activations that are all positively homogeneous.
      scales: source scale of each linear layer by path, as `balance` takes them.
      images: of which the first `IMAGES` are looked at.
      means: whether constants take up what weights miss of the means, and R is about the mean; None: where
        it is clearly better.
    """
    balanced = [by_layer(balance(target.network, target.params, dict(scales), fit=f).params) for f in FITS]
    x = np.asarray(images[:IMAGES], np.float32)
    ways = (False, True) if means is None else (means,)
    errors = np.sqrt(_noise(target, source, layout, scales, balanced, x, ways))
    absorbs = means if means is not None else bool(errors[1].min() <= GAIN * errors[0].min())
    found = errors[ways.index(absorbs)]
    best = int(found.argmin())
    best = best if found[best] <= GAIN * found[0] else 0
    return Fit(FITS[best], float(found[best]), absorbs)


def _noise(target, source, layout, scales, balanced, x: Batch, ways: tuple[bool, ...]) -> Noise:
    """Relative noise power of the outputs at each fit, where constants absorb means and where they do not."""
    network, layers = target.network, by_layer(target.params)
    seen = [[np.asarray(a, np.float64) for a in found] for found in _powers(network, target.params, x)]
    powers = [
        np.stack([variance if absorbs else variance + mean for absorbs in ways]) for variance, mean in seen
    ]
    noise = [np.zeros((len(ways), len(FITS)))]
    terms = {term: entry for entry, term in layout.terms(network)}
    random = np.random.default_rng(0)

    def brought(term: Map | Skip) -> Noise:
        """The power of a term's noise, summed over channels."""
        if isinstance(term, Skip):
            return noise[term.reads] * powers[term.reads].sum(1, keepdims=True)
        wide = layout.front_of(network, terms[term], term)
        numbers = _numbers(random, source, wide.copies if wide else source.multiplicity, products=bool(wide))
        kernels = [
            _by_tap(layers[term.path]["kernel"]),
            *(_by_tap(own[term.path]["kernel"]) for own in balanced),
        ]
        power = powers[term.reads][:, term.layer.inputs(powers[term.reads].shape[1])]
        return _left(numbers, kernels, scales[term.path], noise[term.reads], power, random)

    for number, step in enumerate(graph(network), start=1):
        if isinstance(step, Sum):
            power = np.maximum(powers[number].sum(1, keepdims=True), 1e-30)
            noise.append(reduce(add, map(brought, (*step.maps, *step.skips))) / power)
        elif isinstance(step, Join):
            sides = [(powers[value].sum(1, keepdims=True), noise[value]) for value in step.reads]
            total = np.maximum(sum(power for power, _ in sides), 1e-30)
            noise.append(sum((power / total * side for power, side in sides), np.zeros_like(noise[0])))
        else:
            noise.append(noise[step.value])
    whole = float(np.sum(seen[-1]))
    return noise[-1] * powers[-1].sum(1, keepdims=True) / max(whole, 1e-30)


@partial(jax.jit, static_argnums=0)
def _powers(
    network: Network, params: Params, x: Batch
) -> list[tuple[Float[Array, " c"], Float[Array, " c"]]]:
    """Variance and squared mean of each channel of every value."""

    def of(v: Array) -> tuple[Array, Array]:
        axes = tuple(range(v.ndim - 1))
        return v.var(axes), v.mean(axes) ** 2

    return each_value(network, params, x, of)


def _by_tap(kernel: Array) -> Kernel:
    return np.asarray(kernel, np.float64).reshape(-1, *kernel.shape[-2:])


def _numbers(
    random: np.random.Generator, source: Source, variables: int, *, products: bool
) -> Float[np.ndarray, "variables weights"]:
    """Random numbers as a source has them, in units of its scale."""
    shape = min(variables, VARIABLES), WEIGHTS
    draw = random.standard_normal if source.init.endswith("normal") else lambda n: random.uniform(-1, 1, n)
    numbers = draw(shape) * (random.random(shape) < source.presence)
    return numbers * 2 * draw(shape) if products else numbers


def _left(
    numbers: Float[np.ndarray, "variables weights"],
    kernels: list[Kernel],
    scale: float,
    noise: Noise,
    power: Float[np.ndarray, "ways rows _"],
    random: np.random.Generator,
) -> Noise:
    """Noise power of a map's outputs at each fit, summed over its outputs.

    Args:
      kernels: of the target, and of the balanced target at each fit.
      power: what counts as the mean square of what each row of a kernel reads; one column where all outputs
        read the same.
    """
    shape, count = kernels[0].shape, kernels[0].size
    tap, row, column = np.unravel_index(random.choice(count, WEIGHTS, replace=count < WEIGHTS), shape)
    original, *found = (kernel[tap, row, column] for kernel in kernels)
    weights = np.stack(found)
    prices = np.maximum(noise, 1e-9)[..., None, None] * numbers**2
    wanted = np.broadcast_to(weights / scale, (len(noise), *weights.shape))
    x = np.tile(numbers, wanted[..., 0].size).astype(np.float32)
    price = np.moveaxis(prices, 2, 0).reshape(len(numbers), -1).astype(np.float32)
    solution = solve(x, wanted.reshape(-1).astype(np.float32), "robust", price=price)
    kept = np.asarray(unpack(solution.mask, len(x)))
    cost = (np.asarray(solution.error, np.float64) ** 2 + (kept * price).sum(0)).reshape(wanted.shape)
    unit = np.divide(original * scale, weights, out=np.zeros_like(weights), where=weights != 0)
    read = power[:, row, column if power.shape[2] > 1 else 0][:, None]
    return (read * unit**2 * cost).mean(2) * count
