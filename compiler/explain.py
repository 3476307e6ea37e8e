"""Which kernels compute a node of the user's, and how."""

from __future__ import annotations

from dataclasses import dataclass

from .driver import Options, lower_groups, prepare
from .errors import UsageError
from .graph import Graph, Node
from .group import Group, storage
from .llvm.codegen import assembly
from .llvm.emit import emit
from .loops.ir import Kernel
from .loops.printer import print_kernel
from .loops.streams import streaming
from .lower.lower import lower
from .ops.leaf import Leaf
from .ops.movement import Concat, Reshape, Slice
from .placed import Placed, Repeat
from .printer import print_group
from .report import Report
from .summary import si_text


@dataclass(frozen=True)
class Explanation:
    """What has become of a node.

    Arguments:
        name: of the node, or of a module, then of all nodes in it.
        verdict: in one line.
        graph: the optimized graph that the kernels are of.
        kernels: that compute it; for a leaf, that read it.
        options: that they were lowered with.
    """

    name: str
    verdict: str
    graph: Graph
    kernels: tuple[Placed, ...]
    options: Options

    def text(self, llvm: bool = False, asm: bool = False) -> str:
        """Everything about every kernel: its nodes, cost and loops, and machine code on request."""
        return "\n\n".join([self.verdict, *(self._kernel(p, llvm, asm) for p in self.kernels)])

    def _kernel(self, placed: Placed, llvm: bool, asm: bool) -> str:
        assert placed.group is not None
        if isinstance(placed, Repeat):
            what = f"{print_group(self.graph, placed.group)}\n  is a loop of {placed.count} steps"
            codes = (self._code(i.placed.routine.kernel, llvm, asm) for i in placed.inner)
            return "\n\n".join([what, *(part for code in codes for part in code)])
        # The kernel may be shared with other groups; lowered for this one it has its names.
        kernel = lower(self.graph, placed.group, self.options.target).kernel
        if placed.streamed is not None:
            kernel = streaming(kernel, placed.streamed)
        head = f"{print_group(self.graph, placed.group)}\n{cost_text(placed)}"
        return "\n\n".join([head, *self._code(kernel, llvm, asm)])

    def _code(self, kernel: Kernel, llvm: bool, asm: bool) -> list[str]:
        """The loops of a kernel, and its machine code on request."""
        parts = [print_kernel(kernel)]
        if llvm or asm:
            code = emit(kernel, self.options.target).ir
            parts += [code.rstrip()] if llvm else []
            parts += [assembly(code, self.options.target).rstrip()] if asm else []
        return parts


def explain(graph: Graph, name: str, options: Options | None = None) -> Explanation:
    """What becomes of a node when a graph is compiled.

    Arguments:
        graph: as declared.
        name: of one of the user's nodes, of a module (`layer1.0`), or of a leaf.
        options: how it is compiled.

    Raises:
        UsageError: there is no such node.
        QuernError: the graph cannot be compiled.
    """
    options = options or Options()
    known = {n.name for n in graph.nodes()} | {o.name for n in graph.nodes() for o in n.origins}
    if not any(_is_called(name, k) for k in known):
        raise UsageError(f"{graph.name} has no node {name!r}")
    report = Report()
    prepared = prepare(graph, options, report)
    main = prepared.main
    nodes = {n.name for n in main.nodes() if _is_from(n, name)}
    placed = lower_groups(main, options, report).kernels
    leaf = name in graph and isinstance(graph.node(name).op, Leaf)
    if leaf:
        kernels = [p for p in placed if p.group and _reads(main, p.group, name)]
    else:
        kernels = [p for p in placed if p.group and not nodes.isdisjoint(p.group.nodes)]
    verdict = _verdict(graph, name, leaf, len(kernels))
    if not kernels:
        ahead = prepared.preparation
        is_ahead = ahead is not None and (
            name in ahead or any(_is_from(n, name) for n in ahead.nodes())
        )
        verdict = _absence(name, main, nodes, is_ahead)
    return Explanation(name, verdict, main, tuple(kernels), options)


def cost_text(placed: Placed) -> str:
    """`  does 1.2 MFLOP, reads 3.4 kB, writes 5.6 kB: 0.13 FLOP a byte; NOTE`"""
    counted = placed.routine.cost
    calls = f" and {si_text(counted.calls)}calls of exp and the like" if counted.calls else ""
    note = placed.lowered.kernel.note
    return (
        f"  does {si_text(counted.flops)}FLOP{calls}, reads {si_text(counted.bytes_read)}B, "
        f"writes {si_text(counted.bytes_written)}B: {counted.intensity:.3g} FLOP a byte"
        + (f"\n  as {note}" if note else "")
    )


def _is_called(wanted: str, name: str) -> bool:
    """Whether a node is the wanted one, or in the wanted module."""
    return name == wanted or name.startswith(f"{wanted}.")


def _is_from(node: Node, name: str) -> bool:
    if isinstance(node.op, Leaf):
        return False
    return node.name == name or any(_is_called(name, o.name) for o in node.origins)


def _reads(graph: Graph, group: Group, name: str) -> bool:
    return any(storage(graph, value).node == name for value in group.inputs)


def _verdict(graph: Graph, name: str, leaf: bool, count: int) -> str:
    kernels = f"{count} kernel{'' if count == 1 else 's'}"
    if leaf:
        node = graph.node(name)
        return f"{name} is the {node.op.short_name} {node.types[0]}, read by {kernels}"
    return f"{name} of {graph.name} is computed in {kernels}"


def _absence(name: str, main: Graph, nodes: set[str], is_ahead: bool) -> str:
    if is_ahead:
        return f"{name} is in no kernel: what it gives is computed once, when the network is loaded"
    if nodes and all(isinstance(main.node(n).op, Reshape) for n in nodes):
        return f"{name} is in no kernel: it only gives memory another shape"
    if nodes and all(isinstance(main.node(n).op, Concat | Slice | Reshape) for n in nodes):
        return f"{name} is in no kernel: it copies nothing, as parts lie where the whole has them"
    return f"{name} is in no kernel: nothing that is left after all passes depends on it"
