"""The part of PyTorch that exported modules use, in NumPy: they are tested where PyTorch is not installed.

Written from PyTorch's documentation, with the checks that PyTorch makes: names and shapes of a state dict,
and padding of at most half a pooling window.
"""

from types import SimpleNamespace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tests.nn.functions import phi


class Tensor(np.ndarray):
    def permute(self, *axes):
        return self.transpose(axes)

    def flatten(self, start):
        return self.reshape(*self.shape[:start], -1)

    def amax(self, axes):
        return self.max(axes)

    def repeat_interleave(self, count, axis):
        return self.repeat(count, axis)


def tensor(value):
    return np.asarray(value).view(Tensor)


class Module:
    def __init__(self):
        self.__dict__["_buffers"] = []

    def register_buffer(self, name, value):
        assert not hasattr(Module, name)
        self._buffers.append(name)
        setattr(self, name, value)

    def __call__(self, x):
        return self.forward(x)

    def eval(self):
        return self

    def state(self):
        found = {name: (self, name) for name in self._buffers}
        for name, child in vars(self).items():
            if isinstance(child, Module):
                found |= {f"{name}.{inner}": place for inner, place in child.state().items()}
        return found

    def load_state_dict(self, arrays):
        places = self.state()
        assert places.keys() == arrays.keys()
        for name, (owner, attribute) in places.items():
            assert getattr(owner, attribute).shape == arrays[name].shape, name
            assert getattr(owner, attribute).dtype == arrays[name].dtype, name
            setattr(owner, attribute, tensor(arrays[name]))


class Weighted(Module):
    def __init__(self, shape, bias):
        super().__init__()
        self.register_buffer("weight", zeros(shape))
        self.bias = None
        if bias:
            self.register_buffer("bias", zeros(shape[0]))


class Linear(Weighted):
    def __init__(self, cin, cout, bias=True):
        super().__init__((cout, cin), bias)

    def forward(self, x):
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias[None]


class Conv(Weighted):
    rank = 0

    def __init__(self, cin, cout, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True):
        kernel, *self.settings = (each(value, self.rank) for value in (kernel, stride, padding, dilation))
        assert cin % groups == cout % groups == 0, "channels are divisible by groups"
        self.groups, self.cin = groups, cin
        super().__init__((cout, cin // groups, *kernel), bias)

    def forward(self, x):
        stride, padding, dilation = self.settings
        assert x.shape[1] == self.cin
        x = pad(x, [p for p in reversed(padding) for _ in range(2)])
        kernel = self.weight.shape[2:]
        windows = seen(x, [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)], stride)
        taps = windows[(..., *(slice(None, None, d) for d in dilation))]
        taps = taps.reshape(len(x), self.groups, -1, *taps.shape[2:])
        weight = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        letters = "uv"[: self.rank], "hw"[: self.rank]
        y = np.einsum(f"ngc{letters[1]}{letters[0]},goc{letters[0]}->ngo{letters[1]}", taps, weight)
        y = y.reshape(len(x), -1, *y.shape[3:])
        return tensor(y if self.bias is None else y + self.bias.reshape(1, -1, *(1,) * self.rank))


def each(value, rank):
    return value if isinstance(value, tuple) else (value,) * rank


def seen(x, window, stride):
    """All windows: (n, c, *out, *window)."""
    rank = len(window)
    whole = sliding_window_view(x, window, tuple(range(2, 2 + rank)))
    return whole[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]


def pad(x, sizes, value=0.0):
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    return tensor(np.pad(x, pairs, constant_values=value))


def pooling(rank, reduce, empty):
    def pool(x, window, stride=None, padding=0):
        window, padding = each(window, rank), each(padding, rank)
        stride = window if stride is None else each(stride, rank)
        assert all(2 * p <= w for p, w in zip(padding, window, strict=True)), "at most half a window"
        x = pad(x, [p for p in reversed(padding) for _ in range(2)], empty)
        return tensor(reduce(seen(x, window, stride), tuple(range(2 + rank, 2 + 2 * rank))))

    return pool


def zeros(*shape, dtype=np.float32):
    return tensor(np.zeros(shape[0] if isinstance(shape[0], tuple) else shape, dtype))


def function(name):
    return lambda x, slope=0.01: tensor(phi(name, slope, x))


def gelu(x, approximate="none"):
    return tensor(phi({"none": "gelu", "tanh": "gelu_tanh"}[approximate], 0.0, x))


functional = SimpleNamespace(pad=pad, gelu=gelu)
for name in ("hard_tanh", "hard_sigmoid", "hard_swish"):
    setattr(functional, name.replace("_", ""), function(name))
for name in ("relu", "relu6", "leaky_relu", "silu", "softplus", "elu", "selu", "mish"):
    setattr(functional, name, function(name))
for rank in (1, 2):
    setattr(functional, f"max_pool{rank}d", pooling(rank, np.max, -np.inf))
    setattr(functional, f"avg_pool{rank}d", pooling(rank, np.mean, 0.0))
nn = SimpleNamespace(Module=Module, Linear=Linear, functional=functional)
nn.Conv1d, nn.Conv2d = (type(f"Conv{rank}d", (Conv,), {"rank": rank}) for rank in (1, 2))
torch = SimpleNamespace(
    nn=nn,
    zeros=zeros,
    cat=lambda values, axis: tensor(np.concatenate(values, axis)),
    ones=lambda shape: tensor(np.ones(shape, np.float32)),
    long=np.int64,
    inf=np.inf,
    tanh=function("tanh"),
    sigmoid=function("sigmoid"),
)
MODULES = {"torch": torch, "torch.nn": nn, "torch.nn.functional": functional}
