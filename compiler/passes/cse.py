"""Common subexpressions are computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, Value
from ..ops.leaf import Constant, Leaf
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class ShareCommonSubexpressions(Pass):
    """One node for all nodes of the same operation on the same inputs, and for equal constants.

    The first one stays, with its name and phase; the origins of the others come behind its own.
    """

    def apply(self, graph: Graph) -> Graph:
        seen: dict[Hashable, tuple[Value, ...]] = {}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if isinstance(node.op, Leaf) and not isinstance(node.op, Constant):
                return None
            if isinstance(node.op, Constant):
                content = graph.data[node.name]
                digest = hashlib.sha256(content.tobytes()).digest()
                key: Hashable = (node.op, digest)
            else:
                # The text of the attributes too: to == and hash, 0.0 is -0.0 and True is 1.
                key = (node.op, repr(node.op), *(x.value for x in rewriter.inputs(node)))
            found = seen.get(key)
            if found is None:
                seen[key] = rewriter.keep(node)
                found = seen[key]
            return [rewriter.new.tensor(v) for v in found]

        return rewrite(graph, rule)
