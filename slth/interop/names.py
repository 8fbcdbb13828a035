"""Which array of a foreign file is which parameter of a spec: names, masks, layouts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from slth.nn.forward import init, parameter_shapes
from slth.nn.graph import named_layers
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer
from slth.nn.network import Network
from slth.types import Params, Shape

# Prefixes of a whole file: data parallelism, compilation, modules around the network, flax collections.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "params.", "batch_stats.")

# What other files call a layer of the zoo; "{k}" is the number of a residual block, from 0.
ALIASES = {
    "conv1": ("conv",),
    "bn1": ("bn",),
    "linear": ("fc",),
    "fc": ("linear",),
    "shortcut.0": ("downsample.0",),
    "shortcut.1": ("downsample.1",),
    "shortcut.scale": ("shortcut",),
    "downsample.0": ("shortcut.0",),
    "downsample.1": ("shortcut.1",),
}
BLOCK = "blocks.{k}"

# Leaves of our tree, which are flax's too, beside PyTorch's.
LEAVES = {
    Conv: {"kernel": "weight", "bias": "bias"},
    Dense: {"kernel": "weight", "bias": "bias"},
    BatchNorm: {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
    ChannelScale: {"scale": "weight"},
}

IGNORED = re.compile(r"(^|\.)num_batches_tracked$")
SHOWN = 8  # names that a message lists of each kind; the exception holds them all


class CheckpointMismatch(ValueError):
    """A file that does not fit the spec: every missing, left-over, wrongly shaped or unusable name.

    Example:
      >>> import numpy as np
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2, use_bias=False),))
      >>> try:
      ...     interop.fit(spec, {"head.weight": np.ones((2, 4))})
      ... except interop.CheckpointMismatch as error:
      ...     print(error.missing, error.left_over)
      ['fc.weight (2, 4)'] ['head.weight']
    """

    def __init__(self, source: str, missing: list[str], left_over: list[str], wrong: list[str]):
        self.missing, self.left_over, self.wrong = missing, left_over, wrong
        parts = [("missing", missing), ("wrong", wrong), ("left over", left_over)]
        said = "; ".join(f"{kind}: {_listed(names)}" for kind, names in parts if names)
        super().__init__(f"{source} does not fit the network. {said}")


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


class Slot(NamedTuple):
    """One parameter that a spec asks for."""

    path: tuple[str, ...]
    """Its keys in our tree."""
    names: tuple[str, ...]
    """The dotted names that a file may hold it under; the first is what a message calls it."""
    shape: Shape
    layer: Layer


def fit(
    network: Network,
    arrays: Mapping[str, Any],
    *,
    rename: Iterable[tuple[str, str]] = (),
    source: str = "the checkpoint",
) -> Params:
    r"""The parameters of a spec out of named arrays, :math:`w = \mathrm{weight} \odot \mathrm{mask}`.

    Names may be PyTorch's ("layer1.0.conv1.weight"; kernels (cout, cin, *taps) and (cout, cin) are transposed
    to (*taps, cin, cout) and (cin, cout)), flax's ({"params": ..., "batch_stats": ...}) or those of
    `save_checkpoint`. A name with a partner ``<name>_mask`` stands for the product of both (also
    ``<name>_orig``, as PyTorch's pruning leaves them). The flattening order is the spec's matter.

    Args:
      network: the spec.
      arrays: arrays by name; nested dicts count as names joined by dots.
      rename: pairs (regular expression, replacement), tried on every dotted name in this order.
      source: what a message calls the arrays.
    Returns: a float32 NumPy tree of the structure that `slth.nn.init` makes.
    Raises: CheckpointMismatch (a ValueError) with every missing, left-over or wrong name.

    Example:
      >>> import numpy as np
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2),))
      >>> state = {"module.head.weight": np.ones((2, 4)), "module.head.bias": np.zeros(2)}
      >>> interop.fit(spec, state, rename=[("^head", "fc")])["fc"]["kernel"].shape
      (4, 2)
    """
    wrong: list[str] = []
    held = _masked(_canonical(arrays, rename), wrong)
    tree = jax.eval_shape(lambda: init(network, jax.random.key(0)))
    params: dict[Any, Any] = flatten_dict(tree, keep_empty_nodes=True)
    slots = list(_slots(network))
    own = {slot.names[0] for slot in slots}
    missing, used = [], set()
    for slot in slots:
        found = next((n for i, n in enumerate(slot.names) if n in held and (i == 0 or n not in own)), None)
        if found is None:
            missing.append(f"{slot.names[0]} {_foreign_shape(slot)}")
            continue
        used.add(found)
        params[slot.path] = _placed(slot, found, np.asarray(held[found]), wrong)
    left_over = sorted(name for name in held if name not in used and not IGNORED.search(name))
    if missing or left_over or wrong:
        raise CheckpointMismatch(source, missing, left_over, wrong)
    return unflatten_dict(params)


def _canonical(arrays: Mapping[str, Any], rename: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Dotted names without the prefixes that all of them share."""
    flat: dict[Any, Any] = flatten_dict(dict(arrays))
    held = {".".join(map(str, path)).replace("/", "."): value for path, value in flat.items()}
    if any(name.startswith("params.") for name in held):
        held = {re.sub(r"^(params|batch_stats)\.", "", name): v for name, v in held.items()}
    for prefix in PREFIXES * 2:  # twice: a wrapped module may be wrapped again
        if held and all(name.startswith(prefix) for name in held):
            held = {name.removeprefix(prefix): value for name, value in held.items()}
    for pattern, replacement in rename:
        held = {re.sub(pattern, replacement, name): value for name, value in held.items()}
    return held


def _masked(held: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    """The arrays with every mask multiplied in."""
    out = dict(held)
    for name in [name for name in held if name.endswith("_mask")]:
        base = name.removesuffix("_mask")
        values = next((n for n in (base, f"{base}_orig") if n in held), None)
        if values is None:
            continue  # reported as left over
        mask, value = np.asarray(out.pop(name)), np.asarray(out.pop(values))
        if mask.shape == value.shape:
            out[base] = value * mask
        else:
            wrong.append(f"{name} has shape {mask.shape}, expected {value.shape}")
            out[base] = value
    return out


def _slots(network: Network) -> Iterator[Slot]:
    """Every parameter of a spec, with the names that files may give it."""
    shapes, blocks = parameter_shapes(network), {}
    for path, layer in named_layers(network).items():
        *around, name = path.split("/")
        prefixes = [""]
        for block, part in zip(around[::2], around[1::2], strict=True):
            number = blocks.setdefault(block, len(blocks))
            where = (block, BLOCK.format(k=number), block.replace(".", "_"))
            prefixes = [f"{p}{w}{m}." for p, w, m in product(prefixes, where, ("", f".{part}"))]
        called = (name, *ALIASES.get(name, ()))
        for leaf, foreign in LEAVES[type(layer)].items():
            if (shape := shapes.get(f"{path}/{leaf}")) is None:
                continue
            ways = product(prefixes, called, dict.fromkeys((foreign, leaf)))
            names = tuple(f"{prefix}{module}.{end}" for prefix, module, end in ways)
            yield Slot((*path.split("/"), leaf), names, shape, layer)


def _foreign_shape(slot: Slot) -> Shape:
    """The shape in PyTorch's order: (cout, cin, *taps)."""
    if slot.path[-1] != "kernel":
        return slot.shape
    *taps, cin, cout = slot.shape
    return (cout, cin, *taps)


def _placed(slot: Slot, name: str, value: np.ndarray, wrong: list[str]) -> np.ndarray | None:
    """The array in our layout and float32; None, and a line in ``wrong``, if it cannot be."""
    transposed = slot.path[-1] == "kernel" and name.endswith(".weight")
    expected = _foreign_shape(slot) if transposed else slot.shape
    if isinstance(slot.layer, ChannelScale) and value.shape == (*slot.shape, 1, 1):
        value = value.reshape(slot.shape)
    if value.shape != expected:
        wrong.append(f"{name} has shape {value.shape}, expected {expected}")
        return None
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        wrong.append(f"{name} has type {value.dtype}, expected real numbers")
        return None
    if transposed:
        value = np.transpose(value, (*range(2, value.ndim), 1, 0))
    with np.errstate(over="ignore"):
        value = np.ascontiguousarray(value, np.float32)
    if not np.isfinite(value).all():
        wrong.append(f"{name} holds NaN or infinite numbers")
        return None
    return value
