"""Lines of text for a terminal."""

from collections.abc import Iterator, Sequence


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> Iterator[str]:
    """Rows of equal length as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield f"{indent}{line}".rstrip()


def plain(text: str) -> str:
    """A name without what would move a terminal's cursor."""
    return text if text.isprintable() else ascii(text)
