"""The conformance command: see the package."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .models import KINDS, load
from .report import page, totals
from .run import FAILED, Outcome, by_numpy, compiled, outcome_of

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"


def main() -> int:
    """Runs the tests; 1 when any result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--compiled", action="store_true", help="as machine code, not by NumPy")
    parser.add_argument("--only", default="", help="tests with this text in their name")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for kind in options.kinds:
        for test in load(kind):
            if options.only not in test.name:
                continue
            start = time.perf_counter()
            # The light models are whole networks: by NumPy they would take minutes each.
            fast = options.compiled or kind == "real"
            outcomes.append(outcome_of(test, compiled if fast else by_numpy))
            if (took := time.perf_counter() - start) > 10.0:
                print(f"{test.name} took {took:.0f} s", file=sys.stderr)
    print(totals(outcomes))
    for outcome in outcomes:
        if outcome.status == FAILED:
            print(f"\nFAILED {outcome.kind} {outcome.name}: {outcome.reason[:400]}")
    if tuple(options.kinds) == KINDS and not options.only and not options.compiled:
        PAGE.write_text(page(outcomes))
        print(f"\nwrote {PAGE.name}")
    return 1 if any(o.status == FAILED for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
