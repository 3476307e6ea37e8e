"""From a graph to a program and its machine code: the stages, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.image import Image, StoredGraph
from .graph import Graph
from .llvm.cache import ObjectCache, object_key
from .llvm.codegen import assembly
from .llvm.emit import emit
from .llvm.phases import symbol_of
from .llvm.pool import compile_all
from .llvm.target import Target
from .loops.bounds import prove
from .loops.ir import Kernel
from .loops.printer import print_kernel
from .lower.lower import lower
from .ops.leaf import Constant
from .passes.base import Pass
from .passes.batchnorm import FoldBatchNorm
from .passes.cse import ShareCommonSubexpressions
from .passes.expand import Expand
from .passes.fold import FoldConstants
from .passes.hoist import hoist
from .passes.partition import Group, partition
from .passes.simplify import Simplify
from .plan import Placed, Planner
from .report import Report


@dataclass(frozen=True)
class Options:
    """How to compile.

    Arguments:
        target: the machine; the host by default.
        passes: graph passes, in order; the standard ones by default.
        workers: processes that compile kernels; as many as there are processors by default.
    """

    target: Target = field(default_factory=Target.host)
    passes: Sequence[Pass] | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Compiled:
    """A compiled graph.

    Arguments:
        image: all that is needed to run it.
        optimized: the graph after all passes.
        groups: its kernels.
        report: what happened.
    """

    image: Image
    optimized: Graph
    groups: tuple[Group, ...]
    report: Report


def standard_passes() -> tuple[Pass, ...]:
    """The passes that every graph goes through."""
    return (
        FoldBatchNorm(),
        Expand(),
        FoldConstants(),
        Simplify(),
        ShareCommonSubexpressions(),
        Simplify(),
    )


def optimize(graph: Graph, options: Options, report: Report) -> Graph:
    """The graph after all passes."""
    report.write("declared", lambda: str(graph))
    for step in standard_passes() if options.passes is None else options.passes:
        with report.stage(step.name) as describe:
            graph = step.apply(graph)
            describe(f"{len(graph)} nodes")
        report.write(step.name, lambda graph=graph: str(graph))  # type: ignore[misc]
    return graph


def lower_groups(graph: Graph, options: Options, report: Report) -> list[Placed]:
    """The kernels of an optimized graph, proved to stay inside their buffers."""
    with report.stage("partition") as describe:
        groups = partition(graph)
        describe(f"{len(groups)} kernels")
    with report.stage("lower"):
        placed = [Placed(g, lower(graph, g, options.target)) for g in groups]
    with report.stage("prove bounds"):
        for item in placed:
            prove(item.lowered.kernel)
    return placed


def compile_graph(
    graph: Graph, options: Options | None = None, dump: Path | None = None
) -> Compiled:
    """Compiles a graph.

    Arguments:
        graph: what is compiled; its outputs and updates are what a run gives.
        options: how.
        dump: folder for the text of every stage.

    Raises:
        QuernError: what cannot be compiled, with node and line.
    """
    options = options or Options()
    report = Report(dump)
    prepared = hoist(optimize(graph, options, report))
    optimized = prepared.main
    planner = Planner(optimized, lower_groups(optimized, options, report))
    with report.stage("plan") as describe:
        program = planner.run()
        describe(f"{program.arena_bytes / 1e6:.1f} MB between kernels")
    kernels = [p.lowered.kernel for p in planner.kernels]
    report.write("loops", lambda: "\n\n".join(print_kernel(k) for k in kernels))
    objects = compile_kernels(kernels, options, report)
    known = [n.name for n in optimized.leaves(Constant) if n.name in optimized.data]
    image = Image(
        program,
        objects,
        options.target,
        {name: optimized.data[name] for name in known},
        StoredGraph(graph),
        StoredGraph(prepared.preparation) if prepared.preparation else None,
    )
    return Compiled(image, optimized, tuple(p.group for p in planner.kernels if p.group), report)


def compile_kernels(
    kernels: Sequence[Kernel], options: Options, report: Report
) -> dict[str, bytes]:
    """Machine code by symbol: from the cache, or compiled now. Equal kernels are compiled once."""
    cache = ObjectCache()
    distinct = {symbol_of(k): k for k in kernels}
    keys = {symbol: object_key(options.target, symbol) for symbol in distinct}
    objects: dict[str, bytes] = {}
    with report.stage("emit") as describe:
        for symbol in distinct:
            found = cache.get(keys[symbol])
            if found is not None:
                objects[symbol] = found
        units = {s: emit(k, options.target).ir for s, k in distinct.items() if s not in objects}
        describe(f"{sum(map(len, units.values())) // 1024} KB of LLVM IR")
    with report.stage("machine code") as describe:
        result = compile_all(units, options.target, None, options.workers)
        for symbol, data in result.objects.items():
            cache.put(keys[symbol], data)
        describe(f"{len(units)} kernels compiled, {len(objects)} from the cache")
    _dump_code(distinct, options.target, report)
    return {**objects, **result.objects}


def _dump_code(kernels: Mapping[str, Kernel], target: Target, report: Report) -> None:
    if report.dump is None:
        return
    texts = {f"{k.name} {s}": emit(k, target).ir for s, k in kernels.items()}
    report.write("llvm", lambda: "\n".join(f"; {n}\n{t}" for n, t in texts.items()), "ll")
    code = {n: assembly(t, target) for n, t in texts.items()}
    report.write("assembly", lambda: "\n".join(f"# {n}\n{t}" for n, t in code.items()), "s")
