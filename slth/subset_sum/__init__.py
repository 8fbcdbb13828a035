"""Millions of small subset-sum problems, solved exactly: choose S such that the sum of x over S is near t."""

from slth.subset_sum.one import solve_one
from slth.subset_sum.problem import Objective, Solution, unpack
from slth.subset_sum.solve import solve

__all__ = ["Objective", "Solution", "solve", "solve_one", "unpack"]
