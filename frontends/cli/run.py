"""`quern run SOURCE --input x.npy --output y.npy`"""

from __future__ import annotations

import argparse
from typing import Any

from ...compiler.errors import UsageError
from . import options as arguments

SUMMARY = "run a network on arrays from files, or on made-up ones"

_ENDINGS = (".npy", ".npz")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("source", metavar="SOURCE", help="FILE.qn, FILE.py:NAME or a zoo name")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE|SHAPE",
        help="contents of an input, x.npy or image=x.npy; of several, data.npz; or the type of one "
        "that --fill makes up, 16x3x224x224",
    )
    parser.add_argument("--output", "-o", metavar="FILE", help="write the outputs: .npy or .npz")
    parser.add_argument(
        "--fill", choices=("random", "zeros", "ones"), help="contents of inputs without a file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --fill random (0)")
    parser.add_argument(
        "--top", type=arguments.positive, metavar="N", help="print the N largest values of a row"
    )
    parser.add_argument("--time", action="store_true", help="run again and again, and time it")
    arguments.add_threads(parser)
    arguments.add_target(parser)


def run(options: argparse.Namespace) -> None:
    """Runs a network once, or as often as timing takes."""
    output = options.output and arguments.output_path(options.output, _ENDINGS)
    from .arrays import fill, read_inputs, top_lines, write_outputs
    from .runnable import network_of

    given = read_inputs(options.input)
    executable = network_of(options, given)
    if output and output.suffix.lower() == ".npy" and len(executable.outputs) > 1:
        raise UsageError(
            f"{output} holds one array, there are {len(executable.outputs)} outputs "
            f"({', '.join(executable.outputs)}); write an .npz file"
        )
    arrays = fill(executable.inputs, given, options.fill, options.seed)
    results = executable.run(arrays)
    if output:
        write_outputs(output, results)
    for name, array in results.items():
        print(f"{name}: {executable.outputs[name]}{_range(array)}")
        for line in top_lines(array, options.top) if options.top else ():
            print(f"  {line}")
    if options.time:
        from .timing import measure

        print(measure(executable, arrays).line())
    if output:
        print(f"wrote {output}")


def _range(array: Any) -> str:
    if array.size < 2:
        return f", {array.item():.6g}" if array.size else ""
    return f", from {array.min():.6g} to {array.max():.6g}"
