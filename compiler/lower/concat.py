"""Concatenation: one copy an input, into its slice of the result.

Inputs that are in memory are copied as rows, each of all axes from the concatenated one on. Inputs
that are computed element by element are computed where they go; those of one shape side by side, as
they may have much in common (the gradients of a cell's gates), and with them what else the group
gives of that shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Value
from ..group import Group
from ..joining import concat_part
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind
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
    targets: list[_Target] = []
    for value in inputs:
        targets.append(_Target(value, binding.outputs[result], axis, start))
        start += binding.shape(value)[axis]
    targets += [_Target(v, binding.outputs[v], axis, 0) for v in group.outputs if v != result]
    if len(group.nodes) > 1 and concat_part(graph, result.node) is not None:
        body = _copy(binding, targets)
    else:
        for target_of_one in targets:
            body += _copy(binding, [target_of_one])
    rows = "x".join(map(str, binding.shape(result)))
    return binding.finish(body, f"{len(inputs)} copies into {rows}")


def _rows(shape: Shape, first: int, axis: int) -> Shape:
    """A shape with the axes from `first` to the concatenated one as one, and all from that on."""
    return (*shape[:first], math.prod(shape[first:axis]), math.prod(shape[axis:]))


@dataclass(frozen=True)
class _Target:
    """Where a value goes: into a buffer, from `start` on along an axis."""

    value: Value
    buffer: Buffer
    axis: int
    start: int


def _copy(binding: Binding, targets: Sequence[_Target]) -> ir.Block:
    """Values of one shape to where they go."""
    *outer, columns = binding.shape(targets[0].value)
    lanes = binding.lanes(*binding.dtypes)
    body: ir.Block = ()
    for piece in pieces(columns, _CHUNK if columns >= 2 * _CHUNK else max(columns, 1)):
        lead = tuple(binding.var("i") for _ in outer)
        part, lane = binding.var("c"), binding.var("v")
        index: tuple[Expr, ...] = (*lead, part * piece.length + piece.base + lane)
        elements = binding.elements()
        stores: ir.Block = ()
        for t in targets:
            x = elements.at(t.value, index)
            place = index[: t.axis] + (index[t.axis] + t.start,) + index[t.axis + 1 :]
            stores += (*elements.take_block(), ir.Store(t.buffer, place, x))
        row = ir.For(lane, piece.length, stores, LoopKind.VECTOR, lanes)
        loops = (*zip(lead, outer, strict=True), (part, piece.count))
        body += ir.loop_nest(loops, (row,), LoopKind.PARALLEL)
    return body
