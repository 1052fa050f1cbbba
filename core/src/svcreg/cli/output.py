"""Printing: tables for people, lines of JSON for programs.

What a registry holds was written by others, so no text from it reaches a terminal with control
characters in it, and none is read as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 100_000
"""Columns of a "screen" that is a pipe: wide enough that no line is ever folded."""


def clean(text: str) -> str:
    """Return text with everything unprintable, such as an escape sequence, made visible."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def format_metadata(metadata: Mapping[str, str]) -> str:
    """Return metadata as `key=value, ...`, sorted by key."""
    return ", ".join(f"{key}={value}" for key, value in sorted(metadata.items()))


def write_json(data: bytes) -> None:
    """Print one line of JSON and flush it, so that whoever reads along has it now."""
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


@cache
def console() -> Console:
    """Return the console of standard output: without colour in a pipe or under `NO_COLOR`."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> Table:
    """Return a table without borders, which `cut` and `awk` read as well as people do."""
    from rich.table import Table

    result = Table(box=None, pad_edge=False, header_style="bold", style=style)
    for header in headers:
        result.add_column(header, overflow="fold")
    for row in rows:
        add_row(result, row)
    return result


def add_row(target: Table, cells: Sequence[str], style: str = "") -> None:
    """Add a row of plain text to a table."""
    from rich.text import Text

    target.add_row(*(Text(clean(cell)) for cell in cells), style=style)


def write_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; in a pipe without the blanks that fill the last column."""
    out = console()
    if out.is_terminal:
        out.print(table(headers, rows))
        return
    with out.capture() as capture:
        out.print(table(headers, rows))
    for line in capture.get().splitlines():
        print(line.rstrip())


def write_line(text: str, style: str = "") -> None:
    """Print one line, never folded, and flush it."""
    console().print(clean(text), style=style or None, soft_wrap=True)
    sys.stdout.flush()
