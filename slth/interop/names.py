"""Which array of a foreign file is which parameter of a spec, and what does not fit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from slth.interop.effective import effective
from slth.interop.slots import Slot, as_array, foreign_shape, placed, slots_of
from slth.interop.tree import mapped, renamed, sets_of, spellings
from slth.nn.forward import init
from slth.nn.layers import Conv, Dense
from slth.nn.network import Network
from slth.types import Params

IGNORED = re.compile(r"(^|\.)(num_batches_tracked|n_averaged)$")  # counters
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

    def __init__(
        self,
        source: str,
        missing: list[str],
        left_over: list[str],
        wrong: list[str],
        hints: Sequence[str] = (),
    ):
        self.missing, self.left_over, self.wrong = missing, left_over, wrong
        parts = [("missing", missing), ("wrong", wrong), ("left over", left_over)]
        said = "; ".join(f"{kind}: {_listed(names)}" for kind, names in parts if names)
        super().__init__(". ".join([f"{source} does not fit the network. {said}", *hints]))


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


class Match(NamedTuple):
    """How a set of named arrays fits a spec."""

    params: dict[Any, Any]
    """By path; complete where nothing is missing or wrong."""
    missing: list[str]
    left_over: dict[str, Any]
    wrong: list[str]
    outputs: int | None
    """Features of the last layer in the file, where it has that layer."""
    clash: bool = False
    """Whether ``rename`` gives two arrays one name; nothing was matched then."""

    @property
    def fits(self) -> bool:
        """Whether nothing is missing, left over or wrong."""
        return not (self.missing or self.left_over or self.wrong)


def fit(
    network: Network,
    arrays: Mapping[str, Any],
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
    source: str = "the checkpoint",
) -> Params:
    r"""The parameters of a spec out of named arrays, :math:`w = \mathrm{weight} \odot \mathrm{mask}`.

    Names may be PyTorch's ("layer1.0.conv1.weight"; kernels (cout, cin / groups, *taps) and (cout, cin) are
    transposed to (*taps, cin / groups, cout) and (cin, cout)), flax's ({"params": ..., "batch_stats": ...})
    or those of `save_checkpoint`. Words in front of all names (module, model, ...) and dicts around the
    parameters (state_dict, ema, ...) are seen through. Masks of PyTorch's pruning (``<name>_mask`` beside
    ``<name>`` or ``<name>_orig``) and weight norm, :math:`w = g v / \|v\|`, are multiplied out. The
    flattening order is the spec's matter.

    Args:
      network: the spec.
      arrays: arrays by name; nested dicts count as names joined by dots.
      rename: pairs (regular expression, replacement), tried on every dotted name in this order.
      ignore: patterns such as "head.*"; arrays of such names may be left over.
      key: where the arrays hold several sets of parameters, such as weights and their averages, which.
      source: what a message calls the arrays.
    Returns: a float32 NumPy tree of the structure that `slth.nn.init` makes.
    Raises: CheckpointMismatch (a ValueError) with every missing, left-over or wrong name; ValueError where
      there is no such key, or where several sets of parameters fit.

    Example:
      >>> import numpy as np
      >>> from slth import interop, nn
      >>> spec = nn.Network((4,), (nn.Dense("fc", 2),))
      >>> state = {"module.head.weight": np.ones((2, 4)), "module.head.bias": np.zeros(2)}
      >>> interop.fit(spec, state, rename=[("^head", "fc")])["fc"]["kernel"].shape
      (4, 2)
    """
    found = matches(network, arrays, rename=rename, ignore=ignore, key=key, source=source)
    fitting = [key for key, match in found.items() if match.fits]
    if len(fitting) > 1:
        raise ValueError(
            f"{source} holds several sets of parameters that fit, {', '.join(fitting)}: choose one by "
            f"key={fitting[0]!r} (in a run: target.key={fitting[0]})"
        )
    chosen = fitting[0] if fitting else min(found, key=lambda key: _misfit(found[key]))
    match = found[chosen]
    if match.fits:
        return unflatten_dict(match.params)
    hints = hints_of(network, match)
    if len(found) > 1 and chosen:
        hints.append(f"The arrays are those under {chosen}; there are others under {', '.join(found)}")
    raise CheckpointMismatch(source, match.missing, sorted(match.left_over), match.wrong, hints)


def _misfit(match: Match) -> tuple[int, bool, int, int]:
    return len(match.missing), match.clash, len(match.wrong), len(match.left_over)


def matches(
    network: Network,
    arrays: Mapping[str, Any],
    *,
    rename: Iterable[tuple[str, str]] = (),
    ignore: Iterable[str] = (),
    key: str | None = None,
    source: str = "the checkpoint",
) -> dict[str, Match]:
    """How each set of parameters in nested arrays fits a spec, by key, in the spelling that fits best.

    All arrays together, under "", count only where no part of them fits.

    Raises: ValueError where there is no such key, two arrays have one name, or ``rename`` has no expression.
    """
    rename, ignore = tuple(rename), tuple(ignore)
    try:
        sets = sets_of(mapped(lambda leaf: leaf, arrays), key)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    slots, out = list(slots_of(network)), {}
    tree = jax.eval_shape(lambda: init(network, jax.random.key(0)))
    blank = flatten_dict(tree, keep_empty_nodes=True)
    for where, held in sets.items():
        if not where and any(match.fits for match in out.values()):
            continue
        ways = [_matched(slots, blank, spelled, rename, ignore) for spelled in spellings(held)]
        out[where] = min(ways, key=_misfit)
    return out


def _matched(
    slots: list[Slot],
    blank: Mapping[Any, Any],
    held: dict[str, Any],
    rename: tuple[tuple[str, str], ...],
    ignore: tuple[str, ...],
) -> Match:
    wrong: list[str] = []
    for pattern, replacement in rename:
        try:
            held = renamed(held, lambda name, p=pattern, r=replacement: re.sub(p, r, name))
        except ValueError as error:
            return Match({}, [], {}, [f"rename {pattern!r}: {error}"], None, clash=True)
        except re.error as error:
            raise ValueError(
                f"rename {pattern!r} is no regular expression, or {replacement!r} no replacement: {error}"
            ) from error
    held = effective(held, wrong)
    params = dict(blank)
    own = {slot.names[0] for slot in slots}
    last = [slot.path[:-1] for slot in slots if isinstance(slot.layer, Conv | Dense)][-1:]
    missing, used, outputs = [], set(), None
    for slot in slots:
        free = (
            n for i, n in enumerate(slot.names) if n in held and n not in used and (i == 0 or n not in own)
        )
        found = next(free, None)
        if found is None:
            missing.append(f"{slot.names[0]} {foreign_shape(slot)}")
            continue
        used.add(found)
        value = as_array(found, held[found], wrong)
        if value is not None:
            params[slot.path] = placed(slot, found, value, wrong)
            if slot.path[:-1] in last and value.ndim:
                outputs = value.shape[0 if found.endswith("weight") else -1]
    left_over = {
        name: value
        for name, value in held.items()
        if name not in used and not IGNORED.search(name) and not any(fnmatchcase(name, p) for p in ignore)
    }
    return Match(params, missing, left_over, wrong, outputs)


def hints_of(network: Network, match: Match) -> list[str]:
    """What to do about the faults of a match, where they say so much."""
    hints = []
    names = [name for name in match.left_over if re.search(r"(shortcut|downsample|skip)\.", name)]
    shapes = [np.shape(match.left_over[name]) for name in names]
    if any(len(shape) == 4 and (1, 1) in (shape[:2], shape[2:]) for shape in shapes):
        hints.append(
            "It has 1x1 projections on its skips: take a spec with skip='projection' (target.skip=projection)"
        )
    wanted = network.output_shape[-1]
    if match.outputs not in (None, wanted):
        hints.append(
            f"Its last layer has {match.outputs} outputs, the spec's {wanted}: take a spec with as many "
            f"classes (data.classes={match.outputs})"
        )
    if match.missing and match.left_over and not hints:
        hints.append("Say which name is which by rename (target.rename=[[REGEX,NAME]])")
    if match.left_over and not (match.missing or match.wrong or hints):
        hints.append("Arrays that are no parameters are left out by ignore (target.ignore=[PATTERN])")
    return hints
