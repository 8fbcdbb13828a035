"""What a construction knows at one point of the network, and the subset-sum problems of one node."""

from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from slth.coding.dealing import deal
from slth.nn.activations import ActivationInfo
from slth.nn.layers import Linear
from slth.nn.pooling import Flatten
from slth.source.drawn import Drawn
from slth.types import Shape


class Slots(NamedTuple):
    r"""The variables a layer can use for each of its inputs.

    Slot s is one channel of the target, ``channel[s]``, and the source channels that hold it, ``members[s]``.
    Member k holds ``gain[s, k]`` times the channel or its signed part; the weights of a subset, times the
    gains, must sum to ``factor[s] w``. Behind the first target layer a slot is a channel with its m copies,
    of gain 1 where gains are not measured.
    At the input each channel has one slot for x⁺ and one for x⁻, or one for all of x where phi has the same
    slope on both sides of 0. A missing member has gain 0 and is never chosen.
    """

    members: Int[np.ndarray, "slots copies"]
    gain: Float[np.ndarray, "slots copies"]
    channel: Int[np.ndarray, " slots"]
    factor: Float[np.ndarray, " slots"]
    sign: Int[np.ndarray, " slots"]
    """1: carries x⁺ (all of x where the input is known to be non-negative), -1: x⁻, 0: all of x."""
    usable: Bool[np.ndarray, "slots copies"]
    """False for a copy set aside because it missed its own target: read only where nothing else will do."""
    base: float = 0.0
    """d = phi(0), which every univariate channel holds besides; constants subtract it, tap by tap."""
    carried: bool = False
    """Whether the members are copies, so that a skip can carry them on."""


def copied_slots(columns: Int[np.ndarray, "channels m"]) -> Slots:
    """The slots of a hidden layer whose channel j is carried by the source channels ``columns[j]``."""
    channel = np.arange(len(columns))
    plain = np.zeros(len(columns), int)
    ones = np.ones(columns.shape)
    return Slots(columns, ones, channel, np.ones(len(columns)), plain, ones > 0, carried=True)


def univariate_slots(
    alpha: Float[np.ndarray, "cin width"], per_slot: int, signs: tuple[int, ...], info: ActivationInfo
) -> Slots:
    r"""Channels phi(alpha_k x_i) dealt to the slots (input i, sign), in the order of the channels.

    Every channel has a random alpha for each input, so it may serve any input whose alpha has the wanted
    sign; it goes to the first such slot among those with the fewest members. With mu = mu₊ + mu₋ the slots'
    factors are sign / mu: :math:`\sum_{\alpha>0} v \alpha = w / \mu` and :math:`\sum_{\alpha<0} v |\alpha| =
    -w / \mu`; one sign alone (a non-negative input) has 1 / mu₊. Where mu₊ = mu₋ one problem does:
    :math:`\sum v \alpha = w / \mu_+` over both signs of alpha, with one slot of twice the members an input.

    Args:
      alpha: weights of the first source layer.
      per_slot: members of each slot.
      signs: (1, -1), or (1,) for an input known to be non-negative.
    """
    cin = len(alpha)
    if info.mu_plus == info.mu_minus:
        signs, per_slot = (0,), 2 * per_slot
    channel = np.repeat(np.arange(cin), len(signs))
    sign = np.tile(np.array(signs), cin)
    members = np.zeros((len(channel), per_slot), int)
    gain = np.zeros(members.shape)
    slot = deal(alpha, per_slot, signs)
    for s in range(len(channel)):
        own = np.flatnonzero(slot == s)
        members[s, : len(own)] = own
        gain[s, : len(own)] = alpha[channel[s], own] * (sign[s] or 1)
    mu = info.mu_plus + (info.mu_minus if len(signs) == 2 else 0)
    factor = np.where(sign == 0, 1, sign) / mu
    return Slots(members, gain, channel, factor, sign, gain != 0, info.offset)


def joined_slots(groups: list[Slots], members: int, channels: int) -> Slots:
    """The slots of several groups, each of so many source channels and of so many of the target."""
    if len(groups) == 1:
        return groups[0]
    moved = (
        slots._replace(members=slots.members + g * members, channel=slots.channel + g * channels)
        for g, slots in enumerate(groups)
    )
    *arrays, bases, _ = zip(*moved, strict=True)
    return Slots(*map(np.concatenate, arrays), base=bases[0])


class Read(NamedTuple):
    """How a linear layer reads a value: fixed by the target's spec."""

    shape: Shape
    """The target's shape at the value, before flattening."""
    flat: Flatten | None = None
    """Set where the value is flattened: a dense layer then reads (positions, channels) in this order."""
    nonnegative: bool = False
    """Whether no number of the value can be below 0: there is then no x- to carry."""

    @property
    def positions(self) -> int:
        """Number of spatial positions that a dense layer sees as taps."""
        return int(np.prod(self.shape[:-1])) if self.flat else 1

    def by_tap(self, kernel: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "taps cin cout"]:
        """A kernel (or mask) as (taps, cin, cout): a dense layer behind a flatten has a tap a position."""
        if self.flat:
            return self.flat.by_position(kernel, self.positions)
        return kernel.reshape(-1, *kernel.shape[-2:])

    def kernel(self, view: Shaped[np.ndarray, "taps cin cout"], shape: Shape) -> np.ndarray:
        """The inverse of `by_tap`: the kernel (or mask) in its own shape."""
        return self.flat.by_feature(view) if self.flat else view.reshape(shape)


class Stream(NamedTuple):
    """What the source's channels carry at one value of the target; arrays alone, so a pytree.

    ``x`` and ``ticket`` are the target's and the ticket's values on the calibration images (None where there
    are none, or where the solver does not need them). They are held unflattened.
    """

    slots: Slots
    constant_channels: Int[np.ndarray, " K"]
    constants: Float[np.ndarray, " K"]
    """Exact values of the constant channels, the same at every position; 0 for one that is not used, NaN for
    one that differs from place to place and cannot be."""
    noise: Float[np.ndarray, "slots copies"]
    """Mean squared error of each member against the (signed part of the) target's channel."""
    x: Float[Array, "n *shape"] | None = None
    ticket: Float[Array, "n *source_shape"] | None = None


def copied_stream(
    columns: Int[np.ndarray, "channels m"],
    constants: Float[np.ndarray, " K"],
    noise: Float[np.ndarray, "channels m"],
    usable: Bool[np.ndarray, "channels m"],
    x: Array | None,
    ticket: Array | None,
) -> Stream:
    """The stream of copies at the source channels ``columns``, with the constants behind all of them."""
    slots = copied_slots(columns)._replace(usable=usable)
    return Stream(slots, columns.size + np.arange(len(constants)), constants, noise, x, ticket)


class Part(NamedTuple):
    """One linear map into a node: target weights to reach, random weights, and what they read."""

    path: str
    layer: Linear
    """The target's layer."""
    weight: Float[np.ndarray, "taps cin cout"]
    random: Drawn
    """Random weights (taps, source_cin, source_cout), drawn where they are read."""
    read: Read
    stream: Stream
    safe: Bool[np.ndarray, " taps"]
    """Taps through which a constant channel contributes the same at every output position."""
    rms: Float[np.ndarray, " slots"]
    """Root mean square of the target's (signed) channels, R; about the mean where that is centred away."""
    mean: Float[np.ndarray, " slots"]
    """Mean of the target's channels that constants are to absorb, tap by tap; 0 where nothing is centred."""
    scale: float
    """The source's scale of this layer's weights."""
    step: float = 0.0
    """What its weights are rounded to multiples of; 0 where they are not."""
    beside: int = 0
    """Source channels behind those of the groups, which all groups read; 0 where there is one group."""

    @property
    def goal(self) -> Float[np.ndarray, "taps slots cout"]:
        """What the members of each slot should sum to: the slot's factor times the target's weight."""
        slots = self.stream.slots
        return slots.factor[:, None] * self.weight[:, slots.channel]

    @property
    def priced(self) -> bool:
        """Whether the members are univariate channels that are not exact."""
        return not self.stream.slots.carried and bool(self.stream.noise.any())


class Rows(NamedTuple):
    """What a node's rows should be, beside the weights."""

    bias: Float[np.ndarray, " cout"]
    columns: Int[np.ndarray, "cout copies"]
    """Source channel of each copy of each output; m copies, or 1 of the network's outputs."""
    constant: Float[np.ndarray, " K"]
    """Pre-activations asked of the constant channels; NaN where a skip carries them (rows are pruned)."""
    own: Float[np.ndarray, " source_cout"] | None = None
    """The source's own biases, if the layer has any."""
    extra: Float[np.ndarray, " rows"] | float = 0.0
    """Added to each copy's own bias."""

    def some(self, outputs: slice, columns: slice | np.ndarray, *, constants: bool) -> "Rows":
        """The rows of some outputs whose copies, in their order, are all that there are of these columns.

        Args:
          columns: source channels, those of constants behind the copies.
          constants: whether the node's constants are among them.
        """
        count, copies = self.columns[outputs].shape
        return self._replace(
            bias=self.bias[outputs],
            columns=np.arange(count * copies).reshape(count, copies),
            constant=self.constant if constants else self.constant[:0],
            own=None if self.own is None else self.own[columns],
        )


class Problem(NamedTuple):
    """All subset-sum problems of one node."""

    parts: tuple[Part, ...]
    rows: Rows
    carried: Stream | None
    """What a parameter-free skip adds to the copies, exactly, and its error."""
    multiplicity: int
    center: bool
    """Whether activations count about their means, which constants carry."""
    smooth_input: bool = False
    """Whether it reads univariate channels of an activation that is not piecewise linear."""
    measured: bool = False
    """Whether each weight is chosen for copies as the calibration images show them: their gains, means and
    errors."""


class Solved(NamedTuple):
    """The subsets chosen in one node."""

    masks: tuple[Bool[np.ndarray, "_ _ source_cout"], ...]
    constants: Float[np.ndarray, " K"]
    """Exact pre-activations of the K constant channels (without a carried skip's)."""
    noise: Float[np.ndarray, "cout copies"]
    """Propagated mean squared error of each copy's pre-activation (without a carried skip's)."""
    usable: Bool[np.ndarray, "cout copies"]
    """False for a copy that missed its target so badly that the next layer should not read it."""
    stats: "Stats"
    own: Bool[np.ndarray, " source_cout"] | None = None
    """Mask of the source's own biases, if the layer has any."""
    steps: tuple[int, ...] = ()
    """Of each part the step whose multiples its subsets stand for, in units of 2^-48; none if they do not."""


class Stats(NamedTuple):
    """Counts and errors of the subset-sum problems of one node, errors in units of the source's scale.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> stats = made.stats
      >>> stats.problems, stats.unsolved, round(stats.size / stats.problems, 1)      # mean |S|
      (126, 8, 5.4)
    """

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
        totals = {name: getattr(self, name) + getattr(other, name) for name in self._fields}
        sizes = zip_longest(self.sizes, other.sizes, fillvalue=0)
        most = max(self.max_error, other.max_error)
        return Stats(**totals | {"max_error": most, "sizes": tuple(map(sum, sizes))})
