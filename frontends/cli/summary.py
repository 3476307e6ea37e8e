"""`quern summary SOURCE`"""

from __future__ import annotations

import argparse
import sys

from . import options as arguments

SUMMARY = "list a network's layers: output, parameters, FLOPs, memory"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_source(parser)


def run(options: argparse.Namespace) -> None:
    """Prints a table of the layers."""
    from ...compiler.summary import HEADINGS, format_summary, summarize, summary_cells, total
    from ..source import source_of
    from .console import print_table

    specs, named = arguments.types_of(options.input)
    rows = summarize(source_of(options.source, contents=False).graph(*specs, **named))
    if not sys.stdout.isatty():
        print(format_summary(rows), end="")
        return
    print_table(
        HEADINGS,
        [summary_cells(row) for row in (*rows, total(rows))],
        numbers=range(3, len(HEADINGS)),
    )
    for name in dict.fromkeys(name for row in rows for name in row.shared):
        print(f"= shares {name} with other layers")
