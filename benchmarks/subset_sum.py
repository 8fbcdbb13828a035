"""Speed of the subset-sum engine: ``python -m benchmarks.subset_sum [--sweep DIR] [--layer SETTINGS]``.

Prints a table and, as the last line, one JSON object. Every figure is the best of several runs; compile
time is measured apart, in a process of its own with an empty compilation cache, and so is the peak memory.
The ratio is to the published method (combinations by increasing size until one is within epsilon),
re-implemented faithfully in Python and timed in this run; for ``best``, which it lacks, the same loop over
all subsets.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

M, EPSILON = 15, 0.01


def problems(objective: str, m: int, n: int, seed: int = 0) -> dict:
    """Arguments of `solve`: uniform variables, prices like a layer's, Gram matrices of noisy copies."""
    rng = np.random.default_rng(seed)
    uniform = lambda *shape: 2 * rng.random(shape, np.float32) - 1  # noqa: E731
    x, t = uniform(m, n), uniform(n)
    if objective == "robust":
        noise = rng.random((m, n), np.float32) * np.float32(0.02)  # relative mean squared error of each copy
        return {"x": x, "t": t, "price": x * x * noise, "residual_price": np.ones(n, np.float32)}
    if objective == "quadratic":
        few = min(n, 20_000)
        error = rng.standard_normal((m, 8, few), np.float32) * np.float32(0.1)
        z = x[:, None, :few] * (1 + error)  # copies of one channel at 8 positions
        gram, linear = np.einsum("ikn,jkn->ijn", z, z), np.einsum("ikn,n->in", z, t[:few])
        return {"x": None, "t": None, "gram": np.tile(gram, n // few), "linear": np.tile(linear, n // few)}
    return {"x": x, "t": t}


def published(x: np.ndarray, t: float, epsilon: float) -> np.ndarray:
    """The published search: combinations of 0, 1, 2, ... variables until one fits, else the best.

    As there, every combination becomes an index array whose entries are gathered and summed by NumPy in
    float64.
    """
    best, error = np.array([], int), np.abs(t)
    for size in range(len(x) + 1):
        for combination in itertools.combinations(range(len(x)), size):
            members = np.array(combination, dtype=int)
            e = np.abs(t - np.sum(x[members]))
            if e < error:
                best, error = members, e
            if e <= epsilon:
                return best
    return best


def published_rate(objective: str, seconds: float = 6.0) -> float:
    """Problems per second of the published search; for ``best`` of its full loop (tolerance never met)."""
    data = problems("best", M, 100_000, seed=1)
    x, t = data["x"].T.astype(float), data["t"].astype(float)
    epsilon, count, start = EPSILON if objective == "smallest" else -1.0, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        published(x[count], t[count], epsilon)
        count += 1
    return count / (time.perf_counter() - start)


def rate(
    objective: str, m: int, n: int, repeats: int = 12, tolerance: float = EPSILON, data: dict | None = None
) -> float:
    """Problems per second, the best of several runs, compilation excluded."""
    from slth.subset_sum import solve

    data = problems(objective, m, n) if data is None else data
    solve(**data, objective=objective, tolerance=tolerance)
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        solve(**data, objective=objective, tolerance=tolerance)
        best = min(best, time.perf_counter() - start)
    return n / best


def reduction(data: dict, tolerance: float = EPSILON, repeats: int = 5) -> dict:
    """``robust`` with the variables that may be of use and with all of them, in turns: problems a second.

    The ratio is the median of those of neighbouring runs, so other work on the machine slows both sides.
    """
    from slth.subset_sum import solve, stages

    least, n = stages.MIN_REDUCED, data["t"].size
    seconds: dict[str, list[float]] = {"of use": [], "all": []}
    masks = {}
    for repeat in range(repeats + 1):  # the first compiles
        for name, from_m in (("of use", least), ("all", 99)):
            stages.MIN_REDUCED = from_m
            start, used = time.perf_counter(), time.process_time()
            masks[name] = solve(**data, objective="robust", tolerance=tolerance).mask
            if repeat:
                seconds[name].append(time.perf_counter() - start)
                seconds.setdefault(f"{name}, processor", []).append(time.process_time() - used)
    stages.MIN_REDUCED = least
    assert (masks["of use"] == masks["all"]).all()
    ratio, processor = (
        float(np.median(np.divide(seconds[f"all{what}"], seconds[f"of use{what}"])))
        for what in ("", ", processor")
    )
    rates = {name: n / min(seconds[name]) for name in ("of use", "all")}
    return {**rates, "ratio": ratio, "processor_ratio": processor}


def reduction_line(found: dict) -> str:
    """What `reduction` found, in words."""
    return (
        f"robust, in turns: {found['of use']:,.0f} problems a second; {found['all']:,.0f} with all variables"
        f" enumerated; ratio {found['ratio']:.2f}, of processor time {found['processor_ratio']:.2f}"
    )


def layer_problems(overrides: list[str]) -> dict:
    """The largest batch of ``robust`` problems of a construction: x, t and prices of a real layer."""
    from benchmarks.built import built
    from slth.construction import biases

    found: dict = {"x": np.zeros((1, 0))}
    solve = biases.solve

    def remember(x, t, objective, **options):
        if objective == "robust" and x.shape[1] > found["x"].shape[1]:
            found.update(x=x, t=t, price=options["price"])
        return solve(x, t, objective, **options)

    biases.solve = remember
    built([*overrides, "solver=robust"])
    biases.solve = solve
    return {key: np.asarray(value, np.float32) for key, value in found.items()}


def first_call(objective: str, m: int, n: int) -> None:
    """In a process of its own: seconds to compile every kernel, then the memory that n problems add."""
    import jax

    from experiments.stages import forget_peak, memory
    from slth.subset_sum import solve
    from slth.subset_sum.stages import compile_stages

    jax.config.update("jax_enable_compilation_cache", False)
    jax.devices()
    start = time.perf_counter()
    compile_stages(objective, m)
    seconds = time.perf_counter() - start
    data = problems(objective, m, n)
    forget_peak()
    held = memory("VmRSS")
    solve(**data, objective=objective, tolerance=EPSILON)
    print(json.dumps({"compile_seconds": seconds, "peak_bytes": memory("VmHWM") - held}))


def measured_apart(objective: str, m: int, n: int) -> dict:
    """`first_call` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.subset_sum", "--first", objective, str(m), str(n)]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def c_bound(threads: int = 1) -> float | None:
    """Problems per second and core of the kernel of ``best`` in C, gcc -O3 for this machine."""
    source = Path(__file__).with_name("subset_sum_bound.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bound"
        command = [
            "gcc",
            "-O3",
            "-march=native",
            "-mprefer-vector-width=512",
            str(source),
            "-o",
            str(program),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def sweep(folder: Path) -> None:
    """Cost against m and against epsilon: subset_sum.csv and subset_sum.png."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    from matplotlib import pyplot as plt

    rows = []
    for m in (8, 10, 12, 15, 18, 20, 22, 24, 28, 32):
        for objective in ("smallest", "best", "robust", "quadratic"):
            if m > 20 and objective in ("robust", "quadratic"):
                continue
            work = 2.0 ** (m if objective != "smallest" else m - 6)
            n = (
                int(np.clip(2e10 / work, 128, 400_000))
                if objective != "quadratic"
                else int(np.clip(4e9 / work, 2048, 40_000))
            )
            rows.append(
                {
                    "objective": objective,
                    "m": m,
                    "epsilon": EPSILON,
                    "problems": n,
                    "per_second": rate(objective, m, n, 3),
                }
            )
            print(rows[-1], flush=True)
    for epsilon in (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001):
        rows.append(
            {
                "objective": "smallest",
                "m": M,
                "epsilon": epsilon,
                "problems": 200_000,
                "per_second": rate("smallest", M, 200_000, 3, epsilon),
            }
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "subset_sum.csv", index=False, float_format="%.6g")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    by_m, by_epsilon = table.iloc[:-6], table.iloc[-6:]
    for objective, part in by_m.groupby("objective", sort=False):
        left.plot(part["m"], 1e9 / part["per_second"], "o-", label=objective)
    left.set(yscale="log", xlabel="variables m", ylabel="nanoseconds a problem", title=f"epsilon = {EPSILON}")
    left.legend()
    right.plot(by_epsilon["epsilon"], 1e9 / by_epsilon["per_second"], "o-")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="epsilon",
        ylabel="nanoseconds a problem",
        title=f"smallest, m = {M}",
    )
    for axis in (left, right):
        axis.grid(alpha=0.3, which="both")
    figure.savefig(folder / "subset_sum.png", dpi=150)


def main() -> None:
    """Table, ratios, bound, JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=1_860_000)
    parser.add_argument(
        "--sweep", type=Path, help="folder for the table and figure of cost against m and epsilon"
    )
    parser.add_argument(
        "--layer",
        nargs="+",
        metavar="SETTING",
        help="time robust on the largest layer of this experiments.ticket, such as target=digits_resnet",
    )
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        return first_call(options.first[0], int(options.first[1]), int(options.first[2]))
    if options.sweep:
        return sweep(options.sweep)
    if options.layer:
        data = layer_problems(options.layer)
        m, n = data["x"].shape
        print(f"a real layer: m = {m}, {n:,} problems")
        print(reduction_line(reduction(data)))
        return None
    result, n = {}, options.problems
    base = {"smallest": published_rate("smallest"), "best": published_rate("best")}
    print(f"{'objective':>10} {'m':>3} {'problems/s':>12} {'ratio':>10} {'compile s':>10} {'peak MB':>8}")
    for objective, m in (("smallest", M), ("best", M), ("robust", M), ("quadratic", 12), ("quadratic", M)):
        count = n if objective != "quadratic" else max(20_000, min(n, 400_000) // 20_000 * 20_000)
        row = {"problems_per_second": rate(objective, m, count), **measured_apart(objective, m, count)}
        row["ratio"] = row["problems_per_second"] / base.get(objective, base["best"])
        print(
            f"{objective:>10} {m:>3} {row['problems_per_second']:>12,.0f} {row['ratio']:>10,.0f} "
            f"{row['compile_seconds']:>10.1f} {row['peak_bytes'] / 1e6:>8.0f}",
            flush=True,
        )
        result[objective if (objective, m) != ("quadratic", M) else "quadratic_15"] = row
    print(
        f"published method: {base['smallest']:,.0f} a second until within {EPSILON}, "
        f"{base['best']:,.2f} over all subsets"
    )
    result["reduction"] = reduction(problems("robust", M, min(n, 400_000)))
    print(reduction_line(result["reduction"]))
    bound = c_bound()
    print(
        "C bound of the kernel of best (subset_sum_bound.c): "
        + (f"{bound:,.0f} a second and core" if bound else "no gcc here")
    )
    print(json.dumps(result))
    return None


if __name__ == "__main__":
    main()
