"""What evaluating a ticket without its dead channels saves: ``python -m benchmarks.evaluation SETTING ...``.

The settings are those of `experiments.ticket`. A row for the whole source and one for the compact form, on
the same images in batches of the same size: parameters, multiply-adds an image, their number in a second,
milliseconds an image (median, without compiling); then the ratios, and the largest difference of the outputs
in units of the largest one.
"""

import argparse
from functools import partial

import numpy as np

from benchmarks.built import built
from benchmarks.clock import milliseconds
from slth import evaluate, nn
from slth.compact import compact
from slth.compile_cache import use_compile_cache


def main() -> None:
    """The two rows and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "settings", nargs="+", metavar="SETTING", help="of experiments.ticket: data=digits ..."
    )
    parser.add_argument("--images", type=int, default=64)
    chosen = parser.parse_args()
    use_compile_cache()
    ticket = built(chosen.settings)
    images, batch = ticket.data.test_images[: chosen.images], ticket.cfg.evaluation.batch
    whole = ticket.made.source.network, ticket.made.ticket.params
    small = compact(*whole, ticket.made.mask)
    found = []
    for name, (network, params) in (("dense", whole), ("compact", small)):
        call = partial(evaluate.run, network, params, images, batch=batch)
        spent = milliseconds(call, len(images))
        found.append((spent, call().logits))
        work = nn.multiply_adds(network)
        print(
            f"{name:<8} {nn.count(params):>13,} parameters, {work:>13,} multiply-adds an image, "
            f"{work / spent / 1e6:5.1f} G/s, {spent:9.3f} ms an image",
            flush=True,
        )
    (dense, wanted), (thin, given) = found
    off = np.abs(wanted - given).max() / np.abs(wanted).max()
    work = nn.multiply_adds(whole[0]) / nn.multiply_adds(small.network)
    print(f"dense / compact: multiply-adds {work:.2f}, time {dense / thin:.2f}; outputs off by {off:.1e}")


if __name__ == "__main__":
    main()
