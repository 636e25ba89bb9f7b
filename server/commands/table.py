"""Text tables for the terminal."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns wide enough for their cells; the numbers in them to the right.

    A column counts as numbers when all its cells look like one or are empty or "-".
    """
    columns = [*zip(header, *rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    return "\n".join(_line(row, widths, numeric) for row in (header, *rows))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _is_number(cell: str) -> bool:
    return not cell or cell == "-" or cell.replace(".", "", 1).replace(",", "").isdecimal()


def milliseconds(value: float) -> str:
    """Three digits that count: 0.042, 1.35, 12.3, 1250."""
    for limit, digits in ((1.0, 3), (10.0, 2), (100.0, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def rate(value: float) -> str:
    """Per second: one decimal below a hundred."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
