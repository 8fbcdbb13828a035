"""One arithmetic whatever JAX is set to: numbers of 32 bits, compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def in_32_bits() -> Iterator[None]:
    """Numbers of 32 bits and compiled kernels within, as without ``JAX_ENABLE_X64`` and ``JAX_DISABLE_JIT``.

    A ticket's bits depend on the arithmetic, and solvers that are not compiled would take days. Also a
    decorator, ``@in_32_bits()``. It holds for the thread that enters it.
    """
    with jax.enable_x64(False), jax.disable_jit(False):
        yield
