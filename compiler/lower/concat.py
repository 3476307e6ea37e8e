"""Concatenation: one copy an input, into its slice of the result.

Inputs that are in memory are copied as rows, each of all axes from the concatenated one on. Inputs
that are computed element by element are computed where they go.
"""

from __future__ import annotations

import math

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr, LoopKind
from ..ops.movement import Concat
from ..types import Shape
from .binding import Binding, Lowered
from .space import pieces

_CHUNK = 4096


def lower_concat(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of a concatenation and of what is computed for it."""
    assert group.anchor is not None
    op = graph.node(group.anchor).op
    assert isinstance(op, Concat)
    result, inputs = Value(group.anchor), graph.inputs_of(group.anchor)
    shapes: dict[Value, Shape] = {}
    axis = op.axis
    if group.nodes == (group.anchor,):
        own = {v: graph.type_of(v).shape for v in (result, *inputs)}
        as_rows = {v: _rows(shape, 0, axis) for v, shape in own.items()}
        as_planes = {v: _rows(shape, max(axis - 1, 0), axis) for v, shape in own.items()}
        if group.allows(graph, as_rows):
            shapes, axis = as_rows, 1
        elif group.allows(graph, as_planes):
            shapes = as_planes
    binding = Binding(graph, group, target, shapes)
    body: ir.Block = ()
    start = 0
    for value in inputs:
        body += _copy(binding, value, result, axis, start)
        start += binding.shape(value)[axis]
    rows = "x".join(map(str, binding.shape(result)))
    return binding.finish(body, f"{len(inputs)} copies into {rows}")


def _rows(shape: Shape, first: int, axis: int) -> Shape:
    """A shape with the axes from `first` to the concatenated one as one, and all from that on."""
    return (*shape[:first], math.prod(shape[first:axis]), math.prod(shape[axis:]))


def _copy(binding: Binding, value: Value, result: Value, axis: int, start: int) -> ir.Block:
    """An input to the result, from `start` on."""
    *outer, columns = binding.shape(value)
    lanes = binding.lanes(*binding.dtypes)
    body: ir.Block = ()
    for piece in pieces(columns, _CHUNK if columns >= 2 * _CHUNK else max(columns, 1)):
        lead = tuple(binding.var("i") for _ in outer)
        part, lane = binding.var("c"), binding.var("v")
        index: tuple[Expr, ...] = (*lead, part * piece.length + piece.base + lane)
        elements = binding.elements()
        x = elements.at(value, index)
        target = index[:axis] + (index[axis] + start,) + index[axis + 1 :]
        store = ir.Store(binding.outputs[result], target, x)
        row = ir.For(lane, piece.length, (*elements.take_block(), store), LoopKind.VECTOR, lanes)
        loops = (*zip(lead, outer, strict=True), (part, piece.count))
        body += ir.loop_nest(loops, (row,), LoopKind.PARALLEL)
    return body
