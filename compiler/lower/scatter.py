"""Elements that go where the data say: zeros first, then every element in order.

Only what cannot meet is parallel: the axes before the one that is indexed, and chunks of the
columns where whole slices are moved. So the result is the same for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Const, LoopKind, ReduceOp
from ..ops.indexing import ScatterAdd, ScatterAddAlongAxis
from ..ops.pool import MaxUnpool
from ..types import Shape, row_major_strides
from .binding import Binding, Lowered
from .index import data_index
from .space import pieces

_CLEAR_CHUNK = 16384
_COLUMN_CHUNK = 64


@dataclass(frozen=True)
class Layout:
    """How elements go into the flat result: element (i, j, k) to
    i · lead_strides + indices[...] · stride + k.

    Arguments:
        lead: extents of what is parallel.
        lead_strides: their distances in the result.
        count: how many elements or slices are moved in order.
        tail: extents of what is moved at once.
        tail_strides: their distances in the result.
        extent: of the axis that is indexed.
        stride: its distance in the result.
        shared: whether there is one index for whole slices, not one for each element.
    """

    lead: Shape
    lead_strides: Shape
    count: int
    tail: Shape
    tail_strides: Shape
    extent: int
    stride: int
    shared: bool = False

    @property
    def source(self) -> Shape:
        """The elements' shape."""
        return (*self.lead, self.count, *self.tail)


def lower_scatter(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of ScatterAdd, ScatterAddAlongAxis or MaxUnpool."""
    assert group.anchor is not None
    op = graph.node(group.anchor).op
    first, second = graph.inputs_of(group.anchor)
    result = Value(group.anchor)
    if isinstance(op, ScatterAdd):
        indices, source = first, second
        layout = _slices(op, graph.type_of(indices).size)
    elif isinstance(op, ScatterAddAlongAxis):
        indices, source = first, second
        layout = _along_axis(op, graph.type_of(indices).shape)
    else:
        assert isinstance(op, MaxUnpool)
        source, indices = first, second
        layout = _planes(op, graph.type_of(source).shape)
    shapes = {
        result: (graph.type_of(result).size,),
        source: layout.source,
        indices: (layout.count,) if layout.shared else layout.source,
    }
    binding = Binding(graph, group, target, shapes)
    adds = not isinstance(op, MaxUnpool)
    body = _zeros(binding, result) + _moves(binding, layout, result, source, indices, adds)
    return binding.finish(body, f"{layout.count} in order")


def _slices(op: ScatterAdd, count: int) -> Layout:
    """Slices behind the axis are moved as a whole."""
    lead, extent = math.prod(op.shape[: op.axis]), op.shape[op.axis]
    columns = math.prod(op.shape[op.axis + 1 :])
    return Layout(
        (lead,), (extent * columns,), count, (columns,), (1,), extent, columns, shared=True
    )


def _along_axis(op: ScatterAddAlongAxis, shape: Shape) -> Layout:
    strides, d = row_major_strides(op.shape), op.axis
    return Layout(
        shape[:d],
        strides[:d],
        shape[d],
        shape[d + 1 :],
        strides[d + 1 :],
        op.shape[d],
        strides[d],
    )


def _planes(op: MaxUnpool, shape: Shape) -> Layout:
    """Single elements into planes."""
    extent = math.prod(op.spatial)
    planes = math.prod(shape[:2])
    return Layout((planes,), (extent,), math.prod(shape[2:]), (), (), extent, 1)


def _zeros(binding: Binding, result: Value) -> ir.Block:
    buffer = binding.outputs[result]
    zero = Const(0.0 if buffer.dtype.is_float else 0, buffer.dtype)
    body: ir.Block = ()
    for piece in pieces(buffer.size, _CLEAR_CHUNK):
        chunk, lane = binding.var("c"), binding.var("v")
        store = ir.Store(buffer, (chunk * piece.length + piece.base + lane,), zero)
        row = ir.For(lane, piece.length, (store,), LoopKind.VECTOR, binding.lanes(buffer.dtype))
        body += (ir.For(chunk, piece.count, (row,), LoopKind.PARALLEL),)
    return body


def _moves(
    binding: Binding,
    layout: Layout,
    result: Value,
    source: Value,
    indices: Value,
    adds: bool,
) -> ir.Block:
    """Every element to its place; the innermost axis behind the indexed one is in lanes."""
    body: ir.Block = ()
    *between, columns = layout.tail or (1,)
    chunk = _COLUMN_CHUNK if layout.shared and math.prod(layout.lead) == 1 else max(columns, 1)
    for piece in pieces(columns, chunk):
        lead = tuple(binding.var("i") for _ in layout.lead)
        number, part, lane = (binding.var(hint) for hint in ("j", "c", "v"))
        inner = tuple(binding.var("k") for _ in between)
        tail = (*inner, part * piece.length + piece.base + lane) if layout.tail else ()
        elements = binding.elements()
        at = (number,) if layout.shared else (*lead, number, *tail)
        chosen = data_index(elements.at(indices, at), layout.extent)
        place = _dot(lead, layout.lead_strides) + chosen * layout.stride
        place = place + _dot(tail, layout.tail_strides)
        x = elements.at(source, (*lead, number, *tail))
        buffer = binding.outputs[result]
        move: ir.Stmt = ir.Store(buffer, (place,), x)
        if adds:
            move = ir.Accumulate(buffer, (place,), ReduceOp.ADD, x)
        lanes = binding.lanes(buffer.dtype)
        row: ir.Stmt = ir.For(
            lane, piece.length, (*elements.take_block(), move), LoopKind.VECTOR, lanes
        )
        nest = ((number, layout.count), *zip(inner, between, strict=True))
        parallel = (*zip(lead, layout.lead, strict=True), (part, piece.count))
        body += ir.loop_nest(parallel, ir.loop_nest(nest, (row,)), LoopKind.PARALLEL)
    return body


def _dot(index: Sequence[ir.Expr], strides: Sequence[int]) -> ir.Expr:
    total: ir.Expr = ir.index(0)
    for place, stride in zip(index, strides, strict=True):
        total = total + place * stride
    return total
