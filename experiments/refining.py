"""From the group ``refine`` of a config to a refined construction; errors name the field."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.settings import field
from slth import refine
from slth.construction import Construction
from slth.data import Data
from slth.progress import paced
from slth.refinement import Refined
from slth.train import SETTINGS, augment

LOG = logging.getLogger(__name__)


def refine_images(cfg: DictConfig, data: Data) -> np.ndarray | None:
    """Training images to refine on, checked before any work; None where ``refine`` asks for no step."""
    asked = cfg.refine
    if not asked.steps:
        return None
    for name in ("batch", "rate"):
        if asked[name] is None:
            raise ValueError(f"refine.{name}: expected a number, got null")
    with field("refine.images"):
        images = data.train_images if asked.images is None else data.calibration(asked.images)
        if len(images) < 2:
            raise ValueError(f"refinement needs 2 training images at least, {data.name} has {len(images)}")
    return images


def refined_of(cfg: DictConfig, made: Construction, data: Data, images: np.ndarray, folder: Path) -> Refined:
    """The construction refined on images as ``refine`` asks; moved and mirrored as those of its data are.

    Args:
      folder: where its state is kept: a broken refinement goes on from there.
    """
    asked, usual = cfg.refine, SETTINGS.get(data.name)
    moved = None
    if usual is not None and (usual.shift or usual.mirror):
        moved = partial(augment, shift=usual.shift, mirror=usual.mirror)
    with field("refine"), paced("refinement", asked.steps, "steps") as tell:
        found = refine(
            made,
            images,
            steps=asked.steps,
            batch=asked.batch,
            rate=asked.rate,
            loss="classes" if made.target.classes else "outputs",
            augment=moved,
            folder=folder,
            report=lambda look: tell(
                look.step, look.taken_over, f"held-out loss {look.loss:.4f}, best {look.least:.4f}"
            ),
        )
    text = "refined in %d steps: %d bits changed, loss on held-out training images %.4f before, %.4f after"
    LOG.info(text, found.steps, found.changed, found.before, found.after)
    return found
