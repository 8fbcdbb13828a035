"""A ResNet-50 node by node, seconds and memory: ``python -m benchmarks.resnet50 copies=4``.

The weights are random like those of a trained network (He-normal, batch norm folded), and so are no data
needed: the solver is `slth.Robust` with a fixed price. Every node is solved, written to a folder as packed
bits and forgotten. Settings: ``copies=m``, ``folder=DIR`` (default: a temporary one), ``nodes=N`` (only the
first N), ``out=FILE`` (CSV with a row for each node).
"""

import resource
import sys
import tempfile
import time

import jax
import pandas as pd

import slth
from slth import nn
from slth.construction import nodes_of, plan_of
from slth.nn import zoo


def peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(arguments: list[str]) -> None:
    """Construct, and print a line for each node."""
    given = dict(argument.split("=", 1) for argument in arguments)
    copies = int(given.get("copies", 4))
    spec = zoo.build("resnet50", (224, 224, 3), 1000)
    target = slth.Target.of(spec, nn.init(spec, jax.random.key(0)))
    started = time.perf_counter()
    plan = plan_of(target, slth.Source.of(target, copies=copies), slth.Robust(noise="fixed"))
    print(f"plan: {time.perf_counter() - started:.1f} s, {peak():.2f} GB")
    rows, problems, begun = [], 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        before, used = begun, time.process_time()
        for node in nodes_of(plan, given.get("folder", temporary)):
            now, spent = time.perf_counter(), time.process_time()
            stats = node.record.stats
            problems += stats.problems
            row = {
                "node": node.record.path,
                "problems": stats.problems,
                "source_weights": node.record.parameters,
                "unsolved": stats.unsolved,
                "seconds": round(now - before, 2),
                "processor": round(spent - used, 2),
                "peak_gigabytes": round(peak(), 2),
            }
            rows.append(row)
            print(
                "  ".join(
                    f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
                    for name, value in row.items()
                ),
                flush=True,
            )
            before, used = now, spent
            del node
            if len(rows) == int(given.get("nodes", 1000)):
                break
    seconds = time.perf_counter() - begun
    print(f"{len(rows)} nodes, {problems:,} problems in {seconds:.0f} s: {problems / seconds:,.0f} a second")
    if "out" in given:
        pd.DataFrame(rows).to_csv(given["out"], index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
