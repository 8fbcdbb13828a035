"""Stochastic gradient descent on the cross-entropy or the squared error, of a network or a masked one."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from slth.data import Data
from slth.interop import save_checkpoint
from slth.nn.forward import apply_train, init, parameter_shapes, predict
from slth.nn.graph import by_layer
from slth.nn.network import Network
from slth.nn.prune import masked
from slth.precision import in_32_bits
from slth.train.descent import WHOLE, Labels, Loss, Objective, Span, descend
from slth.train.progress import Epoch
from slth.train.settings import SETTINGS, Settings
from slth.train.state import identity_of
from slth.types import Batch, Mask, Params, Task

TARGET = "target.safetensors"
"""File of the trained parameters, in the folder of a training."""


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
    start: Params | None = None,
    mask: Mask | None = None,
    first: int = 0,
    last: int | None = None,
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
      start: parameters to begin with; the default is `slth.nn.init` by the settings' seed.
      mask: of the structure of the parameters. What it drops is 0 from the beginning to the end.
      first, last: the steps that are made, of all that the settings have, from 0: the rate, the orders and
        the augmentation are those of steps ``first`` to ``last`` - 1 of the whole training. Momentum begins
        at 0. The default is all of them.
    Raises: ValueError if the data have no training part or do not fit the spec, if the folder holds another
      training, if there are no such steps, or if the loss stops being finite.

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
    check_fit(network, data)
    total = steps_of(data, settings)
    span = _checked_span(first, last, total)
    for name, tree in (("start", start), ("mask", mask)):
        if tree is not None:
            _check_shapes(name, network, tree)
    identity = {}
    if folder is not None:
        folder = Path(folder)
        identity = identity_of(network, data, settings) | {"start": _digest(start, mask, span)}
    if start is None:
        start = init(network, jax.random.fold_in(jax.random.key(settings.seed), 0))
    if mask is not None:
        mask = jax.tree.map(lambda keep: jnp.asarray(keep, bool), mask)
    objective = Supervised(network, data.task, settings, total, span.first)
    trained, history = descend(
        objective,
        jax.tree.map(np.asarray, start if mask is None else masked(start, mask)),
        mask,
        data,
        settings,
        span=span,
        folder=folder,
        identity=identity,
        report=report,
    )
    if folder is not None:
        save_checkpoint(folder / TARGET, trained)
    return Trained(trained, tuple(history))


def steps_of(data: Data, settings: Settings) -> int:
    """Number of steps of a whole training."""
    count = len(data.train_images)
    return settings.epochs * (count // min(settings.batch, count))


def _checked_span(first: int, last: int | None, total: int) -> Span:
    end = total if last is None else last
    if not 0 <= first <= end <= total:
        raise ValueError(
            f"train: steps {first} to {end} asked of a training of {total}: "
            f"choose 0 <= first <= last <= {total}"
        )
    return Span(first, last)


def _check_shapes(name: str, network: Network, tree: Params) -> None:
    found = {f"{path}/{leaf}": np.shape(v) for path, own in by_layer(tree).items() for leaf, v in own.items()}
    wanted = parameter_shapes(network)
    for path in [*wanted, *found]:
        if found.get(path) != wanted.get(path):
            raise ValueError(
                f"train {name}: {path} has shape {found.get(path)}, and {wanted.get(path)} in the network: "
                "make it of the network's own parameters"
            )


def _digest(start: Params | None, mask: Mask | None, span: Span) -> str:
    """A hash of where a training begins, and of its mask; empty for a whole training of its own start."""
    if start is None and mask is None and span == WHOLE:
        return ""
    digest = hashlib.sha256(repr((span, start is None, mask is None)).encode())
    for leaf in jax.tree.leaves((start, mask)):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def check_fit(network: Network, data: Data) -> None:
    """Refuse data without a training part, or of other shapes than the network's.

    Raises: ValueError, saying which.
    """
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


@dataclass(frozen=True)
class Supervised(Objective):
    """The labels' loss of parameters, those that a mask drops held at 0."""

    network: Network
    task: Task
    settings: Settings
    steps: int
    """Of the whole training."""
    first: int = 0
    """Number of the step at which it begins."""

    def optimiser(self) -> optax.GradientTransformation:
        """Nesterov's momentum, a rise and a half cosine, weight decay on kernels."""
        settings = self.settings
        rate = schedule(settings, self.steps, self.first)

        def kernels(params: Params) -> Params:
            return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

        return optax.chain(
            optax.add_decayed_weights(settings.weight_decay, kernels),
            optax.sgd(rate, settings.momentum, nesterov=settings.momentum > 0),
        )

    def loss(self, variables: Params, fixed: Mask | None, x: Batch, y: Labels, step: Int[Array, ""]) -> Loss:
        """The mean over the batch."""
        outputs, moved = apply_train(
            self.network, variables if fixed is None else masked(variables, fixed), x
        )
        value, right = label_loss(outputs, y, self.task)
        return value, (right, moved)


def schedule(settings: Settings, steps: int, first: int = 0) -> optax.Schedule:
    """The rate of each of so many steps: a linear rise from 0, then a half cosine to 0; it counts from
    ``first``."""
    rise = math.floor(settings.warmup * steps)
    if rise == 0:
        whole = optax.cosine_decay_schedule(settings.rate, steps)
    else:
        whole = optax.warmup_cosine_decay_schedule(0.0, settings.rate, rise, steps)
    return lambda count: whole(jnp.add(count, first))


def label_loss(
    outputs: Float[Array, "n *outputs"], labels: Labels, task: Task
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean cross-entropy and the share of right answers; the mean squared error and 0 for numbers."""
    if task == "regression":
        return ((outputs - labels) ** 2).mean(), jnp.float32(0)
    entropy = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
    return entropy, (outputs.argmax(-1) == labels).mean()


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
