r"""A target planted into a wider random network: exactly, at a stated density, at the others' scale.

Channels of the target go to random places among those of the random network; the weights between them are
overwritten. Because every activation is positively homogeneous, each channel of the target may be scaled, and
is scaled so that no planted weight stands out:

1. the target is balanced (`slth.construction.balance`): of every channel the largest weight of its row and
   the largest of its column are equal, in units of the scale s of the random weights of their layers;
2. all layers are then scaled alike, so that the planted weights have the root mean square of the random ones
   (:math:`s / \sqrt 3` of U[-s, s]), or so that the largest of them is s, whichever is less.

The outputs of the ticket times :math:`\lambda` are then those of the target. Random biases of a layer are
U[-b, b], b the largest bias that is planted there.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slth import nn
from slth.construction import Construction, balance
from slth.construction.balance import Balanced
from slth.nn.graph import by_layer, graph, is_homogeneous, linear_maps, nested
from slth.nn.network import Network
from slth.planting.widen import Widened, widened
from slth.pruning import densities, kernels, masked
from slth.pruning.protocol import task_of
from slth.source import Source, layer_scale, parameters
from slth.target import Target, checked_positive
from slth.types import Batch, Mask, Params

STEPS = 60
"""Halvings of the interval in which the width of a wanted density is searched."""


@dataclass(frozen=True, eq=False)
class Planted:
    r"""A random network and the ticket in it: :math:`\lambda f(\mathrm{mask} \odot w; x)` is the target.

    Every bias may be kept beside the ticket's weights without any change of its outputs: what nothing reads
    may have any bias, and where the ticket has none, the bias is 0. So a mask of the kernels says all.

    Args:
      network: spec of the random network.
      params: its parameters, the planted ones among them.
      mask: the ticket.
      factor: lambda.
      target: what the ticket computes.
      kind: what was planted, in a word.

    Example:
      >>> from slth import planting
      >>> planted = planting.plant(planting.circle(), density=0.1, seed=0, kind="circle")
      >>> planted.kept, round(planted.density, 3), sorted(planted.densities)
      (52, 0.1, ['dense1', 'dense2', 'dense3'])
    """

    network: Network
    params: Params = field(repr=False)
    mask: Mask = field(repr=False)
    factor: float
    target: Target = field(repr=False)
    kind: str = "target"

    @property
    def kept(self) -> int:
        """Weights of the ticket's kernels."""
        return sum(int(np.sum(kernel)) for kernel in kernels(self.network, self.mask).values())

    @property
    def densities(self) -> dict[str, float]:
        """Kept / total of each kernel, by the path of its layer."""
        return densities(self.network, self.mask)

    @property
    def density(self) -> float:
        """Kept / total over all kernels, as methods of pruning count it (`slth.pruning`)."""
        return self.kept / sum(kernel.size for kernel in kernels(self.network, self.mask).values())

    @cached_property
    def ticket(self) -> Params:
        """mask * params, for `slth.nn.apply`."""
        return masked(self.params, self.mask)

    def __call__(self, images: Batch) -> Float[np.ndarray, "n *out"]:
        """The ticket's outputs times lambda, for any number of images."""
        return np.float32(self.factor) * nn.predict(self.network, self.ticket, images)

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels in the units of the network's own outputs: numbers over lambda, classes as they are.

        So a method of pruning that looks at labels finds the ticket right as it stands.
        """
        return labels if task_of(labels) == "classes" else labels / np.float32(self.factor)

    @classmethod
    def of(cls, made: Construction) -> "Planted":
        """The ticket that a construction has found in its source: nothing is planted, all weights are random.

        The density is what the construction makes of source and target. Biases that the ticket drops are 0,
        since methods of pruning keep all of them.

        Example:
          >>> import jax, slth
          >>> from slth import nn, planting
          >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
          >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
          >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
          >>> planted, x = planting.Planted.of(made), jax.numpy.ones((1, 4))
          >>> planted.kind, bool(abs(planted(x) - made.ticket(x)).max() < 1e-5)
          ('constructed L+1', True)
        """
        masks = by_layer(made.mask)
        layers = {
            path: {
                name: np.where(masks[path][name], value, 0).astype(np.float32) if name == "bias" else value
                for name, value in own.items()
            }
            for path, own in by_layer(parameters(made.source)).items()
        }
        depth = made.source.layout_for(made.target.network).depth
        return cls(
            made.source.network, nested(layers), made.mask, made.factor, made.target, f"constructed {depth}"
        )


def plant(
    target: Target,
    *,
    density: float | None = None,
    ratio: float | None = None,
    seed: int = 0,
    init: str = "he_uniform",
    scale: float = 1.0,
    size: float = 1.0,
    kind: str = "target",
) -> Planted:
    r"""A target hidden in a random network of the same depth and more channels.

    Args:
      target: with positively homogeneous activations (ReLU, leaky ReLU, identity). Weights of 0 are not
        there: a pruned target is planted as it is.
      density: kept / total over all kernels that the ticket is to have at most; the network is the narrowest
        with that, all hidden layers wider by one ratio.
      ratio: this ratio, in place of a density; 1 or more.
      seed: of weights and places, in [0, 2^64).
      init, scale: of the random weights (`slth.Source`), of uniform or normal law; the ratio of planted to
        random weights does not depend on the scale.
      size: how large the planted weights are, in units of the random ones. 1 hides them as above; above 1
        the largest may be larger than all random ones, and the ticket can be seen.
      kind: what is planted, for the record.
    Raises: ValueError for a density that the target itself does not have, both or neither of density and
      ratio, an activation that is not homogeneous, or a layer that cannot be widened.

    Example:
      >>> import numpy as np
      >>> from slth import planting
      >>> target = planting.helix()
      >>> planted = planting.plant(target, density=0.05, seed=1)
      >>> x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
      >>> bool(abs(planted(x) - target(x)).max() < 1e-4), round(planted.density, 4)
      (True, 0.05)

    Source: Fischer and Burkholz, ICLR 2022, for the idea. There, neurons are searched that fit the target's
      best; here places are random, and the target is scaled as a whole.
    """
    if not isinstance(target, Target):
        raise ValueError(f"target: expected a slth.Target, got {type(target).__name__}")
    if (density is None) == (ratio is None):
        raise ValueError(f"plant: expected one of density and ratio, got {density!r} and {ratio!r}")
    checked_positive("size", size)
    if not is_homogeneous(target.network):
        raise ValueError("plant: an activation of the target is not positively homogeneous: use ReLU")
    if ratio is None:
        checked_positive("density", density)
        ratio = _ratio(target, float(density or 0))
    wide = widened(target.network, ratio, seed)
    source = Source(wide.network, seed, 1, init=init, scale=scale)  # type: ignore[arg-type]
    scales = {path: layer_scale(source, path) for path in linear_maps(wide.network)}
    balanced = _hidden(target, scales, size, normal=init.endswith("normal"))
    own = by_layer(balanced.params)
    biases = {path: np.abs(layer["bias"]).max(initial=0) for path, layer in own.items() if "bias" in layer}
    factors = {
        f"{path}/bias": float(largest or scales[path]) / source.bias_scale for path, largest in biases.items()
    }
    params, mask = _overwritten(target, own, wide, by_layer(parameters(replace(source, scales=factors))))
    return Planted(wide.network, params, mask, balanced.factor, target, kind)


def _ratio(target: Target, density: float) -> float:
    """The least ratio whose network has at most this density."""
    kept = sum(np.count_nonzero(kernel) for kernel in kernels(target.network, target.params).values())

    def size(ratio: float) -> int:
        wide = widened(target.network, ratio, 0).network
        shapes = nn.parameter_shapes(wide)
        return sum(math.prod(shapes[f"{path}/kernel"]) for path in linear_maps(wide))

    if kept > density * size(1.0) and size(2.0) == size(1.0):
        raise ValueError("plant: the target has no hidden layer that could be wider: choose another target")
    if kept <= density * size(1.0):
        own = kept / size(1.0)
        if own < density:
            raise ValueError(
                f"density: the target itself has the density {own:.3g}, less than {density:g}: choose a"
                " smaller one"
            )
        return 1.0
    high = 2.0
    while kept > density * size(high):
        high *= 2
    low = high / 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        if kept > density * size(middle):
            low = middle
        else:
            high = middle
        if high - low < 1e-4:
            break
    return high


def _hidden(target: Target, scales: dict[str, float], size: float, *, normal: bool) -> Balanced:
    """The target scaled as random weights of these scales are, times a size."""
    moment = 1.0 if normal else 1 / math.sqrt(3)

    def sizes(fit: float) -> tuple[Balanced, Float[np.ndarray, " weights"]]:
        balanced = balance(target.network, target.params, scales, fit=fit)
        own = kernels(target.network, balanced.params)
        values = np.concatenate([np.abs(np.ravel(w)) / scales[path] for path, w in own.items()])
        return balanced, values[values > 0]

    _, values = sizes(1.0)
    if not values.size:
        raise ValueError("plant: all weights of the target are 0: there is nothing to plant")
    aim = moment / math.sqrt(np.mean(values**2))
    return sizes(size * (aim if normal else min(aim, 1 / values.max())))[0]


def _overwritten(
    target: Target, planted: dict[str, dict], wide: Widened, layers: dict[str, dict]
) -> tuple[Params, Mask]:
    """The random parameters with the planted ones at their places, and the mask of the ticket.

    A planted channel has the target's bias, be it 0.
    """
    masks: dict[str, dict] = {}
    values = {path: {name: np.array(a) for name, a in own.items()} for path, own in layers.items()}
    own = by_layer(target.params)
    for value, step in enumerate(graph(target.network), start=1):
        for entry in getattr(step, "maps", ()):
            path, behind = entry.path, wide.places[value]
            place = (..., wide.places[entry.reads][:, None], behind[None])
            there = np.asarray(own[path]["kernel"]) != 0
            kernel = values[path]["kernel"]
            kernel[place] = np.where(there, planted[path]["kernel"], kernel[place])
            masks[path] = {"kernel": np.zeros(kernel.shape, bool)}
            masks[path]["kernel"][place] = there
            if "bias" in own[path]:
                values[path]["bias"][behind] = planted[path]["bias"]
                masks[path]["bias"] = np.zeros(values[path]["bias"].shape, bool)
                masks[path]["bias"][behind] = np.asarray(own[path]["bias"]) != 0
    arrays = {path: {name: jnp.asarray(a) for name, a in layer.items()} for path, layer in values.items()}
    return nested(arrays), nested(masks)
