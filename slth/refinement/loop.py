r"""A finished mask refined end to end: few flips a step, each where gradients have asked for it long enough.

The masked source has weights :math:`W = b \odot v` with fixed random v and bits b. Training would move W by
small steps against the gradient of the loss; a mask can only jump by v. So every bit has a *debt* u, the sum
of the steps that its weight would have made. A bit flips as soon as its debt is more than half of the jump,
and the jump is taken off the debt:

    u <- u - step
    b <- 1 - b, u <- u - d    where u points along the jump d = (1 - 2 b) v and |u| > |d| / 2

Debts start at 0, so no bit flips before its gradient has pointed one way for some time, small weights flip
before large ones, and few bits flip in one step. (Scores that are all pushed by equal steps from equal
distances, as in straight-through training, cross zero in the same step, thousands at once.)

Source: this project. Accumulated gradients in place of latent weights follow Helwegen et al., "Latent weights
do not exist", NeurIPS 2019; the debt is the error feedback of sigma-delta modulation.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from slth.compact import Thinned, thinned
from slth.construction import Construction
from slth.devices import spread
from slth.kept import find, identity_of
from slth.nn.forward import in_batches
from slth.nn.graph import nested
from slth.precision import in_32_bits
from slth.refinement.state import KEPT_EACH, STATE, Look, Progress, keep_progress, progress_of
from slth.refinement.steps import Kernels, Loss, State, loss_of, outputs_of, step_of
from slth.source import parameter
from slth.target import check_images, checked_integer, checked_positive, checked_word
from slth.types import Batch, Params

MOST_HELD = 512
"""Images held out of the steps, at most; one in eight where there are fewer."""


class Refined(NamedTuple):
    """A refined construction, and what the refinement did.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((8,), (nn.Dense("a", 16), nn.Activation("relu"), nn.Dense("b", 4)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> x = jax.random.normal(jax.random.key(1), (512, 8))
      >>> made = slth.construct(target, slth.Source.of(target, copies=2), slth.Compensated(), x[:256])
      >>> found = slth.refine(made, x, steps=100, loss="outputs")
      >>> found.changed > 0, found.made.unsolved == made.unsolved      # counts are those of the construction
      (True, True)
    """

    made: Construction
    before: float
    """Loss of the given mask on the images that were held out."""
    after: float
    """Loss of the refined mask there: never larger."""
    changed: int
    """Bits in which the two masks differ."""
    steps: int


@in_32_bits()
def refine(
    made: Construction,
    images: Batch,
    *,
    steps: int = 1000,
    batch: int = 64,
    rate: float = 0.005,
    loss: Loss = "classes",
    seed: int = 0,
    every: int = 25,
    augment: Callable[[Array, Array], Array] | None = None,
    folder: str | Path | None = None,
    report: Callable[[Look], None] = lambda look: None,
) -> Refined:
    r"""The mask of a construction, changed bit by bit so that the whole ticket is nearer to its target.

    No weight moves, and no bit of univariate layers and of biases is set. Of all masks seen, the one with
    the smallest loss on held-out images is returned, the given mask among them.

    Args:
      made: of `slth.construct`. A mask of `slth.Rounded` is not rounded any more when bits have changed, and
        its file holds all bits.
      images: shape (n, *input_shape), of the kind that the target was trained on, never test images. One in
        eight, 512 at most, only judge.
      steps: gradient steps.
      batch: images in each.
      rate: length of the first step, in units of the root mean square of a layer's random weights; steps
        become shorter along a half cosine.
      loss: "classes", the Kullback-Leibler divergence of the softmax of the outputs; "outputs", the mean
        squared difference over the mean square of the target's outputs.
      seed: of the order of the images.
      every: steps between two looks at the held-out images.
      augment: (key, images) -> images of the same shape; more images for the target to speak about.
      folder: where the state is kept, at a look and three times a minute at most (`STATE`). Called again with
        the same arguments, ``augment`` among them, a killed refinement goes on from there, to the same mask.
      report: is called after each look at the held-out images, and first of all where one is taken over.
    Returns: the refined construction, losses and counts.
    Raises: ValueError for arguments out of range.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((8,), (nn.Dense("a", 16), nn.Activation("relu"), nn.Dense("b", 4)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> x = jax.random.normal(jax.random.key(1), (512, 8))
      >>> made = slth.construct(target, slth.Source.of(target, copies=2), slth.Compensated(), x[:256])
      >>> found = slth.refine(made, x, steps=100, loss="outputs")
      >>> found.after < found.before
      True
    """
    steps, batch, every = (
        checked_integer(f"refine.{name}", value, 1)
        for name, value in (("steps", steps), ("batch", batch), ("every", every))
    )
    seed = checked_integer("refine.seed", seed, 0)
    checked_positive("refine.rate", rate)
    checked_word("refine.loss", loss, get_args(Loss))
    if loss == "classes" and not made.target.classes:
        raise ValueError("refine.loss: 'classes' means nothing for outputs that are none: choose 'outputs'")
    check_images(images, made.target.network.input_shape)
    if len(images) < 2:
        raise ValueError(f"images: refinement needs 2 at least, some to judge by, got {len(images)}")
    order = np.random.default_rng(seed).permutation(len(images))
    images = np.asarray(images, np.float32)[order]
    judges = max(1, min(MOST_HELD, len(images) // 8))
    held, fitted = images[:judges], images[judges:]
    wanted = made.target(held)

    thin = thinned(made.source.network, made.mask)
    values, random = _parameters(made, thin)
    kept = {path: thin.cut(path, "kernel", thin.mask[path]["kernel"]) for path in random}
    bits = {path: jnp.asarray(mask, jnp.float32) for path, mask in kept.items()}
    lengths = {path: rate * float(jnp.sqrt(jnp.mean(v**2))) for path, v in random.items()}

    def score(bits: Kernels) -> float:
        found = in_batches(
            partial(outputs_of, thin.network, values, np.float32(made.factor), random, bits), held, batch
        )
        return float(loss_of(jnp.asarray(found), jnp.asarray(wanted), loss))

    zeros = jax.tree.map(jnp.zeros_like, bits)
    file, identity = None if folder is None else Path(folder) / STATE, ""
    if file is not None:
        options = (batch, rate, loss, seed, every, steps, augment is None)
        trees = (values, random, bits, made.target.params)
        facts = ("refinement", thin.network, made.target.network, made.factor, options)
        identity = identity_of(*facts, arrays=[*jax.tree.leaves(trees), held, fitted])
    earlier = None if file is None else find(file, identity)
    if earlier is None:
        before = score(bits)
        progress = Progress(State(bits, zeros, zeros, zeros), bits, before, before, 0, before)
    else:
        progress = progress_of(*earlier)
        report(Look(progress.steps, steps, progress.loss, progress.least, progress.steps))
    state, best, least, _, begun, before = progress
    draw = np.random.default_rng([seed, 1])
    size = min(batch, len(fitted))
    since = time.monotonic()
    for number in range(1, steps + 1):
        chosen = draw.choice(len(fitted), size, replace=False)
        if number <= begun:  # an earlier process has done this step
            continue
        x = jnp.asarray(fitted[chosen])
        if augment is not None:
            x = augment(jax.random.fold_in(jax.random.key(seed), number), x)
        share = (1 + np.cos(np.pi * (number - 1) / steps)) / 2
        state = step_of(
            thin.network,
            loss,
            values,
            np.float32(made.factor),
            random,
            state,
            spread(x),
            spread(made.target(x)),
            {path: share * length for path, length in lengths.items()},
            number,
        )
        if number % every == 0 or number == steps:
            now = score(state.bits)
            if now < least:
                best, least = state.bits, now
            if file is not None and (number == steps or time.monotonic() - since >= KEPT_EACH):
                keep_progress(file, Progress(state, best, least, now, number, before), identity)
                since = time.monotonic()
            report(Look(number, steps, now, least, begun))
    new = {path: np.asarray(best[path]) > 0 for path in random}
    changed = sum(int((new[path] != kept[path]).sum()) for path in random)
    if changed:
        mask = {path: {"kernel": thin.whole(path, new[path])} for path in random}
        made = made.with_kernels(nested(mask))
    return Refined(made, before, least, changed, steps)


def _parameters(made: Construction, thin: Thinned) -> tuple[dict[str, Params], Kernels]:
    """By layer, what is left of the source: the masked parameters that stay, and kernels whose bits may flip.

    Univariate layers and biases stay.
    """
    univariate = {one.path for one in made.source.layout_for(made.target.network).univariate}
    values, random = {}, {}
    for path, own in thin.mask.items():
        drawn = {name: np.asarray(parameter(made.source, f"{path}/{name}")) for name in own}
        values[path] = jax.tree.map(jnp.asarray, thin.layer(path, drawn))
        if path not in univariate:
            del values[path]["kernel"]
            random[path] = jnp.asarray(thin.cut(path, "kernel", drawn["kernel"]))
    return values, random
