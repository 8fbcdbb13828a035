"""Random small targets with tickets, good and bad, and a search for inputs on which their error is large."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slth import Best, Smallest, Target, construct, nn
from slth.construction import Construction, prune
from slth.nn.graph import sums
from slth.nn.layers import Activation, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.source import parameters
from tests.construction.nets import source_of
from tests.construction.reference import forward, masked

M, CONSTANTS = 3, 3
SKIPS = ("identity", "identity, random", "option A", "option A, random", "projection", "weights")


class Ticket(NamedTuple):
    """A construction and the kept parameters of its source."""

    made: Construction
    kept: dict

    @property
    def target(self):
        return self.made.target

    @property
    def wide(self):
        return self.made.source.network

    def error(self, x):
        """|target - lambda ticket| in NumPy and float64."""
        right = forward(self.target.network, self.target.params, x)[""]
        return np.abs(right - self.made.factor * forward(self.wide, self.kept, x)[""])


def ticket_of(made):
    return Ticket(made, masked(made.mask, parameters(made.source)))


def random_network(rng, *kinds):
    """A target of one or two spatial axes (or none) with random geometry, and the skip of its source.

    It has two to four linear layers, pooling or not, a block or not, and a dense or convolutional end; its
    activations are of the kinds in turn.
    """
    while True:
        rank = rng.choice([0, 1, 2, 2, 2])
        act, *others = (Activation(kind, 0.3) for kind in kinds)
        inner = others[0] if others else act
        shape = (*rng.integers(4, 7, rank).tolist(), int(rng.integers(1, 3)))
        layers, skip = [Flatten("chw")] if rank and rng.random() < 0.1 else [], "carried"
        flat = bool(layers) or not rank
        layers += [_linear(rng, "a", flat, rank), act]
        if not flat and rng.random() < 0.5:
            layers.append(_pool(rng, rank))
        if rng.random() < 0.6:
            block, skip = _block(
                rng, flat, rank, layers[-2 if isinstance(layers[-1], Activation) else -3], inner
            )
            layers += [block, act]
        if rng.random() < 0.3:
            layers += [_linear(rng, "m", flat, rank), act]
        if not flat and rng.random() < 0.3:
            layers.append(_pool(rng, rank))
        if not flat and rng.random() < 0.2:
            layers.append(_linear(rng, "z", flat, rank))
        else:
            order = str(rng.choice(["hwc", "chw"]))
            ends = [] if flat else [GlobalMean() if rng.random() < 0.4 else Flatten(order)]
            layers += [*ends, Dense("z", 3)]
        try:
            return Network(shape, tuple(layers)), skip
        except ValueError:
            continue


def branching_network(rng, *kinds):
    """A target with convolutions of several groups and concatenations, and the skip of its source; its
    activations are of the kinds in turn."""
    while True:
        rank = int(rng.integers(1, 3))
        acts = [Activation(kind, 0.3) for kind in kinds]
        shape = (*rng.integers(4, 7, rank).tolist(), int(rng.integers(1, 3)))
        channels = 2 * int(rng.integers(1, 3))
        layers = [_linear(rng, "a", flat=False, rank=rank, features=channels), acts[0]]
        for name in ("r", "s")[: rng.integers(1, 3)]:
            part, channels = _branching(rng, name, channels, rank, acts[-1])
            layers += [part, acts[0]]
        ends = [
            GlobalMean() if rng.random() < 0.4 else Flatten(str(rng.choice(["hwc", "chw"]))),
            Dense("z", 3),
        ]
        layers += ends if rng.random() < 0.8 else [_grouped(rng, "z", channels, rank)]
        try:
            return Network(shape, tuple(layers)), "random" if rng.random() < 0.3 else "carried"
        except ValueError:
            continue


def _branching(rng, name, cin, rank, act):
    """A layer of several groups or a block with one, or a concatenation, and its number of channels."""

    def same(name, features, groups=1, taps=3):
        pads = ((taps // 2, taps // 2),) * rank
        return Conv(name, features, (taps,) * rank, padding=pads, groups=groups)

    kind = int(rng.integers(5))
    if kind == 0:
        layer = _grouped(rng, name, cin, rank)
        return layer, layer.features
    if kind == 1:  # an inverted residual
        return Residual(name, (same("u", 4, taps=1), act, same("d", 4, 4), act, same("v", cin, taps=1))), cin
    if kind == 2:
        return Residual(name, (same("u", cin, cin),), (same("w", cin, cin, taps=1),)), cin
    if kind == 3:  # of a dense block
        return Concat(name, ((), (act, same("u", 2)))), cin + 2
    return Concat(
        name, ((same("u", 2, taps=1), act), (same("v", 2 * cin, cin),), (same("w", 2),))
    ), 2 * cin + 4


def _grouped(rng, name, cin, rank):
    """A convolution of cin channels in as many groups, or in two."""
    layer = _linear(rng, name, flat=False, rank=rank, features=cin * int(rng.integers(1, 3)))
    return replace(layer, groups=int(rng.choice([2, cin])))


def _linear(rng, name, flat, rank, features=None):
    features = int(rng.integers(2, 4)) if features is None else features
    if flat:
        return Dense(name, features, use_bias=bool(rng.random() < 0.8))
    kernel = tuple(rng.integers(1, 4, rank).tolist())
    return Conv(
        name,
        features,
        kernel,
        tuple(rng.integers(1, 3, rank).tolist()),
        tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel),
        tuple(rng.integers(1, 3, rank).tolist()),
        use_bias=bool(rng.random() < 0.8),
    )


def _pool(rng, rank):
    window = tuple(rng.integers(1, 4, rank).tolist())
    return Pool(
        str(rng.choice(["max", "mean"])),
        window,
        tuple(rng.integers(1, 3, rank).tolist()),
        tuple((int(rng.integers(0, w)), int(rng.integers(0, w))) for w in window),
        incomplete=bool(rng.random() < 0.5),
        count_padding=bool(rng.random() < 0.5),
    )


def _block(rng, flat, rank, before, act):
    skip = str(rng.choice(SKIPS))
    cin = before.features
    random = "random" if "random" in skip else "carried"
    if flat:
        skip = skip.replace("option A", "identity")
        cout = cin + 1 if skip == "projection" else cin
        skips = {"projection": (Dense("s", cout),), "weights": (ChannelScale("s"),)}
        return Residual("r", (Dense("u", 3), act, Dense("v", cout)), skips.get(skip, ())), random
    ones, same = (1,) * rank, ((1, 1),) * rank
    stride = (2,) * rank if skip.startswith(("option", "proj")) else ones
    cout = cin + 1 if stride != ones else cin
    branch = (Conv("u", 2, (3,) * rank, stride, same), act, Conv("v", cout, (3,) * rank, padding=same))
    skips = {
        "projection": (Conv("s", cout, ones, stride),),
        "weights": (ChannelScale("s"),),
        "option A": (Subsample(stride, (*range(cin), -1)),),
        "option A, random": (Subsample(stride, (*range(cin), -1)),),
    }
    branch = branch if rng.random() < 0.7 else (act, *branch)
    return Residual("r", branch, skips.get(skip, ())), random


def drawn_target(rng, network):
    shapes = jax.eval_shape(lambda: nn.init(network, jax.random.key(0)))
    draw = lambda a: rng.normal(size=a.shape) * np.sqrt(2 / max(np.prod(a.shape[:-1]), 4))  # noqa: E731
    return Target(network, jax.tree.map(lambda a: draw(a).astype(np.float32), shapes))


def random_ticket(rng, network, skip="carried", *, solved, depth="L+1"):
    """Random parameters, a random source, and a mask: constructed, or drawn without a look at the target."""
    target = drawn_target(rng, network)
    seed = int(rng.integers(2**32))
    source = source_of(network, M, seed=seed, skip=skip, constants=CONSTANTS, bias_scale=2.0, depth=depth)
    if not solved:
        return drawn_ticket(rng, target, source)
    return ticket_of(construct(target, source, (Best, Smallest)[rng.integers(2)]()))


def drawn_ticket(rng, target, source, factor=0.7, scales=None):
    """A ticket whose mask is drawn: copy k of channel j is source channel j M + k; in 2L it is j."""
    nodes = sums(target.network)
    m = 1 if source.layout.depth == "2L" else M
    ones = {step.path: np.ones(step.features) for step in nodes}
    columns = {
        step.path: np.arange(step.features * (m if step is not nodes[-1] else 1)).reshape(step.features, -1)
        for step in nodes
    }
    mask = _random_mask(rng, source)
    made = Construction(target, source, mask, factor, (), target.params, ones | (scales or {}), columns)
    return ticket_of(made)


def _random_mask(rng, source):
    layers = {}
    for path, shape in nn.parameter_shapes(source.network).items():
        layer, _, leaf = path.rpartition("/")
        layers.setdefault(layer, {})[leaf] = rng.random(shape) < 0.5
    for one in source.layout.univariate:
        kept = layers[one.path]
        rows = kept["kernel"].shape[-2]
        reads = rng.integers(-1, rows, one.width)
        if one.groups > 1:  # what stands beside groups is constant
            reads[one.first_constant :] = -1
        kept["kernel"] = (np.arange(rows)[:, None] == reads).reshape(kept["kernel"].shape)
        kept["bias"] &= reads < 0
    return prune(source.network, nn.nested(layers))


def largest_share(tickets, low, high, bounds, *, starts=4, steps=10, seed=0):
    """For tickets of one target spec, the largest |error| / bound that ascent finds, in float64.

    Args:
      low, high: (tickets, n, *shape), the sets of inputs.
      bounds: several arrays (tickets, n, *outputs); each has a share of its own, for the same inputs.
    """
    target, wide = tickets[0].target.network, tickets[0].wide
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):

        def share(x, params, kept, factor, bound):
            right = nn.apply(target, params, x[None])[0]
            return (jnp.abs(right - factor * nn.apply(wide, kept, x[None])[0]) / bound).max()

        def climb(x, low, high, params, kept, factor, bound):
            def one(carry, step):
                x, best = carry
                here, slope = jax.value_and_grad(share)(x, params, kept, factor, bound)
                x = jnp.clip(x + step * (high - low) * jnp.sign(slope), low, high)
                return (x, jnp.maximum(best, here)), None

            return jax.lax.scan(one, (x, 0.0), 0.6 ** jnp.arange(steps))[0][1]

        sets = jax.vmap(climb, (0, 0, 0, None, None, None, 0))
        run = jax.jit(jax.vmap(sets, (0, 0, 0, 0, 0, 0, 0)))
        stack = lambda *a: np.stack([np.asarray(b, np.float64) for b in a])  # noqa: E731
        params, kept = (
            jax.tree.map(stack, *trees)
            for trees in ([t.target.params for t in tickets], [t.kept for t in tickets])
        )
        factor = np.array([t.made.factor for t in tickets])
        worst = np.zeros(len(bounds))
        for number in range(starts):
            part = rng.random(low.shape)
            x = low + (high - low) * (np.round(part) if number % 2 else part)
            for index, bound in enumerate(bounds):
                worst[index] = max(
                    worst[index],
                    float(run(x, low, high, params, kept, factor, np.maximum(bound, 1e-300)).max()),
                )
    return worst
