"""Iteration spaces: the axes that loops run over, merged and cut into chunks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import Graph, Value
from ..group import Group
from ..ops.pointwise import Iota
from ..roles import Role, role
from ..types import Shape


@dataclass(frozen=True)
class Axis:
    """An axis of the iteration space, perhaps several of the user's axes merged into one."""

    extent: int
    reduced: bool
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Part of an axis: `count` chunks of `length` elements from `base` on."""

    count: int
    length: int
    base: int


def pieces(extent: int, chunk: int) -> list[Piece]:
    """An axis in chunks of equal length and what remains."""
    count, rest = divmod(extent, chunk)
    whole = [Piece(count, chunk, 0)] if count else []
    return whole + ([Piece(1, rest, count * chunk)] if rest else [])


def aligned_values(graph: Graph, group: Group) -> list[Value]:
    """All values that a group's loops index."""
    own = [v for n in group.nodes for v in graph.outputs_of(n)]
    return list(dict.fromkeys((*group.inputs, *own)))


def is_rigid(graph: Graph, group: Group) -> bool:
    """Whether some member needs to know its place along the user's own axes."""
    nodes = [graph.node(n) for n in group.nodes]
    return any(isinstance(n.op, Iota) or role(n.op) is Role.MOVE for n in nodes)


def merge_axes(graph: Graph, group: Group) -> list[Axis]:
    """Neighbouring axes as one wherever no value tells them apart."""
    space = group.space
    axes = [Axis(n, d in group.axes, (d,)) for d, n in enumerate(space)]
    if is_rigid(graph, group):
        return axes
    shapes = [_padded(graph.type_of(v).shape, len(space)) for v in aligned_values(graph, group)]
    parts = [
        (_padded(graph.type_of(v).shape, len(space)), _padded(strides, len(space)))
        for v, strides in group.strides
    ]
    merged: list[Axis] = []
    for axis in axes:
        if (
            merged
            and _mergeable(merged[-1], axis, space, shapes)
            and not any(_is_gap(merged[-1], axis, *part) for part in parts)
        ):
            last = merged.pop()
            reduced = axis.reduced if last.extent == 1 else last.reduced
            axis = Axis(last.extent * axis.extent, reduced, last.sources + axis.sources)
        merged.append(axis)
    return merged


def _mergeable(first: Axis, second: Axis, space: Shape, shapes: list[Shape]) -> bool:
    if 1 in (first.extent, second.extent):
        return True
    if first.reduced != second.reduced or 0 in (first.extent, second.extent):
        return False
    both = [d for d in (*first.sources, *second.sources) if space[d] > 1]
    return all(len({shape[d] > 1 for d in both}) == 1 for shape in shapes)


def _is_gap(first: Axis, second: Axis, shape: Shape, strides: Shape) -> bool:
    """Whether rows along the second axis do not follow on each other."""
    outer, inner = ([d for d in axis.sources if shape[d] > 1] for axis in (first, second))
    return bool(outer and inner) and (strides[outer[-1]] != shape[inner[0]] * strides[inner[0]])


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def merged_shape(graph: Graph, value: Value, axes: list[Axis], rank: int) -> Shape:
    """A value's shape over merged axes."""
    shape = _padded(graph.type_of(value).shape, rank)
    return tuple(math.prod(shape[d] for d in axis.sources) for axis in axes)
