"""Values that can be read outside of their extents, where they are zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..graph import Value
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .binding import Binding
from .index import Index

_ENOUGH = 16

Reader = Callable[[Index], Expr]


def reader(binding: Binding, value: Value) -> Reader:
    """Elements of a value in memory."""

    def read(index: Index) -> Expr:
        number = binding.elements().scalar(value)
        return ir.Load(binding.inputs[value], index) if number is None else number

    return read


def padded(
    binding: Binding, value: Value, reads: Sequence[tuple[int, int]]
) -> tuple[ir.Block, Reader]:
    """Makes a value (N, C, *spatial) readable in all places that are asked for.

    Where they are all inside, it is read in place, else from a copy with zeros around. There rows
    of all channels are neighbours: a sum over channels walks through pages from end to end.

    Arguments:
        binding: the group.
        value: in memory.
        reads: the first place along each spatial axis, and the one behind the last.

    Returns:
        What makes the copy, and the elements at (n, c, *places).
    """
    shape = binding.shape(value)
    spatial = shape[2:]
    low = tuple(max(0, -first) for first, _ in reads)
    size = tuple(
        before + max(n, behind) for n, before, (_, behind) in zip(spatial, low, reads, strict=True)
    )
    if size == spatial:
        return (), reader(binding, value)
    shape = (shape[0], *size[:-1], shape[1], size[-1])
    copy = binding.local("padded", shape, binding.graph.type_of(value).dtype, Space.SCRATCH)

    def read(index: Index) -> Expr:
        places = [i + before for i, before in zip(index[2:], low, strict=True)]
        return ir.Load(copy, (index[0], *places[:-1], index[1], places[-1]))

    return _copy(binding, value, copy, low), read


def _copy(binding: Binding, value: Value, copy: Buffer, low: tuple[int, ...]) -> ir.Block:
    """Rows copied, zeros around them."""
    lead, spatial = binding.shape(value)[:2], binding.shape(value)[2:]
    size = (*copy.shape[1:-2], copy.shape[-1])
    extents = (*lead, *size[:-1])
    rows = [(binding.var(hint), n) for hint, n in zip("ncdh", extents, strict=False)]
    conditions: list[Expr] = []
    source: list[Expr] = []
    for (row, n), extent, before in zip(rows[2:], spatial[:-1], low[:-1], strict=True):
        source.append(row - before)
        if n != extent:
            conditions += [source[-1] >= 0, source[-1] < extent]
    at = tuple(var for var, _ in rows)
    to = (at[0], *at[2:], at[1])
    behind = low[-1] + spatial[-1]

    def line(sources: Sequence[Expr] | None) -> ir.Block:
        """A row of the copy; without sources it is zeros."""
        if sources is None:
            return _columns(binding, copy, to, 0, size[-1], None)
        return (
            *_columns(binding, copy, to, 0, low[-1], None),
            *_columns(binding, copy, to, low[-1], spatial[-1], lambda i: x((*at[:2], *sources, i))),
            *_columns(binding, copy, to, behind, size[-1] - behind, None),
        )

    x = reader(binding, value)
    whole = line(source)
    for condition in reversed(conditions):
        whole = (ir.If(condition, whole, line(None)),)
    planes = 2 if math.prod(lead) >= _ENOUGH else len(rows)
    body = ir.loop_nest(tuple(rows[planes:]), whole)
    return ir.loop_nest(tuple(rows[:planes]), body, LoopKind.PARALLEL)


def _columns(
    binding: Binding,
    copy: Buffer,
    at: Index,
    start: int,
    length: int,
    x: Callable[[Expr], Expr] | None,
) -> ir.Block:
    """`length` columns of a row: x(column), or zeros."""
    column = binding.var("w")
    value = ir.Const(0.0 if copy.dtype.is_float else 0, copy.dtype) if x is None else x(column)
    store = ir.Store(copy, (*at, column + start), value)
    lanes = binding.lanes(copy.dtype)
    return (ir.For(column, length, (store,), LoopKind.VECTOR, lanes),) if length else ()
