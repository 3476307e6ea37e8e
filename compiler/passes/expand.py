"""Composites become what they consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops.base import Op
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass

# Recurrences of more steps than this are loops of the program, unless asked for otherwise.
UNROLLED = 8


@dataclass(frozen=True)
class Expand(Pass):
    """Replaces composites, and what their expansions hold, until only primitives are left.

    Arguments:
        for_gradient: only those composites that have no gradient of their own.
        loops: recurrences of more steps stay what they are; None: all are unrolled.
    """

    for_gradient: bool = False
    loops: int | None = None

    def apply(self, graph: Graph) -> Graph:
        primitives: set[str] = set()  # as they are, by name

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if not self._may_expand(node.op):
                return None
            results = node.op.expand(*rewriter.inputs(node))
            if results is None:
                primitives.add(node.name)
            return results

        graph = rewrite(graph, rule)
        while any(self._may_expand(n.op) and n.name not in primitives for n in graph.nodes()):
            graph = rewrite(graph, rule)
        # Results of an expansion that nobody reads, such as running statistics, are not wanted.
        return graph if len(graph.live()) == len(graph) else rewrite(graph)

    def _may_expand(self, op: Op) -> bool:
        if isinstance(op, Recurrence) and self.loops is not None and op.steps > self.loops:
            return False
        if self.for_gradient and (op.has_gradient or not op.differentiable):
            return False
        return type(op).expand is not Op.expand
