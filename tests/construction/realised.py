"""What a mask makes of a source, recomputed in NumPy from mask, parameters and the copies' columns alone.

For every linear node: the sum that each output copy realises of each input of the target, the bias that its
constants add, and the same counts and errors that a `LayerRecord` reports.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from slth.nn.layers import Conv, Dense, Residual
from slth.nn.pooling import Flatten, Subsample
from tests.construction.reference import flat, linear, masked, run


@dataclass
class Copies:
    """Which target channel each source channel carries (-1: none), its sign (0: all of it) and its gain."""

    owner: np.ndarray
    sign: np.ndarray
    gain: np.ndarray


@dataclass
class Node:
    """One sum of linear maps: per problem the target and what is realised, in units of the source's scale."""

    wanted: list = field(default_factory=list)
    realised: list = field(default_factory=list)
    sizes: list = field(default_factory=list)
    power: float = 0.0
    target_power: float = 0.0
    bias_wanted: np.ndarray | None = None
    bias_realised: np.ndarray | None = None
    bias_sizes: np.ndarray | None = None
    scale: float = 1.0
    kept: int = 0
    parameters: int = 0
    columns: np.ndarray | None = None
    target_sum: np.ndarray | float = 0.0
    ticket_sum: np.ndarray | float = 0.0

    def problems(self, bias):
        """Targets, realised values and sizes of all weights that are not 0, in the source's units."""
        t, r, s = (
            np.concatenate([a.reshape(-1) for a in x]) for x in (self.wanted, self.realised, self.sizes)
        )
        if bias:
            t = np.concatenate([t, self.bias_wanted / self.scale])
            r = np.concatenate([r, self.bias_realised / self.scale])
            s = np.concatenate([s, self.bias_sizes])
        return t[t != 0], r[t != 0], s[t != 0]


class Walk:
    """Target and ticket side by side on some images, in float64; ``nodes`` by path."""

    def __init__(self, target, params, source, random, mask, columns, x, *, measured=False):
        self.measured = measured  # whether sums are those of copies of measured gains
        self.source, self.random, self.columns, self.mask = source, random, columns, mask
        self.kept = masked(mask, random)
        self.nodes: dict[str, Node] = {}
        first, act = source.network.layers[:2]
        kernel = self.kept[first.name]["kernel"].reshape(x.shape[-1], -1)
        assert ((kernel != 0).sum(0) <= 1).all(), "a univariate channel reads one input"
        owner = np.where((kernel != 0).any(0), np.abs(kernel).argmax(0), -1)
        alpha = kernel[owner, np.arange(len(owner))]
        where = Copies(owner, np.where(owner < 0, 0, np.sign(alpha)).astype(int), np.abs(alpha))
        self.mu = 1.0 + (act.slope if act.kind == "leaky_relu" else 0.0)
        self.mu = self.mu if (where.sign < 0).any() else 1.0
        self.act = act
        ticket = run((first, act), self.kept, np.asarray(x, np.float64))
        self.x, self.ticket = self._layers(
            target.layers,
            source.network.layers[2:],
            params,
            self.kept,
            mask,
            np.asarray(x, np.float64),
            ticket,
            where,
            "",
        )[:2]

    def _layers(self, layers, wide, params, kept, mask, x, ticket, where, path):
        for layer, source_layer in zip(layers, wide, strict=True):
            name = getattr(layer, "name", None)
            if isinstance(layer, Conv | Dense):
                node = Node()
                self._map(
                    node,
                    layer,
                    source_layer,
                    params[name],
                    kept[name],
                    mask[name],
                    x,
                    ticket,
                    where,
                    path + name,
                )
                x, ticket, where = self._close(node, path + name)
            elif isinstance(layer, Residual):
                x, ticket, where = self._block(
                    layer,
                    source_layer,
                    params[name],
                    kept[name],
                    mask[name],
                    x,
                    ticket,
                    where,
                    f"{path}{name}/",
                )
            else:
                if isinstance(layer, Flatten):
                    where = self._flat(where, layer.order, x.shape[1:], ticket.shape[1:])
                x, ticket = run((layer,), {}, x), run((source_layer,), {}, ticket)
                if not isinstance(layer, Flatten):
                    where = self._with_gains(where, x, ticket)
        return x, ticket, where

    def _with_gains(self, where, x, ticket):
        """Copies with the gains that the images show, where the construction has measured them."""
        if not self.measured or where.sign.any():
            return where
        gain = np.ones(len(where.owner))
        for channel in np.flatnonzero(where.owner >= 0):
            wanted, carried = x[..., where.owner[channel]], ticket[..., channel]
            if (wanted != 0).any():
                gain[channel] = np.clip((wanted * carried).mean() / (wanted**2).mean(), 0.25, 4)
        return replace(where, gain=gain)

    def _block(self, block, wide, params, kept, mask, x, ticket, where, path):
        inner_x, inner_ticket, inner = self._layers(
            block.branch[:-1],
            wide.branch[:-1],
            params["branch"],
            kept["branch"],
            mask["branch"],
            x,
            ticket,
            where,
            f"{path}branch/",
        )
        last = block.branch[-1]
        node = Node()
        tree = (t["branch"][last.name] for t in (params, kept, mask))
        own = f"{path}branch/{last.name}"
        self._map(node, last, wide.branch[-1], *tree, inner_x, inner_ticket, inner, own)
        skip_x = run(block.skip, params.get("skip", {}), x)
        if any(isinstance(layer, Conv | Dense) for layer in wide.skip):
            (solved,) = wide.skip
            values = self._as_convolution(block, params.get("skip", {}), x.shape[-1], solved)
            layer = next((s for s in block.skip if isinstance(s, Conv | Dense)), None)
            layer = layer or replace(solved, features=skip_x.shape[-1])
            self._map(
                node,
                layer,
                solved,
                values,
                kept["skip"][solved.name],
                mask["skip"][solved.name],
                x,
                ticket,
                where,
                f"{path}skip/{solved.name}",
            )
        else:
            node.target_sum = node.target_sum + skip_x
            node.ticket_sum = node.ticket_sum + run(wide.skip, {}, ticket)
        return self._close(node, own)

    @staticmethod
    def _as_convolution(block, values, cin, solved):
        if block.skip and isinstance(block.skip[0], Conv | Dense):
            return values[block.skip[0].name]
        weights = np.eye(cin)
        if block.skip and isinstance(block.skip[0], Subsample):
            weights = np.stack(
                [np.eye(cin)[c] if c >= 0 else np.zeros(cin) for c in block.skip[0].channels], 1
            )
        elif block.skip:
            weights = np.diag(np.asarray(values[block.skip[0].name]["scale"], np.float64))
        return {
            "kernel": weights.reshape(
                *(1,) * (len(solved.kernel) if isinstance(solved, Conv) else 0), *weights.shape
            )
        }

    @staticmethod
    def _flat(where, order, shape, source_shape):
        """Copies of features: each one's number is looked up in a flattened array of numbers."""
        number = np.empty(shape, int)
        number.reshape(-1)[flat(np.arange(np.prod(shape)).reshape(shape), order)] = np.arange(np.prod(shape))
        owner = np.where(where.owner >= 0, number[..., where.owner], -1)
        ones = np.ones((*source_shape[:-1], 1), int)
        return Copies(*(flat(a, order) for a in (owner, ones * where.sign, ones * where.gain)))

    def scale_of(self, path, kernel):
        he = math.sqrt(6 * self.source.multiplicity / math.prod(kernel.shape[:-1]))
        return self.source.scale * (he if self.source.init == "he_uniform" else 1.0)

    def _map(self, node, layer, wide, values, kept, mask, x, ticket, where, path):
        """Add one linear map to a node: the sums of its copies, and the constants' share."""
        kernel, keep = kept["kernel"], np.asarray(mask["kernel"])
        weight = np.asarray(values["kernel"], np.float64)
        beside = wide.beside[0] if isinstance(wide, Conv) else 0
        scale = self.scale_of(path, kernel[..., beside:, :])
        node.kept, node.parameters = node.kept + int(keep.sum()), node.parameters + keep.size
        if isinstance(layer, Conv) and layer.groups > 1:  # the same sums, with zeros between the groups
            weight = layer.whole(weight, x.shape[-1])
            kernel, keep = (wide.whole(a, ticket.shape[-1]) for a in (kernel, keep))
            layer, wide = replace(layer, groups=1), replace(wide, groups=1, beside=(0, 0))
        if "/skip/" not in path:
            node.scale, columns = scale, self.columns[path]
            node.columns = columns
        columns = node.columns.reshape(-1)
        copies = node.columns.shape[1]
        features = weight.shape[-1]
        cin = weight.shape[-2]
        signs = sorted({int(s) for s in where.sign[where.owner >= 0]})
        for sign in signs:
            sums = np.zeros((*weight.shape[:-1], len(columns)))
            sizes = np.zeros(sums.shape, int)
            for i in range(cin):
                members = np.flatnonzero((where.owner == i) & (where.sign == sign))
                gains = where.gain[members].reshape(-1, 1)
                sums[..., i, :] = (kernel[..., members, :][..., columns] * gains).sum(-2)
                sizes[..., i, :] = keep[..., members, :][..., columns].sum(-2)
                node.power += float((kernel[..., members, :][..., columns] ** 2).sum())
            factor = 1.0 if sign == 0 else sign / self.mu
            node.wanted.append(factor * np.repeat(weight, copies, -1) / scale)
            node.realised.append(sums / scale)
            node.sizes.append(sizes)
        node.target_power += float((weight**2).sum()) * copies
        # Constants: what all channels that carry nothing add, the same everywhere.
        rest = where.owner < 0
        share = linear(wide, kernel[..., rest, :], ticket[..., rest])[..., columns]
        first = share[(0,) * (share.ndim - 1)]
        assert np.abs(share - first).max(initial=0) <= 1e-6 * max(1, np.abs(first).max(initial=0)), path
        bias = np.repeat(
            np.broadcast_to(np.asarray(values.get("bias", 0.0), np.float64), (features,)), copies
        )
        count = keep[..., rest, :][..., columns].reshape(-1, len(columns)).sum(0)
        for name, value in (("bias_wanted", bias), ("bias_realised", first), ("bias_sizes", count)):
            before = getattr(node, name)
            setattr(node, name, value if before is None else before + value)
        node.target_sum = (
            node.target_sum + linear(layer, weight, x) + np.asarray(values.get("bias", 0.0), np.float64)
        )
        node.ticket_sum = node.ticket_sum + linear(wide, kernel, ticket)
        if 0 not in signs:  # copies of the input are exact: the sum that the ticket claims, at each position
            claimed = first + sum(
                linear(wide, sums * scale, run((self.act,), {}, sign * x))
                for sign, sums in zip(signs, node.realised, strict=True)
            )
            got = linear(wide, kernel, ticket)[..., columns]
            np.testing.assert_allclose(got, claimed, atol=1e-6 * max(1.0, np.abs(claimed).max()))

    def _close(self, node, path):
        self.nodes[path] = node
        owner = np.full(node.ticket_sum.shape[-1], -1)
        for j, columns in enumerate(node.columns):
            assert (owner[columns] == -1).all()
            owner[columns] = j
        plain = np.zeros(len(owner), int)
        copies = Copies(owner, plain, np.ones(len(owner)))
        copies = self._with_gains(copies, node.target_sum, node.ticket_sum)
        return node.target_sum, node.ticket_sum, copies

    def errors(self, path):
        """Relative L2 error of one copy, and of the mean of the copies."""
        node = self.nodes[path]
        error = node.ticket_sum[..., node.columns] - node.target_sum[..., None]
        power = (node.target_sum**2).mean(tuple(range(node.target_sum.ndim - 1))).sum()
        axes = tuple(range(error.ndim - 2))
        return (
            math.sqrt((error**2).mean(axes).mean(1).sum() / power),
            math.sqrt((error.mean(-1) ** 2).mean(axes).sum() / power),
        )
