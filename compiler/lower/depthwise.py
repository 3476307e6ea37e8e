"""Depthwise convolution, and its transpose by x, in blocks of channels.

Each channel is a sum of its own, so that the channels of a block are the lanes of a vector, and
what is used again and again is x: a tile is some neighbouring results of a row, held in registers.
For each row of the kernel its weights are held, too, and each column of x is loaded once for all
taps that read it.

Where windows leave the input, taps are left out: along a row the tiles at the edges are code of
their own, and rows of the kernel that are outside are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Expr, LoopKind, ReduceOp, Space
from ..ops.conv import Conv
from .epilogue import store_results
from .index import Index
from .padding import reader
from .slide import Slide, forward_slides, transposed_slides
from .windows import guarded

if TYPE_CHECKING:
    from .binding import Lowered
    from .blocked_conv import BlockedGather

# Weights of a row of the kernel that are held in registers, if they are no more.
_HELD = 8
# The longest row of a kernel that is written out, and the most products of a tile that are.
_LONGEST = 16
_WRITTEN_OUT = 128
# The most tiles of a row that are code of their own.
_EDGES = 6
# Cycles that a tile costs beside its sum.
_TILE = 10
# So many tasks keep all threads busy.
_TASKS = 32


@dataclass(frozen=True)
class Tap:
    """A product of a tile.

    Arguments:
        result: number of the result in its tile.
        column: of x, from that of the tile on.
        kernel: place in the row of the kernel.
    """

    result: int
    column: int
    kernel: int


@dataclass(frozen=True)
class Line:
    """The results along the last axis.

    Result q * period + r is one of slide r: it reads from place q * stride on.

    Arguments:
        slides: one a remainder of the results' places.
        extent: number of results.
        source: number of places that can be read.
    """

    slides: tuple[Slide, ...]
    extent: int
    source: int

    @property
    def period(self) -> int:
        return len(self.slides)

    @property
    def stride(self) -> int:
        return self.slides[0].stride

    def taps(self, length: int) -> Iterator[Tap]:
        """The taps of so many results from a multiple of the period on."""
        for result in range(length):
            slide = self.slides[result % self.period]
            first = result // self.period * slide.stride + slide.first
            for t in range(slide.taps):
                yield Tap(result, first + t * slide.dilation, slide.kernel[0] + t * slide.kernel[1])

    def inside(self, start: int, length: int) -> tuple[Tap, ...]:
        """The taps of results from `start` on that read no padding, by columns."""
        column = start // self.period * self.stride
        taps = (t for t in self.taps(length) if 0 <= column + t.column < self.source)
        return tuple(sorted(taps, key=lambda tap: (tap.column, tap.result)))

    def tiles(self, length: int) -> list[Tiles]:
        """All results in tiles of a length: those in a row that read the same are a loop."""
        found: list[Tiles] = []
        for start in range(0, self.extent, length):
            size = min(length, self.extent - start)
            taps = self.inside(start, size)
            last = found[-1] if found else None
            if last is not None and (last.length, last.taps) == (size, taps):
                found[-1] = Tiles(last.start, size, last.count + 1, taps)
            else:
                found.append(Tiles(start, size, 1, taps))
        return found


@dataclass(frozen=True)
class Tiles:
    """Tiles side by side.

    Arguments:
        start: the first result.
        length: results of a tile.
        count: number of tiles.
        taps: of each of them, sorted by columns.
    """

    start: int
    length: int
    count: int
    taps: tuple[Tap, ...]

    def cost(self, rows: int) -> float:
        """Cycles, for a kernel of so many rows."""
        weights = {tap.kernel for tap in self.taps}
        columns = {tap.column for tap in self.taps}
        held = len(weights) if len(weights) <= _HELD else len(self.taps)
        step = max(len(self.taps), len(columns) + held, 4) / 2
        return self.count * (rows * step + self.length + _TILE)


@dataclass(frozen=True)
class Form:
    """How a depthwise convolution is computed.

    Arguments:
        axes: the spatial ones.
        tiles: of a row.
    """

    axes: tuple[Line, ...]
    tiles: tuple[Tiles, ...]

    @property
    def periods(self) -> tuple[int, ...]:
        """Along each axis of rows."""
        return tuple(max(slide.count for slide in axis.slides) for axis in self.axes[:-1])

    @property
    def note(self) -> str:
        return f"depthwise {max(tiles.length for tiles in self.tiles)} pixels, channels"


@dataclass
class Depthwise:
    """The results of a depthwise convolution, row by row.

    Arguments:
        conv: the convolution.
        form: how it is computed.
        read: x at (*rows, column) of its spatial axes and a lane.
        block: number of the block of channels.
        write: what is done with a result, given its spatial place and lane.
    """

    conv: BlockedGather
    form: Form
    read: Callable[[Index, Expr], Expr]
    block: Expr
    write: Callable[[Expr, Index, Expr], ir.Block]

    @property
    def size(self) -> int:
        """Channels in a block of results."""
        return self.conv.blocked_op.block

    def rows(self, first: Sequence[Expr], counts: Sequence[int], tasks: int) -> ir.Block:
        """Rows of results.

        Arguments:
            first: along each axis of rows, the first period.
            counts: how many periods.
            tasks: how often that many along the last axis of rows.
        """
        axes = self.form.axes[:-1]
        reached = [*self.form.periods[:-1], *(n * tasks for n in counts[-1:])]
        nest: ir.Loops = ()
        periods: list[Expr] = []
        for axis, start, count in zip("dh"[-len(axes) :], first, counts, strict=bool(axes)):
            number, loops = self.conv.binding.loop(axis, count)
            nest += loops
            periods.append(start + number)
        body: ir.Block = ()
        for slides in product(*(axis.slides for axis in axes)):
            checks = [
                period < slide.count
                for period, slide, end in zip(periods, slides, reached, strict=True)
                if slide.count < end
            ]
            body += guarded(checks, self.row(periods, slides))
        return ir.loop_nest(nest, body)

    def row(self, periods: Sequence[Expr], slides: Sequence[Slide]) -> ir.Block:
        """One row of results.

        Arguments:
            periods: the place along each axis of rows, in periods.
            slides: the remainder along each axis of rows.
        """
        line = self.form.axes[-1]
        body: ir.Block = ()
        for tiles in self.form.tiles:
            number, loops = self.conv.binding.loop("w", tiles.count)
            start = number * tiles.length + tiles.start
            column = number * (tiles.length // line.period * line.stride)
            column = column + tiles.start // line.period * line.stride
            tile = self.tile(tiles, start, column, periods, slides)
            body += ir.loop_nest(loops, tile)
        return body

    def tile(
        self,
        tiles: Tiles,
        start: Expr,
        column: Expr,
        periods: Sequence[Expr],
        slides: Sequence[Slide],
    ) -> ir.Block:
        """One tile: results from `start` on, which read from `column` on."""
        conv, lane = self.conv, self.conv.binding.var("v")
        sums = conv.binding.local("tile", (tiles.length, self.size), conv.dtype, Space.REGISTER)
        zero = ir.Const(0.0, conv.dtype)
        clear = (ir.Store(sums, (ir.index(i), lane), zero) for i in range(tiles.length))
        products = self.add_up(tiles, column, periods, slides, sums, lane)
        places = [s.output_place(p) for s, p in zip(slides, periods, strict=True)]
        results: ir.Block = ()
        for i in range(tiles.length):
            x = ir.Load(sums, (ir.index(i), lane))
            results += self.lanes(lane, self.write(x, (*places, start + i), lane))
        return (ir.Alloc(sums), *self.lanes(lane, tuple(clear)), *products, *results)

    def lanes(self, lane: ir.Var, body: ir.Block) -> ir.Block:
        """The loop over the channels of a block."""
        return (ir.For(lane, self.size, body, LoopKind.VECTOR, self.conv.lanes),)

    def add_up(
        self,
        tiles: Tiles,
        column: Expr,
        periods: Sequence[Expr],
        slides: Sequence[Slide],
        sums: ir.Buffer,
        lane: ir.Var,
    ) -> ir.Block:
        """Adds all products to the sums of a tile."""
        rows, kernel, nest, checks = self.kernel_rows(periods, slides)
        step = self.lanes(lane, self._step(tiles, column, rows, kernel, sums, lane))
        taps = len(tiles.taps) * math.prod(s.taps for s in slides)
        kind = LoopKind.UNROLLED if taps <= _WRITTEN_OUT else LoopKind.SERIAL
        return ir.loop_nest(nest, guarded(checks, step), kind)

    def kernel_rows(
        self, periods: Sequence[Expr], slides: Sequence[Slide]
    ) -> tuple[list[Expr], list[Expr], ir.Loops, list[Expr]]:
        """The rows of x and of the kernel, loops over them, and when they are inside."""
        nest: ir.Loops = ()
        rows: list[Expr] = []
        kernel: list[Expr] = []
        checks: list[Expr] = []
        for axis, period, slide in zip(self.form.axes[:-1], periods, slides, strict=True):
            number = self.conv.binding.var("k")
            nest += ((number, slide.taps),)
            rows.append(slide.input_place(period, number))
            kernel.append(slide.kernel_place(number))
            low, high = slide.reads(slide.count)
            checks += [rows[-1] >= 0] if low < 0 else []
            checks += [rows[-1] < axis.source] if high > axis.source else []
        return rows, kernel, nest, checks

    def _step(
        self,
        tiles: Tiles,
        column: Expr,
        rows: Sequence[Expr],
        kernel: Sequence[Expr],
        sums: ir.Buffer,
        lane: ir.Var,
    ) -> ir.Block:
        """The products of a row of the kernel."""
        conv, binding = self.conv, self.conv.binding
        of_panel = binding.shape(conv.weight)[-1] // self.size
        place = (self.block // of_panel, self.block % of_panel * self.size + lane)

        def weight(number: int) -> Expr:
            index = (ir.index(0), place[0], ir.index(0), *kernel, ir.index(number), place[1])
            return conv.weight_of(index)

        body: list[ir.Stmt] = []
        held: dict[int, Expr] = {}

        def name(hint: str, value: Expr) -> Expr:
            var = ir.Var(binding.var(hint).name, conv.dtype)
            body.append(ir.Let(var, value))
            return var

        weights = sorted({tap.kernel for tap in tiles.taps})
        if len(weights) <= _HELD:
            held = {number: name("weight", weight(number)) for number in weights}
        for offset, taps in groupby(tiles.taps, key=lambda tap: tap.column):
            x = name("x", self.read((*rows, column + offset), lane))
            for tap in taps:
                w = held[tap.kernel] if held else weight(tap.kernel)
                index, value = (ir.index(tap.result), lane), ir.binary(ir.BinaryOp.MUL, x, w)
                body.append(ir.Accumulate(sums, index, ReduceOp.ADD, value))
        return tuple(body)


def depthwise_form(conv: BlockedGather, edges: int | None = _EDGES) -> Form | None:
    """How a depthwise convolution is computed; None if not here.

    Arguments:
        conv: the convolution, or its transpose by x.
        edges: the most tiles of a row that are code of their own.
    """
    kernel, source = conv.blocked_op.weight[2:], conv.source_shape[2:-1]
    panel, size = conv.binding.shape(conv.weight)[-1], conv.source_shape[-1]
    if conv.flat or size == 1 or size != conv.blocked_op.block or panel % size:
        return None
    if kernel[-1] > _LONGEST or 0 in conv.shape:
        return None
    window, spatial = conv.op.window(kernel), conv.shape[2:]
    slides: Sequence[tuple[Slide, ...]]
    if isinstance(conv.op, Conv):
        slides = [(slide,) for slide in forward_slides(window, source)]
    else:
        slides = transposed_slides(window, spatial)
    axes = tuple(Line(*axis) for axis in zip(slides, spatial, source, strict=True))
    held = kernel[-1] if kernel[-1] <= _HELD else 1
    # Beside sums and weights: a column of x, and the next one, which LLVM loads ahead.
    most = max(1, conv.binding.target.registers // -(-size // conv.lanes) - held - 2)
    height = math.prod(max(slide.taps for slide in axis.slides) for axis in axes[:-1])
    tiles = _tiles(axes[-1], most, height, edges)
    return Form(axes, tuple(tiles)) if tiles else None


def _tiles(line: Line, most: int, height: int, edges: int | None) -> list[Tiles]:
    """The fastest tiles of at most so many results for a kernel of so many rows."""
    found = []
    for length in range(1, min(max(most, line.period), line.extent) + 1):
        if length % line.period == 0 or length == line.extent:
            tiles = line.tiles(length)
            if edges is None or len(tiles) <= edges:
                found.append((sum(each.cost(height) for each in tiles), -length, tiles))
    return min(found, key=lambda each: each[:2])[-1] if found else []


def lower_depthwise(conv: BlockedGather, form: Form) -> Lowered:
    """The kernel of a depthwise convolution and its epilogue, which reads x in memory."""
    binding = conv.binding
    periods = form.periods
    others = math.prod((conv.shape[0], conv.source_shape[1], *periods[:-1]))
    height = -(-periods[-1] // min(-(-_TASKS // others), periods[-1])) if periods else 1
    bands = -(-periods[-1] // height) if periods else 1
    sample, block = binding.var("n"), binding.var("c")
    loops: ir.Loops = ((sample, conv.shape[0]), (block, conv.source_shape[1]))
    first: list[Expr] = []
    for count in [*periods[:-1], bands][: len(periods)]:
        task, loop = binding.loop("band", count)
        loops += loop
        first.append(task)
    if first:
        first[-1] = first[-1] * height
    x = reader(binding, conv.source)

    def write(result: Expr, place: Index, lane: Expr) -> ir.Block:
        return store_results(binding, {conv.result: result}, (sample, block, *place, lane))

    kernel = Depthwise(conv, form, lambda p, lane: x((sample, block, *p, lane)), block, write)
    body = kernel.rows(first, [*(1 for _ in periods[:-1]), height][: len(periods)], bands)
    return binding.finish(ir.loop_nest(loops, body, LoopKind.PARALLEL), form.note)
