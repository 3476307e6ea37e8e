"""Register tiles: the outer products that matrix products and convolutions are made of.

A tile is `rows` x `columns` accumulators in registers. In every step of the reduction each row's
scalar is multiplied by the columns' vectors: rows + columns loads for rows * columns
multiply-adds. How large a tile may be is the number of registers: rows * vectors accumulators, the
vectors, and one scalar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp
from ..types import DType

VECTORS = 2


@dataclass(frozen=True)
class Span:
    """`length` places from `start` on, `count` times."""

    start: int
    length: int
    count: int = 1


def most_rows(target: Target, vectors: int = VECTORS) -> int:
    """Rows of the largest tile of so many vectors: rows * vectors + vectors + 1 registers."""
    return max(1, (target.registers - vectors - 1) // vectors)


def balanced(extent: int, most: int) -> list[Span]:
    """An extent in equal blocks of at most `most`, and a smaller one at the end.

    49 rows in blocks of at most 14 are 13 + 13 + 13 + 10.
    """
    if extent == 0:
        return []
    length = -(-extent // -(-extent // most))
    count, rest = divmod(extent, length)
    spans = [Span(0, length, count)]
    return spans + ([Span(count * length, rest)] if rest else [])


def level(extent: int, most: int) -> list[Span]:
    """An extent in blocks of at most `most` whose lengths differ by 1 at most.

    32 rows in blocks of at most 6 are 6 + 6 + 5 + 5 + 5 + 5.
    """
    if extent == 0:
        return []
    count = -(-extent // most)
    height, more = divmod(extent, count)
    spans = [Span(0, height + 1, more)] if more else []
    return [*spans, Span(more * (height + 1), height, count - more)]


def panels(extent: int, width: int) -> list[Span]:
    """An extent in panels of `width` columns, and what remains."""
    count, rest = divmod(extent, width)
    spans = [Span(0, width, count)] if count else []
    return spans + ([Span(count * width, rest)] if rest else [])


def grouped(spans: Sequence[Span], most: int) -> list[tuple[Span, list[Span]]]:
    """Blocks in groups of at most `most`: where the groups are, and the blocks of each."""
    if not spans:
        return []
    whole, rest = spans[0], list(spans[1:])
    count = balanced(whole.count + len(rest), most)[0].length
    groups = []
    number = whole.count // count
    if number:
        groups.append(
            (Span(whole.start, count * whole.length, number), [Span(0, whole.length, count)])
        )
    last, length = whole.count - number * count, 0
    parts = []
    if last:
        parts.append(Span(0, whole.length, last))
        length = last * whole.length
    for span in rest:
        parts.append(Span(length, span.length, span.count))
        length += span.length * span.count
    if parts:
        groups.append((Span(whole.start + number * count * whole.length, length), parts))
    return groups


@dataclass(frozen=True)
class Columns:
    """The columns of a tile, as vectors.

    Arguments:
        width: number of columns.
        lanes: of a whole vector; the last one may be narrower.
        dtype: of the accumulators.
    """

    width: int
    lanes: int
    dtype: DType

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(first column, width) of each vector."""
        return [(i, min(self.lanes, self.width - i)) for i in range(0, self.width, self.lanes)]

    def each(self, lane: ir.Var, body: dict[int, ir.Block]) -> ir.Block:
        """Vector loops over the columns, with the body of each vector by its first column."""
        return tuple(
            ir.For(lane, width, body[first], LoopKind.VECTOR, self.lanes)
            for first, width in self.parts
        )


def clear(accumulator: Buffer, rows: int, columns: Columns, row: ir.Var, lane: ir.Var) -> ir.Block:
    """The accumulators, holding zeros."""
    zero = ir.Const(0.0 if accumulator.dtype.is_float else 0, accumulator.dtype)
    body = columns.each(
        lane, {c: (ir.Store(accumulator, (row, lane + c), zero),) for c, _ in columns.parts}
    )
    return (ir.Alloc(accumulator), ir.For(row, rows, body, LoopKind.UNROLLED))


def outer_product(
    accumulator: Buffer,
    rows: Sequence[tuple[ir.Var, int]],
    columns: Columns,
    lane: ir.Var,
    scalar: Expr,
    vector: dict[int, Expr],
) -> ir.Block:
    """One step of the reduction: accumulator[row, column] += scalar(row) * vector(column).

    Arguments:
        accumulator: registers, (rows, columns).
        rows: loops over the rows, outermost first; their variables occur in `scalar`.
        columns: of the tile.
        lane: variable that occurs in `vector`.
        scalar: what is broadcast.
        vector: for each first column, what varies over the lanes.
    """
    number: Expr = ir.index(0)
    for var, extent in rows:
        number = number * extent + var
    body = columns.each(
        lane,
        {
            c: (
                ir.Accumulate(
                    accumulator,
                    (number, lane + c),
                    ReduceOp.ADD,
                    ir.binary(ir.BinaryOp.MUL, scalar, vector[c]),
                ),
            )
            for c, _ in columns.parts
        },
    )
    return ir.loop_nest(tuple(rows), body, LoopKind.UNROLLED)
