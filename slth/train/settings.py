"""How a target is trained, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a target is trained; equal settings, spec and data give equal parameters on one machine.

    Args:
      epochs: passes over the training images; each leaves out the last incomplete batch of a fresh order.
      batch: images a step (at most the training part).
      rate: largest learning rate; it rises linearly from 0 and then falls as a half cosine to 0.
      warmup: share of all steps that the rise takes, in [0, 1).
      momentum: of Nesterov, in [0, 1).
      weight_decay: lambda of lambda/2 ||w||^2, on kernels alone.
      shift: images are moved by up to so many pixels on both axes, anew in each epoch; zeros enter.
      mirror: every other image, drawn anew, is mirrored left to right.
      seed: of initial parameters, orders and augmentation.
    Raises: ValueError, naming the field that is out of its range.

    Example:
      >>> from dataclasses import replace
      >>> from slth import train
      >>> replace(train.SETTINGS["digits"], epochs=10).batch
      128
      >>> train.Settings(rate=-1)
      Traceback (most recent call last):
      ValueError: train rate must be positive and finite, got -1
    """

    epochs: int = 20
    batch: int = 64
    rate: float = 0.1
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 0
    mirror: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, met, wanted in (
            ("epochs", self.epochs >= 1, "be at least 1"),
            ("batch", self.batch >= 1, "be at least 1"),
            ("shift", self.shift >= 0, "be at least 0"),
            ("warmup", 0 <= self.warmup < 1, "lie in [0, 1)"),
            ("momentum", 0 <= self.momentum < 1, "lie in [0, 1)"),
            ("rate", 0 < self.rate < math.inf, "be positive and finite"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "be at least 0"),
        ):
            if not met:
                raise ValueError(f"train {field} must {wanted}, got {getattr(self, field)}")


SETTINGS: Mapping[str, Settings] = {
    "digits": Settings(epochs=60, batch=128, rate=0.2, shift=1),
    "mnist": Settings(epochs=5, batch=128, rate=0.05),
    "fashion_mnist": Settings(epochs=20, batch=128, rate=0.05, shift=2, mirror=True),
    "cifar10": Settings(epochs=160, batch=128, shift=4, mirror=True),
    "cifar100": Settings(epochs=160, batch=128, shift=4, mirror=True),
    "svhn": Settings(epochs=40, batch=128, shift=2),
    "imagenet": Settings(epochs=90, batch=256, weight_decay=1e-4, mirror=True),
    "folder": Settings(),
    "npz": Settings(),
}
"""Settings that suit each data set of `slth.data`."""
