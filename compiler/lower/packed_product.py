"""Products with a matrix that has been packed before.

Its columns come in panels, (groups, panels, terms, column), which a task goes through as they lie
in memory. Groups are equal parts of the columns that are combined element by element, such as the
gates of a recurrent cell: a task computes the same columns of all groups, so that what follows from
them is computed as soon as they are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from .blocked_product import even
from .epilogue import store_groups
from .product import Product
from .row_tasks import Block, RowTasks
from .tile import Columns, Span, grouped, level, most_rows, panels

# Bytes of a column's terms that all rows are multiplied by, and of a row's sums in a task.
_TERM_BYTES = 2048
_SUM_BYTES = 1024
# Up to so many rows are one task; rows of a task where there are more, of matrices of up to so many
# bytes, which are near whenever they are read; tasks of columns that are enough for all threads, of
# few and of more rows.
_FEW_ROWS = 48
_ROWS = 24
_NEAR_BYTES = 8 << 20
_TASKS = 16
_COLUMN_TASKS = 4
# Vectors of sums that keep both multipliers busy.
_ACCUMULATORS = 8
# Rows so far apart are copied: they have the same place in the cache.
_PAGE_BYTES = 4096
_FEW_BLOCKS = 3
# Bytes that a prefetch gets.
_LINE = 64


@dataclass
class PackedProduct:
    """One product.

    Arguments:
        product: what is computed.
    """

    product: Product

    @property
    def target(self) -> Target:
        return self.product.binding.target

    @cached_property
    def packed(self) -> Buffer:
        """The right operand."""
        return self.product.binding.inputs[self.product.operands[1]]

    @property
    def groups(self) -> int:
        return self.packed.shape[0]

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.packed.shape[-1]

    @cached_property
    def columns(self) -> int:
        """Of a group."""
        return self.product.columns // self.groups

    @cached_property
    def vectors(self) -> int:
        """Of a panel."""
        return -(-self.width // self.product.lanes)

    @cached_property
    def blocks(self) -> list[Span]:
        """Blocks of rows, each of which is a tile high."""
        return level(self.product.rows, most_rows(self.target, self.vectors))

    @cached_property
    def together(self) -> int:
        """Groups in a tile: all, where one tile has room for all rows. Each element of a row is
        loaded once for all of them, and memory gives more to several streams than to one.
        """
        rows = self.product.rows
        return self.groups if self._fits(rows * self.groups) else 1

    @cached_property
    def phases(self) -> int:
        """How many sums a column has, of every so manieth term: a tile of few rows would wait for
        its additions.
        """
        height = self.blocks[0].length * self.together
        count = -(-_ACCUMULATORS // (height * self.vectors))
        return count if self._fits(height * count) else 1

    def _fits(self, rows: int) -> bool:
        """Whether a tile fits the registers; with one row the matrix is read from memory."""
        return (rows + 1) * self.vectors + 1 <= self.target.registers

    @cached_property
    def chunks(self) -> list[Span]:
        """The terms, in chunks that stay in the cache for all rows."""
        if sum(block.count for block in self.blocks) == 1:
            return panels(self.product.depth, max(1, self.product.depth))
        return even(self.product.depth, _TERM_BYTES // self.product.dtype.size)

    @cached_property
    def asks_ahead(self) -> bool:
        """Whether prefetches help: not for one block of rows, which reads the matrix without a
        pause, and not for many, which leave time enough.
        """
        return 1 < sum(block.count for block in self.blocks) <= _FEW_BLOCKS

    @cached_property
    def row_tasks(self) -> list[RowTasks]:
        """Rows of a task."""
        if self.product.rows > _FEW_ROWS:
            rows = _ROWS if self.packed.nbytes <= _NEAR_BYTES else _FEW_ROWS
            return RowTasks.equal(self.blocks, rows)
        return RowTasks.balanced(self.blocks, _FEW_ROWS)

    @cached_property
    def column_tasks(self) -> list[tuple[Span, list[Span]]]:
        """Columns of each group in a task: how many, and their panels."""
        wanted = _TASKS if self.product.rows <= _FEW_ROWS else _COLUMN_TASKS
        spans = panels(self.columns, self.width)
        count = sum(span.count for span in spans)
        row = self.groups * self.width * self.product.dtype.size
        return grouped(spans, max(1, min(_SUM_BYTES // row, count // wanted)))

    def lower(self) -> ir.Block:
        """The loops."""
        row, term = self.product.left_strides
        body: ir.Block = ()
        if self.product.rows > 1 and (term > 1 or row * self.product.dtype.size >= _PAGE_BYTES):
            terms = max(span.length for span in self.chunks)
            body, self.product = self.product.with_copied_left(terms)
        for rows in self.row_tasks:
            for columns, column_panels in self.column_tasks:
                i, j = self.product.binding.var("i"), self.product.binding.var("j")
                start = j * columns.length + columns.start
                task = _Task(self, rows, i, start, columns.length, column_panels)
                nest = ((i, rows.count), (j, columns.count))
                body += ir.loop_nest(nest, task.lower(), LoopKind.PARALLEL)
        return body


@dataclass
class _Task:
    """Some rows by some columns of each group: what one thread does at a time.

    Arguments:
        whole: the product.
        rows, number: its rows: those of which task.
        start, columns, panels: the first column, how many there are, and their panels.
    """

    whole: PackedProduct
    rows: RowTasks
    number: Expr
    start: Expr
    columns: int
    panels: list[Span]

    @cached_property
    def first(self) -> Expr:
        """The first row."""
        return self.rows.first(self.number)

    @cached_property
    def product(self) -> Product:
        return self.whole.product

    @cached_property
    def result(self) -> Value:
        return self.product.result

    def var(self, hint: str) -> ir.Var:
        return self.product.binding.var(hint)

    @cached_property
    def sums(self) -> Buffer:
        """What has been added up: (row, group, column)."""
        shape = (self.rows.rows, self.whole.groups, self.columns)
        return self.product.local("sums", shape, Space.STACK)

    @property
    def is_collected(self) -> bool:
        """Whether sums are of several chunks."""
        return sum(span.count for span in self.whole.chunks) > 1

    def lower(self) -> ir.Block:
        """The loops."""
        body: ir.Block = (ir.Alloc(self.sums),)
        if self.is_collected:
            i, g, v = self.var("m"), self.var("g"), self.var("v")
            zero = ir.Store(self.sums, (i, g, v), self.product.zero)
            row = ir.For(v, self.columns, (zero,), LoopKind.VECTOR, self.product.lanes)
            body += ir.loop_nest(((i, self.rows.rows), (g, self.whole.groups)), (row,))
        for span in self.panels:
            g, p = self.var("g"), self.var("panel")
            group = g * self.whole.together
            tiles = self._panel(group, p * span.length + span.start, span.length)
            rounds = self.whole.groups // self.whole.together
            body += ir.loop_nest(((g, rounds), (p, span.count)), tiles)
        return body + self._finish()

    def _panel(self, group: Expr, column: Expr, width: int) -> ir.Block:
        """The sums of a panel.

        Arguments:
            group: of columns, the first one.
            column: the first one, in the task.
            width: how many there are.
        """
        body: ir.Block = ()
        for chunk in self.whole.chunks:
            number = self.var("chunk")
            term = number * chunk.length + chunk.start

            def tile(block: Block, term: Expr = term, terms: int = chunk.length) -> ir.Block:
                tile = _Tile(self, block.row, block.rows, group, column)
                return tile.lower(width, term, terms, block.before)

            tiles = self.rows.each(self.number, self.var, tile)
            body += (ir.For(number, chunk.count, tiles),)
        return body

    def _finish(self) -> ir.Block:
        """What follows from the sums; two vectors at a time, as each is one long chain of
        operations that wait for each other.
        """
        i, v = self.var("m"), self.var("v")
        lanes = 2 * self.product.lanes

        def rows(first: Expr, count: int) -> ir.Block:
            results = self._results(first + i, v)
            row = ir.For(v, self.columns, results, LoopKind.VECTOR, lanes)
            return (ir.For(i, count, (row,)),)

        return self.rows.each_part(self.number, self.var, rows)

    def _results(self, row: Expr, column: Expr) -> ir.Block:
        """What follows from the sums in one place of each group."""
        place = (self.first + row, self.start + column)
        sums = [ir.Load(self.sums, (row, ir.index(g), column)) for g in range(self.whole.groups)]
        return store_groups(self.product.binding, self.result, sums, place, self.whole.columns)


@dataclass
class _Tile:
    """Sums that stay in registers.

    Arguments:
        task: what it belongs to.
        row, rows: the first row, in the task, and how many there are.
        group: of columns, the first one.
        column: the first one, in the task; they are those of a panel.
    """

    task: _Task
    row: Expr
    rows: int
    group: Expr
    column: Expr

    @cached_property
    def whole(self) -> PackedProduct:
        return self.task.whole

    def lower(self, width: int, term: Expr, terms: int, order: Expr) -> ir.Block:
        """Adds some terms to the sums.

        Arguments:
            width: number of columns.
            term: the first one.
            terms: how many there are.
            order: number of blocks of rows that come before.
        """
        task, product, phases = self.task, self.task.product, self.whole.phases
        columns = Columns(width, product.lanes, product.dtype)
        shape = (phases, self.rows, self.whole.together, width)
        tile = product.local("tile", shape, Space.REGISTER)
        k, u, m, g, v = (task.var(hint) for hint in ("k", "u", "m", "g", "v"))
        body = self._clear(tile, columns) + self._ask_for_addends(width)
        for span in panels(terms, phases):
            depth = k * span.length + span.start
            step = self._step(tile, columns, u % phases, term + (depth + u))
            ahead = self._ahead(term, terms, depth, order) if self.whole.asks_ahead else ()
            inside = (*ahead, ir.For(u, span.length, step, LoopKind.UNROLLED))
            body += (ir.For(k, span.count, inside),)
        keep: dict[int, ir.Block] = {}
        for c, _ in columns.parts:
            total: Expr = ir.Load(tile, (ir.index(0), m, g, v + c))
            for phase in range(1, phases):
                more = ir.Load(tile, (ir.index(phase), m, g, v + c))
                total = ir.binary(ir.BinaryOp.ADD, total, more)
            place = (self.row + m, self.group + g, self.column + (v + c))
            if task.is_collected:
                keep[c] = (ir.Accumulate(task.sums, place, ReduceOp.ADD, total),)
            else:
                keep[c] = (ir.Store(task.sums, place, total),)
        nest = ((m, self.rows), (g, self.whole.together))
        return (*body, *ir.loop_nest(nest, columns.each(v, keep), LoopKind.UNROLLED))

    def _ask_for_addends(self, width: int) -> ir.Block:
        """Asks for what is combined with these very sums, such as a step's slice of a sequence:
        rows far apart in memory, which processors do not follow by themselves.
        """
        product = self.task.product
        m, g = self.task.var("m"), self.task.var("g")
        shape = product.binding.shape(product.result)
        row = self.task.first + self.row + m
        column = (self.group + g) * self.whole.columns + (self.task.start + self.column)
        requests = tuple(
            ir.Prefetch(buffer, (row, column + lane))
            for value, buffer in product.binding.inputs.items()
            if value not in product.operands and buffer.shape == shape
            for lane in range(0, width, _LINE // product.dtype.size)
        )
        nest = ((m, self.rows), (g, self.whole.together))
        return ir.loop_nest(nest, requests, LoopKind.UNROLLED) if requests else ()

    def _clear(self, tile: Buffer, columns: Columns) -> ir.Block:
        phase, m, g, v = (self.task.var(hint) for hint in ("u", "m", "g", "v"))
        zero = self.task.product.zero
        stores: dict[int, ir.Block] = {
            c: (ir.Store(tile, (phase, m, g, v + c), zero),) for c, _ in columns.parts
        }
        nest = ((phase, self.whole.phases), (m, self.rows), (g, self.whole.together))
        return (ir.Alloc(tile), *ir.loop_nest(nest, columns.each(v, stores), LoopKind.UNROLLED))

    def _step(self, tile: Buffer, columns: Columns, phase: Expr, term: Expr) -> ir.Block:
        """Adds a term."""
        m, g, v = (self.task.var(hint) for hint in ("m", "g", "v"))
        lets, x = self.task.product.left(self.task.first + self.row + m, term)
        number = (self.task.start + self.column) // self.whole.width
        add: dict[int, ir.Block] = {}
        for c, _ in columns.parts:
            w = ir.Load(self.whole.packed, (self.group + g, number, term, v + c))
            xw = ir.binary(ir.BinaryOp.MUL, x, w)
            add[c] = (ir.Accumulate(tile, (phase, m, g, v + c), ReduceOp.ADD, xw),)
        inside = ir.For(g, self.whole.together, columns.each(v, add), LoopKind.UNROLLED)
        return (ir.For(m, self.rows, (*lets, inside), LoopKind.UNROLLED),)

    def _ahead(self, term: Expr, terms: int, done: Expr, order: Expr) -> ir.Block:
        """Asks for the next chunk, which lies behind this one; every block of rows for its share.

        Arguments:
            term: the first one of this chunk.
            terms: how many there are.
            done: how many have been added.
            order: number of blocks of rows that come before.
        """
        blocks = sum(span.count for span in self.task.rows.blocks)
        next_one = term + terms + (order * -(-terms // blocks) + done // blocks)
        number = (self.task.start + self.column) // self.whole.width
        return tuple(
            ir.Prefetch(self.whole.packed, (self.group, number, next_one, ir.index(lane)))
            for lane in range(0, self.whole.width, _LINE // self.task.product.dtype.size)
        )
