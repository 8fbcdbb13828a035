"""Command line: ``python -m slth.data NAME [--dir DIR]`` downloads and prepares a data set."""

import argparse
import sys
from collections.abc import Sequence

from slth.data.prepared import CLASSES, FORMAT, prepare


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m slth.data NAME [--dir DIR]``: prepare a data set; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m slth.data", description=f"Download a data set and write it as {FORMAT}."
    )
    parser.add_argument("name", choices=sorted(CLASSES))
    parser.add_argument("--dir", default=None, help="folder for data sets (default: that of TFDS)")
    chosen = parser.parse_args(arguments)
    try:
        print(prepare(chosen.name, chosen.dir))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
