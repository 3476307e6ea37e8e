"""`quern models`"""

from __future__ import annotations

import argparse

SUMMARY = "list the networks of the zoo"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""


def run(options: argparse.Namespace) -> None:
    """Prints a table of the zoo."""
    from ...compiler.summary import si_text
    from ..zoo import entries
    from .console import print_table

    rows = [
        (
            e.name,
            str(e.year),
            f"{e.parameters:,}",
            si_text(e.flops).strip(),
            "x".join(map(str, e.input.shape)),
            e.paper,
        )
        for e in entries().values()
    ]
    headings = ("name", "year", "parameters", "FLOPs", "input", "paper")
    print_table(headings, rows, numbers=(2, 3))
