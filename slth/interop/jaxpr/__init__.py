"""A network read from a function in JAX: what the function computes, not how its modules are written."""

from slth.interop.jaxpr.function import from_jax

__all__ = ["from_jax"]
