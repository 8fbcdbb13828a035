"""What the walk carries from layer to layer, and one linear node as plain arrays."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slth.construct.layout import Slots
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import Flatten
from slth.types import Shape


class Stream(NamedTuple):
    """Where the walk stands: what the source's channels carry at one point of the network.

    ``x`` and ``ticket`` are the target's and the ticket's values on the calibration images (empty where there
    are none, or where the method does not need them).
    """

    shape: Shape
    """The target's shape at this point, before flattening."""
    slots: Slots
    constant_channels: Int[np.ndarray, " K"]
    constants: Float[np.ndarray, " K"]
    """Exact values of the constant channels, the same at every position; 0 for one that is not used."""
    noise: Float[np.ndarray, "slots copies"]
    """Mean squared error of each member against the (signed part of the) target's channel."""
    x: Float[Array, "n *shape"] | None = None
    ticket: Float[Array, "n *source_shape"] | None = None
    flat: Flatten | None = None
    """Set once the network is flattened: a dense layer then reads (positions, channels) in this order."""
    nonnegative: bool = False
    """Whether no value of the target's can be below 0: x⁻ is then nothing to carry."""

    @property
    def positions(self) -> int:
        """Number of spatial positions that a dense layer sees as taps."""
        return int(np.prod(self.shape[:-1])) if self.flat else 1

    @property
    def order(self) -> str:
        """Order in which a flattened stream is read; of no matter before."""
        return self.flat.order if self.flat else "hwc"


class Part(NamedTuple):
    """One linear map into a node: target weights to reach, random weights, and what they read."""

    path: str
    layer: Conv | Dense
    weight: Float[np.ndarray, "taps cin cout"]
    random: Float[np.ndarray, "taps source_cin source_cout"]
    stream: Stream
    safe: Bool[np.ndarray, " taps"]
    """Taps through which a constant channel contributes the same at every output position."""
    rms: Float[np.ndarray, " slots"]
    """Root mean square of the target's (signed) channels, R; about the mean where that is centred away."""
    mean: Float[np.ndarray, " slots"]
    """Mean of the target's channels that constants are to absorb, tap by tap; 0 where nothing is centred."""
    scale: float
    """The source's scale of this layer's weights."""

    @property
    def wanted(self) -> Float[np.ndarray, "taps slots cout"]:
        """What the members of each slot should sum to: the slot's factor times the target's weight."""
        slots = self.stream.slots
        return slots.factor[:, None] * self.weight[:, slots.channel]


class Solved(NamedTuple):
    """What was chosen in one node."""

    masks: tuple[Bool[np.ndarray, "taps source_cin source_cout"], ...]
    constants: Float[np.ndarray, " K"]
    """Exact pre-activations of the K constant channels (without a carried skip's)."""
    noise: Float[np.ndarray, "cout copies"]
    """Propagated mean squared error of each copy's pre-activation (without a carried skip's)."""
    usable: Bool[np.ndarray, "cout copies"]
    """False for a copy that missed its target so badly that the next layer should not read it."""
    stats: "Stats"
    own: Bool[np.ndarray, " source_cout"] | None = None
    """Mask of the source's own biases, if the layer has any."""


class Stats(NamedTuple):
    """Counts and errors of the subset-sum problems of one node, errors in units of the source's scale."""

    problems: int = 0
    unsolved: int = 0
    """Problems for which no subset is within the tolerance."""
    deviating: int = 0
    """Problems left further off than the tolerance on purpose: a subset within it exists, but costs more."""
    size: float = 0.0
    """Sum of |S|."""
    error: float = 0.0
    """Sum of |sum_S v - w| / scale."""
    max_error: float = 0.0
    sizes: tuple[int, ...] = ()
    """Number of problems by |S|."""
    source_power: float = 0.0
    """Sum of v² over the kept weights; with ``target_power``, the layer's gain."""
    target_power: float = 0.0

    def __add__(self, other: "Stats") -> "Stats":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The two sets of problems together."""
        length = max(len(self.sizes), len(other.sizes))
        sizes = [s + (0,) * (length - len(s)) for s in (self.sizes, other.sizes)]
        return Stats(
            self.problems + other.problems,
            self.unsolved + other.unsolved,
            self.deviating + other.deviating,
            self.size + other.size,
            self.error + other.error,
            max(self.max_error, other.max_error),
            tuple(a + b for a, b in zip(*sizes, strict=True)),
            self.source_power + other.source_power,
            self.target_power + other.target_power,
        )


def kernel_view(
    kernel: Float[np.ndarray, "..."], positions: int = 1, order: str = "hwc"
) -> Float[np.ndarray, "taps cin cout"]:
    """A kernel (or mask) as (taps, cin, cout): a dense layer behind a flatten has a tap a position."""
    *_, cin, cout = kernel.shape
    if kernel.ndim > 2:
        return kernel.reshape(-1, cin, cout)
    if order == "chw":
        return kernel.reshape(-1, positions, cout).transpose(1, 0, 2)
    return kernel.reshape(positions, -1, cout)


def from_view(view: Float[np.ndarray, "taps cin cout"], shape: Shape, order: str = "hwc") -> np.ndarray:
    """The inverse of `kernel_view`: the kernel (or mask) in its own shape."""
    if len(shape) == 2 and order == "chw":
        view = view.transpose(1, 0, 2)
    return view.reshape(shape)
