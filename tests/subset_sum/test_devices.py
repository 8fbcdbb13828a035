"""Several devices and several processes give the bits that one gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slth.subset_sum import solve
from tests.subset_sum.problems import forms, prices, problems

ROOT = Path(__file__).resolve().parents[2]
COMMON = """
import sys
import jax, numpy as np
jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/.cache/jax")
from slth.subset_sum import solve, stages
from tests.subset_sum.problems import forms, prices, problems
stages.FEW = 0
x, t = problems(8, 2000, seed=2)
"""
FOUR_DEVICES = """
assert len(jax.devices()) == 4
terms = {"robust": prices(x, t), "quadratic": forms(8, 2000)}
out = {}
for o in ("smallest", "best", "robust", "quadratic"):
    out[o] = solve(*((None, None) if o == "quadratic" else (x, t)), o, **terms.get(o, {}))
np.savez(sys.argv[2], **{o + name: value for o, s in out.items() for name, value in s._asdict().items()})
"""
ONE_OF_TWO = """
process = int(sys.argv[3])
jax.distributed.initialize(sys.argv[4], 2, process)
assert jax.process_count() == 2 and len(jax.devices()) == 2
mine = slice(1000 * process, 1000 * (process + 1))
np.savez(sys.argv[2], **solve(x[:, mine], t[mine], "best")._asdict())
"""


def start(program, *arguments, flags=""):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMMON + program, str(ROOT), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def test_four_devices_give_the_same_bits(tmp_path):
    finish(start(FOUR_DEVICES, tmp_path / "four.npz", flags="--xla_force_host_platform_device_count=4"))
    four = np.load(tmp_path / "four.npz")
    x, t = problems(8, 2000, seed=2)
    for objective, terms in {
        "smallest": {},
        "best": {},
        "robust": prices(x, t),
        "quadratic": forms(8, 2000),
    }.items():
        data = (None, None) if objective == "quadratic" else (x, t)
        for name, value in solve(*data, objective, **terms)._asdict().items():
            np.testing.assert_array_equal(four[objective + name], value)


@pytest.mark.slow
def test_two_processes_solve_their_slices(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [start(ONE_OF_TWO, tmp_path / f"{k}.npz", k, address) for k in range(2)]
    for process in both:
        finish(process)
    whole = solve(*problems(8, 2000, seed=2), "best")
    parts = [np.load(tmp_path / f"{k}.npz") for k in range(2)]
    for name, value in whole._asdict().items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
