"""One target layer, the source's layers for it, and what survives of them in a real ticket: layer.png."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.claims import Claim, caption, recorded
from experiments.command_line import main
from experiments.compose import ingredients_of
from experiments.points import ticket_run
from experiments.ticket import FILE
from experiments.tracking import tracked
from slth import Ticket, report
from slth.construction import finish, nodes_of, plan_of
from slth.report.words import percent

FEW = 3
"""Most random weights for one of the target's, on average: the paper's "2 to 3"."""


@tracked("layer")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The picture of one layer of the ticket whose run has these settings."""
    where = ticket_run(cfg)
    ticket = Ticket.load(where / FILE)
    target, source, solver, calibration, options, _, _ = ingredients_of(cfg, folder)
    plan = plan_of(target, source, solver, calibration, **options)
    made = finish(plan, nodes_of(plan))  # the run has no more than the mask; this says where each copy lies
    found = report.layer_picture(made, ticket.mask, cfg.layer)
    shown = {name: cfg[name] for name in ("outputs", "inputs", "copies", "channels")}
    report.draw_layer(folder / "layer.png", found, **shown)
    counts = counts_of(found, solver.tolerance)
    claims = claims_of(counts)
    said = _said(found, counts, shown, f"{cfg.target.name}, m = {cfg.source.multiplicity}")
    return {"layer": {"path": found.path, "run": where.name, **counts}} | recorded(
        claims, {"layer": caption(said, claims)}
    )


def counts_of(layer: report.LayerPicture, tolerance: float) -> dict[str, Any]:
    """What survives of the whole layer, drawn or not, and how near the sums of copies come that are read."""
    flat = layer.kept.reshape(*layer.kept.shape[:2], -1)
    shape = (-1, *(1,) * (layer.target.ndim - 1))
    asked = np.broadcast_to((layer.target != 0)[layer.output] & layer.live.reshape(shape), layer.sums.shape)
    off = np.abs(layer.error[asked])
    return {
        "copies": len(layer.output) // len(layer.target),
        "rows": len(layer.live),
        "rows_kept": int(layer.live.sum()),
        "channels": len(layer.input),
        "channels_kept": int(flat.any((0, 2)).sum()),
        "kernels": int(flat.shape[0] * flat.shape[1]),
        "kernels_kept": int(flat.any(2).sum()),
        "weights": layer.kept.size,
        "weights_kept": int(layer.kept.sum()),
        "tolerance": tolerance,
        "sums": len(off),
        "sums_within": int((off <= tolerance).sum()),
        "largest_error": float(off.max(initial=0)),
        "mean_size": float(layer.sizes[asked].mean()) if len(off) else None,
    }


def claims_of(counts: Mapping[str, Any]) -> list[Claim]:
    """What the layer says of the theorem's subsets: how small they are, and how near."""
    size, within = counts["mean_size"], counts["sums_within"] / max(counts["sums"], 1)
    near = f"{percent(within)} of {counts['sums']:,} sums do, the largest error is"
    return [
        Claim(
            f"A few random weights are enough for a weight of the target: {FEW} at most, on average.",
            None if size is None else size <= FEW,
            "No weight of the target is asked for" if size is None else f"The mean is {size:.2f}",
        ),
        Claim(
            f"What is kept sums to the target's weights, within ε = {counts['tolerance']:g} of the source's "
            "scale.",
            within == 1 if counts["sums"] else None,
            f"{near} {counts['largest_error']:.3g}",
        ),
    ]


def _said(layer: report.LayerPicture, counts: Mapping[str, Any], shown: Mapping[str, int], name: str) -> str:
    what = "copies of its inputs" if layer.alpha is None else "univariate channels"
    share = percent(counts["weights_kept"] / counts["weights"])
    survive = (
        f"{counts['channels_kept']:,} of {counts['channels']:,} {what}, {counts['rows_kept']:,} of "
        f"{counts['rows']:,} copies of outputs, {counts['kernels_kept']:,} of {counts['kernels']:,} kernels "
        f"and {counts['weights_kept']:,} of {counts['weights']:,} taps ({share})"
    )
    text = (
        f"Layer {layer.path} of {name}: the target's kernels and the source's random ones, above; below, "
        f"what the ticket keeps, pruned weights pale, and its sums. There survive {survive}. Drawn are the "
        f"first {min(shown['copies'], counts['copies'])} of {counts['copies']} copies of each output"
    )
    if layer.alpha is not None:
        drawn = min(shown["channels"], len(layer.input))
        text += f" and the first {drawn} channels; α are the weights of these"
    return text + "."


if __name__ == "__main__":
    main(run, "layer")
