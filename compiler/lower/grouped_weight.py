"""The transpose by its weight of a convolution in many small groups, of values in blocks.

    dw[k, c, t] = sum over n, o of dy[n, k, o] * x[n, group of k, c, place(o, t)]

The output channels k of a block are the lanes of a vector. Sums for some input channels of a group
and the taps of a row of the kernel stay in registers along some rows of dy: each column of x is
loaded once for all results whose windows it is in, broadcast or, where a vector holds several
groups, permuted (`grouped_conv.py`).

Samples are split among tasks by shape alone; sums of the parts are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops.blocked import BlockedConvWeightGradient
from ..ops.conv import ConvWeightGradient
from ..types import Shape
from .anchored import Anchored
from .binding import Binding, Lowered
from .depthwise import Line, Tiles
from .epilogue import store_results
from .padding import reader
from .slide import Slide, forward_slides
from .windows import guarded

# Results of dy that are written out, at most.
_LENGTH = 14
# Bytes of rows of x and dy that stay in the first-level cache.
_ROWS_BYTES = 16 * 1024
# Bytes of a cache line, and of values that stay in the second-level cache.
_LINE = 64
_FAR = 512 * 1024
# So many tasks keep all threads busy.
_TASKS = 32
# Longer rows of a kernel have no room for their sums.
_LONGEST = 8


def lower_grouped_weight(graph: Graph, group: Group, target: Target) -> Lowered | None:
    """The kernel of the gradient by the weight of small groups and its epilogue; None if others
    are faster, or it is none.
    """
    assert group.anchor is not None
    if not isinstance(graph.node(group.anchor).op, BlockedConvWeightGradient):
        return None
    gradient = GroupedWeight(Binding(graph, group, target), Value(group.anchor))
    return gradient.lower() if gradient.is_possible else None


@dataclass
class GroupedWeight(Anchored):
    """A gradient by the weight of a convolution in small groups."""

    @cached_property
    def op(self) -> ConvWeightGradient:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, BlockedConvWeightGradient)
        return op.convolution

    @cached_property
    def operands(self) -> tuple[Shape, Shape]:
        """The shapes of x and dy, (N, C / b, *spatial, b)."""
        x, dy = (self.binding.shape(value) for value in self.inputs)
        return x, dy

    @property
    def size(self) -> int:
        """Channels in a block."""
        return self.operands[1][-1]

    @property
    def group(self) -> int:
        """Output channels of a group, and input channels."""
        return self.shape[1]

    @property
    def is_possible(self) -> bool:
        """Whether groups are as wide as deep, and a vector holds one or several."""
        x, dy = self.operands
        is_square = self.op.groups > 1 and self.shape[0] == self.op.groups * self.group
        fits = self.size == self.lanes == x[-1] and self.size % self.group == 0 < self.group
        is_short = len(self.op.kernel) > 1 and self.op.kernel[-1] <= _LONGEST
        return is_square and fits and is_short and self.group > 1 and 0 not in (*x, *dy)

    @cached_property
    def slides(self) -> tuple[Slide, ...]:
        window = self.op.window(self.op.kernel)
        return forward_slides(window, self.operands[0][2:-1])

    @cached_property
    def tiles(self) -> list[Tiles]:
        """Of a row of dy."""
        extent, source = self.operands[1][-2], self.operands[0][-2]
        length = -(-extent // -(-extent // _LENGTH))
        return Line((self.slides[-1],), extent, source).tiles(length)

    @cached_property
    def members(self) -> int:
        """Input channels whose sums are in registers together: beside them are columns of dy."""
        taps, registers = self.op.kernel[-1], self.binding.target.registers
        most = max(1, (registers - taps - 1) // taps)
        if self.slides[-1].stride > 1:
            most = max(1, most // 2)
        return max(n for n in range(1, self.group + 1) if self.group % n == 0 and n <= most)

    @cached_property
    def height(self) -> int:
        """Rows of dy that are summed in registers."""
        x, dy = self.operands
        row = (x[-2] * self.slides[-2].stride + dy[-2]) * self.size * self.dtype.size
        return max(1, min(dy[-3], _ROWS_BYTES // row))

    @cached_property
    def parts(self) -> int:
        """Into how many parts samples are split."""
        _, dy = self.operands
        return min(dy[0], -(-_TASKS // dy[1]))

    @cached_property
    def sums(self) -> Buffer:
        """Sums of all parts: (part, block, *rows of the kernel, tap, input channel, lane)."""
        shape = (self.parts, self.operands[1][1], *self.op.kernel, self.group, self.size)
        return self.binding.local("sums", shape, self.dtype, Space.SCRATCH)

    # -- loops ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        note = f"groups, {self.members}x{self.op.kernel[-1]} sums, channels"
        return self.binding.finish(self.add() + self.combine(), note)

    def lane_loop(self, lane: ir.Var, body: ir.Block) -> ir.Block:
        return (ir.For(lane, self.size, body, LoopKind.VECTOR, self.lanes),)

    def add(self) -> ir.Block:
        """The sums of all parts."""
        binding, (_, dy) = self.binding, self.operands
        part, block = binding.var("part"), binding.var("k")
        clear, lane = [binding.var("s") for _ in self.sums.shape[2:-1]], binding.var("v")
        zero = ir.Store(self.sums, (part, block, *clear, lane), ir.Const(0.0, self.dtype))
        cleared = ir.loop_nest(
            tuple(zip(clear, self.sums.shape[2:-1], strict=True)), self.lane_loop(lane, (zero,))
        )
        samples = -(-dy[0] // self.parts)
        number = binding.var("n")
        sample = part * samples + number
        inside = guarded(
            [sample < dy[0]] if dy[0] % samples else [], self.sample(part, block, sample)
        )
        body = (*cleared, ir.For(number, samples, inside))
        return ir.loop_nest(((part, self.parts), (block, dy[1])), body, LoopKind.PARALLEL)

    def sample(self, part: Expr, block: Expr, sample: Expr) -> ir.Block:
        """Adds one sample: rows in bands, in them rows of the kernel, in them input channels."""
        binding, (_, dy) = self.binding, self.operands
        *outer, rows = dy[2:-2]
        outside: ir.Loops = tuple((binding.var("d"), extent) for extent in outer)
        band = binding.var("band")
        taps: ir.Loops = tuple((binding.var("t"), extent) for extent in self.op.kernel[:-1])
        chunk = binding.var("cc")
        row = binding.var("h")
        place = band * self.height + row
        lane = binding.var("v")
        count = self.members * self.op.kernel[-1]
        totals = binding.local("tile", (count, self.size), self.dtype, Space.REGISTER)
        places = [var for var, _ in (*outside, *taps)]
        at = [*places[: len(outer)], place]
        kernel = places[len(outer) :]
        sources, checks = self.rows_of_x(at, kernel)
        checks += [place < rows] if rows % self.height else []
        first = chunk * self.members
        step: Expr = ir.index(0)
        for var, extent in (*taps, (chunk, self.group // self.members), (row, self.height)):
            step = step * extent + var
        steps = math.prod(self.op.kernel[:-1]) * self.group // self.members * self.height
        ahead = self.ask_ahead((sample, block, *places[: len(outer)]), band, step, steps)
        products = self.row((sample, block), (at, sources), first, totals)
        zero = ir.Const(0.0, self.dtype)
        clear = tuple(ir.Store(totals, (ir.index(i), lane), zero) for i in range(count))
        keep: list[ir.Stmt] = []
        for i in range(count):
            tap, member = divmod(i, self.members)
            index = (part, block, *kernel, ir.index(tap), first + member, lane)
            total = ir.Load(totals, (ir.index(i), lane))
            keep.append(ir.Accumulate(self.sums, index, ReduceOp.ADD, total))
        body = (
            ir.Alloc(totals),
            *self.lane_loop(lane, clear),
            ir.For(row, self.height, (*ahead, *guarded(checks, products))),
            *self.lane_loop(lane, tuple(keep)),
        )
        chunks = self.group // self.members
        kind = LoopKind.UNROLLED if self.group < self.size else LoopKind.SERIAL
        body = (ir.For(chunk, chunks, body, kind),)
        bands = (band, -(-rows // self.height))
        return ir.loop_nest((*outside, bands, *taps), body)

    def ask_ahead(
        self, where: Sequence[Expr], band: Expr, step: Expr, steps: int
    ) -> tuple[ir.Stmt, ...]:
        """Asks for the rows of x and dy of the next band: the share of one step of this one."""
        found: list[ir.Stmt] = []
        for value, stride in zip(self.inputs, (self.slides[-2].stride, 1), strict=True):
            source = self.binding.inputs.get(value)
            if source is None or source.nbytes < _FAR:
                continue
            elements = _LINE // source.dtype.size
            lines = -(-self.height * stride * source.shape[-2] * self.size // elements)
            share = -(-lines // steps)
            *outer, row = [*where, (band + 1) * (self.height * stride)]
            for i in range(share):
                place = (ir.index(0), (step * share + i) * elements)
                found.append(ir.Prefetch(source, (*outer, row, *place)))
        return tuple(found)

    def rows_of_x(
        self, at: Sequence[Expr], kernel: Sequence[Expr]
    ) -> tuple[list[Expr], list[Expr]]:
        """The row of x that a row of the kernel reads for a row of dy, and when it is inside."""
        rows: list[Expr] = []
        checks: list[Expr] = []
        extents = self.operands[0][2:-2]
        for slide, place, tap, extent in zip(self.slides, at, kernel, extents, strict=False):
            rows.append(slide.input_place(place, tap))
            low, high = slide.reads(slide.count)
            checks += [rows[-1] >= 0] if low < 0 else []
            checks += [rows[-1] < extent] if high > extent else []
        return rows, checks

    def row(
        self,
        where: tuple[Expr, Expr],
        rows: tuple[Sequence[Expr], Sequence[Expr]],
        first: Expr,
        totals: Buffer,
    ) -> ir.Block:
        """Adds one row of dy, in tiles."""
        body: ir.Block = ()
        for tiles in self.tiles:
            number, loops = self.binding.loop("w", tiles.count)
            start = number * tiles.length + tiles.start
            lane = self.binding.var("v")
            tile = self.tile(tiles, start, where, rows, first, totals, lane)
            body += ir.loop_nest(loops, self.lane_loop(lane, tile))
        return body

    def tile(
        self,
        tiles: Tiles,
        start: Expr,
        where: tuple[Expr, Expr],
        rows: tuple[Sequence[Expr], Sequence[Expr]],
        first: Expr,
        totals: Buffer,
        lane: Expr,
    ) -> ir.Block:
        """Adds some columns of dy."""
        x, dy = (reader(self.binding, value) for value in self.inputs)
        body: list[ir.Stmt] = []
        known: dict[int, Expr] = {}

        def name(hint: str, value: Expr) -> Expr:
            var = ir.Var(self.binding.var(hint).name, self.dtype)
            body.append(ir.Let(var, value))
            return var

        stride = self.slides[-1].stride
        for column, taps in groupby(tiles.taps, key=lambda tap: tap.column):
            uses = list(taps)
            for tap in uses:
                if tap.result not in known:
                    index = (*where, *rows[0], start + tap.result, lane)
                    known[tap.result] = name("dy", dy(index))
            for member in range(self.members):
                place = lane // self.group * self.group + (first + member)
                value = name("x", x((*where, *rows[1], start * stride + column, place)))
                for tap in uses:
                    number = ir.index(tap.kernel * self.members + member)
                    product = ir.binary(ir.BinaryOp.MUL, value, known[tap.result])
                    body.append(ir.Accumulate(totals, (number, lane), ReduceOp.ADD, product))
        return tuple(body)

    def combine(self) -> ir.Block:
        """Adds the sums of all parts, in order, and stores them."""
        binding = self.binding
        parts, blocks, *taps, members, size = self.sums.shape
        block, member, lane, part = (binding.var(hint) for hint in ("k", "c", "v", "part"))
        kernel: ir.Loops = tuple((binding.var("t"), extent) for extent in taps)
        places = tuple(var for var, _ in kernel)
        total = binding.local("total", (), self.dtype, Space.REGISTER)
        x = ir.Load(self.sums, (part, block, *places, member, lane))
        body: ir.Block = (
            ir.Alloc(total),
            ir.Store(total, (), ir.Const(0.0, self.dtype)),
            ir.For(part, parts, (ir.Accumulate(total, (), ReduceOp.ADD, x),)),
            *store_results(
                binding,
                {self.result: ir.Load(total, ())},
                (block * size + lane, member, *places),
            ),
        )
        nest = ir.loop_nest(((member, members), *kernel), body)
        nest = (ir.For(lane, size, nest),)
        return (ir.For(block, blocks, nest, LoopKind.PARALLEL),)
