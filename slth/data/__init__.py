"""Data sets: the embedded digits, MNIST, CIFAR-10 and arrays of your own, scaled and normalised.

``python -m slth.data cifar10 --dir DIR`` downloads and prepares a set; reading it back needs no TensorFlow.
"""

from slth.data.prepared import prepare
from slth.data.sets import NAMES, NORMALISATION, Data, load

__all__ = ["NAMES", "NORMALISATION", "Data", "load", "prepare"]
