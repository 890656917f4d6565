"""Tables and sizes as people read them: rich on a terminal, plain aligned text everywhere else."""

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO


def write_table(headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Write a table to a stream, by default standard output; the last column takes what width is left."""
    stream = stream or sys.stdout
    if stream.isatty():
        _write_rich(headings, rows, stream)
    else:
        for line in plain_lines(headings, rows):
            stream.write(line + "\n")


def plain_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table without borders or colours; cells with several lines are joined by `; `."""
    table = [list(headings), *([cell.replace("\n", "; ") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _write_rich(headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    from rich.console import Console  # here, not above: importing it costs more than planning does
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=stream, width=shutil.get_terminal_size().columns).print(table)


_STYLES = {"cached": "green", "ran": "yellow", "run": "yellow", "failed": "bold red"}


def shown_bytes(count: int) -> str:
    """A size in the units that the tools of this field use: powers of ten, two or three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def shown_seconds(seconds: float) -> str:
    """A duration: tenths below ten seconds, minutes above two."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
