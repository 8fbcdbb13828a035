"""Data sets by name, folders of images and arrays of your own, scaled and normalised.

``python -m slth.data cifar10 --dir DIR`` finds a set in a folder, or downloads and prepares it; nothing that
reads needs TensorFlow.
"""

from slth.data.download import prepare
from slth.data.sets import NAMES, NORMALISATION, Data, load

__all__ = ["NAMES", "NORMALISATION", "Data", "load", "prepare"]
