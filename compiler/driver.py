"""From a graph to a program and its machine code: the stages, in order."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..runtime.image import Image, StoredGraph
from ..runtime.program import Program
from .cost_model import Choice, cheapest
from .errors import UsageError
from .garbage import no_collections
from .graph import Graph
from .group import Group
from .layout import BlockChannels
from .llvm.codegen import assembly
from .llvm.emit import emit
from .llvm.target import Target
from .loops.bounds import prove
from .loops.ir import Kernel, walk
from .loops.printer import print_kernel
from .lower.lower import lower, takes_gaps
from .lower.signature import Signature
from .machine_code import MachineCode
from .ops.leaf import Constant
from .ops.recurrence import Recurrence
from .passes.base import Pass
from .passes.batchnorm import FoldBatchNorm
from .passes.checkpoint import Checkpoint
from .passes.checkpoint_steps import CheckpointSteps
from .passes.classify_before_resize import ClassifyBeforeResize
from .passes.cse import ShareCommonSubexpressions
from .passes.expand import UNROLLED, Expand
from .passes.fold import FoldConstants
from .passes.hoist import Prepared, hoist
from .passes.hoist_steps import HoistSteps
from .passes.join_slices import JoinSlices
from .passes.merge_recurrences import MergeRecurrences
from .passes.pack_products import PackProducts
from .passes.partition import partition
from .passes.reshape import SinkReshapes
from .passes.simplify import Simplify
from .passes.snapshot import Snapshot
from .passes.step_passes import StepPasses
from .passes.strassen import Strassen
from .passes.subpixel import SubPixel
from .passes.subsample import Subsample
from .passes.winograd import Winograd
from .placed import Placed
from .plan import Planner, affordable_parts
from .printer import print_group
from .repeat import lower_recurrence
from .report import Report, following
from .routine import Routine
from .streaming import stream_results

ALGORITHMS = ("fastest", "direct")

# Bytes that have to be prepared from parameters before it is worth compiling kernels for them.
_MUCH = 8_000_000


@dataclass(frozen=True)
class Options:
    """How to compile.

    Arguments:
        target: the machine; the host by default.
        passes: graph passes, in order; the standard ones by default.
        workers: processes that compile kernels; as many as there are processors by default.
        algorithms: "fastest", or "direct" for convolutions by neither Winograd's
            algorithm nor Strassen's.
        checkpoint: what of the forward pass is computed again for the backward pass; nothing by
            default.
        checkpoint_steps: the same for the steps of recurrences.
        choose: tells which algorithm is fastest for a convolution; the cost model by default.
    """

    target: Target = field(default_factory=Target.host)
    passes: Sequence[Pass] | None = None
    workers: int | None = None
    algorithms: str = "fastest"
    checkpoint: Checkpoint | None = None
    checkpoint_steps: CheckpointSteps | None = None
    choose: Choice = cheapest

    def __post_init__(self) -> None:
        if self.algorithms not in ALGORITHMS:
            raise UsageError(f"algorithms={self.algorithms!r} is none of {', '.join(ALGORITHMS)}")


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


def standard_passes(
    unroll: int = UNROLLED, target: Target | None = None, cut: Sequence[Pass] = ()
) -> tuple[Pass, ...]:
    """The passes that every graph goes through.

    Arguments:
        unroll: recurrences of more steps stay loops.
        target: the machine that their weights are packed for; None: they are not packed.
        cut: passes over whole recurrences, before these are split.
    """
    return (
        FoldBatchNorm(),
        ClassifyBeforeResize(),
        MergeRecurrences(),
        *cut,
        HoistSteps(),
        Expand(loops=unroll),
        SubPixel(),
        Subsample(),
        *_simplification(),
        StepPasses((Expand(), *_simplification()), target),
        PackProducts(target),
    )


def _simplification() -> tuple[Pass, ...]:
    return (
        FoldConstants(),
        Simplify(),
        JoinSlices(),
        SinkReshapes(),
        ShareCommonSubexpressions(),
        Simplify(),
    )


def _layout_passes(options: Options) -> tuple[Pass, ...]:
    """The passes that choose layouts and algorithms."""
    target, choose = options.target, options.choose
    fast = (Winograd(target, choose=choose), Strassen(target, choose))
    fewer = () if options.algorithms == "direct" else fast
    return (BlockChannels(target), *fewer, Simplify(), ShareCommonSubexpressions())


def _passes(options: Options) -> tuple[Pass, ...]:
    if options.passes is not None:
        return tuple(options.passes)
    steps = options.checkpoint_steps
    standard = (
        standard_passes(min(UNROLLED, steps.unrolled), options.target, (steps.cut,))
        if steps
        else standard_passes(target=options.target)
    )
    return standard + _layout_passes(options)


def optimize(graph: Graph, options: Options, report: Report) -> Graph:
    """The graph after all passes."""
    report.write("declared", lambda: str(graph))
    for step in _passes(options):
        with report.stage(step.name) as describe:
            graph = step.apply(graph)
            describe(f"{len(graph)} nodes")
        report.write(step.name, partial(str, graph))
    return graph


def prepare(graph: Graph, options: Options, report: Report) -> Prepared:
    """The graph whose nodes become kernels, and apart what follows from parameters alone."""
    prepared = hoist(optimize(graph, options, report))
    main = prepared.main
    for again in (options.checkpoint_steps, options.checkpoint):
        if again is not None:
            with report.stage(again.name) as describe:
                before, main = len(main), again.apply(main)
                describe(f"{len(main) - before} nodes computed again")
            report.write(again.name, partial(str, main))
    return replace(prepared, main=Snapshot().apply(main))


def lower_groups(graph: Graph, options: Options, report: Report) -> Planner:
    """The kernels of an optimized graph, proved to stay inside their buffers, about to be planned.

    Groups of one signature have one kernel, which is named after the first.
    """
    with report.stage("partition") as describe:
        groups = partition(graph)
        parts = affordable_parts(graph, groups, partial(takes_gaps, graph))
        busy = [group for i, group in enumerate(groups) if i not in parts.idle]
        groups = tuple(parts.strided(graph, group) for group in busy)
        describe(f"{len(groups)} kernels")
    report.write("kernels", lambda: "\n\n".join(print_group(graph, g) for g in groups))
    with report.stage("lower") as describe:
        placed = _lowered(graph, groups, options.target, {})
        routines = list(dict.fromkeys(r for p in placed for r in p.routines))
        statements = sum(sum(1 for _ in walk(r.kernel.body)) for r in routines)
        describe(f"{len(routines)} different ones, {statements} statements")
    with report.stage("prove bounds"):
        for routine in routines:
            prove(routine.kernel, routine.accesses)
    planner = Planner(graph, placed, parts)
    with report.stage("stream") as describe:
        planner.settle()
        describe(f"{stream_results(planner, options.target)} kernels write past the caches")
    return planner


def _lowered(
    graph: Graph,
    groups: Sequence[Group],
    target: Target,
    known: dict[Hashable, tuple[Signature, Placed]],
) -> list[Placed]:
    placed: list[Placed] = []
    inside = partial(_lowered, target=target, known=known)
    for group in groups:
        if isinstance(graph.node(group.nodes[0]).op, Recurrence):
            placed.append(lower_recurrence(graph, group, inside))
            continue
        signature = Signature.of(graph, group)
        if signature.key not in known:
            lowered = lower(graph, group, target)
            first = Placed(group, lowered, Routine(lowered.kernel))
            known[signature.key] = signature, first
        own, first = known[signature.key]
        placed.append(Placed(group, own.renamed(first.lowered, signature), first.known))
    return placed


@no_collections()
def compile_graph(
    graph: Graph, options: Options | None = None, report: Report | None = None
) -> Compiled:
    """Compiles a graph.

    Arguments:
        graph: what is compiled; its outputs and updates are what a run gives.
        options: how.
        report: collects what happens.

    Raises:
        QuernError: what cannot be compiled, with node and line.
    """
    options = options or Options()
    report = report or Report()
    prepared = prepare(graph, options, report)
    preparing = _preparing(prepared.preparation, options, report)
    image, groups = _image(prepared.main, options, report)
    image = replace(
        image,
        source=StoredGraph(graph),
        preparation=StoredGraph(prepared.preparation) if prepared.preparation else None,
        preparing=preparing,
    )
    return Compiled(image, prepared.main, groups, report)


def _image(graph: Graph, options: Options, report: Report) -> tuple[Image, tuple[Group, ...]]:
    """A graph of primitives as machine code, and its kernels."""
    planner = lower_groups(graph, options, report)
    program, objects = _assemble(planner, options, report)
    known = [n.name for n in graph.leaves(Constant) if n.name in graph.data]
    constants = {name: graph.data[name] for name in known}
    image = Image(program, objects, options.target, constants, StoredGraph(graph), None)
    return image, tuple(p.group for p in planner.kernels if p.group)


def _preparing(graph: Graph | None, options: Options, report: Report) -> Image | None:
    """What prepares parameters, compiled, if it is much: NumPy is slow, but needs no compiling."""
    if graph is None or sum(graph.type_of(v).nbytes for v in graph.outputs.values()) < _MUCH:
        return None
    with report.stage("kernels that prepare parameters"), following(lambda _: None):
        return _image(graph, options, Report())[0]


def _assemble(
    planner: Planner, options: Options, report: Report
) -> tuple[Program, dict[str, bytes]]:
    """The program, and the machine code that it calls. Workers compile while it is planned."""
    with MachineCode(options.target, options.workers) as code:
        with report.stage("emit") as describe:
            size = code.add(r for p in planner.kernels for r in p.routines)
            describe(f"{size // 1024} KB of LLVM IR")
        with report.stage("plan") as describe:
            program = planner.run()
            describe(f"{program.arena_bytes / 1e6:.1f} MB between kernels")
        kernels = {r.symbol: r.kernel for p in planner.kernels for r in p.routines}
        report.write("loops", lambda: "\n\n".join(print_kernel(k) for k in kernels.values()))
        with report.stage("machine code") as describe:
            objects = code.objects()
            describe(f"{code.compiled} kernels compiled, {code.cached} from the cache")
    _dump_code(kernels, options.target, report)
    return program, objects


def _dump_code(kernels: Mapping[str, Kernel], target: Target, report: Report) -> None:
    if report.dump is None:
        return
    texts = {f"{k.name} {s}": emit(k, target, s).ir for s, k in kernels.items()}
    report.write("llvm", lambda: "\n".join(f"; {n}\n{t}" for n, t in texts.items()), "ll")
    code = {n: assembly(t, target) for n, t in texts.items()}
    report.write("assembly", lambda: "\n".join(f"# {n}\n{t}" for n, t in code.items()), "s")
