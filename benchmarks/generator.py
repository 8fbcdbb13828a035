"""Nanoseconds per value of the generator, beside jax.random.

Command:  python benchmarks/generator.py [--problems 65536] [--repeats 50]
Written: 16 values for each problem fill an array. Summed: they are drawn and added in one program.
"""

import argparse
import time
from collections.abc import Callable

import jax

from slth import random

WIDTH = 16  # values for each problem


def nanoseconds(draw: Callable[[], jax.Array], values: int, repeats: int) -> float:
    """Least time of ``repeats`` calls of ``draw``, in nanoseconds per value, compilation apart."""
    draw().block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        draw().block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best / values * 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    n, values = args.problems, WIDTH * args.problems
    shape, ours, theirs = (WIDTH, n), random.key(0, "bench"), jax.random.key(0)
    draws = {
        "slth uniform, written": (ours, lambda key: random.uniform(key, shape)),
        "slth uniform, summed": (ours, lambda key: random.uniform(key, shape).sum(0)),
        "slth normal, written": (ours, lambda key: random.normal(key, shape)),
        "slth normal, summed": (ours, lambda key: random.normal(key, shape).sum(0)),
        "jax.random.uniform, written": (
            theirs,
            lambda key: jax.random.uniform(key, shape, minval=-1.0),
        ),
        "jax.random.uniform, summed": (
            theirs,
            lambda key: jax.random.uniform(key, shape, minval=-1.0).sum(0),
        ),
        "jax.random.normal, written": (theirs, lambda key: jax.random.normal(key, shape)),
    }
    print(f"{n} problems of {WIDTH} values, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'':30s}{'ns/value':>10s}{'ns/problem':>12s}")
    for name, (key, draw) in draws.items():
        compiled = jax.jit(draw)
        time_per_value = nanoseconds(lambda f=compiled, key=key: f(key), values, args.repeats)
        print(f"{name:30s}{time_per_value:10.2f}{WIDTH * time_per_value:12.1f}")


if __name__ == "__main__":
    main()
