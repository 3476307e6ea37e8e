"""The tasks of a convolution in blocks of channels: their loops, and what they keep on the stack.

Inside of a task, places along the axes of the result count from the task's first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..types import Shape
from .ahead import ask_ahead
from .contraction import Axis, Block, Place, Tiling, register_tile
from .cut import Cut, Work
from .elements import Index
from .epilogue import store_results
from .tile import Columns, Span
from .window_copy import Reach, Run, WindowCopy
from .windows import guarded

if TYPE_CHECKING:
    from .blocked_conv import BlockedGather
    from .gather import Part


def divided(channel: Expr, block: int) -> tuple[Expr, Expr]:
    """The block a channel is in, and its place there."""
    whole, rest = _multiples(channel, block)
    return whole + rest // block, rest % block


def _multiples(number: Expr, by: int) -> tuple[Expr, Expr]:
    """(a, b) so that a number is a * by + b, with as much as is seen in a."""
    zero = ir.index(0)
    if isinstance(number, ir.Const):
        return ir.index(int(number.value) // by), ir.index(int(number.value) % by)
    if isinstance(number, ir.Binary) and number.op is ir.BinaryOp.ADD:
        (a, b), (c, d) = _multiples(number.a, by), _multiples(number.b, by)
        return a + c, b + d
    if isinstance(number, ir.Binary) and number.op is ir.BinaryOp.MUL:
        factor = number.b
        if isinstance(factor, ir.Const) and int(factor.value) % by == 0:
            return number.a * (int(factor.value) // by), zero
    return zero, number


@dataclass(frozen=True)
class _Overhanging(Reach):
    """A reach that is checked to be inside."""

    @property
    def is_inside(self) -> bool:
        return False


@dataclass
class Tasks:
    """The tasks of all results that are computed in tiles of one width.

    Arguments:
        conv: the kernel.
        part: the outputs.
        tiling: their tiles.
        wanted: chunks of input channels, those of the other tiles; None for the first ones.
    """

    conv: BlockedGather
    part: Part
    tiling: Tiling
    wanted: int | None = None
    loops: ir.Loops = ()

    # -- axes -------------------------------------------------------------------------------------

    @cached_property
    def line(self) -> Axis:
        """The axis along which tiles lie."""
        return self.part.outputs[-1]

    @cached_property
    def rows(self) -> tuple[Axis, ...]:
        """The other axes of a map."""
        return self.part.outputs[:-1]

    @cached_property
    def band(self) -> Axis:
        """The axis that is cut into bands."""
        return self.part.outputs[-2] if self.rows else self.line

    def spans(self, axis: Axis) -> tuple[Span, ...]:
        """Blocks of an axis."""
        return tuple(self.tiling.blocks[axis])

    def bands(self) -> int:
        """Number of places along the banded axis, or of blocks of a line."""
        return self.spans(self.band)[0].count

    def length(self, axis: Axis, band: int) -> int:
        """Places along an axis that a task takes whose bands are so high."""
        if axis is self.band and self.rows:
            return band
        if axis is self.band:
            first, *rest = self.spans(axis)
            return min(band, first.count) * first.length + sum(s.length for s in rest)
        return axis.extent if axis is self.line else 1

    def first(self, axis: Axis, task: Expr) -> Expr:
        """The first place along an axis that a task takes."""
        if axis is not self.band:
            return task
        return task * self.length_of_band

    def conditions(self, axis: Axis, place: Expr) -> list[Expr]:
        """What must hold for a place along an axis of rows to be one."""
        if axis is self.band and axis.extent % self.cut.rows:
            return [self.origin[axis] + place < axis.extent]
        return []

    # -- cuts -------------------------------------------------------------------------------------

    def reaches(self, band: int) -> list[Reach]:
        """What a task reads along each spatial axis."""
        return [
            Reach(slide, extent, self.length(axis, band))
            for slide, extent, axis in zip(
                self.part.slides, self.conv.source_shape[2:], self.part.outputs, strict=False
            )
        ]

    def copied_reaches(self) -> list[Reach]:
        """The same, for tasks that may lie beyond the result."""
        reaches = self.reaches(self.cut.rows)
        exact = [not axis_is_cut for axis_is_cut in map(self.overhangs, self.part.outputs)]
        return [
            reach if is_exact else _Overhanging(reach.slide, reach.extent, reach.length)
            for reach, is_exact in zip(reaches, exact, strict=True)
        ]

    def overhangs(self, axis: Axis) -> bool:
        """Whether the last task along an axis, or the first, lies in part beyond the result."""
        whole = self.tasks[axis][1] * self.length(axis, self.cut.rows) if axis in self.tasks else 0
        return whole > axis.extent

    @cached_property
    def is_padded(self) -> bool:
        """Whether windows leave the input."""
        return not all(reach.is_inside for reach in self.reaches(1))

    @cached_property
    def is_copied(self) -> bool:
        """Whether tasks copy what they read: it is padded, or computed on the way."""
        return self.is_padded or self.conv.is_computed

    @cached_property
    def joins_batch(self) -> bool:
        """Whether tiles lie across samples."""
        return any(span.length > 1 for span in self.spans(self.conv.batch))

    @cached_property
    def unit_channels(self) -> int:
        return self.tiling.columns.length if self.conv.is_depthwise else self.conv.unit

    @cached_property
    def units(self) -> int:
        """Units of input channels that may be cut."""
        whole = self.conv.unit % self.conv.source_shape[-1] or self.joins_batch
        return 1 if whole or self.conv.is_depthwise else self.conv.depth.extent

    @cached_property
    def cut(self) -> Cut:
        conv, form = self.conv, self.part.form
        size = conv.dtype.size
        width = form.whole(self.tiling.columns.length)
        channels = self.unit_channels if conv.is_depthwise else conv.channels // self.units
        taps = math.prod(axis.extent for axis in self.part.taps)
        samples = 1 if self.joins_batch else conv.batch.extent

        def pixels(band: int) -> int:
            return math.prod(self.length(axis, band) for axis in self.part.outputs)

        def read(band: int) -> int:
            *outer, line = self.reaches(band)
            pixels = line.size if self.is_copied else line.size * line.slide.stride
            return channels * size * pixels * math.prod(reach.size for reach in outer)

        work = Work(
            rows=self.bands(),
            panels=self.tiling.columns.count,
            units=self.units,
            others=conv.group.extent * samples * self.others,
            cycles=lambda band: pixels(band) * width * form.depth / (2 * form.lanes),
            input=read,
            weights=channels * taps * width * size,
            sums=lambda band: pixels(band) * width * size,
            copied=self.is_copied,
            kept=self.keeps_sums,
            own_input=conv.is_depthwise,
            chunks=self.wanted,
        )
        found = work.cut()
        return found if found is not None else Cut(1, 1, 1)

    @property
    def others(self) -> int:
        """Tasks for each band."""
        return math.prod(axis.extent for axis in self.rows[:-1])

    @property
    def keeps_sums(self) -> bool:
        return False

    # -- loops ------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> dict[Axis, tuple[Expr, int]]:
        """The parallel loops: those over bands and over channels, whichever reads less, inside."""
        conv, cut = self.conv, self.cut
        counts = {conv.group: conv.group.extent}
        if not self.joins_batch:
            counts[conv.batch] = conv.batch.extent
        counts |= dict(zip(self.rows[:-1], self.others_of, strict=True))
        last = {
            self.band: -(-self.bands() // cut.rows),
            conv.channel: -(-self.tiling.columns.count // cut.panels),
        }
        pixels = math.prod(conv.source_shape[2:-1])
        if conv.channel.extent * math.prod(axis.extent for axis in self.part.taps) > pixels:
            last = dict(reversed(last.items()))
        counts |= last
        found: dict[Axis, tuple[Expr, int]] = {}
        for axis, count in counts.items():
            task, loops = conv.binding.loop(axis.name, count)
            self.loops += loops
            found[axis] = task, count
        return found

    @property
    def others_of(self) -> list[int]:
        """Tasks along each axis of rows but the last."""
        return [axis.extent for axis in self.rows[:-1]]

    @cached_property
    def origin(self) -> dict[Axis, Expr]:
        """The first place of the task along each axis."""
        found: dict[Axis, Expr] = dict.fromkeys(self.part.form.outputs, ir.index(0))
        for axis, (task, _) in self.tasks.items():
            found[axis] = task
        for axis in (*self.rows, self.band):
            found[axis] = self.first(axis, self.tasks[axis][0])
        channel = self.tasks[self.conv.channel][0] * (self.cut.panels * self.part.form.panel)
        found[self.conv.channel] = channel + self.tiling.columns.start
        return found

    @cached_property
    def chunk(self) -> ir.Var:
        """Which of the chunks of input channels."""
        return self.conv.binding.var("chunk")

    @property
    def chunks(self) -> int:
        return self.units // self.cut.units

    @cached_property
    def first_unit(self) -> Expr:
        return self.chunk * self.cut.units if self.chunks > 1 else ir.index(0)

    def lower(self) -> ir.Block:
        """All tasks."""
        if not self.bands():
            return ()
        step = (*self.copy(), *self.tiles(self.compute))
        if self.sums is None:
            body = step
        else:
            body = (ir.Alloc(self.sums), *self.clear_sums(), *self.over_chunks(step))
            body += self.finish()
        if self.copied is not None:
            body = (ir.Alloc(self.copied), *body)
        return ir.loop_nest(self.loops, body, LoopKind.PARALLEL)

    def over_chunks(self, step: ir.Block) -> ir.Block:
        return (ir.For(self.chunk, self.chunks, step),) if self.chunks > 1 else step

    def over_panels(self, body: Callable[[Expr], ir.Block]) -> ir.Block:
        """Loops over the panels of a task."""
        count, panels = self.tiling.columns.count, self.cut.panels
        panel, loops = self.conv.binding.loop("panel", panels)
        inside = body(panel)
        if count % panels:
            task, _ = self.tasks[self.conv.channel]
            inside = (ir.If(task * panels + panel < count, inside),)
        return ir.loop_nest(loops, inside)

    def over_rows(self, body: Callable[[dict[Axis, Expr]], ir.Block]) -> ir.Block:
        """Loops over the rows of a task."""
        rows: dict[Axis, Expr] = {}
        nest: ir.Loops = ()
        checks: list[Expr] = []
        for axis in self.rows:
            rows[axis], loops = self.conv.binding.loop(axis.name, self.length(axis, self.cut.rows))
            nest += loops
            checks += self.conditions(axis, rows[axis])
        return ir.loop_nest(nest, guarded(checks, body(rows)))

    def over_line(self, body: Callable[[Expr, int], ir.Block]) -> ir.Block:
        """Loops over the blocks of a line; what is behind the last whole one is the last task's."""
        result: ir.Block = ()
        task, of = self.tasks[self.band]
        cuts = self.band is self.line and of > 1
        for number, span in enumerate(self.spans(self.line)):
            count, start = span.count, span.start
            conditions: list[Expr] = []
            if cuts and number == 0:
                count = self.cut.rows
            var, loops = self.conv.binding.loop(self.line.name, count)
            if cuts and number:
                start -= (of - 1) * self.length_of_band
                conditions = [task >= of - 1]
            elif span.count % count:
                conditions = [task * count + var < span.count]
            inside = body(var * span.length + start, span.length)
            result += ir.loop_nest(loops, guarded(conditions, inside))
        return result

    @property
    def length_of_band(self) -> int:
        """Places between the first ones of neighbouring bands."""
        return self.cut.rows * self.spans(self.band)[0].length

    def tiles(self, body: Callable[[Block, Expr], ir.Block]) -> ir.Block:
        """All tiles of a task, and the number of the panel each is in."""
        conv = self.conv
        lengths = {conv.group: 1, conv.batch: 1, conv.channel: self.tiling.columns.length}

        def of_panel(panel: Expr) -> ir.Block:
            start: dict[Axis, Expr] = dict.fromkeys((conv.group, conv.batch), ir.index(0))
            start[conv.channel] = panel * self.part.form.panel

            def of_rows(rows: dict[Axis, Expr]) -> ir.Block:
                def of_line(place: Expr, length: int) -> ir.Block:
                    block = Block(
                        {**start, **rows, self.line: place},
                        {**lengths, **dict.fromkeys(rows, 1), self.line: length},
                    )
                    return self.over_batch(block, lambda b: body(b, panel))

                return self.over_line(of_line)

            return self.over_rows(of_rows)

        return self.over_panels(of_panel)

    def over_batch(self, block: Block, body: Callable[[Block], ir.Block]) -> ir.Block:
        """Loops over blocks of samples, where tiles lie across them."""
        if not self.joins_batch:
            return body(block)
        batch = self.conv.batch
        result: ir.Block = ()
        for span in self.spans(batch):
            var, loops = self.conv.binding.loop(batch.name, span.count)
            one = Block({batch: var * span.length + span.start}, {batch: span.length})
            result += ir.loop_nest(loops, body(block | one))
        return result

    def absolute(self, place: Place) -> dict[Axis, Expr]:
        """A place of the result."""
        return {axis: self.origin[axis] + place[axis] for axis in self.part.form.outputs}

    # -- the input --------------------------------------------------------------------------------

    @cached_property
    def copied(self) -> Buffer | None:
        """The input of a task, with zeros around: [block][*places][channel]."""
        if not self.is_copied:
            return None
        places = (reach.size for reach in self.reaches(self.cut.rows))
        shape = (self.blocks[1], *places, self.conv.source_shape[-1])
        return self.conv.binding.local("band", shape, self.conv.dtype, Space.STACK)

    @cached_property
    def blocks(self) -> tuple[Expr, int]:
        """The first block of channels that a task reads at a time, and how many it reads."""
        conv = self.conv
        block, total = conv.source_shape[-1], conv.source_shape[1]
        if conv.is_depthwise:
            first, count = self.origin[conv.channel], self.cut.panels * self.part.form.panel
        else:
            first = self.origin[conv.group] * conv.channels + self.first_unit * conv.unit
            count = conv.channels if self.units == 1 else self.cut.units * conv.unit
        aligned = conv.channels % block == 0 or block % conv.channels == 0
        blocks = -(-count // block) + (not (aligned or conv.is_depthwise))
        if blocks >= total:
            return ir.index(0), total
        start, _ = divided(first, block)
        if conv.is_depthwise or not aligned:
            start = ir.minimum(start, total - blocks)
        return start, blocks

    def copy(self) -> ir.Block:
        """Fills the band."""
        band, conv = self.copied, self.conv
        if band is None:
            return ()
        binding, channels = conv.binding, conv.source_shape[-1]
        first, count = self.blocks
        zero: Expr = ir.Const(0.0, band.dtype)
        block = binding.var("b")

        def fill(rows: list[tuple[Expr, Expr]], run: Run, inside: bool) -> ir.Block:
            column, lane = binding.var("i"), binding.var("v")
            to, start = run.place(column)
            elements, x = binding.elements(), zero
            if inside:
                sample = self.origin[conv.batch]
                index = (sample, first + block, *(s for _, s in rows), start, lane)
                x = elements.at(conv.source, index)
            store = ir.Store(band, (block, *(p for p, _ in rows), to, lane), x)
            wide = channels > 1
            loops = [(column, run.length, not wide), (lane, channels, wide)]
            body: ir.Block = (*elements.take_block(), store)
            for var, extent, vector in reversed(loops):
                kind = LoopKind.VECTOR if vector else LoopKind.SERIAL
                body = (ir.For(var, extent, body, kind, conv.lanes if vector else 1),)
            return body

        writer = WindowCopy(
            self.copied_reaches(),
            lambda rows, run: fill(list(rows), run, True),
            lambda rows, run: fill(list(rows), run, False),
            binding.var,
        )
        body = writer.write([self.origin[axis] for axis in self.part.outputs])
        return (ir.For(block, count, body),)

    def read(self, place: Place, major: Expr, minor: Expr) -> Expr:
        """The input that a tap of a result reads."""
        outputs, taps = self.part.outputs, self.part.taps
        if self.copied is not None:
            reaches = self.reaches(self.cut.rows)
            places = tuple(
                reach.place(place[o], place[t])
                for reach, o, t in zip(reaches, outputs, taps, strict=True)
            )
            return ir.Load(self.copied, (major - self.blocks[0], *places, minor))
        scalar = self.conv.binding.elements().scalar(self.conv.source)
        if scalar is not None:
            return scalar
        there = self.absolute(place)
        places = tuple(
            slide.input_place(there[o], place[t])
            for slide, o, t in zip(self.part.slides, outputs, taps, strict=True)
        )
        source = self.conv.binding.inputs[self.conv.source]
        return ir.Load(source, (there[self.conv.batch], major, *places, minor))

    # -- sums -------------------------------------------------------------------------------------

    def multiply(self, tile: Block, place: Place) -> Expr:
        """One product."""
        conv, taps = self.conv, self.part.taps
        kernel = (s.kernel_place(place[t]) for s, t in zip(self.part.slides, taps, strict=True))
        start = self.origin[conv.channel] + tile.start[conv.channel]
        column = place[conv.channel] - tile.start[conv.channel]
        group, block = self.origin[conv.group], conv.source_shape[-1]
        depth: Expr = ir.index(0)
        if conv.is_depthwise:
            major, minor = divided(start + column, block)
        else:
            unit = self.first_unit + place[conv.depth]
            major, minor = divided(group * conv.channels + unit * conv.unit, block)
            minor = minor + place[conv.within]
            depth = unit * conv.unit + place[conv.within]
        x = self.read(place, major, minor)
        panel, _ = divided(start, self.part.form.panel)
        w = conv.weight_of((group, panel, depth, *kernel, column))
        return ir.binary(ir.BinaryOp.MUL, x, w)

    def compute(self, tile: Block, panel: Expr) -> ir.Block:
        """One tile."""
        conv = self.conv

        def write(x: Expr, place: Place) -> ir.Block:
            if self.sums is None:
                return self.store(x, place)
            index = self.kept(panel, place, place[conv.channel] - tile.start[conv.channel])
            if self.chunks == 1:
                body, x = self.keep(x, place)
                return (*body, ir.Store(self.sums, index, x))
            return (ir.Accumulate(self.sums, index, ReduceOp.ADD, x),)

        chunk = {} if conv.is_depthwise else {conv.depth: (ir.index(0), self.depth_of_chunk)}
        return register_tile(
            conv.binding,
            self.part.form,
            conv.dtype,
            tile,
            lambda place: self.multiply(tile, place),
            write,
            chunk,
            exact=conv.is_depthwise,
            stored=conv.stored if self.sums is None and conv.stored > 1 else 0,
            ahead=lambda place: ask_ahead(self, tile, panel, place),
        )

    @property
    def depth_of_chunk(self) -> int:
        return self.cut.units if self.units > 1 else self.conv.depth.extent

    def store(self, x: Expr, place: Place) -> ir.Block:
        """The epilogue of a result."""
        index = self.conv.index(self.part, self.absolute(place))
        return store_results(self.conv.binding, {self.conv.result: x}, index)

    @cached_property
    def sums(self) -> Buffer | None:
        """Sums of a task in memory: [panel][*rows][place][column]."""
        if self.chunks == 1 and not self.keeps_sums:
            return None
        places = (self.length(axis, self.cut.rows) for axis in self.part.outputs)
        width = self.part.form.whole(self.tiling.columns.length)
        shape: Shape = (self.cut.panels, *places, width)
        return self.conv.binding.local("sums", shape, self.conv.dtype, Space.STACK)

    def kept(self, panel: Expr, place: Place, column: Expr) -> Index:
        """Index into `sums`."""
        return (panel, *(place[axis] for axis in self.part.outputs), column)

    def clear_sums(self) -> ir.Block:
        """Zeros in the sums, where they are not stored at once."""
        sums = self.sums
        if sums is None or self.chunks == 1:
            return ()
        *outer, lane = (self.conv.binding.var("s") for _ in sums.shape)
        zero = ir.Store(sums, (*outer, lane), ir.Const(0.0, sums.dtype))
        row = ir.For(lane, sums.shape[-1], (zero,), LoopKind.VECTOR, self.conv.lanes)
        return ir.loop_nest(tuple(zip(outer, sums.shape[:-1], strict=True)), (row,))

    def keep(self, x: Expr, place: Place) -> tuple[ir.Block, Expr]:
        """What is kept in memory of the sum of a result."""
        return (), x

    def finish(self) -> ir.Block:
        """The epilogue of sums in memory."""
        sums = self.sums
        assert sums is not None
        return self.over_sums(lambda place, index: self.store(ir.Load(sums, index), place))

    def over_sums(self, body: Callable[[Place, Index], ir.Block]) -> ir.Block:
        """All sums in memory: their places, and where they are."""
        conv, lane = self.conv, self.conv.binding.var("v")
        width = self.tiling.columns.length
        columns = Columns(width, max(1, min(conv.lanes, conv.stored)), conv.dtype)

        def pixel(tile: Block, panel: Expr) -> ir.Block:
            number, loops = conv.binding.loop(self.line.name, tile.length[self.line])
            at = {**tile.start, self.line: tile.start[self.line] + number}

            def part(first: int) -> ir.Block:
                place = {**at, conv.channel: at[conv.channel] + (lane + first)}
                return body(place, self.kept(panel, place, lane + first))

            inside = columns.each(lane, {first: part(first) for first, _ in columns.parts})
            return ir.loop_nest(loops, inside)

        return self.tiles(pixel)
