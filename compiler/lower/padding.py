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
    """Makes a value (N, C, *spatial, …) readable in all places that are asked for.

    Where they are all inside, it is read in place, else from a copy with zeros around.

    Arguments:
        binding: the group.
        value: in memory.
        reads: the first place along each spatial axis, and the one behind the last.

    Returns:
        What makes the copy, and the elements at (n, c, *places, …).
    """
    shape, rank = binding.shape(value), len(reads)
    lead, spatial, rest = shape[:2], shape[2 : 2 + rank], shape[2 + rank :]
    low = tuple(max(0, -first) for first, _ in reads)
    size = tuple(
        before + max(n, behind) for n, before, (_, behind) in zip(spatial, low, reads, strict=True)
    )
    if size == spatial:
        return (), reader(binding, value)
    copy = binding.local(
        "padded", (*lead, *size, *rest), binding.graph.type_of(value).dtype, Space.SCRATCH
    )

    def read(index: Index) -> Expr:
        places = (i + before for i, before in zip(index[2 : 2 + rank], low, strict=True))
        return ir.Load(copy, (*index[:2], *places, *index[2 + rank :]))

    return _copy(binding, value, copy, low), read


def _copy(binding: Binding, value: Value, copy: Buffer, low: tuple[int, ...]) -> ir.Block:
    """Rows copied, zeros around them."""
    rank = len(low)
    spatial, size = binding.shape(value)[2 : 2 + rank], copy.shape[2 : 2 + rank]
    rows = [(binding.var(hint), n) for hint, n in zip("ncdh", copy.shape[: 1 + rank], strict=False)]
    conditions: list[Expr] = []
    source: list[Expr] = []
    for (row, n), extent, before in zip(rows[2:], spatial[:-1], low[:-1], strict=True):
        source.append(row - before)
        if n != extent:
            conditions += [source[-1] >= 0, source[-1] < extent]
    at = tuple(var for var, _ in rows)
    behind = low[-1] + spatial[-1]

    def line(sources: Sequence[Expr] | None) -> ir.Block:
        """A row of the copy; without sources it is zeros."""
        if sources is None:
            return _columns(binding, copy, at, 0, size[-1], None)
        return (
            *_columns(binding, copy, at, 0, low[-1], None),
            *_columns(
                binding, copy, at, low[-1], spatial[-1], lambda i: x((*at[:2], *sources, *i))
            ),
            *_columns(binding, copy, at, behind, size[-1] - behind, None),
        )

    x = reader(binding, value)
    whole = line(source)
    for condition in reversed(conditions):
        whole = (ir.If(condition, whole, line(None)),)
    planes = 2 if math.prod(copy.shape[:2]) >= _ENOUGH else len(rows)
    body = ir.loop_nest(tuple(rows[planes:]), whole)
    return ir.loop_nest(tuple(rows[:planes]), body, LoopKind.PARALLEL)


def _columns(
    binding: Binding,
    copy: Buffer,
    at: Index,
    start: int,
    length: int,
    x: Reader | None,
) -> ir.Block:
    """`length` columns of a row: x(column, …), or zeros."""
    zero = ir.Const(0.0 if copy.dtype.is_float else 0, copy.dtype)
    axes = copy.shape[len(at) :]
    loops = [(binding.var("w"), length)] + [(binding.var("b"), n) for n in axes[1:]]
    index = tuple(var for var, _ in loops)
    place = (*at, index[0] + start, *index[1:])
    store: ir.Block = (ir.Store(copy, place, zero if x is None else x(index)),)
    # The last axis is in lanes, but for blocks of a single channel.
    axis = 0 if len(loops) == 1 or loops[1][1] == 1 else 1
    for number, (var, extent) in reversed(list(enumerate(loops))):
        if number == axis:
            store = (ir.For(var, extent, store, LoopKind.VECTOR, binding.lanes(copy.dtype)),)
        else:
            store = ir.loop_nest(((var, extent),), store)
    return store if length else ()
