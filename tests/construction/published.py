"""One look at everything that a target of a new kind must go through, from spec to certificate."""

import jax
import numpy as np

from slth import Compensated, Robust, Source, Target, Ticket, ball, box, certify, construct, examples, nn
from slth.compact import compact
from slth.construction import Best, Smallest
from slth.nn import serial
from slth.source import parameters
from tests.construction.nets import images, target_of
from tests.construction.reference import forward, masked

SOLVERS = {
    "smallest": Smallest(tolerance=1e-3),
    "best": Best(),
    "robust": Robust(),
    "robust, measured": Robust(noise="measured"),
    "compensated": Compensated(sweeps=2),
}
OTHERS = [(solver, depth) for depth in ("L+1", "2L") for solver in SOLVERS if solver != "robust"]
"""Solvers and depths beside `robust`, which most tests of published networks take."""


def case(network, solver="robust", *, depth="L+1", skip="carried", copies=16, size=1.0, **options):
    """The construction of a target with random parameters, and inputs that it has not seen."""
    target = Target(*target_of(network))
    seen = np.float32(size) * images(network, 48)
    source = Source.of(target, copies, depth=depth, skip=skip, images=seen, **options)
    return construct(target, source, SOLVERS[solver], seen), np.float32(size) * images(network, 12, seed=1)


def check_case(made, x, largest, folder, *, rounding=2e-4):
    """The ticket's outputs are the target's, in NumPy and float64; files, compact and certificates agree.

    Args:
      largest: relative error allowed.
      rounding: what float32 may do to an output, in units of the largest one.
    """
    target, source = made.target, made.source
    assert serial.decode(serial.encode(source.network)) == source.network
    kept = masked(made.mask, parameters(source))
    wanted = forward(target.network, target.params, x)[""]
    ticket = made.factor * forward(source.network, kept, x)[""]
    error = np.abs(ticket - wanted)
    assert np.linalg.norm(error) < largest * np.linalg.norm(wanted)
    np.testing.assert_allclose(made.ticket(x), ticket, atol=rounding * np.abs(wanted).max())
    made.ticket.save(folder / "net.ticket")
    np.testing.assert_array_equal(Ticket.load(folder / "net.ticket")(x), made.ticket(x))
    small = compact(source.network, parameters(source), made.mask)
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, small.params)
        np.testing.assert_allclose(
            made.factor * nn.apply(small.network, params, x.astype(np.float64)), ticket, rtol=1e-6, atol=1e-6
        )
    check_bounds(made, x, error)


def check_bounds(made, x, error):
    """No error exceeds its bound; that of single images is the error."""
    low, high = x.min(), x.max()
    for method in ("interval", "linear"):
        for domain, of in ((box(low, high), error), (ball(x[:2], 1e-3), error[:2])):
            assert (of <= certify(made, domain, method, slack=0.0).bound).all(), (method, domain.text)
    bound = certify(made, examples(x), "linear", slack=0.0).bound
    np.testing.assert_allclose(bound, error, rtol=1e-6, atol=1e-9)
