"""A target: the trained network of which a ticket is made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np
from jaxtyping import Float

from slth import nn
from slth.nn.graph import Apply, Step
from slth.nn.layers import BatchNorm, ChannelScale
from slth.nn.network import Network
from slth.types import Batch, Params, Shape, Task


@dataclass(frozen=True, eq=False)
class Target:
    """A trained network without batch norm, as every construction reads it.

    Args:
      network: spec without batch norm.
      params: its parameters, the tree that `slth.nn.init` makes; finite numbers.
      task: "classes" or "regression"; None: what `task_of` says of the shape of its outputs.
    Raises: ValueError, naming the array, for parameters that are not those of the spec, and for a task that
      its outputs cannot have.

    Example:
      >>> import jax
      >>> from slth import Target, nn
      >>> layers = (nn.Dense("a", 3), nn.BatchNorm("bn"), nn.Activation("relu"), nn.Dense("b", 2))
      >>> network = nn.Network((4,), layers)
      >>> target = Target.of(network, nn.init(network, jax.random.key(0)))
      >>> target(jax.numpy.ones((5, 4))).shape
      (5, 2)
    """

    network: Network
    params: Params
    task: Task | None = None

    def __post_init__(self) -> None:
        check_params(self.network, self.params)
        task_of(self.network.output_shape, self.task)

    @classmethod
    def of(cls, network: Network, params: Mapping[str, Any], task: Task | None = None) -> "Target":
        """The target of any trained network: batch norm is folded into the layers before it.

        Raises: ValueError as the class does.
        """
        check_params(network, params)
        return cls(*nn.fold_batch_norm(network, params), task)

    @property
    def classes(self) -> bool:
        """Whether the outputs are scores of classes."""
        return task_of(self.network.output_shape, self.task) == "classes"

    def __call__(self, images: Batch) -> Float[np.ndarray, "n *out"]:
        """The outputs for any number of images of shape (n, *network.input_shape), in batches."""
        return nn.predict(self.network, self.params, images)


def task_of(shape: Shape, said: Task | None = None) -> Task:
    """What outputs of this shape are, if nobody says: classes where they are a vector of two or more numbers.

    Args:
      said: the answer, if somebody says; it is checked.
    Raises: ValueError for a word that is no task, and for classes where there is no vector of two or more.
    """
    vector = len(shape) == 1 and shape[0] > 1
    if said is None:
        return "classes" if vector else "regression"
    checked_word("task", said, get_args(Task))
    if said == "classes" and not vector:
        raise ValueError(
            f"task: outputs of shape {shape} are no scores of classes, of which there are two or more: say "
            "'regression'"
        )
    return said


def check_params(network: Network, params: Mapping[str, Any]) -> None:
    """Refuse parameters that are not those of a spec, in one line.

    Raises: ValueError, naming the first array that is missing, left over, of another shape or not finite.
    """
    if not isinstance(network, Network):
        raise ValueError(
            f"network: expected a slth.nn.Network, got {kind_of(network)}: write one (docs/tickets.md) "
            "or take one "
            "of slth.nn.zoo"
        )
    if not isinstance(params, Mapping):
        raise ValueError(f"params: expected a dict of arrays by layer, got {kind_of(params)}")
    layers = nn.by_layer(params)
    found = {f"{path}/{name}": leaf for path, own in layers.items() for name, leaf in own.items()}
    wanted = nn.parameter_shapes(network)
    for path, shape in wanted.items():
        if path not in found:
            raise ValueError(
                f"params: {path} of shape {shape} is missing: give all parameters of the network "
                "(slth.nn.init makes such a tree)"
            )
        leaf = found[path]
        if np.shape(leaf) != shape:
            raise ValueError(
                f"params: {path} has shape {np.shape(leaf)}, and the network's has {shape}: are these the "
                "parameters of this network?"
            )
        if np.asarray(leaf).dtype.kind not in "fiu" and np.asarray(leaf).dtype.name != "bfloat16":
            raise ValueError(
                f"params: {path} holds {np.asarray(leaf).dtype.name}, expected real numbers: are these "
                "the parameters "
                "of this network?"
            )
        # A sum of absolute values is finite only where every number is; one pass, no array beside.
        if not math.isfinite(float(np.abs(np.asarray(leaf, np.float64)).sum())):
            raise ValueError(f"params: {path} holds NaN or infinite numbers: train or load the target again")
    for path in found:
        if path not in wanted:
            raise ValueError(f"params: the network has no {path}: are these the parameters of this network?")


def check_images(images: object, shape: Shape) -> None:
    """Refuse what is no batch of images as a network of this input shape reads them, in one line.

    Raises: ValueError, naming what was found, what was expected and what to do.
    """
    array = isinstance(images, np.ndarray | jax.Array)
    if not array or images.ndim != len(shape) + 1 or images.shape[1:] != shape:
        found = getattr(images, "shape", None) or kind_of(images)
        raise ValueError(f"images: expected an array of shape (n, {', '.join(map(str, shape))}), got {found}")
    if not len(images):
        raise ValueError("images: there are none: give at least one, or None where none are needed")
    values = np.asarray(images)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"images: expected floating-point numbers, got {values.dtype}: normalise them as the "
            "target was trained"
        )
    if not np.isfinite(values).all():
        raise ValueError("images: they hold NaN or infinite numbers: remove those images")


def check_folded(step: Step) -> None:
    """Refuse a step of a target that `Target.of` would have folded.

    Raises: ValueError, naming the layer and what to do.
    """
    if isinstance(step, Apply) and isinstance(step.layer, BatchNorm | ChannelScale):
        raise ValueError(
            f"target: {step.path or 'a layer'} is a {type(step.layer).__name__}, which is not folded:"
            " make the target with slth.Target.of(network, params), or fold it with"
            " slth.nn.fold_batch_norm"
        )


def checked_integer(name: str, value: object, low: int, high: float = math.inf) -> int:
    """An integer, Python's or NumPy's, of at least ``low`` and below ``high``.

    Raises: ValueError, naming it.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= value < high:
        return int(value)
    bound = f" of at least {low}" if math.isinf(high) else f" in [{low}, 2^{math.log2(high):g})"
    raise ValueError(f"{name}: expected an integer{bound}, got {value!r}")


def checked_positive(name: str, value: object) -> None:
    """Refuse what is no positive, finite number.

    Raises: ValueError, naming it.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def checked_word(name: str, value: object, words: tuple[str, ...]) -> None:
    """Refuse what is none of these words.

    Raises: ValueError, naming it.
    """
    if value not in words:
        raise ValueError(f"{name}: expected one of {', '.join(words)}, got {value!r}")


def kind_of(value: object) -> str:
    """What a message calls an argument of a wrong kind."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
