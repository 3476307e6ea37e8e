"""The `quern` program; also `python -m quern`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with `arguments` (default: the process's own) and return its exit code."""
    parser = argparse.ArgumentParser(prog="quern", description="A graph compiler for CPUs.")
    parser.add_argument("--version", action="version", version=f"quern {__version__}")
    parser.parse_args(arguments)
    parser.print_usage(sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
