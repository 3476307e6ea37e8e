"""The transpose by its weight of a convolution in many small groups, of values in blocks.

    dw[k, c, t] = sum over n, o of dy[n, k, o] * x[n, group of k, c, place(o, t)]

The input channels c of a block are the lanes of a vector. Sums for one output channel of each group
and the taps of some rows of the kernel stay in registers along some rows of dy: each column of x is
loaded once for all results whose windows it is in, and each column of dy is broadcast or, where a
vector holds several groups, permuted (`grouped_conv.py`), once for all these rows.

Samples are split among tasks by shape alone; sums of the parts are added in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby
from operator import and_

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
from .tile import balanced
from .windows import guarded

# Results of dy that are written out, at most.
_LENGTH = 4
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
    def held(self) -> int:
        """Rows of the kernel whose sums are in registers, beside columns of dy and one of x."""
        taps = self.op.kernel[-1]
        columns = -(-taps // self.slides[-1].stride)
        return max(1, (self.binding.target.registers - columns - 1) // taps)

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
        """Sums of all parts: (part, block, *kernel, output channel, lane)."""
        shape = (self.parts, self.operands[1][1], *self.op.kernel, self.group, self.size)
        return self.binding.local("sums", shape, self.dtype, Space.SCRATCH)

    # -- loops ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        rows = min(self.held, self.op.kernel[-2])
        note = f"groups, {rows}x{self.op.kernel[-1]} sums, channels"
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
        """Adds one sample: rows in bands, in them rows of the kernel, in them output channels."""
        binding, (_, dy) = self.binding, self.operands
        *outer, rows = dy[2:-2]
        *kernel, lines = self.op.kernel[:-1]
        outside: ir.Loops = tuple((binding.var("d"), extent) for extent in outer)
        band = binding.var("band")
        taps: ir.Loops = tuple((binding.var("t"), extent) for extent in kernel)
        at, tap = [var for var, _ in outside], [var for var, _ in taps]
        body: ir.Block = ()
        for span in balanced(lines, self.held):
            number, loop = binding.loop("t", span.count)
            first = number * span.length + span.start
            held = [(*tap, first + i) for i in range(span.length)]
            body += ir.loop_nest(loop, self.band((part, sample, block), at, band, held))
        bands = (band, -(-rows // self.height))
        return ir.loop_nest((*outside, bands, *taps), body)

    def band(
        self,
        where: tuple[Expr, Expr, Expr],
        outer: Sequence[Expr],
        band: Expr,
        held: Sequence[Sequence[Expr]],
    ) -> ir.Block:
        """Adds some rows of dy to the sums of some rows of the kernel."""
        binding, rows = self.binding, self.operands[1][-3]
        part, sample, block = where
        member, row, lane = binding.var("kk"), binding.var("h"), binding.var("v")
        place = band * self.height + row
        count = len(held) * self.op.kernel[-1]
        totals = binding.local("tile", (count, self.size), self.dtype, Space.REGISTER)
        products = self.products((sample, block, member), [*outer, place], held, totals)
        products = guarded([place < rows] if rows % self.height else [], products)
        step, steps = member * self.height + row, self.group * self.height
        ahead = self.ask_ahead((sample, block, *outer), band, step, steps)
        zero = ir.Const(0.0, self.dtype)
        clear = tuple(ir.Store(totals, (ir.index(i), lane), zero) for i in range(count))
        keep: list[ir.Stmt] = []
        for i in range(count):
            line, tap = divmod(i, self.op.kernel[-1])
            index = (part, block, *held[line], ir.index(tap), member, lane)
            total = ir.Load(totals, (ir.index(i), lane))
            keep.append(ir.Accumulate(self.sums, index, ReduceOp.ADD, total))
        body = (
            ir.Alloc(totals),
            *self.lane_loop(lane, clear),
            ir.For(row, self.height, (*ahead, *products)),
            *self.lane_loop(lane, tuple(keep)),
        )
        kind = LoopKind.UNROLLED if self.group < self.size else LoopKind.SERIAL
        return (ir.For(member, self.group, body, kind),)

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

    def products(
        self,
        where: tuple[Expr, Expr, Expr],
        at: Sequence[Expr],
        held: Sequence[Sequence[Expr]],
        totals: Buffer,
    ) -> ir.Block:
        """Adds one row of dy to the sums of some rows of the kernel: to all at once if they read no
        padding, else to each that reads none.

        Arguments:
            where: sample, block, and output channel of a group.
            at: the row of dy.
            held: rows of the kernel.
            totals: the sums.
        """
        found = [self.rows_of_x(at, kernel) for kernel in held]
        lines = [(number, rows) for number, (rows, _) in enumerate(found)]
        every = [condition for _, checks in found for condition in checks]
        together = self.row(where, at, lines, totals)
        if len(held) == 1 or not every:
            return guarded(every, together)
        apart: ir.Block = ()
        for line, (_, checks) in zip(lines, found, strict=True):
            apart += guarded(checks, self.row(where, at, [line], totals))
        return (ir.If(reduce(and_, every), together, apart),)

    def row(
        self,
        where: tuple[Expr, Expr, Expr],
        at: Sequence[Expr],
        lines: Sequence[tuple[int, Sequence[Expr]]],
        totals: Buffer,
    ) -> ir.Block:
        """Adds one row of dy, in tiles; `lines` are rows of the kernel, and what they read of x."""
        body: ir.Block = ()
        for tiles in self.tiles:
            number, loops = self.binding.loop("w", tiles.count)
            start = number * tiles.length + tiles.start
            lane = self.binding.var("v")
            tile: list[ir.Stmt] = []
            known: dict[int, Expr] = {}
            for column, group in groupby(tiles.taps, key=lambda tap: tap.column):
                uses = list(group)
                for tap in uses:
                    if tap.result not in known:
                        dy = self.signal(where, (*at, start + tap.result), lane)
                        known[tap.result] = self.name("dy", dy, tile)
                for line, source in lines:
                    place = (*where[:2], *source, start * self.slides[-1].stride + column, lane)
                    x = self.name("x", reader(self.binding, self.inputs[0])(place), tile)
                    for tap in uses:
                        at_tap = ir.index(line * self.op.kernel[-1] + tap.kernel)
                        both = ir.binary(ir.BinaryOp.MUL, x, known[tap.result])
                        tile.append(ir.Accumulate(totals, (at_tap, lane), ReduceOp.ADD, both))
            body += ir.loop_nest(loops, self.lane_loop(lane, tuple(tile)))
        return body

    def signal(self, where: tuple[Expr, Expr, Expr], at: Sequence[Expr], lane: Expr) -> Expr:
        """What a lane reads of dy: an output channel of its own group."""
        sample, block, member = where
        channel = lane // self.group * self.group + member
        return reader(self.binding, self.inputs[1])((sample, block, *at, channel))

    def name(self, hint: str, value: Expr, body: list[ir.Stmt]) -> Expr:
        var = ir.Var(self.binding.var(hint).name, self.dtype)
        body.append(ir.Let(var, value))
        return var

    def combine(self) -> ir.Block:
        """Adds the sums of all parts, in order, and stores them."""
        binding = self.binding
        parts, blocks, *taps, members, size = self.sums.shape
        block, member, lane, part = (binding.var(hint) for hint in ("k", "c", "v", "part"))
        kernel: ir.Loops = tuple((binding.var("t"), extent) for extent in taps)
        places = tuple(var for var, _ in kernel)
        total = binding.local("total", (), self.dtype, Space.REGISTER)
        x = ir.Load(self.sums, (part, block, *places, member, lane))
        own = lane // self.group * self.group + member
        body: ir.Block = (
            ir.Alloc(total),
            ir.Store(total, (), ir.Const(0.0, self.dtype)),
            ir.For(part, parts, (ir.Accumulate(total, (), ReduceOp.ADD, x),)),
            *store_results(
                binding,
                {self.result: ir.Load(total, ())},
                (block * size + own, lane % self.group, *places),
            ),
        )
        nest = ir.loop_nest(((member, members), *kernel), body)
        nest = (ir.For(lane, size, nest),)
        return (ir.For(block, blocks, nest, LoopKind.PARALLEL),)
