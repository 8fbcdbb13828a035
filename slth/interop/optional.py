"""Libraries that only some files need; none is loaded before such a file is read."""

import importlib
from pathlib import Path
from types import ModuleType


def optional(name: str, path: Path, package: str) -> ModuleType:
    """A library by its name.

    Raises: ValueError, saying what to install to read the file.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f'checkpoint {path} needs {name} to be read: pip install "{package}"') from error
