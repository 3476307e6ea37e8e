"""Recurrences become copies of their bodies, one a step, that share weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class Unroll(Pass):
    """Unrolls recurrences in time, and those in their bodies: step 3 of `lstm` is `lstm.t3.…`."""

    def apply(self, graph: Graph) -> Graph:
        while any(isinstance(n.op, Recurrence) for n in graph.nodes()):
            graph = rewrite(graph, _unroll)
        return graph


def _unroll(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
    return node.op.expand(*rewriter.inputs(node)) if isinstance(node.op, Recurrence) else None
