"""What methods of pruning have in common: which weights may go, masks from scores, density by layer.

Prunable are the kernels of convolutions and dense layers; biases, batch norm and factors of channels stay. A
layer's *density* is the share of its kernel that is kept, and the density of a mask that of all kernels
together. A mask is a tree of boolean NumPy arrays of the structure of the parameters, as a ticket's is.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float, Int, Key

from slth.nn.forward import parameter_shapes
from slth.nn.graph import by_layer, linear_maps, nested
from slth.nn.network import Network
from slth.nn.prune import prune
from slth.pruning.largest import Densities, Scores, checked, counts_of, top
from slth.types import AnyArray, Mask, Params, Shape, Task
from slth.types import Batch as Images

Kept = dict[str, Bool[np.ndarray, "..."]]
"""Which weights of each kernel are kept, by the path of its layer."""


class Batch(NamedTuple):
    """Labelled inputs of a method that looks at data.

    Example:
      >>> import numpy as np
      >>> from slth import pruning
      >>> pruning.Batch(np.ones((2, 4), np.float32), np.array([0, 1])).labels.shape
      (2,)
    """

    images: Images
    labels: Int[AnyArray, " n"] | Float[AnyArray, "n *out"]
    """Classes, or numbers for regression."""


def task_of(labels: AnyArray) -> Task:
    """What labels are: whole numbers are classes.

    Example:
      >>> import numpy as np
      >>> from slth.pruning.protocol import task_of
      >>> task_of(np.array([0, 1])), task_of(np.array([0.5]))
      ('classes', 'regression')
    """
    return "classes" if jnp.issubdtype(jnp.result_type(labels), jnp.integer) else "regression"


class Pruned(NamedTuple):
    """What a method found: ``nn.apply(network, masked(params, mask), x)`` is the pruned network.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> found = pruning.Magnitude().prune(network, nn.init(network, jax.random.key(0)), 0.5)
      >>> sorted(found.densities), found.density
      (['a', 'b'], 0.5)
    """

    mask: Mask
    params: Params
    """The parameters that belong to the mask, dense: those given, or what a method that trains made."""
    densities: dict[str, float]
    """Kept / total of each kernel, by the path of its layer."""
    record: tuple[Any, ...] = ()
    """One entry for each round of a method that has rounds."""

    @property
    def density(self) -> float:
        """Kept / total over all kernels."""
        layers = by_layer(self.mask)
        kept = [layers[path]["kernel"] for path in self.densities]
        return sum(int(own.sum()) for own in kept) / sum(own.size for own in kept)


@runtime_checkable
class Method(Protocol):
    """A method of pruning: a frozen dataclass that owns and checks its options.

    Example:
      >>> from slth import pruning
      >>> [isinstance(method, pruning.Method) for method in (pruning.Magnitude(), "magnitude")]
      [True, False]
    """

    @property
    def needs_batch(self) -> bool:
        """Whether it looks at labelled data."""
        ...

    @property
    def needs_key(self) -> bool:
        """Whether it draws random numbers."""
        ...

    def prune(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
    ) -> Pruned:
        """A mask that keeps round(density * weights) weights of the kernels, all random choices from the key.

        Raises: ValueError, before any work, for what `check` refuses; for a layer that would be emptied.
        """
        ...


def prunable(network: Network) -> dict[str, Shape]:
    """Shapes of the kernels by the path of their layer, in the order of computation.

    Example:
      >>> from slth import nn, pruning
      >>> pruning.prunable(nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2))))
      {'a': (4, 3), 'b': (3, 2)}
    """
    shapes = parameter_shapes(network)
    return {path: shapes[f"{path}/kernel"] for path in linear_maps(network)}


def kernels(network: Network, params: Params) -> dict[str, AnyArray]:
    """The prunable arrays of the parameters, by the path of their layer.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 3), nn.Dense("b", 1)))
      >>> [kernel.shape for kernel in pruning.kernels(network, nn.init(network, jax.random.key(0))).values()]
      [(2, 3), (3, 1)]
    """
    layers = by_layer(params)
    return {path: layers[path]["kernel"] for path in linear_maps(network)}


def with_kernels(params: Params, kernels: Mapping[str, AnyArray]) -> Params:
    """The parameters with other kernels, by the path of their layer; the others stay.

    Example:
      >>> from slth import pruning
      >>> pruning.with_kernels({"a": {"kernel": 1, "bias": 2}}, {"a": 3})
      {'a': {'kernel': 3, 'bias': 2}}
    """
    layers = by_layer(params)
    return nested(layers | {path: layers[path] | {"kernel": kernel} for path, kernel in kernels.items()})


def mask_of(network: Network, kept: Kept) -> Mask:
    """The mask that keeps these weights of each kernel and every other parameter.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 3), nn.Dense("b", 1)))
      >>> mask = pruning.mask_of(network, {"a": np.eye(2, 3, dtype=bool), "b": np.ones((3, 1), bool)})
      >>> mask["a"]["bias"].tolist()
      [True, True, True]
    """
    layers: dict[str, dict] = {}
    for path, shape in parameter_shapes(network).items():
        layer, _, name = path.rpartition("/")
        layers.setdefault(layer, {})[name] = kept[layer] if name == "kernel" else np.ones(shape, bool)
    return nested(layers)


def kept_weights(network: Network, mask: Mask) -> Kept:
    """Which weights of each kernel a mask keeps; the inverse of `mask_of`.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 3), nn.Dense("b", 1)))
      >>> mask = pruning.mask_of(network, {"a": np.eye(2, 3, dtype=bool), "b": np.ones((3, 1), bool)})
      >>> pruning.kept_weights(network, mask)["a"].tolist()
      [[True, False, False], [False, True, False]]
    """
    return {path: np.asarray(kernel) for path, kernel in kernels(network, mask).items()}


def densities(network: Network, mask: Mask) -> dict[str, float]:
    """Kept / total of each kernel, by the path of its layer in the order of computation.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 3), nn.Dense("b", 1)))
      >>> mask = pruning.mask_of(network, {"a": np.eye(2, 3, dtype=bool), "b": np.ones((3, 1), bool)})
      >>> pruning.densities(network, mask)
      {'a': 0.333, 'b': 1.0}
    """
    return {path: float(kept.mean()) for path, kept in kept_weights(network, mask).items()}


def live_densities(network: Network, mask: Mask) -> dict[str, float]:
    """The densities of those kept weights that stand on some path from the input to the outputs.

    Biases are no inputs here: a channel that only its bias feeds counts as silent.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 2), nn.Dense("b", 1)))
      >>> kept = {"a": np.eye(2, dtype=bool), "b": np.array([[True], [False]])}     # nothing reads channel 1
      >>> pruning.live_densities(network, pruning.mask_of(network, kept))
      {'a': 0.25, 'b': 0.5}

    Source: Vysogorets and Kempe, JMLR 2023 (arXiv:2107.02306), effective sparsity.
    """
    kept = kept_weights(network, mask)
    return densities(network, prune(network, nested({path: {"kernel": own} for path, own in kept.items()})))


def found(network: Network, params: Params, mask: Mask, record: tuple[Any, ...] = ()) -> Pruned:
    """The result of a method, with the mask's densities."""
    return Pruned(mask, params, densities(network, mask), record)


def check(
    method: Method,
    network: Network,
    params: Params,
    density: float,
    key: Key[Array, ""] | None,
    batch: Batch | None,
) -> None:
    """Refuse what no method can prune.

    Raises: ValueError for a network without a kernel; a density that is not in (0, 1]; parameters that are
      not those of the network or not finite; a key or a batch that the method needs and does not get; a batch
      that does not fit the network, or holds numbers that are not finite.
    """
    name = type(method).__name__
    if not prunable(network):
        raise ValueError(f"network: has no convolution and no dense layer that {name} could prune")
    check_density(density)
    wanted = parameter_shapes(network)
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    for path in [*wanted, *flat]:
        shape, got = wanted.get(path), np.shape(flat[path]) if path in flat else None
        if got != shape:
            raise ValueError(
                f"params: {path}: expected shape {shape}, got {got}: take those of the network, as nn.init"
            )
        if not np.isfinite(np.asarray(flat[path])).all():
            raise ValueError(f"params: {path}: holds numbers that are not finite: train or draw it again")
    if method.needs_key and key is None:
        raise ValueError(f"key: {name} draws random numbers and got none: give jax.random.key(seed)")
    if not method.needs_batch:
        return
    if batch is None:
        raise ValueError(f"batch: {name} looks at data and got none: give a Batch(images, labels)")
    images, labels = np.shape(batch.images), np.shape(batch.labels)
    if not images or images[1:] != network.input_shape or images[0] == 0:
        raise ValueError(f"batch: images: expected (n, *{network.input_shape}) with n > 0, got {images}")
    if not (np.isfinite(batch.images).all() and np.isfinite(batch.labels).all()):
        raise ValueError("batch: holds numbers that are not finite: leave these examples out")
    classes = task_of(batch.labels) == "classes"
    expected = images[:1] if classes else (images[0], *network.output_shape)
    if labels != expected:
        kind = "classes" if classes else "numbers"
        raise ValueError(f"batch: labels: expected {kind} of shape {expected}, got {labels}")
    least, most, count = np.min(batch.labels), np.max(batch.labels), network.output_shape[-1]
    if classes and not 0 <= least <= most < count:
        raise ValueError(f"batch: labels: expected classes from 0 to {count - 1}, got {least} to {most}")


def check_density(density: float) -> None:
    """Refuse a density that is not in (0, 1]."""
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        raise ValueError(f"density: expected a number above 0 and of at most 1, got {density!r}")


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse an option that is no whole number, or too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def keep(
    network: Network,
    scores: Scores,
    density: float,
    densities: Densities | None = None,
    *,
    floor: int = 0,
    within: Mask | None = None,
) -> Mask:
    r"""The mask of the round(density * weights) largest scores, of equals the first in the network.

    Args:
      scores: one for each weight, larger = rather kept; arrays of the kernels' shapes by layer.
      density: kept / total over all kernels, in (0, 1].
      densities: the share of each layer, which together keep as many; the largest scores of each layer are
        then kept, and their numbers rounded so that the total is exact. None: the largest of all layers.
      floor: least number of weights that each layer keeps (all of a layer that has fewer).
      within: keep only what this mask keeps; the default is everything.
    Returns: a mask that keeps the same number of weights on every machine, and every bias.
    Raises: ValueError for scores of another shape or not finite, naming the layer; for a layer that would
      be emptied; for densities that are not in [0, 1] or keep another total; where more is to be kept than
      there is, or than the floor asks for.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 2), nn.Dense("b", 2)))
      >>> scores = {"a": np.array([[4.0, 3.0], [2.0, 1.0]]), "b": np.array([[9.0, 8.0], [7.0, 6.0]])}
      >>> mask = pruning.keep(network, scores, 0.5, {"a": 0.5, "b": 0.5})
      >>> mask["a"]["kernel"].tolist(), mask["b"]["kernel"].tolist()
      ([[True, True], [False, False]], [[True, True], [False, False]])
      >>> pruning.keep(network, scores, 0.5)
      Traceback (most recent call last):
      ValueError: a: has density 0, none of its 4 weights, at density 0.5 (empty: 1 of 2 layers): give a
      floor, densities by layer such as Uniform(), or a larger density
    """
    check_density(density)
    check_whole("floor", floor, 0)
    shapes = prunable(network)
    values = {path: checked(path, scores, shape) for path, shape in shapes.items()}
    allowed = {path: np.ones(math.prod(shape), bool) for path, shape in shapes.items()}
    if within is not None:
        allowed = {path: kept.reshape(-1) for path, kept in kept_weights(network, within).items()}
    sizes = {path: own.size for path, own in allowed.items()}
    most = {path: int(own.sum()) for path, own in allowed.items()}
    least = {path: min(floor, count) for path, count in most.items()}
    total = kept_count(network, density)
    needed, there = sum(least.values()), sum(most.values())
    if not needed <= total <= there:
        raise ValueError(
            f"density: {density:g} keeps {total} weights; the floor of {floor} asks for {needed} and {there} "
            "are there: choose a density, or a floor, between"
        )
    if densities is None:
        first = {path: top(values[path], allowed[path], least[path]) for path in shapes}
        rest = np.concatenate([allowed[path] & ~first[path] for path in shapes])
        chosen = top(np.concatenate(list(values.values())), rest, total - sum(least.values()))
        parts = np.split(chosen, np.cumsum(list(sizes.values()))[:-1])
        flat = {path: first[path] | part for path, part in zip(shapes, parts, strict=True)}
    else:
        numbers = counts_of(sizes, densities, total, least, most)
        flat = {path: top(values[path], allowed[path], numbers[path]) for path in shapes}
    kept = {path: flat[path].reshape(shape) for path, shape in shapes.items()}
    check_layers(kept, density)
    return mask_of(network, kept)


def kept_count(network: Network, density: float) -> int:
    """How many weights a mask of this density keeps, round(density * weights).

    Example:
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 3), nn.Dense("b", 1)))
      >>> pruning.kept_count(network, 0.5)     # of 9; a half goes to the even number
      4
    """
    return round(density * sum(math.prod(shape) for shape in prunable(network).values()))


def check_layers(kept: Kept, density: float) -> None:
    """Refuse a mask that empties a layer.

    Raises: ValueError that names the first such layer, how many there are, and what to do.

    Example:
      >>> import numpy as np
      >>> from slth import pruning
      >>> pruning.check_layers({"a": np.array([False, True])}, 0.5)      # says nothing: a weight is kept
    """
    empty = [path for path, own in kept.items() if not own.any()]
    if empty:
        others = f" (empty: {len(empty)} of {len(kept)} layers)" if len(kept) > 1 else ""
        raise ValueError(
            f"{empty[0]}: has density 0, none of its {kept[empty[0]].size:,} weights, at density {density:g}"
            f"{others}: give a floor, densities by layer such as Uniform(), or a larger density"
        )
