"""Composites become what they consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops.base import Op
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class Expand(Pass):
    """Replaces composites, and what their expansions hold, until only primitives are left.

    Arguments:
        for_gradient: only those composites that have no gradient of their own.
    """

    for_gradient: bool = False

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
        if self.for_gradient and (op.has_gradient or not op.differentiable):
            return False
        return type(op).expand is not Op.expand
