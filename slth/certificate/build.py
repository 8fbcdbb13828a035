"""The `Pair` of a target and its ticket, from their networks, parameters and mask, in float64."""

import math

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Bool, Float, Int

from slth.certificate.arithmetic import UNIT, correlate, gamma, is_max, pool, terms
from slth.certificate.moves import carried, flattened, spread, spread_index
from slth.certificate.pair import Carry, Map, Pair, Place, Pointwise, Pooling, Reshape, Step, Sum, Univariate
from slth.certificate.slopes import ROUNDING, evaluate, info_of
from slth.construct import Construction
from slth.construct.prune import read_channels
from slth.construct.scale import skip_kernel
from slth.nn.layers import Activation, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.source import Source, parameter, parameter_shapes
from slth.types import Params

Array = np.ndarray


def build(
    target: Network, params: Params, source: Source, construction: Construction, *, signed: bool
) -> Pair:
    """Target and ticket side by side, reduced to the channels that the ticket reads.

    Args:
      params: the target's own, not balanced.
      signed: whether an input may be negative.
    Raises: ValueError if the construction is not one of this target and source, or the target begins with
      something that is neither linear nor a reshape.
    """
    builder = _Builder(target, source, construction)
    first = builder.univariate(signed)
    layers = source.network.layers[2:]
    builder.walk(target.layers, layers, params, construction.params, 0, "")
    return Pair(signed, first, tuple(builder.places), tuple(builder.steps), construction.factor)


class _Builder:
    """Walks target and source together and collects places and steps."""

    def __init__(self, target: Network, source: Source, construction: Construction):
        self.target, self.source, self.construction = target, source, construction
        self.masks = flatten_dict(construction.mask, sep="/")
        self.read = read_channels(source.network, construction.mask)
        self.last = [layer for layer in target.layers if isinstance(layer, Conv | Dense)][-1]
        self.homogeneous = all(info_of(layer).homogeneous for layer in _activations(target.layers))
        self.places: list[Place] = []
        self.steps: list[Step] = []
        self.kept: list[Bool[Array, " source_channels"]] = []
        """By place, which of the source's channels something reads."""
        self.scale: list[Float[Array, " references"]] = []
        """By place, d: the factor of each value of the target; -1 for x-."""
        self.inputs: list[Int[Array, " references"]] = []
        """By place, which input of the target's own layers each value is, or is a part of."""

    def add(self, step: Step | None, place: Place, kept: Array, scale: Array, inputs: Array) -> int:
        if step is not None:
            self.steps.append(step)
        self.places.append(place)
        self.kept.append(kept)
        self.scale.append(scale)
        self.inputs.append(inputs)
        return len(self.places) - 1

    def masked(self, path: str) -> Float[Array, "..."]:
        """What the mask keeps of a parameter of the source."""
        mask = np.asarray(self.masks[path])
        shape = parameter_shapes(self.source.network).get(path)
        if mask.shape != shape:
            raise ValueError(f"certificate: mask {path} has shape {mask.shape}, the source has {shape}")
        return np.where(mask, np.asarray(parameter(self.source, path)), 0).astype(np.float64)

    def univariate(self, signed: bool) -> Univariate:
        """Place 0: phi(alpha x) = phi(0) + p x+ - q x-, with p and q its slopes in x on both sides of 0."""
        layer, activation = self.source.network.layers[:2]
        if not isinstance(layer, Conv | Dense) or not isinstance(activation, Activation):
            raise ValueError("certificate: the source does not begin with a univariate layer")
        kept = self.read[layer.name]
        kernel = self.masked(f"{layer.name}/kernel")
        kernel = kernel.reshape(-1, kernel.shape[-1])[:, kept]
        bias = self.masked(f"{layer.name}/bias")[kept] if layer.use_bias else np.zeros(kernel.shape[1])
        if ((kernel != 0).sum(0) + (bias != 0) > 1).any():
            raise ValueError("certificate: a channel of the first source layer is not univariate")
        cin = len(kernel)
        index = np.abs(kernel).argmax(0)
        alpha = kernel[index, np.arange(kernel.shape[1])]
        info = info_of(activation)
        right = np.where(alpha > 0, info.mu_plus, info.mu_minus) * alpha
        left = np.where(alpha > 0, info.mu_minus, info.mu_plus) * alpha
        owner, gain = index[None], right[None]
        if signed:
            owner, gain = np.stack([index, cin + index]), np.stack([right, -left])
        constant = evaluate(activation, bias)  # of a copy phi(0): the offset d
        shape = self.target.input_shape
        constants = np.broadcast_to(constant, (*shape[:-1], len(alpha)))
        place = Place((*shape[:-1], cin * (1 + signed)), owner, gain, constants)
        signs = np.repeat([1.0, -1.0], cin)[: cin * (1 + signed)]
        self.add(None, place, kept, signs, np.arange(len(signs)) % cin)
        return Univariate(activation, alpha, index, ROUNDING * np.abs(constant))

    def walk(
        self,
        layers: tuple[Layer, ...],
        wide: tuple[Layer, ...],
        params: Params,
        balanced: Params,
        at: int,
        path: str,
    ) -> int:
        """The steps of a sequence of layers that begins at place ``at``; the place behind it."""
        for layer, source_layer in zip(layers, wide, strict=True):
            match layer:
                case Conv() | Dense():
                    own, values = f"{path}{layer.name}", (params[layer.name], balanced[layer.name])
                    at = self.node(own, [(own, layer, at, *values)], None)
                case Residual():
                    assert isinstance(source_layer, Residual)
                    values = params[layer.name], balanced[layer.name]
                    at = self.block(layer, source_layer, *values, at, f"{path}{layer.name}/")
                case Flatten():
                    at = self.flatten(layer, at)
                case Activation() | Pool() | GlobalMean():
                    at = self.pointwise(layer, at)
                case _:
                    raise ValueError(f"certificate: {layer} is no layer of a construction (fold batch norm)")
        return at

    def block(
        self, block: Residual, wide: Residual, params: Params, balanced: Params, at: int, path: str
    ) -> int:
        last = block.branch[-1]
        assert isinstance(last, Conv | Dense)
        inside = params["branch"], balanced["branch"]
        inner = self.walk(block.branch[:-1], wide.branch[:-1], *inside, at, f"{path}branch/")
        own = f"{path}branch/{last.name}"
        maps = [(own, last, inner, *(values[last.name] for values in inside))]
        carry = None
        match wide.skip:
            case (Conv() | Dense() as random,):
                skip = [self._skip(block, values, random, at) for values in (params, balanced)]
                maps.append((f"{path}skip/{random.name}", random, at, *skip))
            case ():
                size, rank = last.features, len(self.places[at].shape) - 1
                count = len(self.kept[at])
                carry = Carry(at, (1,) * rank, np.arange(size), np.arange(count))
            case (Subsample(stride, channels),):
                (option_a,) = block.skip
                assert isinstance(option_a, Subsample)
                carry = Carry(at, stride, np.array(option_a.channels), np.array(channels))
            case _:
                raise ValueError(f"certificate: {block.name} has a skip that no construction makes")
        return self.node(own, maps, carry)

    def _skip(self, block: Residual, values: Params, random: Conv | Dense, at: int) -> Params:
        """The target's skip as parameters of the 1x1 convolution (or dense layer) that carries it."""
        own = values.get("skip", {})
        if block.skip and isinstance(block.skip[0], Conv | Dense):
            return own[block.skip[0].name]
        kernel = skip_kernel(block, own, self.places[at].shape[-1])
        ones = (1,) * len(random.kernel) if isinstance(random, Conv) else ()
        return {"kernel": kernel.reshape(*ones, *kernel.shape)}

    def node(
        self, path: str, maps: list[tuple[str, Conv | Dense, int, Params, Params]], carry: Carry | None
    ) -> int:
        """A sum: weights wanted and kept, their errors, and by how much the constants miss the biases."""
        features = maps[0][1].features
        kept = self.read[path]
        owner = np.full(len(kept), -1)
        owner[self.construction.columns[path]] = np.arange(features)[:, None]
        owner = owner[kept]
        scale = self._scale(maps[0], carry)
        bias = sum(np.asarray(own.get("bias", np.zeros(features)), np.float64) for *_, own, _ in maps) * scale
        built, constant, rounding = [], 0.0, 0.0
        for name, layer, at, own, _ in maps:
            one = self._map(name, layer, at, own, scale, owner, kept)
            place = self.places[at]
            built.append(one)
            constant = constant + correlate(layer, place.constant[None], one.kept)[0]
            size = correlate(layer, np.abs(place.constant)[None], np.abs(one.kept))[0]
            rounding = rounding + gamma(terms(one.kept)) * size
        if carry is not None:
            carry = self._carry(path, carry, kept, owner)
            constant = (
                constant + carried(carry.stride, carry.ticket, self.places[carry.reads].constant[None])[0]
            )
        owned = owner >= 0
        wanted = np.where(owned, bias[owner], 0.0)
        rounding = rounding + 8 * UNIT * (np.abs(wanted) + np.abs(constant))
        offset = np.where(owned, constant - wanted, 0.0)
        step = Sum(path, tuple(built), carry, bias, offset, rounding)
        shape = (*offset.shape[:-1], features)
        gain = owned.astype(np.float64)[None]
        place = Place(shape, np.maximum(owner, 0)[None], gain, np.where(owned, 0.0, constant))
        return self.add(step, place, kept, scale, np.arange(features))

    def _scale(self, first: tuple[str, Conv | Dense, int, Params, Params], carry: Carry | None) -> Array:
        """d of the outputs: what a skip carries, 1 / lambda at the end, else balanced over own weights."""
        _, layer, at, own, balanced = first
        if layer is self.last:
            return np.full(layer.features, 1 / self.construction.factor)
        if not self.homogeneous:
            return np.ones(layer.features)
        before = np.ones(int(self.inputs[at].max()) + 1)
        before[self.inputs[at]] = np.abs(self.scale[at])
        a, b = (np.asarray(values["kernel"], np.float64) for values in (own, balanced))
        a, b = (
            (k / d[:, None]).reshape(-1, layer.features) for k, d in ((a, before), (b, np.ones_like(before)))
        )
        power, product = (a * a).sum(0), (a * b).sum(0)
        if "bias" in own:
            c, e = (np.asarray(values["bias"], np.float64) for values in (own, balanced))
            power, product = np.where(power > 0, power, c * c), np.where(power > 0, product, c * e)
        scale = np.divide(product, power, out=np.ones(layer.features), where=power > 0)
        scale = np.where(scale > 0, scale, 1.0)
        if carry is not None:
            scale = np.where(carry.target >= 0, self.scale[carry.reads][carry.target], scale)
        return scale

    def _map(
        self, name: str, layer: Conv | Dense, at: int, own: Params, scale: Array, owner: Array, kept: Array
    ) -> Map:
        place = self.places[at]
        wanted = np.asarray(own["kernel"], np.float64)[..., self.inputs[at], :]
        wanted = wanted / self.scale[at][:, None] * scale
        weights = self.masked(f"{name}/kernel")[..., self.kept[at], :][..., kept]
        sums = np.zeros((len(self.inputs[at]), *weights.shape[:-2], weights.shape[-1]))
        by_channel = np.moveaxis(weights, -2, 0)
        for index, gain in zip(place.owner, place.gain, strict=True):
            np.add.at(sums, index, by_channel * gain.reshape(-1, *(1,) * (weights.ndim - 1)))
        aim = np.where(owner >= 0, wanted[..., owner], 0.0)
        return Map(layer, at, wanted, weights, np.moveaxis(sums, 0, -2) - aim)

    def _carry(self, path: str, carry: Carry, kept: Array, owner: Array) -> Carry:
        """The skip among the kept channels; copies must be carried to copies of the right channel."""
        number = np.where(self.kept[carry.reads], np.cumsum(self.kept[carry.reads]) - 1, -1)
        ticket = carry.ticket[kept]
        ticket = np.where(ticket >= 0, number[ticket], -1)
        place = self.places[carry.reads]
        before = np.where(ticket >= 0, np.where(place.owned, place.owner[0], -1)[ticket], -1)
        if (before != np.where(owner >= 0, carry.target[owner], -1)).any() or len(place.owner) > 1:
            raise ValueError(
                f"certificate: the skip of {path} does not carry copies to copies of the same channel"
            )
        return carry._replace(ticket=ticket)

    def flatten(self, layer: Flatten, at: int) -> int:
        """Features in the layer's order; the target's and the ticket's channels alike."""
        place = self.places[at]
        *space, channels = place.shape
        order, positions = layer.order, math.prod(space)
        if not space:
            return at
        inputs, own = self.inputs[at], int(self.inputs[at].max()) + 1
        flat = Place(
            (positions * channels,),
            spread_index(place.owner, channels, order, positions),
            spread(place.gain, order, positions),
            flattened(layer, place.constant[None])[0],
        )
        return self.add(
            Reshape(at, layer),
            flat,
            spread(self.kept[at], order, positions),
            spread(self.scale[at], order, positions),
            spread_index(inputs, own, order, positions),
        )

    def pointwise(self, layer: Activation | Pool | GlobalMean, at: int) -> int:
        """The same function on every channel of target and ticket."""
        place, constant = self.places[at], self.places[at].constant
        if at == 0 and (isinstance(layer, Activation) or is_max(layer)):
            raise ValueError(f"certificate: {layer} reads the network's input; put a linear layer before it")
        if isinstance(layer, Activation):
            constant = np.where(place.owned, 0.0, evaluate(layer, constant))
            step: Step = Pointwise(at, layer, ROUNDING * np.abs(constant))
        else:
            constant = pool(layer, constant[None])[0]
            step = Pooling(at, layer, ROUNDING * np.abs(constant))
        shape = (*constant.shape[:-1], place.shape[-1])
        place = place._replace(shape=shape, constant=constant)
        return self.add(step, place, self.kept[at], self.scale[at], self.inputs[at])


def _activations(layers: tuple[Layer, ...]) -> list[Activation]:
    found: list[Activation] = []
    for layer in layers:
        if isinstance(layer, Residual):
            found += _activations(layer.branch) + _activations(layer.skip)
        elif isinstance(layer, Activation):
            found.append(layer)
    return found
