"""Values that can be read outside of their extents, where they are zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..graph import Value
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .binding import Binding
from .elements import Index

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

    Where they are all inside, it is read in place, else from a copy with zeros around.

    Arguments:
        binding: the group.
        value: in memory.
        reads: the first place along each spatial axis, and the one behind the last.

    Returns:
        What makes the copy, and the elements at (n, c, *places).
    """
    lead, spatial = binding.shape(value)[:2], binding.shape(value)[2:]
    low = tuple(max(0, -first) for first, _ in reads)
    size = tuple(
        before + max(n, behind) for n, before, (_, behind) in zip(spatial, low, reads, strict=True)
    )
    if size == spatial:
        return (), reader(binding, value)
    copy = binding.local(
        "padded", (*lead, *size), binding.graph.type_of(value).dtype, Space.SCRATCH
    )

    def read(index: Index) -> Expr:
        places = (i + before for i, before in zip(index[2:], low, strict=True))
        return ir.Load(copy, (*index[:2], *places))

    return _copy(binding, value, copy, low), read


def _copy(binding: Binding, value: Value, copy: Buffer, low: tuple[int, ...]) -> ir.Block:
    """Rows copied, zeros around them."""
    spatial = binding.shape(value)[2:]
    size = copy.shape[2:]
    rows = [(binding.var(hint), n) for hint, n in zip("ncdh", copy.shape[:-1], strict=False)]
    conditions: list[Expr] = []
    source: list[Expr] = []
    for (row, n), extent, before in zip(rows[2:], spatial[:-1], low[:-1], strict=True):
        source.append(row - before)
        if n != extent:
            conditions += [source[-1] >= 0, source[-1] < extent]
    lanes = binding.lanes(copy.dtype)
    column = binding.var("w")
    at = tuple(var for var, _ in rows)
    zero = ir.Const(0.0 if copy.dtype.is_float else 0, copy.dtype)

    def columns(start: int, length: int, x: Expr) -> ir.Block:
        store = ir.Store(copy, (*at, column + start), x)
        return (ir.For(column, length, (store,), LoopKind.VECTOR, lanes),) if length else ()

    behind = low[-1] + spatial[-1]
    x = reader(binding, value)((*at[:2], *source, column))
    whole = columns(0, low[-1], zero) + columns(low[-1], spatial[-1], x)
    whole += columns(behind, size[-1] - behind, zero)
    for condition in reversed(conditions):
        whole = (ir.If(condition, whole, columns(0, size[-1], zero)),)
    planes = 2 if math.prod(copy.shape[:2]) >= _ENOUGH else len(rows)
    body = ir.loop_nest(tuple(rows[planes:]), whole)
    return ir.loop_nest(tuple(rows[:planes]), body, LoopKind.PARALLEL)
