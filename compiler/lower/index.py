"""Indices of elements, and how one follows from another."""

from __future__ import annotations

from typing import TypeAlias

from ..loops import ir
from ..loops.ir import Expr
from ..types import Shape

Index: TypeAlias = tuple[Expr, ...]


def broadcast_index(index: Index, shape: Shape) -> Index:
    """Where an operand of `shape` is read, for a result element at `index`."""
    tail = index[len(index) - len(shape) :] if shape else ()
    return tuple(ir.index(0) if n == 1 else i for i, n in zip(tail, shape, strict=True))


def data_index(chosen: Expr, extent: int) -> Expr:
    """An index that comes from data: counted from the end when negative, kept inside."""
    wide = chosen if chosen.dtype is ir.INDEX else ir.Cast(chosen, ir.INDEX)
    return ir.clamp(ir.Select(wide < 0, wide + extent, wide), 0, extent - 1)


def linear_index(index: Index, shape: Shape) -> Expr:
    """Row-major number of an element."""
    result: Expr = ir.index(0)
    for place, extent in zip(index, shape, strict=True):
        result = result * extent + place
    return result


def reshaped_index(index: Index, shape: Shape, source: Shape) -> Index:
    """The index in `source` of the element at `index` in `shape`, both of one size."""
    rest = linear_index(index, shape)
    result: list[Expr] = []
    for extent in reversed(source):
        result.append(rest % extent)
        rest = rest // extent
    return tuple(reversed(result))
