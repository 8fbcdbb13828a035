"""``slth`` and its commands."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax

from slth.cli.inspect import inspect
from slth.cli.zoo import listed, shown, verified

INSPECT = """What is inside a checkpoint: kind of file, sets of parameters, arrays by name, the named spec
that fits best, what is missing, left over or of another shape, and the lines that load it.

Files: PyTorch, safetensors, .npz, flax .msgpack, a folder of orbax, HDF5 and Keras, ONNX, tickets and
networks of slth. Nothing that a file names is run. Exit code 0 if the file was read, 1 if not."""
INSPECT_EXAMPLES = """examples:
  slth inspect resnet20.th
  slth inspect last.ckpt --key state_dict_ema
  slth inspect net.pt --rename '^head' fc --ignore 'aux.*'"""
ZOO = """Tickets of published networks, by seed and command. Their files are not delivered: each is built
again by its command, and is known by its hash."""
ZOO_EXAMPLES = """examples:
  slth zoo                                    all tickets
  slth zoo show resnet20_robust               one: where its target is from, the commands that build it
  slth zoo verify ticket.safetensors          is this file one of them? (exit code 1 if it is not)"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slth",
        description="slth: strong lottery tickets, constructed. Runs are started by `python -m "
        "experiments.ticket`; these commands look at files.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def added(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    one = added("inspect", "print what is inside a checkpoint", INSPECT, INSPECT_EXAMPLES)
    one.add_argument("file", metavar="FILE", help="a file, or a folder of orbax")
    one.add_argument("--key", metavar="KEY", help="the one set of parameters to look at; dots join keys")
    one.add_argument(
        "--rename",
        metavar=("REGEX", "NAME"),
        nargs=2,
        action="append",
        default=[],
        help="a regular expression and what to put in its place in names; may be repeated",
    )
    one.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="a pattern of names that may be left over, such as 'head.*'; may be repeated",
    )
    one.set_defaults(run=lambda o: inspect(o.file, [tuple(pair) for pair in o.rename], o.ignore, o.key))

    zoo = added("zoo", "list, show and verify tickets of published networks", ZOO, ZOO_EXAMPLES)
    zoo.set_defaults(run=lambda o: listed())
    inner = zoo.add_subparsers(metavar="[COMMAND]")
    show = inner.add_parser("show", help="print one ticket's target, settings, hashes and commands")
    show.add_argument("name", metavar="NAME", help="a name of `slth zoo`")
    show.set_defaults(run=lambda o: shown(o.name))
    verify = inner.add_parser("verify", help="say which ticket of the zoo a file is, if any")
    verify.add_argument("file", metavar="FILE", help="a ticket file")
    verify.set_defaults(run=lambda o: verified(o.file))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints to standard output, and one line to standard error where it fails.

    Args:
      arguments: the words behind ``slth``; those of the process where None.
    Returns: the exit code: 0, or 1 for a file that cannot be read or is not what was asked.
    Raises: SystemExit with exit code 2 for a command that does not exist, and 0 for ``--help``.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from slth import cli
      >>> file = tempfile.mkdtemp() + "/net.npz"
      >>> np.savez(file, **{"linear.weight": np.ones((3, 4)), "linear.bias": np.ones(3)})
      >>> cli.main(["inspect", file])    # doctest: +ELLIPSIS
      file     ...net.npz: NumPy .npz, ... bytes
      ...
      0
    """
    options = _parser().parse_args(arguments)
    try:
        lines: list[str] = list(options.run(options))  # all of them, or the error alone
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # whoever read the lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def command() -> NoReturn:
    """The console command: `main` on the CPU, which is all that it needs."""
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
