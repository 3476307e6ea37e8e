"""`quern compile SOURCE -o FILE.qn`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...compiler.errors import UsageError
from . import options as arguments

if TYPE_CHECKING:
    from ...runtime.executable import Executable

SUMMARY = "compile a network to a .qn file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_source(parser)
    parser.add_argument("-o", "--output", metavar="FILE.qn", help="where to write it (NAME.qn)")
    parser.add_argument(
        "--dump", metavar="DIR", help="write the text of every stage there, numbered in order"
    )
    arguments.add_stage_of_training(parser)
    arguments.add_recompute(parser)
    arguments.add_target(parser)
    arguments.add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Compiles a network."""
    output = options.output and arguments.output_path(options.output, (".qn",))
    dump = _dump_folder(options.dump) if options.dump else None
    from .build import compile_network
    from .network import graph_of

    graph = graph_of(options)
    path = output or arguments.output_path(f"{graph.name.lower()}.qn", (".qn",))
    executable = compile_network(graph, options, dump)
    executable.save(path)
    print(_result(executable, path))
    if dump is not None:
        print(f"wrote the text of every stage to {dump}")


def _result(executable: Executable, path: Path) -> str:
    program = executable.program
    megabytes = path.stat().st_size / 1e6
    seconds = executable.report.seconds if executable.report else 0.0
    return (
        f"wrote {path} ({megabytes:.1f} MB): {program.name}, {len(program.kernels)} kernels, "
        f"compiled in {seconds:.2f} s"
    )


def _dump_folder(text: str) -> Path:
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--dump {text}: that is a file; name a folder")
    return folder
