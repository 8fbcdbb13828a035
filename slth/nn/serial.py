"""A network spec as plain JSON values, and back with every field checked.

A layer is ``{"type": "Conv", "name": "conv1", ...}`` with all its fields; one that layers got `later` stands
there only where it differs from its default. Reading trusts nothing: an unknown type or field, a missing one,
or a value of another kind is refused by its place.
"""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slth.nn import layers
from slth.nn.layers import Layer
from slth.nn.network import Network
from slth.nn.spec import LATER

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
        plain: dict[str, Any] = {"type": type(value).__name__}
        for field in fields(value):
            held = getattr(value, field.name)
            if LATER not in field.metadata or held != field.default:
                plain[field.name] = _plain(held)
        return plain
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
    return _fields(Network, value, where)


def _fields(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _expected(where, "an object", value)
    hints = get_type_hints(kind, dict(vars(layers)))
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise ValueError(f"{where}: unknown field {name!r}")
    for name, field in known.items():
        if name not in value and LATER not in field.metadata:
            raise ValueError(f"{where}: field {name!r} is missing")
    given = {name: _read(hints[name], value[name], f"{where}.{name}") for name in known if name in value}
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise _expected(where, "a list", value)
        if arguments[1:] == (...,):
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise ValueError(f"{where}: expected {len(arguments)} entries, got {len(value)}")
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_read(argument, entry, f"{where}[{index}]") for index, (argument, entry) in pairs)
    if origin is Literal:
        if value not in arguments:
            raise _expected(where, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if isinstance(hint, UnionType) or is_dataclass(hint):
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise _expected(where, f"a layer of type {', '.join(KINDS)}", kind)
        return _fields(KINDS[kind], {k: v for k, v in value.items() if k != "type"}, where)
    if type(value) is not hint:  # a bool is no int, an int no float
        raise _expected(where, hint.__name__, value)
    return value


def _expected(where: str, what: str, value: Any) -> ValueError:
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return ValueError(f"{where}: expected {what}, got {shown}")
