"""The activations of the table in NumPy and float64, written apart from it."""

import numpy as np
from scipy.special import erf

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


FUNCTIONS = {  # name: function of (x, slope)
    "relu": lambda x, a: np.maximum(x, 0),
    "leaky_relu": lambda x, a: np.where(x < 0, a * x, x),
    "tanh": lambda x, a: np.tanh(x),
    "sigmoid": lambda x, a: sigmoid(x),
    "gelu": lambda x, a: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x, a: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x, a: x * sigmoid(x),
    "softplus": lambda x, a: np.logaddexp(0, x),
    "elu": lambda x, a: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x, a: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "hard_tanh": lambda x, a: np.clip(x, -1, 1),
    "relu6": lambda x, a: np.clip(x, 0, 6),
    "hard_swish": lambda x, a: x * np.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid": lambda x, a: np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x, a: x * np.tanh(np.logaddexp(0, x)),
    "identity": lambda x, a: x,
}


def phi(name: str, slope: float, x) -> np.ndarray:
    """phi(x) of the named activation, float64."""
    return np.asarray(FUNCTIONS[name](np.asarray(x, np.float64), slope), np.float64)
