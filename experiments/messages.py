"""What the command line says: help from the header of a config, and errors with the name that was meant."""

import re
import sys
import textwrap

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from experiments.defaults import CONF, names_in
from experiments.names import nearest, unknown

PLUGINS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}
"""Which extra a config of Hydra comes with."""


def register_help() -> None:
    """Have ``--help`` begin with the header of the experiment's config (``conf/hydra/help``)."""
    OmegaConf.register_new_resolver("header_of", header_of, replace=True)


def header_of(config: str) -> str:
    """The comments that a file in ``conf/`` begins with, under the experiment's command."""
    lines = []
    for line in (CONF / f"{config}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    text = f"python -m experiments.{config}\n\n" + "\n".join(lines) + "\n" + _groups(config)
    return text.replace("$", "$$")


def _groups(config: str) -> str:
    """The groups of a config with their files, and its presets."""
    choices = {
        group: [path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "base"]
        for group in dict.fromkeys(name.partition(".")[0] for name in names_in(config))
        if (CONF / group).is_dir()
    }
    presets = list((CONF / "experiment").glob("*.yaml"))
    choices["+experiment"] = [
        path.stem for path in presets if f"experiments.{config} +experiment={path.stem}" in path.read_text()
    ]
    lines = [
        textwrap.fill(f"  {group:<20} {', '.join(sorted(files))}", 108, subsequent_indent=" " * 23)
        for group, files in choices.items()
        if files
    ]
    return "\n".join(["Files that GROUP=FILE chooses:", *lines, ""]) if lines else ""


def said(error: Exception, config: str | None = None) -> str:
    """What a user is told of an error, in one line.

    Of an override that Hydra cannot read, how to quote it; of a setting or file that is not there, the one
    that may have been meant. ``config`` is the primary config, whose settings are known.
    """
    line = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return _unread(error)
    if not isinstance(error, HydraException):
        return line
    if found := re.match(r"Could not override '([^']*)'|Could not delete from config\. '([^']*)'", line):
        return unknown(found[1] or found[2], _known(config))
    if found := re.match(r"Could not append to config\. An item is already at '([^']*)'", line):
        return f"{found[1]}: is a setting already: leave out the +"
    if found := re.match(r"(?:In '[^']*': )?Could not find '([^']*)/([^'/]*)'", line):
        return _missing(found[1], found[2], line)
    return line


def _unread(error: OverrideParseException) -> str:
    name, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: expected a setting and its value, NAME=VALUE"
    value = value.strip("\"'")
    return (
        f"{name}: cannot read {value}: a value with one of = ~ ( [ {{ or quotes in it needs quotes within "
        f"quotes, '{name}=\"{value}\"'"
    )


def _known(config: str | None) -> list[str]:
    """The settings of a config with the groups that the command line chooses."""
    try:
        overrides = OverridesParser.create().parse_overrides([one for one in sys.argv[1:] if "=" in one])
        chosen = {one.key_or_group: one.value() for one in overrides}
        groups = {k: f"{k}/{v}" for k, v in chosen.items() if (CONF / k / f"{v}.yaml").is_file()}
        own = [name for name in names_in(config) if name.partition(".")[0] not in groups] if config else []
        return own + [name for file in groups.values() for name in names_in(file)]
    except HydraException:
        return []


def _missing(group: str, name: str, line: str) -> str:
    if extra := PLUGINS.get(f"{group}/{name}"):
        return f'{group}: {name} is a plugin that is not installed: pip install "slth[{extra}]"'
    options = (
        line.partition("Available options in ")[2]
        .partition("Config search path")[0]
        .partition(":")[2]
        .split()
    )
    options = [one for one in options if one != "base"]
    near = nearest(name, options)
    return (
        f"{group}={name}: there is no {group}/{name}"
        + (f": did you mean {near}?" if near else "")
        + (f" There are {', '.join(options)}" if options else "")
    )
