"""Channels that nothing reads: changing them changes no output, changing any other one does."""

import jax
import jax.numpy as jnp
import numpy as np

from slth import nn
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.nn.prune import read_channels

SKIP = (Subsample((2,), (1, -1, 3, 0)),)
BLOCK = Residual("block", (Conv("a", 3, (1,), (2,)), Activation("tanh"), Conv("b", 4, (1,))), SKIP)
NETWORK = Network((6, 2), (Conv("stem", 4, (3,)), Activation("tanh"), BLOCK, Flatten("chw"), Dense("out", 2)))
PLACES = ("stem", "block/branch/a", "block/branch/b", "out")


def test_only_unread_channels_are_free(getkey):
    params, found, wanted = nn.init(NETWORK, getkey()), {}, {}
    x = jax.random.normal(getkey(), (5, 6, 2))
    for draw in range(4):
        mask = jax.tree.map(lambda leaf: np.asarray(jax.random.bernoulli(getkey(), 0.35, leaf.shape)), params)
        reads = read_channels(NETWORK, mask)
        masked = jax.tree.map(lambda keep, leaf: jnp.where(keep, leaf, 0), mask, params)
        before = nn.apply(NETWORK, masked, x)
        for path in PLACES:
            *blocks, name = path.split("/")
            for channel, read in enumerate(reads[path]):
                values = masked
                for key in (*blocks, name):
                    values = values[key]
                moved = values | {"bias": jnp.asarray(values["bias"]).at[channel].add(0.5)}
                changed = _with(masked, (*blocks, name), moved)
                found[draw, path, channel] = bool((nn.apply(NETWORK, changed, x) != before).any())
                wanted[draw, path, channel] = bool(read)
    assert found == wanted
    assert set(found.values()) == {True, False}, "the masks leave nothing unread: the test shows nothing"


def _with(tree, path, leaf):
    return leaf if not path else tree | {path[0]: _with(tree[path[0]], path[1:], leaf)}
