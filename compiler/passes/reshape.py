"""Reshapes that only add or drop axes of extent 1 move behind point nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..graph import Graph, Node
from ..ops import movement as mv
from ..ops import pointwise as pw
from ..ops.leaf import Leaf
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from ..types import Shape
from .base import Pass

_POINTWISE = (pw.Pointwise, pw.Cast)
_DEPTH = 4


@dataclass(frozen=True)
class SinkReshapes(Pass):
    """Computes point nodes in the shape in which their operand was computed.

    A sum over (N, H, W) is of the shape (1, C, 1, 1), the bias that it is the gradient of is (C,).
    The update of the bias is the same numbers in either shape; in the first one it lines up with
    the sum and can be computed with it. So `f(reshape(a), b)` becomes `reshape(f(a, reshape(b)))`
    where `b` is a leaf, whose reshape costs nothing, or a number, or such a reshape itself, or
    point nodes of these.
    """

    @property
    def name(self) -> str:
        return "sink-reshapes"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, self._rule)

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if not isinstance(node.op, _POINTWISE):
            return None
        shape = node.types[0].shape
        inputs = rewriter.inputs(node)
        sources = [s for x in inputs if (s := _source(x)) is not None and _is_computed(s)]
        wanted = next((s.shape for s in sources if _bare(s.shape) == _bare(shape)), shape)
        if wanted == shape:
            return None
        moved = [_moved(x, shape, wanted) for x in inputs]
        operands = [x for x in moved if x is not None]
        if len(operands) < len(moved):
            return None
        types = node.op.infer(*(x.type for x in operands))
        # The name may have gone to a point node that was moved for this one.
        moved_node = replace(node, name=rewriter.new.unique_name(node.name), types=types)
        (result,) = rewriter.new.add_node(moved_node, tuple(x.value for x in operands))
        return [rewriter.new.tensor(result).reshape(shape)]


def _bare(shape: Shape) -> Shape:
    """Extents other than 1."""
    return tuple(n for n in shape if n != 1)


def _source(x: Tensor) -> Tensor | None:
    """What `x` is, if it is that with axes of extent 1 more or less."""
    node = x.graph.producer(x.value)
    if not isinstance(node.op, mv.Reshape):
        return None
    source = x.graph.tensor(x.graph.inputs_of(node.name)[0])
    return source if _bare(source.shape) == _bare(x.shape) else None


def _is_computed(x: Tensor) -> bool:
    return not isinstance(x.graph.producer(x.value).op, Leaf)


def _moved(x: Tensor, shape: Shape, wanted: Shape, depth: int = _DEPTH) -> Tensor | None:
    """An operand of a result of `shape` as that of one of the shape `wanted`; None at a cost."""
    graph, node = x.graph, x.graph.producer(x.value)
    source = _source(x)
    if source is None and x.type.size == 1 and x.rank <= len(wanted):
        return x  # a number fits any shape
    if _bare(x.shape) != _bare(shape):
        return None
    if source is not None or not _is_computed(x):
        return x.reshape(wanted)
    if not isinstance(node.op, _POINTWISE) or depth == 0:
        return None
    inputs = (graph.tensor(v) for v in graph.inputs_of(node.name))
    moved = [_moved(y, x.shape, wanted, depth - 1) for y in inputs]
    operands = [y for y in moved if y is not None]
    if len(operands) < len(moved):
        return None
    with graph.scope(prefix="", origins=node.origins, phase=node.phase):
        return graph.apply(node.op, *operands, name=node.name)[0]
