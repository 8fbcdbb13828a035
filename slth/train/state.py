"""The state of a training on disk: kept after each epoch, found again only by the same training."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Int

from slth.data import Data
from slth.interop.files import write_whole
from slth.nn.network import Network
from slth.train.progress import LOG, Epoch
from slth.train.settings import Settings
from slth.types import Params


class State(NamedTuple):
    """Parameters, the optimiser's memory and the number of steps done."""

    params: Params
    optimiser: Any
    steps: Int[Array, ""]


def identity_of(network: Network, data: Data, settings: Settings) -> dict[str, str]:
    """What must be equal for a run to go on."""
    digest = hashlib.sha256(np.ascontiguousarray(data.train_images).data)
    digest.update(np.ascontiguousarray(data.train_labels).data)
    return {
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "data": digest.hexdigest(),
    }


def keep(path: Path, state: State, history: list[Epoch], identity: Mapping[str, str]) -> None:
    """Write the state, whole or not at all."""
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    metadata = {**identity, "history": json.dumps([epoch._asdict() for epoch in history])}
    write_whole(path, safetensors.numpy.save(leaves, metadata))


def resume(path: Path, state: State, identity: Mapping[str, str]) -> tuple[State, list[Epoch]]:
    """The state and history that the file holds; those given if there is no file."""
    if not path.exists():
        return state, []
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            leaves = [file.get_tensor(str(i)) for i in range(len(list(file.keys())))]
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to train anew") from error
    differing = [field for field, value in identity.items() if metadata.get(field, "") != value]
    if differing:
        raise ValueError(
            f"{path} holds a training with another {' and '.join(differing)}: remove it or use another folder"
        )
    history = [Epoch(**fields) for fields in json.loads(metadata["history"])]
    LOG.info("training goes on from epoch %d, found in %s", len(history), path)
    return jax.tree.unflatten(jax.tree.structure(state), map(jnp.asarray, leaves)), history
