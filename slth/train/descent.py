"""Gradient descent over images, whatever is minimised: orders, augmentation, epochs, state on disk."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from slth.data import Data
from slth.train.progress import Epoch, reporter
from slth.train.settings import Settings
from slth.train.state import State, keep, resume
from slth.types import Batch, Params

STATE = "training.safetensors"
"""File of a training that is under way, in its folder."""
RUNNING = ("mean", "var")  # leaves of batch norm that follow the data, not the gradient
Labels: TypeAlias = Int[Array, " n"] | Float[Array, "n *outputs"]
Loss: TypeAlias = tuple[Float[Array, ""], tuple[Float[Array, ""], Params]]
"""The loss, the share of right answers, and the variables with batch norm's running statistics moved."""


class Objective(ABC):
    """What is minimised, and how. Objects that are equal share one compiled step, so they are hashable."""

    @abstractmethod
    def optimiser(self) -> optax.GradientTransformation:
        """Makes steps of gradients."""

    @abstractmethod
    def loss(self, variables: Params, fixed: Any, x: Batch, y: Labels, step: Int[Array, ""]) -> Loss:
        """The loss of a batch.

        Args:
          variables: what is found; leaves named "mean" and "var" follow the data, all others the gradient.
          fixed: what is not, such as weights under a mask.
          step: number of steps before this one.
        """

    def settle(self, variables: Params, steps: Int[Array, ""]) -> Params:
        """The variables after a step, brought back to where they may be; ``steps`` counts it."""
        return variables


class Span(NamedTuple):
    """Which steps of a training are made: those numbered ``first`` to ``last`` - 1, from 0."""

    first: int = 0
    last: int | None = None
    """None: to the end."""


WHOLE = Span()


def descend(
    objective: Objective,
    variables: Params,
    fixed: Any,
    data: Data,
    settings: Settings,
    *,
    span: Span = WHOLE,
    folder: Path | None = None,
    identity: Mapping[str, str] | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> tuple[Params, list[Epoch]]:
    """The variables after the steps of a span, and what each epoch gave.

    Orders and augmentation depend on (seed, epoch, step) alone, so the steps of two spans end to end see the
    images that the whole training sees; the optimiser's memory starts anew with each span.

    Args:
      settings: epochs, batch, shift, mirror and seed are read here.
      folder, identity: where the state is kept after each epoch, and what a state must have been made with.
    Raises: ValueError if the folder holds another training, or if the loss stops being finite.
    """
    count = len(data.train_images)
    batch = min(settings.batch, count)
    steps = count // batch
    key = jax.random.key(settings.seed)
    first, last = span.first, settings.epochs * steps if span.last is None else span.last
    state = State(variables, objective.optimiser().init(variables), jnp.int32(first))
    state = jax.tree.map(jnp.array, state)  # leaves that share a buffer cannot be donated
    history: list[Epoch] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state, history = resume(folder / STATE, state, identity or {})
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    passed = first // steps + len(history)
    with reporter(settings.epochs, passed, report) as tell:
        for epoch in range(passed, -(-last // steps) if last > first else passed):
            start = time.perf_counter()
            epoch_key = jax.random.fold_in(key, epoch + 1)
            order = jax.random.permutation(epoch_key, count)[: steps * batch].reshape(steps, batch)
            order = order[max(first - epoch * steps, 0) : last - epoch * steps]
            sums = jnp.zeros(2)
            for index in order:
                state, sums = _step(
                    objective,
                    settings.shift,
                    settings.mirror,
                    state,
                    sums,
                    fixed,
                    images,
                    labels,
                    index,
                    epoch_key,
                )
            loss, right = np.asarray(sums) / len(order)
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
                keep(folder / STATE, state, history, identity or {})
            tell(history[-1])
    return jax.tree.map(np.asarray, state.params), history


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _step(
    objective: Objective,
    shift: int,
    mirror: bool,
    state: State,
    sums: Float[Array, "2"],
    fixed: Any,
    images: Batch,
    labels: Labels,
    index: Int[Array, " batch"],
    key: Key[Array, ""],
) -> tuple[State, Float[Array, "2"]]:
    x, y = images[index], labels[index]
    if shift or mirror:
        x = augment(jax.random.fold_in(key, state.steps), x, shift, mirror)

    def loss(variables: Params) -> Loss:
        return objective.loss(variables, fixed, x, y, state.steps)

    (mean, (right, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, memory = objective.optimiser().update(gradient, state.optimiser, state.params)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, new, running: running if path[-1].key in RUNNING else new,
        optax.apply_updates(state.params, updates),
        moved,
    )
    steps = state.steps + 1
    return State(objective.settle(variables, steps), memory, steps), sums + jnp.stack([mean, right])


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
