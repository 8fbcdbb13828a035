"""Compiled kernels kept on disk, so that a second process starts at once."""

import os
from pathlib import Path

import jax

OPTION = "jax_compilation_cache_dir"
LEAST = "jax_persistent_cache_min_compile_time_secs"


def use_compile_cache() -> None:
    """Keep compiled kernels in the folder slth/jax of the user's cache, unless another one was chosen.

    That is by the program, or by ``$JAX_COMPILATION_CACHE_DIR``. Called by the experiments and benchmarks; a
    library user calls it once at the start. It only sets jax configuration, so call it before the first
    compilation. A folder that cannot be written costs nothing but the caching.

    Programs that compile in a moment are kept as well, where
    ``$JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`` does not say otherwise: a run has a hundred of them, and
    each is loaded in a sixth of the time.
    """
    if getattr(jax.config, OPTION) is None:  # jax has read the variable
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update(OPTION, str(Path(base) / "slth" / "jax"))
    if LEAST.upper() not in os.environ:
        jax.config.update(LEAST, 0.0)
