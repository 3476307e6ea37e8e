"""Matrix products, of any strides and with batches.

Usually: the right operand is packed into panels of two vectors' width, then every register tile of
the result walks the whole inner dimension (Goto and van de Geijn, 2008, without cache blocking).
With few rows packing does not pay: columns that are contiguous are read in place; rows that are
contiguous are multiplied as dot products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops.movement import Transpose
from ..passes.partition import Group
from ..types import DType, Shape
from .binding import Binding, Lowered
from .elements import Elements, Index, broadcast_index
from .epilogue import store_results
from .tile import VECTORS, Columns, Span, balanced, clear, most_rows, outer_product, panels

_DOT_ROWS = 4
_UNPACKED_ROWS = 16
_BLOCKS_A_TASK = 8


def lower_matmul(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of a matrix product and its epilogue."""
    assert group.anchor is not None
    product = Product(Binding(graph, group, target), Value(group.anchor))
    return product.lower()


@dataclass
class Product:
    """One product result[..., i, j] = sum over k of left[..., i, k] * right[..., k, j]."""

    binding: Binding
    result: Value

    @cached_property
    def shape(self) -> Shape:
        return self.binding.graph.type_of(self.result).shape

    @cached_property
    def operands(self) -> tuple[Value, Value]:
        left, right = self.binding.graph.inputs_of(self.result.node)
        return left, right

    @cached_property
    def inner(self) -> int:
        """Extent of the summed dimension."""
        return self.binding.graph.type_of(self.operands[0]).shape[-1]

    @cached_property
    def lanes(self) -> int:
        return self.binding.lanes(self.dtype)

    @property
    def dtype(self) -> DType:
        return self.binding.graph.type_of(self.result).dtype

    @cached_property
    def batch(self) -> list[tuple[ir.Var, int]]:
        """Parallel loops over the batch axes."""
        return [(self.binding.var("b"), n) for n in self.shape[:-2]]

    def lower(self) -> Lowered:
        rows, columns = self.shape[-2:]
        by_rows = self._is_transposed(self.operands[1])
        if by_rows and (rows <= _DOT_ROWS or columns == 1):
            return self.binding.finish(self._dots(), "dot products")
        if not by_rows and rows <= _UNPACKED_ROWS:
            return self.binding.finish(self._tiles(None), self._note("in place"))
        pack, packed = self._pack()
        return self.binding.finish(pack + self._tiles(packed), self._note("packed"))

    def _note(self, way: str) -> str:
        m, n = self.shape[-2:]
        return f"product {m}x{self.inner}x{n}, {way}"

    def _is_transposed(self, value: Value) -> bool:
        """Whether the last axis but one is the contiguous one."""
        node = self.binding.graph.producer(value)
        floating = value not in self.binding.inputs
        rank = node.types[0].rank
        return (
            floating
            and isinstance(node.op, Transpose)
            and node.op.permutation[rank - 2] == rank - 1
        )

    def _operand(self, elements: Elements, value: Value, row: Expr, column: Expr) -> Expr:
        index = (*(var for var, _ in self.batch), row, column)
        return elements.at(value, broadcast_index(index, elements.shape(value)))

    # -- register tiles ---------------------------------------------------------------------------

    def _pack(self) -> tuple[ir.Block, Buffer]:
        """The right operand as [batch][panel][k][column], and how it gets there."""
        columns, width = self.shape[-1], VECTORS * self.lanes
        batch = self.binding.graph.type_of(self.operands[1]).shape[:-2]
        lead = tuple(1 if n == 1 else m for n, m in zip(batch, self.shape[:-2], strict=True))
        shape = (*lead, -(-columns // width), self.inner, width)
        packed = self.binding.local("packed", shape, self.dtype, Space.SCRATCH)
        loops = [(var, n) for (var, _), n in zip(self.batch, lead, strict=True)]
        body: ir.Block = ()
        for span in panels(columns, width):
            panel, k, lane = (self.binding.var(h) for h in ("panel", "k", "v"))
            elements = self.binding.elements()
            number = panel + span.start // width
            x = self._operand(elements, self.operands[1], k, number * width + lane)
            index = (*self._batch_index(lead), number, k, lane)
            store = (*elements.take_block(), ir.Store(packed, index, x))
            copy = ir.For(lane, span.length, store, LoopKind.VECTOR, self.lanes)
            nest = (*loops, (panel, span.count), (k, self.inner))
            body += ir.loop_nest(nest, (copy,), LoopKind.PARALLEL)
        return body, packed

    def _batch_index(self, shape: Shape) -> Index:
        return broadcast_index(tuple(var for var, _ in self.batch), shape)

    def _tiles(self, packed: Buffer | None) -> ir.Block:
        rows, columns = self.shape[-2:]
        width = VECTORS * self.lanes
        blocks = balanced(rows, most_rows(self.binding.target))
        body: ir.Block = ()
        for block in blocks:
            for part in _tasks(block):
                for panel in panels(columns, width):
                    body += self._task(block, part, panel, packed)
        return body

    def _task(self, block: Span, part: Span, panel: Span, packed: Buffer | None) -> ir.Block:
        """Some row blocks of one column panel: what one thread does at a time."""
        task, number, column = (self.binding.var(h) for h in ("task", "block", "panel"))
        first = (task * part.length + number + part.start) * block.length + block.start
        columns = Columns(panel.length, self.lanes, self.dtype)
        start = (column + panel.start // (VECTORS * self.lanes)) * (VECTORS * self.lanes)
        body = self._tile(first, block.length, start, columns, packed)
        loop = ir.For(number, part.length, body)
        nest = (*self.batch, (task, part.count), (column, panel.count))
        return ir.loop_nest(nest, (loop,), LoopKind.PARALLEL)

    def _tile(
        self, first: Expr, rows: int, start: Expr, columns: Columns, packed: Buffer | None
    ) -> ir.Block:
        row, lane, k = (self.binding.var(h) for h in ("m", "v", "k"))
        tile = self.binding.local("tile", (rows, columns.width), self.dtype, Space.REGISTER)
        elements = self.binding.elements()
        left = self._operand(elements, self.operands[0], first + row, k)
        scalars = elements.take_block()
        vectors: dict[int, Expr] = {}
        for c, _ in columns.parts:
            vectors[c] = self._right(elements, start, lane + c, k, packed)
        left = _inlined(scalars, left)
        lets = elements.take_block()
        vectors = {c: _inlined(lets, x) for c, x in vectors.items()}
        step = outer_product(tile, [(row, rows)], columns, lane, left, vectors)
        body = clear(tile, rows, columns, row, lane) + (ir.For(k, self.inner, step),)
        return body + self._write(tile, rows, columns, first, start)

    def _right(
        self, elements: Elements, start: Expr, column: Expr, k: Expr, packed: Buffer | None
    ) -> Expr:
        if packed is None:
            return self._operand(elements, self.operands[1], k, start + column)
        width = VECTORS * self.lanes
        lead = packed.shape[:-3]
        return ir.Load(packed, (*self._batch_index(lead), start // width, k, column))

    def _write(
        self, tile: Buffer, rows: int, columns: Columns, first: Expr, start: Expr
    ) -> ir.Block:
        """The epilogue of a tile."""
        row, lane = self.binding.var("m"), self.binding.var("v")
        bodies: dict[int, ir.Block] = {}
        for c, _ in columns.parts:
            index = (*(var for var, _ in self.batch), first + row, start + lane + c)
            given = {self.result: ir.Load(tile, (row, lane + c))}
            bodies[c] = store_results(self.binding, given, index)
        return (ir.For(row, rows, columns.each(lane, bodies), LoopKind.UNROLLED),)

    # -- dot products -----------------------------------------------------------------------------

    def _dots(self) -> ir.Block:
        """Each result as the product of two contiguous rows."""
        rows, columns = self.shape[-2:]
        body: ir.Block = ()
        across = max(1, _DOT_ROWS // max(1, min(rows, _DOT_ROWS)))
        for block in balanced(rows, _DOT_ROWS):
            for span in balanced(columns, across):
                body += self._dot(block, span)
        return body

    def _dot(self, block: Span, span: Span) -> ir.Block:
        i, j, k = (self.binding.var(h) for h in ("i", "j", "k"))
        row, column = self.binding.var("m"), self.binding.var("n")
        shape = (block.length, span.length)
        sums = self.binding.local("sums", shape, self.dtype, Space.REGISTER)
        at_row = i * block.length + block.start + row
        at_column = j * span.length + span.start + column
        elements = self.binding.elements()
        left = self._operand(elements, self.operands[0], at_row, k)
        right = self._operand(elements, self.operands[1], k, at_column)
        lets = elements.take_block()
        product = ir.binary(ir.BinaryOp.MUL, _inlined(lets, left), _inlined(lets, right))
        tile = ((row, block.length), (column, span.length))
        zero = ir.Const(0.0 if self.dtype.is_float else 0, self.dtype)
        clear_sums = ir.Store(sums, (row, column), zero)
        add = ir.Accumulate(sums, (row, column), ReduceOp.ADD, product)
        step = ir.loop_nest(tile, (add,), LoopKind.UNROLLED)
        index = (*(var for var, _ in self.batch), at_row, at_column)
        write = store_results(self.binding, {self.result: ir.Load(sums, (row, column))}, index)
        body: ir.Block = (
            ir.Alloc(sums),
            *ir.loop_nest(tile, (clear_sums,), LoopKind.UNROLLED),
            ir.For(k, self.inner, step, LoopKind.VECTOR, self.lanes),
            *ir.loop_nest(tile, write, LoopKind.UNROLLED),
        )
        nest = (*self.batch, (i, block.count), (j, span.count))
        return ir.loop_nest(nest, body, LoopKind.PARALLEL)


def _tasks(block: Span) -> list[Span]:
    """Row blocks in tasks of several, so that a panel stays in cache."""
    length = min(_BLOCKS_A_TASK, block.count)
    count, rest = divmod(block.count, length)
    tasks = [Span(0, length, count)]
    return tasks + ([Span(count * length, rest)] if rest else [])


def _inlined(lets: ir.Block, value: Expr) -> Expr:
    """The value itself where it has just been named: loads of a tile are written in place."""
    named = {s.var: s.value for s in lets if isinstance(s, ir.Let)}
    while isinstance(value, ir.Var) and value in named:
        value = named[value]
    return value
