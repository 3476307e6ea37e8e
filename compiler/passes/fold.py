"""What depends on constants alone is computed now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Graph, Node
from ..ops.leaf import Constant, Leaf
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replaces nodes of constants by their values.

    Arguments:
        most: results of more elements than this, and than all of their inputs, stay nodes: a
            broadcast constant is cheaper to compute than to read.
    """

    most: int = 1024

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, self._rule)

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        inputs = rewriter.inputs(node)
        new = rewriter.new
        if isinstance(node.op, Leaf) or not inputs:
            return None
        if not all(isinstance(new.producer(x.value).op, Constant) for x in inputs):
            return None
        limit = max(self.most, sum(x.type.size for x in inputs))
        if sum(t.size for t in node.types) > limit:
            return None
        with np.errstate(all="ignore"):
            arrays = node.op.evaluate(*(new.data[x.value.node] for x in inputs))
        return [new.constant(a, name="folded") for a in arrays]
