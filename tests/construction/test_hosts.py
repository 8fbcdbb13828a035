"""Rows that several processes share are solved as one process solves them."""

import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from slth import Best, Compensated, Robust, Single, Smallest
from slth.construction.hosts import joined, packed, share_of, unpacked
from tests.construction.parts import make_part, problem_of

M = 5
SOLVERS = {
    "best": Best(),
    "smallest": Smallest(tolerance=0.05),
    "single": Single(),
    "robust": Robust(),
    "compensated": Compensated(sweeps=2, block=6),
}


def case(solver):
    rng = np.random.default_rng(2)
    constants = (1.5, -0.7, 0.4)
    x = jnp.asarray(rng.normal(size=(40, 9, 2)), jnp.float32)
    copies = jnp.repeat(x, M, -1) + 0.05 * jnp.asarray(rng.normal(size=(40, 9, 2 * M)), jnp.float32)
    ticket = jnp.concatenate([copies, jnp.broadcast_to(jnp.array(constants), (40, 9, 3))], -1)
    seen = {"x": x, "ticket": ticket} if solver.runs_ticket else {}
    noise = rng.uniform(0, 0.1, (2, M))
    part = make_part(1, m=M, cout=4, constants=constants, noise=noise, **seen)
    return problem_of([part], bias=rng.uniform(-1, 1, 4), constant=np.full(3, 2.0))


def check_same(found, wanted):
    for mask, right in zip(found.masks, wanted.masks, strict=True):
        np.testing.assert_array_equal(mask, right)
    for name in ("constants", "noise", "usable"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12)
    for name, value in wanted.stats._asdict().items():
        np.testing.assert_allclose(getattr(found.stats, name), value, rtol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_shares_make_the_node(solver, count):
    problem = case(solver)
    # The copies' blocks lie in another order than the outputs.
    rows = problem.rows._replace(columns=problem.rows.columns[[2, 0, 3, 1]])
    problem = problem._replace(rows=rows)
    shares = [share_of(problem, number, count) for number in range(count)]
    found = [unpacked(packed(solver.solve(share.problem))) for share in shares]
    check_same(joined(shares, found), solver.solve(problem))


PROGRAM = """
import sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/.cache/jax")
if sys.argv[3] != "alone":
    jax.distributed.initialize(sys.argv[4], 2, int(sys.argv[3]))
    assert jax.process_count() == 2
import numpy as np
from slth import Compensated, Robust, Source, Target, construct, refine
from slth.construction import hosts
from tests.construction.nets import RESIDUAL, images, target_of
network, x = RESIDUAL["dense block"]
target = Target(*target_of(network))
source = Source.of(target, copies=6)
x = images(network, 48)
solved = []
solve = hosts.share_of
hosts.share_of = lambda *arguments: solved.append(arguments[1]) or solve(*arguments)
made = [construct(target, source, solver, x) for solver in (Robust(), Compensated(sweeps=2))]
assert bool(solved) == (sys.argv[3] != "alone")
found = {f"bits{number}": np.frombuffer(one.ticket.bits, np.uint8) for number, one in enumerate(made)}
found["outputs"] = made[0].ticket(x)
refined = refine(made[0], x, steps=6, batch=20, every=3, loss="outputs")
found["losses"] = np.array([refined.before, refined.after])
np.savez(sys.argv[2], **found)
"""
ROOT = Path(__file__).resolve().parents[2]


def start(*arguments, flags=""):
    import os

    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ROOT), *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_and_four_devices_make_the_ticket_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    four = "--xla_force_host_platform_device_count=4"
    runs = [
        start(tmp_path / "alone.npz", "alone"),
        start(tmp_path / "four.npz", "alone", flags=four),
        *(start(tmp_path / f"{k}.npz", k, address) for k in range(2)),
    ]
    for run in runs:
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
    wanted = np.load(tmp_path / "alone.npz")
    for name in ("four", "0", "1"):
        found = np.load(tmp_path / f"{name}.npz")
        for key in ("bits0", "bits1"):
            np.testing.assert_array_equal(found[key], wanted[key], err_msg=f"{name}, {key}")
        # What is no bit of a ticket may differ by the order of sums.
        for key in ("outputs", "losses"):
            np.testing.assert_allclose(
                found[key], wanted[key], rtol=1e-3, atol=1e-4, err_msg=f"{name}, {key}"
            )
