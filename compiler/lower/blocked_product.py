"""Products of large matrices, in blocks that stay in the caches.

After Goto and van de Geijn (2008), "Anatomy of high-performance matrix multiplication", and Van
Zee and van de Geijn (2015), "BLIS". Some hundred terms of a panel of columns fill half of the
first-level cache; all blocks of rows of a task are multiplied by them before the next panel. Sums
over more terms are collected on the stack. The right operand is packed in panels; the left one is
packed where its terms do not lie side by side, else it is broadcast from where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from .product import Product
from .row_tasks import Block, RowTasks
from .tile import (
    VECTORS,
    Columns,
    Span,
    balanced,
    clear,
    grouped,
    level,
    most_rows,
    outer_product,
    panels,
)

T = TypeVar("T")

# Bytes of what a tile multiplies, which stays in the first-level cache, and of a row's sums in a
# task.
_CHUNK_BYTES = 24 * 1024
_SUM_BYTES = 2048
# Rows are copied that are used for so many panels, unless all are near each other; fewer where each
# term is on another page. Such terms are asked for so many ahead.
_REUSED = 6
_REUSED_PAGES = 3
_AHEAD = 16
_LINE = 64
_NEAR_BYTES = 32 * 1024
_PAGE_BYTES = 4096
# Rows of a task, rows that are enough for tasks of one size, and tasks for all threads.
_ROWS = 48
_MANY_ROWS = 384
_TASKS = 16
# Up to so many terms the results are what takes time; then a task's columns are so many bytes long.
_FEW_TERMS = 96
_LONG_BYTES = 8192


@dataclass
class BlockedProduct:
    """One product.

    Arguments:
        product: what is computed.
    """

    product: Product

    @property
    def target(self) -> Target:
        return self.product.binding.target

    @cached_property
    def width(self) -> int:
        """Columns of a panel."""
        return VECTORS * self.product.lanes

    @cached_property
    def chunks(self) -> list[Span]:
        """The terms, in chunks that are summed in registers."""
        term = self.width * self.product.dtype.size
        if self.product.left_strides[1] > 1 and not self.packs_left:
            term += _LINE
        return even(self.product.depth, _CHUNK_BYTES // term)

    @cached_property
    def row_tasks(self) -> list[RowTasks]:
        """Rows of a task."""
        blocks = level(self.product.rows, most_rows(self.target))
        if self.product.rows > _MANY_ROWS:
            return RowTasks.equal(blocks, _ROWS)
        return RowTasks.balanced(blocks, _ROWS)

    @cached_property
    def column_tasks(self) -> list[tuple[Span, list[Span]]]:
        """Columns of a task: how many, and their panels."""
        rows = sum(rows.count for rows in self.row_tasks)
        spans = panels(self.product.columns, self.width)
        count = sum(span.count for span in spans)
        wanted = -(-_TASKS // rows)
        size = _LONG_BYTES if self.along_rows else _SUM_BYTES
        most = size // (self.width * self.product.dtype.size)
        return grouped(spans, max(1, min(most, count // wanted)))

    @cached_property
    def packs_inside(self) -> bool:
        """Whether tasks pack their own columns, as no other task needs them."""
        return sum(rows.count for rows in self.row_tasks) == 1

    @property
    def along_rows(self) -> bool:
        """Whether tasks go along their rows, as results and what is read for them lie in memory."""
        return not self.packs_inside and self.product.depth <= _FEW_TERMS

    @cached_property
    def packs_left(self) -> bool:
        """Whether tasks copy their rows, as these lie apart or across many pages."""
        row, term = self.product.left_strides
        size = self.product.dtype.size
        apart = term > 1 and term * self.product.depth * size > _NEAR_BYTES
        across = row * size >= _PAGE_BYTES
        reused = _REUSED_PAGES if term * size >= _PAGE_BYTES else _REUSED
        return (apart or across) and self.product.columns >= reused * self.width

    def lower(self) -> ir.Block:
        """The loops."""
        packed: Buffer | None = None
        body: ir.Block = ()
        if not self.packs_inside:
            packed, body = self._pack_right()
        for rows in self.row_tasks:
            for columns, column_panels in self.column_tasks:
                i, j = self.product.binding.var("i"), self.product.binding.var("j")
                start = j * columns.length + columns.start
                task = Task(self, rows, i, start, columns.length, column_panels, packed)
                nest = (*self.product.batch, (i, rows.count), (j, columns.count))
                body += ir.loop_nest(nest, task.lower(), LoopKind.PARALLEL)
        return body

    def _pack_right(self) -> tuple[Buffer, ir.Block]:
        """The right operand as [batch][panel][term][column], and how it gets there."""
        product, var = self.product, self.product.binding.var
        batch = product.batch_of(1)
        lead = tuple(1 if n == 1 else m for n, m in zip(batch, product.shape[:-2], strict=True))
        count = -(-product.columns // self.width)
        packed = product.local("packed", (*lead, count, product.depth, self.width), Space.SCRATCH)
        loops = [(b, n) for (b, _), n in zip(product.batch, lead, strict=True)]
        body: ir.Block = ()
        for span in panels(product.columns, self.width):
            panel = var("panel")
            number = panel + span.start // self.width
            index = (*product.batch_index(lead), number)
            copy = self.pack_panel(
                packed, index, number * self.width, span.length, ir.index(0), product.depth
            )
            body += ir.loop_nest((*loops, (panel, span.count)), copy, LoopKind.PARALLEL)
        return packed, body

    def pack_panel(
        self,
        packed: Buffer,
        index: tuple[Expr, ...],
        start: Expr,
        width: int,
        first: Expr,
        terms: int,
    ) -> ir.Block:
        """Copies some terms of a panel."""
        k, lane = self.product.binding.var("k"), self.product.binding.var("v")
        lets, x = self.product.right(first + k, start + lane)
        store = (*lets, ir.Store(packed, (*index, k, lane), x))
        return (
            ir.For(k, terms, (ir.For(lane, width, store, LoopKind.VECTOR, self.product.lanes),)),
        )


@dataclass
class Task:
    """Some rows by some columns of a product: what one thread does at a time.

    Arguments:
        whole: the product.
        rows, number: its rows: those of which task.
        start, columns, panels: the first column, how many there are, and their panels.
        packed: the right operand; None: it is packed here.
    """

    whole: BlockedProduct
    rows: RowTasks
    number: Expr
    start: Expr
    columns: int
    panels: Sequence[Span]
    packed: Buffer | None

    @cached_property
    def product(self) -> Product:
        return self.whole.product

    @cached_property
    def first(self) -> Expr:
        """The first row."""
        return self.rows.first(self.number)

    def var(self, hint: str) -> ir.Var:
        return self.product.binding.var(hint)

    @cached_property
    def sums(self) -> Buffer | None:
        """What is collected of several chunks."""
        if sum(span.count for span in self.whole.chunks) <= 1:
            return None
        return self.product.local("sums", (self.rows.rows, self.columns), Space.STACK)

    @cached_property
    def terms(self) -> int:
        """Of the longest chunk."""
        return max((span.length for span in self.whole.chunks), default=0)

    @cached_property
    def left(self) -> list[Buffer]:
        """The left operand by blocks, for each length of blocks, if it is packed.

        In a block are terms of rows, or rows of terms, whichever lie side by side.
        """
        if not self.whole.packs_left:
            return []
        shapes = [(b.count, *self._ordered(b.length, self.terms)) for b in self.rows.blocks]
        return [self.product.local("left", shape, Space.STACK) for shape in shapes]

    def _ordered(self, row: T, term: T) -> tuple[T, T]:
        return (term, row) if self.product.left_strides[1] > 1 else (row, term)

    @cached_property
    def panel(self) -> Buffer | None:
        """A panel of the right operand as [term][column], if it is packed here."""
        if self.packed is not None:
            return None
        return self.product.local("panel", (self.terms, self.whole.width), Space.STACK)

    def lower(self) -> ir.Block:
        """The loops."""
        body: ir.Block = tuple(ir.Alloc(b) for b in (*self.left, self.panel) if b is not None)
        sums = self.sums
        if sums is None:
            return body + self._chunk(ir.index(0), self.terms)
        clear = self._each(lambda i, j: (ir.Store(sums, (i, j), self.product.zero),))
        body += (ir.Alloc(sums), *clear)
        for span in self.whole.chunks:
            number = self.var("chunk")
            terms = self._chunk(number * span.length + span.start, span.length)
            body += (ir.For(number, span.count, terms),)

        def finish(i: Expr, j: Expr) -> ir.Block:
            return self.product.store(ir.Load(sums, (i, j)), self.first + i, self.start + j)

        return body + self._each(finish)

    def _each(self, body: Callable[[Expr, Expr], ir.Block]) -> ir.Block:
        i, j = self.var("m"), self.var("v")

        def rows(first: Expr, count: int) -> ir.Block:
            row = ir.For(j, self.columns, body(first + i, j), LoopKind.VECTOR, self.product.lanes)
            return (ir.For(i, count, (row,)),)

        return self.rows.each_part(self.number, self.var, rows)

    def _chunk(self, term: Expr, terms: int) -> ir.Block:
        """Adds the products of some terms to all sums."""
        body = self._pack_left(term, terms)
        if self.whole.along_rows:
            return body + self._along_rows(term, terms)
        for span in self.panels:
            panel = self.var("panel")
            column = panel * span.length + span.start
            tiles: ir.Block = ()
            if self.panel is not None:
                at = self.start + column
                tiles = self.whole.pack_panel(self.panel, (), at, span.length, term, terms)
            tile = partial(self._tile, column, span.length, term, terms)
            tiles += self.rows.each(self.number, self.var, tile)
            body += (ir.For(panel, span.count, tiles),)
        return body

    def _along_rows(self, term: Expr, terms: int) -> ir.Block:
        """Adds the products of some terms, all panels of a block of rows before the next block."""

        def tiles(block: Block) -> ir.Block:
            body: ir.Block = ()
            for span in self.panels:
                panel = self.var("panel")
                column = panel * span.length + span.start
                tile = self._tile(column, span.length, term, terms, block)
                body += (ir.For(panel, span.count, tile),)
            return body

        return self.rows.each(self.number, self.var, tiles)

    def _pack_left(self, term: Expr, terms: int) -> ir.Block:
        """Copies some terms of all rows."""
        if not self.left:
            return ()
        k, m = self.var("k"), self.var("m")
        across = self.product.left_strides[1] > 1

        def copy(block: Block) -> ir.Block:
            lets, x = self.product.left(self.first + (block.row + m), term + k)
            place = (block.number, *self._ordered(m, k))
            store = (*lets, ir.Store(self.left[block.kind], place, x))
            if across:
                return (ir.For(m, block.rows, store, LoopKind.VECTOR, block.rows),)
            row = ir.For(k, terms, store, LoopKind.VECTOR, self.product.lanes)
            return (ir.For(m, block.rows, (row,)),)

        blocks = self.rows.each(self.number, self.var, copy)
        if not across:
            return blocks
        return (ir.For(k, terms, (*self._ahead(term + k + _AHEAD), *blocks)),)

    def _ahead(self, term: Expr) -> ir.Block:
        """Asks for a term of all rows: terms that lie apart are more than processors follow."""
        body: ir.Block = ()
        for row in range(0, self.rows.rows, _LINE // self.product.dtype.size):
            lets, x = self.product.left(self.first + row, term)
            if isinstance(x, ir.Load):
                body += (*lets, ir.Prefetch(x.buffer, x.index))
        return body

    def _left(self, block: Block, m: Expr, term: Expr, k: Expr) -> tuple[ir.Block, Expr]:
        """An element of the left operand."""
        if self.left:
            return (), ir.Load(self.left[block.kind], (block.number, *self._ordered(m, k)))
        return self.product.left(self.first + (block.row + m), term + k)

    def _right(self, term: Expr, k: Expr, column: Expr, lane: Expr) -> Expr:
        """An element of the right operand; `column` is the first of a panel."""
        if self.panel is not None:
            return ir.Load(self.panel, (k, lane))
        assert self.packed is not None
        panel = (self.start + column) // self.whole.width
        lead = self.packed.shape[:-3]
        index = (*self.product.batch_index(lead), panel, term + k, lane)
        return ir.Load(self.packed, index)

    def _tile(self, column: Expr, width: int, term: Expr, terms: int, block: Block) -> ir.Block:
        """Adds some terms to the sums of a block in a panel, or stores what they give."""
        rows = block.rows
        columns = Columns(width, self.product.lanes, self.product.dtype)
        tile = self.product.local("tile", (rows, width), Space.REGISTER)
        m, v, k = self.var("m"), self.var("v"), self.var("k")
        lets, scalar = self._left(block, m, term, k)
        vectors = {c: self._right(term, k, column, v + c) for c, _ in columns.parts}
        step = outer_product(tile, [(m, rows)], columns, v, scalar, vectors)
        body = clear(tile, rows, columns, m, v) + (ir.For(k, terms, (*lets, *step)),)
        m, v = self.var("m"), self.var("v")
        row = block.row + m
        bodies: dict[int, ir.Block] = {}
        for c, _ in columns.parts:
            at, x = column + (v + c), ir.Load(tile, (m, v + c))
            if self.sums is None:
                bodies[c] = self.product.store(x, self.first + row, self.start + at)
            else:
                add = ir.Accumulate(self.sums, (row, at), ReduceOp.ADD, x)
                bodies[c] = (add,)
        return body + (ir.For(m, rows, columns.each(v, bodies), LoopKind.UNROLLED),)


def even(extent: int, most: int) -> list[Span]:
    """Chunks of about `most`, all equal if that can be."""
    if extent == 0:
        return []
    if extent <= most + most // 2:
        return [Span(0, extent)]
    for length in range(most + most // 2, most // 2, -1):
        if extent % length == 0:
            return [Span(0, length, extent // length)]
    return balanced(extent, most)
