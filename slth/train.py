"""Training a target: stochastic gradient descent on the cross-entropy, resumable and the same for a seed."""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float, Int, Key
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slth.data import Data
from slth.interop import save_checkpoint
from slth.nn.network import Network, apply, apply_train, init
from slth.types import Batch, Params

LOG = logging.getLogger(__name__)

STATE = "training.safetensors"
TARGET = "target.safetensors"
RUNNING = ("mean", "var")  # leaves of batch norm that follow the data, not the gradient


@dataclass(frozen=True)
class Settings:
    """How a target is trained; equal settings, spec and data give equal parameters on one machine.

    Args:
      epochs: passes over the training images; each leaves out the last incomplete batch of a fresh order.
      batch: images a step (at most the training part).
      rate: largest learning rate; it rises linearly from 0 and then falls as a half cosine to 0.
      warmup: share of all steps that the rise takes, in [0, 1).
      momentum: of Nesterov, in [0, 1).
      weight_decay: lambda of lambda/2 ||w||^2, on kernels alone.
      shift: images are moved by up to so many pixels on both axes, anew in each epoch; zeros enter.
      mirror: every other image, drawn anew, is mirrored left to right.
      seed: of initial parameters, orders and augmentation.
    """

    epochs: int = 20
    batch: int = 64
    rate: float = 0.1
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 0
    mirror: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("epochs", "batch"):
            if getattr(self, field) < 1:
                raise ValueError(f"train {field} must be at least 1, got {getattr(self, field)}")
        if self.shift < 0:
            raise ValueError(f"train shift must be at least 0, got {self.shift}")
        for field in ("warmup", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"train {field} must lie in [0, 1), got {getattr(self, field)}")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"train rate must be positive and finite, got {self.rate}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"train weight_decay must be at least 0, got {self.weight_decay}")


SETTINGS: Mapping[str, Settings] = {
    "digits": Settings(epochs=60, batch=128, rate=0.2, shift=1),
    "mnist": Settings(epochs=5, batch=128, rate=0.05),
    "cifar10": Settings(epochs=160, batch=128, shift=4, mirror=True),
    "npz": Settings(),
}
"""Settings that suit each data set of `slth.data`."""


class Epoch(NamedTuple):
    """What one pass over the training images gave."""

    epoch: int
    """Passes done, from 1."""
    epochs: int
    loss: float
    """Mean cross-entropy of the pass, in nats."""
    accuracy: float
    """Share of training images with the right top-1, in training mode."""
    seconds: float


class Trained(NamedTuple):
    """A trained target: parameters for `slth.nn.apply`, and the passes that led there."""

    params: Params
    history: tuple[Epoch, ...]


class _State(NamedTuple):
    params: Params
    optimiser: Any
    steps: Int[Array, ""]


def predict(network: Network, params: Params, images: Batch, batch: int = 512) -> Float[np.ndarray, "n *out"]:
    """The network's outputs for any number of images, (n, *out), in batches of one compiled shape.

    Raises: ValueError if there is no image.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate")
    batch = min(batch, len(images))
    outputs = []
    for start in range(0, len(images), batch):
        block = np.asarray(images[start : start + batch])
        absent = batch - len(block)
        padded = np.pad(block, ((0, absent), *((0, 0),) * (block.ndim - 1)))
        outputs.append(np.asarray(_apply(network, params, padded))[: len(block)])
    return np.concatenate(outputs)


_apply = jax.jit(apply, static_argnums=0)


def accuracy(
    network: Network,
    params: Params,
    images: Batch,
    labels: Int[np.ndarray, " n"],
    batch: int = 512,
) -> float:
    """Share of images whose largest output is the label's, in [0, 1].

    Raises: ValueError if there is no image.
    """
    top = predict(network, params, images, batch).argmax(axis=-1)
    return float((top == np.asarray(labels)).mean())


def train(
    network: Network,
    data: Data,
    settings: Settings | None = None,
    *,
    folder: str | Path | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Trained:
    r"""Parameters that approximately minimise the mean of :math:`-\log \mathrm{softmax}(f(x))_y`.

    Nesterov's momentum with weight decay on kernels, a cosine schedule with warm-up; batch norm by the
    batch's statistics while its running ones are gathered. Random choices depend on (seed, epoch, step).

    Args:
      network: the spec; its outputs are logits, one for each class.
      data: the training part is used, the test part never.
      settings: the default is that of ``data.name`` in `SETTINGS`.
      folder: keeps the state after each epoch (`STATE`) and the result (`TARGET`). Called again with the same
        arguments, a broken run goes on to the same parameters and a finished one returns at once.
      report: called after each epoch; the default is a progress bar on a terminal, else lines in the log.
    Raises: ValueError if the data have no training part or do not fit the spec, if the folder holds another
      training, or if the loss stops being finite.
    """
    settings = settings or SETTINGS[data.name]
    _check(network, data)
    count = len(data.train_images)
    batch = min(settings.batch, count)
    optimiser = _optimiser(settings, settings.epochs * (count // batch))
    key = jax.random.key(settings.seed)
    params = init(network, jax.random.fold_in(key, 0))
    state = _State(params, optimiser.init(params), jnp.int32(0))
    state = jax.tree.map(jnp.array, state)  # leaves that share a buffer cannot be donated
    history: list[Epoch] = []
    identity = _identity(network, data, settings) if folder is not None else {}
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        state, history = _resume(Path(folder) / STATE, state, identity)
    step = jax.jit(partial(_step, network, optimiser, settings), donate_argnums=0)
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    with _reporter(settings.epochs, len(history), report) as tell:
        for epoch in range(len(history), settings.epochs):
            start = time.perf_counter()
            epoch_key = jax.random.fold_in(key, epoch + 1)
            order = jax.random.permutation(epoch_key, count)
            sums = jnp.zeros(2)
            for first in range(0, count - batch + 1, batch):
                index = order[first : first + batch]
                state, sums = step(state, sums, images, labels, index, epoch_key)
            loss, right = np.asarray(sums) / (count // batch)
            if not math.isfinite(loss):
                raise ValueError(
                    f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower train.rate "
                    f"(now {settings.rate:g})"
                )
            seconds = time.perf_counter() - start
            history.append(Epoch(epoch + 1, settings.epochs, float(loss), float(right), seconds))
            if folder is not None:
                _keep(Path(folder) / STATE, state, history, identity)
            tell(history[-1])
    trained = jax.tree.map(np.asarray, state.params)
    if folder is not None:
        save_checkpoint(Path(folder) / TARGET, trained)
    return Trained(trained, tuple(history))


def _check(network: Network, data: Data) -> None:
    if len(data.train_images) == 0:
        raise ValueError(
            f"data {data.name} has no training part: name a checkpoint of the target, or data with one"
        )
    if data.shape != network.input_shape or network.output_shape != (data.classes,):
        raise ValueError(
            f"data {data.name} have images {data.shape} and {data.classes} classes; the network reads "
            f"{network.input_shape} and gives {network.output_shape}"
        )


def _optimiser(settings: Settings, steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.rate, math.floor(settings.warmup * steps), steps)

    def kernels(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay, kernels),
        optax.sgd(rate, settings.momentum, nesterov=settings.momentum > 0),
    )


def _step(
    network: Network,
    optimiser: optax.GradientTransformation,
    settings: Settings,
    state: _State,
    sums: Float[Array, "2"],
    images: Batch,
    labels: Int[Array, " n"],
    index: Int[Array, " batch"],
    key: Key[Array, ""],
) -> tuple[_State, Float[Array, "2"]]:
    x, y = images[index], labels[index]
    if settings.shift or settings.mirror:
        x = augment(jax.random.fold_in(key, state.steps), x, settings.shift, settings.mirror)

    def loss(params: Params) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Params]]:
        logits, moved = apply_train(network, params, x)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return entropy, ((logits.argmax(-1) == y).mean(), moved)

    (entropy, (right, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    params = jax.tree_util.tree_map_with_path(
        lambda path, new, running: running if path[-1].key in RUNNING else new,
        optax.apply_updates(state.params, updates),
        moved,
    )
    return _State(params, optimiser_state, state.steps + 1), sums + jnp.stack([entropy, right])


def augment(
    key: Key[Array, ""], images: Float[Array, "n h w c"], shift: int, mirror: bool
) -> Float[Array, "n h w c"]:
    """Each image moved by up to ``shift`` pixels on both axes (zeros enter) and, one in two, mirrored.

    Source: He et al. 2016, section 4.2 (shift 4, mirrored).
    """
    n, height, width, channels = images.shape
    mirror_key, row_key, column_key = jax.random.split(key, 3)
    if mirror:
        chosen = jax.random.bernoulli(mirror_key, 0.5, (n, 1, 1, 1))
        images = jnp.where(chosen, images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    rows = jax.random.randint(row_key, (n,), 0, 2 * shift + 1)
    columns = jax.random.randint(column_key, (n,), 0, 2 * shift + 1)

    def crop(image: Array, row: Array, column: Array) -> Array:
        return jax.lax.dynamic_slice(image, (row, column, 0), (height, width, channels))

    return jax.vmap(crop)(padded, rows, columns)


def _identity(network: Network, data: Data, settings: Settings) -> dict[str, str]:
    """What must be equal for a run to be gone on with."""
    digest = hashlib.sha256(np.ascontiguousarray(data.train_images).data)
    digest.update(np.ascontiguousarray(data.train_labels).data)
    return {
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "data": digest.hexdigest(),
    }


def _keep(path: Path, state: _State, history: list[Epoch], identity: Mapping[str, str]) -> None:
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    metadata = {**identity, "history": json.dumps([epoch._asdict() for epoch in history])}
    temporary = path.with_suffix(f".tmp{os.getpid()}")
    try:
        temporary.write_bytes(safetensors.numpy.save(leaves, metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _resume(path: Path, state: _State, identity: Mapping[str, str]) -> tuple[_State, list[Epoch]]:
    """The state and history that the file holds; those given if there is no file."""
    if not path.exists():
        return state, []
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            leaves = [file.get_tensor(str(i)) for i in range(len(list(file.keys())))]
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to train anew") from error
    differing = [field for field, value in identity.items() if metadata.get(field) != value]
    if differing:
        raise ValueError(
            f"{path} holds a training with another {' and '.join(differing)}: remove it or use another folder"
        )
    history = [Epoch(**fields) for fields in json.loads(metadata["history"])]
    LOG.info("training goes on from epoch %d, found in %s", len(history), path)
    structure = jax.tree.structure(state)
    return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves]), history


@contextlib.contextmanager
def _reporter(
    epochs: int, done: int, report: Callable[[Epoch], None] | None
) -> Iterator[Callable[[Epoch], None]]:
    console = Console(stderr=True)
    if report is not None:
        yield report
    elif not console.is_terminal:
        every = max(1, epochs // 10)

        def log(epoch: Epoch) -> None:
            if epoch.epoch % every == 0 or epoch.epoch == epochs:
                LOG.info(_line(epoch))

        yield log
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("training", total=epochs, completed=done)
            yield lambda epoch: bar.update(task, advance=1, description=_line(epoch))


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch}/{epoch.epochs}: loss {epoch.loss:.4f}, training accuracy "
        f"{100 * epoch.accuracy:.1f} %, {epoch.seconds:.1f} s"
    )
