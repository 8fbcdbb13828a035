r"""Which source channel stands for what: copies of target channels, signs of inputs, constants.

The source of a target mirrors its layers and adds one in front (L + 1):

* an extra first layer, 1x1, of *univariate* channels phi(alpha x_i) (all other inputs pruned) and of constant
  channels phi(beta) (all inputs pruned);
* every hidden layer with c channels becomes one with m c + K: channel ``j m + k`` is copy k of target channel
  j, the last K channels are constants;
* the last linear layer keeps its width: one copy of each output.

Source: Burkholz, ICML 2022, theorem on L + 1 layers: widths m (c + 1), which is K = m.

Or it has two layers for each linear one (2L): a univariate layer of its inputs, 1x1, then the layer itself
with the target's own width. Univariate layers make constants afresh, so none is carried. Source: Malach et
al. 2020, Pensia et al. 2020 and da Cunha et al. 2022, who have two layers for each.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.nn.activations import ActivationInfo
from slth.nn.layers import Activation, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.types import Shape

UNIVARIATE = "univariate"
SKIP = "skip"
MOST_CONSTANTS = 64
"""K of a univariate layer of 2L is twice the number of channels of an input and sign, and at most this."""


class Slots(NamedTuple):
    r"""The variables a layer can use for each of its inputs.

    Slot s offers source channels ``members[s]`` to carry target channel ``channel[s]``: member k holds
    ``gain[s, k]`` times the (signed part of the) channel, and the subset-sum target of weight w is
    ``factor[s] w``. After the first target layer a slot is a channel and its m copies; at the input each
    channel has one slot for x⁺ and one for x⁻, or one for all of x where phi has the same slope on both sides
    of 0. A missing member has gain 0 and is never chosen.
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
    """What every member holds besides, d = phi(0) of univariate channels: cancelled tap by tap."""

    @property
    def carried(self) -> bool:
        """Whether the members are copies, so that a skip can carry them on."""
        return bool((self.gain == 1).all())


def copies(columns: Int[np.ndarray, "channels m"]) -> Slots:
    """The slots of a hidden layer whose channel j is carried by the source channels ``columns[j]``."""
    channel = np.arange(len(columns))
    plain = np.zeros(len(columns), int)
    ones = np.ones(columns.shape)
    return Slots(columns, ones, channel, np.ones(len(columns)), plain, ones > 0)


def univariate(
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
      per_slot: members wanted in each slot.
      signs: (1, -1), or (1,) for an input known to be non-negative.
    """
    cin = len(alpha)
    if info.mu_plus == info.mu_minus:
        signs, per_slot = (0,), 2 * per_slot
    channel = np.repeat(np.arange(cin), len(signs))
    sign = np.tile(np.array(signs), cin)
    members = np.zeros((len(channel), per_slot), int)
    gain = np.zeros(members.shape)
    have = np.zeros(len(channel), int)
    for n, own in enumerate(alpha.T):
        value = own[channel]
        fits = (have < per_slot) & (value != 0) & (sign * value >= 0)
        s = int(np.argmin(np.where(fits, have, per_slot)))
        if fits[s]:
            members[s, have[s]] = n
            gain[s, have[s]] = value[s] * (sign[s] or 1)
            have[s] += 1
    mu = info.mu_plus + (info.mu_minus if len(signs) == 2 else 0)
    factor = np.where(sign == 0, 1, sign) / mu
    return Slots(members, gain, channel, factor, sign, gain != 0, info.offset)


def source_network(
    target: Network,
    multiplicity: int,
    *,
    copies_per_sign: int,
    constants: int,
    skip: str = "carried",
    own_biases: bool = False,
    depth: str = "L+1",
) -> Network:
    """The spec of a source wide enough for ``target`` (see the module).

    Args:
      target: spec without batch norm.
      multiplicity: m >= 1, copies of each hidden channel.
      copies_per_sign: univariate channels wanted for each input channel and sign.
      constants: K, constant channels of each hidden layer; 0 makes a source without any bias. In 2L no other
        number counts: see `MOST_CONSTANTS`.
      skip: "carried" (identity and option A are carried from copy to copy) or "random" (every skip is a
        random 1x1 convolution, to be pruned).
      own_biases: whether every layer has random biases, so that constants are made afresh and a neuron's own
        bias is one more variable; else univariate layers alone have, and constants come from there.
      depth: "L+1", or "2L": every linear layer, in skips too, behind a layer "<name>.univariate".
    Raises: ValueError if m < 1 or the target does not end in a linear layer.
    """
    if multiplicity < 1:
        raise ValueError(f"source.multiplicity must be at least 1, got {multiplicity}")
    if skip not in ("carried", "random"):
        raise ValueError(f"source.skip is carried or random, got {skip!r}")
    if depth not in ("L+1", "2L"):
        raise ValueError(f"solver.depth is L+1 or 2L, got {depth!r}")
    last = output_layer(target)
    if depth == "2L":
        return _two_layers(target, copies_per_sign, constants > 0, skip, own_biases)
    cin = target.input_shape[-1]
    # Signs are random and half of the biases are negative: twice as many channels as slots can use.
    width = 2 * copies_per_sign * cin + 2 * constants
    rank = len(target.input_shape) - 1
    first = (
        Conv(UNIVARIATE, width, (1,) * rank, use_bias=constants > 0)
        if rank
        else Dense(UNIVARIATE, width, use_bias=constants > 0)
    )

    def widen(layers: tuple[Layer, ...], cin: int) -> tuple[Layer, ...]:
        out: list[Layer] = []
        shape_channels = cin
        for layer in layers:
            if isinstance(layer, Conv | Dense):
                shape_channels = layer.features
                features = layer.features if layer is last else multiplicity * layer.features + constants
                out.append(replace(layer, features=features, use_bias=own_biases))
            elif isinstance(layer, Residual):
                branch = widen(layer.branch, shape_channels)
                cout = _features(layer.branch)
                out.append(replace(layer, branch=branch, skip=widen_skip(layer, shape_channels, cout)))
                shape_channels = cout
            else:
                out.append(layer)
        return tuple(out)

    def widen_skip(block: Residual, cin: int, cout: int) -> tuple[Layer, ...]:
        wide = multiplicity * cout + constants
        match block.skip:
            case () if skip == "carried":
                return ()
            case (Subsample(stride, channels),) if skip == "carried":
                return (Subsample(stride, carried_channels(channels, cin, multiplicity, constants)),)
            case (Conv() | Dense() as projection,):
                return (replace(projection, features=wide, use_bias=False),)
            case (Subsample(stride, _),):
                return (Conv(SKIP, wide, (1,) * len(stride), stride, use_bias=False),)
        last = next(layer for layer in reversed(block.branch) if isinstance(layer, Conv | Dense))
        if isinstance(last, Dense):
            return (Dense(SKIP, wide, use_bias=False),)
        return (Conv(SKIP, wide, (1,) * len(last.kernel), use_bias=False),)

    return Network(target.input_shape, (first, first_activation(target), *widen(target.layers, cin)))


def split(width: int, cin: int, biases: bool) -> tuple[int, int]:
    """Channels for each input and sign, and K, of a univariate layer of 2L that has this width."""
    if not biases:
        return width // (2 * cin), 0
    if width <= MOST_CONSTANTS * (cin + 2):
        copies = width // (2 * (cin + 2))
        return copies, 2 * copies
    return (width - 2 * MOST_CONSTANTS) // (2 * cin), MOST_CONSTANTS


def _two_layers(target: Network, copies_per_sign: int, biases: bool, skip: str, own_biases: bool) -> Network:
    act = first_activation(target)

    def linear(layer: Conv | Dense, shape: Shape, flat: Flatten | None, bias: bool) -> tuple[Layer, ...]:
        """A univariate layer reads channels, so it stands before the flattening."""
        rank, cin = len(shape) - 1, shape[-1]
        constants = min(2 * copies_per_sign, MOST_CONSTANTS) if biases else 0
        width, name = 2 * (copies_per_sign * cin + constants), f"{layer.name}.{UNIVARIATE}"
        first = (
            Conv(name, width, (1,) * rank, use_bias=biases) if rank else Dense(name, width, use_bias=biases)
        )
        return first, act, *(() if flat is None else (flat,)), replace(layer, use_bias=bias)

    def double(layers: tuple[Layer, ...], shape: Shape) -> tuple[Layer, ...]:
        out: list[Layer] = []
        flat = None
        for layer in layers:
            match layer:
                case Flatten():
                    flat = layer
                    continue
                case Conv() | Dense():
                    out += linear(layer, shape, flat, own_biases)
                    shape = (layer.features,) if isinstance(layer, Dense) else layer.output_shape(shape)
                    flat = None
                    continue
                case Residual():
                    doubled = double(layer.branch, shape)
                    out.append(replace(layer, branch=doubled, skip=double_skip(layer, shape)))
                case _:
                    out.append(layer)
            shape = layer.output_shape(shape)
        return (*out, *(() if flat is None else (flat,)))

    def double_skip(block: Residual, shape: Shape) -> tuple[Layer, ...]:
        match block.skip:
            case () if skip == "carried":
                return ()
            case (Subsample(),) if skip == "carried":
                return block.skip
            case (Conv() | Dense() as projection,):
                return linear(projection, shape, None, False)
            case (Subsample(stride, channels),):
                return linear(Conv(SKIP, len(channels), (1,) * len(stride), stride), shape, None, False)
        features, rank = _features(block.branch), len(shape) - 1
        layer = Conv(SKIP, features, (1,) * rank) if rank else Dense(SKIP, features)
        return linear(layer, shape, None, False)

    return Network(target.input_shape, double(target.layers, target.input_shape))


def carried_channels(channels: tuple[int, ...], cin: int, m: int, constants: int) -> tuple[int, ...]:
    """Option A for copies: copy k of output j is copy k of input ``channels[j]``; constants stay so."""
    copied = tuple(-1 if i < 0 else i * m + k for i in channels for k in range(m))
    return copied + tuple(cin * m + k for k in range(constants))


def first_activation(target: Network) -> Activation:
    """The activation of the extra first layer: the first one of the target (ReLU if it has none)."""

    def search(layers: tuple[Layer, ...]) -> Activation | None:
        for layer in layers:
            if isinstance(layer, Activation):
                return layer
            if isinstance(layer, Residual) and (found := search(layer.branch)):
                return found
        return None

    return search(target.layers) or Activation("relu")


def output_layer(target: Network) -> Conv | Dense:
    """The last linear layer, whose outputs need one copy each.

    Raises: ValueError if the last layer with parameters is a residual block or there is none.
    """
    last = next((layer for layer in reversed(target.layers) if getattr(layer, "name", None)), None)
    if not isinstance(last, Conv | Dense):
        raise ValueError(f"the target must end in a convolution or dense layer (after folding), got {last}")
    return last


def _features(branch: tuple[Layer, ...]) -> int:
    return next(layer.features for layer in reversed(branch) if isinstance(layer, Conv | Dense))
