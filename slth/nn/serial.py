"""A network spec as plain JSON values, and back with every field checked.

A layer is ``{"type": "Conv", "name": "conv1", ...}`` with all its fields; one that layers got `later` stands
there only where it differs from its default. Reading trusts nothing: an unknown type or field, a missing one,
or a value of another kind is refused by its place.
"""

from dataclasses import Field, fields, is_dataclass
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
        written = (field for field in fields(value) if not _is_default(value, field))
        return {"type": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in written}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _is_default(value: Any, field: Field) -> bool:
    return LATER in field.metadata and getattr(value, field.name) == field.default


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
        raise ValueError(f"{where}: expected an object, got {_shown(value)}")
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


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
