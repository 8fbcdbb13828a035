"""What `slth.construct` refuses before any work, in one line each."""

import math
import os
from pathlib import Path

import numpy as np

from slth.construction.compensated import Compensated, bytes_of
from slth.construction.rounded import Rounded
from slth.construction.solvers import Solver
from slth.nn.forward import parameter_shapes
from slth.nn.graph import sums
from slth.source import Source, layer_scale
from slth.source.scales import missed_share
from slth.source.widths import first_activation, first_info
from slth.subset_sum.checks import LIMIT
from slth.subset_sum.problem import MAX_ENUMERATED
from slth.target import Target, check_images, kind_of
from slth.types import Batch, Params

MOST_MISSED = 0.02
"""Largest share of a univariate channel's value that its activation may miss at the largest input seen."""


def check(
    target: object,
    source: object,
    solver: object,
    images: Batch | None,
    *,
    fit: float | None,
    nonnegative: bool,
) -> None:
    """Refuse arguments of `slth.construct` that are not what it takes or do not fit together.

    Raises: ValueError.
    """
    if not isinstance(target, Target):
        raise ValueError(
            f"target: expected a slth.Target, got {kind_of(target)}: make one with slth.load(file, spec) or "
            "slth.Target.of(network, params)"
        )
    if not isinstance(source, Source):
        raise ValueError(
            f"source: expected a slth.Source, got {kind_of(source)}: make one with slth.Source.of(target)"
        )
    if isinstance(solver, type) or not isinstance(solver, Solver):
        array = hasattr(solver, "shape")
        hint = "write images=... for images" if array else "give one of slth's, with brackets"
        raise ValueError(f"solver: expected a solver such as slth.Robust(), got {kind_of(solver)}: {hint}")
    number = isinstance(fit, int | float) and not isinstance(fit, bool) and 0 < fit < np.inf
    if fit is not None and not number:
        raise ValueError(f"fit: expected a positive number or None, got {fit!r}")
    if not isinstance(nonnegative, bool):
        raise ValueError(f"nonnegative: expected True or False, got {nonnegative!r}")
    check_widths(target, source, solver)
    if images is not None:
        _check_images(target, source, images, nonnegative=nonnegative)
    elif solver.needs_images:
        raise ValueError(
            f"images: {type(solver).__name__} needs calibration images, of the kind that the target was "
            "trained on and never test images: give some (solver.calibration), or choose slth.Best(), or "
            "slth.Robust(noise='fixed')"
        )


def check_widths(target: Target, source: Source, solver: Solver) -> None:
    """Refuse a source that is not of this target, or that the solver cannot choose from.

    Raises: ValueError.
    """
    _check_source(target, source, solver)
    _check_size(target, source, solver)
    if isinstance(solver, Compensated):
        _check_memory(source)


def check_reach(path: str, values: Params) -> None:
    """Refuse a layer of the balanced target with numbers that no subset-sum problem may have.

    Raises: ValueError, naming the layer.
    """
    for name, leaf in values.items():
        largest = float(np.abs(leaf).max(initial=0.0))
        if largest > LIMIT:
            raise ValueError(
                f"target: the {name} of {path} reaches {largest:.3g} after balancing, beside a source of "
                f"weights near 1; at most {LIMIT:.3g} is solved: are these trained weights?"
            )


def check_folder(folder: object) -> None:
    """Refuse what is no folder, nor a place where one can be made.

    Raises: ValueError.
    """
    if folder is None or (isinstance(folder, str | Path) and not Path(folder).is_file()):
        return
    found = f"the file {folder}" if isinstance(folder, str | Path) else kind_of(folder)
    raise ValueError(f"folder: expected the path of a folder, which need not exist yet, got {found}")


def _check_source(target: Target, source: Source, solver: Solver) -> None:
    made = source.layout
    if made is not None and made.multiplicity != source.multiplicity:
        raise ValueError(
            f"source.multiplicity: its layers are made for {made.multiplicity} copies, got "
            f"{source.multiplicity}: make the source of this multiplicity with "
            "slth.Source.of(target, copies=...)"
        )
    layout = source.checked_layout(target.network)
    if layout.depth == "L+1" and isinstance(solver, Rounded):
        raise ValueError(
            "solver: Rounded chooses among univariate channels, which a source of L+1 has in front of its "
            "first layer only: make it with slth.Source.of(target, depth='2L') (construction.depth=2L)"
        )
    if layout.depth == "L+1" and source.multiplicity > solver.most_copies:
        raise ValueError(
            f"source.multiplicity: {type(solver).__name__} solves problems of at most {solver.most_copies} "
            f"copies, got {source.multiplicity}: make the source with fewer"
        )


def _check_size(target: Target, source: Source, solver: Solver) -> None:
    """Refuse a fixed number of variables that some weight does not have."""
    size = getattr(solver, "size", None)
    if size is None:
        return
    layout = source.layout_for(target.network)
    info = first_info(target.network)
    signs = 2 if info.mu_plus == info.mu_minus else 1
    members = [signs * front.copies for front in layout.univariate]
    if layout.depth == "L+1" and len(layout.nodes) > 1:
        members.append(source.multiplicity)
    most = min(max(source.multiplicity, 15), MAX_ENUMERATED)
    least = min(_smallest_group(number, most) for number in members)
    if size > least:
        raise ValueError(
            f"solver.size: expected at most {least}, the variables of one weight of this source, got {size}: "
            "choose fewer, or make the source with more copies"
        )


def _check_memory(source: Source) -> None:
    """Refuse rows whose matrix of second moments this machine cannot hold: the system would end the process
    without a word."""
    shapes, machine = parameter_shapes(source.network), _memory()
    for step in sums(source.network):
        kernels = [shapes[f"{entry.path}/kernel"] for entry in step.maps]
        variables = sum(math.prod(shape[:-1]) for shape in kernels)
        groups = max((getattr(entry.layer, "groups", 1) for entry in step.maps), default=1)
        needed = bytes_of(variables, step.features // groups)
        if needed > machine:
            raise ValueError(
                f"solver: Compensated solves rows of {variables:,} variables in {step.path}, which takes "
                f"about {needed / 1e9:.3g} GB of the {machine / 1e9:.3g} of this machine: choose "
                "slth.Robust() (solver=robust), which solves weight by weight, or a source of fewer copies "
                "(source.multiplicity)"
            )


def _memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _smallest_group(members: int, most: int) -> int:
    """The fewest variables of one problem, where problems of more than ``most`` are cut into groups."""
    group = math.ceil(members / math.ceil(members / most))
    return members - group * (math.ceil(members / group) - 1)


def _check_images(target: Target, source: Source, images: Batch, *, nonnegative: bool) -> None:
    """Refuse what is no batch of images, or those for which the first activation is not linear enough."""
    check_images(images, target.network.input_shape)
    values = np.asarray(images)
    least, reach = values.min(), float(np.abs(values).max())
    if nonnegative and least < 0:
        raise ValueError(
            f"images: they reach {least:g}, and nonnegative=True says that no input is below 0: leave it out"
        )
    first, info = source.layout_for(target.network).first, first_info(target.network)
    if first is None or info.homogeneous or reach == 0:
        return
    alpha = layer_scale(source, first.path)
    share = missed_share(info, alpha, reach)
    if share > MOST_MISSED:
        kind = first_activation(target.network).kind
        raise ValueError(
            f"images: their largest |x| is {reach:g}, where {kind}(alpha x) of the source's first layer "
            f"(scale {alpha:.3g}) misses {min(share, 1):.0%} of its linear part: make the source with "
            f"slth.Source.of(target, ..., reach={reach:g}) (source.scales), or normalise the images"
        )
