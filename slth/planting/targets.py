r"""Targets that are written down, not trained: small dense ReLU networks whose weights are known one by one.

All are sums of hinges. A function of one variable with the values :math:`f_k` at knots
:math:`t_0 < \ldots < t_n` is, between the knots linear,

.. math:: f(x) = f_0 + \sum_{k=0}^{n-1} (s_k - s_{k-1}) \, \mathrm{relu}(x - t_k),
          \quad s_k = \frac{f_{k+1} - f_k}{t_{k+1} - t_k}, \quad s_{-1} = 0.

A weight that is 0 is not there. More depth is bought with layers that hand on what is not negative: one
weight of 1 for each channel.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from slth.nn.layers import Activation, Dense
from slth.nn.network import Network
from slth.target import Target, checked_integer, checked_word

BOUNDARIES = (0.2, 0.5, 0.7)
"""Squared radii at which the class of `circle` changes."""
SLOPES = (0.1, 0.2, 0.4, 0.8)
"""Slopes of the four logits in the squared radius: the largest changes at each boundary."""
TURNS = (2 * np.pi, 8 * np.pi)
"""The angle of `helix` at x = -1 and x = 1."""

Matrix = Float[np.ndarray, "cin cout"]
Vector = Float[np.ndarray, " cout"]


def relu(depth: int = 4) -> Target:
    r""":math:`f(x) = \mathrm{relu}(x)`, the smallest target there is: one weight of 1 in each layer, no bias.

    Args:
      depth: linear layers, 2 or more; as many weights.
    Raises: ValueError for a depth below 2.

    Example:
      >>> import numpy as np
      >>> from slth import planting
      >>> planting.relu()(np.array([[-0.5], [0.5]], np.float32)).ravel().tolist()
      [0.0, 0.5]

    Source: Fischer and Burkholz, ICLR 2022, for the task (x in [-1, 1]).
    """
    depth = checked_integer("relu depth", depth, 2)
    return _network([(np.ones((1, 1)), None)] * depth, 1)


def circle(pieces: int = 6, depth: int = 3) -> Target:
    r"""Four classes of points in [-1, 1]^2, by :math:`s = x_1^2 + x_2^2` below 0.2, 0.5, 0.7 or above.

    The first layer has the hinges of :math:`|x_1|` and :math:`|x_2|` for both signs, the second adds them to
    s (each square between its knots linear, less the mean error of that), and the logit of class j is
    :math:`a_j s + b_j`, with the slopes a = 0.1, 0.2, 0.4, 0.8.

    Args:
      pieces: linear pieces of :math:`x^2` on [0, 1].
      depth: linear layers, 3 or more.
    Raises: ValueError for pieces below 1 or a depth below 3.

    Example:
      >>> import numpy as np
      >>> from slth import nn, planting
      >>> target = planting.circle()
      >>> target(np.array([[0.1, 0.1], [-0.6, 0.0], [0.5, 0.6], [1.0, -1.0]], np.float32)).argmax(1).tolist()
      [0, 1, 2, 3]

    Source: Fischer and Burkholz, ICLR 2022, for the task; the network is this project's.
    """
    pieces, depth = checked_integer("circle pieces", pieces, 1), checked_integer("circle depth", depth, 3)
    knots = np.arange(pieces) / pieces
    directions = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
    first = np.repeat(directions, pieces, 0).T
    bends = np.where(knots == 0, 1, 2) / pieces  # of the chords of x^2
    excess = 2 / (6 * pieces**2)  # a chord over an interval of length h is h^2 / 6 above x^2 on average
    return _network(
        [
            (first, np.tile(-knots, 4)),
            (np.tile(bends, 4)[:, None], None),
            *[(np.ones((1, 1)), None)] * (depth - 3),
            (np.array(SLOPES)[None], circle_logits(np.array([-excess]))[0]),
        ],
        2,
        biases=True,
    )


def circle_logits(s: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 4"]:
    """The logits of the four classes at squared radii s; two are equal at each boundary."""
    offsets = np.concatenate([[0.0], -np.cumsum(np.diff(SLOPES) * BOUNDARIES)])
    return s[:, None] * SLOPES + offsets


def helix(pieces: int = 24, depth: int = 2) -> Target:
    r""":math:`f(x) = (y \cos y, y \sin y, y) / 8\pi` with :math:`y = 5\pi + 3\pi x`, three turns of a helix.

    Each coordinate is linear between pieces + 1 knots; the third is one weight.

    Args:
      pieces: linear pieces of [-1, 1].
      depth: linear layers, 2 or more.
    Raises: ValueError for pieces below 1 or a depth below 2.

    Example:
      >>> import numpy as np
      >>> from slth import planting
      >>> planting.helix(pieces=96)(np.array([[-1.0], [1.0]], np.float32)).round(2).tolist()
      [[0.25, 0.0, 0.25], [1.0, 0.0, 1.0]]

    Source: Fischer and Burkholz, ICLR 2022, for the task; the network is this project's.
    """
    pieces, depth = checked_integer("helix pieces", pieces, 1), checked_integer("helix depth", depth, 2)
    knots = np.linspace(-1, 1, pieces + 1)
    values = helix_at(knots)
    slopes = np.diff(values, axis=0) * pieces / 2
    slopes[:, 2] = slopes[:, 2].mean()  # exactly one piece, whatever the rounding
    bends = np.diff(slopes, axis=0, prepend=0)
    bends[np.abs(bends) < 1e-9] = 0
    layers = [(np.ones((1, pieces)), -knots[:-1]), (bends, values[0])]
    if depth > 2:  # the coordinates plus 1 are not negative: they pass a ReLU
        layers[1] = (bends, values[0] + 1)
        layers += [(np.eye(3), None)] * (depth - 3) + [(np.eye(3), -np.ones(3))]
    return _network(layers, 1, biases=True)


def helix_at(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """The points of the helix."""
    low, high = TURNS
    y = low + (high - low) * (x + 1) / 2
    return np.stack([y * np.cos(y), y * np.sin(y), y], 1) / high


HANDMADE: Mapping[str, Callable[..., Target]] = {"circle": circle, "helix": helix, "relu": relu}
"""The targets that are written down, by name."""


def handmade(name: str, **options: int) -> Target:
    """A target of `HANDMADE` by its name.

    Args:
      options: of the function of that name.
    Raises: ValueError for another name, and as that function does.

    Example:
      >>> from slth import planting
      >>> planting.handmade("relu", depth=3).network.input_shape
      (1,)
    """
    checked_word("planted kind", name, tuple(HANDMADE))
    return HANDMADE[name](**options)


def _network(layers: list[tuple[Matrix, Vector | None]], inputs: int, *, biases: bool = False) -> Target:
    """A dense ReLU network of these kernels and biases; the last layer is linear.

    Args:
      biases: every layer has them, 0 where none are given; else none has.
    """
    spec, params = [], {}
    for number, (kernel, bias) in enumerate(layers, start=1):
        name = f"dense{number}"
        spec += [Dense(name, kernel.shape[1], use_bias=biases), Activation("relu")]
        params[name] = {"kernel": kernel.astype(np.float32)}
        if biases:
            params[name]["bias"] = np.zeros(kernel.shape[1], np.float32) if bias is None else np.float32(bias)
    network = Network((inputs,), tuple(spec[:-1]))
    return Target(network, params, "classes" if network.output_shape == (len(SLOPES),) else "regression")
