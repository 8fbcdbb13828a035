"""Batch norm under a mask: its running statistics, kept apart from what a search finds."""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from slth.data import Data
from slth.nn.forward import apply_train
from slth.nn.graph import by_layer, nested
from slth.nn.network import Network
from slth.nn.prune import masked
from slth.train import Settings
from slth.train.descent import RUNNING
from slth.types import Batch as Images
from slth.types import Mask, Params

SETTLING = 100
"""Batches at most from which batch norm's statistics are taken under the final mask."""


def norms_of(params: Params) -> dict[str, Params]:
    """The running statistics of each batch norm, by the path of its layer."""
    layers = by_layer(params).items()
    return {path: {name: own[name] for name in RUNNING} for path, own in layers if RUNNING[0] in own}


def with_norms(params: Params, norms: Mapping[str, Params]) -> Params:
    """The parameters with other running statistics."""
    return nested({path: own | norms.get(path, {}) for path, own in by_layer(params).items()})


def statistics(network: Network, params: Params, mask: Mask, data: Data, settings: Settings) -> Params:
    """The parameters with the running statistics of the masked network, from one pass over images at most."""
    norms = norms_of(params)
    if not norms:
        return params
    size = min(settings.batch, len(data.train_images))
    sparse = masked(params, mask)
    order = np.random.default_rng(settings.seed).permutation(len(data.train_images))
    for start in range(0, len(order) - size + 1, size)[:SETTLING]:
        images = data.train_images[order[start : start + size]]
        norms = norms_of(_moved(network, with_norms(sparse, norms), images))
    return with_norms(params, jax.tree.map(np.asarray, norms))


@partial(jax.jit, static_argnums=0)
def _moved(network: Network, params: Params, x: Images) -> Params:
    return apply_train(network, params, x)[1]
