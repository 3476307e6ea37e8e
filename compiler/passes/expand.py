"""Composites become what they consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
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
        changed = True
        while changed:
            changed = False

            def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
                nonlocal changed
                if self.for_gradient and (node.op.has_gradient or not node.op.differentiable):
                    return None
                results = node.op.expand(*rewriter.inputs(node))
                changed |= results is not None
                return results

            graph = rewrite(graph, rule)
        return graph
