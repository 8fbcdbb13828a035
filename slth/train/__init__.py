"""Training a target: stochastic gradient descent on the cross-entropy, resumable and the same for a seed."""

from slth.train.descent import STATE, augment
from slth.train.loop import TARGET, Trained, accuracy, train
from slth.train.progress import Epoch
from slth.train.settings import SETTINGS, Settings

__all__ = [
    "SETTINGS",
    "STATE",
    "TARGET",
    "Epoch",
    "Settings",
    "Trained",
    "accuracy",
    "augment",
    "train",
]
