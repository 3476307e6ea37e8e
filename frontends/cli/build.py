"""Compiling for a command, with what `-v` tells of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...compiler.graph import Graph
from ...compiler.report import Stage
from ...compiler.types import Array, DType, TensorType
from ...runtime.executable import Executable
from ..compile import compile
from ..nn.module import Module
from ..source import Content
from .arrays import Given
from .console import note, note_stage, working


def compile_network(
    graph: Graph, options: argparse.Namespace, dump: Path | None = None
) -> Executable:
    """The graph, compiled as --target, --algorithms, --tune, --recompute … say."""
    with working(f"compiling {graph.name} …", options.verbose):
        executable = compile(
            graph,
            threads=options.threads,
            target=options.target,
            dump=dump,
            algorithms=options.algorithms,
            tune=options.tune,
            checkpoint=vars(options).get("recompute"),
            checkpoint_every=vars(options).get("recompute_every"),
        )
    if options.verbose and executable.report is not None:
        note_stage(Stage("in all", executable.report.seconds, ""))
        note(str(executable.memory))
    return executable


def specs_of(given: Given, content: Content) -> tuple[list[TensorType], dict[str, TensorType]]:
    """Types of the inputs; floats are those of the network's own parameters."""
    states = content._named_states() if isinstance(content, Module) else ()
    floats = [state.dtype for _, state in states if state.dtype.is_float]

    def spec(array: Array) -> TensorType:
        dtype = DType.of(array.dtype)
        return TensorType(array.shape, floats[0] if floats and dtype.is_float else dtype)

    placed = [*map(spec, given.placed), *given.specs]
    return placed, {**{k: spec(a) for k, a in given.named.items()}, **given.types}
