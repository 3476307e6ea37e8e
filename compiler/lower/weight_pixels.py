"""The products of a block of pixels, for the gradient by a convolution's weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Expr, LoopKind, ReduceOp, Space
from .tile import Columns, clear
from .weight_ahead import ask_ahead
from .weight_results import Lengths, Starts, over_spans
from .window_copy import Reach, Run, WindowCopy
from .windows import guarded

if TYPE_CHECKING:
    from .conv_weight import Task


@dataclass
class PixelBlock:
    """The products of a block of pixels of a task.

    Arguments:
        task: the task.
        start: the first sample and pixel.
        length: how many.
    """

    task: Task
    start: Starts
    length: Lengths

    def __post_init__(self) -> None:
        self.whole, self.form = self.task.whole, self.task.form
        names = [name for name in self.form.pixels if name != "n"]
        extents, _ = self.whole.extents
        self.pixels = names
        self.reaches = [
            Reach(slide, extent, self.length[name])
            for slide, extent, name in zip(self.whole.slides, extents, names, strict=True)
        ]
        self.samples = self.length["n"]
        self.band = self.task.band

    @property
    def starts(self) -> list[Expr]:
        return [self.start[name] for name in self.pixels]

    def lower(self) -> ir.Block:
        body: ir.Block = () if self.band is None else self._copy_x(self.band)
        for number, span in enumerate(self.task.panels):
            panel = self.task.var("panel")
            at = panel + span.start // self.form.panel
            inside = self._panel(at, span.length, self.task.width(number))
            body += ir.loop_nest(((panel, span.count),), inside)
        return body

    def _panel(self, number: Expr, length: int, width: int) -> ir.Block:
        """All tiles of a panel of output channels."""
        copy, dy = self._dy(number, length, width)
        boxes = self.form.boxes(self.task.blocks, -(-width // self.form.lanes))

        def tile(start: Starts, box: Lengths) -> ir.Block:
            share = ask_ahead(self.task, (number, length), boxes, start)
            share = guarded(self.task.is_last(self.start), share) if share else ()
            return share + self._tile(number, width, start, box, dy)

        return copy + over_spans(self.whole.binding, boxes, tile)

    # -- operands ---------------------------------------------------------------------------------

    def _dy(self, number: Expr, length: int, width: int) -> tuple[ir.Block, Callable[..., Expr]]:
        """Makes dy readable: what does so, and its elements by sample, pixel and column."""
        first = self.task.start["k"] + number * self.form.panel
        if not self.form.spread:
            first = self.task.start["g"] * (self.whole.shape[0] // self.whole.op.groups) + first

        def at(sample: Expr, places: Sequence[Expr], column: Expr) -> Expr:
            where = [i + s for i, s in zip(places, self.starts, strict=True)]
            return self.whole.dy.at(self.start["n"] + sample, first + column, where)

        copy = self.task.packed
        if copy is None:
            return (), at
        extents = [self.length[name] for name in self.pixels]
        loops = [(self.task.var("n"), self.samples)]
        loops += [(self.task.var(n), e) for n, e in zip(self.pixels, extents, strict=True)]
        index = tuple(var for var, _ in loops)
        lane = self.task.var("v")
        body: ir.Block = ()
        zero: Expr = ir.Const(0.0, self.whole.dtype)
        for begin, count in ((0, length), (length, width - length)):
            if count:
                x = at(index[0], index[1:], lane) if begin == 0 else zero
                store = ir.Store(copy, (*index, lane + begin), x)
                body += (ir.For(lane, count, (store,), LoopKind.VECTOR, self.form.lanes),)

        def packed(sample: Expr, places: Sequence[Expr], column: Expr) -> Expr:
            assert copy is not None
            return ir.Load(copy, (sample, *places, column))

        return ir.loop_nest(tuple(loops), body), packed

    def _copy_x(self, band: Buffer) -> ir.Block:
        """Copies what the windows read."""
        lanes = band.shape[-1]
        block, sample = self.task.var("c"), self.task.var("n")
        zero = ir.Const(0.0, self.whole.dtype)

        def copy(rows: Sequence[tuple[Expr, Expr]], run: Run) -> ir.Block:
            return self._copy_run(band, block, sample, rows, run)

        def clear(rows: Sequence[tuple[Expr, Expr]], run: Run) -> ir.Block:
            place, lane = self.task.var("w"), self.task.var("v")
            index = (block, sample, *(row for row, _ in rows), run.start + place, lane)
            return self._lanes(place, run.length, lane, lanes, (ir.Store(band, index, zero),))

        windows = WindowCopy(self.reaches, copy, clear, self.task.var)
        loops = ((block, self.task.blocks), (sample, self.samples))
        return ir.loop_nest(loops, windows.write(self.starts))

    def _copy_run(
        self,
        band: Buffer,
        block: Expr,
        sample: Expr,
        rows: Sequence[tuple[Expr, Expr]],
        run: Run,
    ) -> ir.Block:
        """Neighbouring places of all channels of a block."""
        number, lane = self.task.var("w"), self.task.var("v")
        place, source = run.place(number)
        where = (*(at for _, at in rows), source)
        into = (block, sample, *(row for row, _ in rows), place)
        at = self.start["n"] + sample
        channels = self.whole.shape[0] // self.whole.op.groups
        depth, number_of_block = self.whole.shape[1], self.task.start["c"] + block
        if not self.form.spread:
            first = self.task.start["g"] * depth + number_of_block * self.form.inner
            x = self.whole.x.at(at, first + lane, where)
            store = ir.Store(band, (*into, lane), x)
            return self._lanes(number, run.length, lane, self.form.inner, (store,))
        if channels == 1:  # a lane is a group
            channel = (self.task.start["k"] + lane) * depth + number_of_block
            store = ir.Store(band, (*into, lane), self.whole.x.at(at, channel, where))
            return self._lanes(number, run.length, lane, self.form.lanes, (store,))
        group = self.task.var("q")
        first = (self.task.start["k"] // channels + group) * depth + number_of_block
        x = self.whole.x.at(at, first, where)
        store = ir.Store(band, (*into, group * channels + lane), x)
        inside = ir.For(lane, channels, (store,), LoopKind.VECTOR, self.form.lanes)
        loop = ir.For(group, self.form.lanes // channels, (inside,), LoopKind.UNROLLED)
        return (ir.For(number, run.length, (loop,)),)

    def _lanes(
        self, place: ir.Var, count: int, lane: ir.Var, lanes: int, body: ir.Block
    ) -> ir.Block:
        """Loops over places and their lanes, whichever are more in vectors."""
        width = self.form.lanes
        if lanes == 1:
            one = ir.For(lane, 1, body, LoopKind.UNROLLED)
            return (ir.For(place, count, (one,), LoopKind.VECTOR, width),)
        inside = (ir.For(lane, lanes, body, LoopKind.VECTOR, width),)
        return (ir.For(place, count, inside),)

    def _x(self, sample: Expr, places: Sequence[Expr], row: Mapping[str, Expr], v: Expr) -> Expr:
        """What row `row` of a tile reads for a pixel."""
        taps = [row[f"t{name}"] for name in self.pixels]
        lane = v if self.form.spread else row["i"]
        if self.band is not None:
            at = (r.place(o, t) for r, o, t in zip(self.reaches, places, taps, strict=True))
            return ir.Load(self.band, (row["c"], sample, *at, lane))
        first = self.task.start["g"] * self.whole.shape[1]
        channel = first + (self.task.start["c"] + row["c"]) * self.form.inner + lane
        where = [i + s for i, s in zip(places, self.starts, strict=True)]
        return self.whole.x.at(self.start["n"] + sample, channel, where)

    # -- tiles ------------------------------------------------------------------------------------

    def _tile(
        self, panel: Expr, width: int, start: Starts, box: Lengths, dy: Callable[..., Expr]
    ) -> ir.Block:
        """Sums of a box of rows and a panel of columns, then added to those on the stack, if these
        are of other pixels.
        """
        form, dtype = self.form, self.whole.dtype
        columns = Columns(width, form.lanes, dtype)
        loops = [(name, self.task.var(name), n) for name, n in box.items() if n > 1]
        row = dict(start)
        number: Expr = ir.index(0)
        for name, var, n in loops:
            row[name] = row[name] + var
            number = number * n + var
        rows = tuple((var, n) for _, var, n in loops)
        count = math.prod(n for _, n in rows)
        tile = self.whole.binding.local("tile", (count, width), dtype, Space.REGISTER)
        lane, sample = self.task.var("v"), self.task.var("n")
        pixels = [self.task.var(name) for name in self.pixels]
        step: dict[int, ir.Block] = {}
        finish: dict[int, ir.Block] = {}
        place: Expr = row["c"] * form.inner + row["i"]
        for name, slide in zip(self.pixels, self.whole.slides, strict=True):
            place = place * slide.taps + row[f"t{name}"]
        for first, _ in columns.parts:
            column = lane + first
            x = self._x(sample, pixels, row, column)
            product = ir.binary(BinaryOp.MUL, x, dy(sample, pixels, column))
            step[first] = (ir.Accumulate(tile, (number, column), ReduceOp.ADD, product),)
            load, at = ir.Load(tile, (number, column)), (panel, place, column)
            if self.task.is_one_block:
                finish[first] = (ir.Store(self.task.sums, at, load),)
            else:
                finish[first] = (ir.Accumulate(self.task.sums, at, ReduceOp.ADD, load),)
        body = ir.loop_nest(rows, columns.each(lane, step), LoopKind.UNROLLED)
        outer = [(sample, self.samples)]
        outer += [(v, self.length[n]) for v, n in zip(pixels, self.pixels, strict=True)]
        return (
            *clear(tile, count, columns, self.task.var("m"), lane),
            *ir.loop_nest(tuple(outer), body),
            *ir.loop_nest(rows, columns.each(lane, finish), LoopKind.UNROLLED),
        )
