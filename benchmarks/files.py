"""Tickets of files of other programs: ``python -m benchmarks.files RECIPES FOLDER [--only NAME ...]``.

RECIPES is a module such as `benchmarks.recipes.found`. Its `FILES` says of each file in FOLDER what it is,
how it is read, and what goes into the network. A row of the first table says by which door the file came
in, how far the target is from what the file's own program computes (*door's error*: the largest difference
by the largest output; a percentage is the target's accuracy), and how far the ticket is from the target on
inputs that the construction has not seen. The second table has what is refused, in slth's words. Rows are
printed as they are made.
"""

import argparse
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import numpy as np

import slth
import slth.data
from slth import nn
from slth.construction.solvers import Solver

HEAD = (
    *("file", "what it is", "maker", "door", "weights", "inputs", "door's error"),
    *("copies", "agreement", "relative error", "seconds"),
)


@dataclass(frozen=True)
class Inputs:
    """What a network reads: `known`, (n, *input_shape), may be looked at by the construction, `unseen` not.

    `labels`, shape (k,), are the classes of `unseen` where those of the network are the same.
    """

    what: str
    known: np.ndarray
    unseen: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Recipe:
    """One file: what it is, and how it becomes a ticket.

    Attributes:
      file: its path in the folder.
      what, maker, door: words for the table.
      target: reads the file.
      inputs: what goes into the network; None for a file that is refused.
      outputs: what the file's own program computes from inputs; None where it is not at hand.
      labelled: whether the labels of the data are the classes of the network.
      copies: of the source.
    """

    file: str
    what: str
    maker: str
    door: str
    target: Callable[[Path], slth.Target]
    inputs: Callable[[Path], Inputs] | None = None
    outputs: Callable[[Path, np.ndarray], np.ndarray] | None = None
    labelled: bool = False
    copies: int = 6


SOLVER: Solver = slth.Compensated(sweeps=4)


def pictures(
    name: str,
    mean: list[float],
    std: list[float],
    size: int | None = None,
    grey: bool = False,
    count: int = 256,
) -> Inputs:
    """Images of digits, MNIST or CIFAR-10, (x - mean) / std, resized to `size` pixels, grey if that is asked.

    MNIST has its test images alone: the construction may look at the first of them, the last are unseen.
    """
    data = _set(name)
    shown = data.train_images if len(data.train_images) else data.test_images
    parts = []
    for x in (shown[:count], data.test_images[-count:]):
        x = x.mean(-1, keepdims=True) if grey else x
        if size and size != x.shape[1]:
            x = np.asarray(jax.image.resize(x, (len(x), size, size, x.shape[-1]), "linear"))
        parts.append(np.asarray((x - np.asarray(mean)) / np.asarray(std), np.float32))
    return Inputs(name, parts[0], parts[1], np.asarray(data.test_labels[-count:]))


@cache
def _set(name: str) -> slth.data.Data:
    folder = Path(os.environ.get("SLTH_DATA", "."))
    where = {"digits": None, "mnist": folder / "mnist_test.npz", "cifar10": folder / "tensorflow_datasets"}
    return slth.data.load(name, where[name], mean=[0.0], std=[1.0])


def random(shape: tuple[int, ...], count: int = 256) -> Inputs:
    """Normal numbers of mean 0 and deviation 1."""
    x = np.random.default_rng(0).standard_normal((2 * count, *shape)).astype(np.float32)
    return Inputs("random", x[:count], x[count:])


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, divided by the largest of `b`."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def row(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """The cells of one file, in the order of `HEAD`."""
    begun = time.perf_counter()
    path = folder / recipe.file
    target = recipe.target(path)
    assert recipe.inputs is not None
    inputs = recipe.inputs(path)
    outputs = np.asarray(target(inputs.unseen))
    checks = []
    if recipe.outputs is not None:
        theirs = np.asarray(recipe.outputs(path, inputs.unseen))
        checks.append(f"{difference(outputs, theirs.reshape(outputs.shape)):.0e}")
    if inputs.labels is not None and recipe.labelled:
        checks.append(f"{100 * np.mean(outputs.argmax(-1) == inputs.labels):.1f} %")
    source = slth.Source.of(target, copies=recipe.copies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the row says how far the ticket is
        made = slth.construct(target, source, SOLVER, inputs.known)
    error = made.error(inputs.unseen)
    agreement = f"{100 * error.agreement:.1f} %" if error.agreement is not None else f"R² {error.r2:.4f}"
    return (
        *(Path(recipe.file).name, recipe.what, recipe.maker, recipe.door, f"{nn.count(target.params):,}"),
        *(inputs.what, ", ".join(checks) or "-", str(recipe.copies), agreement, f"{error.relative:.3f}"),
        f"{time.perf_counter() - begun:.0f}",
    )


def main() -> None:
    """The two tables, for the recipes that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files")
    parser.add_argument("recipes", help="a module, such as benchmarks.recipes.found")
    parser.add_argument("folder", type=Path, help="where the files are")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of files to take")
    parser.add_argument("--refused", action="store_true", help="print the table of refusals alone")
    given = parser.parse_args()
    recipes: tuple[Recipe, ...] = importlib.import_module(given.recipes).FILES
    wanted = [one for one in recipes if not given.only or any(name in one.file for name in given.only)]
    if not given.refused:
        _line(HEAD)
        _line(("---",) * len(HEAD))
        for recipe in wanted:
            if recipe.inputs is not None:
                try:
                    _line(row(recipe, given.folder))
                except (ValueError, TypeError, OSError, KeyError) as error:  # one file's fault ends no table
                    print(f"{recipe.file}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    _line(("file", "what it is", "maker", "refused, since"))
    _line(("---",) * 4)
    for recipe in wanted:
        if recipe.inputs is None:
            _line((Path(recipe.file).name, recipe.what, recipe.maker, _reason(recipe, given.folder)))


def _reason(recipe: Recipe, folder: Path) -> str:
    path = folder / recipe.file
    try:
        recipe.target(path)
    except (ValueError, TypeError) as error:
        return str(error).replace(f"checkpoint {path}: ", "").replace(str(path), path.name)
    return "nothing: it is read"


def _line(cells: tuple[str, ...]) -> None:
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
