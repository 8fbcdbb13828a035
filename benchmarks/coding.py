"""How small and how fast masks are coded, beside zlib: ``python -m benchmarks.coding [TICKET ...]``.

Without files it takes random masks of the size of a ResNet-20's source (m = 4), of three densities.
Sizes are shares of the plain mask's; the entropy is that of independent bits of each array's
density. Speeds are in MB of the plain mask a second, the best of three.
"""

import argparse
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from slth import coding
from slth.nn import parameter_shapes
from slth.ticket import Ticket

Arrays = dict[str, np.ndarray]


def masks(files: list[Path]) -> Iterator[tuple[str, Arrays]]:
    """The masks of files, or random ones."""
    for file in files:
        ticket = Ticket.load(file, check_source=False)
        arrays = ticket.arrays
        assert arrays.keys() == parameter_shapes(ticket.source.network).keys()
        yield file.name, arrays
    random = np.random.default_rng(0)
    shapes = {f"layer{n}/kernel": (3, 3, 4 * c + 24, 4 * c + 24) for n, c in enumerate((16, 32, 64))}
    for density in () if files else (0.05, 0.2, 0.5):
        yield f"density {density}", {path: random.random(shape) < density for path, shape in shapes.items()}


def entropy(arrays: Arrays) -> float:
    """Bits of independent entries of each array's density."""
    p = {path: np.clip(mask.mean(), 1e-12, 1 - 1e-12) for path, mask in arrays.items()}
    bits = {path: -(q * np.log2(q) + (1 - q) * np.log2(1 - q)) for path, q in p.items()}
    return sum(mask.size * bits[path] for path, mask in arrays.items())


def best(call: Callable[[], object], megabytes: float) -> float:
    """MB a second, the best of three."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return megabytes / min(seconds)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="TICKET")
    heads = ("mask", "MB", "entropy", "coded", "zlib", "ratio", "encode", "decode", "zlib MB/s")
    print(f"{heads[0]:<28}" + "".join(f"{head:>11}" for head in heads[1:]))
    for name, arrays in masks(parser.parse_args().files):
        shapes = {path: mask.shape for path, mask in arrays.items()}
        plain = np.packbits(np.concatenate([mask.reshape(-1) for mask in arrays.values()])).tobytes()
        code, packed = coding.encode(shapes, arrays), zlib.compress(plain, 6)
        size = len(plain) / 1e6
        cells = (
            f"{size:.2f}",
            f"{entropy(arrays) / 8 / len(plain):.4f}",
            f"{len(code) / len(plain):.4f}",
            f"{len(packed) / len(plain):.4f}",
            f"{len(code) / len(packed):.3f}",
            f"{best(lambda a=arrays, s=shapes: coding.encode(s, a), size):.1f}",
            f"{best(lambda c=code, s=shapes: coding.decode(s, c), size):.1f}",
            f"{best(lambda p=plain: zlib.compress(p, 6), size):.1f}",
        )
        print(f"{name[:27]:<28}" + "".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
