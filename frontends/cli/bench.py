"""`quern bench SOURCE`"""

from __future__ import annotations

import argparse

from . import options as arguments

SUMMARY = "run a network again and again: latencies and throughput"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_runnable(parser)
    parser.add_argument(
        "--warmup", type=arguments.positive, default=5, metavar="N", help="runs before timing (5)"
    )
    arguments.add_duration(parser)
    parser.add_argument(
        "--count", type=arguments.positive, metavar="N", help="runs to time, whatever the duration"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there")


def run(options: argparse.Namespace) -> None:
    """Prints how long runs take."""
    file = options.json and arguments.output_path(options.json, (".json",))
    from .arrays import write_json
    from .runnable import runnable_of
    from .timing import measure

    executable, arrays = runnable_of(options)
    timing = measure(executable, arrays, options.warmup, options.duration, options.count)
    print(timing.text())
    if file:
        write_json(file, timing.to_json())
        print(f"wrote {file}")
