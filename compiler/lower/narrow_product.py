"""Products of few rows with a matrix, every element of which is read once, where it is stored.

*Dots*: the terms of a sum lie side by side in both operands; vectors go along the sum. *Sweeps*:
columns lie side by side; vectors of sums stay on the stack while several rows of the matrix pass.
"""

from __future__ import annotations

from functools import partial

from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Expr, LoopKind, ReduceOp, Space
from .product import Product
from .tile import Span, balanced, panels

# Rows by columns of sums in registers, by the number of rows.
_DOT_TILES = {1: (1, 8), 2: (2, 6), 3: (3, 4)}
_DOT_TILE = (4, 3)
# Vectors of terms that all rows are multiplied by before the next ones are read.
_DOT_TERMS = 64
# Rows of the matrix that pass at a time, in two vectors each (one would be broadcast for every
# multiply-add), and bytes of sums.
_SWEEP = 4
_SWEEP_BYTES = 16 * 1024
_TASKS = 8
# What is swept in one go, of a matrix that is larger than the caches.
_STRIP_BYTES = 8 * 1024
_LARGE_BYTES = 8 << 20
# Rows so far apart are copied: they have the same place in the cache.
_PAGE_BYTES = 4096


def dots(product: Product) -> ir.Block:
    """The loops of a product by dots; terms lie side by side in the right operand."""
    rows, columns = _DOT_TILES.get(product.rows, _DOT_TILE)
    body, product = _near(product, _DOT_TERMS * product.lanes)
    blocks = balanced(product.rows, rows)
    for span in balanced(product.columns, columns):
        column = product.binding.var("j")
        start = column * span.length + span.start
        task = _dot_task(product, blocks, start, span.length)
        nest = (*product.batch, (column, span.count))
        body += ir.loop_nest(nest, task, LoopKind.PARALLEL)
    return body


def _near(product: Product, terms: int) -> tuple[ir.Block, Product]:
    """A product whose rows are near each other, copied if they are not."""
    row, term = product.left_strides
    if product.rows > 1 and (term > 1 or row * product.dtype.size >= _PAGE_BYTES):
        return product.with_copied_left(terms)
    return (), product


def _dot_task(product: Product, blocks: list[Span], column: Expr, columns: int) -> ir.Block:
    """The sums of all rows with some columns."""
    vectors = product.depth // product.lanes
    if sum(block.count for block in blocks) == 1 or vectors <= 2 * _DOT_TERMS:
        body: ir.Block = ()
        for block in blocks:
            number, rows = product.binding.var("i"), block.length
            row = number * rows + block.start
            tile = product.local("tile", (rows, columns, product.lanes), Space.REGISTER)
            terms = _dot_terms(product, tile, row, rows, column, ir.index(0), vectors)
            terms += _dot_finish(product, tile, row, rows, column)
            body += (ir.For(number, block.count, terms),)
        return body
    sums = product.local("sums", (product.rows, columns, product.lanes), Space.STACK)
    i, j, v = (product.binding.var(h) for h in ("m", "n", "v"))
    clear = ir.Store(sums, (i, j, v), product.zero)
    vector = ir.For(v, product.lanes, (clear,), LoopKind.VECTOR, product.lanes)
    body = (ir.Alloc(sums), *ir.loop_nest(((i, product.rows), (j, columns)), (vector,)))
    for span in panels(vectors, _DOT_TERMS):
        chunk = product.binding.var("chunk")
        start = (chunk * span.length + span.start) * product.lanes
        tiles: ir.Block = ()
        for block in blocks:
            tiles += _dot_block(product, sums, block, column, start, span.length)
        body += (ir.For(chunk, span.count, tiles),)
    i = product.binding.var("i")
    return (*body, ir.For(i, product.rows, _dot_finish(product, sums, i, 1, column)))


def _dot_block(
    product: Product, sums: Buffer, block: Span, column: Expr, start: Expr, vectors: int
) -> ir.Block:
    """Adds some vectors of terms to the sums of some rows."""
    var, (_, columns, lanes) = product.binding.var, sums.shape
    number, m, n, v = var("i"), var("m"), var("n"), var("v")
    row = number * block.length + block.start
    tile = product.local("tile", (block.length, columns, lanes), Space.REGISTER)
    terms = _dot_terms(product, tile, row, block.length, column, start, vectors)
    add = ir.Accumulate(sums, (row + m, n, v), ReduceOp.ADD, ir.Load(tile, (m, n, v)))
    vector = ir.For(v, lanes, (add,), LoopKind.VECTOR, lanes)
    terms += ir.loop_nest(((m, block.length), (n, columns)), (vector,), LoopKind.UNROLLED)
    return (ir.For(number, block.count, terms),)


def _dot_terms(
    product: Product, tile: Buffer, row: Expr, rows: int, column: Expr, start: Expr, vectors: int
) -> ir.Block:
    """A tile (row, column, lane) of the sums of some vectors of terms."""
    var, lanes = product.binding.var, product.lanes
    m, n, k, v = var("m"), var("n"), var("k"), var("v")
    nest = ((m, rows), (n, tile.shape[1]))
    if rows < tile.shape[1]:  # vectors of the inner loop stay in registers
        nest = nest[::-1]
    clear = ir.For(v, lanes, (ir.Store(tile, (m, n, v), product.zero),), LoopKind.VECTOR, lanes)
    add = _multiply_add(product, tile, (m, n, v), row + m, column + n, start + (k * lanes + v))
    step = ir.For(v, lanes, add, LoopKind.VECTOR, lanes)
    return (
        ir.Alloc(tile),
        *ir.loop_nest(nest, (clear,), LoopKind.UNROLLED),
        ir.For(k, vectors, ir.loop_nest(nest, (step,), LoopKind.UNROLLED)),
    )


def _multiply_add(
    product: Product, sums: Buffer, index: tuple[Expr, ...], row: Expr, column: Expr, k: Expr
) -> ir.Block:
    left, x = product.left(row, k)
    right, y = product.right(k, column)
    add = ir.Accumulate(sums, index, ReduceOp.ADD, ir.binary(BinaryOp.MUL, x, y))
    return (*left, *right, add)


def _dot_finish(product: Product, sums: Buffer, row: Expr, rows: int, column: Expr) -> ir.Block:
    """Adds the lanes of sums, and the terms that fill no vector; stores what follows."""
    var, lanes = product.binding.var, product.lanes
    whole, rest = product.depth // lanes * lanes, product.depth % lanes
    columns = sums.shape[1]
    m, n, v, k = var("m"), var("n"), var("v"), var("k")
    total = product.local("total", (rows, columns), Space.REGISTER)
    place = (m if rows == sums.shape[0] else row, n, v)
    fold = ir.Accumulate(total, (m, n), ReduceOp.ADD, ir.Load(sums, place))
    body: ir.Block = (
        ir.Store(total, (m, n), product.zero),
        ir.For(v, lanes, (fold,), LoopKind.VECTOR, lanes),
    )
    if rest:
        add = _multiply_add(product, total, (m, n), row + m, column + n, k + whole)
        body += (ir.For(k, rest, add, LoopKind.VECTOR, lanes),)
    nest = ((m, rows), (n, columns))
    store = product.store(ir.Load(total, (m, n)), row + m, column + n)
    return (
        ir.Alloc(total),
        *ir.loop_nest(nest, body, LoopKind.UNROLLED),
        *ir.loop_nest(nest, store, LoopKind.UNROLLED),
    )


# -- sweeps ---------------------------------------------------------------------------------------


def sweeps(product: Product) -> ir.Block:
    """The loops of a product by sweeps; columns lie side by side in the right operand."""
    width = _strip(product)
    body, product = _near(product, _SWEEP)
    for span in panels(product.columns, width):
        strip = product.binding.var("strip")
        task = _sweep_task(product, strip * width + span.start, span.length)
        nest = (*product.batch, (strip, span.count))
        body += ir.loop_nest(nest, task, LoopKind.PARALLEL)
    return body


def _strip(product: Product) -> int:
    """Columns of a task: there should be several tasks, and long ways through memory."""
    size, vector = product.dtype.size, product.lanes
    least = max(-(-product.columns // _TASKS), 64)
    if product.columns * product.depth * size >= _LARGE_BYTES:
        least = max(least, _STRIP_BYTES // size)
    most = _SWEEP_BYTES // (product.rows * size)
    return max(1, min(-(-least // vector), most // vector)) * vector


def _sweep_task(product: Product, start: Expr, width: int) -> ir.Block:
    var, lanes = product.binding.var, product.lanes
    sums = product.local("sums", (product.rows, width), Space.STACK)
    i, v = var("m"), var("v")
    over = partial(_over, product.rows, width, lanes)
    body: ir.Block = (ir.Alloc(sums), *over(i, v, (ir.Store(sums, (i, v), product.zero),)))
    for span in panels(product.depth, _SWEEP):
        number, v, i = var("k"), var("v"), var("m")
        first = number * span.length + span.start
        lets: ir.Block = ()
        vectors = []
        for term in range(span.length):
            block, x = product.right(first + term, start + v)
            named = ir.Var(var("row").name, product.dtype)
            lets += (*block, ir.Let(named, x))
            vectors.append(named)
        total: Expr = ir.Load(sums, (i, v))
        block = ()
        for term, vector in enumerate(vectors):
            more, y = product.left(i, first + term)
            block += more
            total = ir.Binary(BinaryOp.ADD, total, ir.Binary(BinaryOp.MUL, y, vector))
        add = (*block, ir.Store(sums, (i, v), total))
        rows = ir.For(i, product.rows, add, LoopKind.UNROLLED)
        sweep = ir.For(v, width, (*lets, rows), LoopKind.VECTOR, 2 * lanes)
        body += (ir.For(number, span.count, (sweep,)),)
    i, v = var("i"), var("v")
    return body + over(i, v, product.store(ir.Load(sums, (i, v)), i, start + v))


def _over(rows: int, width: int, lanes: int, i: ir.Var, v: ir.Var, body: ir.Block) -> ir.Block:
    return (ir.For(i, rows, (ir.For(v, width, body, LoopKind.VECTOR, lanes),)),)
