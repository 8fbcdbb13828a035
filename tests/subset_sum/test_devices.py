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
stages.FEW, stages.FEW_LONG, stages.MANY = {}, 0, 0
x, t = problems(8, 2000, seed=2)
"""
FOUR_DEVICES = """
assert len(jax.devices()) == 4
longer = problems(13, 2000, seed=2)
out = {o: solve(x, t, o) for o in ("smallest", "best")}
out["robust"] = solve(x, t, "robust", **prices(x, t))
out["longer robust"] = solve(*longer, "robust", **prices(*longer))
out["quadratic"] = solve(None, None, "quadratic", **forms(8, 2000))
np.savez(sys.argv[2], **{o + name: value for o, s in out.items() for name, value in s._asdict().items()})
"""
ONE_OF_TWO = """
process = int(sys.argv[3])
jax.distributed.initialize(sys.argv[4], 2, process)
assert jax.process_count() == 2 and len(jax.devices()) == 2
mine = slice(1000 * process, 1000 * (process + 1))
longer, target = problems(13, 2000, seed=2)
terms = {k: v[..., mine] for k, v in prices(longer, target).items()}
out = {"best": solve(x[:, mine], t[mine], "best")}
out["longer robust"] = solve(longer[:, mine], target[mine], "robust", **terms)
np.savez(sys.argv[2], **{o + name: value for o, s in out.items() for name, value in s._asdict().items()})
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
    longer = problems(13, 2000, seed=2)
    one = {o: solve(x, t, o) for o in ("smallest", "best")}
    one["robust"] = solve(x, t, "robust", **prices(x, t))
    one["longer robust"] = solve(*longer, "robust", **prices(*longer))
    one["quadratic"] = solve(None, None, "quadratic", **forms(8, 2000))
    for objective, solution in one.items():
        for name, value in solution._asdict().items():
            np.testing.assert_array_equal(four[objective + name], value)


@pytest.mark.slow
def test_two_processes_solve_their_slices(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [start(ONE_OF_TWO, tmp_path / f"{k}.npz", k, address) for k in range(2)]
    for process in both:
        finish(process)
    longer = problems(13, 2000, seed=2)
    whole = {"best": solve(*problems(8, 2000, seed=2), "best")}
    whole["longer robust"] = solve(*longer, "robust", **prices(*longer))
    parts = [np.load(tmp_path / f"{k}.npz") for k in range(2)]
    for objective, solution in whole.items():
        for name, value in solution._asdict().items():
            np.testing.assert_array_equal(np.concatenate([p[objective + name] for p in parts]), value)
