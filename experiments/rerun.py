"""The command that makes a run again: what its settings change of the defaults."""

import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.defaults import CONF, composed

ABSENT = object()


def command_of(experiment: str, settings: Mapping[str, Any]) -> str:
    """A line for the shell that computes a run of these settings."""
    return shlex.join(["python", "-m", f"experiments.{experiment}", *overrides_of(experiment, settings)])


def overrides_of(experiment: str, settings: Mapping[str, Any]) -> list[str]:
    """Overrides that turn the defaults of today into these settings.

    Settings that the defaults do not have are appended (``+name=value``); defaults that the settings lack, as
    those of an older version do, stay as they are.
    """
    groups = [name for name, value in settings.items() if (CONF / name).is_dir() and isinstance(value, dict)]
    chosen = []
    for group in groups:
        own = composed(experiment).get(group)
        option = _nearest(group, settings[group])
        if option is not None and own != settings[group] and not _same_option(group, own, option):
            chosen.append(f"{group}={option}")
    base = composed(experiment, tuple(chosen))
    return [*chosen, *_differences(base, settings)]


@lru_cache(maxsize=1024)
def _option(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path))
    return {str(k): v for k, v in plain.items() if k != "defaults"} if isinstance(plain, dict) else {}


def _score(option: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Of how many settings an option says the same, less those it says other; None for another name."""
    if "name" in option and option["name"] != settings.get("name"):
        return None
    return sum(1 if settings.get(key, ABSENT) == value else -1 for key, value in option.items())


def _nearest(group: str, settings: Mapping[str, Any]) -> str | None:
    options = {path.stem: _option(path) for path in sorted((CONF / group).glob("*.yaml"))}
    scores = {
        stem: score
        for stem, option in options.items()
        if stem != "base" and (score := _score(option, settings)) is not None
    }
    return max(scores, key=scores.__getitem__, default=None)


def _same_option(group: str, own: Any, option: str) -> bool:
    """Whether the defaults have this option already."""
    return isinstance(own, dict) and _nearest(group, own) == option


def _differences(base: Mapping[str, Any], settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        name, old = f"{prefix}{key}", base.get(key, ABSENT)
        if old == value and type(old) is type(value):
            continue
        if isinstance(value, dict) and isinstance(old, dict) and value:
            yield from _differences(old, value, f"{name}.")
        else:
            yield f"{'+' if old is ABSENT else ''}{name}={written(value)}"


def written(value: Any) -> str:
    """A value as Hydra's overrides say it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(written(one) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{written(str(k))}:{written(v)}" for k, v in value.items()) + "}"
    text = str(value)
    if _read(text) == text:
        return text
    quoted = '"' + text.replace('\\"', '\\\\"').replace('"', '\\"') + '"'
    return quoted


def _read(text: str) -> Any:
    """What Hydra understands by a value that is not quoted; None where that is no text."""
    try:
        value = OverridesParser.create().parse_override(f"x={text}").value()
    except Exception:  # the parser raises many kinds; such a text is quoted
        return None
    return value if isinstance(value, str) else None
