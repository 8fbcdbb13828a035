"""Libraries that only some files need; none is loaded before such a file is read or written."""

import importlib
from types import ModuleType


def optional(name: str, what: str, package: str) -> ModuleType:
    """A library by its name; ``what`` is what needs it.

    Raises: ValueError, saying what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f'{what} needs {name}: pip install "{package}"') from error
