"""A ticket on test images: on which of them, in which form, at what cost; a killed evaluation goes on.

Every experiment that evaluates a ticket does it here.
"""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from omegaconf import DictConfig

from slth import Ticket, evaluate, nn
from slth.compact import thinned
from slth.data import Data
from slth.data.formats import part_of
from slth.data.subset import chosen
from slth.evaluate import Copies, LayerError, Outputs
from slth.nn.network import Network
from slth.progress import duration, paced
from slth.types import Batch, Params

LOG = logging.getLogger(__name__)
FOLDER = "evaluation"
"""Folder in which a run keeps evaluated batches until it ends: a broken one goes on from there."""
FORMS = ("compact", "dense")
"""The ticket without its dead channels (`slth.compact`), or the whole masked source."""
CHECKED = 8
"""Images on which the compact form is held against the whole source in every run."""
ALIKE = 1e-3
"""Largest difference of both forms that is not remarked on, in units of the largest output."""
LITTLE = 10**10
"""Multiply-adds that are done in a second or so: nobody needs to know how long they take."""


def part_evaluated(cfg: DictConfig, data: Data) -> Data:
    """The data whose test images are those that ``evaluation.images`` asks for, each class in its share.

    They are drawn with ``data.seed`` as ``data.limit`` draws; of what that leaves.

    Raises: ValueError where there are not so many.
    """
    count, held = cfg.evaluation.images, len(data.test_images)
    if count is None:
        return data
    if count > held:
        raise ValueError(
            f"evaluation.images: {count:,} asked of {data.name}, which has {held:,} test images here: lower "
            "it, or leave it null for all of them"
        )
    part = part_of(data.test_images, data.test_labels)
    images, labels = part.read(chosen(part, count, cfg.data.seed, data.classes is not None))
    return data._replace(test_images=images, test_labels=labels)


class Form(NamedTuple):
    """A network that computes what a ticket does, lambda not applied."""

    name: str
    """One of `FORMS`."""
    network: Network
    params: Params
    held: dict[str, np.ndarray] | None
    """Of `slth.evaluate.Copies`."""


def form_of(cfg: DictConfig, ticket: Ticket) -> Form:
    """The ticket in the form that ``evaluation.form`` asks for."""
    network = ticket.source.network
    if cfg.evaluation.form == "dense":
        return Form("dense", network, ticket.params, None)
    thin = thinned(network, ticket.mask)
    return Form("compact", thin.network, jax.tree.map(jnp.asarray, thin.params(ticket.params)), thin.columns)


class Evaluated(NamedTuple):
    """What an evaluation found."""

    outputs: Float[np.ndarray, "n *out"]
    """For the test images, lambda applied."""
    layers: dict[str, LayerError]
    """On the first ``evaluation.layers`` test images; empty where the copies are not known."""
    seen: dict[str, LayerError]
    """On so many calibration images; likewise."""
    form: Form
    about: dict[str, Any]
    """What section ``evaluation`` of the metrics says of how it was done."""


def evaluated(
    cfg: DictConfig,
    ticket: Ticket,
    images: Batch,
    folder: Path,
    copies: Copies | None = None,
    calibration: Batch | None = None,
) -> Evaluated:
    """A ticket's outputs for images, with the errors by layer where its copies are known.

    Args:
      images: the test images, of `part_evaluated`.
      folder: of the run; batches are kept in it until `forget`.
    """
    batch, form = cfg.evaluation.batch, form_of(cfg, ticket)
    known = None if copies is None else copies._replace(held=form.held)
    layers = len(images) if known is None else min(cfg.evaluation.layers, len(images))
    learned = None if known is None or calibration is None else calibration[: cfg.evaluation.layers]
    total = len(images) + (0 if learned is None else len(learned))
    about = announced(ticket, form, total, batch)
    begun = time.perf_counter()
    with paced("evaluation", total, "images") as tell:
        passes = Passes(form, batch, folder / FOLDER, tell)
        first = passes.run(images[:layers], known)
        seen = {} if learned is None else passes.run(learned, known).layers
        logits = [first.logits]
        if len(images) > layers:
            logits.append(passes.run(images[layers:]).logits)
    seconds, done = time.perf_counter() - begun, total - passes.before
    outputs = np.float32(ticket.factor) * np.concatenate(logits)
    about |= {
        "difference": difference(form, ticket, images[: min(CHECKED, batch)]),
        "images_per_second": done / seconds if done else None,
        "taken_over": passes.before,
    }
    return Evaluated(outputs, first.layers, seen, form, about)


class Passes:
    """Several passes through one network, which count as one work."""

    def __init__(self, form: Form, batch: int, folder: Path, tell: Callable[[int, int], None]) -> None:
        self.form, self.batch, self.folder, self.tell = form, batch, folder, tell
        self.done = self.before = 0
        """Images evaluated, and those of them that an earlier process did."""

    def run(self, images: Batch, copies: Copies | None = None) -> Outputs:
        """One pass (`slth.evaluate.run`)."""
        done, old = self.done, self.before

        def tell(reached: int, before: int) -> None:
            self.done, self.before = done + reached, old + before
            self.tell(self.done, self.before)

        return evaluate.run(
            *(self.form.network, self.form.params, images),
            copies=copies,
            batch=self.batch,
            folder=self.folder,
            tell=tell,
        )


def announced(ticket: Ticket, form: Form, images: int, batch: int) -> dict[str, Any]:
    """What an evaluation costs: said before it begins, and the numbers of section ``evaluation``."""
    each, whole = nn.multiply_adds(form.network), nn.multiply_adds(ticket.source.network)
    beside = "" if each == whole else f" ({whole:,} with its dead channels)"
    text = (
        f"evaluation: {images:,} images in batches of {min(batch, images):,}, {form.name} form: {each:,} "
        f"multiply-adds an image{beside}"
    )
    if each * images > LITTLE:
        text += (
            f": {duration(each * images / product_rate())} at the speed of a matrix product here, likely more"
        )
    LOG.info(text)
    return {"form": form.name, "multiply_adds": each, "dense_multiply_adds": whole}


def product_rate() -> float:
    """Multiply-adds a second of a product of two matrices, at the precision of the layers."""
    size = 1024
    ones = jnp.ones((size, size))
    product = jax.jit(lambda x: jnp.dot(x, x, precision=jax.lax.Precision.HIGHEST))
    product(ones).block_until_ready()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        product(ones).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return size**3 / min(seconds)


def difference(form: Form, ticket: Ticket, images: Batch) -> float | None:
    """Largest difference between the form's outputs and those of the whole masked source, in units of the
    latter's largest; None where the form is the source itself.

    More than the order of float32 sums can make is said in the log.
    """
    if form.held is None:
        return None
    wanted = nn.predict(ticket.source.network, ticket.params, images, len(images))
    found = nn.predict(form.network, form.params, images, len(images))
    off = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), np.finfo(np.float32).tiny))
    if not off <= ALIKE:
        LOG.warning(
            "evaluation: outputs of the compact form and of the whole source differ by %.2g of the largest: "
            "evaluation.form=dense evaluates the source itself",
            off,
        )
    return off


def predicted(network: Network, params: Params, images: Batch, folder: Path) -> Float[np.ndarray, "n *out"]:
    """The outputs of any network for images, with progress, and kept as those of a ticket are."""
    with paced("evaluation", len(images), "images") as tell:
        return evaluate.run(network, params, images, batch=512, folder=folder / FOLDER, tell=tell).logits


def forget(folder: Path) -> None:
    """Remove the batches that were kept: the run's numbers are all there."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def about_images(part: Data, data: Data, goal: Float[np.ndarray, "n *out"] | None) -> dict[str, Any]:
    """What section ``evaluation`` says of the images: how many, of how many, and what the target reaches on
    them.

    Args:
      part: of `part_evaluated`, of ``data``.
      goal: the target's outputs for its test images, None where there is no target.
    """
    return {
        "images": len(part.test_images),
        "of": len(data.test_images),
        "target_accuracy": None if goal is None or data.classes is None else part.accuracy(goal),
    }
