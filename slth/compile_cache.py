"""Compiled kernels kept on disk, so that a second process starts at once."""

import os
from pathlib import Path

import jax

OPTION = "jax_compilation_cache_dir"


def cache_folder() -> Path:
    """``$JAX_COMPILATION_CACHE_DIR``, else the folder slth/jax in the user's cache."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "slth" / "jax"


def use_compile_cache() -> None:
    """Keep compiled kernels in `cache_folder`, unless the program already chose a folder of its own.

    Called by the experiments and benchmarks; a library user calls it once at the start. It only sets jax
    configuration, so call it before the first compilation. A folder that cannot be written costs nothing
    but the caching.
    """
    if getattr(jax.config, OPTION) is None:
        jax.config.update(OPTION, str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
