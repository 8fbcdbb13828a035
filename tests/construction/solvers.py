"""Solvers around a solver: one that counts, and one that breaks off."""

from dataclasses import dataclass, field


@dataclass
class Counting:
    """A solver that counts the nodes that it is asked to solve, and fails at one of them.

    It has the name of the solver inside, so that a construction takes both for the same.
    """

    inside: object
    fails_at: int | None = None
    count: int = field(default=0, repr=False)

    def __repr__(self):
        return repr(self.inside)

    def __getattr__(self, name):
        return getattr(self.inside, name)

    def solve(self, problem):
        if self.count == self.fails_at:
            raise Interrupted
        self.count += 1
        return self.inside.solve(problem)


class Interrupted(Exception):
    """The end of a process in the middle of a construction."""
