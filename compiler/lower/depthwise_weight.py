"""The gradient by the weight of a depthwise convolution, of values in blocks of channels.

    dw[c, t] = sum over n, o of dy[n, c, o] * x[n, c, place(o, t)]

The channels of a block are the lanes of a vector. The sums of some rows of the kernel are held in
registers while some rows of dy go by: a tile is some neighbouring pixels of dy, held, too, and each
column of x is loaded once for all taps that read it. What has been summed over some hundred pixels
is added to sums on the stack, which keeps rounding errors small.

Padding is left out as in `depthwise.py`. Where there are few channels, samples and rows are split
among tasks, by shape alone, and the sums of the parts are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby
from operator import and_

from ..loops import ir
from ..loops.ir import Expr, LoopKind, ReduceOp, Space
from .binding import Lowered
from .depthwise import Line, Tiles
from .padding import reader
from .slide import Slide
from .tile import Span, balanced
from .weight_problem import WeightGradient
from .weight_results import Lengths, Starts, WeightResults, over_spans
from .windows import guarded

# Sums that are held in registers: so many make up for the time that a multiply-add takes.
_HELD = 10
# Registers for columns of x that are loaded early.
_OTHERS = 4
# The longest row of a kernel.
_LONGEST = 14
# The most tiles of a row that are code of their own.
_EDGES = 6
# Cycles of a tile beside its products.
_TILE = 4
# Pixels whose products are summed in registers.
_TERMS = 256
# So many tasks keep all threads busy; and pixels of a task that are worth sums of their own.
_TASKS = 32
_PIXELS = 1024


@dataclass
class DepthwiseWeight:
    """One gradient.

    Arguments:
        whole: its operands and results.
        tiles: of a row of dy.
        held: rows of the kernel whose sums are held at a time.
    """

    whole: WeightGradient
    tiles: Sequence[Tiles]
    held: int

    @property
    def block(self) -> int:
        """Channels in a block."""
        return self.whole.x.block or 1

    @property
    def rows(self) -> Slide:
        """The windows down a map."""
        return self.whole.slides[0]

    @cached_property
    def chunks(self) -> dict[str, list[Span]]:
        """Samples and rows of dy of the tasks."""
        _, (height, width) = self.whole.extents
        samples = self.whole.binding.shape(self.whole.inputs[0])[0]
        tasks = self.whole.shape[0] // self.block
        wanted = min(-(-_TASKS // tasks), samples * height * width // _PIXELS)
        by_sample = max(1, min(wanted, samples))
        by_row = max(1, min(-(-wanted // by_sample), height))
        return {
            "n": balanced(samples, -(-samples // by_sample)),
            "p0": balanced(height, -(-height // by_row)),
        }

    @property
    def parts(self) -> int:
        """Sums for each result, of different pixels."""
        return math.prod(sum(s.count for s in spans) for spans in self.chunks.values())

    @cached_property
    def results(self) -> WeightResults:
        return WeightResults(self.whole.binding, self.whole.result, self.whole.is_flat, self.parts)

    def lower(self) -> Lowered:
        """The kernel."""
        whole, blocks = self.whole, self.whole.shape[0] // self.block
        spans = {"c": [Span(0, 1, blocks)], **self.chunks}
        body = over_spans(whole.binding, spans, self._task, LoopKind.PARALLEL)
        longest = max(tiles.length for tiles in self.tiles)
        note = f"depthwise {self.held}x{whole.op.kernel[1]} taps, {longest} pixels, channels"
        return whole.binding.finish(body + self.results.combine(), note)

    def _task(self, start: Starts, length: Lengths) -> ir.Block:
        """A block of channels, summed over some samples and rows."""
        binding, size = self.whole.binding, self.block
        height, width = self.whole.op.kernel
        sums = binding.local("sums", (height * width, size), self.whole.dtype, Space.STACK)
        sample, samples = binding.loop("n", length["n"])
        step: ir.Block = ()
        for kernel in balanced(height, self.held):
            for number in range(kernel.count):
                first = kernel.start + number * kernel.length
                step += self._rows(sums, start, length, sample, range(first, first + kernel.length))
        lane, tap = binding.var("v"), binding.var("t")
        zero = ir.Store(sums, (tap, lane), ir.Const(0.0, sums.dtype))
        clear = ir.For(tap, height * width, self._lanes(lane, (zero,)))
        column, row = binding.var("k"), binding.var("r")
        channel = start["c"] * size + column
        x = ir.Load(sums, (row, column))
        store = self.results.put(x, self._part(start), channel, row)
        rows = self.results.row_loop(row, height * width, store)
        finish = ir.loop_nest(((column, size),), rows)
        return (ir.Alloc(sums), clear, *ir.loop_nest(samples, step), *finish)

    def _part(self, start: Starts) -> Expr:
        """Number of the part of the pixels that a task sums."""
        part: Expr = ir.index(0)
        for name, spans in self.chunks.items():
            part = part * sum(s.count for s in spans) + start[name] // spans[0].length
        return part

    def _lanes(self, lane: ir.Var, body: ir.Block) -> ir.Block:
        return (ir.For(lane, self.block, body, LoopKind.VECTOR, self.whole.lanes),)

    def _rows(
        self, sums: ir.Buffer, start: Starts, length: Lengths, sample: Expr, kernel: range
    ) -> ir.Block:
        """Adds to the sums of some rows of the kernel the products of all rows of a sample."""
        whole, binding, lane = self.whole, self.whole.binding, self.whole.binding.var("v")
        width = whole.op.kernel[1]
        held = binding.local("held", (len(kernel) * width, self.block), whole.dtype, Space.REGISTER)
        at_a_time = max(1, _TERMS // max(1, whole.extents[1][1]))
        body: ir.Block = ()
        for span in balanced(length["p0"], at_a_time):
            number, blocks = binding.loop("h", span.count)
            row, rows = binding.loop("r", span.length)
            place = start["p0"] + (number * span.length + span.start) + row
            clear: ir.Block = ()
            add: ir.Block = ()
            for i in range(len(kernel) * width):
                clear += (ir.Store(held, (ir.index(i), lane), ir.Const(0.0, held.dtype)),)
                index = (ir.index(kernel.start * width + i), lane)
                load = ir.Load(held, (ir.index(i), lane))
                add += (ir.Accumulate(sums, index, ReduceOp.ADD, load),)
            products = self._row(held, start["c"], start["n"] + sample, place, kernel)
            inside = (
                ir.Alloc(held),
                *self._lanes(lane, clear),
                *ir.loop_nest(rows, products),
                *self._lanes(lane, add),
            )
            body += ir.loop_nest(blocks, inside)
        return body

    def _row(
        self, held: ir.Buffer, block: Expr, sample: Expr, row: Expr, kernel: range
    ) -> ir.Block:
        """The products of a row of dy."""
        whole, binding = self.whole, self.whole.binding
        dy, extent = reader(binding, whole.inputs[1]), whole.extents[0][0]
        low, high = self.rows.reads(self.rows.count)
        places: list[tuple[int, Expr]] = []
        checks: list[list[Expr]] = []
        for tap in kernel:
            place = self.rows.input_place(row, ir.index(tap))
            places.append((tap - kernel.start, place))
            tests = ((place >= 0, low < 0), (place < extent, high > extent))
            checks.append([condition for condition, is_needed in tests if is_needed])
        every = [condition for check in checks for condition in check]
        body: ir.Block = ()
        for tiles in self.tiles:
            number, loops = binding.loop("w", tiles.count)
            start, lane = number * tiles.length + tiles.start, binding.var("v")
            pixels: list[ir.Stmt] = []
            signals: dict[int, Expr] = {}
            for result in sorted({tap.result for tap in tiles.taps}):
                value = dy((sample, block, row, start + result, lane))
                signals[result] = self._name("dy", value, pixels)
            index = (sample, block, start * whole.slides[1].stride, lane)
            inside = self._products(held, tiles, places, signals, index)
            if every:
                apart: ir.Block = ()
                for check, at in zip(checks, places, strict=True):
                    apart += guarded(check, self._products(held, tiles, [at], signals, index))
                inside = (ir.If(reduce(and_, every), inside, apart),)
            body += ir.loop_nest(loops, self._lanes(lane, (*pixels, *inside)))
        return body

    def _products(
        self,
        held: ir.Buffer,
        tiles: Tiles,
        rows: Sequence[tuple[int, Expr]],
        signals: Mapping[int, Expr],
        index: tuple[Expr, Expr, Expr, ir.Var],
    ) -> ir.Block:
        """The products of a tile for some rows of the kernel, whose sums take turns."""
        x, width = reader(self.whole.binding, self.whole.inputs[0]), self.whole.op.kernel[1]
        sample, block, column, lane = index
        body: list[ir.Stmt] = []
        for offset, group in groupby(tiles.taps, key=lambda tap: tap.column):
            taps = tuple(group)
            for number, place in rows:
                value = self._name("x", x((sample, block, place, column + offset, lane)), body)
                for tap in taps:
                    at = (ir.index(number * width + tap.kernel), lane)
                    both = ir.binary(ir.BinaryOp.MUL, value, signals[tap.result])
                    body.append(ir.Accumulate(held, at, ReduceOp.ADD, both))
        return tuple(body)

    def _name(self, hint: str, value: Expr, body: list[ir.Stmt]) -> Expr:
        var = ir.Var(self.whole.binding.var(hint).name, self.whole.dtype)
        body.append(ir.Let(var, value))
        return var


def depthwise_weight(whole: WeightGradient) -> DepthwiseWeight | None:
    """How a gradient is computed; None if not here: the convolution is not depthwise, say."""
    x, dy = (whole.binding.shape(value) for value in whole.inputs)
    blocks = {operand.block for operand in (whole.x, whole.dy)}
    same = whole.op.groups == whole.shape[0] and whole.shape[1] == 1 and len(blocks) == 1
    if not same or None in blocks or blocks == {1} or len(whole.slides) != 2 or len(x) != 5:
        return None
    height, width = whole.op.kernel
    if width > _LONGEST or 0 in (*x, *dy):
        return None
    vectors = -(-x[-1] // whole.lanes)
    held = max(1, min(height, _HELD // (width * vectors)))
    most = max(1, whole.binding.target.registers // vectors - held * width - _OTHERS)
    line = Line((whole.slides[1],), dy[3], x[3])
    found = []
    for length in range(1, min(most, line.extent) + 1):
        tiles = line.tiles(length)
        if len(tiles) <= _EDGES:
            found.append((sum(_cost(each, held) for each in tiles), -length, tiles))
    if not found:
        return None
    return DepthwiseWeight(whole, min(found, key=lambda each: each[:2])[-1], held)


def _cost(tiles: Tiles, held: int) -> float:
    """Cycles of all of these tiles."""
    columns = {tap.column for tap in tiles.taps}
    products, loads = held * len(tiles.taps), held * len(columns) + tiles.length
    return tiles.count * (max(products, loads) / 2 + _TILE)
