"""A network as PyTorch's arrays by name and a short module in Python that reads them, channels first."""

import keyword
import re
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from slth.export.groups import Piece, pieces_of
from slth.export.pools import shares
from slth.nn.graph import Apply, Join, Map, Skip, Step, Sum, by_layer, graph, last_reads, value_shapes
from slth.nn.layers import Activation, ChannelScale, Conv, Dense
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.types import Pairs, Params, Shape

HEADER = "# Written by slth:"
"""First words of a module's file."""
# Attributes of torch.nn.Module, which no layer may replace.
RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr factor float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children named_modules
    named_parameters parameters register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
    """,
    )
)
FUNCTIONS = {
    **{kind: f"F.{kind}({{x}})" for kind in ("relu", "gelu", "silu", "softplus", "elu", "selu", "mish")},
    **{"tanh": "torch.tanh({x})", "sigmoid": "torch.sigmoid({x})", "identity": "{x}"},
    **{"leaky_relu": "F.leaky_relu({x}, {slope!r})", "hard_tanh": "F.hardtanh({x})"},
    **{"relu6": "F.relu6({x})", "hard_sigmoid": "F.hardsigmoid({x})", "hard_swish": "F.hardswish({x})"},
    **{"gelu_tanh": "F.gelu({x}, approximate='tanh')"},
}
PLACES = ("x", "y", "z", "u", "v", "w")
"""Names of the values that are held at a time, taken again once nothing reads them."""
MODULE = """{header} {about}
#
#     import torch
#     from safetensors.torch import load_file
#     from {module} import Net
#
#     net = Net().eval()
#     net.load_state_dict(load_file({arrays}))
#     outputs = net(torch.zeros({example}))
#
# Images have their channels first. Outputs are multiplied by the buffer `factor`.

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, {x}):
{steps}
"""


class TorchFiles(NamedTuple):
    """The content of both files.

    Example:
      >>> from slth import export
      >>> export.TorchFiles(b"", "import torch").module
      'import torch'
    """

    arrays: bytes
    """A state dict as safetensors: kernels (cout, cin, *taps) and (cout, cin)."""
    module: str
    """A Python program with one class, ``Net``."""


def identifier(text: str) -> str:
    """A name in Python that looks like a text: other characters become "_"."""
    name = re.sub(r"[^0-9A-Za-z_]+", "_", text).strip("_") or "layer"
    return f"layer_{name}" if name[0].isdigit() or keyword.iskeyword(name) or name in RESERVED else name


class Attributes:
    """The attributes of the module: what makes each, and its arrays."""

    def __init__(self, params: Params) -> None:
        self.params = by_layer(params)
        self.lines: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.names: set[str] = set()

    def named(self, path: str) -> str:
        """An attribute's name that no other has."""
        name = base = identifier(path)
        number = 2
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    def buffer(self, path: str, value: Any, dtype: type = np.float32) -> str:
        """An array that is no weight; how the module calls it."""
        name, array = self.named(path), np.array(value, dtype, order="C")
        whole = ", dtype=torch.long" if dtype is np.int64 else ""
        size = array.shape[0] if array.ndim == 1 else array.shape
        self.lines.append(f'self.register_buffer("{name}", torch.zeros({size}{whole}))')
        self.arrays[name] = array
        return f"self.{name}"

    def layer(self, path: str, layer: Conv | Dense, own: Params, cin: int) -> str:
        """A convolution with nothing beside its groups, or a dense layer; how the module calls it."""
        name = self.named(path)
        kernel = np.moveaxis(np.asarray(own["kernel"], np.float32), (-1, -2), (0, 1))
        self.arrays[f"{name}.weight"] = np.ascontiguousarray(kernel)
        if layer.use_bias:
            self.arrays[f"{name}.bias"] = np.array(own["bias"], np.float32)
        options = [] if layer.use_bias else ["bias=False"]
        if isinstance(layer, Dense):
            kind, sizes = "Linear", [str(cin), str(layer.features)]
        else:
            kind, sizes = f"Conv{len(layer.kernel)}d", [str(cin), str(layer.features), _short(layer.kernel)]
            given = {"stride": layer.stride, "padding": _even(layer.padding), "dilation": layer.dilation}
            given |= {"groups": (layer.groups,)}
            plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
            texts = {key: _short(value) for key, value in given.items() if value is not None}
            options = [f"{key}={text}" for key, text in texts.items() if text != str(plain[key])] + options
        self.lines.append(f"self.{name} = nn.{kind}({', '.join([*sizes, *options])})")
        return f"self.{name}"

    def term(self, term: Map | Skip, x: str, shape: Shape) -> str:
        """One term of a sum as an expression."""
        match term.layer:
            case Dense():
                return f"{self.layer(term.path, term.layer, self.params[term.path], shape[-1])}({x})"
            case Conv():
                return self.pieces(term.path, term.layer, x, shape[-1])
            case Subsample():
                return self.subsampled(term.layer, x, len(shape) - 1)
            case ChannelScale():
                return self.scaled(term.path, x, len(shape) - 1)
        return x

    def pieces(self, path: str, layer: Conv, x: str, cin: int) -> str:
        """A convolution, with what stands beside its groups, as an expression."""
        found = pieces_of(path, layer, self.params[path], cin)
        joined, added = ([self.conv(piece, x, cin) for piece in part] for part in found)
        y = f"torch.cat([{', '.join(joined)}], 1)" if len(joined) > 1 else joined[0]
        return " + ".join([y, *added])

    def conv(self, piece: Piece, x: str, cin: int) -> str:
        """A convolution of some channels of a value, as an expression."""
        end = piece.first + piece.count
        x = x if piece.count == cin else f"{x}[:, {piece.first}:{end}]"
        padding = piece.layer.padding
        x = x if _even(padding) else f"F.pad({x}, {_padding(padding)})"
        return f"{self.layer(piece.path, piece.layer, piece.params, piece.count)}({x})"

    def scaled(self, path: str, x: str, rank: int) -> str:
        """A factor for each channel."""
        scale = np.asarray(self.params[path]["scale"]).reshape(-1, *(1,) * rank)
        return f"{self.buffer(path, scale)} * {x}"

    def subsampled(self, layer: Subsample, x: str, rank: int) -> str:
        """Every stride-th position; a channel of zeros at the end is what -1 reads, as the last one."""
        steps = "".join(f", ::{stride}" for stride in layer.stride)
        x = f"{x}[:, :{steps}]" if max(layer.stride, default=1) > 1 else x
        if min(layer.channels) < 0:
            x = f"F.pad({x}, {(0, 0) * rank + (0, 1)})"
        return f"{x}[:, {self.buffer('channels', layer.channels, np.int64)}]"

    def apply(self, step: Apply, x: str, shape: Shape) -> str:
        """A step that is no sum, as an expression."""
        rank = len(shape) - 1
        match step.layer:
            case Activation(kind, slope):
                return FUNCTIONS[kind].format(x=x, slope=slope)
            case Pool():
                return self.pool(step.layer, x, shape)
            case GlobalMax():
                return f"{x}.amax({tuple(range(2, 2 + rank))})" if rank else x
            case Upsample(factors):
                repeats = (f".repeat_interleave({n}, {axis})" for axis, n in enumerate(factors, start=2))
                return f"{x}{''.join(repeats)}"
            case GlobalMean():
                return f"{x}.mean({tuple(range(2, 2 + rank))})" if rank else x
            case Flatten(order):
                turned = f".permute({', '.join(map(str, (0, *range(2, 2 + rank), 1)))})"
                return f"{x}{turned if order == 'hwc' and rank else ''}.flatten(1)"
            case Subsample():
                return self.subsampled(step.layer, x, rank)
            case ChannelScale():
                return self.scaled(step.path, x, rank)
        raise ValueError(f"{step.layer}: not one of the layers that PyTorch's modules hold")

    def pool(self, layer: Pool, x: str, shape: Shape) -> str:
        """Largest entries or means; where windows hold unequal numbers of entries, means over whole windows
        times what is missing."""
        padding, rank = layer.full_padding(shape), len(layer.window)
        inside = _even(padding)
        # PyTorch pads by at most half a window.
        if inside is None or any(2 * pad > size for pad, size in zip(inside, layer.window, strict=True)):
            least = ", value=-torch.inf" if layer.kind == "max" else ""
            x, inside = f"F.pad({x}, {_padding(padding)}{least})", (0,) * rank
        sizes = [_short(layer.window), _short(layer.stride), _short(inside)]
        sizes = sizes[: 3 if any(inside) else 2 if layer.stride != layer.window else 1]
        kind = "max" if layer.kind == "max" else "avg"
        pooled = f"F.{kind}_pool{rank}d({', '.join([x, *sizes])})"
        if layer.kind == "max":
            return pooled
        share = shares(layer, shape)
        return pooled if share is None else f"{self.buffer('share', share)} * {pooled}"


def torch_files(
    network: Network, params: Params, factor: float, about: str, arrays: str = "net.safetensors"
) -> TorchFiles:
    r"""A state dict and a module of PyTorch for :math:`\lambda f(x)`; PyTorch is not needed to write them.

    Args:
      network, params: without batch norm.
      factor: lambda, by which outputs are multiplied; the buffer ``factor``.
      about: what the first line of the module says of it.
      arrays: the name of the file of arrays, which the module's first lines mention.

    Example:
      >>> import jax
      >>> from slth import export, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> files = export.torch_files(network, nn.init(network, jax.random.key(0)), 0.5, "an example")
      >>> print(files.module.partition("class")[2])
       Net(nn.Module):
          def __init__(self):
              super().__init__()
              self.a = nn.Linear(4, 3)
              self.b = nn.Linear(3, 2)
              self.register_buffer("factor", torch.ones(()))
      <BLANKLINE>
          def forward(self, x):
              x = self.a(x)
              x = F.relu(x)
              x = self.b(x)
              return self.factor * x
      <BLANKLINE>
    """
    made, shapes, last = Attributes(params), value_shapes(network), last_reads(network)
    held = {0: PLACES[0]}  # the value's name in the module by its number
    lines = []
    for number, step in enumerate(graph(network)):
        text = _expression(made, step, held, shapes)
        for value in {one for one in step.reads if last[one] == number}:
            del held[value]
        held[number + 1] = next(name for name in _places(len(held)) if name not in held.values())
        if text != held[number + 1]:
            lines.append(f"{held[number + 1]} = {text}")
    made.lines.append('self.register_buffer("factor", torch.ones(()))')
    made.arrays["factor"] = np.array(factor, np.float32)
    lines.append(f"return self.factor * {held[len(graph(network))]}")
    channels_first = (1, shapes[0][-1], *shapes[0][:-1])
    module = MODULE.format(
        header=HEADER,
        about=" ".join(about.split()),
        module=identifier(arrays.removesuffix(".safetensors")),
        arrays=ascii(arrays),
        example=", ".join(map(str, channels_first)),
        layers="\n".join(f"        {line}" for line in made.lines),
        x=PLACES[0],
        steps="\n".join(f"        {line}" for line in lines),
    )
    return TorchFiles(safetensors.numpy.save(made.arrays, {"format": "pt"}), module)


def _expression(made: Attributes, step: Step, held: dict[int, str], shapes: tuple[Shape, ...]) -> str:
    match step:
        case Sum(maps=maps, skips=skips):
            terms = (made.term(one, held[one.reads], shapes[one.reads]) for one in (*maps, *skips))
            return " + ".join(terms)
        case Join(reads=reads):
            return f"torch.cat([{', '.join(held[value] for value in reads)}], 1)"
        case Apply(value=value):
            return made.apply(step, held[value], shapes[value])


def _places(count: int) -> tuple[str, ...]:
    """One name more than values are held."""
    return (*PLACES, *(f"x{number}" for number in range(1, count + 2)))


def _even(padding: Pairs) -> tuple[int, ...] | None:
    """One number for each axis where both sides are padded alike."""
    return tuple(a for a, _ in padding) if all(a == b for a, b in padding) else None


def _padding(padding: Pairs) -> tuple[int, ...]:
    """Padding in the order of F.pad, the last axis first."""
    return tuple(pad for pair in reversed(padding) for pad in pair)


def _short(sizes: tuple[int, ...]) -> str:
    """One number where all are the same."""
    return str(sizes[0]) if len(set(sizes)) == 1 else str(tuple(sizes))
