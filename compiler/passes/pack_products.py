"""Products with matrices that stay as they are, and how their columns are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..joining import is_column_group
from ..llvm.target import Target
from ..lower.tile import VECTORS
from ..ops.base import apply
from ..ops.blocked import PackWeight
from ..ops.linear import MatMul, PackedMatMul
from ..ops.movement import Slice
from ..ops.pointwise import Pointwise
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass
from .hoist import known

# Products with smaller matrices read them where they are.
_SMALL = 16
_FEW_ROWS = 6


@dataclass(frozen=True)
class PackProducts(Pass):
    """Packs parameters once, when they are loaded, that are multiplied by more than a few rows;
    with few they are read where they are.

    Of any number of rows are products that are cut into equal parts (gates) which are combined
    element by element, as in the steps of a recurrence that is unrolled: product, gates and states
    become one kernel. Where parameters are learned they would have to be packed in each run.

    Arguments:
        target: the machine that matrices are packed for; None: they are not packed.
    """

    target: Target | None

    def apply(self, graph: Graph) -> Graph:
        if self.target is None or graph.updates:
            return graph
        target, fixed = self.target, known(graph)

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if not is_packable(node, graph) or graph.inputs_of(node.name)[1].node not in fixed:
                return None
            lanes = target.vector_bits // (8 * node.types[0].dtype.size)
            groups = column_groups(graph, node, lanes) if _are_combined(graph, node) else 1
            if groups == 1 and node.types[0].shape[0] <= _FEW_ROWS:
                return None
            x, w = rewriter.inputs(node)
            packed = apply(PackWeight(groups, VECTORS * lanes), w.transpose())
            return (apply(PackedMatMul(node.types[0].shape[1]), x, packed),)

        return rewrite(graph, rule)


def is_packable(node: Node, graph: Graph) -> bool:
    """Whether a node is a product that a packed matrix may make faster."""
    if not isinstance(node.op, MatMul) or node.types[0].rank != 2:
        return False
    columns = node.types[0].shape[1]
    depth = graph.type_of(graph.inputs_of(node.name)[0]).shape[1]
    return node.types[0].dtype.is_float and min(columns, depth) >= _SMALL


def column_groups(graph: Graph, node: Node, lanes: int) -> int:
    """Into how many equal parts of its columns, no narrower than a vector, a product is cut by
    what reads it; 1 where it is cut in other ways.
    """
    shape = node.types[0].shape
    found = {op for op in (user.op for user in _users(graph, node)) if isinstance(op, Slice)}
    widths = {op.size[1] for op in found}
    if len(widths) != 1 or (width := widths.pop()) < lanes or shape[1] % width:
        return 1
    groups = shape[1] // width
    return groups if all(is_column_group(op, shape, groups) for op in found) else 1


def _are_combined(graph: Graph, node: Node) -> bool:
    """Whether point nodes alone read the parts of a product."""
    parts = (user.name for user in _users(graph, node) if isinstance(user.op, Slice))
    users = (graph.node(name) for part in parts for name in graph.users_of(part))
    return all(isinstance(user.op, Pointwise) for user in users)


def _users(graph: Graph, node: Node) -> list[Node]:
    """What reads a product itself, or what point nodes make of all of it."""
    shape = node.types[0].shape
    found: dict[str, Node] = {}
    stack = [node.name]
    while stack:
        for user in map(graph.node, graph.users_of(stack.pop())):
            if user.name not in found:
                found[user.name] = user
                if isinstance(user.op, Pointwise) and user.types[0].shape == shape:
                    stack.append(user.name)
    return list(found.values())
