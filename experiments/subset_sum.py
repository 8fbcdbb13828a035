"""The statistics of random subset-sum problems: ``python -m experiments.subset_sum``."""

import logging
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from omegaconf import DictConfig
from safetensors.numpy import load_file

from experiments.command_line import main
from experiments.tracking import tracked
from slth.compile_cache import use_compile_cache
from slth.subset_sum import solve, theory

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

log = logging.getLogger(__name__)
BATCH = 250_000
GRID = 2.0**-24
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


def figures(table: pd.DataFrame, cfg: DictConfig, folder: Path) -> None:
    """failure.png, subset_size.png and best_error.png."""
    groups = list(table.groupby("distribution", sort=False))
    _, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, rows in groups:
        spread = np.abs(rows[["failure_low", "failure_high"]].to_numpy().T - rows["failure"].to_numpy())
        axis.errorbar(
            rows["m"], rows["failure"].where(rows["failures"] > 0), spread, fmt="o-", capsize=3, label=name
        )
    rows = table[table["coverage"].notna()]
    if len(rows):
        axis.plot(
            rows["m"],
            rows["coverage"].astype(float),
            "k--",
            lw=1,
            label="coverage, uniform: $2^{-m} E[L_m(-|t|)]$",
        )
    m = np.arange(
        np.ceil(-theory.C * np.log(cfg.tolerance)), max(cfg.multiplicity) + 1
    )  # where the lemma speaks
    axis.plot(m, np.exp(-m / theory.C), "k:", lw=1, label=f"lemma with C = {theory.C:g}: $e^{{-m/C}}$")
    axis.set(yscale="log", xlabel="variables m", ylabel=f"share with no subset within {cfg.tolerance:g}")
    finish(axis, folder / "failure.png")
    _, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, rows in groups:
        axis.plot(rows["m"], rows["mean_size"], "o-", label=name)
    axis.set(xlabel="variables m", ylabel="mean size of the smallest subset", ylim=(0, None))
    finish(axis, folder / "subset_size.png")
    _, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, rows in groups:
        (line,) = axis.plot(
            rows["m"], rows["best_error_median"], "o-", label=f"{name}: median, 25-75 %, 5-95 %"
        )
        for low, high, style in (("q25", "q75", "--"), ("q05", "q95", ":")):
            for q in (low, high):
                shown = rows[f"best_error_{q}"].clip(lower=GRID / 2)
                axis.plot(rows["m"], shown, style, color=line.get_color(), lw=1)
    axis.axhspan(GRID / 2, GRID, color="k", alpha=0.08, label="one step of the grid and below")
    axis.axhline(cfg.tolerance, color="k", lw=1, ls=":", label="tolerance")
    axis.set(yscale="log", xlabel="variables m", ylabel="least error of any subset")
    finish(axis, folder / "best_error.png")


def finish(axis, path: Path) -> None:
    """Legend, light grid, saved and closed."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    axis.figure.savefig(path, dpi=150)
    plt.close(axis.figure)


@tracked("subset_sum")
def run(cfg: DictConfig, folder: Path) -> dict:
    """Statistics for every distribution and m; writes subset_sum.csv and the figures."""
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
    table = pd.DataFrame(rows)
    table.drop(columns="sizes").to_csv(folder / "subset_sum.csv", index=False)
    figures(table, cfg, folder)
    return {"subset_sum": rows, "tolerance": cfg.tolerance, "C": theory.C}


if __name__ == "__main__":
    main(run, "subset_sum")
