"""A finished mask refined end to end, bit by bit."""

from slth.refinement.loop import Refined, refine
from slth.refinement.state import STATE, Look

__all__ = ["STATE", "Look", "Refined", "refine"]
