"""One arithmetic whatever JAX is set to: numbers of 32 bits, or of 64, compiled."""

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


@contextmanager
def in_64_bits() -> Iterator[None]:
    """Numbers of up to 64 bits and compiled kernels within, for scores that are compared with one another.

    Arrays of 32 bits stay what they are until they are converted. Also a decorator, as `in_32_bits`.
    """
    with jax.enable_x64(True), jax.disable_jit(False):
        yield
