"""Compiled programs on disk: kept by one process, loaded by the next."""

import os
import subprocess
import sys

PROGRAM = """
import jax
from slth.compile_cache import use_compile_cache

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("/cache_hits")))
use_compile_cache()
print(int(jax.jit(lambda x: x + 1)(2)), sum(hits) > 0, jax.config.jax_compilation_cache_dir)
"""


def test_a_program_that_compiles_in_a_moment_is_loaded_by_the_next_process(root, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    folder = str(tmp_path / "slth" / "jax")
    assert said == [["3", "False", folder], ["3", "True", folder]]
