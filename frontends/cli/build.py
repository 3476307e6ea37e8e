"""Compiling for a command, with what `-v` tells of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...compiler.graph import Graph
from ...compiler.report import Stage
from ...compiler.summary import si_text
from ...runtime.executable import Executable
from ..compile import compile
from .console import note, note_stage, working


def compile_network(
    graph: Graph, options: argparse.Namespace, dump: Path | None = None
) -> Executable:
    """The graph, compiled as --target and --threads say."""
    with working(f"compiling {graph.name} …", options.verbose):
        executable = compile(graph, threads=options.threads, target=options.target, dump=dump)
    if options.verbose and executable.report is not None:
        note_stage(Stage("in all", executable.report.seconds, ""))
        note(memory_text(executable))
    return executable


def memory_text(executable: Executable) -> str:
    """`planned peak memory 12.3 MB: inputs and outputs 1.2 MB, …`"""
    program = executable.program
    ends = sum(type.nbytes for _, type in (*program.inputs, *program.outputs))
    parts = {
        "inputs and outputs": ends,
        "between kernels": program.arena_bytes,
        "parameters and buffers": sum(type.nbytes for _, type in program.states),
        "constants": sum(a.nbytes for a in executable.constants.values()),
    }
    listed = ", ".join(f"{name} {si_text(size)}B" for name, size in parts.items())
    return f"planned peak memory {si_text(sum(parts.values()))}B: {listed}"
