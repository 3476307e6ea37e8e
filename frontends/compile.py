"""The front door of the compiler: anything that describes a network, compiled, run or drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.autodiff import differentiate
from ..compiler.cost_model import cheapest
from ..compiler.draw import STAGES, Drawing
from ..compiler.draw import draw as draw_graph
from ..compiler.driver import Options, compile_graph, prepare
from ..compiler.errors import InputError, UsageError
from ..compiler.evaluate import evaluate
from ..compiler.graph import Graph
from ..compiler.group import Group
from ..compiler.llvm.target import Target
from ..compiler.ops.leaf import Input
from ..compiler.passes.checkpoint import Checkpoint, Wanted
from ..compiler.passes.checkpoint_steps import CheckpointSteps
from ..compiler.passes.partition import partition
from ..compiler.report import Report
from ..compiler.types import DType, TensorType
from ..runtime.executable import Executable
from .source import source_of
from .suggest import unknown
from .tuning import Tuner


def as_graph(source: Any, *specs: TensorType) -> Graph:
    """The graph of a network; see `compile` for what describes one."""
    return source_of(source).graph(*specs)


def compile(
    source: Any,
    *specs: TensorType,
    threads: int | None = None,
    target: str | Target | None = None,
    dump: str | Path | None = None,
    workers: int | None = None,
    algorithms: str = "fastest",
    checkpoint: Wanted | None = None,
    checkpoint_every: int | None = None,
    tune: bool = False,
) -> Executable:
    """Compiles a network to machine code.

    Arguments:
        source: a module, a function of tensors, a Graph, a networkx graph, the name of a network of
            the zoo, `FILE.py:NAME`, a `.qn` or an `.onnx` file. A module is compiled in the mode it
            is in (`eval()`), what is given by name for inference.
        specs: types of the inputs (`qn.spec(64, 1, 28, 28)`), where the source does not know them.
        threads: that run it; QUERN_NUM_THREADS or the usable processors by default.
        target: "avx512", "avx2" or "sse"; the host by default.
        dump: folder into which the text of every stage is written.
        workers: processes that compile kernels.
        algorithms: "fastest", or "direct" for convolutions by neither Winograd's algorithm nor
            Strassen's, in whose results a NaN or an infinity spreads to other pixels.
        checkpoint: what a backward pass reads of the forward pass is computed again instead of
            kept: in so many segments, so that the plan keeps to a number of bytes ("1.5 GB"), in
            the modules of these names, or, with True, for the least memory.
        checkpoint_every: what a backward pass reads of the steps of a recurrence is computed again
            from the states after every so many steps, which are kept: for T steps least memory is
            taken by about √T.
        tune: choose algorithms by measuring them on this machine, not by a model of it. That takes
            a second or two for every shape of a convolution; the winners are remembered.

    Returns:
        What can be called with NumPy arrays.

    Raises:
        QuernError: what does not fit, with node and line.
    """
    chosen = Target.named(target) if isinstance(target, str) else target or Target.host()
    report = Report(Path(dump) if dump else None)
    options = Options(
        chosen,
        workers=workers,
        algorithms=algorithms,
        checkpoint=Checkpoint.of(checkpoint),
        checkpoint_steps=CheckpointSteps.of(checkpoint_every),
        choose=Tuner(threads, report).choose if tune else cheapest,
    )
    compiled = compile_graph(as_graph(source, *specs), options, report)
    return Executable(compiled.image, threads, report=report)


def interpret(source: Any, *arrays: Any, **named: Any) -> Any:
    """Runs a network by NumPy alone, slowly: what compiled results are checked against.

    Arguments:
        source: as for `compile`.
        arrays: inputs, in order; or one dict of them by name.
        named: inputs by name.

    Returns:
        One array for one output, a tuple for several; a dict where a dict was given.

    Raises:
        InputError: names, shapes or dtypes that are not the network's.
    """
    by_name = len(arrays) == 1 and isinstance(arrays[0], Mapping) and not named
    placed = [] if by_name else [np.asarray(a) for a in arrays]
    keyed = {k: np.asarray(v) for k, v in (arrays[0] if by_name else named).items()}
    found = source_of(source)
    if isinstance(found.content, Graph):
        graph = found.content
    else:
        types = {name: _type_of(array) for name, array in keyed.items()}
        graph = found.graph(*map(_type_of, placed), **types)
    feeds = _feeds(graph, placed, keyed)
    outputs = evaluate(graph, feeds).outputs
    results = tuple(outputs.values())
    return outputs if by_name else results[0] if len(results) == 1 else results


def _feeds(graph: Graph, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    names = [n.name for n in graph.leaves(Input)]
    if len(arrays) > len(names):
        raise InputError(f"{graph.name} takes {len(names)} inputs, got {len(arrays)}")
    for name in named:
        if name not in names:
            raise InputError(unknown("input", name, names, graph.name))
    return {**dict(zip(names, arrays, strict=False)), **named}


def _type_of(array: Any) -> TensorType:
    return TensorType(tuple(array.shape), DType.of(array.dtype))


def draw(
    source: Any,
    path: str | os.PathLike[str] | None = None,
    stage: str = "declared",
    backward: bool = False,
    fold: bool | int | None = None,
    inputs: Sequence[TensorType] = (),
    unroll: bool = False,
) -> Drawing:
    """A picture of a network, which Jupyter shows.

    Arguments:
        source: as for `compile`.
        path: also saves the picture there: .svg, .png, .pdf, .gv or .dot.
        stage: "declared"; "optimized", after all passes; "kernels", with what shares a kernel in
            one box.
        backward: add the backward graph, of all float outputs by all trainable parameters.
        fold: number of parts of dotted names that stay apart: 1 makes one box of everything in
            `layer1`, 2 of `layer1.0`. True chooses, False folds nothing; by default long graphs are
            folded. Kernels are never folded.
        inputs: types of the inputs, where the source does not know them.
        unroll: shows recurrences step by step, as they are declared, instead of as one box with an
            edge back to it.

    Raises:
        UsageError: unknown stage or suffix, or a negative fold.
        QuernError: what does not fit in the network, with node and line.
    """
    if stage not in STAGES:
        raise UsageError(unknown("stage", stage, STAGES))
    graph = source_of(source).graph(*inputs)
    if backward:
        graph = differentiate(graph)
    if stage == "declared":
        return draw_graph(graph, path, stage, fold, unroll=unroll)
    if unroll:
        raise UsageError(f"recurrences are unrolled as they are declared, not when {stage}")
    graph = prepare(graph, Options(), Report()).main
    if stage == "optimized":
        return draw_graph(graph, path, stage, fold)
    return draw_graph(graph, path, stage, fold, _boxes(partition(graph)))


def _boxes(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Each node in one kernel: a cheap one that several compute, in the first of them."""
    boxes: dict[str, list[str]] = {}
    placed: set[str] = set()
    for group in groups:
        boxes[group.name] = [n for n in group.nodes if n not in placed]
        placed.update(group.nodes)
    return {name: nodes for name, nodes in boxes.items() if nodes}
