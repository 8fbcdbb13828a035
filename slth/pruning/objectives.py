r"""What a search minimises: the labels' loss, or the distance to the outputs of a target.

A *distilled* search asks for the same as a construction does, a mask of the source whose outputs are the
target's. So the two can be compared on the same source.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.data import Data
from slth.nn.forward import apply, predict
from slth.nn.network import Network
from slth.target import Target, checked_positive, kind_of
from slth.train.descent import Labels as LabelArray
from slth.train.loop import check_fit, label_loss
from slth.types import Batch, Params, Task

Outputs = Float[Array, "n *out"]
Value = tuple[Float[Array, ""], Float[Array, ""]]
"""The loss, and the share of images whose largest output is the label's."""


class Rule(Protocol):
    """The part of a loss that is no array: equal rules share one compiled step."""

    def value(self, arrays: Any, outputs: Outputs, x: Batch, y: LabelArray, task: Task) -> Value:
        """The mean over a batch."""
        ...


@runtime_checkable
class Loss(Protocol):
    """What a search minimises, by its rule and the arrays that this reads.

    Example:
      >>> from slth import pruning
      >>> isinstance(pruning.Labels(), pruning.Loss)
      True
    """

    @property
    def rule(self) -> Rule:
        """Its part that is no array."""
        ...

    @property
    def arrays(self) -> Any:
        """Its arrays, such as the parameters of a target."""
        ...

    def check(self, network: Network, data: Data) -> None:
        """Refuse a network or data that it does not fit.

        Raises: ValueError.
        """
        ...


@dataclass(frozen=True)
class Labels:
    """The cross-entropy of the labels, or the mean squared error where labels are numbers.

    Example:
      >>> from slth import pruning
      >>> pruning.EdgePopup().loss
      Labels()
    """

    @property
    def rule(self) -> "Labels":
        """Itself."""
        return self

    @property
    def arrays(self) -> None:
        """None."""

    def check(self, network: Network, data: Data) -> None:
        """The network's outputs are those that the labels ask for."""
        check_fit(network, data)

    def value(self, arrays: None, outputs: Outputs, x: Batch, y: LabelArray, task: Task) -> Value:
        """The mean over a batch."""
        return label_loss(outputs, y, task)


@dataclass(frozen=True, eq=False)
class Distilled:
    r"""The distance between a network's outputs f, times a factor, and those of a target, t.

    Without a temperature, the mean squared difference over the mean square of the target's outputs,
    :math:`\|\lambda f - t\|^2 / \|t\|^2`; with T, the divergence :math:`T^2\, KL(\mathrm{softmax}(t / T)
    \,\|\, \mathrm{softmax}(\lambda f / T))`. Labels are not read.

    Args:
      target: whose outputs are wanted; it reads the same images and has as many outputs.
      temperature: T, for classes; None: squared error.
      factor: lambda, as the factor of a ticket; None, without a temperature alone: for each batch
        :math:`|\langle f, t \rangle| / \|f\|^2`, which is the best one unless outputs are opposite to the
        target's. It is never negative, or a search could end at minus the target (`fitted_factor` has the
        best one of all images).
    Raises: ValueError for another kind of target, numbers that are not positive, or a temperature without a
      factor or with outputs that are no classes.

    Example:
      >>> import jax
      >>> from slth import Target, nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = Target(network, nn.init(network, jax.random.key(0)))
      >>> pruning.Distilled(target, factor=None).rule
      Distance(network=Network(input_shape=(4,), layers=(Dense(name='a', features=3, use_bias=True),
      Activation(kind='relu', slope=0.01), Dense(name='b', features=2, use_bias=True))), temperature=None,
      factor=None)

    Source: Hinton et al. 2015 (arXiv:1503.02531) for T.
    """

    target: Target
    temperature: float | None = None
    factor: float | None = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise ValueError(
                f"distilled.target: expected a slth.Target, got {kind_of(self.target)}: make one with "
                "slth.Target.of(network, params)"
            )
        if self.factor is not None:
            checked_positive("distilled.factor", self.factor)
        if self.temperature is not None:
            checked_positive("distilled.temperature", self.temperature)
            if self.factor is None or not self.target.classes:
                raise ValueError(
                    f"distilled.temperature: {self.temperature:g} needs a factor and outputs that are "
                    "classes: choose factor=1.0, or None as temperature"
                )

    @property
    def rule(self) -> "Distance":
        """What is computed of the outputs."""
        return Distance(self.target.network, self.temperature, self.factor)

    @property
    def arrays(self) -> Params:
        """The target's parameters."""
        return self.target.params

    def check(self, network: Network, data: Data) -> None:
        """The network reads what the target reads, and gives as much."""
        own, other = ((one.input_shape, one.output_shape) for one in (self.target.network, network))
        if own != other:
            raise ValueError(
                f"distilled.target: it reads {own[0]} and gives {own[1]}, the network reads {other[0]} and "
                f"gives {other[1]}: choose a target of this network's kind"
            )


class Distance(NamedTuple):
    """How far outputs are from those of a network of this spec."""

    network: Network
    temperature: float | None
    factor: float | None

    def value(self, arrays: Params, outputs: Outputs, x: Batch, y: LabelArray, task: Task) -> Value:
        """The mean over a batch."""
        wanted = apply(self.network, arrays, x)
        right = (outputs.argmax(-1) == y).mean() if task == "classes" else jnp.float32(0)
        factor = best_factor(outputs, wanted) if self.factor is None else self.factor
        if self.temperature is None:
            return relative_error(factor * outputs, wanted), right
        aim, got = (jax.nn.log_softmax(one / self.temperature) for one in (wanted, factor * outputs))
        return self.temperature**2 * (jnp.exp(aim) * (aim - got)).sum(-1).mean(), right


def relative_error(outputs: Outputs, wanted: Outputs) -> Float[Array, ""]:
    """The mean squared difference over the mean square of what is wanted."""
    return ((outputs - wanted) ** 2).mean() / jnp.maximum((wanted**2).mean(), 1e-30)


def best_factor(outputs: Outputs, wanted: Outputs) -> Float[Array, ""]:
    """The size of the factor of least squared error. At the least its own gradient is zero, so none is
    passed."""
    product, square = (outputs * wanted).sum(), (outputs**2).sum()
    return jax.lax.stop_gradient(jnp.abs(product) / jnp.maximum(square, 1e-30))


def fitted_factor(network: Network, params: Params, target: Target, images: Batch) -> float:
    r"""The factor :math:`\lambda` of least :math:`\|\lambda f(x) - t(x)\|^2`, of a network's outputs f.

    Args:
      params: of the masked network (`slth.pruning.masked`).
    Raises: ValueError where all outputs are 0, or there is no image.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from slth import Target, nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 2, use_bias=False),))
      >>> params = {"a": {"kernel": np.eye(4, 2, dtype=np.float32)}}
      >>> target = Target(network, {"a": {"kernel": 3 * params["a"]["kernel"]}})
      >>> pruning.fitted_factor(network, params, target, np.ones((5, 4), np.float32))
      3.0
    """
    outputs = np.asarray(predict(network, params, images), np.float64)
    wanted = np.asarray(target(images), np.float64)
    if not outputs.any():
        raise ValueError("outputs: all are 0, and no factor makes them the target's: is a layer empty?")
    return float((outputs * wanted).sum() / (outputs**2).sum())
