"""Where moves take the elements of their results from: transposes, slices, pads, blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TypeAlias

from ..errors import CompileError
from ..loops import ir
from ..loops.ir import BinaryOp, Expr
from ..ops import movement as mv
from ..ops.base import Op
from ..ops.blocked import Block, PackWeight, Unblock
from ..types import Shape
from .index import Index

Move: TypeAlias = mv.Transpose | mv.Slice | mv.Unslice | mv.Pad | Block | Unblock | PackWeight


@dataclass(frozen=True)
class Source:
    """Where an element comes from.

    Attributes:
        index: in what is moved, and inside of it whatever the conditions are.
        conditions: if one of them does not hold, the element is a fill instead.
    """

    index: Index
    conditions: tuple[Expr, ...] = ()


@singledispatch
def source(op: Op, index: Index, shape: Shape) -> Source:
    """Where the element at `index` of a move's result comes from.

    Arguments:
        op: the move.
        index: in its result.
        shape: of what is moved; none of its extents is 0.
    """
    raise CompileError(f"{op.name} moves nothing")


@source.register
def _(op: mv.Transpose, index: Index, shape: Shape) -> Source:
    places = dict(zip(op.permutation, index, strict=True))
    return Source(tuple(places[axis] for axis in range(len(shape))))


@source.register
def _(op: mv.Slice, index: Index, shape: Shape) -> Source:
    return Source(tuple(i * s + a for i, a, s in zip(index, op.start, op.step, strict=True)))


@source.register
def _(op: mv.Unslice, index: Index, shape: Shape) -> Source:
    axes = zip(index, op.start, op.step, shape, op.shape, strict=True)
    found = [_unsliced(*axis) for axis in axes]
    return Source(
        tuple(place for place, _ in found), tuple(c for _, conditions in found for c in conditions)
    )


def _unsliced(
    place: Expr, start: int, step: int, size: int, extent: int
) -> tuple[Expr, tuple[Expr, ...]]:
    """Along one axis: which of the `size` elements of a slice stands here, and if one does."""
    if (start, step, size) == (0, 1, extent):
        return place, ()
    low, width = (start, step) if step > 0 else (start + (size - 1) * step, -step)
    offset = place - low
    conditions: tuple[Expr, ...] = (offset >= 0, offset < size * width)
    slot = ir.clamp(offset, 0, size * width - 1)
    if width != 1:
        conditions += (ir.binary(BinaryOp.EQ, slot % width, 0),)
        slot = slot // width
    return slot if step > 0 else (size - 1) - slot, conditions


@source.register
def _(op: mv.Pad, index: Index, shape: Shape) -> Source:
    conditions: list[Expr] = []
    places: list[Expr] = []
    for place, (before, after), extent in zip(index, op.padding, shape, strict=True):
        if (before, after) == (0, 0):
            places.append(place)
            continue
        inner = place - before
        if op.mode is mv.PadMode.CONSTANT:
            conditions += [inner >= 0, inner < extent]
        places.append(_padded_place(inner, extent, op.mode))
    return Source(tuple(places), tuple(conditions))


def _padded_place(inner: Expr, extent: int, mode: mv.PadMode) -> Expr:
    """Which element stands at `inner`, which may lie outside of [0, extent)."""
    last = extent - 1
    if mode is mv.PadMode.REFLECT:
        inner = ir.Select(inner < 0, 0 - inner, inner)
        inner = ir.Select(inner <= last, inner, 2 * last - inner)
    elif mode is mv.PadMode.WRAP:
        inner = ir.Select(inner < 0, inner + extent, inner)
        inner = ir.Select(inner <= last, inner, inner - extent)
    return ir.clamp(inner, 0, last)


@source.register
def _(op: Block, index: Index, shape: Shape) -> Source:
    batch, block, *spatial, lane = index
    return Source((batch, block * op.size + lane, *spatial))


@source.register
def _(op: Unblock, index: Index, shape: Shape) -> Source:
    batch, channel, *spatial = index
    return Source((batch, channel // shape[-1], *spatial, channel % shape[-1]))


@source.register
def _(op: PackWeight, index: Index, shape: Shape) -> Source:
    group, panel, depth, *taps, lane = index
    outer, inner = shape[0] // op.groups, shape[1]
    channels = inner if op.transposed else outer
    total = op.groups * channels if op.joined else channels
    number = panel * op.panel + lane
    filled = total % op.panel != 0
    channel = ir.clamp(number, 0, total - 1) if filled else number
    if op.joined:
        group, channel = channel // channels, channel % channels
    row, column = (depth, channel) if op.transposed else (channel, depth)
    return Source((group * outer + row, column, *taps), (number < total,) if filled else ())
