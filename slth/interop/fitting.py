"""Which named spec a file's arrays fit best: builders of the zoo, their parameters read off the shapes."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import signature
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np

from slth.interop.effective import effective
from slth.interop.names import Match, matches
from slth.interop.slots import as_array, slots_of
from slth.interop.tree import mapped, sets_of
from slth.nn.forward import parameter_shapes
from slth.nn.graph import named_layers
from slth.nn.layers import BatchNorm, Conv, Dense, shape_after
from slth.nn.network import Network
from slth.nn.zoo import BUILDERS, resnet_cifar
from slth.nn.zoo.residual import SKIPS
from slth.types import Shape

SIZES = (32, 28, 8, 224, 16, 64, 96, 128, 48, 40, 56, 20, 24, 12, 14, 80, 112, 160, 192, 256)
"""Sides of images that are tried where a builder's own does not fit."""
FLAT = {64: (8, 8, 1), 784: (28, 28, 1), 3072: (32, 32, 3)}
"""Images that a first dense layer of so many inputs is likely to read."""
MOST_ARRAYS = 4096
"""No named spec has as many; files of more are not compared."""
DEEPEST = 1202
"""Depth of the deepest residual net of He et al. 2016, and of those that are tried."""
COMPARED = 6
"""Specs of the likest layers that are compared by name and shape."""
ENDS = {
    **dict.fromkeys(("kernel", "gamma", "scale"), "weight"),
    "beta": "bias",
    **dict.fromkeys(("mean", "moving_mean"), "running_mean"),
    **dict.fromkeys(("var", "moving_variance"), "running_var"),
}
"""What PyTorch calls the arrays of a layer, by what others call them."""


class Guess(NamedTuple):
    """A named spec, with the parameters that a file's shapes suggest."""

    name: str
    """Of `slth.nn.zoo.BUILDERS`, or "resnet_cifar" for another depth."""
    depth: int | None
    """Of "resnet_cifar"."""
    classes: int
    options: dict[str, Any]
    """Those that are not the builder's defaults."""
    network: Network

    @property
    def call(self) -> str:
        """The expression that makes the spec, from `slth.nn.zoo`."""
        shape, options = self.network.input_shape, "".join(f", {k}={v!r}" for k, v in self.options.items())
        name = f"build({self.name!r}, " if self.depth is None else f"{self.name}({self.depth}, "
        return f"zoo.{name}{shape}, {self.classes}{options})"


class Fit(NamedTuple):
    """How the arrays under a key fit a guess."""

    guess: Guess
    key: str
    """The set of parameters, "" for all arrays of the file."""
    keys: tuple[str, ...]
    """All sets that fit."""
    match: Match
    total: int
    """Parameters of the spec."""
    shaped: int
    """Those whose shape, in any order of its axes, an array of the set has, whatever its name is."""

    @property
    def matched(self) -> int:
        """Parameters that have an array of the right shape in the file."""
        return sum(isinstance(value, np.ndarray) for value in self.match.params.values())

    @property
    def share(self) -> float:
        """Matched arrays over those that the spec or the file has; 1 where all fits."""
        return self.matched / max(self.total + len(self.match.left_over), 1)


class Kernel(NamedTuple):
    """What the shape of one array says if it is a kernel; a dense layer has no taps."""

    taps: Shape
    cin: int
    cout: int


def fits(
    tree: Mapping[str, Any],
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
    source: str = "the checkpoint",
) -> list[Fit]:
    """The named specs that fit nested arrays best, the best first.

    Args:
      tree, rename, ignore, key, source: as `slth.interop.fit`.
    Returns: one fit for each spec; several specs that differ in what a file does not say, such as the
      activation, may fit alike. None where there are too many arrays.
    Raises: ValueError where there is no such key, or two arrays have one name.
    """
    rename, ignore = tuple(rename), tuple(ignore)
    found: dict[Network, Fit] = {}
    for held in sets_of(mapped(lambda leaf: leaf, tree), key).values():
        if len(held) > MOST_ARRAYS:
            continue
        guesses = _likest(held)
        least = 2 * guesses[0][0] + 8 if guesses else 0  # what differs in more layers is no help
        for distance, guess in guesses:
            if distance > least:
                break
            if guess.network not in found:
                found[guess.network] = fit_of(guess, tree, rename, ignore, key, source)
            if found[guess.network].match.fits:  # others must be as like
                least = distance
    return sorted(found.values(), key=_rank)


def _rank(fit: Fit) -> tuple[bool, float, float, int]:
    others = max(fit.total, fit.matched + len(fit.match.left_over), 1)
    return not fit.match.fits, -fit.share, -fit.shaped / others, len(fit.guess.options)


def fit_of(
    guess: Guess,
    tree: Mapping[str, Any],
    rename: tuple[tuple[str, str], ...],
    ignore: tuple[str, ...],
    key: str | None,
    source: str,
) -> Fit:
    """How a guess fits the set of arrays that it fits best; see `fits`."""
    found = matches(guess.network, tree, rename=rename, ignore=ignore, key=key, source=source)
    keys, shapes = tuple(k for k, match in found.items() if match.fits), parameter_shapes(guess.network)
    wanted, each = Counter(map(_sizes, shapes.values())), []
    for where, held in sets_of(mapped(lambda leaf: leaf, tree), key).items():
        if where in found:
            shaped = (wanted & Counter(map(_sizes, map(np.shape, held.values())))).total()
            each.append(Fit(guess, where, keys, found[where], len(shapes), shaped))
    return max(each, key=lambda one: (one.match.fits, one.share, one.shaped))


def _sizes(shape: Shape) -> tuple[str, ...]:
    """A shape in no order: programs differ in theirs, and a damaged file may claim anything."""
    return tuple(sorted(map(str, shape)))


def renames(fit: Fit) -> list[tuple[str, str]]:
    """Pairs for ``rename`` that give arrays that are left over the names of those that are missing.

    Layers are paired by the names and shapes of their arrays, and only where no other has the same: a guess
    among several would be wrong in silence.
    """
    slots = {slot.names[0]: slot.shape for slot in slots_of(fit.guess.network)}
    names = [entry.partition(" ")[0] for entry in fit.match.missing]
    missing = _by_shapes((name, slots[name]) for name in names)
    spare = _by_shapes((name, np.shape(value)) for name, value in fit.match.left_over.items())
    pairs = []
    for shapes, layers in missing.items():
        others = spare.get(shapes, [])
        if len(layers) == len(others) == 1:
            pairs.append((rf"^{re.escape(others[0])}\.", f"{layers[0]}."))
    return pairs


def _by_shapes(arrays: Iterable[tuple[str, Shape]]) -> dict[frozenset, list[str]]:
    """Layers by their arrays: what each is, whatever a program calls it, and its shape."""
    layers: dict[str, set] = {}
    for name, shape in arrays:
        layer, _, end = name.rpartition(".")
        layers.setdefault(layer, set()).add((ENDS.get(end, end), _sizes(shape)))
    out: dict[frozenset, list[str]] = {}
    for layer, ends in layers.items():
        out.setdefault(frozenset(ends), []).append(layer)
    return out


def _likest(held: Mapping[str, Any]) -> list[tuple[int, Guess]]:
    """Guesses by how many of their layers differ, by kernel sizes and output channels; the likest first."""
    bare = effective(
        {name: array for name in held if (array := as_array(name, held[name], [])) is not None}, []
    )
    kernels = _kernels(bare)
    norms = sum(name.endswith((".running_var", ".moving_variance", ".var")) for name in bare)
    wanted = Counter((one.taps, one.cout) for one in kernels) + Counter(norm=norms)
    guesses: dict[Network, Guess] = {}
    for guess in sorted(_guesses(kernels), key=lambda guess: len(guess.options)):
        guesses.setdefault(guess.network, guess)

    def distance(guess: Guess) -> int:
        own = Counter(_signature(guess.network))
        return ((own - wanted) + (wanted - own)).total()

    return sorted(((distance(one), one) for one in guesses.values()), key=lambda pair: pair[0])[:COMPARED]


def _signature(network: Network) -> Iterator[Any]:
    for layer in named_layers(network).values():
        if isinstance(layer, Conv):
            yield layer.kernel, layer.features
        elif isinstance(layer, Dense):
            yield (), layer.features
        elif isinstance(layer, BatchNorm):
            yield "norm"


def _kernels(held: Mapping[str, np.ndarray]) -> list[Kernel]:
    """The kernels among arrays by name, in the order of the numbers in their names."""
    found = []
    for name in sorted(held, key=_natural):
        shape = held[name].shape
        if name.endswith("weight") and 2 <= len(shape) <= 4:
            found.append(Kernel(shape[2:], shape[1], shape[0]))
        elif name.endswith(("kernel", "vars.0")) and 2 <= len(shape) <= 4:
            found.append(Kernel(shape[:-2], *shape[-2:]))
    ranks = Counter(len(one.taps) for one in found if one.taps)
    rank = max(ranks, key=ranks.__getitem__, default=0)  # what has another is a scale by channel, (c, 1, 1)
    return [one for one in found if len(one.taps) in (0, rank) and min(*one.taps, one.cin, one.cout) > 0]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(len(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _guesses(kernels: list[Kernel]) -> Iterator[Guess]:
    """Every builder with every plausible option, on the smallest plausible image."""
    convs, dense = ([one for one in kernels if bool(one.taps) is kind] for kind in (True, False))
    ends = [one.cout for one in reversed(dense) if one.cout not in {other.cin for other in dense}]
    classes = list(islice(dict.fromkeys(ends or [one.cout for one in convs[-1:]]), 2))
    starts: dict[int, int] = {}
    for one in convs:
        if one.cin in (convs[0].cin, 1, 3):
            starts.setdefault(one.cin, one.cout)
    for name, depth, builder in _builders(convs):
        known = signature(builder).parameters
        default = known["input_shape"].default
        for count, (cin, width) in product(classes, starts.items() or [(0, 0)]):
            for options in _options(builder, depth, width, dense):
                shapes = _input_shapes(convs, dense, cin, default)
                network = _built(builder, shapes, count, options, {one.cin for one in dense})
                if network is not None:
                    given = {k: v for k, v in options.items() if v != known[k].default}
                    yield Guess(name, depth, count, given, network)


def _builders(convs: list[Kernel]) -> Iterator[tuple[str, int | None, Callable[..., Network]]]:
    """The named builders, then the residual net of CIFAR at the depth that as many 3x3 kernels have."""
    for name, builder in BUILDERS.items():
        if not (convs and "widths" in signature(builder).parameters):
            yield name, None, builder
    blocks = sum(one.taps == (3, 3) for one in convs) - 1
    for depth in (blocks + 2, 3 * blocks + 2):  # of basic blocks, of bottlenecks
        if depth <= DEEPEST:
            yield "resnet_cifar", depth, partial(resnet_cifar, depth)


def _options(
    builder: Callable[..., Network], depth: int | None, width: int, dense: list[Kernel]
) -> Iterator[dict[str, Any]]:
    known, fixed = signature(builder).parameters, getattr(builder, "keywords", {})
    tried: dict[str, list[Any]] = {
        "skip": [None, *SKIPS],
        "pre_activation": [False, True],
        "bottleneck": [False] if depth is None else [False, True],  # else the name says it
        "width": [width],
        "widths": [tuple(one.cout for one in dense[:-1])],
    }
    names = [name for name in tried if name in known and name not in fixed]
    for values in product(*(tried[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _input_shapes(convs: list[Kernel], dense: list[Kernel], cin: int, default: Any) -> list[Shape]:
    if not convs:
        count = dense[0].cin if dense else 0
        return [FLAT.get(count, (count,))]
    own = [default[0]] if isinstance(default, tuple) else []
    rank = len(convs[0].taps)
    return [(side,) * rank + (cin,) for side in dict.fromkeys([*own, *SIZES])]


def _built(
    builder: Callable[..., Network],
    shapes: list[Shape],
    classes: int,
    options: dict[str, Any],
    read: set[int],
) -> Network | None:
    """The network on the first of some images for which its first dense layer reads as many features as one
    of the file's, or most nearly so; None where none can be built."""
    found: dict[int, Network] = {}
    for shape in shapes:
        try:
            network = builder(shape, classes, **options)
        except (ValueError, TypeError):
            continue
        at = next((i for i, layer in enumerate(network.layers) if isinstance(layer, Dense)), None)
        features = 0 if at is None else shape_after(network.layers[:at], shape)[-1]
        if [*found] == [features]:  # whatever the size of the image
            break
        found.setdefault(features, network)
        if features in read:
            break
    nearest = min(found, key=lambda features: min((abs(features - n) for n in read), default=0), default=None)
    return None if nearest is None else found[nearest]
