"""Few of many combinations: every row and every column of a table has its share of the cases that run."""

from collections.abc import Collection, Sequence
from typing import TypeVar

Row, Column = TypeVar("Row"), TypeVar("Column")


def dealt(
    rows: Sequence[Row], columns: Sequence[Column], share: int, always: Collection[tuple] = ()
) -> list[tuple[Row, Column]]:
    """Every ``share``-th diagonal of the table of rows and columns, and the pairs that always run."""
    return [
        (row, column)
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
        if (i + j) % share == 0 or (row, column) in always
    ]
