"""What a command prints: tables in a terminal, aligned text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from ...compiler.report import Stage


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]
) -> None:
    """A table.

    Arguments:
        headings: of the columns.
        rows: cells of text.
        numbers: places of the columns that hold numbers, and are aligned to the right.
    """
    if sys.stdout.isatty():
        _print_rich_table(headings, rows, numbers)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _print_rich_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        number = place in numbers  # is never broken, text is where the terminal is too narrow
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def note(text: str) -> None:
    """A line for the person, apart from what the command gives."""
    print(text, file=sys.stderr, flush=True)


def note_stage(stage: Stage) -> None:
    """`fold-constants      1.2 ms  103 nodes`"""
    note(f"  {stage.name:<28}{1e3 * stage.seconds:>10.1f} ms  {stage.detail}".rstrip())


@contextmanager
def working(what: str, verbose: bool) -> Iterator[None]:
    """Says what is being done, in a terminal, as long as it is."""
    if verbose or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
