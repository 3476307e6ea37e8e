"""Groups in the making, and which nodes their loops can compute."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph import Graph, Node, Phase, Value
from ..joining import can_convolve, can_pool, concat_part, is_column_group
from ..ops import movement as mv
from ..ops.base import Op
from ..ops.blocked import BlockedConv, BlockedConvWeightGradient
from ..ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from ..ops.linear import MatMul, PackedMatMul
from ..ops.pool import MaxPool, SumPool
from ..ops.strassen import StrassenConv
from ..ops.winograd import WinogradConv
from ..ops.winograd_gradient import WinogradConvWeightGradient
from ..types import Shape

_MAX_MEMBERS = 48
# Anchors whose kernels compute point nodes of their result's shape, too.
_WITH_EPILOGUE = (
    MatMul,
    PackedMatMul,
    Conv,
    ConvInputGradient,
    ConvWeightGradient,
    BlockedConv,
    BlockedConvWeightGradient,
    WinogradConv,
    StrassenConv,
    WinogradConvWeightGradient,
    SumPool,
)


@dataclass
class Draft:
    """A group in the making.

    Attributes:
        number: its place among all.
        space: what its loops go over.
        phase: of its nodes.
        anchor: the node with a loop nest of its own, if there is one.
        pool: the windows behind the anchor.
        axes: those that are reduced; None if nothing is.
        members: its nodes, in the order in which they joined.
        sources: numbers of the groups whose results it reads.
    """

    number: int
    space: Shape
    phase: Phase
    anchor: str | None = None
    pool: str | None = None
    axes: tuple[int, ...] | None = None
    members: dict[str, None] = field(default_factory=dict)
    sources: set[int] = field(default_factory=set)


def may_follow(draft: Draft, node: Node) -> bool:
    """Whether a node may be in a group at all.

    Groups keep to one phase, but updates may follow the gradient they use.
    """
    if len(draft.members) >= _MAX_MEMBERS:
        return False
    update = node.phase is Phase.UPDATE and draft.phase is Phase.BACKWARD
    return update or node.phase is draft.phase


def fits(graph: Graph, draft: Draft, node: Node) -> bool:
    """Whether a point node's shape lines up with a group's iterations."""
    shape = node.types[0].shape
    if not may_follow(draft, node):
        return False
    if draft.anchor:
        anchor = graph.node(draft.anchor)
        is_result = shape in (draft.space, column_part(graph, draft))
        return is_result and isinstance(anchor.op, _WITH_EPILOGUE)
    if draft.axes is None:
        return shape == draft.space
    if len(shape) > len(draft.space):
        return False
    padded = (1,) * (len(draft.space) - len(shape)) + shape
    return all(n in (1, s) for n, s in zip(padded, draft.space, strict=True))


def column_part(graph: Graph, draft: Draft) -> Shape | None:
    """The shape of a group of columns, where the anchor computes several side by side."""
    node = graph.node(draft.anchor) if draft.anchor else None
    if node is None or not isinstance(node.op, PackedMatMul):
        return None
    groups = graph.type_of(graph.inputs_of(node.name)[1]).shape[0]
    rows, columns = draft.space
    return (rows, columns // groups) if groups > 1 else None


def is_cut(graph: Graph, draft: Draft, node: Node) -> bool:
    """Whether a node is a group of columns of what an anchor's group computes."""
    part = column_part(graph, draft)
    if part is None or not isinstance(node.op, mv.Slice):
        return False
    is_inside = uncut(graph, Value(node.name)).node in draft.members
    return is_inside and is_column_group(node.op, draft.space, draft.space[-1] // part[-1])


def uncut(graph: Graph, value: Value) -> Value:
    """What a value is a slice of, if it is one."""
    node = graph.producer(value)
    return graph.inputs_of(node.name)[0] if isinstance(node.op, mv.Slice) else value


def walked(graph: Graph, draft: Draft) -> Shape | None:
    """What the loops of a group go over where further point nodes can be computed in them."""
    if draft.anchor is None:
        return draft.space
    if not isinstance(graph.node(draft.anchor).op, mv.Concat) or len(draft.members) == 1:
        return None
    return concat_part(graph, draft.anchor)


def can_follow(graph: Graph, anchor: Op, node: Node) -> bool:
    """Whether an anchor's kernel can go on with the windows of a node."""
    types = [graph.type_of(value) for value in graph.inputs_of(node.name)]
    if isinstance(node.op, MaxPool):
        return can_pool(anchor, node.op.window, types[0].shape[2:])
    return isinstance(node.op, BlockedConv) and can_convolve(anchor, node.op, *types)
