"""A command line of the experiments, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path


def command(root: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m experiments.ticket`` with these overrides, in this environment."""
    return subprocess.run(
        [sys.executable, "-m", "experiments.ticket", *overrides],
        cwd=root,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
