"""The tasks of a convolution in blocks of channels: their loops, and what they keep on the stack.

Inside of a task, places along the axes of the result count from the task's first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..types import Shape
from .ahead import ask_ahead
from .block_index import divided
from .blocked_band import Band
from .blocked_extent import Extents
from .contraction import Axis, Block, Place, register_tile
from .epilogue import store_results
from .index import Index
from .tile import Columns
from .windows import guarded


@dataclass
class Tasks(Extents):
    """The tasks of all results that are computed in tiles of one width."""

    loops: ir.Loops = ()

    # -- places -----------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> dict[Axis, Expr]:
        """The variables of the parallel loops."""
        found: dict[Axis, Expr] = {}
        for axis, count in self.counts.items():
            found[axis], loops = self.conv.binding.loop(axis.name, count)
            self.loops += loops
        return found

    @cached_property
    def origin(self) -> dict[Axis, Expr]:
        """The first place of the task along each axis."""
        found: dict[Axis, Expr] = dict.fromkeys(self.part.form.outputs, ir.index(0))
        found |= self.tasks
        for axis in (*self.rows, self.band):
            found[axis] = self.first(axis, self.tasks[axis])
        channel = self.tasks[self.conv.channel] * (self.cut.panels * self.part.form.panel)
        found[self.conv.channel] = channel + self.tiling.columns.start
        return found

    @cached_property
    def chunk(self) -> ir.Var:
        """Which of the chunks of input channels."""
        return self.conv.binding.var("chunk")

    @cached_property
    def first_unit(self) -> Expr:
        return self.chunk * self.cut.units if self.chunks > 1 else ir.index(0)

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

    def absolute(self, place: Place) -> dict[Axis, Expr]:
        """A place of the result."""
        return {axis: self.origin[axis] + place[axis] for axis in self.part.form.outputs}

    @cached_property
    def input(self) -> Band:
        """What a task reads."""
        return Band(self)

    # -- loops ------------------------------------------------------------------------------------

    def lower(self) -> ir.Block:
        """All tasks."""
        if not self.bands():
            return ()
        step = (*self.input.copy(), *self.tiles(self.compute))
        if self.sums is None:
            body = step
        else:
            body = (ir.Alloc(self.sums), *self.clear_sums(), *self.over_chunks(step))
            body += self.finish()
        if self.input.buffer is not None:
            body = (ir.Alloc(self.input.buffer), *body)
        return ir.loop_nest(self.loops, body, LoopKind.PARALLEL)

    def over_chunks(self, step: ir.Block) -> ir.Block:
        return (ir.For(self.chunk, self.chunks, step),) if self.chunks > 1 else step

    def over_panels(self, body: Callable[[Expr], ir.Block]) -> ir.Block:
        """Loops over the panels of a task."""
        count, panels = self.tiling.columns.count, self.cut.panels
        panel, loops = self.conv.binding.loop("panel", panels)
        inside = body(panel)
        if count % panels:
            task = self.tasks[self.conv.channel]
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
        task, of = self.tasks[self.band], self.counts[self.band]
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
        x = self.input.read(place, major, minor)
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
