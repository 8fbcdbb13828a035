"""From the nested dicts of a file to sets of arrays by dotted name: wrappers, collections, prefixes."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any

# Keys under which programs keep a set of parameters; a file may hold several (weights and their averages).
WRAPPERS = (
    *("state_dict", "model_state_dict", "net_state_dict", "model_state", "network_state_dict"),
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema", "ema_params", "params_ema", "shadow"),
    *("weights", "params", "model", "net", "network", "module"),
)
STATISTICS = "batch_stats"
"""The key beside flax's parameters that holds what batch norm has averaged."""

# What stands beside parameters and is none: states of optimisers and of random number generators.
BESIDE = re.compile(
    r"^(opt_state|optimizers?|optimizer_states?|optimizer_state_dict|lr_schedulers?|scheduler|scaler|rngs?)$"
)
# Words in front of every name: data parallelism, compilation, modules around the network, averages.
PREFIXES = ("module", "_orig_mod", "model", "net", "network", "backbone", "ema")
# Keras names a layer twice, "conv2d/conv2d/kernel:0", in files that it writes and that others make of them.
TWICE = re.compile(r"^(?:model_weights\.)?([^.]+)\.\1\.(?=[^.]+$)")
MOST = (
    2**20
)  # arrays that are listed; a dict that holds another twice, and so on, may seem to hold any number


def is_array(leaf: Any) -> bool:
    """Whether a value in a file is an array, or becomes one by ``numpy.asarray``."""
    return hasattr(leaf, "__array__")


def mapped(
    function: Callable[[Any], Any], tree: Mapping, kind: type | None = None, done: dict | None = None
) -> dict[str, Any]:
    """The arrays of a tree (or the leaves of a kind) through a function; all else, and empty dicts, go."""
    done = {} if done is None else done
    out = done[id(tree)] = {}  # while it is filled: a dict may hold itself
    for key, value in tree.items():
        if isinstance(value, Mapping):
            inner = done[id(value)] if id(value) in done else mapped(function, value, kind, done)
            if inner and inner is not out:
                out[str(key)] = inner
        elif is_array(value) if kind is None else type(value) is kind:
            out[str(key)] = function(value)
    return out


def sets_of(tree: Mapping[str, Any], key: str | None = None) -> dict[str, dict[str, Any]]:
    """The sets of arrays by name that may be a network's parameters, by key; under "" all arrays of the file.

    Args:
      key: the one set that is meant; dots join keys within each other.
    Raises: ValueError where there is no such key, or where two arrays have one name.
    """
    if key is not None:
        return {key: _under(tree, key)}
    found = {where: _without_collections(named(held)) for where, held in _wrapped(tree).items()}
    with suppress(ValueError) if found else nullcontext():
        whole = {k: v for k, v in tree.items() if not BESIDE.search(k)}
        found[""] = _without_collections(named(whole))
    return found


def _wrapped(tree: Mapping[str, Any], depth: int = 0) -> dict[str, Mapping[str, Any]]:
    keys = [key for key in WRAPPERS if isinstance(tree.get(key), Mapping)]
    if not keys or depth == 4:
        return {"": tree} if depth else {}
    out = {}
    for key in keys:
        for inner, held in _wrapped(tree[key], depth + 1).items():
            beside = {STATISTICS: tree[STATISTICS]} if STATISTICS in tree else {}
            out[f"{key}.{inner}".removesuffix(".")] = {**beside, key: held} if beside else held
    return out


def _under(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The arrays whose names begin with a key, and the statistics of batch norm that stand beside."""
    flat = named(tree)
    chosen = {name.removeprefix(f"{key}."): v for name, v in flat.items() if name.startswith(f"{key}.")}
    if not chosen:
        heads = [*dict.fromkeys(name.partition(".")[0] for name in flat)]
        raise ValueError(f"key {key!r}: no array's name begins with it, but with {', '.join(heads[:8])}")
    statistics = {name: value for name, value in flat.items() if name.startswith(f"{STATISTICS}.")}
    return _without_collections(statistics | chosen)


def _without_collections(held: dict[str, Any]) -> dict[str, Any]:
    """The arrays without flax's names of collections in front of theirs."""
    flax = re.compile(rf"^(params|ema_params|params_ema|{STATISTICS})\.")
    if any(flax.match(name) for name in held):
        return renamed(held, lambda name: flax.sub("", name))
    return held


def named(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a tree by dotted name, without states of random number generators.

    Raises: ValueError where two arrays have one name.
    """
    held: dict[str, Any] = {}
    for path, value in _leaves(tree):
        name = path.replace("/", ".").removesuffix(":0").removesuffix(".value")
        if any(part in ("rngs", "rng") for part in name.split(".")):
            continue
        if name in held or len(held) == MOST:
            said = "two of its arrays have" if name in held else f"it seems to hold over {MOST} arrays, at"
            raise ValueError(f"{said} the name {name}")
        held[name] = value
    return held


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def renamed(held: Mapping[str, Any], new: Callable[[str], str]) -> dict[str, Any]:
    """The arrays by new names.

    Raises: ValueError, naming both, where two arrays get one name.
    """
    out: dict[str, str] = {}
    for name in held:
        other = out.setdefault(new(name), name)
        if other != name:
            raise ValueError(f"{other} and {name} would both be {new(name)}")
    return {name: held[old] for name, old in out.items()}


def spellings(held: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The arrays as they are named, with Keras's names said once, and without each chain of `PREFIXES`."""
    if any(TWICE.match(name) for name in held):
        once = [TWICE.sub(r"\1.", name) for name in held]
        if len(set(once)) == len(held):
            yield dict(zip(once, held.values(), strict=True))
    roots = [""]
    for root in roots:
        inner = (f"{root}{word}." for word in PREFIXES if root.count(".") < 4)
        roots += [one for one in inner if any(name.startswith(one) for name in held)]
    for root in roots:
        bare = [name.removeprefix(root) for name in held]
        if len(set(bare)) == len(held):  # else it parts what else were one name
            yield dict(zip(bare, held.values(), strict=True))
