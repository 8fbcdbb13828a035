"""What refining a mask buys, and what it costs: ``python -m benchmarks.refinement SETTING ... [--steps N]``.

The settings are those of `experiments.ticket`. Two rows, before and after: bits for each weight of
the target, accuracy and agreement on test images, which the refinement never sees, and loss on the
held-out training images that it judges by; then seconds, flips and the peak memory of the process.
"""

import argparse
import resource
import time
from functools import partial

from benchmarks.built import built
from slth import Construction, refine, report
from slth.compile_cache import use_compile_cache
from slth.data import Data
from slth.train import SETTINGS, augment


def worth(data: Data, made: Construction) -> str:
    """What a ticket is worth on the test images, in words."""
    accuracy = data.accuracy(made.ticket(data.test_images))
    error = made.error(data.test_images)
    found = report.ticket_metrics(made.ticket, accuracy, error, 0, made.target.params)
    return (
        f"{found['coded_bits_per_weight']:.2f} bits, accuracy {100 * accuracy:.2f} %, "
        f"agreement {100 * error.agreement:.2f} %"
    )


def main() -> None:
    """The two rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "settings", nargs="+", metavar="SETTING", help="of experiments.ticket: data=cifar10 ..."
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.005)
    chosen = parser.parse_args()
    use_compile_cache()
    begun = time.perf_counter()
    ticket = built(chosen.settings)
    constructed = time.perf_counter()
    data, made = ticket.data, ticket.made
    usual = SETTINGS[data.name]
    found = refine(
        made,
        data.train_images,
        steps=chosen.steps,
        batch=chosen.batch,
        rate=chosen.rate,
        augment=partial(augment, shift=usual.shift, mirror=usual.mirror),
    )
    refined = time.perf_counter()
    for name, one, loss in (("constructed", made, found.before), ("refined", found.made, found.after)):
        print(f"{name:<12} {worth(data, one)}, held-out loss {loss:.4f}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"construction {constructed - begun:.0f} s, {found.steps} steps {refined - constructed:.0f} s, "
        f"{found.changed:,} bits changed, peak memory {memory:.2f} GiB"
    )


if __name__ == "__main__":
    main()
