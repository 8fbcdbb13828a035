"""A network spec as plain JSON values, and back with every field checked.

A layer is ``{"type": "Conv", "name": "conv1", ...}`` with all its fields. Reading trusts nothing: an unknown
type or field, a missing one, or a value of another kind is refused by its place.
"""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slth.nn import layers
from slth.nn.layers import Layer
from slth.nn.network import Network

KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Layer)}


def encode(network: Network) -> dict[str, Any]:
    """The spec as dicts, lists, strings and numbers; `decode` is the inverse.

    >>> from slth import nn
    >>> encode(nn.Network((3,), (nn.Dense("a", 2),)))["layers"]
    [{'type': 'Dense', 'name': 'a', 'features': 2, 'use_bias': True}]
    """
    return {field.name: _plain(getattr(network, field.name)) for field in fields(network)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__} | named
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def decode(value: Any, where: str = "network") -> Network:
    """The spec that `encode` wrote.

    Args:
      value: what a JSON reader gives.
      where: what a message calls the value.
    Raises: ValueError naming the place, such as ``network.layers[2].kernel``, and what was expected there.
    """
    network = _fields(Network, value, where)
    _check_names(network.layers, f"{where}.layers")
    return network


def _fields(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {_shown(value)}")
    hints = get_type_hints(kind, dict(vars(layers)))
    known = [field.name for field in fields(kind)]
    for name in value:
        if name not in known:
            raise ValueError(f"{where}: unknown field {name!r}")
    for name in known:
        if name not in value:
            raise ValueError(f"{where}: field {name!r} is missing")
    given = {name: _read(hints[name], value[name], f"{where}.{name}") for name in known}
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {_shown(value)}")
        if arguments[1:] == (...,):
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise ValueError(f"{where}: expected {len(arguments)} entries, got {len(value)}")
        return tuple(
            _read(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is Literal:
        if value not in arguments:
            raise ValueError(
                f"{where}: expected one of {', '.join(map(str, arguments))}, got {_shown(value)}"
            )
        return value
    if isinstance(hint, UnionType) or is_dataclass(hint):
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"{where}: expected a layer of type {', '.join(KINDS)}, got {_shown(kind)}")
        return _fields(KINDS[kind], {k: v for k, v in value.items() if k != "type"}, where)
    if type(value) is not hint:  # a bool is no int, an int no float
        raise ValueError(f"{where}: expected {hint.__name__}, got {_shown(value)}")
    return value


def _check_names(of: tuple[Layer, ...], where: str) -> None:
    """Names of one sequence differ, are not empty and hold no "/", which joins nested ones."""
    seen = set()
    for index, layer in enumerate(of):
        name = getattr(layer, "name", None)
        if name is None:
            continue
        if name in seen or not name or "/" in name:
            raise ValueError(f"{where}[{index}].name: {name!r} is empty, holds a '/' or is taken")
        seen.add(name)
        for part in ("branch", "skip"):
            _check_names(getattr(layer, part, ()), f"{where}[{index}].{part}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
