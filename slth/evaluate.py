"""Target and ticket side by side on images: outputs, agreement, and the error of every layer's copies."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slth import nn
from slth.kept import identity_of, in_kept_batches
from slth.nn.forward import apply_compiled
from slth.nn.graph import sums
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.target import task_of
from slth.types import Batch, Params, Task

Arrays = dict[str, Array]
BATCH = 64
OUTPUTS = "outputs"


class Copies(NamedTuple):
    """What the channels of a source are meant to carry: a balanced target and the places of its copies.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> copies = made.copies()
      >>> copies.columns["a"].shape, copies.reads["a"].shape
      ((3, 5), (39,))
    """

    target: Network
    params: Params
    columns: Mapping[str, Int[np.ndarray, "cout copies"]]
    """Source channels of the copies of each linear layer's outputs (`slth.construct`)."""
    reads: Mapping[str, Bool[np.ndarray, " channels"]]
    """Which source channels are read by what follows (`slth.nn.prune.read_channels`)."""
    held: Mapping[str, Int[np.ndarray, " left"]] | None = None
    """The source channels that the evaluated network has, as of a compact one (`slth.compact.thinned`: its
    columns); those that it lacks are not read, or zero. None: all."""

    def places(self, path: str) -> Int[np.ndarray, "cout copies"]:
        """Where in the evaluated network each copy of a layer's outputs is; -1 for one that is not there."""
        columns = np.asarray(self.columns[path])
        if self.held is None:
            return columns
        place = np.full(len(self.reads[path]), -1)
        place[self.held[path]] = np.arange(len(self.held[path]))
        return place[columns]


class LayerError(NamedTuple):
    r"""Relative L2 errors of a layer's copies, over images, positions and channels.

    ``copy`` :math:`= \|\hat x_{jk} - x_j\| / \|x_j\|` over the copies k of the target's pre-activation j, and
    ``mean`` :math:`= \|\mathrm{mean}_k \hat x_{jk} - x_j\| / \|x_j\|`. A copy that nothing reads is pruned
    and counts for neither.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> x = jax.random.normal(jax.random.key(1), (100, 4))
      >>> out = slth.evaluate.run(made.source.network, made.ticket.params, x, copies=made.copies())
      >>> error = out.layers["a"]
      >>> error.mean <= error.copy < 0.2
      True
    """

    copy: float
    mean: float
    unread: int
    """Number of copies that nothing reads."""


class Outputs(NamedTuple):
    """Outputs of the ticket (lambda not applied) for each image, and the error of each layer.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> x = jax.random.normal(jax.random.key(1), (100, 4))
      >>> out = slth.evaluate.run(made.source.network, made.ticket.params, x, copies=made.copies())
      >>> out.logits.shape, list(out.layers)
      ((100, 2), ['a', 'b'])
    """

    logits: Float[np.ndarray, "n *out"]
    layers: dict[str, LayerError]


class Comparison(NamedTuple):
    """The ticket's outputs against the target's.

    Example:
      >>> import numpy as np
      >>> from slth import evaluate
      >>> found = evaluate.compare(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.9, 0.0], [0.0, 2.2]]))
      >>> found.agreement, round(found.max, 3), found.examples
      (1.0, 0.2, 2)
    """

    agreement: float | None
    """Share of images with the same largest output; None where outputs are no classes."""
    max: float
    mean: float
    """Largest and mean |ticket - target| over images and outputs."""
    relative: float
    """L2 norm of the difference over that of the target's outputs."""
    examples: int
    rmse: float
    """Root of the mean square of ticket - target over images and outputs."""
    r2: float | None
    """1 less the sum of squares of ticket - target over that of the target's outputs less their means over
    the images; None where these do not differ between images."""
    not_finite: int
    """Images of which an output of the ticket is infinite or not a number. They agree with nothing."""


def compare(
    target: Float[np.ndarray, "n *out"], ticket: Float[np.ndarray, "n *out"], task: Task | None = None
) -> Comparison:
    r"""The error of a ticket's outputs against its target's, or of either's against numbers that are known.

    Relative error :math:`\|\hat y - y\| / \|y\|`, and
    :math:`R^2 = 1 - \|\hat y - y\|^2 / \|y - \bar y\|^2` with the mean :math:`\bar y` of each output.

    Args:
      target, ticket: outputs of equal shape, a row for each image.
      task: whether these are scores of classes; None: they are where each image has two or more in a row.
    Raises: ValueError for arrays of different shapes, no image, or a task that outputs of this shape
      cannot have.

    Example:
      >>> import numpy as np
      >>> from slth import evaluate
      >>> evaluate.compare(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 0.1], [0.0, 2.0]])).agreement
      0.5
      >>> found = evaluate.compare(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [4.0]]))
      >>> found.agreement is None, found.r2, round(found.rmse, 3)      # one output is no class
      (True, 0.5, 0.577)
    """
    if target.shape != ticket.shape or target.ndim < 2 or not len(target):
        raise ValueError(
            f"compare: expected outputs of equal shape (n, ...) with n >= 1, got {target.shape} and "
            f"{ticket.shape}"
        )
    classes = task_of(target.shape[1:], task) == "classes"
    goal = np.asarray(target, np.float64)
    error = np.abs(np.asarray(ticket, np.float64) - goal)
    spread = goal - goal.mean(0)
    varies = bool((target != target[:1]).any())
    finite = np.isfinite(ticket).reshape(len(ticket), -1).all(1)
    return Comparison(
        float(((target.argmax(-1) == ticket.argmax(-1)) & finite).mean()) if classes else None,
        float(error.max()),
        float(error.mean()),
        float(np.linalg.norm(error) / max(np.linalg.norm(goal), np.finfo(np.float64).tiny)),
        len(target),
        float(np.sqrt((error**2).mean())),
        float(1 - (error**2).sum() / (spread**2).sum()) if varies else None,
        int((~finite).sum()),
    )


@in_32_bits()
def run(
    network: Network,
    params: Params,
    images: Batch,
    *,
    copies: Copies | None = None,
    batch: int = BATCH,
    folder: str | Path | None = None,
    tell: Callable[[int, int], None] = lambda done, before: None,
) -> Outputs:
    """A network on any number of images, in batches of one compiled shape.

    Args:
      network, params: the masked source (or any other network).
      images: shape (n, *input_shape).
      copies: also compare every layer with the target it carries.
      batch: images at a time; wide sources need memory of about 6 times their largest layer's activations.
      folder: where batches are kept, at most once a second; called again with the same arguments, a killed
        evaluation goes on from there, to the same bits.
      tell: is called after each batch with the numbers of images done, and of those taken over from there.
    Raises: ValueError if there is no image.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> made = slth.construct(target, slth.Source.of(target, copies=5), slth.Best())
      >>> x = jax.random.normal(jax.random.key(1), (100, 4))
      >>> out = slth.evaluate.run(made.source.network, made.ticket.params, x, copies=made.copies())
      >>> bool(abs(made.factor * out.logits - made.ticket(x)).max() < 1e-5), list(out.layers)
      (True, ['a', 'b'])
    """
    places = {} if copies is None else {path: copies.places(path) for path in copies.columns}
    used = {} if copies is None else {path: copies.reads[path][copies.columns[path]] for path in places}

    def outputs(x: Batch) -> Arrays:
        if copies is None:
            return {OUTPUTS: apply_compiled(network, params, x)}
        y, powers = _compared(network, copies.target, params, copies.params, places, used, x)
        return powers | {OUTPUTS: y}

    identity = ""
    if folder is not None:
        goal = None if copies is None else copies.target
        trees = (params, None if copies is None else copies.params, places, used)
        facts = (jax.devices()[0].device_kind, network, goal, list(places), min(batch, len(images)))
        identity = identity_of("evaluation", *facts, arrays=[*jax.tree.leaves(trees), images])
        folder = Path(folder) / identity[:12]
    found = in_kept_batches(outputs, images, batch, folder, identity, tell)
    return Outputs(found[OUTPUTS], {path: _layer_error(found[path], used[path]) for path in places})


@partial(jax.jit, static_argnums=(0, 1))
def _compared(
    network: Network, target: Network, params: Params, goal: Params, places: Arrays, used: Arrays, x: Batch
) -> tuple[Array, dict[str, Float[Array, "n 4"]]]:
    """Outputs, and by layer and image the squared norms for `_layer_error`."""
    y, values = nn.trace(network, params, x)
    _, right = nn.trace(target, goal, x)
    powers = {}
    names = carried_values(target)
    for path, place in places.items():
        carried = jnp.where(place >= 0, values[names[path]][..., place], 0).reshape(len(x), -1, *place.shape)
        x_j = right[names[path]].reshape(len(x), -1, len(place))
        count = used[path].sum(-1)[None, None]
        off = jnp.where(used[path][None, None], carried - x_j[..., None], 0)
        mean_off = off.sum(-1) / jnp.maximum(count, 1)
        parts = (off, x_j * jnp.sqrt(count.astype(x.dtype)), mean_off, jnp.where(count > 0, x_j, 0))
        powers[path] = jnp.stack([(part**2).reshape(len(x), -1).sum(1) for part in parts], 1)
    return y, powers


def _layer_error(powers: Float[np.ndarray, "n 4"], used: Bool[np.ndarray, "cout copies"]) -> LayerError:
    total = np.sum(powers, 0, np.float64)
    off, power, mean_off, mean_power = np.maximum(total, np.finfo(np.float64).tiny)
    unread = int((~used).sum())
    return LayerError(float(np.sqrt(off / power)), float(np.sqrt(mean_off / mean_power)), unread)


def carried_values(target: Network) -> dict[str, str]:
    """For every node by its path, the value of `slth.nn.trace` that its copies carry: the node's sum.

    Example:
      >>> from slth import evaluate, nn
      >>> block = nn.Residual("block", (nn.Dense("inner", 3),))
      >>> evaluate.carried_values(nn.Network((3,), (block,)))
      {'block/branch/inner': 'block'}
    """
    return {step.path: step.name for step in sums(target)}
