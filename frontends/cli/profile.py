"""`quern profile SOURCE`"""

from __future__ import annotations

import argparse

from . import options as arguments

SUMMARY = "time every kernel, and compare it with what the machine can do"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_runnable(parser)
    parser.add_argument(
        "--top", type=arguments.positive, metavar="N", help="show the N slowest kernels (all)"
    )
    arguments.add_duration(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the roofline: .png, .svg or .pdf (needs Matplotlib)"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure the machine's peaks again, not as they were found the first time",
    )


def run(options: argparse.Namespace) -> None:
    """Prints where the time goes."""
    file = options.json and arguments.output_path(options.json, (".json",))
    from ...runtime.peaks import peaks
    from ...runtime.profile import HEADINGS, NUMBERS, profile
    from ...runtime.profile_plot import ENDINGS, check
    from .arrays import write_json
    from .console import note, print_table
    from .runnable import runnable_of

    picture = options.plot and check(arguments.output_path(options.plot, ENDINGS))
    executable, arrays = runnable_of(options)
    # Nothing is drawn meanwhile: that would take time of the processor that is measured.
    machine = peaks(executable.threads, measure=True) if options.measure else None
    if options.verbose:
        note(f"running {executable.program.name} for {options.duration:g} s")
    found = profile(executable, arrays, duration=options.duration, known=machine)
    print_table(HEADINGS, found.rows(options.top), range(NUMBERS))
    print(f"\n{found.summary()}")
    if file:
        write_json(file, found.to_json())
        print(f"wrote {file}")
    if picture:
        print(f"wrote {found.plot(picture)}")
