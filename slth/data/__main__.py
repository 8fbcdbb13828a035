"""Command line: ``python -m slth.data NAME [--dir DIR]`` finds a data set, or downloads and prepares it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slth.data.download import PREPARED, prepare
from slth.data.formats import Reading
from slth.data.known import find
from slth.data.prepared import FORMAT


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m slth.data NAME [--dir DIR]``: a set that is in the folder in any form is read and counted,
    another is prepared; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m slth.data",
        description=f"Find a data set in a folder, or download it and write it as {FORMAT}.",
    )
    parser.add_argument("name", choices=sorted(PREPARED))
    parser.add_argument("--dir", default=None, help="folder for data sets (default: that of TFDS)")
    chosen = parser.parse_args(arguments)
    try:
        print(found(chosen.name, chosen.dir) or prepare(chosen.name, chosen.dir))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def found(name: str, directory: str | None) -> str | None:
    """What is in the folder already; None where the set is not there.

    Raises: ValueError where its files are damaged.
    """
    if directory is None:
        return None
    place = Path(directory).expanduser()
    try:
        held = find(name, place).read(place, Reading())
    except FileNotFoundError:
        return None
    return (
        f"{place} has {name}: {held.train.count:,} training and {held.test.count:,} test images; use it as "
        f"data={name} data.dir={place}"
    )


if __name__ == "__main__":
    sys.exit(main())
