r"""How much of a planted ticket a method has found: overlap of masks against chance, and what it computes.

Two masks that keep a and b of n weights overlap by the Jaccard index :math:`J = |A \cap B| / |A \cup B|`. Of
masks that know nothing of each other, the intersection I is hypergeometric, so

.. math:: E[J] = \sum_i \frac{\binom{a}{i} \binom{n-a}{b-i}}{\binom{n}{b}} \frac{i}{a + b - i}.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth import nn
from slth.nn.network import Network
from slth.planting.planted import Planted
from slth.pruning import kept_weights, masked
from slth.pruning.protocol import task_of
from slth.target import checked_integer
from slth.types import Batch, Mask, Params


class Overlap(NamedTuple):
    """Two masks of the same weights, and what of their overlap is chance.

    Example:
      >>> from slth import planting
      >>> both = planting.Overlap(weights=100, found=20, planted=10, common=10)
      >>> both.jaccard, both.recall, round(both.chance, 3)
      (0.5, 1.0, 0.073)
    """

    weights: int
    found: int
    """Weights that the found mask keeps."""
    planted: int
    """Weights of the ticket."""
    common: int
    """Weights of both."""

    @property
    def jaccard(self) -> float:
        """Common / kept by either; 1 where neither keeps any."""
        either = self.found + self.planted - self.common
        return self.common / either if either else 1.0

    @property
    def recall(self) -> float:
        """Share of the ticket that was found; by chance it is the density of the found mask."""
        return self.common / self.planted if self.planted else 1.0

    @property
    def chance(self) -> float:
        """The expected Jaccard index of independent masks of these sizes (`chance`)."""
        return chance(self.weights, self.found, self.planted)


def overlap(network: Network, found: Mask, planted: Mask) -> Overlap:
    """The overlap of two masks over all kernels together.

    Args:
      network: whose masks they are.
    Raises: ValueError where a kernel's masks have different shapes, naming the layer.

    Example:
      >>> import numpy as np
      >>> from slth import nn, planting
      >>> network = nn.Network((2,), (nn.Dense("a", 2, use_bias=False),))
      >>> rows, diagonal = np.array([[True, True], [False, False]]), np.eye(2, dtype=bool)
      >>> planting.overlap(network, {"a": {"kernel": rows}}, {"a": {"kernel": diagonal}}).jaccard
      0.333
    """
    layers = overlap_by_layer(network, found, planted).values()
    return Overlap(*(sum(column) for column in zip(*layers, strict=True)))


def overlap_by_layer(network: Network, found: Mask, planted: Mask) -> dict[str, Overlap]:
    """The overlap of two masks in each kernel, by the path of its layer; as `overlap`.

    Example:
      >>> import numpy as np
      >>> from slth import nn, planting
      >>> network = nn.Network((2,), (nn.Dense("a", 2, use_bias=False),))
      >>> mask = {"a": {"kernel": np.eye(2) > 0}}
      >>> planting.overlap_by_layer(network, mask, mask)
      {'a': Overlap(weights=4, found=2, planted=2, common=2)}
    """
    layers = {}
    ours, theirs = kept_weights(network, found), kept_weights(network, planted)
    for path, one in ours.items():
        other = theirs[path]
        if one.shape != other.shape or one.dtype != bool or other.dtype != bool:
            raise ValueError(
                f"overlap: {path}: expected boolean masks of one shape, got {one.dtype} {one.shape} and "
                f"{other.dtype} {other.shape}"
            )
        layers[path] = Overlap(one.size, int(one.sum()), int(other.sum()), int((one & other).sum()))
    return layers


def chance(weights: int, found: int, planted: int) -> float:
    r"""The expected Jaccard index of two masks that keep so many of n weights and know nothing of each other.

    With the densities d and e it is :math:`d e / (d + e - d e)` for many weights.

    Args:
      weights: n, 1 or more.
      found, planted: kept weights, from 0 to n.
    Raises: ValueError for other numbers.

    Example:
      >>> from slth import planting
      >>> planting.chance(2, 1, 1), round(planting.chance(100_000, 10_000, 10_000), 5)
      (0.5, 0.05263)
    """
    n = checked_integer("chance weights", weights, 1)
    a = checked_integer("chance found", found, 0, n + 1)
    b = checked_integer("chance planted", planted, 0, n + 1)
    if not a + b:
        return 1.0
    i = np.arange(max(0, a + b - n), min(a, b) + 1, dtype=np.float64)
    j = i[:-1]  # from one number of common weights to the next
    step = np.log((a - j) * (b - j)) - np.log((j + 1) * (n - a - b + j + 1))
    log = np.concatenate([[0.0], np.cumsum(step)])
    weight = np.exp(log - log.max())
    return float((weight * i / (a + b - i)).sum() / weight.sum())


class Recovery(NamedTuple):
    """What a found mask is worth beside the planted ticket.

    Example:
      >>> from slth import planting
      >>> data = planting.samples("circle", train=8, test=200)
      >>> planted = planting.plant(planting.circle(), density=0.2)
      >>> found = planting.recovery(planted, planted.mask, data.test_images, data.test_labels)
      >>> found.gap, found.whole.jaccard
      (0.0, 1.0)
    """

    found: float
    """Score of the found mask (`score`)."""
    planted: float
    """Score of the planted ticket."""
    whole: Overlap
    layers: dict[str, Overlap]

    @property
    def gap(self) -> float:
        """How much better the planted ticket is."""
        return self.planted - self.found


def recovery(
    planted: Planted, mask: Mask, images: Batch, labels: np.ndarray, params: Params | None = None
) -> Recovery:
    """Overlap with the planted ticket, and scores of both on the same images.

    Args:
      mask: what a method has found, of the structure of the parameters.
      images, labels: of the test part; labels as the target has them, in its own units.
      params: other parameters for the found mask, such as trained ones; None: those of the random network.

    Example:
      >>> import jax
      >>> from slth import planting, pruning
      >>> data = planting.samples("relu", train=8, test=200)
      >>> planted = planting.plant(planting.relu(), density=0.1)
      >>> found = pruning.Magnitude(floor=1).prune(planted.network, planted.params, planted.density)
      >>> result = planting.recovery(planted, found.mask, data.test_images, data.test_labels)
      >>> round(result.planted, 3), result.whole.planted
      (1.0, 4)
    """
    values = masked(planted.params if params is None else params, mask)
    outputs = nn.predict(planted.network, values, images)
    return Recovery(
        score(outputs, labels),
        score(planted(images), labels),
        overlap(planted.network, mask, planted.mask),
        overlap_by_layer(planted.network, mask, planted.mask),
    )


def score(outputs: Float[np.ndarray, "n *out"], labels: np.ndarray) -> float:
    r"""How right outputs are, 1 at best, whatever their scale: a ticket has a free factor.

    Of classes the share that is right. Of numbers :math:`1 - \min_\lambda \|y - \lambda \hat y\|^2 / \|y\|^2`
    with the best factor :math:`\lambda \ge 0`: the square of the cosine between them, or 0.

    Raises: ValueError for labels of another shape.

    Example:
      >>> import numpy as np
      >>> from slth import planting
      >>> planting.score(np.array([[1.0], [2.0], [3.0]]), np.array([[10.0], [20.0], [30.0]]))
      1.0
    """
    if task_of(labels) == "classes":
        if outputs.shape[:1] != labels.shape:
            raise ValueError(f"score: expected {len(outputs)} classes, got labels of shape {labels.shape}")
        return float((outputs.argmax(-1) == labels).mean())
    if outputs.shape != labels.shape:
        raise ValueError(f"score: expected labels of shape {outputs.shape}, got {labels.shape}")
    y, x = np.asarray(labels, np.float64), np.asarray(outputs, np.float64)
    product, powers = max((x * y).sum(), 0.0), (x**2).sum() * (y**2).sum()
    return float(product**2 / powers) if powers else 0.0
