"""What `slth.construct` refuses before any work, in one line each: the thing, what was expected, what to do."""

import numpy as np

from slth.construction.solvers import Solver
from slth.source import Source, layer_scale, layout_of
from slth.source.scales import missed_share
from slth.source.widths import check_covered, first_activation, first_info
from slth.target import Target
from slth.types import Batch

MOST_MISSED = 0.02
"""Largest share of a univariate channel's value that its activation may miss at the largest input seen."""


def check(
    target: object, source: object, solver: object, images: Batch | None, *, fit: float, nonnegative: bool
) -> None:
    """Refuse arguments of `slth.construct` that are not what it takes or do not fit together.

    Raises: ValueError.
    """
    if not isinstance(target, Target):
        raise ValueError(
            f"target: expected a slth.Target, got {type(target).__name__}: make one with slth.load(file, spec) or "
            "slth.Target.of(network, params)"
        )
    if not isinstance(source, Source):
        raise ValueError(
            f"source: expected a slth.Source, got {type(source).__name__}: make one with slth.Source.of(target)"
        )
    if isinstance(solver, type) or not callable(getattr(solver, "solve", None)):
        name = solver.__name__ if isinstance(solver, type) else type(solver).__name__
        raise ValueError(f"solver: expected a solver such as slth.Robust(), got {name}")
    if not isinstance(fit, int | float) or isinstance(fit, bool) or not 0 < fit < np.inf:
        raise ValueError(f"fit: expected a positive number, got {fit!r}")
    if not isinstance(nonnegative, bool):
        raise ValueError(f"nonnegative: expected True or False, got {nonnegative!r}")
    check_covered(target.network)
    _check_source(target, source, solver)
    _check_images(target, source, solver, images, nonnegative=nonnegative)


def _check_source(target: Target, source: Source, solver: Solver) -> None:
    layout = layout_of(target.network, source.network, source.multiplicity)
    if source.network.input_shape != target.network.input_shape:
        raise ValueError(
            f"source: it reads inputs of shape {source.network.input_shape}, and the target reads "
            f"{target.network.input_shape}: make the source of this target with slth.Source.of(target)"
        )
    if source.layout is not None and source.layout.nodes != layout.nodes:
        raise ValueError(
            "source: it was made for another target: make the source of this target with slth.Source.of(target)"
        )
    if layout.depth == "L+1" and source.multiplicity > solver.most_copies:
        raise ValueError(
            f"source.multiplicity: {type(solver).__name__} solves problems of at most {solver.most_copies} "
            f"copies, got {source.multiplicity}: make the source with fewer"
        )


def _check_images(
    target: Target, source: Source, solver: Solver, images: Batch | None, *, nonnegative: bool
) -> None:
    if images is None:
        if solver.needs_images:
            raise ValueError(
                f"images: {type(solver).__name__} needs calibration images, of the kind that the target was trained "
                "on and never test images: give some (solver.calibration), or choose slth.Best(), or "
                "slth.Robust(noise='fixed')"
            )
        return
    shape = target.network.input_shape
    if not hasattr(images, "shape") or images.ndim != len(shape) + 1 or images.shape[1:] != shape:
        found = getattr(images, "shape", type(images).__name__)
        raise ValueError(f"images: expected an array of shape (n, {', '.join(map(str, shape))}), got {found}")
    if not len(images):
        raise ValueError("images: there are none: give at least one, or None for a solver that needs none")
    values = np.asarray(images)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"images: expected floating-point numbers as the target reads them, got {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise ValueError("images: they hold NaN or infinite numbers: remove those images")
    if nonnegative and values.min() < 0:
        raise ValueError(
            f"images: they reach {values.min():g}, and nonnegative=True says that no input is below 0: leave it out"
        )
    _check_reach(target, source, float(np.abs(values).max()))


def _check_reach(target: Target, source: Source, reach: float) -> None:
    """Refuse inputs for which the first univariate layer's activation is not linear enough."""
    layout = layout_of(target.network, source.network, source.multiplicity)
    info = first_info(target.network)
    if layout.first is None or info.homogeneous or reach == 0:
        return
    alpha = layer_scale(source, layout.first.path)
    share = missed_share(info, alpha, reach)
    if share > MOST_MISSED:
        kind = first_activation(target.network).kind
        raise ValueError(
            f"images: their largest |x| is {reach:g}, where {kind}(alpha x) of the source's first layer (scale "
            f"{alpha:.3g}) misses {min(share, 1):.0%} of its linear part: make the source with "
            f"slth.Source.of(target, ..., reach={reach:g}) (source.scales), or normalise the images"
        )
