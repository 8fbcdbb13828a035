"""The statistics of random subset-sum problems: ``python -m experiments.subset_sum``."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from safetensors.numpy import load_file

from experiments.claims import Claim, caption, recorded
from experiments.command_line import main
from experiments.tracking import tracked
from slth import report
from slth.compile_cache import use_compile_cache
from slth.subset_sum import solve, theory

log = logging.getLogger(__name__)
BATCH = 250_000
QUANTILES = {
    "best_error_q05": 0.05,
    "best_error_q25": 0.25,
    "best_error_median": 0.5,
    "best_error_q75": 0.75,
    "best_error_q95": 0.95,
}


def targets(cfg: DictConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Targets uniform on [-1, 1], or weights drawn from a file and divided by ``targets_scale``."""
    if cfg.targets == "uniform":
        return theory.draw("uniform", (count,), rng)
    weights = trained_weights(Path(cfg.targets).expanduser(), cfg.targets_key)
    scale = np.abs(weights).max() if cfg.targets_scale == "max" else float(cfg.targets_scale)
    if not scale > 0:
        raise ValueError(f"targets_scale must be positive, got {scale}")
    return rng.choice(weights, count) / np.float32(scale)


def trained_weights(path: Path, key: str | None) -> np.ndarray:
    """Non-zero weights of one array of an .npz or .safetensors file, or of all its kernels."""
    if not path.is_file():
        raise FileNotFoundError(f"targets must be 'uniform' or a file of weights; there is no file {path}")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"targets file must end in .npz or .safetensors, got {path.name}")
    arrays = load_file(path) if path.suffix == ".safetensors" else dict(np.load(path, allow_pickle=False))
    if key is not None and key not in arrays:
        raise ValueError(f"targets_key {key!r} is not in {path.name}: it has {', '.join(sorted(arrays))}")
    chosen = (
        [arrays[key]]
        if key is not None
        else [a for a in arrays.values() if a.dtype.kind == "f" and a.ndim > 1]
    )
    weights = (
        np.concatenate([np.ravel(a) for a in chosen]).astype(np.float32)
        if chosen
        else np.empty(0, np.float32)
    )
    weights = weights[weights != 0]
    if weights.size == 0:
        raise ValueError(f"{path.name} holds no non-zero weights under {key or 'any key'}")
    return weights


def measure(cfg: DictConfig, distribution: str, m: int) -> dict:
    """Statistics of one distribution and one m."""
    index = theory.DISTRIBUTIONS.index(distribution) if distribution in theory.DISTRIBUTIONS else 0
    rng = np.random.default_rng([cfg.seed, m, index])
    exact = int(min(cfg.problems, max(1000, cfg.best_subsets // 2**m)))
    failures, sizes, errors, start = 0, np.zeros(m + 1, np.int64), [], time.perf_counter()
    for begin in range(0, cfg.problems, BATCH):
        count = min(BATCH, cfg.problems - begin)
        x, t = theory.draw(distribution, (m, count), rng), targets(cfg, count, rng)
        out = solve(x, t, "smallest", tolerance=cfg.tolerance)
        failures += int((~out.solved).sum())
        sizes += np.bincount(out.size[out.solved], minlength=m + 1)
        best = max(0, min(count, exact - begin))
        errors.append(np.abs(solve(x[:, :best], t[:best], "best", tolerance=cfg.tolerance).error))
    errors = np.concatenate(errors)
    rate = failures / cfg.problems
    low, high = theory.interval(failures, cfg.problems)
    uniform = distribution == "uniform" and cfg.targets == "uniform"
    return {
        "distribution": distribution,
        "m": m,
        "problems": cfg.problems,
        "failures": failures,
        "failure": rate,
        "failure_low": low,
        "failure_high": high,
        "coverage": theory.mean_coverage_failure(m) if uniform else None,
        "resolution": theory.resolution_failure(m, rate) if uniform else None,
        "C": theory.implied_constant(m, cfg.tolerance, rate) if failures else None,
        "mean_size": float(sizes @ np.arange(m + 1) / sizes.sum()) if sizes.sum() else None,
        "sizes": sizes.tolist(),
        "best_problems": errors.size,
        **{name: float(np.quantile(errors, q)) for name, q in QUANTILES.items()},
        "seconds": time.perf_counter() - start,
    }


def checked(cfg: DictConfig) -> None:
    """Refuse settings that cannot be run, before hours are spent on the others."""
    for m in cfg.multiplicity:
        if not isinstance(m, int) or not 1 <= m <= 24:
            raise ValueError(f"multiplicity must be integers from 1 to 24, got {m}")
    for distribution in cfg.distribution:
        if distribution not in theory.DISTRIBUTIONS:
            raise ValueError(
                f"unknown distribution {distribution!r}: choose from {', '.join(theory.DISTRIBUTIONS)}"
            )
    if not isinstance(cfg.problems, int) or cfg.problems < 1:
        raise ValueError(f"problems must be a positive integer, got {cfg.problems}")
    if not 0 < cfg.tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), got {cfg.tolerance}")


def figure(rows: Sequence[Mapping[str, Any]], cfg: DictConfig, path: Path) -> None:
    """Failure, sizes, least error and the C that the failures imply, against m."""
    by_name = {name: [row for row in rows if row["distribution"] == name] for name in cfg.distribution}
    wide = range(theory.required_multiplicity(cfg.tolerance, cfg.tolerance), max(cfg.multiplicity) + 1)
    panels = []
    for label, value, low, high in QUANTITIES:
        bands = []
        for name, own in by_name.items():
            known = [
                row for row in own if row[value] is not None and not (value == "failure" and row[value] == 0)
            ]
            x, y, bottom, top = ([row[key] for row in known] for key in ("m", value, low, high))
            bands.append(report.Band(name, x, y, bottom, top))
        if value == "failure":
            covered = [(row["m"], row["coverage"]) for row in rows if row["coverage"] is not None]
            if covered:
                x, y = zip(*covered, strict=True)
                bands.append(report.Band(COVERAGE, x, y, y, y))
            lemma = [math.exp(-m / theory.C) for m in wide]
            bands.append(report.Band(f"lemma, C = {theory.C:g}", wide, lemma, lemma, lemma, reference=True))
        if value == "best_error_median":
            level = [cfg.tolerance] * 2
            ends = [min(cfg.multiplicity), max(cfg.multiplicity)]
            bands.append(
                report.Band(f"tolerance {cfg.tolerance:g}", ends, level, level, level, reference=True)
            )
        if value == "C":
            level, ends = [theory.C] * 2, [min(cfg.multiplicity), max(cfg.multiplicity)]
            bands.append(report.Band(f"lemma, C = {theory.C:g}", ends, level, level, level, reference=True))
        panels.append(report.Panel(bands, label, log=value in ("failure", "best_error_median")))
    report.draw_panels(
        path,
        panels,
        title=f"Random subset-sum problems: {cfg.problems:,} for each m, tolerance {cfg.tolerance:g}",
        x_label="variables m",
        ticks={m: str(m) for m in cfg.multiplicity},
    )


COVERAGE = "coverage, uniform: $2^{-m} E[L_m(-|t|)]$"
QUANTITIES = (
    ("share without a subset", "failure", "failure_low", "failure_high"),
    ("mean size of the smallest subset, |S|", "mean_size", "mean_size", "mean_size"),
    ("least error, median and 5 to 95 %", "best_error_median", "best_error_q05", "best_error_q95"),
    ("implied C = m / log(1/min(δ, ε))", "C", "C", "C"),
)
"""Of each panel: label, number, and the ends of its band."""
ENOUGH = 15
"""Variables that are said to be more than enough for one problem."""


def claims_of(rows: Sequence[Mapping[str, Any]], tolerance: float) -> list[Claim]:
    """What the numbers say of the lemma, of the sizes of subsets, and of 15 variables."""
    claims = []
    speaks = math.ceil(theory.C * math.log(1 / tolerance))  # the lemma with delta = epsilon
    for name in dict.fromkeys(row["distribution"] for row in rows):
        own = [row for row in rows if row["distribution"] == name]
        told = [row for row in own if row["m"] >= speaks and row["C"] is not None]
        worst = max(told, key=lambda row: row["C"], default=None)
        claims.append(
            Claim(
                f"{name}: m ≥ C log(1 / min(δ, ε)) variables are enough with C = {theory.C:g}.",
                None if worst is None else worst["C"] <= theory.C,
                f"No problem with m ≥ {speaks} failed, or none was measured"
                if worst is None
                else f"For m ≥ {speaks} the failures imply at most C = {worst['C']:.2f} (m = {worst['m']})",
            )
        )
        for row in own:
            if row["m"] == ENOUGH:
                claims += _at_fifteen(row, tolerance)
    return claims


def _at_fifteen(row: Mapping[str, Any], tolerance: float) -> list[Claim]:
    name, size = row["distribution"], row["mean_size"]
    return [
        Claim(
            f"{name}: {ENOUGH} variables solve 99 % of the problems within ε = {tolerance:g}.",
            row["failure"] <= 0.01,
            f"{100 * row['failure']:.3g} % of {row['problems']:,} fail (95 % sure: "
            f"{100 * row['failure_low']:.3g} to {100 * row['failure_high']:.3g} %)",
        ),
        Claim(
            f"{name}: the smallest subset of {ENOUGH} has 2 to 3 variables on average.",
            None if size is None else 2 <= size <= 3,
            "None was solved" if size is None else f"The mean of |S| is {size:.2f}",
        ),
    ]


@tracked("subset_sum")
def run(cfg: DictConfig, folder: Path) -> dict:
    """Statistics for every distribution and m; writes subset_sum.csv and subset_sum.png."""
    checked(cfg)
    use_compile_cache()
    rows = []
    for m in cfg.multiplicity:
        for distribution in cfg.distribution:
            rows.append(measure(cfg, distribution, m))
            log.info(
                "%(distribution)s m=%(m)d failure %(failure).3g mean size %(mean_size)s "
                "median best error %(best_error_median).3g, %(seconds).1f s",
                rows[-1],
            )
    listed = [{name: value for name, value in row.items() if name != "sizes"} for row in rows]
    report.write_csv(folder / "subset_sum.csv", listed)
    figure(rows, cfg, folder / "subset_sum.png")
    claims = claims_of(rows, cfg.tolerance)
    said = (
        f"{cfg.problems:,} random subset-sum problems for each number m of variables: how many have no "
        f"subset within ε = {cfg.tolerance:g} (bands: 95 % intervals), how large the smallest subset is, the "
        "least error of any subset, and the constant C of the lemma that the failures imply."
    )
    return {"subset_sum": rows, "tolerance": cfg.tolerance, "C": theory.C} | recorded(
        claims, {"subset_sum": caption(said, claims)}
    )


if __name__ == "__main__":
    main(run, "subset_sum")
