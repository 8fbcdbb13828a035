"""Stochastic gradient descent on the cross-entropy or the squared error: loop, step, augmentation."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from slth.data import Data
from slth.interop import save_checkpoint
from slth.nn.forward import apply_train, init, predict
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.train.progress import Epoch, reporter
from slth.train.settings import SETTINGS, Settings
from slth.train.state import State, identity_of, keep, resume
from slth.types import Batch, Params, Task

STATE = "training.safetensors"
"""File of a training that is under way, in its folder."""
TARGET = "target.safetensors"
"""File of the trained parameters, in the folder of a training."""
RUNNING = ("mean", "var")  # leaves of batch norm that follow the data, not the gradient


class Trained(NamedTuple):
    """A trained target: parameters for `slth.nn.apply`, and the passes that led there.

    Example:
      >>> from dataclasses import replace
      >>> from slth import data, nn, train
      >>> digits = data.load("digits")
      >>> network = nn.Network((8, 8, 1), (nn.Flatten(), nn.Dense("linear", 10)))
      >>> quick = replace(train.SETTINGS["digits"], epochs=2, rate=0.05, shift=0)
      >>> trained = train.train(network, digits, quick, report=lambda epoch: None)
      >>> len(trained.history), sorted(trained.params)
      (2, ['linear'])
    """

    params: Params
    history: tuple[Epoch, ...]


@in_32_bits()
def train(
    network: Network,
    data: Data,
    settings: Settings | None = None,
    *,
    folder: str | Path | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Trained:
    r"""Parameters that approximately minimise the mean of :math:`-\log \mathrm{softmax}(f(x))_y`; of
    :math:`(f(x) - y)^2` where labels are numbers.

    Nesterov's momentum with weight decay on kernels, a cosine schedule with warm-up; batch norm by the
    batch's statistics while its running ones are gathered. Random choices depend on (seed, epoch, step).

    Args:
      network: the spec; its outputs are logits, one for each class, or the labels' numbers.
      data: the training part is used, the test part never.
      settings: the default is that of ``data.name`` in `SETTINGS`.
      folder: keeps the state after each epoch (`STATE`) and the result (`TARGET`). Called again with the same
        arguments, a broken run goes on to the same parameters and a finished one returns at once.
      report: called after each epoch; the default is a progress bar on a terminal, else lines in the log.
    Raises: ValueError if the data have no training part or do not fit the spec, if the folder holds another
      training, or if the loss stops being finite.

    Example:
      >>> from dataclasses import replace
      >>> from slth import data, nn, train
      >>> digits = data.load("digits")
      >>> network = nn.Network((8, 8, 1), (nn.Flatten(), nn.Dense("linear", 10)))
      >>> quick = replace(train.SETTINGS["digits"], epochs=2, rate=0.05, shift=0)
      >>> trained = train.train(network, digits, quick, report=lambda epoch: None)
      >>> train.accuracy(network, trained.params, digits.test_images, digits.test_labels) > 0.8
      True
    """
    settings = settings or SETTINGS[data.name]
    _check(network, data)
    count = len(data.train_images)
    batch = min(settings.batch, count)
    steps = count // batch
    optimiser = _optimiser(settings, settings.epochs * steps)
    key = jax.random.key(settings.seed)
    params = init(network, jax.random.fold_in(key, 0))
    state = State(params, optimiser.init(params), jnp.int32(0))
    state = jax.tree.map(jnp.array, state)  # leaves that share a buffer cannot be donated
    history: list[Epoch] = []
    identity = {}
    if folder is not None:
        folder, identity = Path(folder), identity_of(network, data, settings)
        folder.mkdir(parents=True, exist_ok=True)
        state, history = resume(folder / STATE, state, identity)
    step = jax.jit(partial(_step, network, data.task, optimiser, settings), donate_argnums=0)
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    with reporter(settings.epochs, len(history), report) as tell:
        for epoch in range(len(history), settings.epochs):
            start = time.perf_counter()
            epoch_key = jax.random.fold_in(key, epoch + 1)
            order = jax.random.permutation(epoch_key, count)[: steps * batch]
            sums = jnp.zeros(2)
            for index in order.reshape(steps, batch):
                state, sums = step(state, sums, images, labels, index, epoch_key)
            loss, right = np.asarray(sums) / steps
            if not math.isfinite(loss):
                scale = ", or scale the labels" if data.task == "regression" else ""
                raise ValueError(
                    f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower train.rate "
                    f"(now {settings.rate:g}){scale}"
                )
            seconds = time.perf_counter() - start
            share = float(right) if data.task == "classes" else None
            history.append(Epoch(epoch + 1, settings.epochs, float(loss), share, seconds))
            if folder is not None:
                keep(folder / STATE, state, history, identity)
            tell(history[-1])
    trained = jax.tree.map(np.asarray, state.params)
    if folder is not None:
        save_checkpoint(folder / TARGET, trained)
    return Trained(trained, tuple(history))


def _check(network: Network, data: Data) -> None:
    if len(data.train_images) == 0:
        raise ValueError(
            f"data {data.name} has no training part: name a checkpoint of the target, or data with one"
        )
    if data.shape != network.input_shape or network.output_shape != data.outputs:
        labels = f"labels of shape {data.outputs}" if data.classes is None else f"{data.classes} classes"
        raise ValueError(
            f"data {data.name} have images {data.shape} and {labels}; the network reads "
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
    task: Task,
    optimiser: optax.GradientTransformation,
    settings: Settings,
    state: State,
    sums: Float[Array, "2"],
    images: Batch,
    labels: Int[Array, " n"] | Float[Array, "n *outputs"],
    index: Int[Array, " batch"],
    key: Key[Array, ""],
) -> tuple[State, Float[Array, "2"]]:
    x, y = images[index], labels[index]
    if settings.shift or settings.mirror:
        x = augment(jax.random.fold_in(key, state.steps), x, settings.shift, settings.mirror)

    def loss(params: Params) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Params]]:
        logits, moved = apply_train(network, params, x)
        if task == "regression":
            return ((logits - y) ** 2).mean(), (jnp.float32(0), moved)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return entropy, ((logits.argmax(-1) == y).mean(), moved)

    (mean, (right, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    params = jax.tree_util.tree_map_with_path(
        lambda path, new, running: running if path[-1].key in RUNNING else new,
        optax.apply_updates(state.params, updates),
        moved,
    )
    return State(params, optimiser_state, state.steps + 1), sums + jnp.stack([mean, right])


def augment(
    key: Key[Array, ""], images: Float[Array, "n h w c"], shift: int, mirror: bool
) -> Float[Array, "n h w c"]:
    """Each image moved by up to ``shift`` pixels on both axes (zeros enter) and, one in two, mirrored.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from slth import train
      >>> images = jnp.ones((2, 8, 8, 1))
      >>> train.augment(jax.random.key(0), images, shift=1, mirror=False).shape
      (2, 8, 8, 1)

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


@in_32_bits()
def accuracy(
    network: Network, params: Params, images: Batch, labels: Int[np.ndarray, " n"], batch: int = 512
) -> float:
    """Share of images whose largest output is the label's, in [0, 1].

    Raises: ValueError if there is no image.

    Example:
      >>> import numpy as np
      >>> from slth import nn, train
      >>> identity = nn.Network((2,), (nn.Activation("identity"),))
      >>> train.accuracy(identity, {}, np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0, 0]))
      0.5
    """
    top = predict(network, params, images, batch).argmax(axis=-1)
    return float((top == np.asarray(labels)).mean())
