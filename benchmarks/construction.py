"""Seconds, memory and compiled programs of whole constructions, beside those of another checkout.

``python -m benchmarks.construction data=DIR before=CHECKOUT``: each construction runs in a process of its
own, those of the two checkouts take turns, and the table has the medians and their ratios. Each checkout
keeps what it compiles in a folder, which a first run fills: its seconds are printed as "cold". Settings:

  data     folder with tensorflow_datasets/cifar10 and targets/ (docs/data.md)
  before   another checkout of the project, which the same Python runs; none: no ratios
  cases    names of `CASES`, with commas between; default: the table's. ``cases=growth``: those of the figure
  runs     of each case and checkout beside the first, default 5
  out      file for all numbers as CSV
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CALIBRATION = 256
Case = tuple[str, str, dict[str, Any]]
CASES: dict[str, Case] = {  # target, solver, settings of the source
    "resnet20 robust m=15": ("resnet20", "Robust", {"copies": 15}),
    "resnet20 robust m=4": ("resnet20", "Robust", {"copies": 4, "scale": 1.5}),
    "resnet20 compensated m=4": ("resnet20", "Compensated", {"copies": 4, "scale": 1.5}),
    "resnet20 compensated m=15": ("resnet20", "Compensated", {"copies": 15}),
    "resnet20 compensated 2L N=8": ("resnet20", "Compensated", {"copies": 8, "depth": "2L", "univariate": 8}),
}
GROWTH: dict[str, Case] = {
    f"{name} robust m=10": (name, "Robust", {"copies": 10})
    for name in ("digits_cnn", "digits_resnet", "resnet20", "resnet32", "resnet44", "resnet56")
}
FILES = {"resnet20": "targets/resnet20_cifar10_relu.safetensors"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def child(name: str, folder: str) -> None:
    """Construct one case in this process, and print what it took as one line of JSON."""
    import jax
    import numpy as np

    import slth
    import slth.data
    from slth import nn
    from slth.nn import zoo

    compiled = [0, 0.0]

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled[0] += 1
            compiled[1] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    network, solver, settings = (CASES | GROWTH)[name]
    if network.startswith("digits"):
        data = slth.data.load("digits")
    else:
        data = slth.data.load("cifar10", f"{folder}/tensorflow_datasets", mean=MEAN, std=STD)
    images = data.calibration(CALIBRATION)
    spec = zoo.build(network, images.shape[1:], 10)
    if network in FILES:
        target = slth.load(f"{folder}/{FILES[network]}", spec)
    else:  # He-normal weights, and statistics of batch norm like those of a trained network
        target = slth.Target.of(spec, nn.init(spec, jax.random.key(0)))
    source = slth.Source.of(target, **settings)
    before, started, used = tuple(compiled), time.perf_counter(), time.process_time()
    made = slth.construct(target, source, getattr(slth, solver)(), images)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    found = {
        "seconds": seconds,
        "processor": processor,
        "compiling": compiled[1] - before[1],
        "programs": compiled[0] - before[0],
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "weights": sum(np.size(a) for a in jax.tree.leaves(target.params)),
        "problems": made.stats.problems,
        "unsolved": made.unsolved,
        "relative error": float(made.error(data.calibration(CALIBRATION + 64)[CALIBRATION:]).relative),
    }
    print(json.dumps(found))


def run(checkout: Path, name: str, folder: str, kept: Path) -> dict[str, float]:
    """A case in a process of its own, with the code of a checkout; ``kept``: where compiled programs are."""
    script = Path(__file__).resolve()
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "PYTHONSAFEPATH": "1",
        "JAX_COMPILATION_CACHE_DIR": str(kept),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, str(script), "--child", name, folder],
        env=environment,
        cwd=checkout,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """Run the cases in turns; print a line for each, and write all numbers."""
    given = dict(argument.split("=", 1) for argument in arguments)
    chosen = given.get("cases", ",".join(CASES))
    names = list(GROWTH) if chosen == "growth" else chosen.split(",")
    here = Path(__file__).resolve().parents[1]
    checkouts = {"now": here} | ({"before": Path(given["before"]).resolve()} if "before" in given else {})
    rows = []
    for name in names:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in checkouts}
        with tempfile.TemporaryDirectory() as kept:
            for number in range(int(given.get("runs", 5)) + 1):
                for side, checkout in checkouts.items():
                    one = run(checkout, name, given["data"], Path(kept) / side)
                    rows.append({"case": name, "side": side, "run": number or "cold"} | one)
                    if number:
                        found[side].append(one)
                    else:
                        print(f"{name:30} {side:7}cold: seconds {one['seconds']:.4g}", flush=True)
        medians = {
            side: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
            for side, ones in found.items()
            if ones
        }
        for side, of in medians.items():
            print(
                f"{name:30} {side:7}" + "  ".join(f"{key} {value:.4g}" for key, value in of.items()),
                flush=True,
            )
        if "before" in medians:
            keys = ("seconds", "processor", "gigabytes")
            ratios = (f"{key} {medians['before'][key] / medians['now'][key]:.2f}" for key in keys)
            print(f"{name:30} before / now: " + ", ".join(ratios), flush=True)
    if "out" in given:
        import pandas as pd  # not in the processes whose memory is measured

        pd.DataFrame(rows).to_csv(given["out"], index=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main(sys.argv[1:])
